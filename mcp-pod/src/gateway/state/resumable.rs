//! Event streams of legacy calls, kept for a while so that a client whose connection broke can read the rest (MCP
//! 2025-11-25, Streamable HTTP, "Resumability and Redelivery").
//!
//! Only answers that have become streams are kept. Each keeps its last events within [`MAX_EVENTS`] and [`MAX_BYTES`], and
//! after its end for [`KEEP_FOR`]. What it keeps is reserved in the account of its principal; without room it is not kept.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::Notify;
use ulid::Ulid;

use super::LegacySession;
use crate::gateway::memory::{Account, Reservation, Use};
use crate::gateway::respond::COMMENT;

/// Events of one stream that are kept.
const MAX_EVENTS: usize = 32;
/// Bytes of the events of one stream that are kept.
const MAX_BYTES: usize = 1 << 20;
/// How long a stream is kept after its end: longer than clients wait before they connect again.
const KEEP_FOR: Duration = Duration::from_secs(60);
/// Bytes that a stream takes beside its events.
const OVERHEAD: usize = 1024;

/// The streams that can be resumed.
#[derive(Debug, Default)]
pub(crate) struct ResumableStreams {
    streams: Mutex<HashMap<Ulid, Arc<KeptStream>, foldhash::fast::RandomState>>,
}

/// The place of an event in all streams: what `id:` and `Last-Event-ID` contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventId {
    stream: Ulid,
    number: u64,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct KeptStream {
    /// ULID of the call.
    id: Ulid,
    session: LegacySession,
    events: Mutex<Events>,
    news: Notify,
}

#[derive(Debug)]
struct Events {
    /// Number of the next event.
    next: u64,
    /// The last events, with the numbers before `next`.
    kept: VecDeque<Bytes>,
    bytes: usize,
    memory: Reservation,
    /// Counts the signs of life, which have no numbers.
    beats: u64,
    /// Counts the clients that read the rest. Only the last one still does, so that a stream has one reader however often it
    /// is resumed.
    readers: u64,
    ended_at: Option<Instant>,
}

/// What comes after an event.
enum After {
    Event(Bytes),
    Beat(u64),
    Wait,
    End,
}

impl EventId {
    /// Parses the value of `Last-Event-ID`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (stream, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { stream: Ulid::from_string(stream).ok()?, number: number.parse().ok()? })
    }

    /// Writes the line with the id of an event.
    fn line(self) -> String {
        format!("id: {}-{}\n", self.stream, self.number)
    }
}

impl ResumableStreams {
    /// Starts to keep the stream of a call. Returns `None` if there is no memory for it.
    pub(crate) fn open(&self, call: Ulid, session: LegacySession, account: &Arc<Account>) -> Option<Arc<KeptStream>> {
        let memory = account.reserve(OVERHEAD, Use::Request).ok()?;
        let events = Events { next: 0, kept: VecDeque::new(), bytes: 0, memory, beats: 0, readers: 0, ended_at: None };
        let stream = Arc::new(KeptStream { id: call, session, events: Mutex::new(events), news: Notify::new() });
        self.streams.lock().insert(call, Arc::clone(&stream));
        Some(stream)
    }

    /// Returns the events after this one, if they are all kept and the stream is one of the session.
    pub(crate) fn resume(
        &self,
        session: LegacySession,
        last: EventId,
    ) -> Option<impl Stream<Item = Bytes> + Send + 'static> {
        let stream = self.streams.lock().get(&last.stream).filter(|stream| stream.session == session).cloned()?;
        let next = last.number.checked_add(1)?;
        let (reader, beats) = stream.start_reading(next)?;
        Some(futures::stream::unfold((stream, next, beats), move |(stream, next, beats)| async move {
            loop {
                let news = stream.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                match stream.after(reader, next, beats) {
                    After::Event(event) => return Some((event, (stream.clone(), next + 1, beats))),
                    After::Beat(beats) => return Some((COMMENT, (stream.clone(), next, beats))),
                    After::Wait => news.await,
                    After::End => return None,
                }
            }
        }))
    }

    /// Drops the streams that ended long ago.
    pub(crate) fn prune(&self, now: Instant) {
        self.streams.lock().retain(|_, stream| {
            let ended_at = stream.events.lock().ended_at;
            ended_at.is_none_or(|at| now.saturating_duration_since(at) < KEEP_FOR)
        });
    }

    /// Returns the number of streams.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.streams.lock().len()
    }
}

