//! Reading the body of a request, within limits on size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// Longest time that a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes of an oversized body that are read and dropped before the answer.
const DISCARD_LIMIT: usize = 4 << 20;
/// Longest time spent on reading and dropping them.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The body is larger than the server's limit.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// The body took longer than [`BODY_TIMEOUT`].
    #[error("the body did not arrive in time")]
    TimedOut,
    /// The connection broke, or the framing is wrong.
    #[error("failed to read the body")]
    Broken(#[source] hyper::Error),
}

/// Reads a body of at most `limit` bytes. Keeps nothing of a body whose `Content-Length` is above the limit.
pub(crate) async fn read_body(headers: &HeaderMap, mut body: Incoming, limit: u64) -> Result<Bytes, BodyError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let read = if declared.is_some_and(|length| length > limit) {
        Err(BodyError::TooLarge)
    } else {
        tokio::time::timeout(BODY_TIMEOUT, collect(&mut body, limit)).await.unwrap_or(Err(BodyError::TimedOut))
    };
    if matches!(read, Err(BodyError::TooLarge)) {
        // A client that is still writing when the connection closes would see only the reset, not the answer.
        let _ = tokio::time::timeout(DISCARD_TIMEOUT, discard(&mut body)).await;
    }
    read
}

/// Reads and drops what is left of a body, up to [`DISCARD_LIMIT`].
async fn discard(body: &mut Incoming) {
    let mut remaining = DISCARD_LIMIT;
    while let Ok(Some(data)) = next_chunk(body).await {
        let Some(rest) = remaining.checked_sub(data.len()) else { return };
        remaining = rest;
    }
}

async fn collect(body: &mut Incoming, limit: u64) -> Result<Bytes, BodyError> {
    let Some(first) = next_chunk(body).await? else { return Ok(Bytes::new()) };
    if body.is_end_stream() && first.len() as u64 <= limit {
        // A typical body arrives as one chunk, which is not copied.
        return Ok(first);
    }
    // Reserves the declared length once, but never more than the limit.
    let declared = body.size_hint().exact().and_then(|left| usize::try_from(left.min(limit)).ok()).unwrap_or(0);
    let mut collected = BytesMut::with_capacity(first.len() + declared);
    let mut next = Some(first);
    while let Some(data) = next {
        if (collected.len() + data.len()) as u64 > limit {
            return Err(BodyError::TooLarge);
        }
        collected.extend_from_slice(&data);
        next = next_chunk(body).await?;
    }
    Ok(collected.freeze())
}

/// Returns the next chunk of data, or `None` at the end of the body.
async fn next_chunk(body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
