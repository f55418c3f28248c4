//! The parser: recursive descent in one pass, with bounded nesting and a bounded number of values.

use std::borrow::Cow;
use std::collections::HashSet;

use super::{Limits, Members, ParseError, Problem, Strings, Value, number, string};

/// Up to this many members, duplicate keys are found by comparing all pairs; above it, with a randomly seeded hash set.
const MAX_PAIRWISE: usize = 12;

/// Values for which memory is requested at a time.
const VALUES_AT_ONCE: usize = 64;

/// Parses exactly one value, which may be surrounded by white space.
pub fn parse<'a>(text: &'a [u8], limits: &Limits) -> Result<Value<'a>, ParseError> {
    parse_metered(text, limits, limits.nodes, &mut |_| false)
}

/// Parses like [`parse`], and requests memory for the values. `free` values need none. Before more are parsed, `reserve`
/// is called with their number, again and again. If it returns false, the text is rejected.
pub fn parse_metered<'a>(
    text: &'a [u8],
    limits: &Limits,
    free: usize,
    reserve: &mut dyn FnMut(usize) -> bool,
) -> Result<Value<'a>, ParseError> {
    let text = utf8(text)?;
    if text.starts_with('\u{feff}') {
        return Err(Problem::ByteOrderMark.at(0));
    }
    let nodes = free.min(limits.nodes);
    let unreserved = limits.nodes - nodes;
    let mut parser = Parser { text, offset: 0, depth: limits.depth, nodes, unreserved, reserve, limits };
    parser.skip_space();
    let value = parser.value()?;
    parser.skip_space();
    if parser.offset < text.len() {
        return Err(Problem::Trailing.at(parser.offset));
    }
    Ok(value)
}

/// Validates UTF-8 with the fast validator; the slower one runs only on invalid text, to find the offset.
fn utf8(text: &[u8]) -> Result<&str, ParseError> {
    simdutf8::basic::from_utf8(text)
        .or_else(|_| std::str::from_utf8(text).map_err(|error| Problem::Utf8.at(error.valid_up_to())))
}

struct Parser<'a, 'l> {
    text: &'a str,
    offset: usize,
    /// Levels of nesting left.
    depth: usize,
    /// Values left for which there is memory.
    nodes: usize,
    /// Values left beyond these.
    unreserved: usize,
    reserve: &'l mut dyn FnMut(usize) -> bool,
    limits: &'l Limits,
}

impl<'a> Parser<'a, '_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.offset).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.offset += 1;
        }
    }

    fn error(&self, problem: Problem) -> ParseError {
        let problem = if problem == Problem::Unexpected && self.peek().is_none() { Problem::End } else { problem };
        problem.at(self.offset)
    }

    /// Consumes this byte and the white space after it.
    fn expect(&mut self, byte: u8) -> Result<(), ParseError> {
        if self.peek() != Some(byte) {
            return Err(self.error(Problem::Unexpected));
        }
        self.offset += 1;
        self.skip_space();
        Ok(())
    }

    fn value(&mut self) -> Result<Value<'a>, ParseError> {
        if self.nodes == 0 {
            self.reserve_nodes()?;
        }
        self.nodes -= 1;
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => Ok(Value::String(self.string(self.limits.strings)?)),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.error(Problem::Unexpected)),
        }
    }

    #[cold]
    fn reserve_nodes(&mut self) -> Result<(), ParseError> {
        let more = self.unreserved.min(VALUES_AT_ONCE);
        if more == 0 {
            return Err(self.error(Problem::Nodes));
        }
        if !(self.reserve)(more) {
            return Err(self.error(Problem::Memory));
        }
        self.unreserved -= more;
        self.nodes = more;
        Ok(())
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Value<'a>, ParseError>,
    ) -> Result<Value<'a>, ParseError> {
        self.depth = self.depth.checked_sub(1).ok_or(self.error(Problem::Depth))?;
        self.offset += 1;
        self.skip_space();
        let value = read(self)?;
        self.depth += 1;
        Ok(value)
    }

    fn array(&mut self) -> Result<Value<'a>, ParseError> {
        let mut items = Vec::new();
        if self.peek() != Some(b']') {
            loop {
                items.push(self.value()?);
                if !self.more()? {
                    break;
                }
            }
        }
        self.close(b']')?;
        Ok(Value::Array(items))
    }

    fn object(&mut self) -> Result<Value<'a>, ParseError> {
        let start = self.offset;
        let mut members = Vec::new();
        if self.peek() != Some(b'}') {
            loop {
                let key = self.key()?;
                self.skip_space();
                self.expect(b':')?;
                members.push((key, self.value()?));
                if !self.more()? {
                    break;
                }
            }
        }
        if has_duplicate(&members) {
            return Err(Problem::DuplicateKey.at(start));
        }
        self.close(b'}')?;
        Ok(Value::Object(members))
    }

    fn key(&mut self) -> Result<Cow<'a, str>, ParseError> {
        if self.peek() != Some(b'"') {
            return Err(self.error(Problem::Unexpected));
        }
        let start = self.offset;
        let key = self.string(Strings::Decoded)?;
        if key.contains('\0') { Err(Problem::NulInKey.at(start)) } else { Ok(key) }
    }

    /// Consumes a comma, if there is one; returns whether another item follows.
    fn more(&mut self) -> Result<bool, ParseError> {
        self.skip_space();
        if self.peek() != Some(b',') {
            return Ok(false);
        }
        self.expect(b',')?;
        Ok(true)
    }

    fn close(&mut self, byte: u8) -> Result<(), ParseError> {
        if self.peek() != Some(byte) {
            return Err(self.error(Problem::Unexpected));
        }
        self.offset += 1;
        Ok(())
    }

    fn string(&mut self, strings: Strings) -> Result<Cow<'a, str>, ParseError> {
        let (string, end) = string::read(self.text, self.offset + 1, strings)?;
        self.offset = end;
        Ok(string)
    }

    fn number(&mut self) -> Result<Value<'a>, ParseError> {
        let rest = self.text.get(self.offset..).unwrap_or_default();
        let (value, length) = number::read(rest, self.limits.numbers).map_err(|problem| problem.at(self.offset))?;
        self.offset += length;
        Ok(value)
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, ParseError> {
        if !self.text.as_bytes().get(self.offset..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            return Err(self.error(Problem::Unexpected));
        }
        self.offset += word.len();
        Ok(value)
    }
}

fn has_duplicate(members: &Members<'_>) -> bool {
    if members.len() <= MAX_PAIRWISE {
        return members
            .iter()
            .enumerate()
            .any(|(index, (key, _))| members.iter().skip(index + 1).any(|(other, _)| other == key));
    }
    let mut seen = HashSet::with_capacity(members.len());
    !members.iter().all(|(key, _)| seen.insert(key.as_ref()))
}
