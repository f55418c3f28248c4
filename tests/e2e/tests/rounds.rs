//! Rounds of random faults on a real cluster, while two principals call a tool that a budget limits, through two gateways. Whatever is killed,
//! frozen or cut off, no more calls are made than the ledger has charged, and it charges no more than the limit.
//!
//! `cargo xtask test e2e` runs 20 rounds, `cargo xtask test rounds` 200.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic fails the test")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use mcp_fleet_crds::condition::{ConditionType, is_true};
use mcp_fleet_crds::{MCPBudget, MCPLedger, MCPPrincipal};
use mcp_fleet_e2e::faults::{Cut, freeze, kill_program, leader, unfreeze, unique};
use mcp_fleet_e2e::{Answer, Caller, FaultTenant, GATEWAYS, NAMESPACE, OPERATOR, OPERATORS, RUNTIME, marks, until};
use serde_json::json;
use tokio::task::JoinHandle;

/// Rounds, unless the environment variable `MCP_FLEET_FAULT_ROUNDS` names another number.
const ROUNDS: u32 = 20;
/// Calls that the budget allows for each round. A gateway that is killed takes what it had leased with it.
const CALLS_PER_ROUND: u64 = 200;
/// Gateways of the tenant.
const REPLICAS: usize = 2;
/// Server that the budget covers, and nothing else uses.
const SERVER: &str = "counted";

/// What happens in a round.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The process of one gateway ends without a report.
    GatewayKilled,
    /// Those of all gateways do.
    GatewaysKilled,
    /// The leader's process ends, maybe between a write and its answer.
    LeaderKilled,
    /// Nothing leads for a while.
    OperatorsKilled,
    /// The leader stands still, and goes on when another one leads.
    LeaderFrozen,
    /// The ledger cannot be written.
    ApiServerKilled,
    /// A gateway gets no leases and its reports are lost, on connections that look open.
    GatewayCutOff,
    /// A gateway cannot forward requests to others, nor they to it.
    GatewaysCutFromEachOther,
}

impl Fault {
    const ALL: [Self; 8] = [
        Self::GatewayKilled,
        Self::GatewaysKilled,
        Self::LeaderKilled,
        Self::OperatorsKilled,
        Self::LeaderFrozen,
        Self::ApiServerKilled,
        Self::GatewayCutOff,
        Self::GatewaysCutFromEachOther,
    ];

