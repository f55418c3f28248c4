//! Splits a text into words and numbers, and knows the few words that say how a call went.

use std::sync::LazyLock;

use foldhash::HashMap;

/// Longest word whose meaning is known.
const LONGEST: usize = 16;
/// Shortest word that can be an id.
const SHORTEST_ID: usize = 6;

/// A word or a number of a text.
pub(super) struct Token<'t> {
    pub(super) text: &'t [u8],
    pub(super) number: bool,
    /// A time, a duration or a UUID.
    pub(super) volatile: bool,
    /// It mixes digits and letters and is not short, as ids of requests and locks.
    pub(super) id: bool,
}

/// What a word says about a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Part of every result.
    Envelope,
    Failure,
    Waiting,
    /// Something is in order.
    Fine,
    Ready,
    /// After `not`: a failure.
    Found,
    /// After `no`: nothing was found.
    Things,
    /// Before `0`: nothing was found.
    Count,
    Not,
    No,
    Null,
    /// May be between `no` and what there is none of.
    Filler,
    /// Names a number that changes without meaning.
    Volatile,
    /// Names a value that changes without meaning.
    Opaque,
    Other,
}

/// The words whose meaning is known, in lower case.
const MEANINGS: [(Word, &[&str]); 14] = [
    (Word::Envelope, &["content", "type", "text", "iserror", "true"]),
    (
        Word::Failure,
        &[
            "failed",
            "fail",
            "fails",
            "failing",
            "failure",
            "failures",
            "error",
            "errors",
            "exception",
            "traceback",
            "fatal",
            "panicked",
            "denied",
            "refused",
            "timeout",
            "unable",
            "cannot",
            "forbidden",
            "unauthorized",
            "enoent",
        ],
    ),
    (
        Word::Waiting,
        &[
            "pending",
            "queued",
            "running",
            "progress",
            "waiting",
            "processing",
            "starting",
            "building",
            "initializing",
            "provisioning",
            "scheduled",
            "creating",
            "updating",
            "deploying",
            "awaiting",
            "blocked",
            "submitted",
            "pulling",
            "downloading",
            "uploading",
            "terminating",
            "restarting",
            "copying",
            "migrating",
            "indexing",
            "syncing",
            "progressing",
        ],
    ),
    (
        Word::Fine,
        &[
            "ok",
            "success",
            "successful",
            "successfully",
            "succeeded",
            "passed",
            "pass",
            "clean",
            "healthy",
            "completed",
            "done",
            "finished",
        ],
    ),
    (Word::Ready, &["ready"]),
    (Word::Found, &["found"]),
    (
        Word::Things,
        &[
            "results",
            "result",
            "matches",
            "match",
            "items",
            "entries",
            "records",
            "files",
            "rows",
            "messages",
            "documents",
            "hits",
            "data",
            "replies",
            "comments",
            "changes",
            "updates",
            "events",
            "notifications",
            "tasks",
            "jobs",
            "mails",
            "emails",
            "posts",
            "issues",
            "problems",
            "warnings",
            "differences",
        ],
    ),
    (Word::Count, &["count", "total", "totalcount", "numfound"]),
    (Word::Not, &["not"]),
    (Word::No, &["no", "0", "zero", "without"]),
    (Word::Null, &["null", "none", "false"]),
    (Word::Filler, &["new", "more", "matching", "search", "such"]),
    (
        Word::Volatile,
        &[
            "duration",
            "durationms",
            "elapsed",
            "elapsedms",
            "timestamp",
            "time",
            "took",
            "uptime",
            "age",
            "latency",
            "page",
            "offset",
            "skip",
            "attempt",
            "retry",
            "ms",
        ],
    ),
    (
        Word::Opaque,
        &[
            "cursor",
            "nextcursor",
            "pagetoken",
            "nextpagetoken",
            "request",
            "requestid",
            "trace",
            "traceid",
            "nonce",
            "etag",
        ],
    ),
];

