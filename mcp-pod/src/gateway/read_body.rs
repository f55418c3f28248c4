//! The body of a request, within its limits of size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Larger than the server takes.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// Slower than anybody honest.
    #[error("the body did not arrive in time")]
    Slow,
    /// The connection broke, or the framing is wrong.
    #[error("failed to read the body")]
    Broken(#[source] hyper::Error),
}

/// Reads a body of at most `limit` bytes; one that says beforehand that it is larger is not read at all.
pub(crate) async fn read_body(headers: &HeaderMap, body: Incoming, limit: u64) -> Result<Bytes, BodyError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Err(BodyError::TooLarge);
    }
    tokio::time::timeout(PATIENCE, gather(body, limit)).await.unwrap_or(Err(BodyError::Slow))
}

async fn gather(mut body: Incoming, limit: u64) -> Result<Bytes, BodyError> {
    let mut first: Option<Bytes> = None;
    let mut gathered = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
        let held = first.as_ref().map_or(gathered.len(), Bytes::len);
        if (held + data.len()) as u64 > limit {
            return Err(BodyError::TooLarge);
        }
        match first.take() {
            // The usual body comes in one piece, and is not copied.
            None if gathered.is_empty() => {
                if body.is_end_stream() {
                    return Ok(data);
                }
                first = Some(data);
            }
            None => gathered.extend_from_slice(&data),
            Some(first) => {
                gathered.reserve(first.len() + data.len());
                gathered.extend_from_slice(&first);
                gathered.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| gathered.freeze()))
}
