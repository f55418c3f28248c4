//! What only the leader does: the controllers, the policy publisher, and the ledger.

use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_core::control_server;
use mcp_fleet_core::ledger::maintain;
use mcp_fleet_core::retry::{Backoff, jittered};
use mcp_fleet_core::shared_state::Fitness;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::controllers::budget::{self, Budgets};
use crate::controllers::principal::Principals;
use crate::controllers::scope::Scopes;
use crate::controllers::server::Servers;
use crate::controllers::tenant::Tenants;
use crate::kubernetes::cache;
use crate::kubernetes::leader::{Candidacy, Term};
use crate::policy::publish;
use crate::retry::until_success;
use crate::{controllers, error, kill_switch, ledger, rollout};

/// How long gateways may take to find a new leader before their absence is reported in status.
pub(crate) const WARM_UP_TIME: Duration = Duration::from_secs(8);
/// How often the leader checks that no revocations were deleted.
const REVOCATIONS_INTERVAL: Duration = Duration::from_mins(1);
/// How often a leader checks whether it is fit to lead.
const FITNESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long a replica that gave up the Lease does not run for it: at first, and at most. Jitter at most doubles both.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_mins(2);
/// How long a term has to last for the next pause to be the first again.
const STABLE_TERM: Duration = Duration::from_mins(5);

/// Leads whenever this replica is elected, until `stop`.
pub(crate) async fn lead_while_elected(ctx: &Arc<Context>, candidacy: &Candidacy, stop: &CancellationToken) {
    let mut leadership = ctx.leadership.watch();
    let new_pauses = || Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut pauses = new_pauses();
    loop {
        let term = *leadership.borrow_and_update();
        let (leads, elected) = (term.is_some(), Instant::now());
        ctx.metrics.leader.set(i64::from(leads));
        let unfit = tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return } else { false },
            () = lead(ctx, term.unwrap_or_default()), if leads => false,
            () = until_unfit(ctx), if leads => true,
        };
        // While another replica leads, what is known here becomes outdated.
        ctx.shared_state.clear();
        ctx.metrics.kill_switch.set(0);
        ctx.rollout.forget();
        if elected.elapsed() > STABLE_TERM {
            pauses = new_pauses();
        }
        if unfit {
            tracing::error!("giving up the Lease: policies could not be proved to be current");
            ctx.metrics.leader.set(0);
            ctx.metrics.leases_given_up.inc();
            candidacy.withdraw();
            tokio::select! {
                () = stop.cancelled() => return,
                () = stand_aside(ctx, &mut leadership, pauses.next_pause()) => {}
            }
            candidacy.renew();
        }
    }
}

/// Waits until this leader cannot prove any more that its policies are current.
async fn until_unfit(ctx: &Context) {
    ctx.shared_state.update_fitness(|fitness| *fitness = Fitness::new(Instant::now()));
    while !ctx.shared_state.is_unfit() {
        tokio::time::sleep(FITNESS_INTERVAL).await;
    }
}

/// Waits until another replica had the time to take the Lease, and then until this one can prove again that its cache is
/// current, or for `pause` at the most.
///
/// If no replica can prove it, each still leads for a few seconds after every pause: what the leader repairs may be what
/// keeps proofs from succeeding.
async fn stand_aside(ctx: &Context, leadership: &mut watch::Receiver<Option<Term>>, pause: Duration) {
    // An error means that the election has ended.
    let _ = leadership.wait_for(Option::is_none).await;
    tokio::time::sleep(Duration::from_secs(u64::from(ctx.config.lease_seconds))).await;
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = publish::until_proved(ctx) => {}
    }
}

/// Runs everything that only the leader does. Never returns; dropping it stops all of it.
async fn lead(ctx: &Arc<Context>, term: Term) {
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
        keep_revocations(ctx),
        rollout::run(ctx),
        budget::run(ctx.clone()),
        ctx.audit.keep(),
        kill_switch::watch(ctx),
        serve_gateways(ctx, term),
    );
}

/// Restores revocations that someone deletes. Never returns.
async fn keep_revocations(ctx: &Context) {
    loop {
        tokio::time::sleep(jittered(REVOCATIONS_INTERVAL)).await;
        match ctx.revocations.restore_deleted().await {
            Ok(tenants) if tenants.is_empty() => {}
            Ok(tenants) => tracing::error!(?tenants, "restored revocations that someone deleted"),
            Err(error) => tracing::warn!(error = error::chain(&error), "failed to check the revocations"),
        }
    }
}

/// Reads the ledger, then publishes policies and keeps the ledger up to date. Gateways are served while this runs.
async fn serve_gateways(ctx: &Arc<Context>, term: Term) {
    let ledger = ledger::open(ctx.client.clone(), &ctx.config.namespace).await;
    let hub = ctx.hub();
    let _leading = ctx.shared_state.policies.start_leading(Arc::clone(&ledger), term);
    tokio::join!(
        publish::run(ctx.clone()),
        maintain(&ledger),
        control_server::reap(&hub, &ledger),
        control_server::recall(&ctx.shared_state, &ledger),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::cache::testing::WatchedApi;
    use crate::kubernetes::leader::Leadership;

    async fn becomes(candidacy: &mut watch::Receiver<bool>, candidate: bool) {
        let changed = candidacy.wait_for(|now| *now == candidate);
        tokio::time::timeout(Duration::from_mins(10), changed).await.expect("the candidacy did not change").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_cannot_prove_freshness_gives_up_the_lease() {
        let api = WatchedApi::default();
        let (mut ctx, _watches) = Context::of_client(api.client()).await;
        let (elected, leadership) = Leadership::channel();
        ctx.leadership = leadership;
        let (ctx, candidacy, stop) = (Arc::new(ctx), Candidacy::default(), CancellationToken::new());
        let (mut is_candidate, shared) = (candidacy.watch(), Arc::clone(&ctx.shared_state));
        let given_up = ctx.metrics.leases_given_up.clone();
        let steps = async {
            elected.send_replace(Some(1));
            tokio::time::sleep(Duration::from_secs(120)).await;
            assert!(*is_candidate.borrow(), "proofs succeed");
            assert!(shared.policies.leader_state().is_some());
            assert_eq!(given_up.get(), 0);

            api.fail_proofs(true);
            let failing = Instant::now();
            becomes(&mut is_candidate, false).await;
            let took = failing.elapsed().as_secs();
            assert!((6..20).contains(&took), "after {took} seconds");
            assert_eq!(given_up.get(), 1);
            assert!(shared.policies.leader_state().is_none(), "what only a leader does goes on");

            // The election does this, and another replica gets its chance.
            elected.send_replace(None);
            api.fail_proofs(false);
            let released = Instant::now();
            becomes(&mut is_candidate, true).await;
            let took = released.elapsed().as_secs();
            assert!((6..10).contains(&took), "after {took} seconds");

            // While proofs fail, only the pause ends, and each is longer than the last.
            let mut pauses = Vec::new();
            for _ in 0..3 {
                api.fail_proofs(true);
                elected.send_replace(Some(1));
                becomes(&mut is_candidate, false).await;
                elected.send_replace(None);
                let released = Instant::now();
                becomes(&mut is_candidate, true).await;
                pauses.push(released.elapsed().as_secs());
            }
            assert!(pauses[0] >= 26 && pauses[2] >= 86 && pauses[2] > pauses[0], "{pauses:?}");
            stop.cancel();
        };
        tokio::join!(Box::pin(lead_while_elected(&ctx, &candidacy, &stop)), steps);
    }
}
