//! One call: parses the envelope, checks its paths, sends the request and returns the events.

mod cancellation;
mod events;
mod parse;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use mcp_fleet_policy::reason::Reason;
use mcp_fleet_policy::units::limits::{CALL_TIMEOUT, RESPONSE_SIZE};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::metrics::Metrics;
use super::paths;
use super::server::Supervisor;
use super::server::rpc::{Params, QueueError, Request, RequestHandle};
use cancellation::CallInFlight;
use events::CallRecorder;
use parse::{split, split_at_token, with_meta};

pub(super) use cancellation::CallsInFlight;
pub(super) use parse::EnvelopeRejection;

const METHOD: &str = "tools/call";
/// Why a call is refused that was cancelled before its server saw it.
const CANCELLED: &str = "the call was cancelled before the server saw it";

/// The events of a call, as the body of an HTTP response.
pub(super) enum Events {
    Complete(Bytes),
    /// Progress as it arrives, then the last event.
    Streaming(UnsyncBoxBody<Bytes, Infallible>),
}

/// Makes the call that `body` describes.
pub(super) async fn call(
    supervisor: &Supervisor,
    metrics: &Arc<Metrics>,
    calls: &Arc<CallsInFlight>,
    body: Bytes,
) -> Result<Events, EnvelopeRejection> {
    let arrived = Instant::now();
    let (header, params) = split(&body)?;
    let deadline = arrived + Duration::from_millis(header.timeout_ms).min(CALL_TIMEOUT.max.get());
    let max_response = usize::try_from(header.max_response.min(RESPONSE_SIZE.max.get())).unwrap_or(usize::MAX);
    let mut recorder = CallRecorder::new(Arc::clone(metrics));
    let mut call = calls.enter(header.call);

    match timeout_at(deadline, paths::check(header.paths)).await {
        Ok(Ok(())) => {}
        Ok(Err(rejection)) => {
            let detail = rejection.to_string();
            return Ok(Events::Complete(recorder.refuse(Reason::PathOutsideRoots, &detail, false)));
        }
        Err(_) => {
            let detail = "the paths could not be resolved in time";
            return Ok(Events::Complete(recorder.refuse(Reason::UpstreamTimeout, detail, false)));
        }
    }
    if call.cancelled.is_cancelled() {
        return Ok(Events::Complete(recorder.refuse(Reason::Cancelled, CANCELLED, false)));
    }
    call.needed = Some(supervisor.enter());
    let started = tokio::select! {
        biased;
        started = supervisor.started(body.len()) => started,
        () = call.cancelled.cancelled() => {
            return Ok(Events::Complete(recorder.refuse(Reason::Cancelled, CANCELLED, false)));
        }
        () = sleep_until(deadline) => return Ok(Events::Complete(recorder.refuse_while_starting())),
    };
    if started.is_err() {
        let detail = "too many bytes of calls wait for the server to start";
        return Ok(Events::Complete(recorder.refuse(Reason::UpstreamUnavailable, detail, false)));
    }
    let handle = {
        let status = supervisor.status();
        let Some(ready) = &status.ready else {
            return Ok(Events::Complete(recorder.refuse(Reason::UpstreamUnavailable, &status.message, false)));
        };
        let meta = ready.client.meta();
        let (with_token, changed);
        let params = if header.progress {
            with_token = split_at_token(params, meta)?;
            Params::WithToken(with_token.0.as_bytes(), with_token.1.as_bytes())
        } else if meta.is_empty() {
            Params::Plain(params)
        } else {
            changed = with_meta(params, meta)?;
            Params::Plain(changed.as_bytes())
        };
        ready.client.request(&Request { method: METHOD, params, max_response })
    };
    let mut handle = match handle {
        Ok(handle) => handle,
        Err(error) => {
            let detail = match error {
                QueueError::ServerEnded => "the server is restarting",
                QueueError::Full => "the server does not keep up with its calls",
            };
            return Ok(Events::Complete(recorder.refuse(Reason::UpstreamUnavailable, detail, false)));
        }
    };
    // The request has its own copy in the queue. A call may wait for long, and its body is up to 20 MiB.
    drop(body);
    if header.progress {
        return Ok(Events::Streaming(stream_events(handle, deadline, recorder, call)));
    }
    Ok(Events::Complete(last_event(&mut handle, deadline, &mut recorder, &call).await))
}

/// Waits for the end of a request and returns the last event of its call. Can be dropped and called again.
async fn last_event(
    handle: &mut RequestHandle,
    deadline: Instant,
    recorder: &mut CallRecorder,
    call: &CallInFlight,
) -> Bytes {
    loop {
        tokio::select! {
            biased;
            outcome = &mut handle.outcome => return recorder.finish(outcome.ok()),
            () = call.cancelled.cancelled(), if !handle.cancelled() => {
                // The server may answer or not, and may work on in any case: the call ends when it answers.
                if !handle.cancel() {
                    return recorder.refuse(Reason::Cancelled, CANCELLED, false);
                }
            }
            () = sleep_until(deadline) => return recorder.time_out(handle),
        }
    }
}

/// Returns the body that streams progress and then the last event. Closing the connection drops it, which cancels the
/// request.
fn stream_events(
    handle: RequestHandle,
    deadline: Instant,
    recorder: CallRecorder,
    call: CallInFlight,
) -> UnsyncBoxBody<Bytes, Infallible> {
    let frames = stream::unfold(Some((handle, recorder, call)), move |state| async move {
        let (mut handle, mut recorder, call) = state?;
        loop {
            let mut updates = handle.progress.take();
            let progress = async {
                match &mut updates {
                    Some(updates) => updates.recv().await,
                    None => None,
                }
            };
            let last = tokio::select! {
                biased;
                Some(params) = progress => {
                    if let Some(line) = recorder.progress(&params) {
                        handle.progress = updates;
                        return Some((Ok(Frame::data(line)), Some((handle, recorder, call))));
                    }
                    // Without a receiver, later progress is dropped where it arrives.
                    continue;
                }
                last = last_event(&mut handle, deadline, &mut recorder, &call) => last,
            };
            return Some((Ok(Frame::data(last)), None));
        }
    });
    StreamBody::new(frames).boxed_unsync()
}
