//! The format `date-time` as the API server reads it.

use std::sync::LazyLock;

use jiff::civil::Date;
use proptest::prelude::*;

use crate::pattern;

static TIME: LazyLock<regex::Regex> = LazyLock::new(|| {
    regex::Regex::new("^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$").unwrap()
});

/// Returns whether the API server admits a string as `format: date-time`: a translation of `IsDateTime` in
/// k8s.io/kube-openapi/pkg/validation/strfmt. It ignores everything after a second `t`, lets any character begin the
/// fraction, and does not bound the offset.
pub(crate) fn is_date_time(text: &str) -> bool {
    let text = text.to_lowercase();
    let mut parts = text.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    let in_range = |time: regex::Captures<'_>| &time[1] <= "23" && &time[2] <= "59" && &time[3] <= "59";
    date.len() == 10 && date.parse::<Date>().is_ok() && TIME.captures(time).is_some_and(in_range)
}

/// Generates what the format admits on its own, without a pattern beside it.
pub(crate) fn lenient() -> BoxedStrategy<String> {
    let day = "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])";
    let time = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](.[0-9]{1,12})?";
    pattern::matching(&format!("^{day}[Tt]{time}([zZ]|[+-][0-9]{{2}}:[0-9]{{2}})(t.{{0,3}})?$"))
}
