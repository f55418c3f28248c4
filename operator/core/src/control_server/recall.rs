//! Recalls leases when a limit is lowered below what is charged already.

use std::time::Duration;

use mcp_fleet_control::wire::{LeaseRecall, from_operator};

use super::spend::message;
use crate::ledger::{Ledger, Store};
use crate::shared_state::SharedState;

/// How often the limits are compared with what is charged. A gateway that is not connected, or whose queue is full, is
/// asked again the next time.
const RECALL_INTERVAL: Duration = Duration::from_secs(1);

/// Recalls the leases of budgets that are charged beyond their limit. Never returns.
pub async fn recall(shared_state: &SharedState, ledger: &Ledger<impl Store>) {
    loop {
        tokio::time::sleep(RECALL_INTERVAL).await;
        recall_over_limit(shared_state, ledger);
    }
}

/// Asks the holders of leases to return them, where more is charged than the budget allows.
fn recall_over_limit(shared_state: &SharedState, ledger: &Ledger<impl Store>) {
    for published in shared_state.policies.all() {
        for budget in &published.policy.budgets {
            for (pod_uid, lease) in ledger.over_limit(budget) {
                let recall = LeaseRecall { lease, budget_uid: budget.uid.clone() };
                shared_state.streams.send(&pod_uid, message(from_operator::Message::Recall(recall)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::Arc;

    use mcp_fleet_control::codec;
    use mcp_fleet_policy::model::{Budget, BudgetMode, Period, Selector};
    use tokio::sync::mpsc;

    use super::*;
    use crate::ledger::book::{Amount, Holder, LeaseRequest};
    use crate::ledger::record::Owner;
    use crate::ledger::tests::Memory;
    use crate::shared_state::Published;
    use crate::testing::{TENANT, policy};

    const NOON: i64 = 1_795_000_000_000;

    #[tokio::test]
    async fn the_holder_of_a_lease_is_asked_to_return_it_when_the_limit_is_lowered() {
        let shared_state = SharedState::default();
        let (outbound, mut received) = mpsc::channel(8);
        shared_state.streams.register("pod", outbound);
        let budget = |calls| Budget {
            name: "daily".into(),
            uid: "b-1".into(),
            selector: Selector::default(),
            period: Period::Day,
            amount: None,
            calls: Some(calls),
            mode: BudgetMode::Enforce,
            top_up: None,
        };
        let publish = |calls| {
            let policy = policy(vec![budget(calls)]);
            let encoded = codec::encode(&policy);
            shared_state.policies.publish(TENANT, Published::new(policy.into(), encoded, 7));
        };
        let ledger = Arc::new(Ledger::new(Memory::default(), || NOON, Duration::ZERO));
        let owner = Owner {
            tenant: "acme".into(),
            tenant_uid: TENANT.into(),
            budget: "daily".into(),
            budget_uid: "b-1".into(),
        };
        let wanted = Amount { micros: 0, calls: 6 };
        let holder = Holder { pod_uid: "pod".into(), epoch: "e".into() };
        let request = LeaseRequest { holder, number: 1, wanted, minimum: wanted };
        let lease = ledger.grant(&owner, &budget(10), &request).await.unwrap().result.unwrap().lease;

        publish(6);
        recall_over_limit(&shared_state, &*ledger);
        assert!(received.try_recv().is_err(), "the lease still fits");
        publish(5);
        recall_over_limit(&shared_state, &*ledger);
        let Some(from_operator::Message::Recall(recall)) = received.try_recv().unwrap().unwrap().message else {
            panic!("no recall");
        };
        assert_eq!((recall.lease, recall.budget_uid), (lease, "b-1".to_owned()));
    }
}
