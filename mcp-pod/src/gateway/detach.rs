//! Work that its client's going away must not stop.
//!
//! Up to 2025-11-25 a lost connection does not cancel a call. The call runs in the connection's own task all the
//! same, which is cheaper than one of its own; only when it is dropped unfinished does it get one, and ends there.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt as _};
use tokio::runtime::Handle;

/// A future that goes on after it is dropped.
pub(crate) struct Detach<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

/// A stream that is read to its end after it is dropped.
pub(crate) struct DetachStream<S: Stream<Item: Send> + Send + 'static>(Option<Pin<Box<S>>>);

impl<F: Future<Output: Send> + Send + 'static> Detach<F> {
    pub(crate) fn new(future: F) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<S: Stream<Item: Send> + Send + 'static> DetachStream<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Some(Box::pin(stream)))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Detach<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let polled = future.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<S: Stream<Item: Send> + Send + 'static> Stream for DetachStream<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let Some(stream) = &mut self.0 else { return Poll::Ready(None) };
        let polled = stream.as_mut().poll_next(cx);
        if matches!(polled, Poll::Ready(None)) {
            self.0 = None;
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Detach<F> {
    fn drop(&mut self) {
        if let (Some(future), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(future);
        }
    }
}

impl<S: Stream<Item: Send> + Send + 'static> Drop for DetachStream<S> {
    fn drop(&mut self) {
        if let (Some(stream), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(stream.for_each(|_| std::future::ready(())));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_dropped_future_still_ends() {
        let done = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&done);
        let mut future = Detach::new(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            counter.fetch_add(1, Ordering::SeqCst);
        });
        assert!((&mut future).now_or_never().is_none());
        drop(future);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_stream_is_read_to_its_end() {
        let done = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&done);
        let mut stream = DetachStream::new(futures::stream::iter(0..5).map(move |number| {
            counter.fetch_add(1, Ordering::SeqCst);
            number
        }));
        assert_eq!(stream.next().await, Some(0));
        drop(stream);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(done.load(Ordering::SeqCst), 5);
    }
}
