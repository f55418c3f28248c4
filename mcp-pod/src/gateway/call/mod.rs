//! `tools/call`, from its parameters to its settlement.
//!
//! Start with [`call`]. [`mod@admit`] decides about the call and reserves what it needs, [`mod@watch`] looks for loops,
//! [`envelope`] writes it for the shim ([`built_in`] answers calls of built-in tools), [`forward`] hands it over and
//! [`running`] reads the answer, also if the client has gone. [`finish`] checks the
//! answer ([`answer`]) and settles the call ([`settle`]), however it ended.

mod admit;
mod answer;
mod built_in;
mod envelope;
mod finish;
mod forward;
mod mend;
mod outcome;
mod running;
mod settle;
mod watch;

use http::{Response, StatusCode};
use mcp_fleet_policy::built_in::BuiltIn;
use mcp_fleet_policy::denial::escape_name;
use mcp_fleet_policy::json::{Members, Value};
use tracing::{Instrument as _, Span, debug_span};

use super::audit::RequestRecord;
use super::request::{CallParams, Id, ParamsError, Revision};
use super::respond::{Body, Failure, Rejection, denied_call, error, result};
use super::state::{LegacySession, RequestContext, Unanswered};
use admit::{Admitted, NotAdmitted, admit};
use envelope::{Call, write_arguments, write_envelope};
use forward::{Forward, Outdated};
use settle::Settlement;
use watch::Looping;

/// Handles one `tools/call`. `session` is the legacy session in which it can be cancelled.
pub(crate) async fn call(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    revision: Revision,
    id: Id,
    params: Members<'_>,
    session: Option<LegacySession>,
) -> Result<Response<Body>, Unanswered> {
    let params = CallParams::read(params, context.trace_state)
        .map_err(|ParamsError(text)| Rejection::invalid_params(&id, &format!("Invalid params: {text}")))?;
    let (tenant, server) = (&context.policy.tenant_policy().tenant, context.view.server());
    let tool = || server.tool_on_wire(&params.name).map_or(&*params.name, |tool| &tool.name);
    let span = span(record, tenant, &server.name, tool);
    run(context, record, revision, id, params, session, span.clone()).instrument(span).await
}

/// Returns the span of one call, whose fields are on every log line about the call.
///
/// At the default level INFO the span is disabled and costs nothing; lines of that level name the call themselves.
fn span<'a>(record: &RequestRecord, tenant: &str, server: &str, tool: impl Fn() -> &'a str) -> Span {
    let RequestRecord { call, trace, .. } = record;
    let (trace_id, span_id) = (trace.trace_id(), trace.span_id());
    debug_span!("call", %call, %trace_id, %span_id, tenant, server, tool = %escape_name(tool()))
}

async fn run(
    context: &RequestContext<'_>,
    record: &mut RequestRecord,
    revision: Revision,
    id: Id,
    mut params: CallParams<'_>,
    session: Option<LegacySession>,
    span: Span,
) -> Result<Response<Body>, Unanswered> {
    record.built_in = BuiltIn::from_name(&params.name).filter(|_| context.policy.tenant_policy().built_in_tools);
    if let Some(arguments) = params.arguments.as_mut().filter(|arguments| arguments.has_null()) {
        match (record.built_in, context.view.tool(&params.name)) {
            (Some(tool), _) => tool.leave_out_nulls(arguments),
            (None, Ok(access)) => access.leave_out_nulls(arguments),
            (None, Err(_)) => {}
        }
    }
    let arguments = params.arguments.as_ref();
    if let Some(tool) = record.built_in {
        return built_in::call(context, record, revision, &id, tool, arguments).await;
    }
    let Admitted { grant, paths, resources, watched, admission } = match admit(context, &params.name, arguments).await {
        Ok(admitted) => admitted,
        Err(not_admitted) => {
            record.arguments = digest(context, arguments);
            if let NotAdmitted::Looping(Looping { kind, .. }) = &not_admitted {
                record.looping = Some(*kind);
            }
            let unanswered = reject(not_admitted, &id, revision, &params.name);
            record.tool = Some(params.name.into_owned());
            return Err(unanswered);
        }
    };
    let progress_token = params.progress.filter(|_| context.events);
    let envelope = write_envelope(
        &grant,
        &Call {
            id: record.call,
            paths: &paths,
            progress: progress_token.is_some(),
            arguments,
            trace: record.trace,
            trace_state: params.trace_state.as_deref(),
            length: context.length,
        },
    );
    let mut settlement = Settlement {
        state: context.state.clone(),
        grant,
        revision,
        started: record.started,
        call: record.call,
        trace: record.trace,
        arguments: envelope.arguments,
        digest: None,
        handed_over: None,
        watched,
        resources: Some(resources),
    };
    let cancellable = session.map(|session| context.state.legacy_calls.enter(session, id.clone()));
    let forward = Forward {
        envelope: envelope.whole,
        id,
        events: context.events,
        session,
        progress_token,
        cancellable,
        record: settlement.record_admission(),
        admission,
        settlement,
        span,
    };
    record.admitted = true;
    forward.run().await.map_err(|Outdated(settlement)| {
        record.admitted = false;
        settlement.withdraw();
        Unanswered::Outdated
    })
}

/// Returns the keyed digest of the arguments of a call that is not forwarded, if they can be read.
fn digest(context: &RequestContext<'_>, arguments: Option<&Value<'_>>) -> Option<[u8; 32]> {
    if context.unreadable.is_some() {
        return None;
    }
    let mut written = Vec::new();
    write_arguments(arguments, &mut written);
    Some(context.policy.argument_key.digest(&written))
}

fn reject(not_admitted: NotAdmitted, id: &Id, revision: Revision, tool: &str) -> Unanswered {
    let rejection = match not_admitted {
        NotAdmitted::UnknownTool(reason) => {
            let text = format!("Unknown tool: {}", escape_name(tool));
            let failure = Failure { status: StatusCode::OK, code: -32602, message: &text, data: None };
            Rejection::new(reason, error(Some(id), &failure))
        }
        NotAdmitted::Denied(denial) | NotAdmitted::Looping(Looping { denial, .. }) => {
            let response = result(id, &[&denied_call(&denial, !revision.is_legacy())]);
            Rejection::new(denial.reason, response)
        }
        NotAdmitted::Elsewhere => return Unanswered::Elsewhere,
    };
    rejection.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read as _;

    use std::time::Instant;

    use tracing::Level;
    use ulid::Ulid;

    use super::*;

    #[test]
    fn log_lines_about_a_call_carry_its_fields() {
        let mut log = tempfile::tempfile().unwrap();
        let writer = log.try_clone().unwrap();
        let subscriber = tracing_subscriber::fmt().json().with_max_level(Level::DEBUG).with_writer(writer).finish();
        let call = Ulid::from_parts(0, 7);
        tracing::subscriber::with_default(subscriber, || {
            let record = RequestRecord::new(Instant::now(), call, "/files/mcp", None);
            span(&record, "acme", "files", || "read").in_scope(|| tracing::warn!("something"));
        });
        std::io::Seek::rewind(&mut log).unwrap();
        let mut line = String::new();
        log.read_to_string(&mut line).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let fields = serde_json::json!({
            "name": "call", "call": call.to_string(), "trace_id": format!("{:032x}", u128::from(call)),
            "span_id": "0000000000000007", "tenant": "acme", "server": "files", "tool": "read",
        });
        assert_eq!(line["span"], fields);
    }
}
