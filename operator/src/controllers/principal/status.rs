//! Step five: what is said about a principal.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use mcp_fleet_crds::condition::{ConditionReason as Reason, ConditionType, NewCondition};
use mcp_fleet_crds::principal::Credential;
use mcp_fleet_crds::{MCPPrincipal, MCPPrincipalStatus};

use super::apply::Issued;
use super::dereference::secret_name;
use super::validate::{Principal, Refusal};
use crate::context::Context;
use crate::controllers::error::ReconcileError;
use crate::controllers::status::{self, Summary};
use crate::shared_state::verdict::{TenantState, Verdict};

/// What the reconcile came to.
#[derive(Clone, Debug)]
pub(crate) enum Judged<'a> {
    /// It may have a credential.
    Applied {
        /// The principal.
        principal: &'a Principal,
        /// Its token; none while one cannot be issued yet.
        issued: Option<Issued>,
        /// The latch.
        revoked_until: Option<i64>,
        /// How far the tenant's policy is enforced.
        state: &'a TenantState,
        /// What the compiler made of the principal.
        verdict: Option<&'a Verdict>,
    },
    /// It may not.
    Refused(&'a Refusal),
    /// Something failed.
    Failed {
        /// The whole chain.
        message: String,
        /// Whether trying again will not help.
        stuck: bool,
    },
}

/// The status that follows from it.
pub(crate) fn status(object: &MCPPrincipal, judged: &Judged<'_>, now: Timestamp) -> MCPPrincipalStatus {
    let before = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let mut credential = before.credential.clone();
    let (summary, others) = match judged {
        Judged::Applied { principal, issued, revoked_until, state, verdict } => {
            if let Some(issued) = issued {
                credential = Some(describe(&principal.name, *issued));
            }
            let policy = status::policy_current(state, *verdict, generation);
            let others = vec![
                NewCondition::yes(ConditionType::Accepted, Reason::Reconciled, ""),
                resolved(*verdict),
                match issued {
                    Some(issued) => {
                        let message = format!("token {} is good", issued.serial);
                        NewCondition::yes(ConditionType::CredentialCurrent, Reason::Issued, message)
                    }
                    None => NewCondition::no(
                        ConditionType::CredentialCurrent,
                        Reason::Progressing,
                        "the revocation's second has to pass before a new token is issued",
                    ),
                },
                revocation(principal.revoke_issued_before, *revoked_until, now),
                policy.clone(),
            ];
            (summary(principal, *issued, *verdict, &policy), others)
        }
        Judged::Refused(refusal) => {
            let kind = if refusal.reason == Reason::SecretNotOwned {
                ConditionType::CredentialCurrent
            } else {
                ConditionType::Accepted
            };
            let summary = if refusal.waiting { Summary::Working } else { Summary::Stuck };
            let no = NewCondition::no(kind, refusal.reason, &refusal.message);
            (summary(refusal.reason, refusal.message.clone()), vec![no])
        }
        Judged::Failed { message, stuck: true } => (Summary::Stuck(Reason::Failed, message.clone()), vec![]),
        Judged::Failed { message, stuck: false } => (Summary::Working(Reason::Failed, message.clone()), vec![]),
    };
    let conditions = status::conditions(&before.conditions, &summary, others, generation, now);
    MCPPrincipalStatus { observed_generation: generation, credential, conditions }
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

/// What became of `revokeIssuedBefore`: in force, not asked for, or in the future and so not applied.
fn revocation(asked: Option<Timestamp>, revoked_until: Option<i64>, now: Timestamp) -> NewCondition {
    let kind = ConditionType::RevocationApplied;
    if let Some(asked) = asked.filter(|asked| *asked > now) {
        let message =
            format!("revokeIssuedBefore {asked} lies in the future and is not applied; set a time that has passed");
        return NewCondition::no(kind, Reason::InFuture, message);
    }
    match revoked_until.and_then(|until| Timestamp::from_second(until).ok()) {
        Some(until) => NewCondition::yes(kind, Reason::Applied, format!("tokens issued until {until} are refused")),
        None => NewCondition::no(kind, Reason::NotRequested, ""),
    }
}

fn summary(principal: &Principal, issued: Option<Issued>, verdict: Option<&Verdict>, policy: &NewCondition) -> Summary {
    if let Some(verdict) = verdict.filter(|verdict| !verdict.ok) {
        return Summary::Stuck(verdict.reason, verdict.message.clone());
    }
    if issued.is_none() {
        return Summary::Working(Reason::Progressing, "a new token is issued in a second".into());
    }
    if policy.status != Some(true) {
        return Summary::Working(policy.reason, policy.message.clone());
    }
    if principal.suspended {
        return Summary::Ready(Reason::Suspended, "suspended: every call is refused".into());
    }
    Summary::Ready(Reason::Reconciled, "the token is good, and its grants are enforced".into())
}

/// Writes it, if it is another than before.
pub(crate) async fn write(ctx: &Context, object: &MCPPrincipal, judged: &Judged<'_>) -> Result<(), ReconcileError> {
    let api = status::namespaced::<MCPPrincipal>(&ctx.client, &object.namespace().unwrap_or_default());
    status::publish(ctx, &api, object, status(object, judged, Timestamp::now())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_revocation_in_the_future_is_said_not_to_be_applied() {
        let now = at("2026-11-22T12:00:00Z");
        let future = revocation(Some(at("2026-11-22T13:00:00Z")), None, now);
        assert_eq!((future.status, future.reason), (Some(false), Reason::InFuture));
        let past = revocation(Some(at("2026-11-22T11:00:00Z")), Some(at("2026-11-22T11:00:00Z").as_second()), now);
        assert_eq!((past.status, past.reason), (Some(true), Reason::Applied));
    }

    #[test]
    fn a_revocation_that_was_taken_back_still_stands() {
        let taken_back = revocation(None, Some(100), at("2026-11-22T12:00:00Z"));
        assert_eq!(taken_back.status, Some(true));
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
