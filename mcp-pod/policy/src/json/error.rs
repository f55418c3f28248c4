//! Why a text was rejected as JSON. Errors never contain a part of the text.

/// Why a text is not one acceptable JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset}")]
pub struct ParseError {
    /// The problem found.
    pub problem: Problem,
    /// Position of the problem, in bytes from the start of the text.
    pub offset: usize,
}

/// A problem in a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The bytes are not UTF-8.
    #[error("invalid UTF-8")]
    Utf8,
    /// The text begins with a byte order mark (RFC 8259, 8.1).
    #[error("a byte order mark")]
    ByteOrderMark,
    /// The text ends inside the value.
    #[error("unexpected end of the text")]
    End,
    /// A character that the grammar does not allow at this position.
    #[error("unexpected character")]
    Unexpected,
    /// The value is followed by more text.
    #[error("text after the value")]
    Trailing,
    /// Arrays and objects are nested too deeply.
    #[error("nesting too deep")]
    Depth,
    /// Too many values.
    #[error("too many values")]
    Nodes,
    /// The caller of the parser has no memory for more values.
    #[error("no memory for so many values")]
    Memory,
    /// An object has a key twice, possibly spelled with escapes.
    #[error("a duplicate key")]
    DuplicateKey,
    /// A key contains U+0000, where some readers truncate it.
    #[error("U+0000 in a key")]
    NulInKey,
    /// A `\u` escape of half a surrogate pair.
    #[error("a lone surrogate")]
    LoneSurrogate,
    /// A backslash that does not begin a valid escape.
    #[error("an invalid escape")]
    Escape,
    /// A character below U+0020 that is not escaped.
    #[error("an unescaped control character in a string")]
    ControlCharacter,
    /// A number that does not match the grammar.
    #[error("an invalid number")]
    Number,
    /// An integer outside ±(2^53 − 1).
    #[error("an integer outside ±(2^53 - 1)")]
    IntegerRange,
    /// A number that overflows a double, or underflows to zero.
    #[error("a number outside the range of a double")]
    NumberRange,
    /// A number with more digits than a double can hold.
    #[error("a number that a double cannot hold")]
    NumberPrecision,
}

impl Problem {
    /// Returns the error with this problem at this offset.
    pub(super) const fn at(self, offset: usize) -> ParseError {
        ParseError { problem: self, offset }
    }
}
