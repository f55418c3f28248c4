//! Faults on a real cluster: tool servers that misbehave, gateways and operators that are killed, and an API server
//! that is down.
//!
//! Under every fault, a call ends in its own result, a refusal or a transport error, and is made at most once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic fails the test")]

use std::time::{Duration, Instant};

use kube::{Api, ResourceExt as _};
use mcp_fleet_crds::MCPTenant;
use mcp_fleet_e2e::faults::{freeze, kill_program, leader, unfreeze, unique};
use mcp_fleet_e2e::{Answer, Caller, FaultTenant, GATEWAYS, NAMESPACE, OPERATOR, RUNTIME, marks, until};

/// Returns how many calls with this word the server `hostile` has begun.
fn calls_begun(word: &str) -> usize {
    marks("hostile").unwrap_or_default().iter().filter(|mark| *mark == word).count()
}

#[tokio::test]
async fn a_misbehaving_tool_server_affects_only_its_own_calls() {
    let tenant = FaultTenant::ready().await.unwrap();
    let first = tenant.caller("first").await.unwrap();
    let second = tenant.caller("second").await.unwrap();

    let flood = first.call_with_word("hostile", "flood", "").await;
    assert_eq!(flood.reason(), Some("response_too_large"), "{flood:?}");

    let wrong = first.call_with_word("hostile", "wrong", "").await;
    assert!(matches!(&wrong, Answer::Text(text) if text == "yours"), "{wrong:?}");
    let twice = first.call_with_word("hostile", "twice", "").await;
    assert!(matches!(&twice, Answer::Text(text) if text == "first"), "{twice:?}");
    let after = first.call_with_word("hostile", "echo", "still correct").await;
    assert!(matches!(&after, Answer::Text(text) if text == "still correct"), "{after:?}");

    let garbage = first.call_with_word("hostile", "garbage", "").await;
    assert_eq!(garbage.reason(), Some("upstream_invalid"), "{garbage:?}");

    // While a call of one principal hangs in one server, calls of another principal to another server are answered.
    let (hang, quick) =
        tokio::join!(async { (first.call_with_word("hostile", "hang", "").await, Instant::now()) }, async {
            (second.call_with_word("quiet", "echo", "unharmed").await, Instant::now())
        },);
    assert!(quick.1 < hang.1, "the call to the other server was delayed");
    let (hang, quick) = (hang.0, quick.0);
    assert_eq!(hang.reason(), Some("upstream_timeout"), "{hang:?}");
    assert!(matches!(&quick, Answer::Text(text) if text == "unharmed"), "{quick:?}");
}

#[tokio::test]
async fn a_server_that_writes_only_garbage_is_restarted() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("first").await.unwrap();
    let noise = caller.call_with_word("hostile", "noise", "").await;
    assert_eq!(noise.reason(), Some("upstream_unavailable"), "{noise:?}");
    wait_for_restart(&caller).await;
}

#[tokio::test]
async fn a_call_that_crashes_its_server_is_made_once_and_the_server_restarts() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("first").await.unwrap();
    let word = unique("crash");
    let crash = caller.call_with_word("hostile", "crash", &word).await;
    assert_eq!(crash.reason(), Some("upstream_unavailable"), "{crash:?}");
    wait_for_restart(&caller).await;
    assert_eq!(calls_begun(&word), 1);
}

