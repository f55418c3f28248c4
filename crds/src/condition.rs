//! Conditions: their types and reasons as closed sets, and how they are put together.
//!
//! Types follow what kstatus, Argo CD, Flux and `kubectl wait` understand. Every reason that the operator gives is
//! here; a new one is added here and nowhere else.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{Schema, SchemaGenerator};
use serde_json::json;

/// Declares an enum whose variants are their own names in the API.
macro_rules! names {
    ($(#[$outer:meta])* $enum:ident { $( $(#[$doc:meta])* $variant:ident, )* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $enum { $( $(#[$doc])* $variant, )* }

        impl $enum {
            /// Every one.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// The name in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => stringify!($variant), )* }
            }
        }
    };
}

names! {
    /// What a condition speaks of.
    ConditionType {
        /// The object is in force, as it is written.
        Ready,
        /// Work is going on; absent or False when there is none (kstatus).
        Reconciling,
        /// Nothing will change without someone's doing (kstatus).
        Stalled,
        /// What admission cannot see is in order: the namespace is claimed, the image allowed, the patterns compile.
        Accepted,
        /// Everything that is referred to exists.
        ResolvedRefs,
        /// Every gateway of the tenant enforces the policy that this object is part of.
        PolicyCurrent,
        /// The credential Secret holds a token that is good.
        CredentialCurrent,
        /// `revokeIssuedBefore` is in force.
        RevocationApplied,
        /// Nothing is left in this period.
        Exhausted,
    }
}

names! {
    /// Why a condition has its status.
    ConditionReason {
        /// Everything is as it is written.
        Reconciled,
        /// Work is going on.
        Progressing,
        /// The API server or another service refused or failed; it is tried again.
        Failed,
        /// The object is being deleted.
        Terminating,
        /// The object, its principal or its tenant is suspended.
        Suspended,
        /// The object contradicts itself in a way that admission could not see.
        InvalidSpec,
        /// No `MCPTenant` claims the namespace: nothing is created.
        NamespaceUnclaimed,
        /// An older `MCPTenant` claims the same namespace.
        Conflicted,
        /// The namespace exists already, and may not be adopted.
        NamespaceNotAdoptable,
        /// The tenant is not ready.
        TenantNotReady,
        /// The tenant's `images.allowed` does not cover the image.
        ImageNotAllowed,
        /// The tenant's `images.referencePolicy` wants a digest.
        ImageNotPinned,
        /// A tool has a price, and the tenant has no `spendLimit` that says the currency.
        CurrencyMissing,
        /// Not enough pods of the gateway are ready.
        GatewayUnavailable,
        /// Kubernetes has not counted the tenant's quota yet, and refuses new objects until it has.
        QuotaNotCounted,
        /// Not enough pods of the server are ready.
        WorkloadUnavailable,
        /// Everything that is referred to exists.
        Resolved,
        /// A scope that is referred to does not exist.
        ScopeNotFound,
        /// A server that is referred to does not exist.
        ServerNotFound,
        /// A tool or argument that the scope names is not in the server's catalogue.
        ToolNotFound,
        /// A principal or server that the budget names does not exist.
        TargetNotFound,
        /// Every gateway has acknowledged the newest policy.
        Enforced,
        /// A gateway has not acknowledged the newest policy yet.
        AwaitingAcknowledgement,
        /// A gateway refused the policy; the one before stays in force.
        PolicyRefused,
        /// The policy could not be compiled or published; the one before stays in force.
        PolicyNotPublished,
        /// The token is good.
        Issued,
        /// A Secret of that name exists, and is not ours.
        SecretNotOwned,
        /// The revocation is in force.
        Applied,
        /// There is nothing to revoke.
        NotRequested,
        /// `revokeIssuedBefore` lies in the future, and is not applied.
        InFuture,
        /// There is room in this period.
        WithinLimit,
        /// There is no room left in this period.
        LimitReached,
    }
}

