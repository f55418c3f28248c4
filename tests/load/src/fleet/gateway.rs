//! A stand-in for a gateway: it connects as the gateway's pod and acknowledges every policy that is pushed to it, without
//! running it. It is the home of its tenant's principals.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::Client;
use mcp_fleet_control::clock::boot_millis;
use mcp_fleet_control::homes::{Usage, answer_from_wire, beat_to_wire};
use mcp_fleet_control::version::{AUDIENCE, MAX, MAX_MESSAGE, MIN};
use mcp_fleet_control::wire::control_client::ControlClient;
use mcp_fleet_control::wire::{FromGateway, GatewayHello, OperatorHello, PolicyAck, from_gateway, from_operator};
use mcp_fleet_control::{decode, feature};
use mcp_fleet_homes::gateway::Gateway as Homes;
use mcp_fleet_homes::view::Member;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::api::{Write, get};
use super::operator::NAMESPACE;

/// How often a gateway tells what it admits calls by.
const BEAT_PERIOD: Duration = Duration::from_secs(1);

/// The gateways of all tenants.
#[derive(Clone)]
pub(crate) struct Gateways {
    client: Client,
    /// Control ports of all replicas of the operator. Gateways try one after the other.
    ports: Arc<Vec<u16>>,
    connected: Arc<Mutex<HashMap<String, watch::Sender<Contact>>>>,
}

/// What a gateway has heard from the operator.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contact {
    /// The newest policy, as it was pushed.
    pub(crate) policy: Vec<u8>,
    /// When the newest policy was pushed.
    pub(crate) pushed: Option<Instant>,
    /// When the newest policy was last said to be current.
    pub(crate) fresh: Option<Instant>,
}

impl Gateways {
    /// Returns no gateways, for replicas that serve control streams on these ports.
    pub(crate) fn new(client: &Client, ports: Vec<u16>) -> Self {
        Self { client: client.clone(), ports: Arc::new(ports), connected: Arc::default() }
    }

