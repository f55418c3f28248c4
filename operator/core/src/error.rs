//! The text of an error with its causes.

use std::error::Error;

/// An error of the process around this crate, of a type that is not known here.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Returns an error with all its causes, in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    chain_until(error, |_| None)
}

/// Returns an error with its causes, in one line. Where `complete` returns a text, that takes the place of a cause and ends the
/// line.
pub fn chain_until(
    error: &(dyn Error + 'static),
    complete: impl Fn(&(dyn Error + 'static)) -> Option<String>,
) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        if let Some(last) = complete(error) {
            text.push_str(&last);
            break;
        }
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
