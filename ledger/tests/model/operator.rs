//! An operator of the model: the reads and writes that `operator/core/src/ledger/change.rs` makes, one at a time, around the
//! real books and the real commit protocol.

use std::collections::BTreeMap;

use mcp_fleet_ledger::book::{Book, LEASE_DURATION, Limit, REPORT_GRACE, Refusal, Report};
use mcp_fleet_ledger::commit::{Commit, Effect, Grant, Results, Step, apply};
use mcp_fleet_ledger::period::Span;
use mcp_fleet_policy::budget as pool;
use mcp_fleet_policy::units::Micros;

use crate::defect::Defect;
use crate::fleet::Fleet;
use crate::shared::Shared;
use crate::state::{Body, Key, Process, State, pod};
use crate::wire;

/// One operator. Any number of them may believe that they lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Operator {
    pub(crate) copies: BTreeMap<Key, Copy>,
    /// What waits while a book is read or written.
    pub(crate) queue: Vec<(Key, Work)>,
    pub(crate) busy: Option<Busy>,
    /// How far its clock is ahead, in milliseconds.
    pub(crate) skew: i64,
    /// Index of the limits that it knows.
    pub(crate) limits: usize,
    /// What [`Defect::RefundIntoNextPeriod`] adds to the limit.
    pub(crate) credit: u64,
}

/// An operator's copy of a book.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Copy {
    pub(crate) book: Option<Shared<Book>>,
    /// Whether it is the newest version that the operator knows of.
    current: bool,
    /// Whether it is the version that is stored.
    pub(crate) latest: bool,
    /// Time at which it was read or written.
    synced: usize,
}

/// What an operator has to do to a book.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// `in_force` is the limit that the operator knows.
    Grant {
        from: Process,
        request: pool::LeaseRequest,
        grant: Grant,
        in_force: u64,
    },
    Report {
        from: Process,
        report: Report,
    },
    Expire,
    Forfeit {
        running: Process,
    },
}

/// A change of a book in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Busy {
    pub(crate) key: Key,
    work: Vec<Work>,
    pub(crate) commit: Commit,
    computed: Option<(Shared<Book>, Results)>,
}

impl Fleet {
    pub(crate) fn operator_now(&self, state: &State, index: usize) -> i64 {
        self.now_ms(state.time) + state.operators[index].skew
    }

    /// Handles a message to the ledger.
    pub(crate) fn receive(&self, state: &mut State, index: usize, body: &Body) {
        let now = self.operator_now(state, index);
        match body {
            Body::Hello { from } => {
                let holds = |book: &Shared<Book>| {
                    book.leases.iter().any(|lease| lease.holder.pod_uid == pod(from.0) && lease.holder != from.holder())
                };
                let copies = state.operators[index].copies.iter();
                let keys: Vec<Key> =
                    copies.filter(|(_, copy)| copy.book.as_ref().is_some_and(holds)).map(|(key, _)| *key).collect();
                for key in keys {
                    self.enqueue(state, index, key, Work::Forfeit { running: *from });
                }
            }
            Body::Request { from, request } => {
                let number = self.number_of(&request.budget_uid);
                let budget = &self.budgets[number];
                let Some(span) = Span::containing(budget.period, now.div_euclid(1000)) else { return };
                let arrived = state.arrived.entry((*from, request.request)).or_default();
                *arrived += 1;
                let arrived = *arrived;
                let operator = &state.operators[index];
                let in_force = self.bounds.limits[number][operator.limits];
                let calls = in_force + operator.credit;
                let valid = i64::try_from(LEASE_DURATION.as_millis()).unwrap();
                let mut charged = wire::lease_request(*from, request);
                if self.defect == Some(Defect::SecondLeaseForRepeatedRequest) {
                    charged.number += 1000 * arrived;
                }
                let grant = Grant {
                    request: charged,
                    limit: Limit { micros: None, calls: Some(calls) },
                    id: format!("{}.{}-{}-{}-{arrived}", span.start, from.0, from.1, request.request),
                    deadline: (now + valid).min(span.end * 1000),
                    period_end: span.end,
                };
                let work = Work::Grant { from: *from, request: request.clone(), grant, in_force };
                self.enqueue(state, index, (number, span.start), work);
            }
            Body::Report { from, report } => {
                let start = report.lease.split_once('.').and_then(|(start, _)| start.parse().ok()).unwrap();
                let key = (self.number_of(&report.budget_uid), start);
                let report = wire::report(*from, report);
                self.enqueue(state, index, key, Work::Report { from: *from, report });
            }
            Body::Answer { .. } | Body::Acknowledgement { .. } | Body::Recall { .. } => {}
        }
    }

    pub(crate) fn enqueue(&self, state: &mut State, index: usize, key: Key, work: Work) {
        state.operators[index].update(|operator| operator.queue.push((key, work)));
        self.begin(state, index);
    }

