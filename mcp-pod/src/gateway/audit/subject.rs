//! Who called what, in the names that audit lines, metrics and budgets use.

use std::borrow::Cow;

use mcp_fleet_policy::class::Class;

/// A name, and who chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// The name of an API object, or one of a closed set; empty if there is none.
    Known(Cow<'a, str>),
    /// Text that a caller sent. It is cut and escaped in audit lines and never becomes a metric label.
    Sent(&'a str),
}

impl Name<'_> {
    /// Returns the name if it is known, else nothing.
    pub(crate) fn known(&self) -> &str {
        match self {
            Self::Known(name) => name,
            Self::Sent(_) => "",
        }
    }
}

/// The parties of a request, as far as they are known.
#[derive(Clone, Debug)]
pub(crate) struct Subject<'a> {
    /// Empty before there is a policy.
    pub(crate) tenant: Cow<'a, str>,
    /// Generation of the policy that decided; 0 if there was none.
    pub(crate) generation: u64,
    /// `<namespace>/<name>` of the caller; empty until it is authenticated.
    pub(crate) principal: Cow<'a, str>,
    pub(crate) principal_uid: Cow<'a, str>,
    pub(crate) server: Name<'a>,
    pub(crate) tool: Name<'a>,
    /// Class of the tool, if it is known.
    pub(crate) class: Option<Class>,
    /// JSON-RPC method.
    pub(crate) method: Name<'a>,
}

impl Subject<'_> {
    /// Returns who sends a flood of requests, without what the single requests are about.
    pub(crate) fn of_flood(&self) -> Subject<'static> {
        Subject {
            tenant: self.tenant.clone().into_owned().into(),
            generation: self.generation,
            principal: self.principal.clone().into_owned().into(),
            principal_uid: self.principal_uid.clone().into_owned().into(),
            server: Name::Known("".into()),
            tool: Name::Known("".into()),
            class: None,
            method: Name::Known("".into()),
        }
    }
}
