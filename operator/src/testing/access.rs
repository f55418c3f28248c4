//! What the publisher of policies asks of the API server before it has access to a tenant's namespace.

use std::sync::Arc;
use std::time::Duration;

use mcp_fleet_core::labels;

use super::TestContext;
use crate::controllers::tenant::tests::tenant;
use crate::kubernetes::cache::{Change, OPERATOR_BINDING};
use crate::ledger;
use crate::policy::publish;

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_read_once_the_operator_has_access_to_its_namespace() {
    let mut test = TestContext::new();
    test.elected.send_replace(Some(1));
    test.add_namespace("acme", &[(labels::TENANT.to_owned(), "acme".to_owned())].into());
    let of_tenant = labels::of_tenant("runtime", "acme", "u-1");
    test.add_namespace("acme-mcp", &of_tenant);
    test.writers.tenants.put(tenant());
    let ledger = ledger::open(test.ctx.client.clone(), &test.ctx.config.namespace).await;
    let _leading = test.ctx.shared_state.policies.start_leading(ledger, 1);
    let publisher = tokio::spawn(publish::run_with_current_cache(test.ctx.clone()));
    let reads = || test.api.take_reads().into_iter().filter(|path| path.contains("/acme-mcp/secrets")).count();
    // Every proof wakes the worker, and so does every object of the tenant.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        test.ctx.cache.announce(Change::Tenant("acme".into()));
    }
    assert_eq!(reads(), 0);
    let access = labels::of_tenant("access", "acme", "u-1");
    test.add_owned("RoleBinding", "acme-mcp", OPERATOR_BINDING, access.clone());
    test.ctx.cache.announce(Change::Owned(Arc::new((&access).into())));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(reads() > 0);
    publisher.abort();
}
