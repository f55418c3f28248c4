//! A TCP stream that bounds what waits in this process for its client.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Client;
use crate::gateway::memory::Reservation;

/// A stream that counts input which is not part of a request yet, and reserves memory while its client does not read.
/// Reading or writing fails when there is no room, which ends the connection.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    client: Arc<Client>,
    /// Present while the kernel takes no output.
    unread: Option<[Option<Reservation>; 2]>,
}

impl<S> Metered<S> {
    pub(super) const fn new(stream: S, client: Arc<Client>) -> Self {
        Self { stream, client, unread: None }
    }

    /// Returns the stream below.
    pub(super) const fn get_ref(&self) -> &S {
        &self.stream
    }

    fn written<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match (&written, &self.unread) {
            (Poll::Pending, None) => match self.client.reserve_unread() {
                Ok(unread) => self.unread = Some(unread),
                Err(full) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::OutOfMemory, full))),
            },
            (Poll::Ready(_), Some(_)) => self.unread = None,
            _ => {}
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.client.add_input(buf.filled().len() - before) {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the input is too long and no request")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
