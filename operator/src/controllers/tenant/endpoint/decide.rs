//! Decides which public name a tenant has: when the wanted one is taken into use, and when one is given up. Pure: the
//! clock is an argument.
//!
//! A name in use is given up only for another one that can be used at once, or because the spec has none any more. So
//! neither a broken certificate nor a gateway that is away changes what credentials are issued for.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mcp_fleet_core::public_name::{Names, origin};
use mcp_fleet_core::shared_state::verdict::NameState;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition};
use mcp_fleet_crds::tenant::FormerUrl;
use mcp_fleet_policy::units::limits;

use super::certificate::Problem;
use super::{READ_INTERVAL, RETRY_INTERVAL};

/// How long a former name is accepted beyond the life of its last token: for clocks that differ, and until the principals'
/// controller has seen that the name is not in use any more.
const MARGIN: i64 = 600;

/// What the decision depends on.
#[derive(Clone, Debug)]
pub(super) struct Situation<'a> {
    pub names: Names<'a>,
    /// Another tenant that has the wanted name.
    pub holder: Option<String>,
    /// Why there is no certificate for the wanted name; none if there is one.
    pub problem: Option<Problem>,
    /// How far the gateways are with the wanted name; none while gateways may not have found this leader yet.
    pub gateways: Option<NameState>,
    /// Whether the condition `EndpointReady` is True.
    pub was_ready: bool,
    pub now: Timestamp,
}

/// The public names of a tenant from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The name in use.
    pub public_name: Option<String>,
    /// Names that were in use before.
    pub former_urls: Vec<FormerUrl>,
    /// The condition `EndpointReady`; none without a public name.
    pub condition: Option<NewCondition>,
    /// When to decide again, although nothing changed.
    pub check_in: Option<Duration>,
}

impl Situation<'_> {
    /// Whether the wanted name may be accepted and served.
    pub(super) fn can_use_wanted(&self) -> bool {
        let Names { wanted, in_use, .. } = self.names;
        wanted.is_some() && (wanted == in_use || self.holder.is_none() && self.live().has_room(wanted))
    }

    /// Returns the names without those that are not accepted any more.
    fn live(&self) -> LiveNames<'_> {
        let former = self.names.former.iter().filter(|former| former.accepted_until.0 > self.now).cloned().collect();
        LiveNames { names: self.names, former }
    }
}

/// The names of a tenant, of which the former ones are still accepted.
struct LiveNames<'a> {
    names: Names<'a>,
    former: Vec<FormerUrl>,
}

impl LiveNames<'_> {
    fn has_room(&self, next: Option<&str>) -> bool {
        Names { former: &self.former, ..self.names }.has_room(next)
    }

    /// Puts another name into use, or none, and returns what is accepted besides.
    fn replaced_by(mut self, next: Option<&str>, now: Timestamp) -> Vec<FormerUrl> {
        // At most one of each: a name in use is not a former one.
        self.former.retain(|former| Some(&former.url) != next.map(origin).as_ref());
        if let Some(old) = self.names.in_use {
            let url = origin(old);
            self.former.retain(|former| former.url != url);
            self.former.push(FormerUrl { url, accepted_until: accepted_until(now) });
        }
        self.former
    }
}

/// Returns until when tokens for a name are accepted that is given up now. The longest lifetime that the API admits counts,
/// because the tenant's own may have been longer when the last token was issued.
fn accepted_until(now: Timestamp) -> Time {
    let longest = i64::try_from(limits::TOKEN_LIFETIME.max.get().as_secs()).unwrap_or(i64::MAX);
    let until = now.as_second().saturating_add(longest).saturating_add(MARGIN);
    Time(Timestamp::from_second(until).unwrap_or(Timestamp::MAX))
}

