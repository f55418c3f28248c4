//! One call: the envelope in, the server's answer or a refusal out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use mcp_fleet_policy::reason::Reason;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::metrics::{CallOutcome, Metrics};
use super::paths;
use super::server::Server;
use super::server::link::{Answer, Full, Params, Request, Ticket};
use crate::envelope::{CallHeader, Refusal, ShimEvent, VERSION};

/// Upper bounds of what a header may ask for.
const LONGEST: Duration = Duration::from_secs(3600);
const LARGEST: u64 = 64 << 20;
const METHOD: &str = "tools/call";

/// The envelope does not say what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadEnvelope {
    #[error("failed to read the header line")]
    Header(#[from] serde_json::Error),
    #[error("failed to use the header: version {0}, not {VERSION}")]
    Version(u32),
    #[error("failed to read the params: they are not one line of JSON in UTF-8")]
    Params,
}

/// What to answer over HTTP.
pub(super) enum Reply {
    /// All of it.
    Whole(Bytes),
    /// Progress first, as it comes.
    Events(UnsyncBoxBody<Bytes, Infallible>),
}

/// Counts how the call ended, also when the caller goes away first.
struct Outcome {
    metrics: Arc<Metrics>,
    ended: CallOutcome,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.metrics.ended(self.ended);
    }
}

/// Makes the call.
pub(super) async fn call(server: &Server, metrics: &Arc<Metrics>, body: Bytes) -> Result<Reply, BadEnvelope> {
    let arrived = Instant::now();
    let (header, params) = split(&body)?;
    let deadline = arrived + Duration::from_millis(header.timeout_ms).min(LONGEST);
    let max_answer = usize::try_from(header.max_response.min(LARGEST)).unwrap_or(usize::MAX);
    let mut outcome = Outcome { metrics: Arc::clone(metrics), ended: CallOutcome::Abandoned };

    match timeout_at(deadline, paths::check(header.paths)).await {
        Ok(Ok(())) => {}
        Ok(Err(paths::Outside)) => {
            let detail = "a path leads out of the granted roots, or through a link";
            return Ok(Reply::Whole(outcome.refuse(Reason::PathOutsideRoots, detail, false)));
        }
        Err(_) => {
            let detail = "the paths could not be resolved in time";
            return Ok(Reply::Whole(outcome.refuse(Reason::UpstreamTimeout, detail, false)));
        }
    }
    let ticket = {
        let now = server.now();
        let Some(ready) = &now.ready else {
            return Ok(Reply::Whole(outcome.refuse(Reason::UpstreamUnavailable, &now.why, false)));
        };
        let with_token = header.progress.then(|| token_place(params)).transpose()?;
        let params = match &with_token {
            None => Params::Plain(params),
            Some((before, after)) => Params::WithToken(before.as_bytes(), after.as_bytes()),
        };
        ready.link.ask(&Request { method: METHOD, params, max_answer })
    };
    let mut ticket = match ticket {
        Ok(ticket) => ticket,
        Err(full) => {
            let detail = match full {
                Full::Closed => "the server is restarting",
                Full::Busy => "the server does not keep up with its calls",
            };
            return Ok(Reply::Whole(outcome.refuse(Reason::UpstreamUnavailable, detail, false)));
        }
    };
    if header.progress {
        return Ok(Reply::Events(events(ticket, deadline, outcome)));
    }
    let answer = match timeout_at(deadline, &mut ticket.answer).await {
        Ok(answer) => answer.ok(),
        Err(_) => return Ok(Reply::Whole(outcome.timed_out(&mut ticket))),
    };
    Ok(Reply::Whole(outcome.answered(answer)))
}

/// Header and params of the two lines. What is inside the params is the gateway's business; that they are one line is
/// what keeps them from being two messages to the server. Some servers end lines at a bare carriage return.
fn split(body: &[u8]) -> Result<(CallHeader, &[u8]), BadEnvelope> {
    let end = memchr::memchr(b'\n', body).ok_or(BadEnvelope::Params)?;
    let (header, params) = body.split_at(end);
    let params = params.strip_prefix(b"\n").unwrap_or(params);
    let params = params.strip_suffix(b"\n").unwrap_or(params);
    let header: CallHeader = serde_json::from_slice(header)?;
    if header.version != VERSION {
        return Err(BadEnvelope::Version(header.version));
    }
    let one_line = memchr::memchr2(b'\n', b'\r', params).is_none() && std::str::from_utf8(params).is_ok();
    if !one_line || !params.starts_with(b"{") || !params.ends_with(b"}") {
        return Err(BadEnvelope::Params);
    }
    Ok((header, params))
}