/// The same, by the words as numbers: a result has hundreds of words.
static KINDS: LazyLock<HashMap<u128, Word>> = LazyLock::new(|| {
    let each =
        |(kind, words): (Word, &'static [&str])| words.iter().map(move |word| (as_number(word.as_bytes()), kind));
    MEANINGS.into_iter().flat_map(each).collect()
});

/// The first letters of the known words of each length, as bits: most words of a text are not known, and need no search.
const FIRST_LETTERS: [u32; LONGEST + 1] = {
    let mut letters = [0; LONGEST + 1];
    let mut at = 0;
    while at < MEANINGS.len() {
        let (_, words) = MEANINGS[at];
        let mut word = 0;
        while word < words.len() {
            letters[words[word].len()] |= bit(words[word].as_bytes()[0]);
            word += 1;
        }
        at += 1;
    }
    letters
};

/// Returns the bit of a letter, the same for both of its cases.
const fn bit(letter: u8) -> u32 {
    1 << (letter & 31)
}

/// Returns what a word says.
pub(super) fn kind(word: &[u8]) -> Word {
    let letters = FIRST_LETTERS.get(word.len()).copied().unwrap_or_default();
    if word.first().is_none_or(|first| letters & bit(*first) == 0) {
        return Word::Other;
    }
    KINDS.get(&as_number(word)).copied().unwrap_or(Word::Other)
}

/// Returns a word of at most [`LONGEST`] letters and digits as a number, the same for both cases of a letter.
fn as_number(word: &[u8]) -> u128 {
    const LOWER: u128 = u128::from_le_bytes([b' '; LONGEST]);
    let mut bytes = [0; LONGEST];
    if let Some(bytes) = bytes.get_mut(..word.len()) {
        bytes.copy_from_slice(word);
    }
    u128::from_le_bytes(bytes) | LOWER
}

/// Calls `add` for each word and number of a JSON text. Escapes end a word.
pub(super) fn each<'t>(text: &'t [u8], mut add: impl FnMut(Token<'t>)) {
    let (mut at, mut in_date) = (0, false);
    while let Some(&byte) = text.get(at) {
        if byte == b'\\' {
            at += if text.get(at + 1) == Some(&b'u') { 6 } else { 2 };
            continue;
        }
        if !in_word(byte) {
            at += 1;
            continue;
        }
        let start = at;
        if let Some(end) = uuid(text, start) {
            add(Token { text: &text[start..end], number: false, volatile: true, id: true });
            at = end;
            continue;
        }
        let number = byte.is_ascii_digit();
        let mut classes = 0;
        while let Some(&byte) = text.get(at) {
            let class = class(byte);
            let fraction = number && byte == b'.' && text.get(at + 1).is_some_and(u8::is_ascii_digit);
            if class == 0 && !fraction {
                break;
            }
            classes |= class;
            at += 1;
        }
        let word = &text[start..at];
        let volatile = number && {
            let (before, after) = (&text[..start], &text[at..]);
            let dated = in_date && before.ends_with(b"-") || starts_date(word, after);
            in_date = dated;
            dated || of_clock(before, after) || is_epoch(word) || is_duration(word, after)
        };
        in_date &= number;
        let id = word.len() >= SHORTEST_ID && classes & (DIGIT | LETTER) == DIGIT | LETTER;
        add(Token { text: word, number, volatile, id });
    }
}

/// Bits of [`CLASSES`].
const DIGIT: u8 = 1;
const LETTER: u8 = 2;
const OUTSIDE_ASCII: u8 = 4;

/// What each byte is; 0 for bytes between words.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte: u8 = 0;
    loop {
        classes[byte as usize] = match byte {
            b'0'..=b'9' => DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            0x80.. => OUTSIDE_ASCII,
            _ => 0,
        };
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};

fn class(byte: u8) -> u8 {
    CLASSES[usize::from(byte)]
}

fn in_word(byte: u8) -> bool {
    class(byte) != 0
}

/// Returns the end of the UUID that begins at `start`.
fn uuid(text: &[u8], start: usize) -> Option<usize> {
    if text.get(start + 8) != Some(&b'-') {
        return None;
    }
    let candidate = text.get(start..start + 36)?;
    let fits = candidate.iter().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    fits.then_some(start + 36)
}

/// A year before a month, as in `2026-11-26`.
fn starts_date(word: &[u8], after: &[u8]) -> bool {
    word.len() == 4
        && (word.starts_with(b"19") || word.starts_with(b"20"))
        && matches!(after, [b'-', digit, ..] if digit.is_ascii_digit())
}

/// A part of `12:34:56`.
fn of_clock(before: &[u8], after: &[u8]) -> bool {
    matches!(before, [.., digit, b':'] if digit.is_ascii_digit())
        || matches!(after, [b':', digit, ..] if digit.is_ascii_digit())
}

/// Seconds or milliseconds since 1970.
fn is_epoch(word: &[u8]) -> bool {
    let digits = word.split(|byte| *byte == b'.').next().unwrap_or_default();
    matches!(digits.len(), 10 | 13) && digits.starts_with(b"1") && digits.iter().all(u8::is_ascii_digit)
}

/// `0.5s`, `12ms`, `5m32s`, or a number before ` seconds` and the like.
fn is_duration(word: &[u8], after: &[u8]) -> bool {
    const UNITS: [&[u8]; 8] = [b"s", b"ms", b"sec", b"secs", b"second", b"seconds", b"minutes", b"milliseconds"];
    let unit = word.iter().position(u8::is_ascii_alphabetic).map(|at| &word[at..]);
    match unit {
        Some(unit) if UNITS.contains(&unit) => true,
        Some(unit) => unit.ends_with(b"s") && unit.iter().all(|byte| byte.is_ascii_digit() || b"hms.".contains(byte)),
        None => after.strip_prefix(b" ").is_some_and(|after| {
            let end = after.iter().position(|byte| !in_word(*byte)).unwrap_or(after.len());
            UNITS.contains(&&after[..end])
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_known_in_both_cases_and_only_as_a_whole() {
        for (meaning, words) in MEANINGS {
            for word in words {
                assert_eq!(kind(word.as_bytes()), meaning, "{word}");
                assert_eq!(kind(word.to_ascii_uppercase().as_bytes()), meaning, "{word}");
                assert_ne!(kind(format!("{word}x").as_bytes()), meaning, "{word}");
            }
        }
        assert_eq!(kind(b""), Word::Other);
        assert_eq!(kind(b"waits"), Word::Other);
    }

    #[test]
    fn a_word_of_digits_and_letters_is_an_id_unless_it_is_short() {
        let is_id = |word: &str| {
            let mut found = Vec::new();
            each(word.as_bytes(), |token| found.push(token.id));
            found
        };
        assert_eq!(is_id("8f3a9c"), [true]);
        assert_eq!(is_id("8f3a9"), [false]);
        assert_eq!(is_id("123456 abcdef"), [false, false]);
        assert_eq!(is_id("9b2d6a1e-7c3f-4e58-a0d1-5f6e7c8b9a0d"), [true]);
    }
}
