//! Why a text was not taken as JSON; never with a part of that text.

/// A text that is not one acceptable JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset}")]
pub struct ParseError {
    /// What is wrong.
    pub problem: Problem,
    /// Where, in bytes from the start of the text.
    pub offset: usize,
}

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The bytes are not UTF-8.
    #[error("invalid UTF-8")]
    Utf8,
    /// The text begins with a byte order mark (RFC 8259, 8.1).
    #[error("a byte order mark")]
    ByteOrderMark,
    /// The text ends within the value.
    #[error("unexpected end of the text")]
    End,
    /// Not what the grammar allows there.
    #[error("unexpected character")]
    Unexpected,
    /// Something stands behind the value.
    #[error("text behind the value")]
    Trailing,
    /// Too many arrays and objects within one another.
    #[error("nesting that is too deep")]
    Depth,
    /// Too many values.
    #[error("too many values")]
    Nodes,
    /// An object has a key twice, perhaps once with escapes.
    #[error("a duplicate key")]
    DuplicateKey,
    /// A key holds U+0000, at which some readers cut it.
    #[error("U+0000 in a key")]
    NulInKey,
    /// A `\u` escape of half a surrogate pair.
    #[error("a lone surrogate")]
    LoneSurrogate,
    /// A backslash with something behind it that is no escape.
    #[error("an invalid escape")]
    Escape,
    /// A character below U+0020 that is not escaped.
    #[error("a raw control character in a string")]
    ControlCharacter,
    /// Not a number of the grammar.
    #[error("an invalid number")]
    Number,
    /// A whole number further than 2^53 − 1 from zero.
    #[error("an integer outside ±(2^53 - 1)")]
    IntegerRange,
    /// A number that is larger than any double, or smaller than any but zero.
    #[error("a number outside the range of a double")]
    NumberRange,
    /// A number with more digits than a double can hold.
    #[error("a number that a double cannot hold")]
    NumberPrecision,
}

impl Problem {
    /// The error at that offset.
    pub(super) const fn at(self, offset: usize) -> ParseError {
        ParseError { problem: self, offset }
    }
}
