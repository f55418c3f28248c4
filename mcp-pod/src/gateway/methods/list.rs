//! `tools/list`: what the caller may call, narrowed by the same rules that decide about calls.

use http::Response;
use mcp_fleet_policy::json::Members;

use super::{audited, initialize};
use crate::gateway::audit::RequestRecord;
use crate::gateway::request::{Id, Revision};
use crate::gateway::respond::{Body, Rejection, result};
use crate::gateway::state::RequestContext;

/// ToolLists the tools, all on one page.
pub(super) async fn list(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    revision: Revision,
    id: &Id,
    params: &Members<'_>,
) -> Result<Response<Body>, Rejection> {
    // No page ends with a cursor, so none can be continued.
    if params.iter().any(|(name, _)| name == "cursor") {
        return Err(Rejection::invalid_params(id, "Invalid params: unknown cursor"));
    }
    let report = initialize::report(context, id).await?;
    let tools = context.policy.tool_list(context.caller.principal, context.view, &report);
    audited(context, record, id).await?;
    if revision.is_legacy() {
        return Ok(result(id, &[b"{\"tools\":", &tools, b"}"]));
    }
    let end = b",\"ttlMs\":0,\"cacheScope\":\"private\"}";
    Ok(result(id, &[b"{\"resultType\":\"complete\",\"tools\":", &tools, end]))
}
