//! Faults on a real node: upstreams that misbehave, gateways and operators that die, an API server that goes away.
//!
//! «Without a wrong answer» means: a result, a refusal or a transport error, and never a call made twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt as _};
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_e2e::{Answer, Caller, FaultTenant, NAMESPACE, OPERATOR, RUNTIME, until};

/// How often the upstream has begun a call with this word: written to its workspace before it does anything else.
fn marks(word: &str) -> usize {
    let output = Command::new("kubectl")
        .args([
            "exec",
            "--namespace",
            RUNTIME,
            "mcp-hostile-0",
            "--",
            "python3",
            "-c",
            "print(open('/workspace/marks').read())",
        ])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| *line == word).count()
}

#[tokio::test]
async fn an_upstream_that_misbehaves_harms_only_its_own_call() {
    let tenant = FaultTenant::ready().await.unwrap();
    let first = tenant.caller("first").await.unwrap();
    let second = tenant.caller("second").await.unwrap();

    let flood = first.say("hostile", "flood", "").await;
    assert_eq!(flood.reason(), Some("response_too_large"), "{flood:?}");

    let wrong = first.say("hostile", "wrong", "").await;
    assert!(matches!(&wrong, Answer::Text(text) if text == "yours"), "{wrong:?}");
    let twice = first.say("hostile", "twice", "").await;
    assert!(matches!(&twice, Answer::Text(text) if text == "first"), "{twice:?}");
    let after = first.say("hostile", "echo", "still right").await;
    assert!(matches!(&after, Answer::Text(text) if text == "still right"), "{after:?}");

    let garbage = first.say("hostile", "garbage", "").await;
    assert_eq!(garbage.reason(), Some("upstream_invalid"), "{garbage:?}");

    // While one principal's call hangs in one server, another one's calls to another server are answered.
    let (hang, quick) = tokio::join!(first.say("hostile", "hang", ""), async {
        let start = Instant::now();
        let answer = second.say("quiet", "echo", "unharmed").await;
        (answer, start.elapsed())
    });
    assert_eq!(hang.reason(), Some("upstream_timeout"), "{hang:?}");
    assert!(matches!(&quick.0, Answer::Text(text) if text == "unharmed"), "{quick:?}");
    assert!(quick.1 < Duration::from_secs(4), "the other server was held up: {quick:?}");
}

#[tokio::test]
async fn a_server_that_only_makes_noise_is_started_anew() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("first").await.unwrap();
    let noise = caller.say("hostile", "noise", "").await;
    assert_eq!(noise.reason(), Some("upstream_unavailable"), "{noise:?}");
    answers_again(&caller).await;
}

#[tokio::test]
async fn a_call_that_crashes_its_server_is_made_once_and_the_server_comes_back() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("first").await.unwrap();
    let word = unique("crash");
    let crash = caller.say("hostile", "crash", &word).await;
    assert_eq!(crash.reason(), Some("upstream_unavailable"), "{crash:?}");
    answers_again(&caller).await;
    assert_eq!(marks(&word), 1);
}

