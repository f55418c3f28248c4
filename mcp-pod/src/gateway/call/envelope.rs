//! The two lines that a call travels in to the shim.

use bytes::Bytes;
use mcp_fleet_policy::json::{Value, write, write_str};
use mcp_fleet_policy::rules::PathUse;
use ulid::Ulid;

use crate::envelope::{CallHeader, PathCheck, VERSION};
use crate::gateway::policy::ToolGrant;
use crate::gateway::request::Trace;

/// The lines, and the arguments in them.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) whole: Bytes,
    pub(crate) arguments: Bytes,
}

/// What a call is written from.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) id: Ulid,
    pub(crate) paths: &'a [PathUse<'a, 'a>],
    pub(crate) progress: bool,
    /// As they were validated.
    pub(crate) arguments: Option<&'a Value<'a>>,
    pub(crate) trace: &'a Trace<'a>,
    /// About how long the arguments are: so much is reserved for them.
    pub(crate) length: usize,
}

/// Writes the arguments anew from what was validated, so that the server cannot read them differently.
pub(crate) fn write_arguments(arguments: Option<&Value<'_>>, out: &mut Vec<u8>) {
    match arguments {
        Some(arguments) => write(arguments, out),
        None => out.extend_from_slice(b"{}"),
    }
}

/// Writes header and parameters.
pub(crate) fn lines(grant: &ToolGrant, call: &Call<'_>) -> Lines {
    let Call { id, paths, progress, arguments, trace, length } = *call;
    let header = CallHeader {
        version: VERSION,
        call: id.to_string(),
        principal: grant.subject.principal_uid.to_string(),
        timeout_ms: u64::try_from(grant.timeout.as_millis()).unwrap_or(u64::MAX),
        max_response: grant.max_response,
        progress,
        paths: paths
            .iter()
            .map(|path| PathCheck { value: path.value.to_owned(), within: path.within.to_vec() })
            .collect(),
    };
    let mut out = Vec::with_capacity(length + length / 16 + 512);
    // A struct of strings and numbers can always be written; were it not so, the shim would refuse an empty line.
    let _ = serde_json::to_writer(&mut out, &header);
    out.extend_from_slice(b"\n{\"name\":");
    write_str(grant.subject.tool.known(), &mut out);
    out.extend_from_slice(b",\"arguments\":");
    let start = out.len();
    write_arguments(arguments, &mut out);
    let arguments = start..out.len();
    write_trace(trace, &mut out);
    out.extend_from_slice(b"}\n");
    let whole = Bytes::from(out);
    Lines { arguments: whole.slice(arguments), whole }
}

fn write_trace(trace: &Trace<'_>, out: &mut Vec<u8>) {
    let members = [("traceparent", &trace.parent), ("tracestate", &trace.state)];
    let mut opened = false;
    for (name, value) in members.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        out.extend_from_slice(if opened { b"," } else { b",\"_meta\":{" });
        opened = true;
        write_str(name, out);
        out.push(b':');
        write_str(value, out);
    }
    if opened {
        out.push(b'}');
    }
}
