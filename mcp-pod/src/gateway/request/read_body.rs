//! Reading the body of a request, within limits on size, time and memory.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::IdScan;
use crate::gateway::connection::Client;
use crate::gateway::memory::{Full, Meter};

/// Longest time that a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes for which memory is first reserved if the length of a body is not declared.
const FIRST_RESERVED: usize = 4096;
/// Longest time spent on reading and dropping the rest of a refused request.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time that it waits for more of the rest.
const DISCARD_PAUSE: Duration = Duration::from_secs(3);
/// Bytes of the rest that cost as much as one more request; the first of them are free.
const DISCARD_UNIT: usize = 128 * 1024;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The body is larger than the server's limit.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// There is no memory for the body.
    #[error("there is no memory for the body")]
    NoMemory(#[from] Full),
    /// The body took longer than [`BODY_TIMEOUT`].
    #[error("the body did not arrive in time")]
    TimedOut,
    /// The connection broke, or the framing is wrong.
    #[error("failed to read the body")]
    Broken(#[source] hyper::Error),
}

/// Reads a body of at most `limit` bytes. Memory is reserved before the bytes are read, for the whole body if its length
/// is declared. Reads nothing of a body whose declared length is above the limit.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: &mut Incoming,
    limit: u64,
    meter: Meter<'_>,
    client: &Client,
) -> Result<Bytes, BodyError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut reader = Reader { body, limit: usize::try_from(limit).unwrap_or(usize::MAX), reserved: 0, meter, client };
    match declared {
        Some(length) if length > limit => Err(BodyError::TooLarge),
        _ => tokio::time::timeout(BODY_TIMEOUT, reader.collect(declared)).await.unwrap_or(Err(BodyError::TimedOut)),
    }
}

/// Checks a body that was read before it was known that it is needed here.
pub(crate) fn check_body(body: &Bytes, limit: u64, mut meter: Meter<'_>) -> Result<(), BodyError> {
    if body.len() as u64 > limit {
        return Err(BodyError::TooLarge);
    }
    Ok(meter.reserve_body(body.len())?)
}

/// Reads and drops the rest of the body of a refused request, before its answer. Otherwise the connection would be closed
/// while the client still writes, and it would see only that, not the answer. Ends early after [`DISCARD_TIMEOUT`], when
/// nothing has come for [`DISCARD_PAUSE`], or when `admits` returns false, which is called for every [`DISCARD_UNIT`] after
/// the first `free` bytes, at least one unit. Returns whether the body was read to its end.
///
/// `scan` sees what is dropped. Without one, nothing is read with HTTP/2, where an answer reaches the client whatever is left of
/// the body. A client that waits for `100 Continue` has sent nothing and must not be told to (`waits`).
pub(crate) async fn discard(
    version: Version,
    waits: bool,
    body: &mut Incoming,
    client: &Client,
    mut scan: Option<&mut IdScan>,
    free: impl FnOnce() -> usize,
    mut admits: impl FnMut() -> bool,
) -> bool {
    let unneeded = version >= Version::HTTP_2 && scan.is_none();
    if unneeded || waits || body.is_end_stream() {
        return false;
    }
    let discard = async {
        let mut paid = free().max(DISCARD_UNIT);
        loop {
            match tokio::time::timeout(DISCARD_PAUSE, next_chunk(body, client)).await {
                Ok(Ok(Some(data))) => {
                    while paid < data.len() {
                        if !admits() {
                            return false;
                        }
                        paid += DISCARD_UNIT;
                    }
                    paid -= data.len();
                    if let Some(scan) = &mut scan {
                        scan.read(&data);
                    }
                }
                Ok(Ok(None)) => return true,
                _ => return false,
            }
        }
    };
    // Whatever is left then, the answer is sent.
    tokio::time::timeout(DISCARD_TIMEOUT, discard).await.unwrap_or(false)
}

/// Returns the next chunk of data, or `None` at the end of the body.
pub(crate) async fn next_chunk(body: &mut Incoming, client: &Client) -> Result<Option<Bytes>, BodyError> {
    while let Some(frame) = body.frame().await {
        client.claim_input();
        if let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// A body that is being read.
struct Reader<'m> {
    body: &'m mut Incoming,
    /// Largest length that is accepted.
    limit: usize,
    /// Length for which memory is reserved.
    reserved: usize,
    meter: Meter<'m>,
    client: &'m Client,
}

impl Reader<'_> {
    async fn collect(&mut self, declared: Option<u64>) -> Result<Bytes, BodyError> {
        self.reserve(declared.and_then(|length| usize::try_from(length).ok()).unwrap_or(FIRST_RESERVED))?;
        let Some(first) = next_chunk(self.body, self.client).await? else { return Ok(Bytes::new()) };
        if self.body.is_end_stream() && first.len() <= self.limit {
            // A typical body arrives as one chunk, which is not copied.
            self.reserve(first.len())?;
            return Ok(first);
        }
        let mut collected = BytesMut::with_capacity(self.reserved);
        let mut next = Some(first);
        while let Some(data) = next {
            let length = collected.len() + data.len();
            if length > self.limit {
                return Err(BodyError::TooLarge);
            }
            if length > self.reserved {
                // Twice as much, as the buffer grows, so that a long body has few reservations.
                self.reserve(length.max(2 * self.reserved).min(self.limit))?;
            }
            collected.extend_from_slice(&data);
            next = next_chunk(self.body, self.client).await?;
        }
        Ok(collected.freeze())
    }

    /// Reserves memory for a body of this length.
    fn reserve(&mut self, length: usize) -> Result<(), Full> {
        self.meter.reserve_body(length.saturating_sub(self.reserved))?;
        self.reserved = self.reserved.max(length);
        Ok(())
    }
}
