//! `tools/list`: what the caller may call, narrowed by the same rules that decide about calls.

use http::Response;
use mcp_fleet_policy::json::Members;

use super::{Context, audited, initialize, invalid_params};
use crate::gateway::decode::{Id, Revision};
use crate::gateway::journal::Journal;
use crate::gateway::refused::Refused;
use crate::gateway::respond::{Body, result};

/// Lists the tools, all on one page.
pub(super) async fn list(
    context: &Context<'_>,
    journal: &mut Journal,
    revision: Revision,
    id: &Id,
    params: &Members<'_>,
) -> Result<Response<Body>, Refused> {
    // No page ends with a cursor, so none can be continued.
    if params.iter().any(|(name, _)| name == "cursor") {
        return Err(invalid_params(id, "Invalid params: unknown cursor"));
    }
    let report = initialize::report(context, id).await?;
    let tools = context.enforced.tools(context.caller.principal, context.view, &report);
    audited(context, journal, id).await?;
    if revision.is_legacy() {
        return Ok(result(id, &[b"{\"tools\":", &tools, b"}"]));
    }
    let end = b",\"ttlMs\":0,\"cacheScope\":\"private\"}";
    Ok(result(id, &[b"{\"resultType\":\"complete\",\"tools\":", &tools, end]))
}
