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

/// How much of a body that is too large is read all the same, and for how long.
const DISCARDED: usize = 4 << 20;
const DISCARDING: Duration = Duration::from_secs(2);

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

/// Reads a body of at most `limit` bytes; of one that says beforehand that it is larger nothing is kept.
pub(crate) async fn read_body(headers: &HeaderMap, mut body: Incoming, limit: u64) -> Result<Bytes, BodyError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let read = if declared.is_some_and(|length| length > limit) {
        Err(BodyError::TooLarge)
    } else {
        tokio::time::timeout(PATIENCE, gather(&mut body, limit)).await.unwrap_or(Err(BodyError::Slow))
    };
    if matches!(read, Err(BodyError::TooLarge)) {
        // A client that is still writing when the connection closes would see that, and not why.
        let _ = tokio::time::timeout(DISCARDING, discard(&mut body)).await;
    }
    read
}

/// Takes the rest of a body, if it is not too much, and drops it.
async fn discard(body: &mut Incoming) {
    let mut left = DISCARDED;
    while let Ok(Some(data)) = piece(body).await {
        let Some(rest) = left.checked_sub(data.len()) else { return };
        left = rest;
    }
}

async fn gather(body: &mut Incoming, limit: u64) -> Result<Bytes, BodyError> {
    let Some(first) = piece(body).await? else { return Ok(Bytes::new()) };
    if body.is_end_stream() && first.len() as u64 <= limit {
        // The usual body comes in one piece, and is not copied.
        return Ok(first);
    }
    // What was said beforehand is within the limit, and reserved once.
    let said = body.size_hint().exact().and_then(|left| usize::try_from(left.min(limit)).ok()).unwrap_or(0);
    let mut gathered = BytesMut::with_capacity(first.len() + said);
    let mut next = Some(first);
    while let Some(data) = next {
        if (gathered.len() + data.len()) as u64 > limit {
            return Err(BodyError::TooLarge);
        }
        gathered.extend_from_slice(&data);
        next = piece(body).await?;
    }
    Ok(gathered.freeze())
}

/// The next piece of data.
async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
