//! The operator of a fleet on one machine, without Kubernetes: `mcp-fleet try` uses it.
//!
//! Policies are compiled, and money is accounted for, by the same code as in a cluster, and gateways connect to the same
//! control server. What the API server keeps in a cluster is in a folder: certificate authority, keys, policies in force,
//! revocations and ledgers. Start at [`LocalOperator::start`].

mod credential;
mod error;
mod gateways;
mod model;
mod tenant;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::ResourceExt as _;
use mcp_fleet_admin::Admin;
use mcp_fleet_crds::MCPPrincipal;
use mcp_fleet_policy::model::Uid;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use crate::control_server::{self, Alarms, GatewayPod, Hub};
use crate::credentials::ca::{Authority, LeafRequest, gateway_identity, server_identity};
use crate::credentials::tokens::TenantKeys;
use crate::kill_switch::{Known, Switch};
use crate::ledger::{self, AnyStore, FileStore, Ledger};
use crate::metrics::SpendMetrics;
use crate::private_files;
use crate::shared_state::verdict::{Kind, TenantState};
use crate::shared_state::{Proof, SharedState, Term};

use gateways::LocalGateways;
use tenant::Tenant;

pub use credential::Credential;
pub use error::LocalError;
pub use model::{Identity, Objects, Published, Ticket, Verdict};

/// Name in the certificate of the control server.
const OPERATOR: &str = "localhost";
/// How long a gateway's token is valid: longer than any process runs.
const TOKEN_LIFETIME: Duration = Duration::from_hours(24 * 365);

/// The operator of a fleet on one machine.
#[derive(Debug)]
pub struct LocalOperator {
    folder: PathBuf,
    authority: Authority,
    address: SocketAddr,
    metrics: SocketAddr,
    shared_state: Arc<SharedState>,
    gateways: Arc<LocalGateways>,
    ledger: Arc<Ledger<AnyStore>>,
    tenants: Mutex<HashMap<Uid, Tenant>>,
}

