//! `initialize` and `server/discover`: revisions, capabilities, and how the server describes itself.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::denial::Denial;
use mcp_fleet_policy::json::{Value, write_str};
use mcp_fleet_policy::reason::Reason;
use tracing::{debug, warn};

use super::{record_allowed, reserve_answer};
use crate::gateway::audit::RequestRecord;
use crate::gateway::request::{Id, Message, Revision};
use crate::gateway::respond::{Body, Failure, Rejection, error, result};
use crate::gateway::state::{RequestContext, Unanswered};
use crate::gateway::upstream::{Report, UpstreamError};

/// Capabilities of every server behind the gateway, whatever it offers itself.
const CAPABILITIES: &[u8] = b"\"capabilities\":{\"tools\":{}}";

/// Answers `initialize`: negotiates a revision and opens a session.
pub(super) async fn initialize(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    message: &Message<'_>,
) -> Result<Response<Body>, Unanswered> {
    let Some(id) = message.id() else {
        let text = "Invalid request: initialize is a request";
        let failure = Failure { status: StatusCode::BAD_REQUEST, code: -32600, message: text, data: None };
        return Err(Rejection::new(Reason::MessageInvalid, error(None, &failure)).into());
    };
    let requested = message.params.iter().find_map(|(name, value)| (name == "protocolVersion").then_some(value));
    let Some(Value::String(requested)) = requested else {
        return Err(Rejection::invalid_params(id, "Invalid params: protocolVersion is missing").into());
    };
    let legacy = Revision::from_name(requested).filter(|revision| revision.is_legacy());
    let revision = legacy.unwrap_or(Revision::NEWEST_LEGACY);
    record.revision = Some(revision);
    let report = report(context, record, id).await?;
    let Ok(session) = context.policy.session_sealer.seal(context.session_owner(), revision, context.now.unix_seconds())
    else {
        let failure = Failure { status: StatusCode::OK, code: -32603, message: "Internal error", data: None };
        return Err(Rejection::new(Reason::SessionInvalid, error(Some(id), &failure)).into());
    };
    let _memory = reserve_answer(context, report.about.length(), id, revision)?;
    record_allowed(context, record, id).await?;

    let version = format!("{{\"protocolVersion\":\"{}\",", revision.as_str());
    let mut rest = b",\"serverInfo\":".to_vec();
    write_server_info(context, &report, &mut rest);
    write_instructions(&report, &mut rest);
    rest.push(b'}');
    let mut response = result(id, &[version.as_bytes(), CAPABILITIES, &rest]);
    if let Ok(value) = HeaderValue::from_str(&session) {
        response.headers_mut().insert("mcp-session-id", value);
    }
    Ok(response)
}

/// Answers `server/discover`: the same without a session.
pub(super) async fn discover(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    id: &Id,
) -> Result<Response<Body>, Unanswered> {
    let report = report(context, record, id).await?;
    let _memory = reserve_answer(context, report.about.length(), id, Revision::V2026_07_28)?;
    record_allowed(context, record, id).await?;
    let versions = Revision::OFFERED.map(|revision| format!("\"{}\"", revision.as_str())).join(",");
    let start = format!("{{\"resultType\":\"complete\",\"supportedVersions\":[{versions}],");
    let mut rest = b",\"ttlMs\":0,\"cacheScope\":\"private\"".to_vec();
    write_instructions(&report, &mut rest);
    rest.extend_from_slice(b",\"_meta\":{\"io.modelcontextprotocol/serverInfo\":");
    write_server_info(context, &report, &mut rest);
    rest.extend_from_slice(b"}}");
    Ok(result(id, &[start.as_bytes(), CAPABILITIES, &rest]))
}

/// Returns how the server describes itself and its tools, if the policy is fresh enough for reads.
///
/// A server that starts, restarts or is stopped is described as it was last, or else by its catalogue alone: clients that
/// get an error here give up for as long as they run.
pub(super) async fn report(
    context: &RequestContext<'_>,
    record: &RequestRecord,
    id: &Id,
) -> Result<Arc<Report>, Rejection> {
    context.check_in_force(Class::Read).map_err(|reason| Rejection::denied(id, &Denial::new(reason)))?;
    let upstream = context.policy.upstream(context.view.server_index());
    Ok(upstream.report().await.unwrap_or_else(|error| {
        let server = &context.view.server().name;
        let (call, trace_id) = (record.call, record.trace.trace_id());
        if matches!(error, UpstreamError::NoPod | UpstreamError::Paused) {
            debug!(%error, %call, %trace_id, server, "a server has not given a report yet");
        } else {
            let error: &dyn std::error::Error = &error;
            warn!(error, %call, %trace_id, server, "failed to read the report of a server");
        }
        Report::nothing()
    }))
}

fn write_server_info(context: &RequestContext<'_>, report: &Report, out: &mut Vec<u8>) {
    if let Some(info) = &report.about.server_info {
        return out.extend_from_slice(info);
    }
    out.extend_from_slice(b"{\"name\":");
    write_str(&context.view.server().name, out);
    out.extend_from_slice(b",\"version\":\"unknown\"}");
}

fn write_instructions(report: &Report, out: &mut Vec<u8>) {
    if let Some(instructions) = &report.about.instructions {
        out.extend_from_slice(b",\"instructions\":");
        out.extend_from_slice(instructions);
    }
}
