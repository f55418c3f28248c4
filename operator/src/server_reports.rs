//! Keeps the last report of each tool server in a Secret of the runtime namespace, and gives it to gateways that have none,
//! so that agents see the same tools while a server is down.
//!
//! The operator does not read what is in a report: that is hostile input, which the gateway checks that uses it. In memory it
//! holds digests only, which the [watch of Secrets](crate::kubernetes::cache::Secrets) delivers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use mcp_fleet_control::server_report::MAX_COMPRESSED;
use mcp_fleet_control::wire::kept_server_reports::KeptDigest;
use mcp_fleet_control::wire::{KeptServerReport, KeptServerReports, SeenServerReport, from_operator};
use mcp_fleet_core::control_server::{self, GatewayPod, message};
use mcp_fleet_core::error::BoxError;
use mcp_fleet_core::labels::{self, Labels};
use mcp_fleet_core::shared_state::Outbound;
use mcp_fleet_policy::model::TenantPolicy;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::controllers::server::report_secret_name;
use crate::error::boxed;
use crate::kubernetes::FIELD_MANAGER;
use crate::kubernetes::cache::{Cache, KeptReport, digest_text, report_digest};
use crate::kubernetes::timeout::with_timeout;

/// Key of the report in its Secret.
const FILE: &str = "report.json.gz";
/// Shortest time between two writes for one server, whatever its gateways send. It doubles with each write that comes as soon
/// as it may, up to the longest: a server that always reports something else must not fill etcd.
const INTERVAL: Duration = Duration::from_mins(1);
const LONGEST_INTERVAL: Duration = Duration::from_hours(1);
/// Requests with reports that run at a time, and Secrets in the answer to one. They bound the memory that reports take.
const MAX_REQUESTS: usize = 4;
const PAGE_SIZE: u32 = 4;
/// How long a gateway may take to make room for one report.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a report could not be written or read.
#[derive(Debug, thiserror::Error)]
enum ReportsError {
    #[error("failed to {verb} the kept reports of servers in the namespace {namespace}")]
    Api { verb: &'static str, namespace: String, source: Box<kube::Error> },
    #[error("the Secret {0} exists, but MCP Fleet did not create it; delete or rename it")]
    NotOurs(String),
}

/// The reports of the servers of all tenants, as Secrets.
pub(crate) struct ServerReports {
    client: Client,
    cache: Cache,
    /// The turns of requests with reports.
    turns: Semaphore,
    /// The last write of a report by UID of the server, as long as it matters.
    written: Mutex<HashMap<String, Written>>,
}

/// A write of a server's report.
#[derive(Clone, Copy, Debug)]
struct Written {
    at: Instant,
    /// How long no other report of the server is written.
    interval: Duration,
}

impl fmt::Debug for ServerReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerReports").field("written", &self.written.lock().len()).finish_non_exhaustive()
    }
}

impl ServerReports {
    pub(crate) fn new(client: Client, cache: Cache) -> Self {
        Self { client, cache, turns: Semaphore::new(MAX_REQUESTS), written: Mutex::default() }
    }

    /// Waits until the Secrets of the gateway's namespace are known, and returns which reports are kept there.
    async fn list(&self, gateway: &GatewayPod) -> KeptServerReports {
        let kept = self.cache.secrets.kept_reports(&gateway.namespace).await;
        let to_wire = |KeptReport { server_uid, digest }| KeptDigest { server_uid, digest: digest.to_vec() };
        KeptServerReports { kept: kept.into_iter().map(to_wire).collect() }
    }

