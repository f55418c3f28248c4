//! Tests of leases: requested, granted, denied, spent, reported, returned.

use std::time::Duration;

use futures::FutureExt as _;
use mcp_fleet_control::wire::lease_answer::Outcome;
use mcp_fleet_control::wire::{self, from_gateway, from_operator};
use mcp_fleet_policy::budget::{Charge, PricedCall};
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::model::{Budget, BudgetMode, Period, Selector, TenantPolicy};
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::units::Micros;
use tokio::time::Instant;

use super::operator::{ControlStream, NAME, Operator, within};
use super::{Gateway, eventually, policy, start};
use crate::gateway::budget::{Leases, Reservation};
use crate::gateway::control::LEASE_TIMEOUT;

const BUDGET: &str = "b0d6e7";
const PRICE: u64 = 1_000;
/// A period that contains every test.
const PERIOD: (i64, i64) = (0, 10_000_000_000);

fn budget() -> Budget {
    Budget {
        name: "daily".into(),
        uid: BUDGET.into(),
        selector: Selector::default(),
        period: Period::Day,
        amount: Some(Micros::new(5_000_000)),
        calls: None,
        mode: BudgetMode::Enforce,
        top_up: None,
    }
}

fn priced() -> TenantPolicy {
    TenantPolicy { currency: Some("USD".parse().unwrap()), budgets: vec![budget()], ..policy(3) }
}

const CALL: PricedCall<'_> =
    PricedCall { principal: "acme/coder", server: "files", tool: "read", price: Micros::new(PRICE) };

async fn reserve(gateway: &Gateway) -> Result<Reservation, Denial> {
    within(gateway.state.leases.reserve(&CALL, &[budget()])).await
}

/// Reserves for a call, unless it would have to wait.
fn reserve_at_once(gateway: &Gateway) -> Option<Result<Reservation, Denial>> {
    gateway.state.leases.reserve(&CALL, &[budget()]).now_or_never()
}

fn reserved_at_once(gateway: &Gateway) -> Reservation {
    reserve_at_once(gateway).expect("the call had to wait").unwrap()
}

/// Returns a gateway with a priced policy, and the operator's end of its stream.
async fn priced_gateway(operator: &mut Operator) -> (Gateway, ControlStream) {
    let gateway = start(operator);
    let mut stream = operator.accept().await;
    assert_eq!(stream.push(&priced()).await.error, "");
    (gateway, stream)
}

async fn next_request(stream: &mut ControlStream) -> wire::LeaseRequest {
    loop {
        if let from_gateway::Message::LeaseRequest(request) = stream.next().await {
            return request;
        }
    }
}

/// Returns the next report that is `wanted`, and acknowledges the ones before it.
async fn next_report(stream: &mut ControlStream, wanted: impl Fn(&wire::SpendReport) -> bool) -> wire::SpendReport {
    loop {
        if let from_gateway::Message::Spend(report) = stream.next().await {
            if wanted(&report) {
                return report;
            }
            ack(stream, &report).await;
        }
    }
}

async fn ack(stream: &ControlStream, report: &wire::SpendReport) {
    let ack = wire::SpendAck { lease: report.lease.clone(), sequence: report.sequence, balance: None };
    stream.send(from_operator::Message::SpendAck(ack)).await;
}

fn balance(as_of_ms: i64, left: u64) -> wire::BudgetBalance {
    wire::BudgetBalance {
        budget_uid: BUDGET.to_owned(),
        left_amount: Some(left),
        left_calls: None,
        spent_amount: 7 * PRICE,
        spent_calls: 7,
        period_end: PERIOD.1,
        as_of_ms,
    }
}

async fn answer(stream: &ControlStream, request: &wire::LeaseRequest, outcome: Outcome) {
    let granted = outcome == Outcome::Granted;
    let answer = wire::LeaseAnswer {
        request: request.request,
        budget_uid: request.budget_uid.clone(),
        lease: if granted { format!("lease-{}", request.request) } else { String::new() },
        amount: if granted { request.amount } else { 0 },
        calls: if granted { request.calls } else { 0 },
        period_start: PERIOD.0,
        valid_ms: 60_000,
        period_end: PERIOD.1,
        outcome: outcome.into(),
        balance: granted.then(|| balance(1, 3000)),
    };
    stream.send(from_operator::Message::Lease(answer)).await;
}

