//! What the detector keeps of a result: two digests and a few signs, never the text.
//!
//! Texts of results are full of values that change without meaning: times, durations, request ids, the arguments that
//! an error repeats. The shape of a result is its words and numbers without these, so that two failures of one cause
//! are alike. A result has to have the same bytes to count as the same poll.

use std::hash::BuildHasher as _;

use super::words::{self, Word};

/// Bytes of a result whose words are read. What follows counts byte by byte.
const READ: usize = 4 * 1024;
/// Bytes of the arguments whose words are read.
const READ_OF_ARGUMENTS: usize = 1024;
/// Distinct words of the arguments that are remembered, to find them again in an error.
const ECHOES: usize = 32;

/// Number of words up to which a result is terse.
const TERSE: u32 = 4;

/// Number of words that may be between `no` and what there is none of, as in `no web results`.
const NEAR: u8 = 3;

/// Keyed hash function of one detector. A server that knew the key could choose two results with one digest.
pub(super) type Hasher = foldhash::quality::RandomState;

/// The signs of a result.
#[expect(clippy::struct_excessive_bools, reason = "a result can have several of them")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signs {
    /// It is an error, or reads like one.
    pub(super) failing: bool,
    /// It says that something is not finished yet.
    pub(super) waiting: bool,
    /// It has no content, or only a phrase such as "no results".
    pub(super) empty: bool,
    /// It says that something is in order.
    pub(super) fine: bool,
    /// It has only a few words: different questions can have this answer.
    pub(super) terse: bool,
}

/// What is kept of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Digest of the bytes.
    pub(super) exact: u64,
    /// Digest of the words and numbers that mean something.
    pub(super) shape: u64,
    pub(super) signs: Signs,
}

impl Fingerprint {
    /// Reads a result: `text` as the server wrote it, in JSON, of a call with these arguments, also in JSON.
    pub(super) fn of(hasher: &Hasher, text: &[u8], arguments: &[u8], is_error: bool) -> Self {
        let (head, rest) = text.split_at(text.len().min(READ));
        let rest = if rest.is_empty() { 0 } else { hasher.hash_one(rest) };
        let exact = mix(hasher.hash_one(head), rest);
        let mut echoes = Echoes::default();
        let arguments = &arguments[..arguments.len().min(READ_OF_ARGUMENTS)];
        words::each(arguments, |word| echoes.add(hasher.hash_one(word.text)));
        let mut reading = Reading::default();
        words::each(head, |word| reading.add(hasher, &echoes, &word));
        let (signs, shape) = reading.end(is_error);
        Self { exact, shape: mix(mix(shape, rest), u64::from(is_error)), signs }
    }

    /// Returns the fingerprint of a call that ended without a result, for this reason.
    pub(super) fn failure(hasher: &Hasher, reason: &str) -> Self {
        let digest = hasher.hash_one(reason);
        Self { exact: digest, shape: digest, signs: Signs { failing: true, ..Signs::default() } }
    }
}

fn mix(digest: u64, more: u64) -> u64 {
    (digest.rotate_left(23) ^ more).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Digests of the words of the arguments.
#[derive(Default)]
struct Echoes {
    digests: [u64; ECHOES],
    length: usize,
    /// A bit for each digest, by its lowest bits. Most words of a result are not among the digests.
    bits: u64,
}

impl Echoes {
    fn add(&mut self, digest: u64) {
        if !self.has(digest)
            && let Some(place) = self.digests.get_mut(self.length)
        {
            *place = digest;
            self.length += 1;
            self.bits |= Self::bit(digest);
        }
    }

    fn has(&self, digest: u64) -> bool {
        self.bits & Self::bit(digest) != 0 && self.digests.iter().take(self.length).any(|known| *known == digest)
    }

    const fn bit(digest: u64) -> u64 {
        1 << (digest % 64)
    }
}

/// What is known of a result so far.
#[expect(clippy::struct_excessive_bools, reason = "a result can have several signs")]
#[derive(Default)]
struct Reading {
    shape: u64,
    /// The shape without words of the arguments and ids.
    bare: u64,
    /// Number of words in `bare` that are not of the envelope.
    words: u32,
    before: Before,
    failing: bool,
    waiting: bool,
    empty: bool,
    fine: bool,
    /// Number of words since `no`.
    since_no: Option<u8>,
    /// The word before was a [`Word::Count`].
    counts: bool,
    /// A word for a failure that the next word may take back, as in `"error":null`.
    undecided: bool,
}

/// The word before, as far as it changes the meaning of the next one.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Before {
    #[default]
    Other,
    /// `no`, `not`, `0` and the like.
    Negation,
    /// `not`.
    Not,
    /// Names a number that changes without meaning.
    Volatile,
    /// Names a value that changes without meaning.
    Opaque,
}

