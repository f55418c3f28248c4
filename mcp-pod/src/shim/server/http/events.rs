//! Splits an event stream into events (Server-sent events, WHATWG HTML), in bounded memory.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::super::frame::{Frame, Framer};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Longest id of an event that is kept, in bytes.
const MAX_ID: usize = 1024;
/// Longest type of an event that is kept, in bytes.
const MAX_KIND: usize = 64;
/// Longest pause that a server can ask for.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// One event with data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Type of the event; empty if the stream does not say it, which means `message`.
    pub(super) kind: Bytes,
    /// The data. Of several lines, each but the last ends with a newline.
    pub(super) data: Bytes,
}

impl Event {
    /// Whether the data is a message.
    pub(super) fn is_message(&self) -> bool {
        self.kind.is_empty() || self.kind == "message"
    }
}

/// What was found in a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Event(Event),
    /// An event with more data than the limit was discarded. Contains the JSON-RPC id in it, if it has one.
    TooLong(Option<u64>),
}

/// Assembles events from chunks of any size.
#[derive(Debug, Default)]
pub(super) struct Events {
    framer: Framer,
    has_begun: bool,
    kind: Bytes,
    data: Data,
    /// The id of the last event that had one.
    last_id: Option<Bytes>,
    /// How long to wait before the stream is asked for again.
    retry: Option<Duration>,
    /// Bytes of the event that has not ended.
    unended: u64,
}

/// The data of an event that has not ended.
#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    /// One line, which is the usual case.
    Line(Bytes),
    Lines(BytesMut),
    /// More than the limit.
    TooLong(Option<u64>),
}

impl Events {
    /// Reads a stream that goes on after the event with this id.
    pub(super) fn after(last_id: Bytes) -> Self {
        Self { last_id: Some(last_id), ..Self::default() }
    }

    /// Adds a chunk of the stream.
    pub(super) fn add(&mut self, chunk: &[u8]) {
        self.framer.space().extend_from_slice(chunk);
    }

    /// Returns the id of the last event that had one. The stream can be resumed after it.
    pub(super) fn last_id(&self) -> Option<&Bytes> {
        self.last_id.as_ref().filter(|id| !id.is_empty())
    }

    /// Returns how long the server wants to be left alone before the stream is asked for again.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Returns the next complete event. `limit` is that of its data, in bytes, and may change from call to call.
    pub(super) fn next(&mut self, limit: usize) -> Option<Found> {
        while let Some(frame) = self.framer.next(limit) {
            let line = match frame {
                Frame::Line(line) => line,
                Frame::TooLong(id) => {
                    self.has_begun = true;
                    self.data = Data::TooLong(id);
                    continue;
                }
            };
            let line = if self.has_begun {
                line
            } else {
                line.strip_prefix(BYTE_ORDER_MARK).map_or(line.clone(), |rest| line.slice_ref(rest))
            };
            self.has_begun = true;
            let line = line.strip_suffix(b"\r").map_or(line.clone(), |rest| line.slice_ref(rest));
            self.unended += line.len() as u64 + 1;
            if line.is_empty() {
                self.unended = 0;
                if let Some(found) = self.end() {
                    return Some(found);
                }
                continue;
            }
            self.field(&line, limit);
        }
        None
    }

    /// Returns how many bytes there were so far of an event that has not ended.
    pub(super) fn unended(&self) -> u64 {
        self.unended + self.framer.discarded()
    }

    /// Ends an event. An event without data is none: some servers begin a stream with one, for its id.
    fn end(&mut self) -> Option<Found> {
        let kind = std::mem::take(&mut self.kind);
        let data = match std::mem::take(&mut self.data) {
            Data::None => return None,
            Data::Line(line) if line.is_empty() => return None,
            Data::Line(line) => line,
            Data::Lines(lines) => lines.freeze(),
            Data::TooLong(id) => return Some(Found::TooLong(id)),
        };
        Some(Found::Event(Event { kind, data }))
    }