/// The params with a progress token in their `_meta`, cut where the token goes. Any token in there is replaced: the
/// caller's own means nothing to this server.
fn token_place(params: &[u8]) -> Result<(String, String), BadEnvelope> {
    type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;
    let mut members: Members<'_> = serde_json::from_slice(params)?;
    let mut meta: Members<'_> = match members.remove("_meta") {
        Some(meta) => serde_json::from_str(meta.get())?,
        None => Members::new(),
    };
    meta.remove("progressToken");
    let members = serde_json::to_string(&members)?;
    let meta = serde_json::to_string(&meta)?;
    let rest = |object: &str| match object.strip_prefix('{') {
        Some("}") | None => "}".to_owned(),
        Some(members) => format!(",{members}"),
    };
    Ok((r#"{"_meta":{"progressToken":"#.to_owned(), format!("{}{}", rest(&meta), rest(&members))))
}

/// Progress as it comes, then the answer. Dropped when the connection is.
fn events(ticket: Ticket, deadline: Instant, outcome: Outcome) -> UnsyncBoxBody<Bytes, Infallible> {
    let frames = stream::unfold(Some((ticket, outcome)), move |state| async move {
        let (mut ticket, mut outcome) = state?;
        let progress = async {
            match &mut ticket.progress {
                Some(updates) => updates.recv().await,
                None => None,
            }
        };
        tokio::select! {
            biased;
            Some(params) = progress => {
                let line = event("progress", &params);
                Some((Ok(Frame::data(line)), Some((ticket, outcome))))
            }
            answer = &mut ticket.answer => Some((Ok(Frame::data(outcome.answered(answer.ok()))), None)),
            () = sleep_until(deadline) => Some((Ok(Frame::data(outcome.timed_out(&mut ticket))), None)),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

impl Outcome {
    fn answered(&mut self, answer: Option<Answer>) -> Bytes {
        let (reason, detail, forwarded) = match answer {
            Some(Answer::Result(result)) => {
                self.ended = CallOutcome::Answered;
                return event("result", &result);
            }
            Some(Answer::Error(error)) => {
                self.ended = CallOutcome::Answered;
                return event("error", &error);
            }
            Some(Answer::TooLarge) => (Reason::ResponseTooLarge, "the answer is larger than the limit", true),
            Some(Answer::Invalid) => {
                (Reason::UpstreamInvalid, "the answer has not exactly one of result and error, an object", true)
            }
            Some(Answer::Gone { forwarded }) => {
                (Reason::UpstreamUnavailable, "the server ended before it answered", forwarded)
            }
            // The link drops no request without an answer; if it ever did, nobody knows what became of it.
            None => (Reason::UpstreamUnavailable, "the call was lost", true),
        };
        self.refuse(reason, detail, forwarded)
    }

    fn timed_out(&mut self, ticket: &mut Ticket) -> Bytes {
        ticket.reason = "timed out";
        self.refuse(Reason::UpstreamTimeout, "the server did not answer in time", ticket.forwarded())
    }

    fn refuse(&mut self, reason: Reason, detail: &str, forwarded: bool) -> Bytes {
        self.ended = if forwarded { CallOutcome::Failed } else { CallOutcome::Refused };
        let refusal = Refusal { reason: reason.as_str().to_owned(), detail: detail.to_owned(), forwarded };
        let mut line = serde_json::to_vec(&ShimEvent::Refused(refusal)).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }
}

/// A line of the answer around what the server wrote, which is one line already.
fn event(name: &str, value: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(name.len() + value.len() + 6);
    line.extend_from_slice(b"{\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    line.extend_from_slice(value);
    line.extend_from_slice(b"}\n");
    line.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HEADER: &str = r#"{"version":1,"call":"c","principal":"p","timeoutMs":1,"maxResponse":1,"progress":false}"#;

    #[test]
    fn the_envelope_is_two_lines_and_nothing_else() {
        let split =
            |body: String| split(body.as_bytes()).map(|(_, params)| String::from_utf8_lossy(params).into_owned());
        assert_eq!(split(format!("{HEADER}\n{{}}\n")).unwrap(), "{}");
        assert_eq!(split(format!("{HEADER}\n{{}}")).unwrap(), "{}");
        for bad in [
            format!("{HEADER}\n"),
            HEADER.to_owned(),
            format!("{HEADER}\n{{}}\n{{}}\n"),
            format!("{HEADER}\n{{\r}}\n"),
            format!("{HEADER}\n[]\n"),
            format!("{}\n{{}}\n", HEADER.replace("\"version\":1", "\"version\":2")),
            format!("{}\n{{}}\n", HEADER.replace("\"call\"", "\"surprise\":1,\"call\"")),
        ] {
            assert!(split(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_written_by_hand_are_the_events_of_the_envelope() {
        let read = |line: Bytes| serde_json::from_slice::<ShimEvent>(&line).unwrap();
        let raw = br#"{"n": 1.50}"#;
        assert!(matches!(read(event("result", raw)), ShimEvent::Result(value) if value.get().as_bytes() == raw));
        assert!(matches!(read(event("error", raw)), ShimEvent::Error(value) if value.get().as_bytes() == raw));
        assert!(matches!(read(event("progress", raw)), ShimEvent::Progress(value) if value.get().as_bytes() == raw));
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut outcome = Outcome { metrics, ended: CallOutcome::Abandoned };
        let line = outcome.refuse(Reason::PathOutsideRoots, "why", false);
        assert!(matches!(read(line), ShimEvent::Refused(refusal) if refusal.reason == "path_outside_roots"));
    }

    #[test]
    fn a_progress_token_of_our_own_replaces_any_other() {
        for (params, expected) in [
            ("{}", r#"{"_meta":{"progressToken":#}}"#),
            (r#"{"name":"a"}"#, r#"{"_meta":{"progressToken":#},"name":"a"}"#),
            (
                r#"{"name":"a","_meta":{"x":1,"progressToken":"p"}}"#,
                r#"{"_meta":{"progressToken":#,"x":1},"name":"a"}"#,
            ),
        ] {
            let (before, after) = token_place(params.as_bytes()).unwrap();
            assert_eq!(format!("{before}#{after}"), expected);
        }
    }
}
