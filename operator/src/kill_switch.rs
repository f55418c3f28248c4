//! The fleet's kill switch: the `ConfigMap` `mcp-fleet-kill-switch` in the operator's namespace, which stops every tool
//! call of every tenant.
//!
//! [`Switch`] is what its contents mean. The leader reads it whenever it changes ([`watch`]), and with every proof of
//! freshness ([`observe`]), so that no proof is sent by a leader that could not read it. The control streams send what was
//! read to the gateways. Nothing here goes through policies, so it works when they cannot be compiled or published.

use std::time::Instant;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use mcp_fleet_core::kill_switch::{Known, Switch};

use crate::context::Context;
use crate::error;
use crate::kubernetes::timeout::with_timeout;
use crate::retry::until_success;

/// Name of the `ConfigMap`.
pub(crate) const NAME: &str = "mcp-fleet-kill-switch";

/// Reads the switch whenever its `ConfigMap` changes. Never returns.
///
/// The watch says only that something changed; what it is, a consistent read tells. So events that are late or lost change
/// nothing.
pub(crate) async fn watch(ctx: &Context) {
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &ctx.config.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut events = watcher(api, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => {
                until_success("read the kill switch", async || observe(ctx).await).await;
            }
            Err(error) => tracing::warn!(error = error::chain(&error), "failed to watch the kill switch; trying again"),
        }
    }
    // The watch never ends.
    std::future::pending::<()>().await;
}

/// Reads the switch as of now, and makes it known. Returns when the read began.
pub(crate) async fn observe(ctx: &Context) -> Result<Instant, kube::Error> {
    let shared = &ctx.shared_state.kill_switch;
    // One read at a time, so that an earlier one cannot replace a later one.
    let reading = shared.reading().await;
    let (switch, read) = fetch(&ctx.client, &ctx.config.namespace).await?;
    let before = shared.set(Known { switch: switch.clone(), read });
    drop(reading);
    ctx.metrics.kill_switch.set(i64::from(switch.is_on()));
    if before.map(|known| known.switch).unwrap_or_default() != switch {
        report(ctx, switch);
    }
    Ok(read)
}

/// Reads the switch as of now. Also returns when the read began.
pub(crate) async fn fetch(client: &Client, namespace: &str) -> Result<(Switch, Instant), kube::Error> {
    let read = Instant::now();
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    // A get without a version is served from a quorum.
    let found = with_timeout(api.get_opt(NAME)).await?;
    Ok((Switch::of(found.as_ref()), read))
}

/// Logs a new state and writes an Event, without waiting for it.
fn report(ctx: &Context, switch: Switch) {
    let metadata =
        ObjectMeta { name: Some(NAME.into()), namespace: Some(ctx.config.namespace.clone()), ..ObjectMeta::default() };
    let about = ConfigMap { metadata, ..ConfigMap::default() };
    let events = ctx.events.clone();
    tokio::spawn(async move {
        match switch {
            Switch::Off => {
                tracing::warn!("the kill switch is off: tool calls are allowed again");
                let note = "all tenants' tool calls are allowed again";
                events.normal(&about, "FleetResumed", "Resume", note.into()).await;
            }
            Switch::On { reason, problem: None } => {
                tracing::warn!(reason, "the kill switch is on: all tool calls are refused");
                let note = format!("all tool calls of all tenants are refused. Reason: \"{reason}\"");
                events.warning(&about, "FleetStopped", "Stop", note).await;
            }
            Switch::On { problem: Some(problem), .. } => {
                tracing::error!(problem, "the kill switch is not valid: all tool calls are refused");
                let note = format!(
                    "all tool calls of all tenants are refused, because this ConfigMap is not valid: {problem}. Set the \
                     key `stop` to `true` or `false`, and `reason` if you like; or delete the ConfigMap to allow calls"
                );
                events.warning(&about, "KillSwitchInvalid", "Stop", note).await;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubernetes::cache::testing::{WatchedApi, eventually};
    use crate::testing::TestContext;

    const PATH: &str = "/api/v1/namespaces/mcp-fleet-system/configmaps/mcp-fleet-kill-switch";

    fn known(ctx: &Context) -> Option<Switch> {
        ctx.shared_state.kill_switch.subscribe().borrow().as_ref().map(|known| known.switch.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_announced_once_and_reported_as_an_event() {
        let TestContext { ctx, api, .. } = TestContext::new();
        let mut announced = ctx.shared_state.kill_switch.subscribe();
        let events = async || {
            // The Event is written by a task of its own.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            api.take_events()
        };
        assert_eq!(known(&ctx), None, "nothing is known before the first read");
        observe(&ctx).await.unwrap();
        assert_eq!((known(&ctx), events().await), (Some(Switch::Off), vec![]));
        assert!(announced.has_changed().unwrap());
        announced.mark_unchanged();

        for (data, reason, metric) in [
            (json!({"stop": "true", "reason": "leak"}), "FleetStopped", 1),
            (json!({"stop": "maybe"}), "KillSwitchInvalid", 1),
            (json!({"stop": "false"}), "FleetResumed", 0),
        ] {
            api.insert(PATH, json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data}));
            for _ in 0..2 {
                let before = Instant::now();
                assert!(observe(&ctx).await.unwrap() >= before);
            }
            assert!(announced.has_changed().unwrap());
            announced.mark_unchanged();
            assert_eq!(events().await, [reason]);
            assert_eq!(ctx.metrics.kill_switch.get(), metric);
        }
        api.remove(PATH);
        observe(&ctx).await.unwrap();
        assert!(!announced.has_changed().unwrap(), "a read that finds the same state is announced");
        assert_eq!(events().await, [""; 0]);
    }

    #[tokio::test]
    async fn the_watch_has_each_change_read() {
        let api = WatchedApi::default();
        let (ctx, _watches) = Context::of_client(api.client()).await;
        let steps = async {
            eventually("the first read", || known(&ctx).filter(|switch| !switch.is_on())).await;
            let stopped = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"stop": "true"},
                "metadata": {"name": NAME, "namespace": "mcp-fleet-system"}});
            api.put("configmaps", stopped);
            eventually("the stop", || known(&ctx).filter(Switch::is_on)).await;
            api.delete("configmaps", NAME);
            eventually("the end of the stop", || known(&ctx).filter(|switch| !switch.is_on())).await;
        };
        tokio::select! {
            () = watch(&ctx) => {}
            () = steps => {}
        }
    }
}