impl Reading {
    fn add(&mut self, hasher: &Hasher, echoes: &Echoes, word: &words::Token<'_>) {
        let kind = words::kind(word.text);
        if std::mem::take(&mut self.undecided) && !matches!(kind, Word::No | Word::Null) {
            self.failing = true;
        }
        let named = self.before == Before::Opaque || (self.before == Before::Volatile && word.number);
        let volatile = (word.volatile || named) && kind != Word::Opaque;
        if !volatile && kind != Word::Envelope {
            let digest = hasher.hash_one(word.text);
            self.shape = mix(self.shape, digest);
            if !echoes.has(digest) && !word.id {
                self.bare = mix(self.bare, digest);
                self.words += u32::from(!matches!(kind, Word::No | Word::Null | Word::Things | Word::Filler));
            }
        }
        let negated = matches!(self.before, Before::Negation | Before::Not);
        match kind {
            Word::Failure => self.undecided = !negated,
            Word::Waiting => self.waiting = true,
            Word::Ready if self.before == Before::Not => self.waiting = true,
            Word::Found if self.before == Before::Not => self.failing = true,
            Word::Things if self.since_no.is_some_and(|words| words < NEAR) => self.empty = true,
            Word::No if self.counts => self.empty = true,
            Word::Fine | Word::Ready => self.fine |= !negated,
            _ => {}
        }
        self.counts = kind == Word::Count;
        self.since_no = if kind == Word::No { Some(0) } else { self.since_no.map(|words| words.saturating_add(1)) };
        self.before = match kind {
            Word::Not => Before::Not,
            Word::No => Before::Negation,
            Word::Volatile => Before::Volatile,
            Word::Opaque => Before::Opaque,
            // `request id: 8f3a9c`, `"cursor":null`
            Word::Other if self.before == Before::Opaque && word.text.eq_ignore_ascii_case(b"id") => Before::Opaque,
            // `no new results`, `0 more items`
            Word::Filler => self.before,
            _ => Before::Other,
        };
    }

