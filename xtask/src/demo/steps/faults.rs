//! Things that go wrong, and come right by themselves.

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use serde_json::json;

use super::acme;
use super::money::calls_in_ledger;
use crate::demo::agent::{Client, Era, call};
use crate::demo::report::Step;
use crate::demo::stage::{one_line, until};

/// Deleted by hand.
pub const POLICY_RETURNS: Step = Step {
    name: "policy comes back",
    does: "deletes the NetworkPolicy of acme's gateway by hand",
    run: |stage| {
        let policy = ["get", "networkpolicy", "gateway", "-n", "acme-mcp", "-o", "jsonpath={.metadata.uid}"];
        let before = stage.kubectl(&policy)?;
        stage.kubectl(&["delete", "networkpolicy", "gateway", "-n", "acme-mcp"])?;
        let start = Instant::now();
        until(Duration::from_secs(15), "the policy", || {
            let now = stage.kubectl(&policy)?;
            if now == before || now.is_empty() { Err(anyhow!("not back yet")) } else { Ok(()) }
        })?;
        Ok(format!("back after {:.1} s, with another UID", start.elapsed().as_secs_f32()))
    },
};

/// In the middle of calls.
pub const GATEWAY_DELETED: Step = Step {
    name: "gateway deleted",
    does: "deletes acme's gateway pod while its reader calls, and checks every answer",
    run: |stage| {
        let target = acme(stage, "reader", "clock")?;
        let before = calls_in_ledger(stage, "acme/reader")?;
        let task = json!({"do": "hammer", "forMs": 25_000});
        let mut client = Client::start(stage, target.from, Some(&target), task)?;
        client.next()?;
        std::thread::sleep(Duration::from_secs(2));
        let gateway = ["-n", "acme-mcp", "-l", "app.kubernetes.io/component=gateway"];
        stage.kubectl(&[&["delete", "pod", "--wait=false"], &gateway[..]].concat())?;
        let counts = client.next()?;
        if counts["wrong"] != json!(0) {
            bail!("wrong answers: {counts}");
        }
        let (results, broken) = (counts["results"].as_u64().unwrap_or(0), counts["broken"].as_u64().unwrap_or(0));
        if results == 0 {
            bail!("no answers at all: {counts}");
        }
        let again = until(Duration::from_secs(30), "the new gateway", || {
            call(stage, &acme(stage, "reader", "clock")?, Era::Modern, "get_current_time", &json!({"timezone": "UTC"}))?
                .text()
        })?;
        // A call that broke may have been made, once. The call after the storm may be in the ledger already.
        let charged = calls_in_ledger(stage, "acme/reader")? - before;
        if charged > results + broken + 1 {
            bail!("{charged} calls were charged for {results} results and {broken} broken calls: some were made twice");
        }
        Ok(format!(
            "{results} results, {} refusals, {broken} transport errors, 0 wrong answers, {charged} calls charged so far; \
             afterwards: {}",
            counts["refusals"],
            one_line(&again)
        ))
    },
};