    /// Keeps a report, unless it is not of one of the tenant's servers, too large, or too soon after the last. Returns the
    /// answer to the gateway once the report is kept.
    async fn keep_at(
        &self,
        gateway: &GatewayPod,
        policy: &TenantPolicy,
        seen: SeenServerReport,
        now: Instant,
    ) -> Result<Option<KeptServerReports>, ReportsError> {
        let SeenServerReport { server_uid, digest, report } = seen;
        let Ok(digest) = digest.try_into() else { return Ok(None) };
        let Some(server) = policy.servers.iter().find(|server| server.uid == server_uid) else { return Ok(None) };
        if report.is_empty() || report.len() > MAX_COMPRESSED {
            return Ok(None);
        }
        let (name, wanted) = (report_secret_name(&server.name), KeptReport { server_uid, digest });
        let answer = KeptDigest { server_uid: wanted.server_uid.clone(), digest: digest.to_vec() };
        let answer = KeptServerReports { kept: vec![answer] };
        let kept = self.cache.secrets.kept_report(&gateway.namespace, &name);
        if kept.as_ref() == Some(&wanted) {
            return Ok(Some(answer));
        }
        // Nothing is made for a server whose objects are being deleted.
        let object = self.cache.server_by_uid(&wanted.server_uid);
        if object.is_none_or(|object| object.metadata.deletion_timestamp.is_some()) {
            return Ok(None);
        }
        // Reports that wait would take memory. The gateway sends this one again.
        let Ok(_turn) = self.turns.try_acquire() else { return Ok(None) };
        if !self.admits(&wanted.server_uid, now) {
            return Ok(None);
        }
        let secret = render(gateway, &server.name, &name, &wanted, report);
        self.write(&name, &secret, kept.is_some()).await?;
        tracing::debug!(tenant = gateway.tenant, server = server.name, "the report of a server is kept");
        self.cache.secrets.note_report(&gateway.namespace, &name, wanted);
        Ok(Some(answer))
    }

    /// Whether a report of a server may be written now.
    fn admits(&self, server_uid: &str, now: Instant) -> bool {
        let mut written = self.written.lock();
        // A server that was quiet for as long again begins anew.
        written.retain(|_, last| now.saturating_duration_since(last.at) < last.interval * 2);
        let interval = match written.get(server_uid) {
            Some(last) if now.saturating_duration_since(last.at) < last.interval => return false,
            Some(last) => (last.interval * 2).min(LONGEST_INTERVAL),
            None => INTERVAL,
        };
        written.insert(server_uid.to_owned(), Written { at: now, interval });
        true
    }

    /// Creates the Secret, or replaces it if it exists. Without a version, it replaces what is there: of two reports, either
    /// may be the last.
    async fn write(&self, name: &str, secret: &Secret, exists: bool) -> Result<(), ReportsError> {
        let namespace = secret.namespace().unwrap_or_default();
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let failed = |source: kube::Error| ReportsError::Api {
            verb: "write",
            namespace: namespace.clone(),
            source: source.into(),
        };
        if !exists {
            match with_timeout(api.create(&params, secret)).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                Err(source) => return Err(failed(source)),
            }
            let found = with_timeout(api.get_metadata(name)).await.map_err(failed)?;
            if !is_ours(found.labels()) {
                return Err(ReportsError::NotOurs(name.to_owned()));
            }
        }
        with_timeout(api.replace(name, &params, secret)).await.map(drop).map_err(failed)
    }

    /// Sends a gateway the kept reports of those of its servers that are `wanted`, by UID.
    async fn send(
        &self,
        gateway: &GatewayPod,
        wanted: &HashSet<String>,
        outbound: &Outbound,
    ) -> Result<(), ReportsError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &gateway.namespace);
        let selector = format!("{},{}={}", labels::MANAGED_SELECTOR, labels::COMPONENT, labels::SERVER_REPORT);
        let mut page = ListParams::default().labels(&selector).limit(PAGE_SIZE);
        loop {
            // The semaphore is never closed. Nothing that takes memory waits for it.
            let _turn = self.turns.acquire().await;
            let found = with_timeout(api.list(&page)).await.map_err(|source| ReportsError::Api {
                verb: "list",
                namespace: gateway.namespace.clone(),
                source: source.into(),
            })?;
            for report in found.items.into_iter().filter_map(read).filter(|report| wanted.contains(&report.server_uid))
            {
                let report = outbound.send(Ok(message(from_operator::Message::KeptServerReport(report))));
                // A gateway that does not read must not keep the turn from others.
                if !matches!(tokio::time::timeout(SEND_TIMEOUT, report).await, Ok(Ok(()))) {
                    return Ok(());
                }
            }
            match found.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(()),
            }
        }
    }
}

#[tonic::async_trait]
impl control_server::ServerReports for ServerReports {
    async fn kept(&self, gateway: &GatewayPod) -> KeptServerReports {
        self.list(gateway).await
    }

    async fn keep(
        &self,
        gateway: &GatewayPod,
        policy: &TenantPolicy,
        seen: SeenServerReport,
    ) -> Result<Option<KeptServerReports>, BoxError> {
        self.keep_at(gateway, policy, seen, Instant::now()).await.map_err(|error| boxed(&error))
    }

    async fn give(&self, gateway: &GatewayPod, wanted: &HashSet<String>, outbound: &Outbound) -> Result<(), BoxError> {
        self.send(gateway, wanted, outbound).await.map_err(|error| boxed(&error))
    }
}

