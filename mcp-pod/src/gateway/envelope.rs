//! The two lines that a call travels in to the shim.

use bytes::{BufMut as _, Bytes, BytesMut};
use mcp_fleet_policy::json::write_str;
use mcp_fleet_policy::rules::PathUse;
use ulid::Ulid;

use super::decode::Trace;
use super::granted::Granted;
use crate::envelope::{CallHeader, PathCheck, VERSION};

/// The lines, and the arguments in them.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) whole: Bytes,
    pub(crate) arguments: Bytes,
}

/// Writes header and parameters. `arguments` is JSON written anew from what was validated, so that the server cannot
/// read it differently.
pub(crate) fn lines(
    granted: &Granted,
    call: Ulid,
    paths: &[PathUse<'_, '_>],
    progress: bool,
    arguments: &[u8],
    trace: &Trace<'_>,
) -> Lines {
    let header = CallHeader {
        version: VERSION,
        call: call.to_string(),
        principal: granted.principal_uid.clone(),
        timeout_ms: u64::try_from(granted.timeout.as_millis()).unwrap_or(u64::MAX),
        max_response: granted.max_response,
        progress,
        paths: paths
            .iter()
            .map(|path| PathCheck { value: path.value.to_owned(), within: path.within.to_vec() })
            .collect(),
    };
    let mut out = BytesMut::with_capacity(arguments.len() + 384);
    // A struct of strings and numbers can always be written; were it not so, the shim would refuse an empty line.
    let _ = serde_json::to_writer((&mut out).writer(), &header);
    let mut params = Vec::with_capacity(arguments.len() + 192);
    params.extend_from_slice(b"\n{\"name\":");
    write_str(&granted.facts.tool, &mut params);
    params.extend_from_slice(b",\"arguments\":");
    let start = out.len() + params.len();
    params.extend_from_slice(arguments);
    if !trace.is_empty() {
        params.extend_from_slice(b",\"_meta\":{");
        let members = [("traceparent", &trace.parent), ("tracestate", &trace.state)];
        for (name, value) in members.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            if params.last() != Some(&b'{') {
                params.push(b',');
            }
            write_str(name, &mut params);
            params.push(b':');
            write_str(value, &mut params);
        }
        params.push(b'}');
    }
    params.extend_from_slice(b"}\n");
    out.extend_from_slice(&params);
    let whole = out.freeze();
    Lines { arguments: whole.slice(start..start + arguments.len()), whole }
}