/// A condition that is to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCondition {
    /// What it speaks of.
    pub kind: ConditionType,
    /// True, False, or Unknown where absent.
    pub status: Option<bool>,
    /// Why.
    pub reason: ConditionReason,
    /// What to do, for a person.
    pub message: String,
}

impl NewCondition {
    /// A condition that holds.
    pub fn yes(kind: ConditionType, reason: ConditionReason, message: impl Into<String>) -> Self {
        Self { kind, status: Some(true), reason, message: message.into() }
    }

    /// A condition that does not hold.
    pub fn no(kind: ConditionType, reason: ConditionReason, message: impl Into<String>) -> Self {
        Self { kind, status: Some(false), reason, message: message.into() }
    }

    /// A condition of which nothing is known.
    pub fn unknown(kind: ConditionType, reason: ConditionReason, message: impl Into<String>) -> Self {
        Self { kind, status: None, reason, message: message.into() }
    }
}

/// The conditions after a change: exactly those of `new`, in their order.
///
/// A condition whose status is as before keeps its `lastTransitionTime`; so equal input gives equal output, and a quiet
/// object is not written.
pub fn merge(old: &[Condition], new: &[NewCondition], generation: Option<i64>, now: &Time) -> Vec<Condition> {
    new.iter()
        .map(|condition| {
            let status = match condition.status {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let before = find(old, condition.kind).filter(|before| before.status == status);
            Condition {
                type_: condition.kind.as_str().to_owned(),
                status: status.to_owned(),
                reason: condition.reason.as_str().to_owned(),
                message: truncated(&condition.message),
                observed_generation: generation,
                last_transition_time: before.map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
            }
        })
        .collect()
}

/// The condition of that type.
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Whether the condition of that type is True.
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// The most bytes of a message: well under the 32768 that Kubernetes takes.
const MAX_MESSAGE: usize = 1024;

fn truncated(message: &str) -> String {
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(MAX_MESSAGE - '…'.len_utf8());
    let mut cut = message.get(..end).unwrap_or_default().to_owned();
    cut.push('…');
    cut
}

/// The schema of a list of conditions: a list-map by type.
pub(crate) fn conditions_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<Vec<Condition>>();
    schema.insert("x-kubernetes-list-type".to_owned(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".to_owned(), json!(["type"]));
    schema.insert("maxItems".to_owned(), json!(32));
    schema
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(text: &str) -> Time {
        Time(text.parse().unwrap())
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let (first, later) = (at("2026-11-01T00:00:00Z"), at("2026-11-02T00:00:00Z"));
        let working = NewCondition::no(ConditionType::Ready, ConditionReason::Progressing, "working");
        let before = merge(&[], &[working], Some(1), &first);
        let failed = NewCondition::no(ConditionType::Ready, ConditionReason::Failed, "failed");
        let same = merge(&before, &[failed], Some(2), &later);
        assert_eq!(same[0].last_transition_time, first);
        assert_eq!((same[0].reason.as_str(), same[0].observed_generation), ("Failed", Some(2)));
        let done = NewCondition::yes(ConditionType::Ready, ConditionReason::Reconciled, "done");
        assert_eq!(merge(&same, &[done], Some(2), &later)[0].last_transition_time, later);
    }

    #[test]
    fn the_tables_for_users_have_exactly_these_names() {
        let page = include_str!("../../docs/api.md");
        let rows = |heading: &str| -> Vec<&str> {
            let section = page.split("\n### ").find_map(|section| section.strip_prefix(heading)).unwrap();
            section.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0)).collect()
        };
        let types: Vec<_> = ConditionType::ALL.iter().map(|kind| kind.as_str()).collect();
        let reasons: Vec<_> = ConditionReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!((rows("Conditions\n"), rows("Reasons of conditions\n")), (types, reasons));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let cut = truncated(&"ä".repeat(MAX_MESSAGE));
        assert!(cut.len() <= MAX_MESSAGE && cut.ends_with('…'));
    }
}
