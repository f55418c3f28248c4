//! The policy for arguments, which are too expensive to check with rules in the CRDs.

use super::{Admission, Builder};
use crate::argument::MAX_ALL_ARGUMENTS;
use crate::union;

/// CEL expression for the arguments, by tool.
pub(super) const FIRST: &str =
    "(has(object.spec.tools) ? object.spec.tools : []).map(t, has(t.arguments) ? t.arguments : [])";

/// CEL expression for the values at depth 2, by tool and argument.
pub(super) const SECOND: &str = "(has(object.spec.tools) ? object.spec.tools : []).map(t, (has(t.arguments) ? \
                                 t.arguments : []).map(a, has(a.array) ? dyn([a.array.items]) : has(a.object) ? \
                                 dyn(a.object.properties) : dyn([])))";

/// CEL expression for the values at depth 3, by tool, argument and value at depth 2.
pub(super) const THIRD: &str = "variables.second.map(t, t.map(a, a.map(v, has(v.array) ? dyn([v.array.items]) : \
                                has(v.object) ? dyn(v.object.properties) : dyn([]))))";

/// Returns the policy: every rule on arguments of servers and scopes.
pub(super) fn policy() -> Admission {
    let mut policy = Builder::new("mcp-fleet-nested-arguments", &["CREATE", "UPDATE"])
        .on_our_kinds(&["mcpservers", "mcpscopes"])
        .variable("first", FIRST)
        .variable("second", SECOND)
        .variable("third", THIRD)
        .require(
            "Invalid",
            format!("variables.first.map(t, size(t)).sum() <= {MAX_ALL_ARGUMENTS}"),
            format!(
                "spec.tools must have at most {MAX_ALL_ARGUMENTS} arguments in all; divide the tools among several objects"
            ),
        );
    for (rule, message) in union::rules(union::NESTING) {
        let expression = format!("variables.first.all(t, t.all(v, {rule}))");
        policy = policy.require("Invalid", expression, format!("spec.tools[].arguments[]: {message}"));
    }
    for (rule, message) in union::rules(union::NESTING) {
        let expression = format!("variables.second.all(t, t.all(a, a.all(v, {rule})))");
        policy = policy.require("Invalid", expression, at("at depth 2", message));
    }
    for (rule, message) in union::rules(union::AT_DEPTH_3) {
        let expression = format!("variables.third.all(t, t.all(a, a.all(w, w.all(v, {rule}))))");
        policy = policy.require("Invalid", expression, at("at depth 3", message));
    }
    policy.build()
}

fn at(depth: &str, message: &str) -> String {
    format!("spec.tools[].arguments[], {depth}: {message}")
}
