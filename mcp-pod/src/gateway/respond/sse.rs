//! Answers as a stream of server-sent events: progress and comments, then the result.

use bytes::Bytes;
use futures::Stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};

use super::Body;

/// Returns the answer whose body is a stream of events.
pub(crate) fn event_stream(events: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(Body::Stream(Box::pin(events)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer answers would hold progress back until it is useless.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A comment, which clients ignore. It keeps proxies and clients from giving up on a silent stream.
pub(crate) const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// Writes a message as one event.
pub(crate) fn event(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 32);
    out.extend_from_slice(b"event: message\ndata: ");
    let start = out.len();
    out.extend_from_slice(message);
    // JSON has line ends only between two tokens, where a space means the same. In an event they would end the line.
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\n\n");
    Bytes::from(out)
}
