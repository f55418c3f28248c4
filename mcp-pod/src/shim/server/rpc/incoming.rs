//! Dispatches the lines that the server writes.

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::super::frame::{Frame, id_of_response};
use super::message::{self, Message, NotJsonRpc, Response};
use super::request::RequestOutcome;
use super::{Phase, RpcClient};
use crate::shim::metrics::Dropped;

/// Which responses count on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shim::server) enum Answers {
    Any,
    /// Only the one to this request.
    To(u64),
    None,
}

impl Answers {
    fn include(self, id: u64) -> bool {
        match self {
            Self::Any => true,
            Self::To(only) => id == only,
            Self::None => false,
        }
    }
}

/// Characters of an id that a message shows.
const MAX_SHOWN_ID: usize = 64;
/// Longest progress notification that is passed on, in bytes.
const MAX_PROGRESS: usize = 64 << 10;
/// Room on a line beside the result or error it carries. It also bounds notifications while no request is in flight.
const LINE_OVERHEAD: usize = 64 << 10;

impl RpcClient {
    /// Returns the length in bytes of the longest line that can be of use now.
    pub(in crate::shim::server) fn max_line(&self) -> usize {
        self.pending.lock().max_response() + LINE_OVERHEAD
    }

    /// Handles one line of the server.
    pub(in crate::shim::server) fn dispatch(&self, frame: Frame) -> Result<(), NotJsonRpc> {
        self.dispatch_from(frame, Answers::Any)
    }

    /// Handles one line of the server, of which not every response counts.
    pub(in crate::shim::server) fn dispatch_from(&self, frame: Frame, answers: Answers) -> Result<(), NotJsonRpc> {
        let line = match frame {
            Frame::Line(line) => line,
            Frame::TooLong(id) => {
                if !id.is_some_and(|id| self.complete(id, |_| RequestOutcome::TooLarge)) {
                    self.metrics.dropped(Dropped::TooLong);
                }
                return Ok(());
            }
        };
        let message = message::parse(&line).inspect_err(|_| {
            self.metrics.dropped(Dropped::Garbage);
            if let Some(id) = id_of_response(&line).filter(|id| answers.include(*id)) {
                self.complete(id, |_| RequestOutcome::NotJson);
            }
        })?;
        match message {
            Message::Response { id, response } => {
                let outcome = match response {
                    Response::Result(raw) => RequestOutcome::Result(line.slice_ref(raw.get().as_bytes())),
                    Response::Error(raw) => RequestOutcome::Error(line.slice_ref(raw.get().as_bytes())),
                    Response::Invalid => RequestOutcome::Invalid,
                };
                if !(answers.include(id) && self.complete(id, |max| limit(outcome, max))) {
                    self.stray(&id.to_string());
                }
            }
            Message::Stray { id } => self.stray(id),
            Message::Progress { token, params } => self.progress(token, params),
            Message::Request { id, ping } => self.notify(response_to_server(id.get(), ping)),
            Message::ToolsChanged => self.tools_changed.notify_one(),
            Message::Notification => {}
        }
        Ok(())
    }

    /// Returns whether a request is in flight.
    pub(in crate::shim::server) fn is_pending(&self, id: u64) -> bool {
        self.pending.lock().get(id).is_some()
    }

    /// Returns the length in bytes of the longest message that can answer a request in flight.
    pub(in crate::shim::server) fn max_answer(&self, id: u64) -> usize {
        self.pending.lock().get(id).map_or(0, |request| request.max_response) + LINE_OVERHEAD
    }

    /// Returns a token that is cancelled when the request is no longer in flight.
    pub(in crate::shim::server) fn watch(&self, id: u64) -> CancellationToken {
        self.pending.lock().watch(id)
    }

    /// Ends a request in flight without a line of the server. One that was cancelled need not have an answer.
    pub(in crate::shim::server) fn fail(&self, id: u64, outcome: RequestOutcome) {
        let is_cancelled = self.pending.lock().get(id).is_some_and(|request| request.cancelled);
        let failed = matches!(outcome, RequestOutcome::Failed { .. });
        self.complete(id, |max| if is_cancelled && failed { RequestOutcome::Cancelled } else { limit(outcome, max) });
    }

    /// Lists the tools again.
    pub(in crate::shim::server) fn list_again(&self) {
        self.tools_changed.notify_one();
    }

    /// Handles an answer that nobody waits for. While the server starts, one request is made at a time and none is given up, so it
    /// is meant as the answer to that one.
    fn stray(&self, id: &str) {
        self.metrics.dropped(Dropped::Stray);
        let is_meant = match self.phase() {
            Phase::Connecting | Phase::Initializing => true,
            // Some servers answer notifications.
            Phase::Listing => id != "null",
            Phase::Started => false,
        };
        if is_meant {
            let id: String = id.chars().take(MAX_SHOWN_ID).collect();
            self.pending.lock().fail_all(|| RequestOutcome::OtherId(id.clone()));
        }
    }

