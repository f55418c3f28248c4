//! Metrics of spending, read from the ledger at every scrape, on the leader only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mcp_fleet_control::snapshot::MAX_COMPRESSED;
use mcp_fleet_policy::model::BudgetMode;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Gauge, GaugeVec, IntGaugeVec, Opts};

use crate::ledger::book::{Amount, Row};
use crate::ledger::period::Span;
use crate::ledger::{AnyStore, Ledger};
use crate::policy::compile::{Limit, SPEND_LIMIT};
use crate::shared_state::{Published, SharedState};

/// `mcp_fleet_spend_total`, `mcp_fleet_budget_*`, `mcp_fleet_ledger_oldest_report_seconds` and
/// `mcp_fleet_policy_{generation,bytes,limit_bytes,proof_age_seconds}`.
#[derive(Debug)]
pub struct SpendMetrics {
    shared_state: Arc<SharedState>,
    generation: IntGaugeVec,
    sizes: IntGaugeVec,
    size_limits: IntGaugeVec,
    spend: Opts,
    /// Limits of budgets, with their mode.
    limits: GaugeVec,
    /// What is spent, leased and forfeited.
    budgets: [GaugeVec; 3],
    /// Start and end of the current period.
    periods: [GaugeVec; 2],
    oldest_report: Gauge,
    proof_ages: GaugeVec,
    desc: Vec<Desc>,
}

const SPEND_LABELS: [&str; 5] = ["tenant", "principal", "server", "tool", "currency"];
/// A policy as it is sent to gateways.
const ENCODED: &str = "encoded";
/// A policy as it is stored in Secrets.
const COMPRESSED: &str = "compressed";
const BUDGET_LABELS: [&str; 3] = ["tenant", "budget", "unit"];
const LIMIT_LABELS: [&str; 4] = ["tenant", "budget", "unit", "mode"];

impl SpendMetrics {
    /// Creates the metrics of the ledger and policies in a shared state.
    pub fn new(shared_state: Arc<SharedState>) -> prometheus::Result<Self> {
        let spend = Opts::new(
            "mcp_fleet_spend_total",
            "Settled spend by principal, server and tool, in units of the tenant's currency",
        );
        let gauge =
            |name: &str, help: &str| GaugeVec::new(Opts::new(format!("mcp_fleet_budget_{name}"), help), &BUDGET_LABELS);
        let limits = GaugeVec::new(
            Opts::new("mcp_fleet_budget_limit", "The budget of the current period, in the unit of the label"),
            &LIMIT_LABELS,
        )?;
        let budgets = [
            gauge("spent", "What of it is settled")?,
            gauge("leased", "What of it gateways hold to spend")?,
            gauge("forfeited", "What of it was lost with gateways that made no last report")?,
        ];
        let periods = [
            gauge("period_start_timestamp_seconds", "When the current period of the budget began, Unix seconds")?,
            gauge("reset_timestamp_seconds", "When the current period of the budget ends, Unix seconds")?,
        ];
        let oldest_report = Gauge::new(
            "mcp_fleet_ledger_oldest_report_seconds",
            "How long the oldest report of spending has waited to be written; 0 if none waits",
        )?;
        let proof_ages = GaugeVec::new(
            Opts::new(
                "mcp_fleet_policy_proof_age_seconds",
                "Age of the newest proof that the tenant's policy is current",
            ),
            &["tenant"],
        )?;
        let generation = IntGaugeVec::new(
            Opts::new("mcp_fleet_policy_generation", "The generation of the tenant's policy that was published last"),
            &["tenant"],
        )?;
        let sizes = IntGaugeVec::new(
            Opts::new("mcp_fleet_policy_bytes", "Size of the tenant's policy that was published last"),
            &["tenant", "form"],
        )?;
        let size_limits = IntGaugeVec::new(
            Opts::new("mcp_fleet_policy_limit_bytes", "Size at which new objects no longer fit into a tenant's policy"),
            &["form"],
        )?;
        let counter = CounterVec::new(spend.clone(), &SPEND_LABELS)?;
        let mut desc: Vec<Desc> = counter.desc().into_iter().cloned().collect();
        desc.extend([&generation, &sizes, &size_limits].into_iter().flat_map(Collector::desc).cloned());
        desc.extend(oldest_report.desc().into_iter().chain(proof_ages.desc()).cloned());
        desc.extend(limits.desc().into_iter().cloned());
        desc.extend(budgets.iter().chain(&periods).flat_map(Collector::desc).cloned());
        Ok(Self {
            shared_state,
            generation,
            sizes,
            size_limits,
            spend,
            limits,
            budgets,
            periods,
            oldest_report,
            proof_ages,
            desc,
        })
    }

