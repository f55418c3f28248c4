//! A gateway without a kubelet: a pod object that does not run, its real token, and the control stream.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use mcp_fleet_control::version::{AUDIENCE, MAX, MAX_MESSAGE, MIN};
use mcp_fleet_control::wire::control_client::ControlClient;
use mcp_fleet_control::wire::{
    Freshness, FromGateway, GatewayHello, HomeAnswer, LeaseAnswer, OperatorHello, PolicyAck, SpendAck, from_gateway,
    from_operator,
};
use mcp_fleet_control::{DecodedPolicy, Digest, Form, decode, feature};
use mcp_fleet_policy::model::TenantPolicy;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::support::{OPERATOR_NAMESPACE, control_port, create, unique, wait_for};

/// How long to wait for a message.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// A connected gateway.
pub(crate) struct Gateway {
    pub(crate) pod: String,
    /// The form of the last policy.
    pub(crate) form: Option<Form>,
    /// The operator's hello.
    pub(crate) hello: OperatorHello,
    /// Digests of the kept reports of servers, by UID of the server; none before the operator has named them.
    kept: Option<BTreeMap<String, Vec<u8>>>,
    outbound: mpsc::Sender<FromGateway>,
    inbound: Streaming<mcp_fleet_control::wire::FromOperator>,
}

/// Creates the pod of a gateway as the Deployment would. Returns its name and UID.
pub(crate) async fn pod(client: &Client, runtime: &str, owned_by: Option<&str>) -> (String, String) {
    let deployment = owned_by.unwrap_or("gateway");
    let found = wait_for(&Api::<Deployment>::namespaced(client.clone(), runtime), deployment).await;
    let name = unique("gateway");
    let labels = json!({"app.kubernetes.io/component": "gateway", "app.kubernetes.io/managed-by": "mcp-fleet"});
    let owner = |version: &str, kind: &str, name: &str, uid: String| json!([{"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let container = json!({
        "name": "gateway", "image": "mcp-pod", "securityContext": {
            "allowPrivilegeEscalation": false, "runAsNonRoot": true,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}},
        "resources": {"limits": {"cpu": "1", "memory": "1Mi"}, "requests": {"cpu": "1m", "memory": "1Mi"}},
    });
    let spec =
        json!({"serviceAccountName": "gateway", "automountServiceAccountToken": false, "containers": [container]});
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), runtime);
    let set = create(&sets, json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "ownerReferences": owner("apps/v1", "Deployment", deployment, found.uid().unwrap())},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }))
    .await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), runtime);
    let pod = create(
        &pods,
        json!({
            "apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": {"name": name, "labels": labels,
                "ownerReferences": owner("apps/v1", "ReplicaSet", &name, set.uid().unwrap())},
        }),
    )
    .await;
    (name, pod.uid().unwrap())
}

/// Returns the token that a pod would get.
pub(crate) async fn token(
    client: &Client,
    runtime: &str,
    account: &str,
    pod: &(String, String),
    audience: &str,
) -> String {
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(pod.0.clone()),
        uid: Some(pod.1.clone()),
    };
    let spec = TokenRequestSpec {
        audiences: vec![audience.into()],
        bound_object_ref: Some(bound),
        expiration_seconds: Some(3600),
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), runtime);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
    answer.status.unwrap().token
}

impl Gateway {
    /// Creates a pod and connects as that pod.
    pub(crate) async fn connect(client: &Client, runtime: &str) -> Self {
        let pod = pod(client, runtime, None).await;
        let token = token(client, runtime, "gateway", &pod, AUDIENCE).await;
        Self::dial(client, &pod.0, &token).await.unwrap()
    }

    /// Creates a pod and connects as that pod, with the features of an older gateway, which neither
    /// obeys the kill switch nor respects homes.
    pub(crate) async fn connect_with(client: &Client, runtime: &str, features: Vec<String>) -> Self {
        let pod = pod(client, runtime, None).await;
        let token = token(client, runtime, "gateway", &pod, AUDIENCE).await;
        Self::dial_with(client, &pod.0, &token, features, false).await.unwrap()
    }

    /// Connects with a token. Waits until the replica leads.
    pub(crate) async fn dial(client: &Client, pod: &str, token: &str) -> Result<Self, Status> {
        Self::dial_with(client, pod, token, feature::known(), true).await
    }