impl KeptStream {
    /// Returns the event with its id, and keeps it. `frame` is the event as it is written without an id.
    pub(crate) fn add(&self, frame: &[u8]) -> Bytes {
        let mut events = self.events.lock();
        let id = EventId { stream: self.id, number: events.next };
        let event = Bytes::from([id.line().as_bytes(), frame].concat());
        events.next += 1;
        events.keep(event.clone());
        drop(events);
        self.news.notify_waiters();
        event
    }

    /// Notes that it is time for a sign of life.
    pub(crate) fn beat(&self) {
        self.events.lock().beats += 1;
        self.news.notify_waiters();
    }

    /// Notes that the last event was added.
    pub(crate) fn end(&self) {
        self.events.lock().ended_at = Some(Instant::now());
        self.news.notify_waiters();
    }

    /// Takes the place of the client that reads the rest, if all events from this number on are kept or yet to come. Returns
    /// the number of the client, and of the last sign of life.
    fn start_reading(&self, number: u64) -> Option<(u64, u64)> {
        let mut events = self.events.lock();
        if !(events.first()..=events.next).contains(&number) {
            return None;
        }
        events.readers += 1;
        let started = (events.readers, events.beats);
        drop(events);
        self.news.notify_waiters();
        Some(started)
    }

    fn after(&self, reader: u64, number: u64, beats: u64) -> After {
        let events = self.events.lock();
        if reader != events.readers {
            return After::End;
        }
        let kept = number.checked_sub(events.first()).and_then(|at| events.kept.get(usize::try_from(at).ok()?));
        match kept {
            Some(event) => After::Event(event.clone()),
            // Events that this client was too slow for are gone, and so is the sense of its stream.
            None if number < events.next || events.ended_at.is_some() => After::End,
            None if beats < events.beats => After::Beat(events.beats),
            None => After::Wait,
        }
    }
}