    fn sizes(&self, tenants: &[Published]) -> Vec<MetricFamily> {
        let bytes = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        self.sizes.reset();
        for published in tenants {
            for (form, size) in [(ENCODED, published.encoded.bytes.len()), (COMPRESSED, published.compressed_size)] {
                self.sizes.with_label_values(&[published.policy.tenant.as_str(), form]).set(bytes(size));
            }
        }
        for (form, limit) in [(ENCODED, Limit::DEFAULT.bytes()), (COMPRESSED, MAX_COMPRESSED)] {
            self.size_limits.with_label_values(&[form]).set(bytes(limit));
        }
        let mut families = self.sizes.collect();
        families.extend(self.size_limits.collect());
        families
    }

    fn spend(&self, sums: HashMap<(String, Row), u64>, tenants: &[Published]) -> Vec<MetricFamily> {
        // A new counter each time: adding up fractions would drift, and rows of removed tenants must not stay.
        let Ok(counter) = CounterVec::new(self.spend.clone(), &SPEND_LABELS) else { return Vec::new() };
        // `spendLimit` covers every call, so each call is counted once in its book.
        let currencies: HashMap<&str, (&str, &str)> = tenants
            .iter()
            .filter_map(|published| {
                let currency = published.policy.currency.as_ref()?.as_str();
                Some((published.policy.tenant_uid.as_str(), (published.policy.tenant.as_str(), currency)))
            })
            .collect();
        for ((budget_uid, row), micros) in sums {
            if let Some((tenant, currency)) = currencies.get(budget_uid.as_str()) {
                let labels = [*tenant, &row.principal, &row.server, &row.tool, *currency];
                counter.with_label_values(&labels).inc_by(units(micros));
            }
        }
        counter.collect()
    }

    fn budgets(&self, ledger: &Ledger<AnyStore>, tenants: &[Published]) -> Vec<MetricFamily> {
        self.limits.reset();
        self.budgets.iter().chain(&self.periods).for_each(GaugeVec::reset);
        let now = Timestamp::now().as_second();
        for published in tenants {
            let policy = &published.policy;
            for budget in &policy.budgets {
                let Some(span) = Span::containing(budget.period, now) else { continue };
                let book = ledger.book(&budget.uid, span.start);
                let amounts = book.as_ref().map_or([Amount::default(); 3], |stored| {
                    [stored.book.settled(), stored.book.leased(), stored.book.forfeited()]
                });
                let [settled, leased, forfeited] = amounts;
                let used_before = ledger.used_before(&budget.uid, span.start);
                let amounts = [settled.saturating_add(used_before), leased, forfeited];
                let currency = policy.currency.as_ref().map_or("", |currency| currency.as_str());
                let name = if budget.uid == policy.tenant_uid { SPEND_LIMIT } else { &budget.name };
                let bounds = [span.start, span.end].map(seconds);
                let mode = match budget.mode {
                    BudgetMode::Enforce => "Enforce",
                    BudgetMode::Monitor => "Monitor",
                };
                let show = |unit: &str, limit: f64, values: [f64; 3]| {
                    self.limits.with_label_values(&[policy.tenant.as_str(), name, unit, mode]).set(limit);
                    let gauges = self.budgets.iter().chain(&self.periods);
                    for (gauge, value) in gauges.zip(values.into_iter().chain(bounds)) {
                        gauge.with_label_values(&[policy.tenant.as_str(), name, unit]).set(value);
                    }
                };
                let (money, calls) = budget.limits_in(span.start);
                if let Some(limit) = money {
                    let [spent, leased, forfeited] = amounts.map(|amount| units(amount.micros));
                    show(currency, units(limit.get()), [spent, leased, forfeited]);
                }
                if let Some(limit) = calls {
                    let [spent, leased, forfeited] = amounts.map(|amount| count(amount.calls));
                    show("calls", count(limit), [spent, leased, forfeited]);
                }
            }
        }
        let mut families = self.limits.collect();
        families.extend(self.budgets.iter().chain(&self.periods).flat_map(Collector::collect));
        families
    }

    fn ages(&self, proofs: Vec<(String, Duration)>, oldest_report: Duration) -> Vec<MetricFamily> {
        self.proof_ages.reset();
        for (tenant, age) in proofs {
            self.proof_ages.with_label_values(&[tenant]).set(age.as_secs_f64());
        }
        self.oldest_report.set(oldest_report.as_secs_f64());
        let mut families = self.proof_ages.collect();
        families.extend(self.oldest_report.collect());
        families
    }
}

