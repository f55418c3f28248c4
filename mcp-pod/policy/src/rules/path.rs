//! Checks the text of paths. The shim does the rest: it resolves them without following links.
//!
//! Characters that a server may interpret are refused too: `*` and `?` always, `[` and `{` where hidden names are
//! excluded (`[.]git` matches a hidden name), backslashes, components that begin with `~`, and control characters.

use super::{RuleError, forms};
use crate::model::PathRule;
use crate::reason::Reason;

/// The longest path in bytes (Linux's `PATH_MAX` without the terminating zero).
const MAX_LENGTH: usize = 4095;
/// The longest component in bytes (`NAME_MAX`).
const MAX_COMPONENT: usize = 255;

/// A compiled path rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Absolute directories without a trailing slash, except for `/` itself.
    pub(crate) within: Vec<String>,
    /// Extensions with their leading dot; `None` admits any.
    pub(crate) extensions: Option<Vec<String>>,
    /// Whether components below the root may begin with a dot.
    pub(crate) dotfiles: bool,
}

impl Path {
    pub(super) fn new(rule: &PathRule) -> Result<Self, RuleError> {
        let PathRule { within, extensions, dotfiles } = rule;
        if within.is_empty() {
            return Err(RuleError::Empty("a path rule without a directory"));
        }
        let within = within.iter().map(|root| self::root(root)).collect::<Result<_, _>>()?;
        let extensions = extensions.iter().map(|text| extension(text)).collect::<Result<Vec<_>, _>>()?;
        let extensions = (!extensions.is_empty()).then_some(extensions);
        Ok(Self { within, extensions, dotfiles: *dotfiles })
    }

    /// Returns the rule that admits what both rules admit, or `None` if that is nothing.
    pub(super) fn intersect(&self, other: &Self) -> Option<Self> {
        let mut within = Vec::new();
        for left in &self.within {
            for right in &other.within {
                // The deeper root applies, unless the rule with the other root excludes a hidden component of it.
                let root = match (beneath(left, right), beneath(right, left)) {
                    (Some(rest), _) if other.dotfiles || !has_hidden(rest) => left,
                    (_, Some(rest)) if self.dotfiles || !has_hidden(rest) => right,
                    _ => continue,
                };
                if !within.contains(root) {
                    within.push(root.clone());
                }
            }
        }
        let extensions = match (&self.extensions, &other.extensions) {
            (None, extensions) | (extensions, None) => extensions.clone(),
            (Some(left), Some(right)) => {
                let mut both: Vec<String> = Vec::new();
                // `.gz` and `.tar.gz` have `.tar.gz` in common.
                for (one, two) in left.iter().flat_map(|one| right.iter().map(move |two| (one, two))) {
                    let common = if one.ends_with(two.as_str()) { one } else { two };
                    if (one.ends_with(two.as_str()) || two.ends_with(one.as_str())) && !both.contains(common) {
                        both.push(common.clone());
                    }
                }
                Some(both)
            }
        };
        let empty = within.is_empty() || extensions.as_ref().is_some_and(Vec::is_empty);
        (!empty).then_some(Self { within, extensions, dotfiles: self.dotfiles && other.dotfiles })
    }

    /// Checks the text of a path. The error is the reason and a predicate such as `must be …`.
    pub(super) fn check(&self, path: &str) -> Result<(), (Reason, String)> {
        if path.len() > MAX_LENGTH {
            return Err((Reason::ArgumentOutOfRange, format!("must be at most {MAX_LENGTH} bytes long")));
        }
        if path.chars().any(|character| character.is_control() || matches!(character, '*' | '?' | '\\')) {
            return Err((
                Reason::ArgumentPattern,
                "must not contain `*`, `?`, a backslash or control characters".to_owned(),
            ));
        }
        let rest = path.strip_prefix('/').ok_or_else(|| self.outside())?;
        if !rest.is_empty() && !rest.split('/').all(is_plain) {
            return Err(self.outside());
        }
        let mut hidden = false;
        let found = self.within.iter().any(|root| {
            beneath(path, root).is_some_and(|rest| {
                let excluded = !self.dotfiles && has_hidden(rest);
                hidden |= excluded;
                !excluded
            })
        });
        match (found, hidden) {
            (false, false) => return Err(self.outside()),
            (false, true) => {
                let limit = "must not contain names that begin with a dot, `[` or `{`";
                return Err((Reason::ArgumentPattern, limit.to_owned()));
            }
            (true, _) => {}
        }
        match &self.extensions {
            Some(extensions) if !extensions.iter().any(|extension| has_extension(path, extension)) => {
                Err((Reason::ArgumentPattern, format!("must end in {}", join(extensions))))
            }
            _ => Ok(()),
        }
    }

    /// Returns the error for a path that is not below a root, or may resolve to one that is not.
    fn outside(&self) -> (Reason, String) {
        (Reason::PathOutsideRoots, format!("must be {}", self.describe()))
    }

    /// Describes the whole rule in words, for a model that reads the schema.
    pub(crate) fn in_words(&self) -> String {
        let mut words = self.describe().replacen('a', "A", 1);
        if let Some(extensions) = &self.extensions {
            words.extend(["; ending in ", &join(extensions)]);
        }
        if !self.dotfiles {
            words.push_str("; no names that begin with a dot");
        }
        words
    }

    /// Describes the roots in words.
    fn describe(&self) -> String {
        format!("an absolute path at or below {}, without `.`, `..`, `~` or empty components", join(&self.within))
    }
}

/// Joins the first few items for an error text, and counts the others.
pub(super) fn join(items: &[String]) -> String {
    const MAX_SHOWN: usize = 8;
    let shown: Vec<String> = items.iter().take(MAX_SHOWN).map(|item| format!("`{item}`")).collect();
    let more = if items.len() > MAX_SHOWN { format!(" and {} more", items.len() - MAX_SHOWN) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// Returns the part of the path below the root, compared by components; empty for the root itself.
fn beneath<'p>(path: &'p str, root: &str) -> Option<&'p str> {
    if root == "/" {
        return path.strip_prefix('/');
    }
    let rest = path.strip_prefix(root)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Returns whether the component is an ordinary name.
fn is_plain(component: &str) -> bool {
    !matches!(component, "" | "." | "..") && !component.starts_with('~') && component.len() <= MAX_COMPONENT
}

/// Returns whether a component begins with a dot, or could be interpreted as one that does.
fn has_hidden(rest: &str) -> bool {
    rest.starts_with('.') || rest.contains("/.") || rest.contains(['[', '{'])
}

fn has_extension(path: &str, extension: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.len() > extension.len() && name.ends_with(extension)
}

fn root(text: &str) -> Result<String, RuleError> {
    if !forms::ROOT.admits(text) {
        return Err(RuleError::Root(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// Returns the extension with its leading dot.
fn extension(text: &str) -> Result<String, RuleError> {
    if !forms::EXTENSION.admits(text) {
        return Err(RuleError::Extension(text.to_owned()));
    }
    Ok(format!(".{text}"))
}
