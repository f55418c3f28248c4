//! Status conditions: the closed sets of types and reasons, and how a list of conditions is built.
//!
//! The types follow the conventions of kstatus, Argo CD, Flux and `kubectl wait`. Every reason that the operator can
//! give is defined here, and a test checks the tables in `docs/api.md` against these enums.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::integer;

/// Declares an enum whose variant names are also the names in the API.
macro_rules! names {
    ($(#[$outer:meta])* $enum:ident { $( $(#[$doc:meta])* $variant:ident, )* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $enum { $( $(#[$doc])* $variant, )* }

        impl $enum {
            /// All variants, in the order of declaration.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// Returns the name in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => stringify!($variant), )* }
            }
        }
    };
}

names! {
    /// Type of a condition.
    ConditionType {
        /// The object is in force as its spec says.
        Ready,
        /// The operator is working on the object; absent or False otherwise (kstatus).
        Reconciling,
        /// The operator cannot continue until somebody changes something (kstatus).
        Stalled,
        /// The checks that admission cannot make have passed: a tenant claims the namespace, the image is allowed, the
        /// patterns compile.
        Accepted,
        /// All referenced objects exist.
        ResolvedRefs,
        /// Every gateway of the tenant enforces this object as its spec says. A policy that is published because of another
        /// object changes nothing here. On an `MCPTenant`, False also if its newest policy cannot be published or enforced.
        PolicyCurrent,
        /// The credential Secret holds a valid token.
        CredentialCurrent,
        /// The revocation by `revokeIssuedBefore` is in force.
        RevocationApplied,
        /// As much of the budget of the current period is spent as `warnAtPercent` says.
        NearLimit,
        /// The budget of the current period is used up.
        Exhausted,
        /// The budget of the current period is used up, and calls go on, because its `mode` is Monitor.
        Exceeded,
        /// What a person added to the budget with the annotation `mcp-fleet.dev/top-up` counts in the current period.
        ToppedUp,
        /// The gateway and the tool pods of the tenant run the operator's image of `mcp-pod`. False while a rollout has not
        /// come to this tenant.
        PodsCurrent,
        /// Tools accept any JSON in an argument of type Json, as the spec is written. Absent if none does.
        WideArguments,
        /// Common model APIs accept the names of all tools, as the spec is written. Absent if they do.
        NamesPortable,
        /// The tenant's public name is in use, and every gateway serves its certificate. Absent without a public name.
        EndpointReady,
        /// The volume of the workspace has the size that `storage` says. Absent as long as it is the size with which it was made.
        WorkspaceCurrent,
    }
}

