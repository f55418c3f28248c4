//! Time and memory of a policy with 5,000 principals, 5 scopes each of 500, 10 tools in each scope, and 50 servers with 20
//! tools. `docs/operations.md` shows the figures, which this prints:
//!
//! `cargo test --release -p mcp-fleet-control --test capacity -- --nocapture`
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_fleet_control::snapshot::CompressedPolicy;
use mcp_fleet_control::{decode, encode};
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::engine::Policy;
use mcp_fleet_policy::loops::{LoopSettings, Polls};
use mcp_fleet_policy::model::{
    Argument, Breaker, Grant, GrantedTool, PathRule, Principal, PrincipalLimits, Rule, Server, ServerLimits,
    StaleAfter, StringRule, TenantLimits, TenantPolicy, Tool,
};
use mcp_fleet_policy::units::{Bytes, Micros};

fn arguments(root: &str, maximum: i64) -> Arc<[Argument]> {
    let path = PathRule { within: vec![root.into()], extensions: vec!["md".into(), "txt".into()], dotfiles: false };
    let query = StringRule { max_length: 200, pattern: Some("[a-z0-9 _-]{0,64}".into()), leading_dash: false };
    let rules = [
        ("path", Rule::Path(path)),
        ("query", Rule::String(query)),
        ("format", Rule::Enum(["text", "markdown", "json"].map(str::to_owned).to_vec())),
        ("limit", Rule::Integer { minimum: 1, maximum }),
    ];
    rules.map(|(name, rule)| Argument { name: name.into(), required: name == "path", rule, shown: None }).into()
}

fn tool_name(number: usize) -> String {
    format!("search_documents_{:02}", number % 20)
}

fn uid(kind: &str, number: usize) -> String {
    format!("{kind}{number:07x}-5f1c-4e0a-9c57-1e2d3c4b5a69")
}

fn policy() -> TenantPolicy {
    let tool = |number: usize| Tool {
        name: tool_name(number),
        class: Class::Read,
        arguments: arguments("/workspace", 1000 + i64::try_from(number).unwrap()),
        price: Micros::ZERO,
        result_price: None,
        polls: Polls::Limited,
        shown: None,
        definition: None,
        alias: None,
    };
    let server = |number: usize| Server {
        name: format!("documents-{number}"),
        uid: uid("a", number),
        addresses: vec!["10.96.0.7:8443".parse().unwrap()],
        identity: format!("spiffe://mcp-fleet.dev/tenant/{}/server/{}", uid("f", 0), uid("a", number)),
        tools: (0..20).map(tool).collect(),
        limits: ServerLimits {
            timeout: Duration::from_secs(30),
            max_request: Bytes::new(256 * 1024),
            max_response: Bytes::new(4 << 20),
            max_concurrent_calls: 16,
        },
        breaker: Breaker::DEFAULT,
        loops: LoopSettings::DEFAULT,
    };
    let scope = |number: usize| {
        let granted = |offset: usize| GrantedTool {
            name: tool_name(number + offset),
            arguments: Some(arguments(
                &format!("/workspace/departments/{number}"),
                i64::try_from(offset).unwrap() + 10,
            )),
        };
        Arc::new(Grant {
            scope: format!("department-{number}"),
            server_uid: uid("a", number % 50),
            tools: (0..10).map(granted).collect(),
            classes: vec![],
        })
    };
    let scopes: Vec<Arc<Grant>> = (0..500).map(scope).collect();
    let principal = |number: usize| Principal {
        namespace: "acme".into(),
        name: format!("agent-{number:04}"),
        uid: uid("c", number),
        suspended: false,
        revoked_until: None,
        breakers_cleared: None,
        grants: (0..5).map(|held| Arc::clone(&scopes[(number * 7 + held * 101) % 500])).collect(),
        limits: PrincipalLimits { calls_per_minute: Some(60), burst: Some(10), max_concurrent_calls: Some(4) },
    };
    TenantPolicy {
        tenant: "acme".into(),
        tenant_uid: uid("f", 0),
        generation: 7,
        suspended: false,
        audience: "https://gateway.acme-mcp.svc".into(),
        other_audiences: vec![],
        issuer: "https://mcp-fleet-operator.mcp-fleet-system.svc/tenants/f".into(),
        keys: vec![],
        session_key: vec![1; 32],
        traffic: TenantLimits::default(),
        built_in_tools: true,
        allowed_origins: vec![],
        stale_after: StaleAfter { read: Duration::from_mins(1), write: Duration::from_secs(15) },
        currency: None,
        servers: (0..50).map(server).collect(),
        principals: (0..5000).map(principal).collect(),
        budgets: vec![],
    }
}

/// Returns a value of `/proc/self/status` in MiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches(|character: char| !character.is_ascii_digit()).parse::<u64>().unwrap() / 1024
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    println!("{what}: {:.0} ms", started.elapsed().as_secs_f64() * 1000.0);
    result
}

#[test]
fn a_policy_of_the_documented_size_takes_little_memory() {
    let encoded = {
        let policy = policy();
        let encoded = timed("encode", || encode(&policy));
        let compressed = timed("compress", || CompressedPolicy::new(&encoded).unwrap());
        println!("{} KiB, {} KiB compressed", encoded.bytes.len() / 1024, compressed.size() / 1024);
        encoded
    };
    let before = memory("VmRSS:");
    let decoded = timed("decode", || decode(&encoded.bytes).unwrap());
    let compiled = timed("prepare for calls", || Policy::new(decoded.policy).unwrap());
    let first = memory("VmRSS:").saturating_sub(before);
    println!("{first} MiB resident, {} MiB at most", memory("VmHWM:").saturating_sub(before));
    // A gateway holds the next policy while calls of the previous one go on.
    let next = Policy::new(decode(&encoded.bytes).unwrap().policy).unwrap();
    let both = memory("VmHWM:").saturating_sub(before);
    println!("{both} MiB at most with the next policy");
    let access = compiled.principal(&uid("c", 4999)).unwrap().authorise("documents-43", "search_documents_00");
    assert!(access.is_ok() || next.principal(&uid("c", 4999)).is_some());
    assert!(both < 48, "{both} MiB");
}
