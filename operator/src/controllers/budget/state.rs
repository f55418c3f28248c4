//! How much of a budget is used in the current period. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mcp_fleet_core::ledger::book::{Amount, Book};
use mcp_fleet_core::ledger::period::Span;
use mcp_fleet_core::shared_state::BudgetState;
use mcp_fleet_crds::budget::{CallCounts, CurrentPeriod, Spending, ToppedUp};
use mcp_fleet_policy::model::Budget;
use mcp_fleet_policy::units::Micros;

/// Adds what earlier budgets with the same name have used of the period.
pub(super) fn with_used_before(mut state: BudgetState, used: Amount) -> BudgetState {
    let Spending { spent, leased, remaining, calls, .. } = &mut state.spending;
    let add = |spent: &mut Option<Micros>, remaining: &mut Option<Micros>| {
        *spent = spent.map(|spent| Micros::new(spent.get().saturating_add(used.micros)));
        *remaining = remaining.map(|remaining| Micros::new(remaining.get().saturating_sub(used.micros)));
    };
    add(spent, remaining);
    let mut used_up = *remaining == Some(Micros::ZERO) && leased.is_none_or(|leased| leased == Micros::ZERO);
    if let Some(calls) = calls {
        calls.spent = calls.spent.saturating_add(used.calls);
        calls.remaining = calls.remaining.map(|remaining| remaining.saturating_sub(used.calls));
        used_up |= calls.remaining == Some(0) && calls.leased == 0;
    }
    state.exhausted |= used_up;
    state
}

/// Computes the state of a budget from its book. `refused` says that the last lease request was refused because nothing was
/// left.
pub(super) fn budget_state(budget: &Budget, span: Span, book: Option<&Book>, refused: bool) -> BudgetState {
    let none = Amount::default();
    let (settled, leased, forfeited) =
        book.map_or((none, none, none), |book| (book.settled(), book.leased(), book.forfeited()));
    let charged = settled.saturating_add(leased).saturating_add(forfeited);
    let (amount, call_limit) = budget.limits_in(span.start);
    let money = |micros: u64| amount.map(|_| Micros::new(micros));
    let used_up = |limit: Option<u64>, charged: u64, leased: u64| {
        limit.is_some_and(|limit| limit.saturating_sub(charged) == 0 && leased == 0)
    };
    let amount = amount.map(Micros::get);
    let spending = Spending {
        current_period: CurrentPeriod { start: time(span.start), end: time(span.end) },
        spent: money(settled.micros),
        leased: money(leased.micros),
        forfeited: money(forfeited.micros),
        remaining: amount.map(|limit| Micros::new(limit.saturating_sub(charged.micros))),
        calls: call_limit.map(|limit| CallCounts {
            spent: settled.calls,
            leased: leased.calls,
            forfeited: forfeited.calls,
            remaining: Some(limit.saturating_sub(charged.calls)),
        }),
    };
    let exhausted =
        refused || used_up(amount, charged.micros, leased.micros) || used_up(call_limit, charged.calls, leased.calls);
    let top_up = budget.top_up.filter(|top_up| top_up.start == span.start).map(|top_up| ToppedUp {
        amount: budget.amount.map(|_| top_up.amount),
        calls: budget.calls.map(|_| top_up.calls),
    });
    BudgetState { spending, exhausted, top_up }
}

fn time(unix: i64) -> Time {
    Time(Timestamp::from_second(unix).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use mcp_fleet_core::ledger::book::{Holder, LeaseRequest, Limit, Report, ReportItem};
    use mcp_fleet_policy::model::{BudgetMode, Period, Selector};

    use super::*;

    pub(crate) const SPAN: Span = Span { start: 1_794_960_000, end: 1_795_046_400 };

    pub(crate) fn budget(amount: Option<u64>, calls: Option<u64>) -> Budget {
        Budget {
            name: "daily".into(),
            uid: "b-1".into(),
            selector: Selector::default(),
            period: Period::Day,
            amount: amount.map(Micros::new),
            calls,
            mode: BudgetMode::Enforce,
            top_up: None,
        }
    }

    /// A book with two leases: one is settled with 30, the other is open.
    pub(crate) fn book() -> Book {
        let mut book = Book::new(SPAN);
        let holder = Holder { pod_uid: "p".into(), epoch: "e".into() };
        let amount = Amount { micros: 30, calls: 3 };
        let limit = Limit { micros: Some(100), calls: Some(10) };
        for (number, id) in [(1, "a"), (2, "b")] {
            let request = LeaseRequest { holder: holder.clone(), number, wanted: amount, minimum: amount };
            book.grant(&request, limit, id.into(), 0).unwrap();
        }
        let item = ReportItem { principal: "acme/coder".into(), server: "files".into(), tool: "read".into(), amount };
        let report = Report { holder, lease: "a".into(), sequence: 1, total: amount, last: true, items: vec![item] };
        book.report(&report).unwrap();
        book
    }

    #[test]
    fn a_leased_amount_is_neither_spent_nor_remaining() {
        let state = budget_state(&budget(Some(100), Some(10)), SPAN, Some(&book()), false);
        let Spending { spent, leased, forfeited, remaining, calls, .. } = state.spending;
        let money = |micros| Some(Micros::new(micros));
        assert_eq!((spent, leased, forfeited, remaining), (money(30), money(30), money(0), money(40)));
        let calls = calls.unwrap();
        assert_eq!((calls.spent, calls.leased, calls.remaining), (3, 3, Some(4)));
        assert!(!state.exhausted);
    }

    #[test]
    fn a_budget_without_a_book_is_unused() {
        let state = budget_state(&budget(Some(100), None), SPAN, None, false);
        assert_eq!(state.spending.remaining, Some(Micros::new(100)));
        assert_eq!(state.spending.calls, None);
    }

    #[test]
    fn a_budget_is_exhausted_when_nothing_more_can_be_spent() {
        let mut book = book();
        let exhausted =
            |limit, book: &Book, refused| budget_state(&budget(Some(limit), None), SPAN, Some(book), refused).exhausted;
        assert!(!exhausted(60, &book, false), "a gateway still holds a lease");
        book.leases.clear();
        assert!(exhausted(30, &book, false));
        assert!(!exhausted(31, &book, false));
        assert!(exhausted(31, &book, true), "what is left is too little for a call");
    }
}