names! {
    /// Reason why a condition has its status.
    ConditionReason {
        /// The actual state matches the spec.
        Reconciled,
        /// The operator is working on the object.
        Progressing,
        /// The operator has written no status yet. The API server shows this for a new object.
        Pending,
        /// The API server or another service failed or refused a request; the operator retries.
        Failed,
        /// The object is being deleted.
        Terminating,
        /// The tenant or principal is suspended, or the server's `replicas` is 0.
        Suspended,
        /// The spec is invalid in a way that admission could not detect.
        InvalidSpec,
        /// No `MCPTenant` claims the namespace, so nothing is created.
        NamespaceUnclaimed,
        /// An older `MCPTenant` claims the same namespace.
        Conflicted,
        /// The namespace cannot be used: it exists and may not be adopted, is being deleted, or is the operator's own.
        NamespaceNotAdoptable,
        /// The tenant is not ready.
        TenantNotReady,
        /// The tenant's `images.allowed` does not cover the image.
        ImageNotAllowed,
        /// The tenant's `images.referencePolicy` requires a digest.
        ImageNotPinned,
        /// The tenant's `serverPods` does not allow what the server's `pod` asks for.
        PodNotAllowed,
        /// The tenant's `workspaces.storageClassNames` does not contain the StorageClass of the workspace.
        StorageClassNotAllowed,
        /// A Secret or `ConfigMap` that the server needs does not exist, or lacks a key.
        ConfigNotFound,
        /// A Secret or `ConfigMap` that the server needs may not be used, or not in that way.
        ConfigRefused,
        /// The server's pods do not fit in the tenant's `hard`: the tenant's `enforcement` stops such servers, or Kubernetes
        /// creates no more pods.
        QuotaExceeded,
        /// A tool has a price or a budget has an amount, but the tenant has no `spendLimit` to set the currency.
        CurrencyMissing,
        /// Too few gateway pods are ready.
        GatewayUnavailable,
        /// Kubernetes has not yet counted the tenant's quota, and refuses new objects until it has.
        QuotaNotCounted,
        /// Too few pods of the server are ready.
        WorkloadUnavailable,
        /// The image of a pod of the server cannot be pulled.
        ImageNotPulled,
        /// No node takes a pod of the server.
        Unschedulable,
        /// Kubernetes refuses to create a pod of the server.
        PodRefused,
        /// The server's program cannot be started, or ends when it is, or does not speak MCP in time.
        StartFailed,
        /// Prices of the tenant apply instead of lower ones that the server declares.
        PricesRaised,
        /// All referenced objects exist.
        Resolved,
        /// A referenced scope does not exist or is not in force.
        ScopeNotFound,
        /// The referenced server does not exist or is not in force.
        ServerNotFound,
        /// The scope names a tool or argument that is not in the server's catalogue.
        ToolNotFound,
        /// The budget names a principal or server that does not exist.
        TargetNotFound,
        /// The tenant has as many older budgets as it may have, so the budget limits nothing.
        TooManyBudgets,
        /// The tenant's policy is full, so the object, or the change of it, is not in force.
        PolicyTooLarge,
        /// Every gateway has acknowledged a policy that includes the object as its spec says.
        Enforced,
        /// Not every gateway has acknowledged a policy that includes the object as its spec says yet.
        AwaitingAcknowledgement,
        /// A gateway rejected the policy; the previous one stays in force.
        PolicyRefused,
        /// The policy could not be compiled or published; the previous one stays in force.
        PolicyNotPublished,
        /// A later version of the operator compiled the policy in force, which this version cannot read.
        LaterPolicy,
        /// The token is valid.
        Issued,
        /// A Secret with that name exists but does not belong to this principal.
        SecretNotOwned,
        /// The revocation is in force.
        Applied,
        /// No revocation was requested.
        NotRequested,
        /// `revokeIssuedBefore` is in the future. It takes effect at that time; until then, all tokens stay valid.
        InFuture,
        /// The budget of the current period is not used up.
        WithinLimit,
        /// The budget of the current period is used up.
        LimitReached,
        /// Less of the budget of the current period is spent than `warnAtPercent` says.
        BelowWarning,
        /// As much of the budget of the current period is spent as `warnAtPercent` says.
        WarningReached,
        /// What a person added counts in the current period.
        TopUpApplied,
        /// What a person added is for another period.
        TopUpNotInPeriod,
        /// The value of the annotation `mcp-fleet.dev/top-up` is not valid, and changes nothing.
        InvalidTopUp,
        /// The pods run the newest image of `mcp-pod`.
        UpToDate,
        /// The pods run an older image of `mcp-pod`, because the rollout is paused or other tenants come first.
        RolloutPending,
        /// An argument has the type Json.
        AnyJson,
        /// Common model APIs refuse the name of a tool.
        NamesRefusedByModels,
        /// Every gateway serves the public name.
        Serving,
        /// Not every gateway accepts and serves the public name yet.
        AwaitingGateway,
        /// The Secret with the certificate of the public name does not exist.
        CertificateMissing,
        /// The certificate or its key cannot be used for the public name.
        CertificateRefused,
        /// The public name belongs to another tenant.
        HostnameTaken,
        /// Too many former names are still accepted, so the public name cannot be changed yet.
        TooManyFormerNames,
        /// The volume is being made larger.
        Expanding,
        /// Kubernetes refuses to make the volume larger: its StorageClass cannot do that, or the quota has no room.
        ExpansionRefused,
        /// `storage` is less than the size of the volume, which cannot shrink.
        CannotShrink,
    }
}

