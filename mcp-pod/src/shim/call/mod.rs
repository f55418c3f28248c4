//! One call: parses the envelope, checks its paths, sends the request and returns the events.

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
use events::CallRecorder;
use parse::{split, split_at_token};

pub(super) use parse::EnvelopeRejection;

const METHOD: &str = "tools/call";

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
    body: Bytes,
) -> Result<Events, EnvelopeRejection> {
    let arrived = Instant::now();
    let (header, params) = split(&body)?;
    let deadline = arrived + Duration::from_millis(header.timeout_ms).min(CALL_TIMEOUT.max.get());
    let max_response = usize::try_from(header.max_response.min(RESPONSE_SIZE.max.get())).unwrap_or(usize::MAX);
    let mut recorder = CallRecorder::new(Arc::clone(metrics));

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
    let handle = {
        let status = supervisor.status();
        let Some(ready) = &status.ready else {
            return Ok(Events::Complete(recorder.refuse(Reason::UpstreamUnavailable, &status.message, false)));
        };
        let with_token = header.progress.then(|| split_at_token(params)).transpose()?;
        let params = match &with_token {
            None => Params::Plain(params),
            Some((before, after)) => Params::WithToken(before.as_bytes(), after.as_bytes()),
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
        return Ok(Events::Streaming(stream_events(handle, deadline, recorder)));
    }
    let outcome = match timeout_at(deadline, &mut handle.outcome).await {
        Ok(outcome) => outcome.ok(),
        Err(_) => return Ok(Events::Complete(recorder.time_out(&mut handle))),
    };
    Ok(Events::Complete(recorder.finish(outcome)))
}

/// Returns the body that streams progress and then the last event. Closing the connection drops it, which cancels the
/// request.
fn stream_events(handle: RequestHandle, deadline: Instant, recorder: CallRecorder) -> UnsyncBoxBody<Bytes, Infallible> {
    let frames = stream::unfold(Some((handle, recorder)), move |state| async move {
        let (mut handle, mut recorder) = state?;
        loop {
            let progress = async {
                match &mut handle.progress {
                    Some(updates) => updates.recv().await,
                    None => None,
                }
            };
            let last = tokio::select! {
                biased;
                Some(params) = progress => {
                    if let Some(line) = recorder.progress(&params) {
                        return Some((Ok(Frame::data(line)), Some((handle, recorder))));
                    }
                    // Without a receiver, later progress is dropped where it arrives.
                    handle.progress = None;
                    continue;
                }
                outcome = &mut handle.outcome => recorder.finish(outcome.ok()),
                () = sleep_until(deadline) => recorder.time_out(&mut handle),
            };
            return Some((Ok(Frame::data(last)), None));
        }
    });
    StreamBody::new(frames).boxed_unsync()
}
