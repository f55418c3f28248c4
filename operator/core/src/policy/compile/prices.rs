//! Applies the tenant's lowest prices (`MCPTenant.spec.prices`) to the tools of its servers.

use std::collections::HashMap;
use std::sync::Arc;

use mcp_fleet_crds::condition::ConditionReason;
use mcp_fleet_crds::tenant::PriceFloor;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::model::Tool;
use mcp_fleet_policy::units::Micros;

use super::{Compilation, name_list};

/// The lowest prices of a tenant's tools.
pub(super) enum Floors<'a> {
    /// As the tenant sets them.
    Known(&'a [PriceFloor]),
    /// The tenant's prices cannot be read. Those in force stay in force, and anything new costs as much as the most
    /// expensive tool.
    Unreadable {
        /// By UID of the server and name of the tool.
        in_force: HashMap<(&'a str, &'a str), Micros>,
        highest: Micros,
    },
}

impl<'a> Floors<'a> {
    pub(super) fn new(compilation: &Compilation<'a>) -> Self {
        match &compilation.inputs.unreadable.tenant {
            None => Self::Known(&compilation.inputs.tenant.spec.prices),
            Some(tenant) => match tenant.with_field("prices") {
                Some(partial) => Self::Known(&partial.spec.prices),
                None => Self::in_force(compilation),
            },
        }
    }

    fn in_force(compilation: &Compilation<'a>) -> Self {
        let servers = compilation.previous.map_or(&[][..], |previous| &previous.policy.servers);
        let tools = servers.iter().flat_map(|server| server.tools.iter().map(|tool| (&*server.uid, tool)));
        let in_force: HashMap<_, _> = tools.map(|(server, tool)| ((server, &*tool.name), lowest(tool))).collect();
        let highest = in_force.values().copied().max().unwrap_or(Micros::ZERO);
        Self::Unreadable { in_force, highest }
    }

    /// Returns the lowest price of a tool.
    fn of(&self, server: &str, server_uid: &str, tool: &str, class: Class) -> Micros {
        match self {
            Self::Known(floors) => {
                let applying = floors.iter().filter(|floor| floor.applies_to(server, tool, class));
                applying.map(|floor| floor.per_call).max().unwrap_or(Micros::ZERO)
            }
            Self::Unreadable { in_force, highest } => in_force.get(&(server_uid, tool)).copied().unwrap_or(*highest),
        }
    }

    /// Raises the prices of a server's tools where they are too low. Returns the names of these tools. A price that results
    /// state may be anything from the lowest one to the declared maximum.
    pub(super) fn raise(&self, server: &str, server_uid: &str, tools: &mut [Tool]) -> Vec<String> {
        let mut raised = Vec::new();
        for tool in tools {
            let floor = self.of(server, server_uid, &tool.name, tool.class);
            if let Some(stated) = &mut tool.result_price {
                Arc::make_mut(stated).minimum = floor;
            }
            if tool.price < floor {
                tool.price = floor;
                raised.push(tool.name.clone());
            }
        }
        raised
    }
}

/// Returns what a call of a tool costs at least.
fn lowest(tool: &Tool) -> Micros {
    tool.result_price.as_ref().map_or(tool.price, |stated| stated.minimum)
}

