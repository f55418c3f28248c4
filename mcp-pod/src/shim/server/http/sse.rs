//! HTTP with SSE (MCP 2024-11-05): all messages of the server are in one event stream, of which the first event says where
//! messages to the server go.

use std::sync::Arc;

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::super::rpc::{Answers, Outgoing, Phase, RequestOutcome, Sent};
use super::events::{Events, Found};
use super::exchange::{ExchangeError, MAX_EVENT};
use super::{ACCEPT_TIMEOUT, HttpEnd, Server, next};

/// Messages that the server may leave unread before it gets no more replies to its requests.
const MAX_UNREAD: usize = 64;
/// The event that says where messages go.
const MESSAGE_PATH: &str = "endpoint";

/// Exchanges messages with a server until the client is closed, or the stream ends.
pub(super) async fn run(server: Arc<Server>, mut queue: mpsc::Receiver<Outgoing>) -> HttpEnd {
    let rpc = Arc::clone(&server.rpc);
    let connecting = async {
        let mut stream = Stream::open(&server).await?;
        let path = stream.message_path(&server).await?;
        Ok((stream, path))
    };
    let (stream, path) = tokio::select! {
        biased;
        () = rpc.closed() => return HttpEnd::Stopped,
        connected = connecting => match connected {
            Ok(connected) => connected,
            Err(end) => return end,
        },
    };
    let mut tasks = JoinSet::new();
    let reading = Arc::clone(&server);
    tasks.spawn(async move { Some(stream.read(&reading).await) });
    loop {
        let outgoing = match next(&rpc, &mut tasks, &mut queue).await {
            Ok(outgoing) => outgoing,
            Err(end) => return end,
        };
        // The stream is there already.
        if !rpc.start_writing(&outgoing) || outgoing.sent == Sent::Listen {
            continue;
        }
        if outgoing.sent == Sent::Other && rpc.phase() == Phase::Started && tasks.len() > MAX_UNREAD {
            rpc.reply_dropped();
            continue;
        }
        let sending = send(Arc::clone(&server), path.clone(), outgoing);
        // The server has to know that it is initialized before it gets the next request.
        if rpc.phase() == Phase::Started {
            tasks.spawn(sending);
            continue;
        }
        tokio::select! {
            biased;
            () = rpc.closed() => return HttpEnd::Stopped,
            end = sending => if let Some(end) = end { return end },
        }
    }
}

/// Sends a message, in the time that a request has. The answer is in the stream.
async fn send(server: Arc<Server>, path: PathAndQuery, outgoing: Outgoing) -> Option<HttpEnd> {
    let id = match outgoing.sent {
        Sent::Request(id) => Some(id),
        _ => None,
    };
    let over = id.map(|id| server.rpc.watch(id));
    let posting = server.post(&path, Bytes::from(outgoing.line), None);
    let posted = match over {
        Some(over) => tokio::select! {
            biased;
            posted = posting => posted,
            () = over.cancelled() => return None,
        },
        None => timeout(ACCEPT_TIMEOUT, posting).await.unwrap_or(Err(ExchangeError::Unreachable)),
    };
    let error = match posted {
        Ok(response) if response.status().is_success() => return None,
        Ok(response) => ExchangeError::of_status(response.status()),
        Err(error) => error,
    };
    if let Some(id) = id {
        server.rpc.fail(id, error.outcome());
    } else {
        debug!(%error, "the server did not accept a notification");
    }
    (error == ExchangeError::Refused).then_some(HttpEnd::NotListening)
}

/// The event stream of a server.
struct Stream {
    body: Incoming,
    events: Events,
}

impl Stream {
    async fn open(server: &Server) -> Result<Self, HttpEnd> {
        let response = server.get_events(&server.path, None, None).await.map_err(|error| match error {
            ExchangeError::Refused => HttpEnd::NotListening,
            _ => HttpEnd::StreamEnded,
        })?;
        if !response.status().is_success() {
            return Err(HttpEnd::NoStream(response.status()));
        }
        Ok(Self { body: response.into_body(), events: Events::default() })
    }