#[tokio::test]
async fn a_gateway_that_dies_in_the_middle_of_a_call_gives_no_wrong_answer() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("first").await.unwrap();
    let word = unique("gateway");
    let gateway = tenant.pods(RUNTIME, "app.kubernetes.io/component=gateway").await.unwrap().remove(0).name_any();
    let (answer, ()) = tokio::join!(caller.say("hostile", "slow", &word), async {
        until("the upstream has begun the call", Duration::from_secs(4), || async {
            Ok((marks(&word) == 1).then_some(()))
        })
        .await
        .unwrap();
        tenant.kill_pod(RUNTIME, &gateway).await.unwrap();
    });
    assert!(matches!(answer, Answer::Broken(_)), "{answer:?}");
    until("a new gateway answers", Duration::from_secs(60), || async {
        match caller.say("hostile", "echo", "again").await {
            Answer::Text(text) if text == "again" => Ok(Some(())),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
    .unwrap();
    assert_eq!(marks(&word), 1, "the call was made again");
}

#[tokio::test]
async fn calls_go_on_while_the_api_server_is_away() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("second").await.unwrap();
    kill("kube-apiserver");
    for round in 0..20 {
        let answer = caller.say("quiet", "echo", "on").await;
        assert!(matches!(&answer, Answer::Text(text) if text == "on"), "call {round}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // And afterwards the policy is served again: a suspended tenant is refused.
    suspended(&tenant, true).await;
    until("the suspension is enforced", Duration::from_secs(60), || async {
        Ok(matches!(caller.say("quiet", "echo", "no").await, Answer::Error(_) | Answer::Refused(_)).then_some(()))
    })
    .await
    .unwrap();
    suspended(&tenant, false).await;
    until("calls are answered again", Duration::from_secs(30), || async {
        Ok(matches!(caller.say("quiet", "echo", "yes").await, Answer::Text(_)).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_operator_killed_in_the_middle_of_a_reconcile_is_followed_by_one_that_finishes_it() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("first").await.unwrap();
    let before = generation(&tenant).await;
    // A change that takes several writes (policy, workload), and the leader gone right after it.
    suspended(&tenant, true).await;
    let leader = leader(&tenant).await;
    tenant.kill_pod(OPERATOR, &leader).await.unwrap();
    suspended(&tenant, false).await;
    until("the next leader has published", Duration::from_secs(60), || async {
        let answered = matches!(caller.say("hostile", "echo", "on").await, Answer::Text(_));
        let now = generation(&tenant).await;
        anyhow::ensure!(now >= before, "the policy went from generation {before} to {now}");
        Ok((answered && self::leader(&tenant).await != leader).then_some(()))
    })
    .await
    .unwrap();
    let gateways = tenant.pods(RUNTIME, "app.kubernetes.io/component=gateway").await.unwrap();
    assert_eq!(gateways.len(), 1);
}

#[tokio::test]
async fn a_leader_that_was_frozen_cannot_publish_when_it_wakes() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("second").await.unwrap();
    let old = leader(&tenant).await;
    let process = process_of(&old);
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    let new = until("another operator leads", Duration::from_secs(60), || async {
        let now = leader(&tenant).await;
        Ok((now != old).then_some(now))
    })
    .await;
    // Woken whatever came of it, so that a failure here does not spoil the next test.
    let during = match &new {
        Ok(_) => {
            suspended(&tenant, true).await;
            until("the new leader's policy is enforced", Duration::from_secs(30), || async {
                Ok((!matches!(caller.say("quiet", "echo", "no").await, Answer::Text(_))).then_some(()))
            })
            .await
        }
        Err(_) => Ok(()),
    };
    let published = generation(&tenant).await;
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    new.unwrap();
    during.unwrap();
    for _ in 0..30 {
        let answer = caller.say("quiet", "echo", "no").await;
        assert!(!matches!(answer, Answer::Text(_)), "the frozen leader's older policy is enforced: {answer:?}");
        assert!(generation(&tenant).await >= published);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    suspended(&tenant, false).await;
    until("calls are answered again", Duration::from_secs(30), || async {
        Ok(matches!(caller.say("quiet", "echo", "yes").await, Answer::Text(_)).then_some(()))
    })
    .await
    .unwrap();
}

/// Waits until the server `hostile` has been started anew.
async fn answers_again(caller: &Caller) {
    until("the server is started anew", Duration::from_secs(60), || async {
        match caller.say("hostile", "echo", "back").await {
            Answer::Text(text) if text == "back" => Ok(Some(())),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
    .unwrap();
}

/// A word that no other run has used.
fn unique(what: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{what}-{}", now.as_millis())
}

async fn suspended(tenant: &FaultTenant, suspend: bool) {
    let tenants: Api<MCPTenant> = Api::all(tenant.client.clone());
    let patch = serde_json::json!({"spec": {"suspend": suspend}});
    until("the tenant is patched", Duration::from_secs(60), || async {
        tenants.patch(NAMESPACE, &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch)).await?;
        Ok(Some(()))
    })
    .await
    .unwrap();
}

async fn generation(tenant: &FaultTenant) -> i64 {
    let tenants: Api<MCPTenant> = Api::all(tenant.client.clone());
    let object = tenants.get(NAMESPACE).await.unwrap();
    serde_json::to_value(object).unwrap()["status"]["policyGeneration"].as_i64().unwrap()
}

/// The pod that holds the operator's lease.
async fn leader(tenant: &FaultTenant) -> String {
    let leases: Api<Lease> = Api::namespaced(tenant.client.clone(), OPERATOR);
    until("somebody leads", Duration::from_secs(60), || async {
        let holder = leases.get("mcp-fleet-operator").await?.spec.and_then(|spec| spec.holder_identity);
        Ok(holder.filter(|holder| !holder.is_empty()))
    })
    .await
    .unwrap()
}

/// The process of an operator's pod: its containers run on this machine, and its environment names it.
fn process_of(pod: &str) -> rustix::process::Pid {
    let wanted = format!("POD_NAME={pod}");
    let entries = std::fs::read_dir("/proc").unwrap();
    let id = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .find(|id| {
            let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        })
        .unwrap_or_else(|| panic!("no process of pod {pod}"));
    rustix::process::Pid::from_raw(id).unwrap()
}

/// Kills a program of the cluster; its supervisor starts it again.
fn kill(unit: &str) {
    let cluster = std::env::var("MCP_FLEET_TEST_CLUSTER").expect("`cargo xtask test e2e` names the cluster");
    let status =
        Command::new("cargo").args(["xtask", "cluster", "restart", unit, "--name", &cluster]).status().unwrap();
    assert!(status.success());
}