    fn end(self, is_error: bool) -> (Signs, u64) {
        let waiting = self.waiting && !is_error;
        let failing = is_error || (self.failing || self.undecided) && !waiting;
        let empty = !failing && (self.empty || self.words == 0);
        let fine = self.fine && !failing && !waiting;
        let shape = if failing || empty { self.bare } else { self.shape };
        (Signs { failing, waiting, empty, fine, terse: self.words <= TERSE }, shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, arguments: &str, is_error: bool) -> Fingerprint {
        let result = serde_json::json!({"content": [{"type": "text", "text": text}]}).to_string();
        Fingerprint::of(&Hasher::default_for_tests(), result.as_bytes(), arguments.as_bytes(), is_error)
    }

    trait Seeded {
        fn default_for_tests() -> Self;
    }

    impl Seeded for Hasher {
        fn default_for_tests() -> Self {
            thread_local!(static HASHER: Hasher = Hasher::default());
            HASHER.with(Clone::clone)
        }
    }

    fn alike(a: &str, b: &str) -> bool {
        of(a, "{}", false).shape == of(b, "{}", false).shape
    }

    #[test]
    fn times_durations_and_request_ids_do_not_change_the_shape() {
        for (a, b) in [
            (r#"{"next_cursor":"f00ba7","n":1}"#, r#"{"next_cursor":"dead99","n":1}"#),
            ("2 failed in 0.53s", "2 failed in 1.2s"),
            ("2 failed in 12 ms", "2 failed in 9 ms"),
            ("done in 5m32s", "done in 41s"),
            ("at 2026-11-26T01:02:03.123Z: refused", "at 2027-01-02T11:22:33.9Z: refused"),
            ("id 550e8400-e29b-41d4-a716-446655440000", "id 123e4567-e89b-12d3-a456-426614174000"),
            (r#"{"durationMs": 53, "n": 1}"#, r#"{"durationMs": 71, "n": 1}"#),
            (r#"{"page": 3, "items": ["a"]}"#, r#"{"page": 4, "items": ["a"]}"#),
            ("started 1764119000", "started 1764119999"),
        ] {
            assert!(alike(a, b), "{a:?} and {b:?}");
        }
    }

    #[test]
    fn counts_and_names_change_the_shape() {
        for (a, b) in [
            ("3 failed, 9 passed", "2 failed, 10 passed"),
            ("42%", "43%"),
            ("a.rs", "b.rs"),
            (r#"{"passed":3}"#, r#"{"passed":4}"#),
            ("", "x"),
        ] {
            assert!(!alike(a, b), "{a:?} and {b:?}");
        }
    }

    #[test]
    fn a_failure_is_alike_whatever_arguments_it_repeats() {
        let missing = |path: &str| {
            of(&format!("ENOENT: no such file, open '{path}'"), &format!(r#"{{"path":"{path}"}}"#), true).shape
        };
        assert_eq!(missing("/workspace/a.txt"), missing("/workspace/src/b.md"));
        let lock = |id: &str| of(&format!("state lock {id} is held"), "{}", true).shape;
        assert_eq!(lock("8f3a9c02"), lock("77ab10cd"));
        let got = |id: u32| of(&format!("user {id}: active"), &format!(r#"{{"id":{id}}}"#), false).shape;
        assert_ne!(got(1), got(2), "answers to different questions");
    }

    #[test]
    fn signs_are_read_from_the_words() {
        let signs = |text| of(text, "{}", false).signs;
        for text in ["1 failed, 3 passed", "Traceback (most recent call last)", "file not found", r#"{"error":"x"}"#] {
            assert!(signs(text).failing, "{text}");
        }
        for text in ["0 failed, 4 passed", "no errors", r#"{"error":null,"a":1}"#, "All checks passed!\n"] {
            assert!(!signs(text).failing, "{text}");
        }
        for text in [r#"{"status":"in_progress","failed":1}"#, "state: PENDING", "not ready"] {
            assert!(signs(text).waiting && !signs(text).failing, "{text}");
        }
        for text in [
            "",
            "[]",
            "No results found.",
            "No web results found",
            "0 matches",
            r#"{"total_count":0,"incomplete":false}"#,
            r#"{"items":[]}"#,
            "No new messages",
        ] {
            assert!(signs(text).empty, "{text}");
        }
        assert!(signs("All checks passed!").fine && !signs("3 users").fine && !signs("3 users").empty);
    }

    #[test]
    fn what_follows_the_words_that_are_read_counts_byte_by_byte() {
        let log = |end: &str| format!("error: {}{end}", "step ".repeat(READ / 5));
        let (first, second) = (of(&log("at 12:30:01"), "{}", true), of(&log("at 12:30:02"), "{}", true));
        assert_ne!((first.exact, first.shape), (second.exact, second.shape));
        assert_eq!(of(&log(""), "{}", true), of(&log(""), "{}", true));
        let short = |end: &str| of(&format!("error at 12:30:0{end}"), "{}", true);
        assert_eq!(short("1").shape, short("2").shape);
        assert_ne!(short("1").exact, short("2").exact);
    }
}
