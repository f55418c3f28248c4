//! Logs line by line, with bounded memory.

use std::io::{self, BufRead};

/// Bytes of the longest line of a log that is read, with its prefix. Audit lines have at most 8 KiB.
pub const MAX_LINE: usize = 64 << 10;

/// Reads a log line by line. Of a line that is longer than [`MAX_LINE`], only the beginning is kept.
#[derive(Debug)]
pub struct Log<R> {
    from: R,
    line: Vec<u8>,
    number: u64,
}

/// A line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine<'l> {
    /// Number of the line; the first one is 1.
    pub number: u64,
    /// The line, without the prefix of container logs (`<time> stdout F `) and the end of the line.
    pub text: &'l [u8],
    /// Whether the line is longer than [`MAX_LINE`], and `text` is only its beginning.
    pub is_cut: bool,
}

impl<R: BufRead> Log<R> {
    /// Reads from the beginning of a log.
    pub const fn new(from: R) -> Self {
        Self { from, line: Vec::new(), number: 0 }
    }

    /// Reads the next line; none at the end of the log.
    pub fn next_line(&mut self) -> io::Result<Option<LogLine<'_>>> {
        self.line.clear();
        let (mut is_empty, mut is_cut) = (true, false);
        loop {
            let read = self.from.fill_buf()?;
            if read.is_empty() {
                if is_empty {
                    return Ok(None);
                }
                break;
            }
            is_empty = false;
            let end = read.iter().position(|byte| *byte == b'\n');
            let text = read.get(..end.unwrap_or(read.len())).unwrap_or(read);
            let kept = text.get(..MAX_LINE - self.line.len()).unwrap_or(text);
            self.line.extend_from_slice(kept);
            is_cut |= kept.len() < text.len();
            let length = text.len() + usize::from(end.is_some());
            self.from.consume(length);
            if end.is_some() {
                break;
            }
        }
        self.number += 1;
        let text = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        Ok(Some(LogLine { number: self.number, text: without_prefix(text), is_cut }))
    }
}

/// Removes the prefix that the container runtime writes before each line (`<time> <stream> <F or P> `).
fn without_prefix(line: &[u8]) -> &[u8] {
    let mut rest = line;
    for _ in 0..3 {
        if rest.starts_with(b"{") {
            break;
        }
        let Some(space) = rest.iter().position(|byte| *byte == b' ') else { return line };
        rest = rest.get(space + 1..).unwrap_or_default();
    }
    if rest.starts_with(b"{") { rest } else { line }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::BufReader;

    use super::*;

    /// Returns the numbers, lengths and beginnings of the lines of a log that arrives in small pieces.
    fn lines(log: &str) -> Vec<(u64, usize, String, bool)> {
        let (mut log, mut lines) = (Log::new(BufReader::with_capacity(7, log.as_bytes())), Vec::new());
        while let Some(LogLine { number, text, is_cut }) = log.next_line().unwrap() {
            let beginning = String::from_utf8_lossy(text.get(..4).unwrap_or(text)).into_owned();
            lines.push((number, text.len(), beginning, is_cut));
        }
        lines
    }

    #[test]
    fn lines_have_no_prefix_and_no_end() {
        let log = "2026-01-01T00:00:00Z stdout F {\"a\":1}\r\n\nstarted the gateway\n{\"b\":2}";
        let line = |number, length, beginning: &str| (number, length, beginning.to_owned(), false);
        assert_eq!(lines(log), [line(1, 7, "{\"a\""), line(2, 0, ""), line(3, 19, "star"), line(4, 7, "{\"b\"")]);
        assert_eq!(lines(""), []);
    }

    #[test]
    fn of_a_long_line_only_the_beginning_is_kept() {
        let long = "x".repeat(MAX_LINE);
        let text = format!("{long}\n{long}{long}x\nnext\n");
        let line = |number, length, beginning: &str, is_cut| (number, length, beginning.to_owned(), is_cut);
        assert_eq!(
            lines(&text),
            [line(1, MAX_LINE, "xxxx", false), line(2, MAX_LINE, "xxxx", true), line(3, 4, "next", false)]
        );
    }
}
