//! Rolls a new image of `mcp-pod` out tenant by tenant. The gateway and the tool pods of one tenant are updated together;
//! then the next tenants follow.
//!
//! Controllers ask [`Rollout::pods`] which pods a tenant has to have, and report whether they are available.
//! Which tenants were updated is not stored anywhere: the live Deployment of each gateway tells.

mod decide;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodSpec;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use mcp_fleet_crds::MCPTenant;
use parking_lot::Mutex;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use tokio::time::Instant;

use crate::context::Context;
use crate::controllers::{PEER_PORT_NAME, gateway_deployment};
use crate::kubernetes::cache::Key;

use decide::{Next, TenantPods, next};

pub use decide::MaxUnavailable;

/// Annotation of a gateway's Deployment: the [`ShimOptions`] of the tenant's image. An operator of a later version leaves it until it
/// replaces the image.
pub(crate) const OPTIONS: &str = "mcp-fleet.dev/shim-options";

/// Which options the shim has in an image: a number that grows with each version that adds some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShimOptions(pub(crate) u32);

impl ShimOptions {
    /// Those of before there was an annotation.
    pub(crate) const FIRST: Self = Self(0);
    /// Those for what a program is configured with.
    pub(crate) const CONFIGURATION: Self = Self(1);
    /// Those for servers over HTTP.
    pub(crate) const HTTP: Self = Self(2);
    /// The one for servers that are stopped while nobody calls them.
    pub(crate) const IDLE: Self = Self(3);
    /// Those of this version.
    pub(crate) const NEWEST: Self = Self::IDLE;

    fn read(annotations: &BTreeMap<String, String>) -> Self {
        annotations.get(OPTIONS).and_then(|number| number.parse().ok()).map_or(Self::FIRST, Self)
    }
}

/// How often the rollout is looked at. This costs no requests.
const INTERVAL: Duration = Duration::from_secs(1);

/// The rollout of one image.
#[derive(Debug)]
pub(crate) struct Rollout {
    target: String,
    max_unavailable: MaxUnavailable,
    paused: bool,
    tenants: Mutex<BTreeMap<String, TenantPods>>,
    by_state: IntGaugeVec,
    is_stopped: IntGauge,
}

impl Rollout {
    /// Creates the rollout of an image, and registers its metrics.
    pub(crate) fn new(
        target: &str,
        max_unavailable: MaxUnavailable,
        paused: bool,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let by_state = IntGaugeVec::new(
            Opts::new("mcp_fleet_rollout_tenants", "Tenants by the state of the rollout of the mcp-pod image"),
            &["state"],
        )?;
        let is_stopped = IntGauge::new(
            "mcp_fleet_rollout_stopped",
            "1 while the rollout of the mcp-pod image is paused or stopped by a tenant, and tenants wait for it",
        )?;
        registry.register(Box::new(by_state.clone()))?;
        registry.register(Box::new(is_stopped.clone()))?;
        let (target, tenants) = (target.to_owned(), Mutex::default());
        Ok(Self { target, max_unavailable, paused, tenants, by_state, is_stopped })
    }

    /// Returns what the pods of a tenant have to be. A new tenant gets the newest at once.
    pub(crate) async fn pods(&self, ctx: &Context, tenant: &MCPTenant) -> Result<WantedPods, kube::Error> {
        let uid = tenant.uid().unwrap_or_default();
        let wanted = |pods: &TenantPods| {
            let TenantPods { image, has_newest_form, options, may_scale, .. } = pods;
            WantedPods {
                image: image.clone(),
                has_newest_form: *has_newest_form,
                options: *options,
                may_scale: *may_scale,
            }
        };
        if let Some(pods) = self.tenants.lock().get(&uid) {
            return Ok(wanted(pods));
        }
        let runtime = tenant.runtime_namespace();
        let key = Key { kind: "Deployment".into(), namespace: runtime.clone(), name: gateway_deployment().into() };
        // Without access, which the tenant's reconcile is about to give or restore, nothing can be read there.
        let live = if ctx.cache.owned.has(&key) && ctx.cache.has_access(&runtime) {
            Api::<Deployment>::namespaced(ctx.client.clone(), &runtime).get_opt(gateway_deployment()).await?
        } else {
            None
        };
        let annotations = live.as_ref().map(|live| live.annotations().clone());
        let pod = live.and_then(|live| live.spec?.template.spec);
        let has_newest_form = pod.as_ref().is_none_or(has_newest_form);
        let live = pod.into_iter().flat_map(|pod| pod.containers).find_map(|container| container.image);
        let image = live.unwrap_or_else(|| self.target.clone());
        let may_scale = has_newest_form;
        let options = match annotations {
            Some(annotations) if image != self.target => ShimOptions::read(&annotations),
            _ => ShimOptions::NEWEST,
        };
        let name = tenant.name_any();
        let new = TenantPods { name, image, has_newest_form, options, may_scale, ..TenantPods::default() };
        Ok(wanted(self.tenants.lock().entry(uid).or_insert(new)))
    }

    /// Records whether the gateway of a tenant is available, with pods that run this image.
    pub(crate) fn report_gateway(&self, tenant_uid: &str, image: &str, available: bool) {
        self.report(tenant_uid, image, |pods| pods.gateway = available);
    }

