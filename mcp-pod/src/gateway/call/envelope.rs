//! Writes the two lines in which a call travels to the shim ([`crate::envelope`]).

use bytes::Bytes;
use mcp_fleet_policy::json::{Value, write, write_str};
use mcp_fleet_policy::rules::PathArgument;
use ulid::Ulid;

use crate::envelope::{CallHeader, PathCheck, VERSION};
use crate::gateway::memory;
use crate::gateway::policy::ToolGrant;
use crate::gateway::trace::{TraceContext, write_meta};

/// Longest envelope whose memory is not counted. It is part of what connections have reserved.
const UNCOUNTED: usize = 4096;

/// The two lines, and the arguments in them.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) whole: Bytes,
    pub(super) arguments: Bytes,
}

/// Contents of the envelope that differ between the calls of one tool.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) id: Ulid,
    pub(super) paths: &'a [PathArgument<'a, 'a>],
    /// Whether the caller wants progress.
    pub(super) progress: bool,
    /// Arguments as they were validated.
    pub(super) arguments: Option<&'a Value<'a>>,
    /// The gateway's span, which is the parent of the server's.
    pub(super) trace: TraceContext,
    pub(super) trace_state: Option<&'a str>,
    /// Length of the caller's message in bytes: an estimate of the length of the envelope.
    pub(super) length: usize,
}

/// Serializes the validated arguments again instead of copying the caller's text, so that the server cannot read them
/// differently.
pub(super) fn write_arguments(arguments: Option<&Value<'_>>, out: &mut Vec<u8>) {
    match arguments {
        Some(arguments) => write(arguments, out),
        None => out.extend_from_slice(b"{}"),
    }
}

/// Writes the header line and the line of parameters.
pub(super) fn write_envelope(grant: &ToolGrant, call: &Call<'_>) -> Envelope {
    let Call { id, paths, progress, arguments, trace, trace_state, length } = *call;
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
    // Serializing strings and numbers cannot fail. If it did, the shim would refuse the empty line.
    let _ = serde_json::to_writer(&mut out, &header);
    out.extend_from_slice(b"\n{\"name\":");
    write_str(grant.subject.tool.known(), &mut out);
    out.extend_from_slice(b",\"arguments\":");
    let start = out.len();
    write_arguments(arguments, &mut out);
    let arguments = start..out.len();
    write_meta(trace, trace_state, &mut out);
    out.extend_from_slice(b"}\n");
    let mut whole = Bytes::from(out);
    if whole.len() > UNCOUNTED {
        // The envelope can outlive the request: a legacy call goes on without its client.
        whole = memory::count(&grant.account, whole);
    }
    Envelope { arguments: whole.slice(arguments), whole }
}