    /// Begins the next change: everything that waits for one book.
    fn begin(&self, state: &mut State, index: usize) {
        let operator = &state.operators[index];
        let (None, Some((key, _))) = (&operator.busy, operator.queue.first()) else { return };
        let key = *key;
        state.operators[index].update(|operator| {
            let work = operator.queue.extract_if(.., |(other, _)| *other == key).map(|(_, work)| work).collect();
            let current = operator.copies.get(&key).is_some_and(|copy| copy.current);
            operator.busy = Some(Busy { key, work, commit: Commit::new(current), computed: None });
        });
        self.advance(state, index);
    }

    /// Continues a change up to the next read or write.
    fn advance(&self, state: &mut State, index: usize) {
        let Some(mut busy) = state.operators[index].update(|operator| operator.busy.take()) else { return };
        match busy.commit.step() {
            Step::Read | Step::Write => state.operators[index].update(|operator| operator.busy = Some(busy)),
            Step::Compute => {
                let (book, results, effect) = self.compute(state, index, &mut busy);
                busy.commit.computed(
                    if self.defect == Some(Defect::AnswerFromStaleCopy) && effect == Effect::NeedsCurrent {
                        Effect::Unchanged
                    } else {
                        effect
                    },
                );
                if self.defect == Some(Defect::GrantBeforeWrite) {
                    self.answer(state, index, &busy.work, &book, &results);
                }
                busy.computed = Some((Shared::new(book), results));
                state.operators[index].update(|operator| operator.busy = Some(busy));
                self.advance(state, index);
            }
            Step::Done => {
                let Some((book, results)) = &busy.computed else { unreachable!() };
                self.answer(state, index, &busy.work, book, results);
                self.begin(state, index);
            }
            Step::Contended => {
                self.fail(state, index, busy);
                self.begin(state, index);
            }
        }
    }

    fn compute(&self, state: &mut State, index: usize, busy: &mut Busy) -> (Book, Results, Effect) {
        let now = self.operator_now(state, index);
        let time = state.time;
        state.operators[index].update(|operator| self.compute_from_copy(operator, busy, now, time))
    }

    fn compute_from_copy(
        &self,
        operator: &mut Operator,
        busy: &mut Busy,
        now: i64,
        time: usize,
    ) -> (Book, Results, Effect) {
        let arrived = operator.queue.extract_if(.., |(key, _)| *key == busy.key).map(|(_, work)| work);
        busy.work.extend(arrived);
        let copy = operator.copies.entry(busy.key).or_default();
        let span = Span { start: busy.key.1, end: busy.key.1 };
        let mut book = copy.book.as_deref().cloned().unwrap_or_else(|| Book::new(span));
        let mut effect = Effect::Unchanged;
        for work in &mut busy.work {
            let Work::Report { report, .. } = work else { continue };
            let lease = book.leases.iter().find(|lease| lease.id == report.lease);
            match self.defect {
                Some(Defect::DoubleSettle) if lease.is_none_or(|lease| report.sequence <= lease.sequence) => {
                    if let Some(row) = book.rows.first_mut() {
                        row.amount = row.amount.saturating_add(report.total);
                        book.row_total = book.row_total.saturating_add(report.total);
                        effect = Effect::Changed;
                    }
                }
                Some(Defect::ReportFromAnotherEpoch) => {
                    let lease = lease.filter(|lease| lease.holder.pod_uid == report.holder.pod_uid);
                    report.holder = lease.map_or_else(|| report.holder.clone(), |lease| lease.holder.clone());
                }
                Some(Defect::RefundIntoNextPeriod) if report.last && now >= book.span.end * 1000 => {
                    let unspent = |granted: u64| granted - report.total.calls;
                    operator.credit += lease.and_then(|lease| lease.granted.calls).map_or(0, unspent);
                }
                _ => {}
            }
        }
        let reports = busy.work.iter().filter_map(|work| match work {
            Work::Report { report, .. } => Some(report),
            _ => None,
        });
        let grants = busy.work.iter().filter_map(|work| match work {
            Work::Grant { grant, .. } => Some(grant),
            _ => None,
        });
        let results = apply(&mut book, reports, grants, copy.synced == time);
        for work in &busy.work {
            let changed = match work {
                Work::Grant { .. } | Work::Report { .. } => false,
                Work::Expire if self.defect == Some(Defect::RefundOnExpiry) => {
                    let before = book.leases.len();
                    book.leases.retain(|lease| lease.deadline > now);
                    book.leases.len() < before
                }
                Work::Expire => book.expire(now, grace()),
                Work::Forfeit { running } => book.forfeit(now / 1000, |lease| {
                    lease.holder.pod_uid == pod(running.0) && lease.holder.epoch != running.1.to_string()
                }),
            };
            effect = effect.max(if changed { Effect::Changed } else { Effect::Unchanged });
        }
        let effect = effect.max(results.grants_effect).max(results.reports_effect);
        (book, results, effect)
    }