/// A condition to set on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCondition {
    /// Type of the condition.
    pub kind: ConditionType,
    /// Status: True or False; `None` is Unknown.
    pub status: Option<bool>,
    /// Reason for the status.
    pub reason: ConditionReason,
    /// Message for people; says what to do if something is wrong.
    pub message: String,
}

impl NewCondition {
    /// Returns a condition with status True.
    pub fn yes(kind: ConditionType, reason: ConditionReason, message: impl Into<String>) -> Self {
        Self { kind, status: Some(true), reason, message: message.into() }
    }

    /// Returns a condition with status False.
    pub fn no(kind: ConditionType, reason: ConditionReason, message: impl Into<String>) -> Self {
        Self { kind, status: Some(false), reason, message: message.into() }
    }

    /// Returns a condition with status Unknown.
    pub fn unknown(kind: ConditionType, reason: ConditionReason, message: impl Into<String>) -> Self {
        Self { kind, status: None, reason, message: message.into() }
    }
}

/// Returns the conditions of an object after a change: exactly those in `new`, in the same order.
///
/// A condition whose status has not changed keeps its `lastTransitionTime`. Equal input therefore gives equal output,
/// and the operator does not write an object that has not changed.
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

/// Returns the status of an object that the operator has not seen yet: the default in the schema, which the API server
/// fills in. Without any condition, kstatus would consider a new object done.
///
/// The Gateway API does the same.
pub fn pending_status() -> Value {
    let ready = NewCondition::unknown(ConditionType::Ready, ConditionReason::Pending, "waiting for the operator");
    json!({"conditions": merge(&[], &[ready], None, &Time(Timestamp::UNIX_EPOCH))})
}

/// Returns the condition of the given type, if there is one.
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

/// Returns whether the condition of the given type is True.
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == "True")
}

/// Returns whether the condition of the given type is True and describes this `metadata.generation` of its object.
pub fn is_true_as_of(conditions: &[Condition], kind: ConditionType, generation: Option<i64>) -> bool {
    find(conditions, kind)
        .is_some_and(|condition| condition.status == "True" && condition.observed_generation == generation)
}

/// Longest message, in bytes. Kubernetes accepts up to 32768.
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

/// One aspect of the state of the object.
// The fields of a [`Condition`], which has no schema, and whose own deserialization does not read every integer that the API
// server admits.
#[derive(Deserialize, JsonSchema)]
#[serde(remote = "Condition", rename_all = "camelCase")]
struct ConditionFields {
    /// Which aspect: a name in CamelCase.
    #[serde(rename = "type")]
    type_: String,
    /// Whether it holds: True, False or Unknown.
    status: String,
    /// Why it has this status, in one word, for programs.
    reason: String,
    /// Why it has this status, for people.
    message: String,
    /// The `metadata.generation` that the condition is about.
    #[serde(default, deserialize_with = "integer::optional")]
    observed_generation: Option<i64>,
    /// When the status changed last.
    #[schemars(schema_with = "crate::time::schema")]
    last_transition_time: Time,
}

/// Reads a list of conditions.
pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Condition>, D::Error> {
    #[derive(Deserialize)]
    struct Stored(#[serde(with = "ConditionFields")] Condition);
    Ok(Vec::<Stored>::deserialize(deserializer)?.into_iter().map(|Stored(condition)| condition).collect())
}

/// Returns the schema of a list of conditions: a map list keyed by type.
pub(crate) fn conditions_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<Vec<ConditionFields>>();
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
    fn a_condition_keeps_its_transition_time_while_its_status_is_unchanged() {
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
    fn the_tables_in_the_docs_have_exactly_these_names() {
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
    fn a_long_message_is_cut_at_a_character_boundary() {
        let cut = truncated(&"ä".repeat(MAX_MESSAGE));
        assert!(cut.len() <= MAX_MESSAGE && cut.ends_with('…'));
    }
}