/// Returns reason and message about tools whose prices were raised.
pub(super) fn note(tools: &[String]) -> (ConditionReason, String) {
    let message = format!(
        "the tenant's prices apply to {}, because they are higher than those declared here; ask the platform team about \
         MCPTenant.spec.prices",
        name_list(tools)
    );
    (ConditionReason::PricesRaised, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::tests::{catalogue, inputs, published, reason, server, tenant};
    use super::super::{Compiled, Kind, Limit, Previous, TenantInputs, compile};
    use super::*;
    use crate::testing::unreadable;

    fn with(prices: &Value) -> TenantInputs {
        TenantInputs { tenant: tenant(&json!({"prices": prices})), ..inputs() }
    }

    fn compiled(inputs: &TenantInputs, previous: Option<&Previous>) -> Compiled {
        compile(inputs, previous, Limit::DEFAULT)
    }

    /// Returns the prices of `read`, which declares 1,000 micro-units, `list` and `write`, which declare none.
    fn prices(compiled: &Compiled) -> Vec<u64> {
        compiled.policy.servers[0].tools.iter().map(|tool| tool.price.get()).collect()
    }

    #[test]
    fn the_highest_of_the_declared_price_and_the_floors_applies() {
        for (floors, expected) in [
            (json!([]), [1000, 0, 0]),
            (json!([{"classes": ["Write", "Destructive"], "perCall": "0.01"}]), [1000, 0, 10_000]),
            (json!([{"tools": ["re*"], "perCall": "0.0005"}]), [1000, 0, 0]),
            (json!([{"tools": ["re*"], "perCall": "0.002"}, {"perCall": "0.0001"}]), [2000, 100, 100]),
            (json!([{"servers": ["other"], "perCall": "1"}]), [1000, 0, 0]),
            (json!([{"servers": ["fil*"], "perCall": "1"}]), [1_000_000, 1_000_000, 1_000_000]),
        ] {
            assert_eq!(prices(&compiled(&with(&floors), None)), expected, "{floors}");
        }
    }

    #[test]
    fn a_raised_price_is_shown_and_no_error() {
        let raised = compiled(&with(&json!([{"tools": ["list"], "perCall": "0.002"}])), None);
        let verdict = &raised.verdicts[&(Kind::Server, "uid-files".to_owned())];
        assert_eq!((verdict.ok, verdict.reason), (true, ConditionReason::PricesRaised));
        assert!(verdict.message.contains("apply to list,"), "{}", verdict.message);
        let declared = compiled(&with(&json!([{"tools": ["read"], "perCall": "0.001"}])), None);
        assert_eq!(declared.verdicts[&(Kind::Server, "uid-files".to_owned())].reason, ConditionReason::Resolved);
    }

    #[test]
    fn a_price_is_raised_even_if_the_server_is_rejected_or_cannot_be_read() {
        let previous = published(&compiled(&inputs(), None));
        let mut edited = with(&json!([{"perCall": "0.5"}]));
        let source = json!({"type": "Stdio", "stdio": {"image": "evil.example.com/files", "command": ["files"]}});
        let value = |tools: Value| {
            json!({
                "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPServer", "spec": {"source": source, "tools": tools},
                "metadata": {"name": "files", "namespace": "acme", "uid": "uid-files", "generation": 2},
            })
        };
        edited.servers = vec![Arc::new(serde_json::from_value(value(catalogue())).unwrap())];
        let rejected = compiled(&edited, Some(&previous));
        assert_eq!(reason(&rejected, Kind::Server, "files"), Some(ConditionReason::ImageNotAllowed));
        assert_eq!(prices(&rejected), [500_000; 3]);
        edited.servers.clear();
        edited.unreadable.servers = vec![Arc::new(unreadable(value(json!("none"))))];
        assert_eq!(prices(&compiled(&edited, Some(&previous))), [500_000; 3]);
    }

    #[test]
    fn prices_that_cannot_be_read_stay_in_force() {
        let mut inputs = with(&json!([{"tools": ["write"], "perCall": "0.5"}]));
        let previous = published(&compiled(&inputs, None));
        let value = json!({
            "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant",
            "spec": {"namespace": {"name": "acme"}, "prices": "none", "images": {"allowed": ["mcp-fleet.local/*"]}},
            "metadata": {"name": "acme", "uid": "uid-acme", "generation": 2},
        });
        let object = Arc::new(unreadable(value));
        inputs.tenant = object.partial.clone().unwrap();
        inputs.unreadable.tenant = Some(object);
        assert_eq!(prices(&compiled(&inputs, Some(&previous))), [1000, 0, 500_000]);
    }

    /// The inputs, with a tool whose results state its price.
    fn stated(max: &str, floors: &Value) -> TenantInputs {
        let price = json!({"fromResult": {"pointer": "/cost", "max": max}});
        TenantInputs {
            servers: vec![server(&json!([{"name": "ask", "class": "Read", "price": price}]))],
            ..with(floors)
        }
    }

    fn limits(compiled: &Compiled) -> (u64, u64) {
        let tool = &compiled.policy.servers[0].tools[0];
        (tool.result_price.as_ref().unwrap().minimum.get(), tool.price.get())
    }

    #[test]
    fn a_price_that_results_state_is_at_least_the_floor_and_at_most_what_is_declared() {
        for (floors, expected) in [
            (json!([]), (0, 50_000)),
            (json!([{"perCall": "0.01"}]), (10_000, 50_000)),
            (json!([{"perCall": "0.9"}]), (900_000, 900_000)),
        ] {
            assert_eq!(limits(&compiled(&stated("0.05", &floors), None)), expected, "{floors}");
        }
        let before = compiled(&stated("0.05", &json!([{"perCall": "0.01"}])), None);
        // The floors change while the server is rejected.
        let mut rejected = stated("0.05", &json!([{"perCall": "0.02"}]));
        Arc::make_mut(&mut rejected.servers[0]).spec.source.stdio.as_mut().unwrap().image = "evil.example.com/x".into();
        assert_eq!(limits(&compiled(&rejected, Some(&published(&before)))), (20_000, 50_000));
        let mut unreadable_tenant = stated("0.05", &json!([]));
        unreadable_tenant.unreadable.tenant = Some(Arc::new(unreadable(json!({
            "apiVersion": "mcp-fleet.dev/v1alpha1", "kind": "MCPTenant",
            "spec": {"namespace": {"name": "acme"}, "prices": "none", "images": {"allowed": ["mcp-fleet.local/*"]}},
            "metadata": {"name": "acme", "uid": "uid-acme", "generation": 2},
        }))));
        assert_eq!(limits(&compiled(&unreadable_tenant, Some(&published(&before)))), (10_000, 50_000));
    }

    #[test]
    fn a_price_needs_a_pointer_and_exactly_one_form() {
        for price in [
            json!({}),
            json!({"perCall": "1", "fromResult": {"pointer": "/cost", "max": "1"}}),
            json!({"fromResult": {"pointer": "cost", "max": "1"}}),
        ] {
            let servers = vec![server(&json!([{"name": "ask", "class": "Read", "price": price}]))];
            let compiled = compiled(&TenantInputs { servers, ..inputs() }, None);
            assert_eq!(reason(&compiled, Kind::Server, "files"), Some(ConditionReason::InvalidSpec), "{price}");
        }
    }

    #[test]
    fn currency_and_period_of_the_spend_limit_stay_as_they_are() {
        let previous = published(&compiled(&inputs(), None));
        let limit = |currency: &str, period: &str| {
            let limit = json!({"currency": currency, "period": period, "amount": "900"});
            TenantInputs { tenant: tenant(&json!({"spendLimit": limit})), ..inputs() }
        };
        for other in [limit("EUR", "Month"), limit("USD", "Hour")] {
            let compiled = compiled(&other, Some(&previous));
            assert_eq!(reason(&compiled, Kind::Tenant, "acme"), Some(ConditionReason::InvalidSpec));
            assert_eq!(compiled.policy.budgets, previous.policy.budgets);
            assert_eq!(compiled.policy.currency, previous.policy.currency);
        }
        let same = compiled(&limit("USD", "Month"), Some(&previous));
        assert_eq!(same.policy.budgets[0].amount, Some(Micros::new(900_000_000)));
    }
}