/// Decides which public name a tenant has from now on.
pub(super) fn decide(situation: &Situation<'_>) -> Decision {
    let Situation { names, now, .. } = situation;
    let live = situation.live();
    let in_use = names.in_use.map(str::to_owned);
    let (public_name, former_urls, condition) = match names.wanted {
        None if names.in_use.is_none() => (None, live.former, None),
        None if live.has_room(None) => (None, live.replaced_by(None, *now), None),
        None => (in_use, live.former, Some(not_ready(too_many(names)))),
        Some(wanted) => match obstacle(situation, wanted) {
            Some(problem) => (in_use, live.former, Some(not_ready(problem))),
            None if names.in_use == Some(wanted) => (in_use, live.former, Some(ready(wanted))),
            None => (Some(wanted.to_owned()), live.replaced_by(Some(wanted), *now), Some(ready(wanted))),
        },
    };
    let check_in = check_in(situation, condition.as_ref(), &former_urls);
    Decision { public_name, former_urls, condition, check_in }
}

/// Returns why the wanted name cannot be used now.
fn obstacle(situation: &Situation<'_>, wanted: &str) -> Option<Problem> {
    let Situation { names, holder, problem, gateways, was_ready, .. } = situation;
    let is_in_use = names.in_use == Some(wanted);
    if let Some(holder) = holder.as_ref().filter(|_| !is_in_use) {
        let message = format!(
            "the MCPTenant {holder} has {wanted}, or tokens for it are still accepted there; choose another name, or \
             remove it there and wait until its status.formerUrls does not list it any more"
        );
        return Some(Problem { reason: Reason::HostnameTaken, message });
    }
    if let Some(problem) = problem {
        return Some(problem.clone());
    }
    if !is_in_use && !situation.live().has_room(Some(wanted)) {
        return Some(too_many(names));
    }
    let message = match gateways {
        Some(NameState::Served) => return None,
        // A new leader keeps what the one before it saw.
        None if is_in_use && *was_ready => return None,
        None | Some(NameState::NoGateway) => "no gateway is connected",
        Some(NameState::NotAccepted) => {
            "a gateway has not acknowledged a policy that accepts tokens for the name yet, or has an earlier version, which \
             cannot"
        }
        Some(NameState::NotServed) => {
            "a gateway does not serve the certificate yet; its pod mounts it within about a minute"
        }
    };
    Some(Problem { reason: Reason::AwaitingGateway, message: message.into() })
}

fn too_many(names: &Names<'_>) -> Problem {
    let next = names.former.iter().map(|former| former.accepted_until.0).min().unwrap_or_default();
    let message = format!(
        "status.formerUrls is full, and tokens for each of them may be valid; the name in use stays until {next}, when the \
         first is not accepted any more"
    );
    Problem { reason: Reason::TooManyFormerNames, message }
}

fn ready(name: &str) -> NewCondition {
    let message = format!("every gateway serves https://{name}");
    NewCondition::yes(ConditionType::EndpointReady, Reason::Serving, message)
}

fn not_ready(Problem { reason, message }: Problem) -> NewCondition {
    NewCondition::no(ConditionType::EndpointReady, reason, message)
}

/// Returns when to decide again: when a former name ends, and in any case while there is a certificate to be read.
fn check_in(situation: &Situation<'_>, condition: Option<&NewCondition>, former: &[FormerUrl]) -> Option<Duration> {
    let now = situation.now;
    let ends = former.iter().map(|former| former.accepted_until.0.as_second().saturating_sub(now.as_second()));
    let ends = ends.filter_map(|seconds| u64::try_from(seconds).ok()).map(|seconds| Duration::from_secs(seconds + 1));
    let is_ready = condition.is_some_and(|condition| condition.status == Some(true));
    let read = situation.names.wanted.map(|_| if is_ready { READ_INTERVAL } else { RETRY_INTERVAL });
    ends.chain(read).min()
}

#[cfg(test)]
mod tests {
    use mcp_fleet_crds::tenant::MAX_FORMER_URLS;

    use super::*;

    const NEW: &str = "new.example.com";
    const OLD: &str = "old.example.com";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn now() -> Timestamp {
        at("2026-11-22T12:00:00Z")
    }