#[tokio::test]
async fn a_gateway_killed_during_a_call_gives_no_wrong_answer() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("first").await.unwrap();
    let word = unique("gateway");
    let gateway = tenant.pods(RUNTIME, GATEWAYS).await.unwrap().remove(0).name_any();
    let (answer, ()) = tokio::join!(caller.call_with_word("hostile", "slow", &word), async {
        until("the server to begin the call", Duration::from_secs(60), || async {
            Ok((calls_begun(&word) == 1).then_some(()))
        })
        .await
        .unwrap();
        tenant.kill_pod(RUNTIME, &gateway).await.unwrap();
    });
    assert!(matches!(answer, Answer::TransportError(_)), "{answer:?}");
    until("a new gateway to answer", Duration::from_secs(60), || async {
        match caller.call_with_word("hostile", "echo", "again").await {
            Answer::Text(text) if text == "again" => Ok(Some(())),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
    .unwrap();
    assert_eq!(calls_begun(&word), 1, "the call was made twice");
}

#[tokio::test]
async fn calls_are_answered_while_the_api_server_is_down() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("second").await.unwrap();
    kill_program("kube-apiserver");
    for round in 0..20 {
        let answer = caller.call_with_word("quiet", "echo", "on").await;
        assert!(matches!(&answer, Answer::Text(text) if text == "on"), "call {round}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Afterwards policy changes are enforced again: calls of a suspended tenant are refused.
    set_suspended(&tenant, true).await;
    until("the suspension to be enforced", Duration::from_secs(60), || async {
        Ok(matches!(caller.call_with_word("quiet", "echo", "no").await, Answer::Error(_) | Answer::Refused(_))
            .then_some(()))
    })
    .await
    .unwrap();
    set_suspended(&tenant, false).await;
    until("calls to be answered again", Duration::from_secs(30), || async {
        Ok(matches!(caller.call_with_word("quiet", "echo", "yes").await, Answer::Text(_)).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_next_leader_finishes_what_a_killed_leader_began() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("first").await.unwrap();
    let before = generation(&tenant).await;
    // Kill the leader right after a change that takes several writes (policy, workload).
    set_suspended(&tenant, true).await;
    let before_kill = leader(&tenant.client).await;
    tenant.kill_pod(OPERATOR, &before_kill).await.unwrap();
    set_suspended(&tenant, false).await;
    until("the next leader to publish a policy", Duration::from_secs(60), || async {
        let answered = matches!(caller.call_with_word("hostile", "echo", "on").await, Answer::Text(_));
        let now = generation(&tenant).await;
        anyhow::ensure!(now >= before, "the policy went from generation {before} to {now}");
        Ok((answered && leader(&tenant.client).await != before_kill).then_some(()))
    })
    .await
    .unwrap();
    let gateways = tenant.pods(RUNTIME, GATEWAYS).await.unwrap();
    assert_eq!(gateways.len(), 1);
}

#[tokio::test]
async fn a_frozen_leader_cannot_publish_after_it_resumes() {
    let tenant = FaultTenant::ready().await.unwrap();
    let caller = tenant.caller("second").await.unwrap();
    let old = leader(&tenant.client).await;
    let frozen = freeze(&old);
    let new = until("another operator to become leader", Duration::from_secs(60), || async {
        let now = leader(&tenant.client).await;
        Ok((now != old).then_some(now))
    })
    .await;
    // Resume the process before checking these results, so that a failure here does not affect the next test.
    let during = match &new {
        Ok(_) => {
            set_suspended(&tenant, true).await;
            until("the policy of the new leader to be enforced", Duration::from_secs(30), || async {
                Ok((!matches!(caller.call_with_word("quiet", "echo", "no").await, Answer::Text(_))).then_some(()))
            })
            .await
        }
        Err(_) => Ok(()),
    };
    let published = generation(&tenant).await;
    unfreeze(frozen);
    new.unwrap();
    during.unwrap();
    for _ in 0..30 {
        let answer = caller.call_with_word("quiet", "echo", "no").await;
        assert!(!matches!(answer, Answer::Text(_)), "the older policy of the frozen leader is enforced: {answer:?}");
        assert!(generation(&tenant).await >= published);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    set_suspended(&tenant, false).await;
    until("calls to be answered again", Duration::from_secs(30), || async {
        Ok(matches!(caller.call_with_word("quiet", "echo", "yes").await, Answer::Text(_)).then_some(()))
    })
    .await
    .unwrap();
}

/// Waits until the server `hostile` has been restarted and answers.
async fn wait_for_restart(caller: &Caller) {
    until("the server to restart", Duration::from_secs(60), || async {
        match caller.call_with_word("hostile", "echo", "back").await {
            Answer::Text(text) if text == "back" => Ok(Some(())),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
    .unwrap();
}

/// Suspends the tenant, or ends its suspension.
async fn set_suspended(tenant: &FaultTenant, suspend: bool) {
    let tenants: Api<MCPTenant> = Api::all(tenant.client.clone());
    let patch = serde_json::json!({"spec": {"suspend": suspend}});
    until("the tenant to be patched", Duration::from_secs(60), || async {
        tenants.patch(NAMESPACE, &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch)).await?;
        Ok(Some(()))
    })
    .await
    .unwrap();
}

/// Returns the policy generation in the status of the tenant.
async fn generation(tenant: &FaultTenant) -> i64 {
    let tenants: Api<MCPTenant> = Api::all(tenant.client.clone());
    let object = tenants.get(NAMESPACE).await.unwrap();
    serde_json::to_value(object).unwrap()["status"]["policyGeneration"].as_i64().unwrap()
}
