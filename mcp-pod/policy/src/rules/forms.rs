//! Forms of the texts in argument rules. The custom resources write their schemas from these, and rules are compiled
//! only from texts that have them.

use crate::units::TextForm;

/// One component of a path: a name that no server could take for another one. It does not contain control characters,
/// a backslash or the beginning of a glob, is not `.` or `..`, and does not begin with `~`.
macro_rules! component {
    () => {
        concat!(
            r"([^./~*?\[{\\\x00-\x1f\x7f-\x9f][^/*?\[{\\\x00-\x1f\x7f-\x9f]*",
            r"|\.[^./*?\[{\\\x00-\x1f\x7f-\x9f][^/*?\[{\\\x00-\x1f\x7f-\x9f]*",
            r"|\.\.[^/*?\[{\\\x00-\x1f\x7f-\x9f]+)"
        )
    };
}

/// Name of an argument or property: no control characters, which JSON readers may read differently.
pub static ARGUMENT_NAME: TextForm = TextForm::new(r"^[^\x00-\x1f\x7f-\x9f]+$", 128);
/// Root of a path rule: an absolute path without a trailing slash.
pub static ROOT: TextForm = TextForm::new(concat!("^/(", component!(), "(/", component!(), ")*)?$"), 256);
/// File name extension: parts of letters, digits, `_`, `+` and `-` with a dot between them, without the leading dot.
pub static EXTENSION: TextForm = TextForm::new(r"^[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*$", 32);
/// Accepted value of an enumeration or constant: no U+0000, which no string argument may contain.
pub static VALUE: TextForm = TextForm::new(r"^[^\x00]*$", 4096);
/// Bound of a number, in decimal notation. A double holds every such number, if not exactly.
pub static DECIMAL: TextForm = TextForm::new(r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?$", 32);
/// Maximum length of a regular expression in Unicode scalar values.
pub const MAX_PATTERN: usize = 1024;
