//! Two gateways of one tenant that share its principals.

use mcp_fleet_homes::view::{Member, View, ViewId};
use mcp_fleet_policy::model::TenantPolicy;
use serde_json::{Value, json};

use super::{Answer, CODER, Client, Options, ProcessGateway, Token, until};

/// The metric of forwarded requests that were answered.
const ANSWERED: &str = "mcp_pod_forwarded_requests_total{outcome=\"answered\"}";

/// Two gateways of one tenant.
pub(crate) struct Pair {
    /// The home of the default principal.
    pub(crate) home: ProcessGateway,
    /// The other one, which forwards its requests.
    pub(crate) edge: ProcessGateway,
}

/// Returns the home of the default principal among gateways in these pods.
pub(crate) fn home_of_coder<'p>(pods: &[&'p str]) -> &'p str {
    home_of(CODER, pods)
}

/// Returns the home of a principal among gateways in these pods.
pub(crate) fn home_of<'p>(principal: &str, pods: &[&'p str]) -> &'p str {
    let member = |pod: &&str| Member { pod_uid: (*pod).into(), epoch: "e".into() };
    let view = View::new(ViewId { term: 1, number: 1 }, pods.iter().map(member));
    let home = view.home(principal).unwrap();
    pods.iter().find(|pod| ***pod == *home.pod_uid).unwrap()
}

impl Pair {
    /// Starts two gateways with a changed default policy. Waits until one forwards to the other.
    pub(crate) async fn start(change: impl FnOnce(&mut TenantPolicy)) -> Self {
        Self::start_with(&Options { places: 2, ..Options::default() }, change).await
    }

    /// Starts two gateways with these options.
    pub(crate) async fn start_with(options: &Options<'_>, change: impl FnOnce(&mut TenantPolicy)) -> Self {
        let first = ProcessGateway::start(options, change).await;
        let second = first.beside(options, "pod-2").await;
        let pair = if home_of_coder(&["pod-1", "pod-2"]) == first.pod_uid {
            Self { home: first, edge: second }
        } else {
            Self { home: second, edge: first }
        };
        let mut client = pair.edge.client(Token::default()).await;
        until("the edge forwards", async || {
            client.modern("tools/list", json!({})).await;
            pair.edge.metric(ANSWERED).await > 0.0
        })
        .await;
        pair
    }

    /// Returns how many requests the edge has forwarded, with this outcome.
    pub(crate) async fn forwarded(&self, outcome: &str) -> usize {
        let value = self.edge.metric(&format!("mcp_pod_forwarded_requests_total{{outcome=\"{outcome}\"}}")).await;
        format!("{value}").parse().unwrap()
    }

    /// Waits until the edge has forwarded so many requests with this outcome.
    pub(crate) async fn has_forwarded(&self, outcome: &str, count: usize) {
        until(&format!("{count} requests are {outcome}"), async || self.forwarded(outcome).await >= count).await;
    }

    /// Returns the reasons in the audit lines of a gateway that name a call or have a reason.
    pub(crate) fn reasons(gateway: &ProcessGateway) -> Vec<String> {
        let lines = gateway.audit.json();
        lines.iter().filter_map(|line| line["reason"].as_str().map(str::to_owned)).collect()
    }

    /// Connects a client to the home and one to the edge.
    pub(crate) async fn clients(&self) -> (Client, Client) {
        (self.home.client(Token::default()).await, self.edge.client(Token::default()).await)
    }
}

/// Returns the reason of a request that was refused with an HTTP status, or as a call.
pub(crate) fn refusal(answer: &Answer) -> Value {
    let message = answer.json();
    let denial = &message["result"]["_meta"]["mcp-fleet.dev/denial"];
    if denial.is_null() { message["error"]["data"]["reason"].clone() } else { denial["reason"].clone() }
}
