//! Splits a text into words and numbers, and knows the few words that say how a call went.

/// Longest word whose meaning is known.
const LONGEST: usize = 16;

/// A word or a number of a text.
pub(super) struct Token<'t> {
    pub(super) text: &'t [u8],
    pub(super) number: bool,
    /// A time, a duration or a UUID.
    pub(super) volatile: bool,
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

/// Returns what a word says.
pub(super) fn kind(word: &[u8]) -> Word {
    let mut buffer = [0; LONGEST];
    let Some(lower) = buffer.get_mut(..word.len()) else { return Word::Other };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    match &*lower {
        b"content" | b"type" | b"text" | b"iserror" | b"true" | b"structuredcontent" => Word::Envelope,
        b"failed" | b"fail" | b"fails" | b"failing" | b"failure" | b"failures" | b"error" | b"errors"
        | b"exception" | b"traceback" | b"fatal" | b"panicked" | b"denied" | b"refused" | b"timeout" | b"unable"
        | b"cannot" | b"forbidden" | b"unauthorized" | b"enoent" => Word::Failure,
        b"pending" | b"queued" | b"running" | b"progress" | b"waiting" | b"processing" | b"starting" | b"building"
        | b"initializing" | b"provisioning" | b"scheduled" | b"creating" | b"updating" | b"deploying" | b"awaiting"
        | b"blocked" | b"submitted" | b"pulling" | b"downloading" | b"uploading" | b"terminating" | b"restarting"
        | b"copying" | b"migrating" | b"indexing" | b"syncing" | b"progressing" => Word::Waiting,
        b"ok" | b"success" | b"successful" | b"successfully" | b"succeeded" | b"passed" | b"pass" | b"clean"
        | b"healthy" | b"completed" | b"done" | b"finished" => Word::Fine,
        b"ready" => Word::Ready,
        b"found" => Word::Found,
        b"results" | b"result" | b"matches" | b"match" | b"items" | b"entries" | b"records" | b"files" | b"rows"
        | b"messages" | b"documents" | b"hits" | b"data" | b"replies" | b"comments" | b"changes" | b"updates"
        | b"events" | b"notifications" | b"tasks" | b"jobs" | b"mails" | b"emails" | b"posts" | b"issues"
        | b"problems" | b"warnings" | b"differences" => Word::Things,
        b"count" | b"total" | b"totalcount" | b"numfound" => Word::Count,
        b"not" => Word::Not,
        b"no" | b"0" | b"zero" | b"without" => Word::No,
        b"null" | b"none" | b"false" => Word::Null,
        b"new" | b"more" | b"matching" | b"search" | b"such" => Word::Filler,
        b"duration" | b"durationms" | b"elapsed" | b"elapsedms" | b"timestamp" | b"time" | b"took" | b"uptime"
        | b"age" | b"latency" | b"page" | b"offset" | b"skip" | b"attempt" | b"retry" | b"ms" => Word::Volatile,
        b"cursor" | b"nextcursor" | b"pagetoken" | b"nextpagetoken" | b"request" | b"requestid" | b"trace"
        | b"traceid" | b"nonce" | b"etag" => Word::Opaque,
        _ => Word::Other,
    }
}

/// Returns whether a word mixes digits and letters, as ids of requests and locks do.
pub(super) fn is_id(word: &[u8]) -> bool {
    const SHORTEST: usize = 6;
    word.len() >= SHORTEST && word.iter().any(u8::is_ascii_digit) && word.iter().any(u8::is_ascii_alphabetic)
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
            add(Token { text: &text[start..end], number: false, volatile: true });
            at = end;
            continue;
        }
        let number = byte.is_ascii_digit();
        while let Some(&byte) = text.get(at) {
            let fraction = number && byte == b'.' && text.get(at + 1).is_some_and(u8::is_ascii_digit);
            if !in_word(byte) && !fraction {
                break;
            }
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
        add(Token { text: word, number, volatile });
    }
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// Returns the end of the UUID that begins at `start`.
fn uuid(text: &[u8], start: usize) -> Option<usize> {
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