/// Makes the first call, for which a lease has to be requested.
async fn first_call(gateway: &Gateway, stream: &mut ControlStream) -> (Reservation, wire::LeaseRequest) {
    let fetch = async {
        let request = next_request(stream).await;
        answer(stream, &request, Outcome::Granted).await;
        request
    };
    let (reserved, request) = tokio::join!(reserve(gateway), fetch);
    (reserved.unwrap(), request)
}

#[tokio::test]
async fn a_lease_is_requested_once_and_later_calls_do_not_wait() {
    let mut operator = Operator::start(NAME).await;
    let (gateway, mut stream) = priced_gateway(&mut operator).await;
    let (reserved, request) = first_call(&gateway, &mut stream).await;
    assert_eq!(request.budget_uid, BUDGET);
    assert!(request.minimum_amount >= PRICE && request.amount >= request.minimum_amount, "{request:?}");
    reserved.settle(Charge::Full);
    reserved_at_once(&gateway).settle(Charge::Full);
}

#[tokio::test]
async fn only_spending_is_reported_with_principal_server_and_tool() {
    let mut operator = Operator::start(NAME).await;
    let (gateway, mut stream) = priced_gateway(&mut operator).await;
    let (reserved, _) = first_call(&gateway, &mut stream).await;
    reserved.settle(Charge::Full);
    reserved_at_once(&gateway).settle(Charge::Nothing);
    // Dropped unsettled: charged in full, because the server may have seen the call.
    drop(reserved_at_once(&gateway));
    let report = next_report(&mut stream, |report| report.calls == 2).await;
    assert_eq!((report.amount, report.r#final), (2 * PRICE, false));
    let [item] = &report.items[..] else { panic!("{:?}", report.items) };
    assert_eq!((item.principal.as_str(), item.server.as_str(), item.tool.as_str()), ("acme/coder", "files", "read"));
    assert_eq!((item.amount, item.calls), (2 * PRICE, 2));
}

#[tokio::test]
async fn an_exhausted_budget_denies_and_says_when_it_resets() {
    let mut operator = Operator::start(NAME).await;
    let (gateway, mut stream) = priced_gateway(&mut operator).await;
    let deny = async {
        let request = next_request(&mut stream).await;
        answer(&stream, &request, Outcome::Exhausted).await;
    };
    let (denied, ()) = tokio::join!(reserve(&gateway), deny);
    let denial = denied.unwrap_err();
    assert_eq!(denial.reason, Reason::BudgetExhausted);
    assert_eq!(denial.resets_at, Some(PERIOD.1));
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_denies_with_its_own_reason() {
    let mut operator = Operator::start(NAME).await;
    let (gateway, mut stream) = priced_gateway(&mut operator).await;
    let deny = async {
        let request = next_request(&mut stream).await;
        answer(&stream, &request, Outcome::Unavailable).await;
    };
    let (denied, ()) = tokio::join!(reserve(&gateway), deny);
    assert_eq!(denied.unwrap_err().reason, Reason::BudgetUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_does_not_answer_denies_after_a_second() {
    let leases = Leases::new(LEASE_TIMEOUT);
    leases.apply(&priced());
    let start = Instant::now();
    let denial = leases.reserve(&CALL, &[budget()]).await.unwrap_err();
    assert_eq!((denial.reason, start.elapsed().as_secs()), (Reason::BudgetUnavailable, 1));
    assert_eq!(leases.take_lease_requests().len(), 1);
}

#[tokio::test]
async fn leases_can_be_spent_while_the_operator_is_away() {
    let mut operator = Operator::start(NAME).await;
    let (gateway, mut stream) = priced_gateway(&mut operator).await;
    first_call(&gateway, &mut stream).await.0.settle(Charge::Full);
    drop(stream);
    operator.next_dial().await;
    reserved_at_once(&gateway).settle(Charge::Full);
}

#[tokio::test]
async fn a_request_that_may_be_lost_is_sent_again_with_its_number() {
    let mut operator = Operator::start(NAME).await;
    let (gateway, mut stream) = priced_gateway(&mut operator).await;
    let reconnect = async {
        let request = next_request(&mut stream).await;
        drop(stream);
        let mut stream = operator.accept().await;
        let again = next_request(&mut stream).await;
        answer(&stream, &again, Outcome::Granted).await;
        (request, again, stream)
    };
    let (reserved, (request, again, _session)) = tokio::join!(reserve(&gateway), reconnect);
    reserved.unwrap().settle(Charge::Full);
    assert_eq!(again, request);
}

#[tokio::test]
async fn only_a_report_that_was_not_acked_is_sent_again() {
    let mut operator = Operator::start(NAME).await;
    let (gateway, mut stream) = priced_gateway(&mut operator).await;
    first_call(&gateway, &mut stream).await.0.settle(Charge::Full);
    let report = next_report(&mut stream, |report| report.calls == 1).await;
    drop(stream);
    let mut stream = operator.accept().await;
    let again = next_report(&mut stream, |_| true).await;
    assert_eq!(again, report);
    ack(&stream, &again).await;
    // The next report adds the spending after the ack.
    reserved_at_once(&gateway).settle(Charge::Full);
    let next = next_report(&mut stream, |_| true).await;
    assert_eq!((next.calls, next.amount), (2, 2 * PRICE));
    assert!(next.sequence > report.sequence);
}

#[tokio::test]
async fn a_recalled_lease_is_reported_and_no_longer_spent() {
    let mut operator = Operator::start(NAME).await;
    let (gateway, mut stream) = priced_gateway(&mut operator).await;
    let (reserved, request) = first_call(&gateway, &mut stream).await;
    reserved.settle(Charge::Full);
    let lease = format!("lease-{}", request.request);
    stream
        .send(from_operator::Message::Recall(wire::LeaseRecall { lease: lease.clone(), budget_uid: BUDGET.into() }))
        .await;
    let last = next_report(&mut stream, |report| report.r#final).await;
    assert_eq!((last.lease.as_str(), last.amount, last.calls), (lease.as_str(), PRICE, 1));
    assert!(reserve_at_once(&gateway).is_none(), "a call was paid from a returned lease");
}

#[tokio::test]
async fn a_gateway_that_ends_returns_its_leases_and_waits_for_the_ack() {
    let mut operator = Operator::start(NAME).await;
    let (gateway, mut stream) = priced_gateway(&mut operator).await;
    first_call(&gateway, &mut stream).await.0.settle(Charge::Full);
    gateway.shutdown.cancel();
    let last = next_report(&mut stream, |report| report.r#final).await;
    assert_eq!((last.amount, last.calls), (PRICE, 1));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!gateway.task.is_finished(), "the gateway ended before the last report was acked");
    ack(&stream, &last).await;
    within(gateway.task).await.unwrap();
}

#[tokio::test]
async fn calls_of_a_budget_that_monitors_are_reported_although_they_waited_for_no_lease() {
    let mut operator = Operator::start(NAME).await;
    let gateway = start(&operator);
    let mut stream = operator.accept().await;
    let budgets = [Budget { amount: None, calls: Some(1), mode: BudgetMode::Monitor, ..budget() }];
    let policy = TenantPolicy { budgets: budgets.to_vec(), ..priced() };
    assert_eq!(stream.push(&policy).await.error, "");
    let free = PricedCall { price: Micros::ZERO, ..CALL };
    for _ in 0..3 {
        let reserved = gateway.state.leases.reserve(&free, &budgets).now_or_never().expect("the call had to wait");
        reserved.unwrap().settle(Charge::Full);
    }
    let request = next_request(&mut stream).await;
    answer(&stream, &request, Outcome::Granted).await;
    let report = next_report(&mut stream, |report| report.calls > 0).await;
    assert_eq!((report.calls, report.items.len()), (3, 1));
}

#[tokio::test]
async fn answers_and_acknowledgements_tell_what_is_left_of_a_budget() {
    let mut operator = Operator::start(NAME).await;
    let (gateway, mut stream) = priced_gateway(&mut operator).await;
    let remaining = || gateway.state.leases.standing(BUDGET).remaining;
    assert_eq!(remaining(), None);
    let (reserved, request) = first_call(&gateway, &mut stream).await;
    reserved.settle(Charge::Full);
    // The call may be settled before the balance is read, which follows the answer.
    eventually("the balance arrives", || remaining().is_some()).await;
    let left = |all: u64| Some((Some(Micros::new(all + request.amount - PRICE)), 7));
    let shown = || remaining().map(|shown| (shown.amount, shown.spent_calls));
    assert_eq!(shown(), left(3000));
    let report = next_report(&mut stream, |report| report.calls == 1).await;
    let ack = wire::SpendAck { lease: report.lease, sequence: report.sequence, balance: Some(balance(2, 5000)) };
    stream.send(from_operator::Message::SpendAck(ack)).await;
    eventually("the newer balance arrives", || shown() == left(5000)).await;
}