impl Collector for SpendMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(leading) = self.shared_state.policies.leader_state() else { return Vec::new() };
        let tenants = self.shared_state.policies.all();
        self.generation.reset();
        for published in &tenants {
            let generation = i64::try_from(published.policy.generation).unwrap_or(i64::MAX);
            self.generation.with_label_values(&[published.policy.tenant.as_str()]).set(generation);
        }
        let mut families = self.generation.collect();
        families.extend(self.sizes(&tenants));
        families.extend(self.spend(leading.ledger.settled_by_row(), &tenants));
        families.extend(self.budgets(&leading.ledger, &tenants));
        families.extend(self.ages(self.shared_state.policies.proof_ages(), leading.ledger.oldest_report()));
        families
    }
}

/// Converts micro-units to units of the currency. The result is exact up to 2^53 micro-units, nine thousand million units.
#[allow(clippy::cast_precision_loss, reason = "amounts in a ledger stay far below 2^53 micro-units")]
fn units(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[allow(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
fn seconds(unix: i64) -> f64 {
    unix as f64
}

#[allow(clippy::cast_precision_loss, reason = "calls stay far below 2^53")]
fn count(calls: u64) -> f64 {
    calls as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::float_cmp, reason = "what is shown has to be exact")]
    use std::time::Instant;

    use mcp_fleet_policy::model::{Budget, Period, Selector, StaleAfter, TenantLimits, TenantPolicy, TopUp};

    use super::*;
    use crate::ledger::tests::Memory;
    use crate::shared_state::{Policies, Proof};

    fn tenant() -> Published {
        let policy = TenantPolicy {
            tenant: "acme".into(),
            tenant_uid: "t-1".into(),
            generation: 3,
            suspended: false,
            audience: "https://gateway.acme-mcp.svc".into(),
            other_audiences: vec![],
            issuer: "https://issuer".into(),
            keys: Vec::new(),
            session_key: vec![0; 32],
            traffic: TenantLimits::default(),
            built_in_tools: true,
            allowed_origins: vec![],
            stale_after: StaleAfter { read: Duration::from_mins(1), write: Duration::from_secs(15) },
            currency: Some("USD".parse().unwrap()),
            servers: Vec::new(),
            principals: Vec::new(),
            budgets: Vec::new(),
        };
        let encoded = mcp_fleet_control::encode(&policy);
        Published::new(policy.into(), encoded, 7)
    }

    fn row(tool: &str) -> Row {
        let amount = Amount::default();
        Row { principal: "acme/coder".into(), server: "files".into(), tool: tool.into(), amount }
    }

    #[test]
    fn spend_is_read_from_the_spend_limits_book_only_and_is_exact() {
        let metrics = SpendMetrics::new(Arc::default()).unwrap();
        // A call is charged to every budget that covers it; only the book of `spendLimit` contains each call once.
        let sums = HashMap::from([
            (("t-1".to_owned(), row("read")), 3000),
            (("b-1".to_owned(), row("read")), 3000),
            (("t-of-nobody".to_owned(), row("read")), 9),
        ]);
        let families = metrics.spend(sums, &[tenant()]);
        let [family] = families.as_slice() else { panic!("{families:?}") };
        assert_eq!((family.name(), family.get_metric().len()), ("mcp_fleet_spend_total", 1));
        let metric = &family.get_metric()[0];
        assert_eq!(metric.get_counter().get_value(), 0.003);
        let labels: Vec<(&str, &str)> = metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
        let wanted = [
            ("currency", "USD"),
            ("principal", "acme/coder"),
            ("server", "files"),
            ("tenant", "acme"),
            ("tool", "read"),
        ];
        assert_eq!(labels, wanted);
    }

    #[test]
    fn the_size_of_a_policy_is_shown_with_its_limit() {
        let published = tenant();
        let families = SpendMetrics::new(Arc::default()).unwrap().sizes(std::slice::from_ref(&published));
        let values = |family: &MetricFamily| -> Vec<(String, f64)> {
            let value = |metric: &prometheus::proto::Metric| {
                let labels: Vec<&str> = metric.get_label().iter().map(prometheus::proto::LabelPair::value).collect();
                (labels.join(" "), metric.get_gauge().get_value())
            };
            family.get_metric().iter().map(value).collect()
        };
        let [sizes, limits] = families.as_slice() else { panic!("{families:?}") };
        assert_eq!((sizes.name(), limits.name()), ("mcp_fleet_policy_bytes", "mcp_fleet_policy_limit_bytes"));
        let encoded = f64::from(u32::try_from(published.encoded.bytes.len()).unwrap());
        assert_eq!(values(sizes), [("compressed acme".to_owned(), 7.0), ("encoded acme".to_owned(), encoded)]);
        assert_eq!(values(limits), [("compressed".to_owned(), 2_867_200.0), ("encoded".to_owned(), 4_194_304.0)]);
    }

    #[test]
    fn the_ages_of_proofs_and_of_the_oldest_report_are_shown() {
        let policies = Policies::default();
        policies.publish("t-1", tenant());
        assert!(policies.proof_ages().is_empty(), "nothing is proved yet");
        let read = Instant::now().checked_sub(Duration::from_secs(7)).unwrap();
        policies.prove("t-1", Proof { generation: 3, read });
        let metrics = SpendMetrics::new(Arc::default()).unwrap();
        let families = metrics.ages(policies.proof_ages(), Duration::from_secs(40));
        let values: Vec<_> =
            families.iter().map(|family| (family.name(), family.get_metric()[0].get_gauge().get_value())).collect();
        let [(proof, age), report] = values.as_slice() else { panic!("{values:?}") };
        assert_eq!(*report, ("mcp_fleet_ledger_oldest_report_seconds", 40.0));
        assert!(*proof == "mcp_fleet_policy_proof_age_seconds" && *age >= 7.0, "{values:?}");
    }

    #[tokio::test]
    async fn a_budget_shows_its_period() {
        let ledger = Ledger::unread(AnyStore::new(Memory::default()));
        let mut policy = TenantPolicy::clone(&tenant().policy);
        policy.budgets.push(Budget {
            name: "research".into(),
            uid: "b-1".into(),
            selector: Selector::default(),
            period: Period::Day,
            amount: None,
            calls: Some(10),
            mode: BudgetMode::Enforce,
            top_up: None,
        });
        let encoded = mcp_fleet_control::encode(&policy);
        let families =
            SpendMetrics::new(Arc::default()).unwrap().budgets(&ledger, &[Published::new(policy.into(), encoded, 7)]);
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).unwrap();
            family.get_metric()[0].get_gauge().get_value()
        };
        let start = value("mcp_fleet_budget_period_start_timestamp_seconds");
        let reset = value("mcp_fleet_budget_reset_timestamp_seconds");
        assert_eq!((start % 86_400.0, reset - start), (0.0, 86_400.0));
        assert_eq!(value("mcp_fleet_budget_limit"), 10.0);
    }

    #[tokio::test]
    async fn a_limit_shows_its_mode_and_what_was_added_to_it() {
        let ledger = Ledger::unread(AnyStore::new(Memory::default()));
        let span = Span::containing(Period::Month, Timestamp::now().as_second()).unwrap();
        let added = TopUp { start: span.start, calls: 5, ..TopUp::default() };
        let budget = Budget { period: Period::Month, top_up: Some(added), ..crate::testing::budget(10) };
        let limits = |budget: Budget| -> Vec<(String, f64)> {
            let mut policy = TenantPolicy::clone(&tenant().policy);
            policy.budgets.push(budget);
            let encoded = mcp_fleet_control::encode(&policy);
            let metrics = SpendMetrics::new(Arc::default()).unwrap();
            let families = metrics.budgets(&ledger, &[Published::new(policy.into(), encoded, 7)]);
            let family = families.iter().find(|family| family.name() == "mcp_fleet_budget_limit").unwrap();
            let label = |metric: &prometheus::proto::Metric| {
                let labels: HashMap<_, _> = metric.get_label().iter().map(|it| (it.name(), it.value())).collect();
                format!("{} {}", labels["unit"], labels["mode"])
            };
            let value = |metric: &prometheus::proto::Metric| (label(metric), metric.get_gauge().get_value());
            let mut found: Vec<_> = family.get_metric().iter().map(value).collect();
            found.sort_by(|(a, _), (b, _)| a.cmp(b));
            found
        };
        let pairs = |mode: &str| [(format!("USD {mode}"), 1.0), (format!("calls {mode}"), 15.0)];
        assert_eq!(limits(budget.clone()), pairs("Enforce"));
        assert_eq!(limits(Budget { mode: BudgetMode::Monitor, ..budget }), pairs("Monitor"));
    }

    #[test]
    fn a_follower_shows_no_spend() {
        let state = Arc::new(SharedState::default());
        let registry = prometheus::Registry::new();
        registry.register(Box::new(SpendMetrics::new(Arc::clone(&state)).unwrap())).unwrap();
        assert!(registry.gather().is_empty());
    }
}