    /// Reads the stream up to the event that says where messages go.
    async fn message_path(&mut self, server: &Server) -> Result<PathAndQuery, HttpEnd> {
        loop {
            match self.next(server).await? {
                Found::Event(event) if event.kind == MESSAGE_PATH => {
                    return message_path(&event.data, server).ok_or(HttpEnd::NoMessagePath);
                }
                Found::Event(event) if event.is_message() => return Err(HttpEnd::NoMessagePath),
                _ => {}
            }
        }
    }

    /// Dispatches all messages until the stream ends.
    async fn read(mut self, server: &Server) -> HttpEnd {
        loop {
            match self.next(server).await {
                Ok(Found::Event(event)) if event.is_message() => server.dispatch(event.data, Answers::Any),
                Ok(Found::Event(_) | Found::TooLong(None)) => {}
                Ok(Found::TooLong(Some(id))) => server.rpc.fail(id, RequestOutcome::TooLarge),
                Err(end) => return end,
            }
        }
    }

    async fn next(&mut self, server: &Server) -> Result<Found, HttpEnd> {
        loop {
            if let Some(found) = self.events.next(server.rpc.max_line()) {
                return Ok(found);
            }
            if self.events.unended() > MAX_EVENT {
                return Err(HttpEnd::Endless);
            }
            let frame = self.body.frame().await.and_then(Result::ok).ok_or(HttpEnd::StreamEnded)?;
            if let Ok(chunk) = frame.into_data() {
                self.events.add(&chunk);
            }
        }
    }
}

/// Returns the path in a reference to where messages go. None if that is another server.
fn message_path(reference: &[u8], server: &Server) -> Option<PathAndQuery> {
    let reference = std::str::from_utf8(reference).ok()?.trim();
    let port = server.authority.port_u16()?;
    resolve(reference, server.path.path(), port)
}

/// Resolves a reference that was read at `base` on a port of this machine (RFC 3986, section 5). None if it is somewhere else.
fn resolve(reference: &str, base: &str, port: u16) -> Option<PathAndQuery> {
    if reference.starts_with("http:") || reference.starts_with("https:") {
        let uri: Uri = reference.parse().ok()?;
        let authority = uri.authority()?;
        let is_here = uri.scheme_str() == Some("http")
            && authority.port_u16().unwrap_or(80) == port
            && matches!(authority.host(), "localhost" | "127.0.0.1" | "0.0.0.0")
            && !authority.as_str().contains('@');
        return uri.path_and_query().filter(|_| is_here).cloned();
    }
    if reference.is_empty() || reference.starts_with("//") {
        return None;
    }
    let (path, query) = reference.split_once('?').map_or((reference, None), |(path, query)| (path, Some(query)));
    let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
    let joined = match path {
        "" => base.to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("{folder}/{relative}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    for segment in joined.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(segment),
        }
    }
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    format!("/{}{query}", parts.join("/")).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_to_the_same_server() {
        for (reference, expected) in [
            ("/messages?session=1", Some("/messages?session=1")),
            ("messages?u=http://x/", Some("/v1/messages?u=http://x/")),
            ("?session=1", Some("/v1/sse?session=1")),
            ("./messages", Some("/v1/messages")),
            ("../messages", Some("/messages")),
            ("../../../messages", Some("/messages")),
            ("http://localhost:8080/m?a=b", Some("/m?a=b")),
            ("http://127.0.0.1:8080/m", Some("/m")),
            ("http://0.0.0.0:8080/m", Some("/m")),
            ("http://localhost/m", None),
            ("http://localhost:8081/m", None),
            ("https://localhost:8080/m", None),
            ("http://192.0.2.1:8080/m", None),
            ("http://localhost:8080@192.0.2.1:8080/m", None),
            ("//192.0.2.1:8080/m", None),
            ("http:///m", None),
            ("", None),
            ("/a b", None),
        ] {
            let resolved = resolve(reference, "/v1/sse", 8080);
            assert_eq!(resolved.as_ref().map(PathAndQuery::as_str), expected, "{reference}");
        }
    }
}
