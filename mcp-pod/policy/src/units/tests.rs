//! Properties of all text forms: what has the form can be read, and what is written has the form.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use proptest::prelude::*;
use proptest::string::string_regex;

use super::*;

/// Generates texts that match the pattern of a form.
fn texts(form: &TextForm) -> impl Strategy<Value = String> + use<> {
    let pattern = form.pattern.strip_prefix('^').and_then(|pattern| pattern.strip_suffix('$')).unwrap();
    let max_length = form.max_length;
    string_regex(pattern).unwrap().prop_filter("the length", move |text| text.len() <= max_length)
}

/// Reads the text, writes the value, and reads it again.
fn reads_back<T>(text: &str) -> Result<(), TestCaseError>
where
    T: FromStr<Err = UnitError> + Clone + PartialEq + Debug + Into<String>,
{
    let value: T = text.parse().map_err(|error: UnitError| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(value.clone().into().parse::<T>(), Ok(value));
    Ok(())
}

proptest! {
    #[test]
    fn every_amount_of_the_form_is_read(text in texts(&micros::FORM)) {
        reads_back::<Micros>(&text)?;
        prop_assert!(text.parse::<Micros>().unwrap() <= Micros::MAX);
    }

    #[test]
    fn every_currency_of_the_form_is_read(text in texts(&micros::CURRENCY)) {
        reads_back::<Currency>(&text)?;
    }

    #[test]
    fn every_size_of_the_form_is_read(text in texts(&size::FORM)) {
        reads_back::<Bytes>(&text)?;
    }

    #[test]
    fn every_duration_of_the_form_is_read(text in texts(&window::FORM)) {
        let read: Window = text.parse().unwrap();
        let written = String::from(read);
        prop_assert!(window::FORM.admits(&written), "{written}");
        let again: Window = written.parse().unwrap();
        prop_assert!(again == read || read.get().as_secs() >= 100_000 * 3600);
    }

    #[test]
    fn every_amount_is_written_in_the_form(micros in any::<u64>()) {
        let written = String::from(Micros::new(micros));
        prop_assert_eq!(written.parse(), Ok(Micros::new(micros).min(Micros::MAX)));
    }

    #[test]
    fn every_duration_is_written_in_the_form(millis in any::<u64>()) {
        prop_assert!(String::from(Window::from_millis(millis)).parse::<Window>().is_ok());
    }
}

#[test]
fn the_largest_texts_of_each_form_are_read() {
    fn read<T: FromStr<Err = UnitError>>(texts: &[&str]) {
        for text in texts {
            assert!(text.parse::<T>().is_ok(), "{text} is not read");
        }
    }
    read::<Micros>(&["1000000000", "1000000000.000000", "999999999.999999"]);
    read::<Bytes>(&["9999999999Gi", "9999999999", "0"]);
    read::<Window>(&["99999h99999h99999h99999h", "99999ms99999ms99999ms99999ms", "0s"]);
}

#[test]
fn the_largest_amount_is_the_largest_of_the_form() {
    let written = |micros: u64| Micros::new(micros).to_string();
    let max = Micros::MAX.get();
    assert!(micros::FORM.admits(&written(max)));
    for larger in [max + 1, max + 1_000_000, max * 10] {
        assert!(!micros::FORM.admits(&written(larger)), "{larger}");
    }
}

#[test]
fn limits_of_settings_have_the_form_of_their_type() {
    fn check<T: Display + FromStr<Err = UnitError> + PartialEq + Debug + Copy + Ord>(Limits { min, max }: Limits<T>) {
        assert!(min < max);
        assert_eq!((min.to_string().parse(), max.to_string().parse()), (Ok(min), Ok(max)));
    }
    check(limits::CALL_TIMEOUT);
    check(limits::REQUEST_SIZE);
    check(limits::RESPONSE_SIZE);
    check(limits::TOKEN_LIFETIME);
    check(limits::STALE_AFTER);
}
