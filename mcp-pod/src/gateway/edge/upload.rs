//! The body of a forwarded request: chunks as the client sends them, one at a time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

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