    fn former(names: &[&str], until: &str) -> Vec<FormerUrl> {
        names.iter().map(|name| FormerUrl { url: origin(name), accepted_until: Time(at(until)) }).collect()
    }

    /// A tenant that wants a name for which everything is ready.
    fn situation<'a>(wanted: Option<&'a str>, in_use: Option<&'a str>, former: &'a [FormerUrl]) -> Situation<'a> {
        Situation {
            names: Names { wanted, in_use, former },
            holder: None,
            problem: None,
            gateways: Some(NameState::Served),
            was_ready: false,
            now: now(),
        }
    }

    fn problem() -> Problem {
        Problem { reason: Reason::CertificateRefused, message: "renew it".into() }
    }

    /// Returns the name in use, the former URLs, and status and reason of the condition.
    fn decided(decision: &Decision) -> (Option<&str>, Vec<&str>, Option<(bool, Reason)>) {
        let former = decision.former_urls.iter().map(|former| former.url.as_str()).collect();
        let condition = decision.condition.as_ref().map(|one| (one.status == Some(true), one.reason));
        (decision.public_name.as_deref(), former, condition)
    }

    #[test]
    fn a_tenant_without_a_name_has_nothing_to_decide() {
        assert_eq!(decide(&situation(None, None, &[])), Decision::default());
    }

    #[test]
    fn a_name_is_taken_into_use_only_when_every_gateway_serves_it() {
        for (gateways, taken) in [
            (None, false),
            (Some(NameState::NoGateway), false),
            (Some(NameState::NotAccepted), false),
            (Some(NameState::NotServed), false),
            (Some(NameState::Served), true),
        ] {
            let decision = decide(&Situation { gateways, ..situation(Some(NEW), None, &[]) });
            let reason = if taken { Reason::Serving } else { Reason::AwaitingGateway };
            assert_eq!(decided(&decision), (taken.then_some(NEW), vec![], Some((taken, reason))), "{gateways:?}");
            let wait = if taken { READ_INTERVAL } else { RETRY_INTERVAL };
            assert_eq!(decision.check_in, Some(wait));
        }
    }

    #[test]
    fn nothing_that_goes_wrong_gives_up_a_name_in_use() {
        let same = situation(Some(OLD), Some(OLD), &[]);
        let away = Situation { gateways: Some(NameState::NoGateway), ..same.clone() };
        assert_eq!(decided(&decide(&away)), (Some(OLD), vec![], Some((false, Reason::AwaitingGateway))));
        let refused = Situation { problem: Some(problem()), ..same.clone() };
        assert_eq!(decided(&decide(&refused)), (Some(OLD), vec![], Some((false, Reason::CertificateRefused))));
        assert_eq!(decided(&decide(&same)), (Some(OLD), vec![], Some((true, Reason::Serving))));
        // Someone else wants it too: who has it keeps it.
        let wanted = Situation { holder: Some("beta".into()), ..same };
        assert_eq!(decided(&decide(&wanted)), (Some(OLD), vec![], Some((true, Reason::Serving))));
    }

    #[test]
    fn a_new_leader_keeps_the_condition_until_gateways_had_the_time_to_find_it() {
        let waiting = Situation { gateways: None, ..situation(Some(OLD), Some(OLD), &[]) };
        assert_eq!(decided(&decide(&waiting)).2, Some((false, Reason::AwaitingGateway)));
        let was_ready = Situation { was_ready: true, ..waiting };
        assert_eq!(decided(&decide(&was_ready)).2, Some((true, Reason::Serving)));
        // Another name is not taken into use meanwhile.
        let change = Situation { was_ready: true, gateways: None, ..situation(Some(NEW), Some(OLD), &[]) };
        assert_eq!(decided(&decide(&change)), (Some(OLD), vec![], Some((false, Reason::AwaitingGateway))));
    }

    #[test]
    fn a_name_is_replaced_only_by_one_that_can_be_used_at_once() {
        let change = situation(Some(NEW), Some(OLD), &[]);
        for (stopped, reason) in [
            (Situation { problem: Some(problem()), ..change.clone() }, Reason::CertificateRefused),
            (Situation { holder: Some("beta".into()), ..change.clone() }, Reason::HostnameTaken),
            (Situation { gateways: Some(NameState::NotServed), ..change.clone() }, Reason::AwaitingGateway),
        ] {
            assert_eq!(decided(&decide(&stopped)), (Some(OLD), vec![], Some((false, reason))));
        }
        let changed = decide(&change);
        assert_eq!(decided(&changed), (Some(NEW), vec!["https://old.example.com"], Some((true, Reason::Serving))));
        // 168 hours and ten minutes later.
        assert_eq!(changed.former_urls[0].accepted_until.0, at("2026-11-29T12:10:00Z"));
    }

    #[test]
    fn a_name_that_is_removed_stays_accepted_for_the_longest_life_of_a_token() {
        let removed = decide(&situation(None, Some(OLD), &[]));
        assert_eq!(decided(&removed), (None, vec!["https://old.example.com"], None));
        let until = removed.former_urls[0].accepted_until.0;
        let longest = limits::TOKEN_LIFETIME.max.get();
        assert!(until.duration_since(now()) > jiff::SignedDuration::try_from(longest).unwrap());
        let later = |seconds: i64| Situation {
            now: Timestamp::from_second(until.as_second() + seconds).unwrap(),
            ..situation(None, None, &removed.former_urls)
        };
        let before = decide(&later(-10));
        assert_eq!((before.former_urls.len(), before.check_in), (1, Some(Duration::from_secs(11))));
        assert_eq!(decide(&later(0)), Decision::default());
    }

    #[test]
    fn a_name_that_returns_is_not_a_former_one_any_more() {
        let list = former(&[NEW, "other.example.com"], "2026-11-25T00:00:00Z");
        let returned = decide(&situation(Some(NEW), Some(OLD), &list));
        let expected = vec!["https://other.example.com", "https://old.example.com"];
        assert_eq!(decided(&returned), (Some(NEW), expected, Some((true, Reason::Serving))));
        assert_eq!(returned.former_urls[0].accepted_until, list[1].accepted_until);
    }

    #[test]
    fn no_former_name_is_forgotten_before_its_time() {
        let names: Vec<String> = (0..MAX_FORMER_URLS).map(|number| format!("{number}.example.com")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let full = former(&names, "2026-11-23T00:00:00Z");
        for wanted in [Some(NEW), None] {
            let stopped = decide(&situation(wanted, Some(OLD), &full));
            let (name, kept, condition) = decided(&stopped);
            assert_eq!((name, kept.len(), condition), (Some(OLD), 16, Some((false, Reason::TooManyFormerNames))));
            assert!(stopped.condition.unwrap().message.contains("2026-11-23T00:00:00Z"));
            // Once one has ended, there is room.
            let mut ended = full.clone();
            ended[3].accepted_until = Time(now());
            let changed = decide(&situation(wanted, Some(OLD), &ended));
            assert_eq!((changed.public_name.as_deref(), changed.former_urls.len()), (wanted, 16));
        }
        assert_eq!(decide(&situation(Some("0.example.com"), Some(OLD), &full)).former_urls.len(), 16);
    }

    #[test]
    fn a_certificate_is_copied_only_for_a_name_that_may_be_used() {
        assert!(situation(Some(NEW), Some(OLD), &[]).can_use_wanted());
        assert!(!Situation { holder: Some("beta".into()), ..situation(Some(NEW), None, &[]) }.can_use_wanted());
        assert!(Situation { holder: Some("beta".into()), ..situation(Some(OLD), Some(OLD), &[]) }.can_use_wanted());
        assert!(!situation(None, Some(OLD), &[]).can_use_wanted());
    }
}