    /// Makes the read or the write that an operator waits for.
    pub(crate) fn access(&self, state: &mut State, index: usize) {
        let Some(mut busy) = state.operators[index].update(|operator| operator.busy.take()) else { return };
        let (time, key) = (state.time, busy.key);
        let set = |state: &mut State, book| {
            let copy = Copy { book, current: true, latest: true, synced: time };
            state.operators[index].update(|operator| operator.copies.insert(key, copy));
        };
        if busy.commit.step() == Step::Read {
            let book = state.store.get(&key).cloned();
            set(state, book);
            busy.commit.read();
        } else if self.write(state, index, &busy) {
            let book = busy.computed.as_ref().map(|(book, _)| book.clone());
            set(state, book);
            busy.commit.written();
        } else {
            state.operators[index].update(|operator| operator.copies.entry(key).or_default().current = false);
            busy.commit.conflicted();
        }
        state.operators[index].update(|operator| operator.busy = Some(busy));
        self.advance(state, index);
    }

    /// Makes the read or the write that an operator waits for, or not, and loses the answer.
    pub(crate) fn fail_access(&self, state: &mut State, index: usize, applied: bool) {
        if applied {
            self.apply_write(state, index);
        }
        let Some(busy) = state.operators[index].update(|operator| operator.busy.take()) else { return };
        state.operators[index].update(|operator| operator.copies.entry(busy.key).or_default().current = false);
        self.fail(state, index, busy);
        self.begin(state, index);
    }

    /// Makes the write that an operator waits for, if it is one, without an answer.
    pub(crate) fn apply_write(&self, state: &mut State, index: usize) {
        let busy = state.operators[index].busy.clone();
        if let Some(busy) = busy.filter(|busy| busy.commit.step() == Step::Write) {
            self.write(state, index, &busy);
        }
    }

    /// Replaces the stored book if the copy that the new one was computed from is the stored one.
    fn write(&self, state: &mut State, index: usize, busy: &Busy) -> bool {
        let Some((book, results)) = &busy.computed else { unreachable!() };
        let latest = state.operators[index].copies.get(&busy.key).is_some_and(|copy| copy.latest);
        if !latest && self.defect != Some(Defect::WriteWithoutCompareAndSwap) {
            return false;
        }
        for operator in &mut state.operators {
            operator.update(|operator| operator.copies.get_mut(&busy.key).map(|copy| copy.latest = false));
        }
        state.store.insert(busy.key, book.clone());
        let limits = busy.work.iter().filter_map(|work| match work {
            Work::Grant { in_force, .. } => Some(*in_force),
            _ => None,
        });
        for (limit, result) in limits.zip(&results.grants) {
            if result.as_ref().is_ok_and(|grant| grant.new) {
                let highest = state.seen.highest_limit.entry(busy.key).or_default();
                *highest = limit.max(*highest);
            }
        }
        true
    }

    /// Refuses the lease requests of a change that failed. Its reports are tried again.
    fn fail(&self, state: &mut State, index: usize, busy: Busy) {
        for work in busy.work {
            match work {
                Work::Grant { from, request, .. } => {
                    self.send_answer(state, from, request, pool::LeaseOutcome::Unavailable);
                }
                Work::Report { .. } => state.operators[index].update(|operator| operator.queue.push((busy.key, work))),
                Work::Expire | Work::Forfeit { .. } => {}
            }
        }
    }

    /// Sends the answers of a change.
    fn answer(&self, state: &mut State, index: usize, work: &[Work], book: &Book, results: &Results) {
        let now = self.operator_now(state, index);
        let mut grants = results.grants.iter();
        for work in work {
            match work {
                Work::Report { from, report } => {
                    let (lease, sequence) = (report.lease.clone(), report.sequence);
                    state.send(Body::Acknowledgement { to: *from, lease, sequence });
                }
                Work::Grant { from, request, grant, .. } => {
                    let Some(result) = grants.next() else { unreachable!() };
                    if result.is_err() {
                        for (pod_uid, lease) in book.recallable(&from.holder()) {
                            let Some(gateway) = (0..self.bounds.gateways).find(|other| pod(*other) == pod_uid) else {
                                continue;
                            };
                            state.send(Body::Recall { gateway, lease });
                        }
                    }
                    let outcome = match result {
                        Ok(granted) => pool::LeaseOutcome::Granted(pool::GrantedLease {
                            lease: granted.lease.clone(),
                            amount: Micros::new(granted.amount.micros),
                            calls: granted.amount.calls,
                            valid: std::time::Duration::from_millis(u64::try_from(granted.deadline - now).unwrap_or(0)),
                        }),
                        Err(Refusal::Held) => pool::LeaseOutcome::Unavailable,
                        Err(Refusal::Exhausted) => pool::LeaseOutcome::Exhausted { period_end: grant.period_end },
                    };
                    self.send_answer(state, *from, request.clone(), outcome);
                }
                Work::Expire | Work::Forfeit { .. } => {}
            }
        }
    }

    fn send_answer(&self, state: &mut State, to: Process, request: pool::LeaseRequest, outcome: pool::LeaseOutcome) {
        let pool::LeaseRequest { request, budget_uid, .. } = request;
        state.send(Body::Answer { to, answer: pool::LeaseAnswer { request, budget_uid, outcome } });
    }
}

pub(crate) fn grace() -> i64 {
    i64::try_from(REPORT_GRACE.as_millis()).unwrap()
}