impl Events {
    /// Returns the number of the first event that is kept.
    fn first(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    fn keep(&mut self, event: Bytes) {
        self.bytes += event.len();
        self.kept.push_back(event);
        while self.kept.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(dropped) = self.kept.pop_front() else { break };
            self.bytes -= dropped.len();
        }
        let more = (self.bytes + OVERHEAD).saturating_sub(self.memory.bytes());
        if more > 0 && self.memory.grow(more, Use::Request).is_err() {
            self.kept.clear();
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::{FutureExt as _, StreamExt as _};
    use mcp_fleet_policy::units::Bytes as Size;

    use super::*;
    use crate::gateway::memory::Memory;
    use crate::gateway::state::LegacyCalls;

    struct Fixture {
        streams: ResumableStreams,
        session: LegacySession,
        other: LegacySession,
        account: Arc<Account>,
    }

    fn fixture() -> Fixture {
        let calls = LegacyCalls::default();
        let (session, other) = (calls.session("coder", b"one"), calls.session("coder", b"two"));
        let account = Memory::new(Size::new(64 << 20)).of_principal().requests;
        Fixture { streams: ResumableStreams::default(), session, other, account }
    }

    fn last_event_id(event: &Bytes) -> EventId {
        let line = event.split(|byte| *byte == b'\n').next().unwrap();
        EventId::parse(line.strip_prefix(b"id: ").unwrap()).unwrap()
    }

    #[test]
    fn a_client_gets_what_follows_the_event_that_it_saw_last() {
        let Fixture { streams, session, other, account } = fixture();
        let stream = streams.open(Ulid::from_parts(1, 1), session, &account).unwrap();
        let events: Vec<Bytes> = (0..3).map(|number| stream.add(format!("data: {number}\n\n").as_bytes())).collect();
        assert_eq!(events[1], Bytes::from(format!("id: {}-1\ndata: 1\n\n", Ulid::from_parts(1, 1))));
        let mut resumed = Box::pin(streams.resume(session, last_event_id(&events[0])).unwrap());
        assert_eq!(resumed.next().now_or_never(), Some(Some(events[1].clone())));
        assert_eq!(resumed.next().now_or_never(), Some(Some(events[2].clone())));
        assert_eq!(resumed.next().now_or_never(), None);
        stream.beat();
        assert_eq!(resumed.next().now_or_never(), Some(Some(COMMENT)));
        assert_eq!(resumed.next().now_or_never(), None);
        let end = stream.add(b"data: end\n\n");
        stream.end();
        assert_eq!(resumed.next().now_or_never(), Some(Some(end.clone())));
        let mut second = Box::pin(streams.resume(session, last_event_id(&events[1])).unwrap());
        assert_eq!(resumed.next().now_or_never(), Some(None), "another client reads the rest");
        assert_eq!(second.next().now_or_never(), Some(Some(events[2].clone())));
        let mut after_the_end = Box::pin(streams.resume(session, last_event_id(&end)).unwrap());
        assert_eq!(after_the_end.next().now_or_never(), Some(None));
        assert!(streams.resume(other, last_event_id(&events[0])).is_none(), "another session");
        for wrong in [EventId { stream: stream.id, number: 9 }, EventId { stream: Ulid::from_parts(1, 2), number: 0 }] {
            assert!(streams.resume(session, wrong).is_none());
        }
    }

    #[test]
    fn a_stream_keeps_a_bounded_number_of_events_and_bytes() {
        let Fixture { streams, session, account, .. } = fixture();
        let stream = streams.open(Ulid::from_parts(1, 1), session, &account).unwrap();
        let events: Vec<Bytes> = (0..100).map(|_| stream.add(b"data: x\n\n")).collect();
        assert!(streams.resume(session, last_event_id(&events[66])).is_none(), "the next one is gone");
        assert!(streams.resume(session, last_event_id(&events[67])).is_some());
        let large = stream.add(&vec![b'x'; 2 * MAX_BYTES]);
        assert_eq!(stream.events.lock().bytes, 0);
        assert!(streams.resume(session, last_event_id(&events[99])).is_none());
        assert!(streams.resume(session, last_event_id(&large)).is_some());
        assert!(account.used() < MAX_BYTES + 2 * OVERHEAD);
    }

    #[test]
    fn streams_take_no_memory_that_there_is_not_and_give_it_back() {
        let Fixture { streams, session, account, .. } = fixture();
        let mut number = 0;
        while let Some(stream) = streams.open(Ulid::from_parts(1, number), session, &account) {
            stream.add(&vec![b'x'; MAX_BYTES / 2]);
            stream.end();
            number += 1;
            assert!(number < 100_000, "never full");
        }
        assert!(account.used() <= account.limit());
        let now = Instant::now();
        streams.prune(now);
        assert_eq!(streams.len() as u128, number);
        streams.prune(now + KEEP_FOR);
        assert_eq!((streams.len(), account.used()), (0, 0));
    }

    #[test]
    fn only_ids_of_events_are_parsed() {
        for text in [
            "",
            "-",
            "x-1",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV-",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV--1",
        ] {
            assert_eq!(EventId::parse(text.as_bytes()), None, "{text}");
        }
        let id = EventId::parse(b"01ARZ3NDEKTSV4RRFFQ69G5FAV-7").unwrap();
        assert_eq!(id.line(), "id: 01ARZ3NDEKTSV4RRFFQ69G5FAV-7\n");
    }
}
