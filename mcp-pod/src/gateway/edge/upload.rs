//! The body of a forwarded request: chunks as the client sends them, one at a time.
//!
//! A small one is kept until the home answers, because the caller may get another home before the first one has decided.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::gateway::connection::Client;
use crate::gateway::memory::{Account, Full, Reservation, Use};
use crate::gateway::request::{BodyError, next_chunk};

/// Longest body that is kept while it is sent.
const KEPT: usize = 16 * 1024;

/// The body of a request, as the edge has it.
#[derive(Debug)]
pub(crate) struct Content<'b> {
    /// Absent if the body was read before it is forwarded.
    unread: Option<&'b mut Incoming>,
    /// The whole body, once it was read and is kept.
    read: Option<Bytes>,
    /// Memory for what is kept.
    memory: Option<Reservation>,
}

impl<'b> Content<'b> {
    /// Returns a body of which nothing was read.
    pub(crate) const fn unread(body: &'b mut Incoming) -> Self {
        Self { unread: Some(body), read: None, memory: None }
    }

    /// Returns a body that was read, and whose memory is accounted for.
    pub(crate) const fn read(body: Bytes) -> Self {
        Self { unread: None, read: Some(body), memory: None }
    }

    /// Reserves memory for what will be kept.
    pub(super) fn reserve(&mut self, account: &Arc<Account>) -> Result<(), Full> {
        let length = self.length().and_then(|length| usize::try_from(length).ok());
        if let Some(length) = length.filter(|_| self.is_kept() && !self.is_read() && self.memory.is_none()) {
            self.memory = Some(account.reserve(length, Use::Request)?);
        }
        Ok(())
    }

    /// Returns the whole body, if it was read.
    pub(crate) fn into_read(self) -> Option<Bytes> {
        self.read
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length() == Some(0)
    }

    /// Returns the length, if it is known.
    pub(super) fn length(&self) -> Option<u64> {
        match (&self.read, &self.unread) {
            (Some(read), _) => Some(read.len() as u64),
            (None, Some(body)) if body.is_end_stream() => Some(0),
            (None, body) => body.as_ref()?.size_hint().exact(),
        }
    }

    /// Returns whether another gateway can get the whole body after one has got it.
    pub(super) fn is_kept(&self) -> bool {
        self.is_read() || self.length().is_some_and(|length| length <= KEPT as u64)
    }

    /// Returns whether the whole body was read, and is kept.
    pub(crate) const fn is_read(&self) -> bool {
        self.read.is_some()
    }

    /// Sends the whole body, unless its receiver ends first: then this waits for ever.
    pub(super) async fn send(&mut self, chunks: &Chunks, client: &Client) -> Result<(), BodyError> {
        let send = async |chunk| {
            if chunks.send(chunk).await.is_err() {
                // The connection has ended, or the home has answered.
                std::future::pending::<()>().await;
            }
        };
        let kept = self.is_kept().then(|| self.length()).flatten();
        let Self { unread, read, memory: _ } = self;
        if let Some(read) = read {
            send(Chunk::Data(read.clone())).await;
        } else if let Some(body) = unread {
            let length = kept.and_then(|length| usize::try_from(length).ok());
            let mut collected = BytesMut::with_capacity(length.unwrap_or(0));
            while let Some(data) = next_chunk(body, client).await? {
                if let Some(length) = kept {
                    collected.extend_from_slice(&data);
                    if collected.len() as u64 == length {
                        // The home may answer as soon as it has this, before the end is read here.
                        *read = Some(std::mem::take(&mut collected).freeze());
                    }
                }
                send(Chunk::Data(data)).await;
            }
        }
        let _ = chunks.send(Chunk::End).await;
        Ok(())
    }
}

/// The body ended without its end, which its receiver must not take for one.
#[derive(Debug, thiserror::Error)]
#[error("the client did not send its whole request")]
pub(super) struct Aborted;

/// Sends chunks to an [`Upload`]. If this is dropped before the end is sent, the request fails.
pub(super) type Chunks = mpsc::Sender<Chunk>;

/// A part of the body.
#[derive(Debug)]
pub(super) enum Chunk {
    Data(Bytes),
    End,
}

/// The body of a request, from a channel.
#[derive(Debug)]
pub(super) struct Upload {
    /// None if there is nothing more.
    chunks: Option<mpsc::Receiver<Chunk>>,
    /// Number of bytes that are left, if the client has declared that.
    left: Option<u64>,
}

impl Upload {
    /// Returns a body of this length, and what sends it.
    pub(super) fn channel(length: Option<u64>) -> (Chunks, Self) {
        let (sender, chunks) = mpsc::channel(1);
        (sender, Self { chunks: Some(chunks), left: length })
    }

    /// Returns an empty body.
    pub(super) const fn empty() -> Self {
        Self { chunks: None, left: Some(0) }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let Some(chunks) = &mut self.chunks else { return Poll::Ready(None) };
        Poll::Ready(match ready!(chunks.poll_recv(cx)) {
            Some(Chunk::Data(data)) => {
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Some(Ok(Frame::data(data)))
            }
            Some(Chunk::End) => {
                self.chunks = None;
                None
            }
            None => {
                self.chunks = None;
                Some(Err(Aborted))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_that_is_not_sent_to_its_end_fails() {
        let (chunks, body) = Upload::channel(None);
        chunks.send(Chunk::Data(Bytes::from_static(b"{}"))).await.unwrap();
        drop(chunks);
        assert!(body.collect().await.is_err());

        let (chunks, body) = Upload::channel(Some(2));
        assert_eq!(body.size_hint().exact(), Some(2));
        let sending = tokio::spawn(async move {
            chunks.send(Chunk::Data(Bytes::from_static(b"{}"))).await.unwrap();
            chunks.send(Chunk::End).await.unwrap();
        });
        assert_eq!(body.collect().await.unwrap().to_bytes(), "{}");
        sending.await.unwrap();
        assert!(Upload::empty().is_end_stream());
    }
}
