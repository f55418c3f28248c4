//! How large one object may be. The operator and the API server hold every object in memory.
//!
//! The schemas of principals and budgets bound their specs by themselves. The specs of servers and scopes nest lists in
//! lists; bounds on each list that leave room for use would still allow gigabytes.

use super::namespaces::{OF_TENANTS, WRITES_SPEC};
use super::nested::{DEPTHS, at_depth, with_depths};
use super::{Admission, Builder};

/// Largest spec of a server, in bytes. Each field manager that applies it adds about as much again in names of fields, and
/// with two of them, such an object stays below the limit of etcd on requests, 1.5 MiB.
pub const MAX_SERVER: u32 = 576 << 10;
/// Largest spec of a scope, in bytes.
pub const MAX_SCOPE: u32 = 128 << 10;

/// Most labels, finalizers and owner references of one object.
const MAX_METADATA: [(&str, u32); 3] = [("labels", 64), ("finalizers", 16), ("ownerReferences", 16)];

/// What a tool, an argument, a property or an item counts besides its text: the fields of its JSON form.
const FRAME: u32 = 128;

/// CEL expression for the container of a server, of whichever type its source is.
const CONTAINER: &str = "object.kind != 'MCPServer' ? dyn({}) : has(dyn(object.spec).source.http) ? \
                         dyn(object.spec).source.http : has(dyn(object.spec).source.stdio) ? dyn(object.spec).source.stdio : dyn({})";

/// Returns the policy on the size of an object.
pub(super) fn policy() -> Admission {
    let value = value();
    let mut policy = Builder::new("mcp-fleet-object-size", &["CREATE", "UPDATE"]).on_our_kinds(&OF_TENANTS);
    for (field, most) in MAX_METADATA {
        let count = |of: &str| format!("{of}.metadata.?{field}.optMap(m, size(m)).orValue(0)");
        policy = policy.require(
            "Invalid",
            // An object that has more from before must stay changeable, so that it can be deleted.
            format!(
                "{new} <= {most} || request.operation == 'UPDATE' && {new} <= {old}",
                new = count("object"),
                old = count("oldObject")
            ),
            format!("metadata.{field} must have at most {most} entries; remove some"),
        );
    }
    policy = with_depths(policy);
    for (depth, name) in DEPTHS.iter().enumerate() {
        policy = policy.variable(&format!("{name}Size"), at_depth(depth, "map", &value, ".sum()"));
    }
    policy
        .variable(
            "tools",
            format!(
                "(has(object.spec.tools) ? object.spec.tools : []).map(t, {FRAME} + {} + {})",
                bytes("t.name"),
                ["title", "description", "definitionDigest"].map(|field| text("t", field)).join(" + ")
            ),
        )
        .variable("container", CONTAINER)
        .variable("program", program())
        .variable(
            "size",
            format!(
                "variables.tools.sum() + {} + variables.program",
                DEPTHS.map(|depth| format!("variables.{depth}Size")).join(" + ")
            ),
        )
        .variable("most", format!("object.kind == 'MCPServer' ? {MAX_SERVER} : {MAX_SCOPE}"))
        .require_or_explain(
            "Invalid",
            format!("!({WRITES_SPEC}) || variables.size <= variables.most"),
            "'the spec has ' + string(variables.size) + ' bytes, and an ' + object.kind + ' may have at most ' + \
             string(variables.most) + '; shorten lists of accepted values, or divide the tools among several objects'",
        )
        .build()
}

/// Returns a CEL expression for the size of a value `v`, without the values in it.
fn value() -> String {
    let list = |items: &str| bytes(&format!("{items}.join(',,,')"));
    let optional = |present: &str, size: String| format!("({present} ? {size} : 0)");
    [
        FRAME.to_string(),
        optional("has(v.name)", bytes("v.name")),
        text("v", "title"),
        text("v", "description"),
        optional("has(v.path)", list("v.path.within")),
        optional("has(v.path) && has(v.path.extensions)", list("v.path.extensions")),
        optional("has(v.enum)", list("v.enum.values")),
        optional("has(v.string) && has(v.string.pattern)", bytes("v.string.pattern")),
        optional("has(v.map) && has(v.map.names.pattern)", bytes("v.map.names.pattern")),
        optional("'const' in v && has(v['const'].string)", bytes("v['const'].string")),
    ]
    .join(" + ")
}

/// Returns a CEL expression for the size of what a server's program is configured with.
fn program() -> String {
    let of = "variables.container";
    let texts = |field: &str| {
        let joined = bytes(&format!("{of}.{field}.join(',,,')"));
        format!("(has({of}.{field}) ? {joined} : 0)")
    };
    // Of a reference, its names; of a directory, its path and its files.
    let list = |field: &str, size: String| format!("(has({of}.{field}) ? {of}.{field}.map(e, {size}).sum() : 0)");
    let variable = format!("32 + {} + (has(e.value) ? {} : {FRAME} + 381)", bytes("e.name"), bytes("e.value"));
    let files = format!(
        "{FRAME} + 384 + (has(e.items) ? e.items.map(i, 32 + {} + {}).sum() : 0)",
        bytes("i.key"),
        bytes("i.path")
    );
    let parts = [
        format!("(has({of}.path) ? {} : 0)", bytes(&format!("{of}.path"))),
        texts("command"),
        texts("args"),
        list("env", variable),
        list("envFrom", format!("{FRAME} + 192")),
        list("files", files),
        list("scratch", format!("{FRAME} + 256")),
    ];
    parts.join(" + ")
}

/// Returns a CEL expression for the size of a text that may be absent.
fn text(of: &str, field: &str) -> String {
    format!("(has({of}.{field}) ? {} : 0)", bytes(&format!("{of}.{field}")))
}

/// Returns a CEL expression for the length of a text in UTF-8.
fn bytes(text: &str) -> String {
    format!("size(bytes({text}))")
}