fn is_ours(found: &Labels) -> bool {
    let has = |label: &str, value: &str| found.get(label).is_some_and(|found| found == value);
    has("app.kubernetes.io/managed-by", "mcp-fleet") && has(labels::COMPONENT, labels::SERVER_REPORT)
}

fn render(gateway: &GatewayPod, server: &str, name: &str, kept: &KeptReport, report: Vec<u8>) -> Secret {
    let mut labels = labels::of_tenant(labels::SERVER_REPORT, &gateway.tenant, &gateway.tenant_uid);
    labels.insert(labels::SERVER.into(), server.into());
    labels.insert(labels::SERVER_UID.into(), kept.server_uid.clone());
    Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(gateway.namespace.clone()),
            labels: Some(labels),
            annotations: Some([(labels::REPORT_DIGEST.to_owned(), digest_text(kept.digest))].into()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".into()),
        data: Some(BTreeMap::from([(FILE.to_owned(), ByteString(report))])),
        ..Secret::default()
    }
}

/// Returns the report in a Secret, if there is one.
fn read(mut secret: Secret) -> Option<KeptServerReport> {
    let digest = report_digest(&secret.metadata)?.to_vec();
    let server_uid = secret.labels().get(labels::SERVER_UID)?.clone();
    let report = secret.data.as_mut()?.remove(FILE)?.0;
    (report.len() <= MAX_COMPRESSED).then_some(KeptServerReport { server_uid, digest, report })
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use kube::core::PartialObjectMeta;
    use mcp_fleet_core::testing::previous;
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;
    use crate::controllers::server::tests::server;
    use crate::controllers::tenant::tests::tenant;
    use crate::testing::TestContext;

    const SECRET: &str = "/api/v1/namespaces/acme-mcp/secrets/mcp-files-report";

    static GATEWAY: LazyLock<GatewayPod> = LazyLock::new(|| GatewayPod {
        tenant: "acme".into(),
        tenant_uid: "uid-acme".into(),
        namespace: "acme-mcp".into(),
        pod: "gateway-1".into(),
        pod_uid: "p-1".into(),
        token_valid_for: Duration::from_secs(3600),
    });

    fn seen(digest: u8) -> SeenServerReport {
        SeenServerReport { server_uid: "uid-files".into(), digest: vec![digest; 32], report: vec![digest; 9] }
    }

    /// Returns a context whose cache has the server of the policy.
    fn with_server(deleted: bool) -> (TestContext, ServerReports, TenantPolicy) {
        let mut test = TestContext::new();
        test.add_tenant(&tenant());
        let mut server = server();
        server.metadata.uid = Some("uid-files".into());
        server.metadata.deletion_timestamp =
            deleted.then(|| serde_json::from_value(json!("2026-11-26T12:00:00Z")).unwrap());
        test.add_server(&server);
        let reports = ServerReports::new(test.ctx.client.clone(), test.ctx.cache.clone());
        (test, reports, TenantPolicy::clone(&previous().policy))
    }

    fn writes(test: &TestContext) -> Vec<String> {
        test.api.take_writes().iter().map(crate::testing::Write::short).collect()
    }

    #[tokio::test]
    async fn a_report_is_written_when_it_changes_and_less_often_if_it_always_changes() {
        let (test, reports, policy) = with_server(false);
        let start = Instant::now();
        let keep = async |digest, after| {
            let kept = reports.keep_at(&GATEWAY, &policy, seen(digest), start + after).await.unwrap();
            kept.map(|kept| kept.kept[0].digest[0])
        };
        assert_eq!(keep(1, Duration::ZERO).await, Some(1));
        assert_eq!(writes(&test), ["POST secrets"]);
        let secret = test.api.get(SECRET).unwrap();
        assert_eq!(secret["metadata"]["labels"][labels::SERVER_UID], "uid-files");
        assert_eq!(secret["metadata"]["labels"][labels::TENANT_UID], "uid-acme");
        // Another gateway of the tenant has read the same.
        assert_eq!(keep(1, Duration::ZERO).await, Some(1));
        assert_eq!(keep(2, INTERVAL / 2).await, None, "too soon");
        assert!(writes(&test).is_empty());
        assert_eq!(keep(2, INTERVAL).await, Some(2));
        assert_eq!(writes(&test), ["PUT secrets/mcp-files-report"]);
        assert!(test.api.take_reads().is_empty());
        // It changes as often as it may, so it is written less and less often.
        assert_eq!(keep(3, INTERVAL * 2).await, None);
        assert_eq!(keep(3, INTERVAL * 3).await, Some(3));
        assert_eq!(keep(4, INTERVAL * 6).await, None);
        assert_eq!(keep(4, INTERVAL * 7).await, Some(4));
        // After it was quiet for twice as long, it begins anew.
        assert_eq!(keep(5, INTERVAL * 24).await, Some(5));
        assert_eq!(keep(6, INTERVAL * 25).await, Some(6));
    }

    #[tokio::test]
    async fn only_a_report_of_a_server_of_the_tenant_is_kept_if_it_is_not_too_large() {
        let (test, reports, policy) = with_server(false);
        for refused in [
            SeenServerReport { server_uid: "uid-of-another-tenants-server".into(), ..seen(1) },
            SeenServerReport { digest: vec![1; 31], ..seen(1) },
            SeenServerReport { report: vec![], ..seen(1) },
            SeenServerReport { report: vec![1; MAX_COMPRESSED + 1], ..seen(1) },
        ] {
            assert_eq!(reports.keep_at(&GATEWAY, &policy, refused, Instant::now()).await.unwrap(), None);
        }
        let busy = reports.turns.acquire_many(4).await.unwrap();
        assert_eq!(reports.keep_at(&GATEWAY, &policy, seen(1), Instant::now()).await.unwrap(), None);
        drop(busy);
        assert!(writes(&test).is_empty());
        let largest = SeenServerReport { report: vec![1; MAX_COMPRESSED], ..seen(1) };
        assert!(reports.keep_at(&GATEWAY, &policy, largest, Instant::now()).await.unwrap().is_some());
        let (test, reports, policy) = with_server(true);
        assert_eq!(
            reports.keep_at(&GATEWAY, &policy, seen(1), Instant::now()).await.unwrap(),
            None,
            "it is being deleted"
        );
        assert!(writes(&test).is_empty());
    }

    #[tokio::test]
    async fn a_secret_of_someone_else_is_not_replaced() {
        let (test, reports, policy) = with_server(false);
        test.api.insert(SECRET, json!({"metadata": {"name": "mcp-files-report", "uid": "o-1"}}));
        let error = reports.keep_at(&GATEWAY, &policy, seen(1), Instant::now()).await.unwrap_err();
        assert!(matches!(error, ReportsError::NotOurs(_)), "{error}");
        // One that the watch has not delivered is replaced, also that of an earlier server of the same name.
        let ours = labels::common(labels::SERVER_REPORT);
        test.api.insert(SECRET, json!({"metadata": {"name": "mcp-files-report", "uid": "o-1", "labels": ours}}));
        let later = Instant::now() + INTERVAL;
        assert!(reports.keep_at(&GATEWAY, &policy, seen(1), later).await.unwrap().is_some());
        assert_eq!(writes(&test), ["PUT secrets/mcp-files-report"]);
    }

    #[tokio::test]
    async fn a_gateway_gets_the_reports_that_it_wants() {
        let (test, reports, policy) = with_server(false);
        reports.keep_at(&GATEWAY, &policy, seen(1), Instant::now()).await.unwrap();
        let mut other = test.api.get(SECRET).unwrap();
        other["metadata"]["labels"][labels::SERVER_UID] = json!("uid-of-an-earlier-server");
        test.api.insert("/api/v1/namespaces/acme-mcp/secrets/mcp-mail-report", other);
        let mut edited = test.api.get(SECRET).unwrap();
        edited["metadata"]["annotations"][labels::REPORT_DIGEST] = json!("ff");
        test.api.insert("/api/v1/namespaces/acme-mcp/secrets/mcp-edited-report", edited);
        let (outbound, mut received) = mpsc::channel(8);
        reports.send(&GATEWAY, &["uid-files".to_owned()].into(), &outbound).await.unwrap();
        drop(outbound);
        let Some(from_operator::Message::KeptServerReport(given)) = received.recv().await.unwrap().unwrap().message
        else {
            panic!("no report")
        };
        let SeenServerReport { server_uid, digest, report } = seen(1);
        assert_eq!(given, KeptServerReport { server_uid, digest, report });
        assert!(received.recv().await.is_none());
        // The digests come from the watch of Secrets.
        let metadata: PartialObjectMeta<Secret> = serde_json::from_value(test.api.get(SECRET).unwrap()).unwrap();
        assert_eq!(report_digest(&metadata.metadata), Some([1; 32]));
    }
}