    /// Records whether a server is available, with pods that run this image.
    pub(crate) fn report_server(&self, tenant_uid: &str, server_uid: &str, image: &str, available: bool) {
        self.report(tenant_uid, image, |pods| {
            pods.servers.insert(server_uid.to_owned(), available);
        });
    }

    fn report(&self, tenant_uid: &str, image: &str, update: impl FnOnce(&mut TenantPods)) {
        if let Some(pods) = self.tenants.lock().get_mut(tenant_uid).filter(|pods| pods.image == image) {
            update(pods);
        }
    }

    /// Returns how far the rollout has come for a tenant.
    pub(crate) fn progress(&self, tenant_uid: &str) -> Progress {
        match self.tenants.lock().get(tenant_uid) {
            Some(TenantPods { image, .. }) if *image != self.target => Progress::Pending { image: image.clone() },
            Some(TenantPods { update: Some(_), .. }) => Progress::Updating,
            _ => Progress::Updated,
        }
    }

    /// Returns the image that is rolled out.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Whether the rollout is paused.
    pub(crate) const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Forgets everything, because another replica leads.
    pub(crate) fn forget(&self) {
        self.tenants.lock().clear();
        self.by_state.reset();
        self.is_stopped.set(0);
    }

    /// Begins the next updates. Returns what was decided, and the UIDs of the tenants whose progress changed.
    pub(crate) fn advance(&self, ctx: &Context) -> (Next, BTreeSet<String>) {
        let mut tenants = self.tenants.lock();
        let all = ctx.cache.tenants.state();
        let alive = || all.iter().filter(|tenant| tenant.metadata.deletion_timestamp.is_none());
        tenants.retain(|uid, _| ctx.cache.has_tenant(uid));
        let mut changed = BTreeSet::new();
        for (uid, pods) in tenants.iter_mut().filter(|(_, pods)| pods.update.is_some()) {
            let known = &ctx.cache;
            pods.servers.retain(|server, _| known.has_server(server));
            pods.finish(|server| known.has_server(server));
            if pods.update.is_none() {
                changed.insert(uid.clone());
            }
        }
        let now = Instant::now();
        let mut decided = next(&tenants, &self.target, self.max_unavailable, self.paused, now);
        // An unknown tenant may be one that a former leader was updating.
        let is_known =
            |tenant: &MCPTenant| tenant.uid().is_some_and(|uid| tenants.contains_key(&uid)) || is_rejected(tenant);
        if !alive().all(|tenant| is_known(tenant)) {
            decided.begin.clear();
        }
        for uid in &decided.begin {
            if let Some(pods) = tenants.get_mut(uid) {
                pods.begin(&self.target, now);
                changed.insert(uid.clone());
            }
        }
        (decided, changed)
    }
}

/// What the pods of a tenant have to be.
#[derive(Clone, Debug)]
pub(crate) struct WantedPods {
    pub image: String,
    /// Whether the gateway's pods have all that they have in this version.
    pub has_newest_form: bool,
    /// The options of the shim in the image.
    pub options: ShimOptions,
    /// Whether there may be several gateways.
    pub may_scale: bool,
}

/// Whether the pods of a gateway have all that they have in this version. The port for other gateways came last.
fn has_newest_form(pod: &PodSpec) -> bool {
    let mut ports = pod.containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports.any(|port| port.name.as_deref() == Some(PEER_PORT_NAME))
}

/// Whether nothing is made for a tenant as it is written, so that it has no pods to update.
fn is_rejected(tenant: &MCPTenant) -> bool {
    let conditions = tenant.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.type_ == "Stalled" && condition.status == "True")
}

/// How far the rollout has come for one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its pods run this older image.
    Pending { image: String },
    /// Its pods are being replaced.
    Updating,
    /// Its pods run the newest image.
    Updated,
}

/// Advances the rollout while this replica leads. Never returns.
pub(crate) async fn run(ctx: &Context) {
    let rollout = &ctx.rollout;
    let mut failing = BTreeSet::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let (decided, changed) = rollout.advance(ctx);
        for (state, count) in
            [("pending", decided.pending), ("updating", decided.updating), ("updated", decided.updated)]
        {
            rollout.by_state.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let stopped = decided.pending > 0 && (rollout.paused || !decided.failing.is_empty());
        rollout.is_stopped.set(i64::from(stopped));
        for name in decided.failing.difference(&failing) {
            report_failing(ctx, name).await;
        }
        failing = decided.failing;
        for uid in decided.begin {
            tracing::info!(tenant_uid = uid, image = rollout.target, "updating the pods of a tenant");
        }
        for uid in changed {
            ctx.shared_state.announce_rollout(&uid);
        }
    }
}

async fn report_failing(ctx: &Context, name: &str) {
    let Some(tenant) = ctx.cache.tenants.get(&ObjectRef::new(name)) else { return };
    let note = format!(
        "the pods of the tenant {name} are not available with the image {} after {} minutes, so no further tenant is \
         updated",
        ctx.rollout.target,
        decide::DEADLINE.as_secs() / 60
    );
    tracing::error!(tenant = name, note);
    ctx.events.warning(&*tenant, "RolloutStopped", "Rollout", note).await;
}
