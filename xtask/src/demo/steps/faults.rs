//! Faults that the product recovers from without help.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde_json::json;

use super::acme;
use super::money::calls_in_ledgers;
use crate::demo::agent::{Client, Era, call};
use crate::demo::report::Step;
use crate::demo::state::{one_line, until};

/// Deletes a NetworkPolicy and waits until the operator has restored it.
pub const NETWORK_POLICY_RESTORED: Step = Step {
    name: "policy comes back",
    action: "Delete the NetworkPolicy of acme's gateway by hand, and wait until it is back.",
    purpose: "The operator repairs changes made by hand, so a mistake does not remove the isolation for long.",
    run: |demo| {
        let policy = ["get", "networkpolicy", "gateway", "-n", "acme-mcp", "-o", "jsonpath={.metadata.uid}"];
        let before = demo.kubectl(&policy)?;
        demo.kubectl(&["delete", "networkpolicy", "gateway", "-n", "acme-mcp"])?;
        let start = Instant::now();
        until(Duration::from_secs(60), "the NetworkPolicy", || {
            let now = demo.kubectl(&policy)?;
            if now == before || now.is_empty() { Err(anyhow!("the operator has not restored it yet")) } else { Ok(()) }
        })?;
        Ok(format!("the operator created it again after {:.1} s", start.elapsed().as_secs_f32()))
    },
};

/// Deletes the gateway pod during calls.
pub const GATEWAY_DELETED: Step = Step {
    name: "gateway deleted",
    action: "Delete the pod of acme's gateway while acme's reader calls without pause, and check every answer.",
    purpose: "Losing a gateway may interrupt calls, but no answer is wrong and no call is made twice.",
    run: |demo| {
        let target = acme(demo, "reader", "clock")?;
        let before = calls_in_ledgers(demo, "acme/reader")?;
        let task = json!({"task": "callInLoop", "durationMs": 25_000});
        let mut client = Client::start(demo, target.from, Some(&target), task)?;
        client.next_message()?;
        std::thread::sleep(Duration::from_secs(2));
        let gateway = ["-n", "acme-mcp", "-l", "app.kubernetes.io/component=gateway"];
        demo.kubectl(&[&["delete", "pod", "--wait=false"], &gateway[..]].concat())?;
        let counts = client.next_message()?;
        if counts["wrong"] != json!(0) {
            bail!("some answers were wrong: {counts}");
        }
        let count = |name: &str| counts[name].as_u64().unwrap_or(0);
        let (results, interrupted) = (count("results"), count("transportErrors"));
        if results == 0 {
            bail!("no call was answered: {counts}");
        }
        let afterwards = until(Duration::from_secs(30), "the new gateway", || {
            call(demo, &acme(demo, "reader", "clock")?, Era::Modern, "get_current_time", &json!({"timezone": "UTC"}))?
                .text()
        })?;
        // An interrupted call may have been made, once. The ledger may already contain the call that followed.
        let charged = calls_in_ledgers(demo, "acme/reader")? - before;
        if charged > results + interrupted + 1 {
            bail!(
                "{charged} calls were charged for {results} results and {interrupted} interrupted calls, so some were \
                 made twice"
            );
        }
        Ok(format!(
            "{results} results, {} refusals, {interrupted} transport errors, 0 wrong answers, {charged} calls charged \
             so far; afterwards: {}",
            counts["refusals"],
            one_line(&afterwards)
        ))
    },
};

/// Longest time without an answer while one of two gateways is drained.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// Gives a tenant a second gateway, and deletes one of the two during calls.
pub const GATEWAY_DRAINED: Step = Step {
    name: "gateway drained",
    action: "Scale acme to two gateways, and delete one of the two pods while acme's reader asks five times a second for its limits.",
    purpose: "With two gateways, calls go on while a node is drained, and both together keep to every limit.",
    run: |demo| {
        demo.kubectl(&["scale", "mcptenant", "acme", "--replicas", "2"])?;
        let gateway = ["-n", "acme-mcp", "-l", "app.kubernetes.io/component=gateway"];
        let pods = until(Duration::from_secs(60), "two gateways", || {
            let deployment =
                ["-n", "acme-mcp", "get", "deployment", "gateway", "-o", "jsonpath={.status.readyReplicas}"];
            let ready = demo.kubectl(&deployment)?;
            if ready != "2" {
                bail!("{ready} are ready");
            }
            demo.kubectl(&[&["get", "pods", "-o", "name"], &gateway[..]].concat())
        })?;
        let target = acme(demo, "reader", "clock")?;
        let task = json!({"task": "statusInLoop", "durationMs": 15_000});
        let mut client = Client::start(demo, target.from, Some(&target), task)?;
        client.next_message()?;
        std::thread::sleep(Duration::from_secs(2));
        let drained = pods.lines().next().context("there is no gateway")?;
        demo.kubectl(&["delete", "-n", "acme-mcp", drained, "--wait=false"])?;
        let counts = client.next_message()?;
        let most = u64::try_from(LONGEST_GAP.as_millis())?;
        let gap = counts["longestGapMs"].as_u64();
        if counts["results"] == json!(0) || counts["refusals"] != json!(0) || gap.is_none_or(|gap| gap > most) {
            bail!("calls were refused, or not answered for a while: {counts}");
        }
        Ok(format!(
            "{} calls were answered, at most {} ms apart, and none was refused; {} connections broke",
            counts["results"], counts["longestGapMs"], counts["transportErrors"]
        ))
    },
};
