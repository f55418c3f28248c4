//! Bytes in use against a limit, counted without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What memory is used for. It decides how much of a limit may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// An open connection.
    Connection,
    /// A request. The last third of each limit is kept free for answers to requests that were admitted.
    Request,
    /// An answer. One that is larger than the whole share is possible while the share is less than half used.
    Answer,
}

/// The limit that has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// The limit of one address or principal.
    #[error("a share of {0} bytes is used up")]
    Share(usize),
    /// The limit of the whole process.
    #[error("all memory is used up")]
    Process,
}

/// Bytes in use against a limit. A share counts them against the limit of its pool as well.
#[derive(Debug)]
pub(crate) struct Account {
    limit: usize,
    used: AtomicUsize,
    pool: Option<Arc<Self>>,
    /// Number of answers that wait for memory of this pool.
    waiting: AtomicUsize,
    released: Notify,
}

/// Bytes that are in use until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    account: Arc<Account>,
    bytes: usize,
}

impl Account {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Self::with_pool(limit, None)
    }

    /// Returns a share of a pool.
    pub(super) fn share(pool: &Arc<Self>, limit: usize) -> Arc<Self> {
        Self::with_pool(limit, Some(Arc::clone(pool)))
    }

    fn with_pool(limit: usize, pool: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), pool, waiting: AtomicUsize::new(0), released: Notify::new() })
    }

    /// Returns the largest number of bytes that may be in use.
    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the number of bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the account that this one is a share of, or itself.
    pub(super) fn pool(&self) -> &Self {
        self.pool.as_deref().unwrap_or(self)
    }

    /// Checks whether the share has room for a small request, whose memory its connection has reserved.
    pub(crate) fn check(&self) -> Result<(), Full> {
        if self.used() < self.limit_of(Use::Request) { Ok(()) } else { Err(Full::Share(self.limit)) }
    }

    /// Reserves bytes.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize, purpose: Use) -> Result<Reservation, Full> {
        let mut reservation = self.empty();
        reservation.grow(bytes, purpose)?;
        Ok(reservation)
    }

    /// Reserves bytes for an answer. Waits until there is room, which there may never be.
    pub(crate) async fn reserve_for_answer(self: &Arc<Self>, bytes: usize) -> Reservation {
        if let Ok(reservation) = self.reserve(bytes, Use::Answer) {
            return reservation;
        }
        let _waiting = Waiting::new(self.pool());
        loop {
            // Listening before trying: a release that comes in between is not missed.
            let released = self.pool().released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Ok(reservation) = self.reserve(bytes, Use::Answer) {
                return reservation;
            }
            released.await;
        }
    }

    /// Counts bytes that exist already, whether there is room or not.
    pub(crate) fn count(self: &Arc<Self>, bytes: usize) -> Reservation {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(pool) = &self.pool {
            pool.used.fetch_add(bytes, Ordering::Relaxed);
        }
        Reservation { account: Arc::clone(self), bytes }
    }

    /// Returns a reservation of no bytes.
    pub(crate) fn empty(self: &Arc<Self>) -> Reservation {
        Reservation { account: Arc::clone(self), bytes: 0 }
    }

    const fn limit_of(&self, purpose: Use) -> usize {
        match purpose {
            Use::Connection | Use::Answer => self.limit,
            Use::Request => self.limit - self.limit / 3,
        }
    }

    /// Adds bytes here and in the pool, or nowhere.
    fn add(&self, bytes: usize, purpose: Use) -> Result<(), Full> {
        if bytes > self.pool().limit {
            return Err(Full::Share(self.limit));
        }
        // Sequentially consistent, because of the waiting answers: either they see what is released, or the release sees
        // them.
        let before = self.used.fetch_add(bytes, Ordering::SeqCst);
        let large_answer = purpose == Use::Answer && self.pool.is_some() && before <= self.limit / 2;
        let full = if before + bytes > self.limit_of(purpose) && !large_answer {
            Full::Share(self.limit)
        } else {
            match &self.pool {
                Some(pool) if pool.add(bytes, purpose).is_err() => Full::Process,
                _ => return Ok(()),
            }
        };
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        Err(full)
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        if let Some(pool) = &self.pool {
            return pool.release(bytes);
        }
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.released.notify_waiters();
        }
    }
}

impl Reservation {
    /// Returns the number of bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether the bytes are reserved in this account.
    pub(crate) fn is_in(&self, account: &Arc<Account>) -> bool {
        Arc::ptr_eq(&self.account, account)
    }

    /// Adds the bytes of another reservation of the same account.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Reserves more bytes.
    pub(crate) fn grow(&mut self, bytes: usize, purpose: Use) -> Result<(), Full> {
        self.account.add(bytes, purpose)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.account.release(self.bytes);
        }
    }
}

/// Counts a waiting answer until it is dropped.
struct Waiting<'a>(&'a Account);

impl<'a> Waiting<'a> {
    fn new(pool: &'a Account) -> Self {
        pool.waiting.fetch_add(1, Ordering::SeqCst);
        Self(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_share_and_its_pool_both_limit_what_is_reserved() {
        let pool = Account::new(1000);
        let (one, other) = (Account::share(&pool, 600), Account::share(&pool, 600));
        let first = one.reserve(500, Use::Connection).unwrap();
        assert_eq!(one.reserve(101, Use::Connection).unwrap_err(), Full::Share(600));
        let second = other.reserve(500, Use::Connection).unwrap();
        assert_eq!(other.reserve(100, Use::Connection).unwrap_err(), Full::Process);
        assert_eq!((one.used(), other.used(), pool.used()), (500, 500, 1000));
        drop((first, second));
        assert_eq!((one.used(), other.used(), pool.used()), (0, 0, 0));
        assert_eq!(one.reserve(usize::MAX, Use::Connection).unwrap_err(), Full::Share(600));
        assert_eq!(one.used(), 0);
    }

    #[test]
    fn requests_leave_room_for_answers() {
        let share = Account::share(&Account::new(10_000), 900);
        let request = share.reserve(600, Use::Request).unwrap();
        assert!(share.check().is_err() && share.reserve(1, Use::Request).is_err());
        let answer = share.reserve(300, Use::Answer).unwrap();
        assert!(share.reserve(1, Use::Answer).is_err());
        drop(answer);
        assert!(share.check().is_err());
        drop(request);
        assert!(share.check().is_ok());
    }

    #[test]
    fn one_answer_may_be_larger_than_the_share() {
        let pool = Account::new(10_000);
        let share = Account::share(&pool, 900);
        let large = share.reserve(5000, Use::Answer).unwrap();
        assert!(share.reserve(100, Use::Answer).is_err());
        assert_eq!(Account::share(&pool, 900).reserve(5001, Use::Answer).unwrap_err(), Full::Process);
        drop(large);
        assert!(share.reserve(100, Use::Answer).is_ok());
    }

    #[tokio::test]
    async fn an_answer_waits_until_another_is_released() {
        let share = Account::share(&Account::new(10_000), 900);
        let first = share.reserve(800, Use::Answer).unwrap();
        let waiting = tokio::spawn({
            let share = Arc::clone(&share);
            async move { share.reserve_for_answer(800).await.bytes }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.unwrap(), 800);
        assert_eq!((share.used(), share.pool().waiting.load(Ordering::SeqCst)), (0, 0));
    }
}
