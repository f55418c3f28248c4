//! The policy for arguments, which are too expensive to check with rules in the CRDs.
//!
//! Each expression here spells out the nesting, because CEL cannot recurse. The rules are checked down to depth 3; the
//! operator checks the values below, which few objects have.

use super::namespaces::WRITES_SPEC;
use super::{Admission, Builder};
use crate::argument::MAX_ALL_ARGUMENTS;
use crate::union;

/// Greatest depth at which the rules are checked, counted from 0.
const CHECKED: usize = 2;

/// Variables for the values at each depth: arguments by tool, and then the values in each value.
pub(super) const DEPTHS: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

/// CEL expression for the arguments, by tool.
const FIRST: &str = "(has(object.spec.tools) ? object.spec.tools : []).map(t, has(t.arguments) ? t.arguments : [])";

/// CEL expression for the values in a value `v`.
const CHILDREN: &str = "has(v.array) ? dyn([v.array.items]) : has(v.object) ? dyn(v.object.properties) : has(v.map) ? \
                        dyn([v.map.values]) : has(v.oneOf) ? dyn(v.oneOf.rules) : dyn([])";

/// Returns a CEL expression that calls a method (`map`, `all`) of the lists at a depth with an expression about a value `v`,
/// and puts `after` behind each call.
pub(super) fn at_depth(depth: usize, method: &str, about_v: &str, after: &str) -> String {
    let mut names: Vec<String> = vec!["t".to_owned()];
    names.extend((1..=depth).map(|level| format!("v{level}")));
    names.push("v".to_owned());
    let list = |index: usize| match index.checked_sub(1).and_then(|outer| names.get(outer)) {
        Some(outer) => outer.clone(),
        None => format!("variables.{}", DEPTHS.get(depth).copied().unwrap_or_default()),
    };
    names.iter().enumerate().rev().fold(about_v.to_owned(), |expression, (index, name)| {
        format!("{}.{method}({name}, {expression}){after}", list(index))
    })
}

/// Adds the variables for the values at each depth.
pub(super) fn with_depths(policy: Builder) -> Builder {
    DEPTHS.iter().enumerate().skip(1).fold(policy.variable("first", FIRST), |policy, (depth, name)| {
        policy.variable(name, at_depth(depth - 1, "map", CHILDREN, ""))
    })
}

/// Returns the policy: every rule on arguments of servers and scopes.
pub(super) fn policy() -> Admission {
    let policy = Builder::new("mcp-fleet-nested-arguments", &["CREATE", "UPDATE"])
        .on_our_kinds(&["mcpservers", "mcpscopes"])
        .when("writes-the-spec", WRITES_SPEC);
    let mut policy = with_depths(policy).require(
        "Invalid",
        format!("variables.first.map(t, size(t)).sum() <= {MAX_ALL_ARGUMENTS}"),
        format!(
            "spec.tools must have at most {MAX_ALL_ARGUMENTS} arguments in all; divide the tools among several objects"
        ),
    );
    for depth in 0..=CHECKED {
        let place = if depth == 0 { String::new() } else { format!(", at depth {}", depth + 1) };
        for (rule, message) in union::rules() {
            let expression = at_depth(depth, "all", &rule, "");
            policy = policy.require("Invalid", expression, format!("spec.tools[].arguments[]{place}: {message}"));
        }
    }
    policy.build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_object_that_does_not_follow_the_rules_can_be_freed_of_its_finalizers() {
        let conditions = policy().policy.spec.unwrap().match_conditions.unwrap_or_default();
        let expressions: Vec<&str> = conditions.iter().map(|condition| &*condition.expression).collect();
        assert_eq!(expressions, [WRITES_SPEC]);
    }
}