    fn field(&mut self, line: &Bytes, limit: usize) {
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let name = line.slice(..colon);
        let value = line.slice((colon + 1).min(line.len())..);
        let value = value.strip_prefix(b" ").map_or(value.clone(), |rest| value.slice_ref(rest));
        match &*name {
            b"data" => self.add_data(value, limit),
            // Copied, as they outlive the block of the stream that they are in.
            b"event" => self.kind = Bytes::copy_from_slice(value.get(..MAX_KIND).unwrap_or(&value)),
            b"id" if value.len() <= MAX_ID && !value.contains(&0) => {
                self.last_id = Some(Bytes::copy_from_slice(&value));
            }
            b"retry" => {
                let pause = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                self.retry = pause.map(|millis| Duration::from_millis(millis).min(MAX_RETRY)).or(self.retry);
            }
            // Comments, and what is not known.
            _ => {}
        }
    }

    fn add_data(&mut self, line: Bytes, limit: usize) {
        self.data = match std::mem::take(&mut self.data) {
            Data::None => Data::Line(line),
            Data::Line(first) => Data::Lines(BytesMut::from(first)).with(&line, limit),
            lines => lines.with(&line, limit),
        };
    }
}

impl Data {
    fn with(self, line: &[u8], limit: usize) -> Self {
        match self {
            Self::Lines(mut lines) if lines.len() + line.len() < limit => {
                lines.extend_from_slice(b"\n");
                lines.extend_from_slice(line);
                Self::Lines(lines)
            }
            Self::Lines(_) => Self::TooLong(None),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 64;

    fn read(chunks: &[&str]) -> (Vec<String>, Option<Bytes>) {
        let mut events = Events::default();
        let mut found = Vec::new();
        for chunk in chunks {
            events.add(chunk.as_bytes());
            while let Some(next) = events.next(LIMIT) {
                found.push(match next {
                    Found::Event(Event { kind, data }) => {
                        format!("{}={}", String::from_utf8_lossy(&kind), String::from_utf8_lossy(&data))
                    }
                    Found::TooLong(id) => format!("too long {id:?}"),
                });
            }
        }
        (found, events.last_id().cloned())
    }

    #[test]
    fn events_end_at_an_empty_line() {
        let stream = "\u{feff}: comment\nevent: message\nid: 7\ndata: {\"a\":\ndata: 1}\n\ndata:x\r\n\r\nevent: ping\n\ndata: lost";
        let expected = ["message={\"a\":\n1}", "=x"];
        let (found, last_id) = read(&[stream]);
        assert_eq!(found, expected);
        assert_eq!(last_id.as_deref(), Some(&b"7"[..]));
        let pieces: Vec<_> = stream.char_indices().map(|(at, it)| &stream[at..at + it.len_utf8()]).collect();
        assert_eq!(read(&pieces).0, expected, "in pieces");
    }

    #[test]
    fn an_event_without_data_is_none() {
        let (found, last_id) = read(&["id: 1\nretry: 100\n\n:\n\ndata\n\nid: 2\ndata: \n\n"]);
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(last_id.as_deref(), Some(&b"2"[..]));
    }

    #[test]
    fn an_event_without_an_end_is_noticed() {
        let mut events = Events::default();
        for _ in 0..1000 {
            events.add(b"data: x\n");
            assert!(events.next(LIMIT).is_none());
        }
        assert_eq!(events.unended(), 8000);
        events.add(b"\nretry: 200000\n\n");
        assert_eq!(events.next(LIMIT), Some(Found::TooLong(None)));
        assert_eq!((events.next(LIMIT), events.unended(), events.retry()), (None, 0, Some(MAX_RETRY)));
    }

    #[test]
    fn an_event_above_the_limit_is_discarded_and_the_next_one_is_not() {
        let long = format!("data: {{\"id\":3,\"x\":\"{}\"}}\n\ndata: y\n\n", "x".repeat(LIMIT));
        assert_eq!(read(&[&long]).0, ["too long Some(3)", "=y"]);
        let lines = format!("{}\ndata: y\n\n", "data: xxxxxxxxxxxxxxxx\n".repeat(8));
        assert_eq!(read(&[&lines]).0, ["too long None", "=y"]);
    }
}