    /// Causes the fault, and ends it.
    async fn happen(self, tenant: &FaultTenant, random: &mut fastrand::Rng) {
        match self {
            Self::GatewayKilled => {
                let gateways = until("the gateways", Duration::from_secs(60), || async {
                    tenant.pods(RUNTIME, GATEWAYS).await.map(Some)
                });
                if let Some(gateway) = random.choice(gateways.await.unwrap()) {
                    kill(tenant, RUNTIME, &gateway.name_any()).await;
                }
            }
            Self::GatewaysKilled => kill_pods(tenant, RUNTIME, GATEWAYS).await,
            Self::LeaderKilled => kill(tenant, OPERATOR, &living_leader(tenant).await).await,
            Self::OperatorsKilled => kill_pods(tenant, OPERATOR, OPERATORS).await,
            Self::LeaderFrozen => {
                let old = living_leader(tenant).await;
                let frozen = freeze(&old);
                let new = until("another operator to lead", Duration::from_secs(60), || async {
                    Ok((leader(&tenant.client).await != old).then_some(()))
                });
                let new = new.await;
                unfreeze(frozen);
                new.unwrap();
            }
            Self::ApiServerKilled => kill_program("kube-apiserver"),
            Self::GatewayCutOff => {
                let operators = tenant.addresses(OPERATOR, OPERATORS).await;
                let gateway = random.choice(tenant.addresses(RUNTIME, GATEWAYS).await).unwrap();
                let cut = Cut::between(gateway, &operators);
                // Longer than a gateway may be without a proof that its policy is current, which it needs for a Write.
                tokio::time::sleep(Duration::from_secs(4)).await;
                drop(cut);
            }
            Self::GatewaysCutFromEachOther => {
                let mut gateways = tenant.addresses(RUNTIME, GATEWAYS).await;
                random.shuffle(&mut gateways);
                let cut = Cut::between(gateways[0], &gateways[1..]);
                tokio::time::sleep(Duration::from_secs(4)).await;
                drop(cut);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_makes_a_budget_pay_for_more_calls_than_its_limit() {
    let rounds = std::env::var("MCP_FLEET_FAULT_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let seed = std::env::var("MCP_FLEET_FAULT_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("{rounds} rounds with MCP_FLEET_FAULT_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let tenant = FaultTenant::ready().await.unwrap();
    tenant.scale(REPLICAS).await.unwrap();
    tenant.apply_server(SERVER).await.unwrap();
    let budget = Budget::create(&tenant, u64::from(rounds) * CALLS_PER_ROUND).await;
    let spenders = [
        Spender::start(&tenant, "spender-1", &budget.name).await,
        Spender::start(&tenant, "spender-2", &budget.name).await,
    ];

    let mut faults: Vec<Fault> = Vec::new();
    for round in 1..=rounds {
        // Each fault in turn, in another order each time, so that a short run has all of them.
        if faults.is_empty() {
            faults = Fault::ALL.to_vec();
            random.shuffle(&mut faults);
        }
        let fault = faults.pop().unwrap();
        tokio::time::sleep(Duration::from_millis(random.u64(200..1500))).await;
        fault.happen(&tenant, &mut random).await;
        for spender in &spenders {
            spender.wait_for_answer(fault).await;
        }
        let state = budget.check(&tenant).await;
        println!("round {round}: {fault:?}: {state:?}");
    }

    // The budget is lowered below what the rounds left of it, and runs out.
    let before = budget.check(&tenant).await;
    spenders.iter().for_each(Spender::expect_exhaustion);
    budget.set_limit(&tenant, before.charged() + 50).await;
    for spender in spenders {
        spender.until_exhausted().await;
    }
    let after = budget.check(&tenant).await;
    assert!(after.begun > before.begun, "{before:?}, {after:?}");
    println!("exhausted: {after:?}");
}

/// A budget of calls to [`SERVER`].
struct Budget {
    name: String,
    limit: u64,
}

/// What was done and what was charged.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Calls that the tool server has begun.
    begun: u64,
    settled: u64,
    leased: u64,
    forfeited: u64,
}

impl State {
    fn charged(self) -> u64 {
        self.settled + self.leased + self.forfeited
    }
}

impl Budget {
    async fn create(tenant: &FaultTenant, limit: u64) -> Self {
        let budgets: Api<MCPBudget> = Api::namespaced(tenant.client.clone(), NAMESPACE);
        // That of an earlier run on this cluster is exhausted.
        budgets.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
        let budget = Self { name: unique("rounds"), limit };
        budget.apply(tenant, limit).await;
        // Calls that the gateway admits before it knows the budget are not charged to it.
        until("the budget to be enforced", Duration::from_secs(60), || async {
            let status = budgets.get(&budget.name).await?.status.unwrap_or_default();
            Ok(is_true(&status.conditions, ConditionType::Ready).then_some(()))
        })
        .await
        .unwrap();
        budget
    }

    async fn apply(&self, tenant: &FaultTenant, calls: u64) {
        let spec = json!({"selector": {"serverRefs": [{"name": SERVER}]}, "period": "Month", "calls": calls});
        let object = json!({"metadata": {"name": self.name}, "spec": spec});
        until("the budget to be applied", Duration::from_secs(60), || async {
            tenant.apply_one::<MCPBudget>(Some(NAMESPACE), object.clone()).await.map(Some)
        })
        .await
        .unwrap();
    }

    /// Changes the limit. The highest one counts for [`Self::check`].
    async fn set_limit(&self, tenant: &FaultTenant, calls: u64) {
        assert!(calls <= self.limit);
        self.apply(tenant, calls).await;
    }

    /// Checks that no call was made twice, and that no more calls were made than charged, nor charged than allowed.
    async fn check(&self, tenant: &FaultTenant) -> State {
        let words = until("the tool server's workspace", Duration::from_secs(60), || async { marks(SERVER).map(Some) });
        let words: Vec<String> = words.await.unwrap();
        let mine: Vec<&String> = words.iter().filter(|word| word.starts_with(&self.name)).collect();
        assert_eq!(mine.iter().collect::<HashSet<_>>().len(), mine.len(), "a call was made twice");
        // Later than the calls that it has to cover.
        let ledgers: Api<MCPLedger> = Api::namespaced(tenant.client.clone(), OPERATOR);
        let all = until("the ledger", Duration::from_secs(60), || async {
            Ok(Some(ledgers.list(&ListParams::default()).await?.items))
        });
        let all = all.await.unwrap();
        let ledger =
            &all.iter().find(|ledger| ledger.spec.budget.name == self.name).expect("the budget has no ledger").spec;
        let leased = ledger.leases.iter().map(|lease| {
            let reported: u64 = lease.entries.iter().map(|entry| entry.calls).sum();
            lease.granted.calls.unwrap() - reported
        });
        let state = State {
            begun: mine.len() as u64,
            settled: ledger.settled.calls,
            leased: leased.sum(),
            forfeited: ledger.forfeited.calls,
        };
        assert!(state.begun <= state.charged(), "more calls were made than charged: {state:?}");
        assert!(state.charged() <= self.limit, "more was charged than the limit of {}: {state:?}", self.limit);
        state
    }
}

/// An agent that calls a tool again and again.
struct Spender {
    /// Calls that were answered with their result.
    answered: Arc<AtomicU64>,
    /// Ends when the budget is exhausted, once it may be.
    calls: JoinHandle<()>,
    may_be_exhausted: Arc<AtomicBool>,
}

impl Spender {
    /// Creates a principal, and calls with its credential. Every call has a word of its own.
    async fn start(tenant: &FaultTenant, name: &str, run: &str) -> Self {
        let limits = json!({"callsPerMinute": 6000, "burst": 100, "maxConcurrentCalls": 4});
        let spec = json!({"scopeRefs": [{"name": format!("{SERVER}-all")}], "limits": limits});
        tenant
            .apply_one::<MCPPrincipal>(Some(NAMESPACE), json!({"metadata": {"name": name}, "spec": spec}))
            .await
            .unwrap();
        let caller = tenant.wait_for_caller(name).await.unwrap();
        let (answered, may_be_exhausted) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let calls =
            call_until_exhausted(caller, format!("{run}-{name}"), Arc::clone(&answered), Arc::clone(&may_be_exhausted));
        let spender = Self { answered, calls: tokio::spawn(calls), may_be_exhausted };
        spender.wait_for_answer("start").await;
        spender
    }

    /// Waits until a call is answered that began after this.
    async fn wait_for_answer(&self, after: impl std::fmt::Debug) {
        let before = self.answered.load(Ordering::Relaxed);
        until(format!("an answer after {after:?}"), Duration::from_secs(120), || async {
            assert!(!self.calls.is_finished(), "the calls have ended");
            // One call may have been under way.
            Ok((self.answered.load(Ordering::Relaxed) >= before + 2).then_some(()))
        })
        .await
        .unwrap();
    }

    /// From now on, the budget may be exhausted.
    fn expect_exhaustion(&self) {
        self.may_be_exhausted.store(true, Ordering::Relaxed);
    }

    async fn until_exhausted(self) {
        tokio::time::timeout(Duration::from_secs(300), self.calls).await.expect("the budget does not run out").unwrap();
    }
}

async fn call_until_exhausted(
    caller: Caller,
    prefix: String,
    answered: Arc<AtomicU64>,
    may_be_exhausted: Arc<AtomicBool>,
) {
    for number in 0_u64.. {
        let word = format!("{prefix}-{number}");
        match caller.call_with_word(SERVER, "mark", &word).await {
            Answer::Text(text) => {
                assert_eq!(text, word, "the answer to another call");
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Answer::Refused(reason) if reason == "budget_exhausted" => {
                assert!(may_be_exhausted.load(Ordering::Relaxed), "the rounds used up the budget");
                return;
            }
            Answer::Refused(_) | Answer::Error(_) | Answer::TransportError(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Returns the leader, once it is a pod that runs.
async fn living_leader(tenant: &FaultTenant) -> String {
    until("a leader that runs", Duration::from_secs(60), || async {
        let holder = leader(&tenant.client).await;
        let pods = tenant.pods(OPERATOR, OPERATORS).await?;
        let runs = pods.iter().any(|pod| pod.name_any() == holder && pod.metadata.deletion_timestamp.is_none());
        Ok(runs.then_some(holder))
    })
    .await
    .unwrap()
}

async fn kill(tenant: &FaultTenant, namespace: &str, pod: &str) {
    until(format!("pod {pod} to be killed"), Duration::from_secs(60), || async {
        match tenant.kill_pod(namespace, pod).await {
            Err(error) if !error.to_string().contains("not found") => Err(error),
            _ => Ok(Some(())),
        }
    })
    .await
    .unwrap();
}

async fn kill_pods(tenant: &FaultTenant, namespace: &str, selector: &str) {
    let pods =
        until("the pods", Duration::from_secs(60), || async { tenant.pods(namespace, selector).await.map(Some) });
    for pod in pods.await.unwrap() {
        kill(tenant, namespace, &pod.name_any()).await;
    }
}