impl LocalOperator {
    /// Starts the operator of the fleet in `folder`, which only this process may use. It serves gateways until `stop`.
    pub async fn start(folder: &Path, stop: CancellationToken) -> Result<Self, LocalError> {
        let failed = |source| LocalError::Folder { path: folder.to_owned(), source };
        private_files::create_folder(folder).map_err(failed)?;
        let authority = open_authority(folder)?;
        let books = folder.join("ledger");
        let store = FileStore::open(&books).map_err(failed)?;
        let ledger = Arc::new(Ledger::unread(AnyStore::new(store)));
        ledger.load().await.map_err(|error| LocalError::Folder { path: books, source: io::Error::other(error) })?;
        let (shared_state, gateways) = (Arc::<SharedState>::default(), Arc::<LocalGateways>::default());
        let tls = control_server::server_config(&authority, vec![OPERATOR.to_owned()])?;
        let listener = control_server::listen((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let address = listener.local_addr().map_err(failed)?;
        let hub = Arc::new(Hub {
            shared_state: Arc::clone(&shared_state),
            gateways: Arc::clone(&gateways) as _,
            alarms: Arc::new(Log),
            audit: None,
            reports: None,
        });
        let metrics = serve_metrics(&shared_state, stop.clone()).await?;
        tokio::spawn(serve(Arc::clone(&hub), Arc::clone(&ledger), listener, tls, (next_term(folder)?, stop)));
        let folder = folder.to_owned();
        Ok(Self { folder, authority, address, metrics, shared_state, gateways, ledger, tenants: Mutex::default() })
    }

    /// Returns the address of the control server, and the name in its certificate.
    pub fn control(&self) -> (SocketAddr, &'static str) {
        (self.address, OPERATOR)
    }

    /// Returns the address of the operator's metrics, which say what is spent of budgets.
    pub fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// Returns the certificate that clients trust, PEM.
    pub fn authority(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// Compiles the objects of a tenant and puts the policy in force, unless it is. To be called every few seconds, because
    /// a revocation can become due without any change of an object.
    pub fn publish(&self, objects: &Objects) -> Result<Published, LocalError> {
        let uid = objects.tenant.uid().unwrap_or_default();
        self.with_tenant(&uid, |tenant| tenant.publish(&self.shared_state, objects, issuer(&uid)))
    }

    /// Says that the published policy of a tenant was compiled from what is declared as of `read`. Without that, its gateway
    /// refuses calls after a while.
    pub fn prove(&self, tenant_uid: &str, read: Instant) {
        if let Some(published) = self.shared_state.policies.published(tenant_uid) {
            self.shared_state.policies.prove(tenant_uid, Proof { generation: published.policy.generation, read });
        }
    }

    /// Reads the kill switch's `ConfigMap` as a replica in a cluster does. Returns why it stops all calls; none if it does
    /// not.
    pub fn stop_reason(config_map: &ConfigMap) -> Option<String> {
        match Switch::of(Some(config_map)) {
            Switch::Off => None,
            Switch::On { reason, problem: _ } => Some(reason),
        }
    }

    /// Stops all calls of all tenants, or allows them.
    pub fn set_kill_switch(&self, stop: Option<&str>, read: Instant) {
        let switch = match stop {
            None => Switch::Off,
            Some(reason) => Switch::On { reason: reason.to_owned(), problem: None },
        };
        self.shared_state.kill_switch.set(Known { switch, read });
    }

    /// Returns whether all gateways of a tenant enforce a generation of its policy.
    pub fn is_enforced(&self, tenant_uid: &str, generation: u64) -> bool {
        self.state(tenant_uid).enforced_by_all >= generation
    }

    /// Returns why a gateway of a tenant refuses the policy; none if none does.
    pub fn problem(&self, tenant_uid: &str) -> Option<String> {
        self.state(tenant_uid).error.map(|(_, message)| message)
    }

    fn state(&self, tenant_uid: &str) -> TenantState {
        self.shared_state.enforcement(tenant_uid, Kind::Tenant, tenant_uid).0
    }

    /// Removes a tenant that is not declared any more: its gateway gets no policy, and then refuses calls.
    pub fn remove(&self, tenant_uid: &str) {
        self.tenants.lock().remove(tenant_uid);
        self.shared_state.policies.remove(tenant_uid);
        self.shared_state.remove_tenant(tenant_uid);
    }

    /// Decides what is to be done about the credential of a principal. `token` is the one that it has.
    pub fn credential(
        &self,
        objects: &Objects,
        principal: &MCPPrincipal,
        token: Option<&str>,
    ) -> Result<Credential, LocalError> {
        let uid = objects.tenant.uid().unwrap_or_default();
        self.with_tenant(&uid, |tenant| {
            let from = (self.authority.certificate_pem(), objects.url.as_str(), issuer(&uid));
            credential::decide(tenant, &objects.tenant, principal, from, token)
        })
    }

    /// Returns the folder that the gateway of a tenant reads its policy from.
    pub fn policy_folder(&self, tenant_uid: &str) -> Result<PathBuf, LocalError> {
        self.with_tenant(tenant_uid, |tenant| Ok(tenant.policy_folder()))
    }

    /// Issues the certificate of a tenant's gateway, for clients on this machine.
    pub fn gateway_identity(&self, tenant_uid: &str) -> Result<Identity, LocalError> {
        let dns = vec![OPERATOR.to_owned()];
        let uri = Some(gateway_identity(tenant_uid));
        self.identity(&LeafRequest { dns, uri, server: true, client: true })
    }

    /// Issues the certificate of a server's shim.
    pub fn server_identity(&self, tenant_uid: &str, server_uid: &str) -> Result<Identity, LocalError> {
        let uri = Some(server_identity(tenant_uid, server_uid));
        self.identity(&LeafRequest { dns: vec![], uri, server: true, client: false })
    }

    /// Returns the name in the certificate of a tenant's gateway, by which shims know it.
    pub fn gateway_name(tenant_uid: &str) -> String {
        gateway_identity(tenant_uid)
    }

    /// Admits a gateway of a tenant that is about to start.
    pub fn admit_gateway(&self, tenant: &str, tenant_uid: &str) -> Result<Ticket, LocalError> {
        // The random half of new keys is as good a secret as any.
        let secret = TenantKeys::generate()?.session;
        let token = secret.iter().fold(String::with_capacity(64), |text, byte| format!("{text}{byte:02x}"));
        let uid = Ulid::generate().to_string().to_lowercase();
        let gateway = GatewayPod {
            tenant: tenant.to_owned(),
            tenant_uid: tenant_uid.to_owned(),
            namespace: tenant.to_owned(),
            pod: format!("gateway-{uid}"),
            pod_uid: uid.clone(),
            token_valid_for: TOKEN_LIFETIME,
        };
        self.gateways.add(&token, gateway);
        Ok(Ticket { uid, token })
    }

    /// Forgets a gateway that has ended. What it did not report of its leases is forfeited.
    pub async fn gateway_ended(&self, uid: &str) {
        self.gateways.remove(uid);
        self.ledger.forfeit_pod(uid, None).await;
    }

    fn identity(&self, request: &LeafRequest) -> Result<Identity, LocalError> {
        let leaf = self.authority.issue_in_memory(request, Timestamp::now())?;
        let authority = self.authority.certificate_pem().to_owned();
        Ok(Identity { certificate: leaf.certificate_pem, key: leaf.key_pem, authority })
    }

    fn with_tenant<T>(
        &self,
        uid: &str,
        operation: impl FnOnce(&mut Tenant) -> Result<T, LocalError>,
    ) -> Result<T, LocalError> {
        let mut tenants = self.tenants.lock();
        if let Some(tenant) = tenants.get_mut(uid) {
            return operation(tenant);
        }
        let tenant = Tenant::open(&self.folder.join("tenants").join(uid))?;
        operation(tenants.entry(uid.to_owned()).or_insert(tenant))
    }
}

/// Tells people by log lines.
#[derive(Debug)]
struct Log;

#[tonic::async_trait]
impl Alarms for Log {
    async fn alarm(&self, about: &ObjectReference, reason: &str, _action: &str, note: String) {
        let (namespace, name) = (about.namespace.as_deref(), about.name.as_deref());
        tracing::warn!(namespace, name, reason, note, "an Event");
    }
}

/// Serves the metrics about money until `stop`. Returns their address.
async fn serve_metrics(shared_state: &Arc<SharedState>, stop: CancellationToken) -> Result<SocketAddr, LocalError> {
    let registry = Registry::new();
    registry.register(Box::new(SpendMetrics::new(Arc::clone(shared_state))?))?;
    let listener = control_server::listen((Ipv4Addr::LOCALHOST, 0).into()).await?;
    let address = listener.local_addr().map_err(LocalError::Metrics)?;
    let admin = Admin { alive: Box::new(|| Ok(())), ready: Box::new(|| Ok(())), registry };
    tokio::spawn(mcp_fleet_admin::serve(listener, admin, stop));
    Ok(address)
}

/// Serves gateways and keeps the ledger up to date, until `stop`.
async fn serve(
    hub: Arc<Hub>,
    ledger: Arc<Ledger<AnyStore>>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    (term, stop): (Term, CancellationToken),
) {
    let shared_state = Arc::clone(&hub.shared_state);
    let _leading = shared_state.policies.start_leading(Arc::clone(&ledger), term);
    let maintained = async {
        tokio::join!(
            ledger::maintain(&ledger),
            control_server::reap(&hub, &ledger),
            control_server::recall(&shared_state, &ledger)
        );
    };
    let served = control_server::serve(Arc::clone(&hub), listener, tls, stop);
    tokio::select! {
        () = maintained => {}
        () = served => {}
    }
}

/// Reads the certificate authority of the fleet. Makes one if the fleet is new.
fn open_authority(folder: &Path) -> Result<Authority, LocalError> {
    let failed = |source| LocalError::Folder { path: folder.to_owned(), source };
    let [certificate, key] = ["ca.crt", "ca.key"].map(|name| folder.join(name));
    let text = |path: &Path| match private_files::read(path) {
        Ok(bytes) => Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) => Err(failed(error)),
    };
    if let (Some(certificate), Some(key)) = (text(&certificate)?, text(&key)?) {
        return Ok(Authority::from_pem(&certificate, &key)?);
    }
    let (certificate_pem, key_pem) = Authority::generate(Timestamp::now())?;
    private_files::replace(&key, key_pem.as_bytes()).map_err(failed)?;
    private_files::replace(&certificate, certificate_pem.as_bytes()).map_err(failed)?;
    Ok(Authority::from_pem(&certificate_pem, &key_pem)?)
}

/// Returns the number of this run of the fleet, which is larger than those of earlier ones.
fn next_term(folder: &Path) -> Result<Term, LocalError> {
    let path = folder.join("term");
    let failed = |source| LocalError::Folder { path: path.clone(), source };
    let damaged = || LocalError::Damaged(path.clone(), "it is not a number".into());
    let last = match private_files::read(&path).map_err(failed)? {
        Some(text) => std::str::from_utf8(&text).ok().and_then(|text| text.parse::<Term>().ok()).ok_or_else(damaged)?,
        None => 0,
    };
    let term = last.saturating_add(1);
    private_files::replace(&path, term.to_string().as_bytes()).map_err(failed)?;
    Ok(term)
}

/// Returns `iss` of a tenant's tokens.
fn issuer(tenant_uid: &str) -> String {
    format!("https://{OPERATOR}/tenants/{tenant_uid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ledger_that_cannot_be_read_ends_the_start_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let book = folder.path().join("ledger/7b1f4c1e-55a0-4f0e-9a0b-0d9d3c5c2f11-20261101t000000z.json");
        std::fs::create_dir_all(book).unwrap();
        let error = LocalOperator::start(folder.path(), CancellationToken::new()).await.unwrap_err();
        let text = crate::error::chain(&error);
        assert!(text.contains(&folder.path().join("ledger").display().to_string()), "{text}");
    }
}
