//! The body of an answer.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http_body::{Frame, SizeHint};

use crate::gateway::connection::PeerRequest;
use crate::gateway::edge::{ForwardedBody, HomeLost};

/// Body of an answer.
pub(crate) enum Body {
    /// No bytes, or no more bytes.
    Empty,
    /// All bytes at once.
    Whole(Bytes),
    /// Events as they come.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
    /// What another gateway sends.
    Forwarded(Box<ForwardedBody>),
    /// The answer to a request that another gateway forwards.
    Held { body: Box<Self>, _forwarded: Box<(IpAddr, PeerRequest)> },
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Forwarded(_) => f.write_str("Forwarded"),
            Self::Held { body, .. } => body.fmt(f),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = HomeLost;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HomeLost>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => {
                stream.as_mut().poll_next(cx).map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Forwarded(body) => Pin::new(body).poll_frame(cx),
            Self::Held { body, .. } => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(_) | Self::Stream(_) => false,
            Self::Forwarded(body) => body.is_end_stream(),
            Self::Held { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
            Self::Forwarded(body) => body.size_hint(),
            Self::Held { body, .. } => body.size_hint(),
        }
    }
}
