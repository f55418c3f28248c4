//! `tools/list`: the tools that the caller may call, with the arguments that it may send.

use http::Response;
use mcp_fleet_policy::json::Members;

use super::{initialize, record_allowed, reserve_answer};
use crate::gateway::audit::RequestRecord;
use crate::gateway::memory::Use;
use crate::gateway::request::{Id, Revision};
use crate::gateway::respond::{Body, Rejection, result};
use crate::gateway::state::{RequestContext, Unanswered};

/// Answers with all tools on one page.
pub(super) async fn list(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    revision: Revision,
    id: &Id,
    params: &Members<'_>,
) -> Result<Response<Body>, Unanswered> {
    // No answer has a cursor, so no cursor is valid.
    if params.iter().any(|(name, value)| name == "cursor" && !value.is_null()) {
        return Err(Rejection::invalid_params(id, "Invalid params: unknown cursor").into());
    }
    let report = initialize::report(context, record, id).await?;
    let tools = {
        let mut memory = reserve_answer(context, 0, id, revision)?;
        let reserve = |bytes| memory.grow(bytes, Use::Answer);
        let tools = context.policy.tool_list(context.caller.principal, context.view, &report, reserve);
        tools.map_err(|full| Rejection::from(full).with_id(id, !revision.is_legacy()))?
    };
    let _memory = reserve_answer(context, tools.len(), id, revision)?;
    record_allowed(context, record, id).await?;
    if revision.is_legacy() {
        return Ok(result(id, &[b"{\"tools\":", &tools, b"}"]));
    }
    let end = b",\"ttlMs\":0,\"cacheScope\":\"private\"}";
    Ok(result(id, &[b"{\"resultType\":\"complete\",\"tools\":", &tools, end]))
}
