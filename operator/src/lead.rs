//! What only the leader does: the controllers, the policy publisher, and the ledger.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::controllers::budget::{self, Budgets};
use crate::controllers::principal::Principals;
use crate::controllers::scope::Scopes;
use crate::controllers::server::Servers;
use crate::controllers::tenant::Tenants;
use crate::kubernetes::cache;
use crate::policy::publish;
use crate::retry::until_success;
use crate::{control_server, controllers, ledger};

/// How long gateways may take to find a new leader before their absence is reported in status.
const WARM_UP_TIME: Duration = Duration::from_secs(8);

/// Leads whenever this replica is elected, until `stop`.
pub(crate) async fn lead_while_elected(ctx: &Arc<Context>, stop: &CancellationToken) {
    let mut leadership = ctx.leadership.watch();
    loop {
        let leads = *leadership.borrow_and_update();
        ctx.metrics.leader.set(i64::from(leads));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
            () = lead(ctx), if leads => {}
        }
        // While another replica leads, what is known here becomes outdated.
        ctx.shared_state.clear();
    }
}

/// Runs everything that only the leader does. Never returns; dropping it stops all of it.
async fn lead(ctx: &Arc<Context>) {
    // Before anything is compiled: a policy without a known revocation would accept revoked tokens.
    until_success("load the revocations", async || ctx.revocations.load().await).await;
    ctx.shared_state.set_warming_up(true);
    tokio::join!(
        async {
            tokio::time::sleep(WARM_UP_TIME).await;
            ctx.shared_state.set_warming_up(false);
        },
        cache::watch_secrets(ctx.client.clone(), ctx.config.namespace.clone(), ctx.cache.clone()),
        controllers::run::<Tenants>(ctx.clone()),
        controllers::run::<Servers>(ctx.clone()),
        controllers::run::<Scopes>(ctx.clone()),
        controllers::run::<Principals>(ctx.clone()),
        controllers::run::<Budgets>(ctx.clone()),
        controllers::unreadable::run(ctx.clone()),
        budget::run(ctx.clone()),
        serve_gateways(ctx),
    );
}

/// Reads the ledger, then publishes policies and keeps the ledger up to date. Gateways are served while this runs.
async fn serve_gateways(ctx: &Arc<Context>) {
    let ledger = ledger::open(ctx.client.clone(), &ctx.config.namespace).await;
    let _leading = ctx.shared_state.policies.start_leading(Arc::clone(&ledger));
    tokio::join!(publish::run(ctx.clone()), ledger::maintain(&ledger), control_server::reap(ctx, &ledger));
}