    /// Runs the gateway of a runtime namespace, and connects again whenever its stream ends.
    pub(crate) async fn run(self, namespace: String) {
        let contact = watch::channel(Contact::default()).0;
        self.connected.lock().insert(namespace.clone(), contact.clone());
        let mut token = None;
        for attempt in 0_usize.. {
            if token.is_none() {
                match create_pod(&self.client, &namespace).await {
                    Ok(created) => token = Some(created),
                    Err(error) => eprintln!("failed to create the pod of a gateway: {error:#}"),
                }
            }
            if let Some(token) = &token {
                let port = self.ports[attempt % self.ports.len()];
                // A stream ends when the operator does, or when this replica does not lead.
                let _ = self.serve(port, token, &contact).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn serve(&self, port: u16, token: &str, contact: &watch::Sender<Contact>) -> anyhow::Result<()> {
        let secret = get(&self.client, &format!("/api/v1/namespaces/{NAMESPACE}/secrets/mcp-fleet-ca")).await?;
        let ca = decode_base64(&secret["data"]["tls.crt"])?;
        let name = format!("mcp-fleet-operator.{NAMESPACE}.svc");
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(name);
        let channel = Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?.tls_config(tls)?.connect().await?;
        let (outbound, messages) = mpsc::channel(16);
        let mut request = tonic::Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        let mut control = ControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let mut inbound = control.connect(request).await?.into_inner();
        let send = async |message| outbound.send(FromGateway { message: Some(message) }).await;
        let hello = GatewayHello {
            min_version: MIN,
            max_version: MAX,
            features: feature::known(),
            epoch: "bench".into(),
            generation: 0,
            digest: Vec::new(),
            obeys_kill_switch: true,
            respects_homes: true,
        };
        send(from_gateway::Message::Hello(hello)).await?;
        let mut homes = None;
        let mut beats = tokio::time::interval(BEAT_PERIOD);
        loop {
            let message = tokio::select! {
                message = inbound.message() => match message? {
                    Some(message) => message,
                    None => return Ok(()),
                },
                _ = beats.tick() => {
                    if let Some(beat) = homes.as_mut().map(|homes: &mut Homes| homes.beat(boot_millis(), true)) {
                        send(from_gateway::Message::HomeBeat(beat_to_wire(&beat, Usage::default()))).await?;
                    }
                    continue;
                }
            };
            match message.message {
                Some(from_operator::Message::Hello(OperatorHello { version: _, term, pod_uid })) if term > 0 => {
                    let member = Member { pod_uid: pod_uid.into(), epoch: "bench".into() };
                    homes.insert(Homes::new(member)).connect(term);
                }
                Some(from_operator::Message::HomeAnswer(answer)) => {
                    if let (Some(homes), Some((answer, _))) = (&mut homes, answer_from_wire(answer)) {
                        homes.receive(boot_millis(), answer);
                    }
                }
                Some(from_operator::Message::Policy(push)) => {
                    contact.send_modify(|contact| {
                        (contact.policy, contact.pushed) = (push.policy.clone(), Some(Instant::now()));
                    });
                    let ack = PolicyAck { generation: push.generation, digest: push.digest, error: String::new() };
                    send(from_gateway::Message::Ack(ack)).await?;
                }
                Some(from_operator::Message::Freshness(_)) => {
                    contact.send_modify(|contact| contact.fresh = Some(Instant::now()));
                }
                _ => {}
            }
        }
    }

    fn contact(&self, namespace: &str) -> anyhow::Result<watch::Receiver<Contact>> {
        let connected = self.connected.lock();
        Ok(connected.get(namespace).with_context(|| format!("{namespace} has no gateway"))?.subscribe())
    }

    /// Waits until a pushed policy limits a principal to this many calls per minute. Returns when it was pushed.
    pub(crate) async fn limited(&self, namespace: &str, principal: &str, calls: u32) -> anyhow::Result<Instant> {
        let mut contact = self.contact(namespace)?;
        let is_limited = |contact: &Contact| {
            let Ok(policy) = decode(&contact.policy) else { return false };
            let found = policy.policy.principals.iter().find(|found| found.name == principal);
            found.is_some_and(|found| found.limits.calls_per_minute == Some(calls))
        };
        let found = tokio::time::timeout(Duration::from_secs(60), contact.wait_for(is_limited)).await;
        let found = found.context("a change was not published within a minute")??;
        found.pushed.context("there is no policy")
    }

    /// Waits until every gateway has heard after `since` that its policy is current. Returns when the last one heard it.
    pub(crate) async fn all_fresh(&self, since: Instant, limit: Duration) -> anyhow::Result<Instant> {
        loop {
            let fresh: Vec<_> = self.connected.lock().values().map(|contact| contact.borrow().fresh).collect();
            if fresh.iter().all(|fresh| fresh.is_some_and(|fresh| fresh > since)) {
                return fresh.into_iter().flatten().max().context("there are no gateways");
            }
            if since.elapsed() > limit {
                bail!("not every policy was proved to be current within {} s", limit.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Creates the pod of a gateway as its Deployment would. Returns the pod's token.
async fn create_pod(client: &Client, namespace: &str) -> anyhow::Result<String> {
    let (core, apps) = (format!("/api/v1/namespaces/{namespace}"), format!("/apis/apps/v1/namespaces/{namespace}"));
    let deployment = get(client, &format!("{apps}/deployments/gateway")).await?;
    let template = &deployment["spec"]["template"];
    let owner = |version: &str, kind: &str, object: &Value| {
        json!([{"apiVersion": version, "kind": kind, "controller": true,
            "name": object["metadata"]["name"], "uid": object["metadata"]["uid"]}])
    };
    let set = Write::create(
        &format!("{apps}/replicasets"),
        &json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "gateway-1", "ownerReferences": owner("apps/v1", "Deployment", &deployment)},
            "spec": {"selector": deployment["spec"]["selector"], "template": template},
        }),
    );
    let set: Value = serde_json::from_str(&set.send(client).await?)?;
    let pod = Write::create(
        &format!("{core}/pods"),
        &json!({
            "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
            "metadata": {"name": "gateway-1", "labels": template["metadata"]["labels"],
                "ownerReferences": owner("apps/v1", "ReplicaSet", &set)},
        }),
    );
    let pod: Value = serde_json::from_str(&pod.send(client).await?)?;
    let target = json!({"kind": "Pod", "namespace": namespace, "name": "gateway-1", "uid": pod["metadata"]["uid"]});
    let slice = Write::create(
        &format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"),
        &json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "gateway-1", "labels": deployment["metadata"]["labels"]},
            "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.6"], "targetRef": target}],
        }),
    );
    slice.send(client).await?;
    let request = Write::create(
        &format!("{core}/serviceaccounts/gateway/token"),
        &json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [AUDIENCE], "expirationSeconds": 36000, "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": "gateway-1", "uid": pod["metadata"]["uid"]}},
        }),
    );
    let answer: Value = serde_json::from_str(&request.send(client).await?)?;
    Ok(answer["status"]["token"].as_str().context("there is no token")?.to_owned())
}

fn decode_base64(value: &Value) -> anyhow::Result<Vec<u8>> {
    use base64::Engine as _;
    Ok(base64::engine::general_purpose::STANDARD.decode(value.as_str().context("the CA has no certificate")?)?)
}