    async fn dial_with(
        client: &Client,
        pod: &str,
        token: &str,
        features: Vec<String>,
        is_current: bool,
    ) -> Result<Self, Status> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
        let ca = wait_for(&secrets, "mcp-fleet-ca").await.data.unwrap();
        let ca = Certificate::from_pem(&ca["tls.crt"].0);
        let tls = ClientTlsConfig::new()
            .ca_certificate(ca)
            .domain_name(format!("mcp-fleet-operator.{OPERATOR_NAMESPACE}.svc"));
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{}", control_port())).unwrap();
        let endpoint = endpoint.tls_config(tls).unwrap();
        let started = std::time::Instant::now();
        loop {
            let answer = async {
                let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
                let (outbound, messages) = mpsc::channel(16);
                let mut request = Request::new(ReceiverStream::new(messages));
                request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
                let mut client = ControlClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
                Ok::<_, Status>((outbound, client.connect(request).await?.into_inner()))
            }
            .await;
            match answer {
                Err(status) if status.code() == tonic::Code::Unavailable && started.elapsed() < MESSAGE_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(status) => return Err(status),
                Ok((outbound, inbound)) => {
                    let (pod_name, hello) = (pod.to_owned(), OperatorHello::default());
                    let mut gateway = Self { pod: pod_name, form: None, hello, kept: None, outbound, inbound };
                    gateway.hello(pod, features, is_current).await;
                    return Ok(gateway);
                }
            }
        }
    }

    async fn hello(&mut self, epoch: &str, features: Vec<String>, is_current: bool) {
        let hello = GatewayHello {
            min_version: MIN,
            max_version: MAX,
            features,
            epoch: epoch.into(),
            generation: 0,
            digest: Vec::new(),
            obeys_kill_switch: is_current,
            respects_homes: is_current,
        };
        self.send(from_gateway::Message::Hello(hello)).await;
        let Some(from_operator::Message::Hello(hello)) = self.next().await else { panic!("no hello came first") };
        self.hello = hello;
    }

    pub(crate) async fn send(&self, message: from_gateway::Message) {
        self.outbound.send(FromGateway { message: Some(message) }).await.unwrap();
    }

    /// Returns the next message; none when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<from_operator::Message> {
        let next =
            tokio::time::timeout(MESSAGE_TIMEOUT, self.inbound.message()).await.expect("no message came in time");
        let message = next.ok().flatten().and_then(|message| message.message)?;
        if let from_operator::Message::KeptServerReports(reports) = &message {
            let reports = reports.kept.iter().map(|report| (report.server_uid.clone(), report.digest.clone()));
            self.kept.get_or_insert_default().extend(reports);
        }
        Some(message)
    }

    /// Waits until the operator has named kept reports of servers that satisfy a condition.
    pub(crate) async fn kept(&mut self, wanted: impl Fn(&BTreeMap<String, Vec<u8>>) -> bool) {
        while !self.kept.as_ref().is_some_and(&wanted) {
            self.next().await.expect("the stream ended");
        }
    }

    /// Returns the next policy that satisfies a condition. Acknowledges it and all policies before it.
    pub(crate) async fn policy(&mut self, wanted: impl Fn(&TenantPolicy) -> bool) -> TenantPolicy {
        loop {
            if let Some(from_operator::Message::Policy(push)) = Some(self.next().await.expect("the stream ended")) {
                assert_eq!(Digest::of(&push.policy).to_vec(), push.digest);
                let DecodedPolicy { policy, form, digest } = decode(&push.policy).unwrap();
                self.form = Some(form);
                let digest = digest.to_vec();
                let ack = PolicyAck { generation: push.generation, digest, error: String::new() };
                self.send(from_gateway::Message::Ack(ack)).await;
                if wanted(&policy) {
                    return policy;
                }
            }
        }
    }

    /// Returns the next proof of freshness.
    pub(crate) async fn freshness(&mut self) -> Freshness {
        loop {
            if let from_operator::Message::Freshness(fresh) = self.next().await.expect("the stream ended") {
                return fresh;
            }
        }
    }

    /// Returns the next answer to a beat, or none if homes have changed before it came.
    pub(crate) async fn home_answer(&mut self) -> Option<HomeAnswer> {
        loop {
            match self.next().await.expect("the stream ended") {
                from_operator::Message::HomeAnswer(answer) => return Some(answer),
                from_operator::Message::HomesChanged(_) => return None,
                _ => {}
            }
        }
    }

    /// Returns the next answer to a lease request.
    pub(crate) async fn lease(&mut self) -> LeaseAnswer {
        loop {
            if let from_operator::Message::Lease(lease) = self.next().await.expect("the stream ended") {
                return lease;
            }
        }
    }

    /// Waits for the acknowledgement of a report.
    pub(crate) async fn acknowledged(&mut self, lease: &str, sequence: u64) -> SpendAck {
        loop {
            if let from_operator::Message::SpendAck(ack) = self.next().await.expect("the stream ended")
                && (ack.lease.as_str(), ack.sequence) == (lease, sequence)
            {
                return ack;
            }
        }
    }

    /// Waits until the operator ends the stream.
    pub(crate) async fn ended(&mut self) {
        while self.next().await.is_some() {}
    }
}