    /// Ends the request `id` with the outcome that `outcome` makes for its `max_response`. Returns `false` if no
    /// requester waits for it.
    fn complete(&self, id: u64, outcome: impl FnOnce(usize) -> RequestOutcome) -> bool {
        let request = self.pending.lock().remove(id);
        request.is_some_and(|request| request.outcome.send(outcome(request.max_response)).is_ok())
    }

    fn progress(&self, token: u64, params: &RawValue) {
        let pending = self.pending.lock();
        let Some(sender) = pending.get(token).and_then(|request| request.progress.as_ref()) else {
            return;
        };
        let passed = params.get().len() <= MAX_PROGRESS
            && message::without_token(params).is_some_and(|params| sender.try_send(params.into()).is_ok());
        if !passed {
            self.metrics.dropped(Dropped::Progress);
        }
    }
}

fn limit(outcome: RequestOutcome, max_response: usize) -> RequestOutcome {
    match &outcome {
        RequestOutcome::Result(raw) | RequestOutcome::Error(raw) if raw.len() > max_response => {
            RequestOutcome::TooLarge
        }
        _ => outcome,
    }
}

/// Returns the response to a request of the server. The shim announces no capability, so only `ping` is supported.
fn response_to_server(id: &str, ping: bool) -> Vec<u8> {
    let outcome = if ping { r#""result":{}"# } else { r#""error":{"code":-32601,"message":"Method not found"}"# };
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{outcome}}}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::super::{Outgoing, Params, Request, RequestHandle};
    use super::*;
    use crate::shim::metrics::Metrics;

    fn client() -> (Arc<RpcClient>, mpsc::Receiver<Outgoing>) {
        RpcClient::new(Arc::new(Metrics::new().unwrap()))
    }

    fn request(client: &Arc<RpcClient>, params: Params<'_>) -> RequestHandle {
        client.request(&Request { method: "tools/call", params, max_response: 10 }).unwrap()
    }

    fn line(text: &str) -> Frame {
        Frame::Line(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_response_reaches_the_request_with_its_id() {
        let (client, _lines) = client();
        let mut first = request(&client, Params::Plain(b"{}"));
        let mut second = request(&client, Params::Plain(b"{}"));
        client.dispatch(line(r#"{"jsonrpc":"2.0","id":2,"result":{"a": 1}}"#)).unwrap();
        client.dispatch(line(r#"{"jsonrpc":"2.0","id":1,"error":{}}"#)).unwrap();
        assert!(matches!(second.outcome.try_recv(), Ok(RequestOutcome::Result(raw)) if raw == br#"{"a": 1}"#[..]));
        assert!(matches!(first.outcome.try_recv(), Ok(RequestOutcome::Error(raw)) if raw == b"{}"[..]));
        client.dispatch(line(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#)).unwrap();
        assert_eq!(client.in_flight(), 0, "the second response was ignored");
    }

    #[test]
    fn a_response_above_the_limit_is_withheld() {
        let (client, _lines) = client();
        let mut short = request(&client, Params::Plain(b"{}"));
        let mut long = request(&client, Params::Plain(b"{}"));
        client.dispatch(line(r#"{"jsonrpc":"2.0","id":1,"result":{"text":"too long"}}"#)).unwrap();
        client.dispatch(Frame::TooLong(Some(2))).unwrap();
        assert!(matches!(short.outcome.try_recv(), Ok(RequestOutcome::TooLarge)));
        assert!(matches!(long.outcome.try_recv(), Ok(RequestOutcome::TooLarge)));
    }

    #[test]
    fn progress_reaches_only_the_request_that_asked_for_it() {
        let (client, _lines) = client();
        let mut quiet = request(&client, Params::Plain(b"{}"));
        let mut asked = request(&client, Params::WithToken(b"{\"token\":", b"}"));
        for token in [1, 2, 3] {
            let params = format!(r#"{{"progressToken":{token},"progress":1}}"#);
            let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#);
            client.dispatch(line(&text)).unwrap();
        }
        assert!(quiet.progress.is_none() && quiet.outcome.try_recv().is_err());
        let mut updates = asked.progress.take().unwrap();
        assert_eq!(updates.try_recv().unwrap(), &br#"{"progress":1}"#[..]);
        assert!(updates.try_recv().is_err());
    }

    #[test]
    fn the_server_may_only_ping() {
        let (client, mut lines) = client();
        client.dispatch(line(r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#)).unwrap();
        client.dispatch(line(r#"{"jsonrpc":"2.0","id":"b","method":"roots/list"}"#)).unwrap();
        assert_eq!(lines.try_recv().unwrap().line, b"{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"result\":{}}\n");
        let refused = String::from_utf8(lines.try_recv().unwrap().line).unwrap();
        assert!(refused.contains(r#""id":"b","error":{"code":-32601"#), "{refused}");
    }

    #[test]
    fn a_line_that_is_not_json_rpc_is_reported() {
        let (client, _lines) = client();
        assert!(client.dispatch(line("Server started")).is_err());
        assert!(client.dispatch(Frame::TooLong(None)).is_ok(), "a long line may have been JSON-RPC");
    }
}
