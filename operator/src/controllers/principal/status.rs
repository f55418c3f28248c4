//! Step five: the status of a principal.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, ResourceExt};
use mcp_fleet_core::shared_state::verdict::Verdict;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition};
use mcp_fleet_crds::principal::Credential;
use mcp_fleet_crds::{MCPPrincipal, MCPPrincipalStatus};

use super::apply::{Applied, Issued};
use super::dereference::secret_name;
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::outcome::{Outcome, Rejection, Until};
use crate::controllers::status::{self, Progress, Summary};

/// Writes the status of a principal after a reconcile. Returns when to reconcile again, if the status is held back.
pub(super) async fn write(
    ctx: &Context,
    object: &MCPPrincipal,
    outcome: &Outcome<Applied>,
) -> Result<Option<Duration>, ReconcileError> {
    let api: Api<MCPPrincipal> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
    let next = status(object, outcome, Timestamp::now());
    let progress = match outcome {
        Outcome::Applied(_) if has_successor(object, &next) => Progress::Settled,
        Outcome::Applied(applied) => applied.enforcement.progress(object.metadata.generation),
        Outcome::Rejected(rejection) if rejection.until == Until::Prepared => Progress::Pending,
        _ => Progress::Settled,
    };
    status::write(ctx, &api, object, next, progress).await
}

/// Whether the credential in the status has a successor. Its serial is written at once: if someone deleted the Secret, a
/// serial that is not in the status would be used again.
fn has_successor(object: &MCPPrincipal, next: &MCPPrincipalStatus) -> bool {
    let before = object.status.as_ref().and_then(|status| status.credential.as_ref());
    before.is_some_and(|before| next.credential.as_ref().is_none_or(|next| next.serial != before.serial))
}

/// Returns the status that follows from the outcome of a reconcile. Pure.
fn status(object: &MCPPrincipal, outcome: &Outcome<Applied>, now: Timestamp) -> MCPPrincipalStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let (summary, others, credential) = match outcome.applied() {
        Ok(applied) => {
            let policy = applied.enforcement.policy_current(generation);
            let summary = summary(applied, &policy);
            let others = vec![
                NewCondition::yes(ConditionType::Accepted, Reason::Reconciled, ""),
                resolved(applied.enforcement.verdict()),
                credential_current(applied.issued),
                revocation(applied.principal.revoke_issued_before, applied.revoked_until, now),
                policy,
            ];
            let issued = applied.issued.map(|issued| describe(&applied.principal.id.name, issued));
            (summary, others, issued.or(before.credential))
        }
        Err(summary) => (summary, outcome.rejection().map(not_accepted).into_iter().collect(), before.credential),
    };
    let conditions = status::conditions(&before.conditions, &summary, others, generation, now);
    MCPPrincipalStatus { observed_generation: generation, credential, conditions }
}

fn not_accepted(Rejection { reason, message, .. }: &Rejection) -> NewCondition {
    let kind =
        if *reason == Reason::SecretNotOwned { ConditionType::CredentialCurrent } else { ConditionType::Accepted };
    NewCondition::no(kind, *reason, message)
}

fn credential_current(issued: Option<Issued>) -> NewCondition {
    let kind = ConditionType::CredentialCurrent;
    match issued {
        Some(issued) => NewCondition::yes(kind, Reason::Issued, format!("token {} is good", issued.serial)),
        None => NewCondition::no(
            kind,
            Reason::Progressing,
            "the revocation's second has to pass before a new token is issued",
        ),
    }
}

fn describe(name: &str, issued: Issued) -> Credential {
    let time = |second| Time(Timestamp::from_second(second).unwrap_or(Timestamp::MAX));
    Credential {
        secret_name: secret_name(name),
        serial: issued.serial,
        issued_at: time(issued.iat),
        rotates_at: time(issued.rotates_at),
        expires_at: time(issued.expires_at),
    }
}

fn resolved(verdict: Option<&Verdict>) -> NewCondition {
    let kind = ConditionType::ResolvedRefs;
    match verdict {
        None => NewCondition::unknown(kind, Reason::Progressing, "the policy is being compiled"),
        Some(verdict) if verdict.ok => NewCondition::yes(kind, Reason::Resolved, ""),
        Some(verdict) => NewCondition::no(kind, verdict.reason, &verdict.message),
    }
}

/// Returns the condition `RevocationApplied`: `revokeIssuedBefore` is in force, not set, or takes effect in the future.
fn revocation(requested: Option<Timestamp>, revoked_until: Option<i64>, now: Timestamp) -> NewCondition {
    let kind = ConditionType::RevocationApplied;
    if let Some(requested) = requested.filter(|requested| *requested > now) {
        let message = format!(
            "revokeIssuedBefore takes effect at {requested}: then, tokens issued until that time are refused, and until then, all tokens stay valid; to revoke tokens at once, set a time that has passed"
        );
        return NewCondition::no(kind, Reason::InFuture, message);
    }
    match revoked_until.and_then(|until| Timestamp::from_second(until).ok()) {
        Some(until) => NewCondition::yes(kind, Reason::Applied, format!("tokens issued until {until} are refused")),
        None => NewCondition::no(kind, Reason::NotRequested, ""),
    }
}

fn summary(applied: &Applied, policy: &NewCondition) -> Summary {
    if let Some(verdict) = applied.enforcement.rejected() {
        return Summary::Stalled(verdict.reason, verdict.message.clone());
    }
    if applied.issued.is_none() {
        return Summary::Reconciling(Reason::Progressing, "a new token is issued in a second".into());
    }
    if policy.status != Some(true) {
        return Summary::Reconciling(policy.reason, policy.message.clone());
    }
    if applied.principal.suspended {
        return Summary::Ready(Reason::Suspended, "suspended: every call is refused".into());
    }
    Summary::Ready(Reason::Reconciled, "the token is good, and its grants are enforced".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_revocation_in_the_future_is_reported_as_not_applied() {
        let now = at("2026-11-22T12:00:00Z");
        let future = revocation(Some(at("2026-11-22T13:00:00Z")), None, now);
        assert_eq!((future.status, future.reason), (Some(false), Reason::InFuture));
        assert!(future.message.contains("takes effect at 2026-11-22T13:00:00Z"), "{}", future.message);
        let past = revocation(Some(at("2026-11-22T11:00:00Z")), Some(at("2026-11-22T11:00:00Z").as_second()), now);
        assert_eq!((past.status, past.reason), (Some(true), Reason::Applied));
    }

    #[test]
    fn a_revocation_stays_applied_when_it_is_removed_from_the_spec() {
        let removed = revocation(None, Some(100), at("2026-11-22T12:00:00Z"));
        assert_eq!(removed.status, Some(true));
    }

    #[test]
    fn a_scope_that_is_missing_is_not_resolved() {
        let verdict = Verdict {
            ok: false,
            reason: Reason::ScopeNotFound,
            message: "scope files-read does not exist".into(),
            object_generation: 1,
        };
        assert_eq!(resolved(Some(&verdict)).status, Some(false));
    }
}
