//! The default policy of the tests: one server, a principal with two scopes on it, and a principal with none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::{LoopSettings, Mode, Polls};
use mcp_fleet_policy::model::{
    Argument, Breaker, Budget, BudgetMode, Grant, GrantedTool, PathRule, Period, Principal, PrincipalLimits, Rule,
    Selector, Server, ServerLimits, StaleAfter, StringRule, TenantLimits, TenantPolicy, Tool, VerificationKey,
};
use mcp_fleet_policy::units::{Bytes, Micros};

use super::pki::{Pki, SERVER_URI};

pub(crate) const AUDIENCE: &str = "https://gateway.acme-mcp.svc";
pub(crate) const ISSUER: &str = "https://mcp-fleet-operator.mcp-fleet-system.svc/tenants/t-1";
/// UID of the principal with grants.
pub(crate) const CODER: &str = "coder-uid";
/// UID of the principal without grants.
pub(crate) const OTHER: &str = "other-uid";
/// UID of the server.
pub(crate) const FILES: &str = "files-uid";

/// Returns a required argument.
pub(crate) fn argument(name: &str, rule: Rule) -> Argument {
    Argument { name: name.to_owned(), required: true, rule, shown: None }
}

/// Returns a tool that costs nothing.
pub(crate) fn tool(name: &str, class: Class, arguments: Vec<Argument>) -> Tool {
    Tool {
        name: name.to_owned(),
        class,
        arguments: arguments.into(),
        price: Micros::ZERO,
        result_price: None,
        polls: Polls::Limited,
        shown: None,
        definition: None,
        alias: None,
    }
}

/// Returns the default policy.
pub(crate) fn policy(pki: &Pki, upstream: SocketAddr) -> TenantPolicy {
    let path = |root: &str| {
        let within = vec![root.to_owned()];
        argument("path", Rule::Path(PathRule { within, extensions: vec![], dotfiles: false }))
    };
    let text = Rule::String(StringRule { max_length: 100_000, pattern: None, leading_dash: false });
    let mut head = argument("head", Rule::Integer { minimum: 1, maximum: 100 });
    head.required = false;
    let mut body = argument("text", text);
    body.required = false;
    TenantPolicy {
        tenant: "acme".into(),
        tenant_uid: "t-1".into(),
        generation: 1,
        suspended: false,
        audience: AUDIENCE.into(),
        other_audiences: vec![],
        issuer: ISSUER.into(),
        keys: vec![VerificationKey { kid: "key-1".into(), point: pki.point() }],
        session_key: vec![9; 32],
        traffic: TenantLimits::default(),
        built_in_tools: true,
        allowed_origins: vec![],
        stale_after: StaleAfter { read: Duration::from_mins(1), write: Duration::from_secs(15) },
        currency: Some("USD".parse().unwrap()),
        servers: vec![Server {
            name: "files".into(),
            uid: FILES.into(),
            addresses: vec![upstream],
            identity: SERVER_URI.into(),
            tools: vec![
                tool("read", Class::Read, vec![path("/workspace"), head]),
                tool("echo", Class::Read, vec![body]),
                tool("write", Class::Write, vec![path("/workspace")]),
                tool("wipe", Class::Destructive, vec![]),
            ],
            limits: ServerLimits {
                // Longer than any call has to wait on a busy machine.
                timeout: Duration::from_secs(60),
                max_request: Bytes::new(256 * 1024),
                max_response: Bytes::new(1024 * 1024),
                max_concurrent_calls: 64,
            },
            breaker: Breaker::DEFAULT,
            // The fake shim always answers the same.
            loops: LoopSettings { mode: Mode::Disabled, ..LoopSettings::DEFAULT },
        }],
        principals: vec![principal("coder", CODER, true), principal("other", OTHER, false)],
        budgets: vec![budget()],
    }
}

/// Returns a budget that covers every call and is larger than any test needs.
fn budget() -> Budget {
    Budget {
        name: "daily".into(),
        uid: "daily-uid".into(),
        selector: Selector::default(),
        period: Period::Day,
        amount: Some(Micros::new(5_000_000)),
        calls: Some(1_000_000),
        mode: BudgetMode::Enforce,
        top_up: None,
    }
}

fn principal(name: &str, uid: &str, granted: bool) -> Principal {
    let reads = Grant {
        scope: "files-read".into(),
        server_uid: FILES.into(),
        tools: vec![GrantedTool { name: "read".into(), arguments: None }],
        classes: vec![Class::Read],
    };
    let writes = Grant {
        scope: "files-write".into(),
        server_uid: FILES.into(),
        tools: vec![GrantedTool { name: "write".into(), arguments: None }],
        classes: vec![],
    };
    Principal {
        namespace: "acme".into(),
        name: name.into(),
        uid: uid.into(),
        suspended: false,
        revoked_until: None,
        breakers_cleared: None,
        grants: if granted { vec![Arc::new(reads), Arc::new(writes)] } else { vec![] },
        limits: PrincipalLimits::default(),
    }
}
