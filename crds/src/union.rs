//! CEL rules on one argument: the member named by `type` is set, and its values are consistent.
//!
//! The API server multiplies the cost of a rule in a CRD by every enclosing `maxItems`, so the CRDs cannot have these rules
//! on arguments. A `ValidatingAdmissionPolicy` checks them (see `admission`).

/// How a CEL expression refers to an argument.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    /// Expression for the argument.
    value: &'static str,
    /// Expression for its member `const`, a reserved word in CEL.
    constant: &'static str,
    /// Expression for whether `const` is set.
    has_constant: &'static str,
    /// Whether the argument may hold other values.
    nests: bool,
}

/// Access through the variable `v` of an admission policy, which sees the object as a plain map.
pub(crate) const NESTING: Access =
    Access { value: "v", constant: "v['const']", has_constant: "('const' in v)", nests: true };

/// Access at depth 3, where values do not nest further.
pub(crate) const AT_DEPTH_3: Access = Access { nests: false, ..NESTING };

/// Returns the rules on an argument, each with its message.
pub(crate) fn rules(access: Access) -> Vec<(String, &'static str)> {
    let Access { value, constant, has_constant, nests } = access;
    let members = if nests { &MEMBERS[..] } else { &MEMBERS[..PLAIN] };
    let union = members.iter().map(|(kind, member)| format!("({value}.type == '{kind}') == has({value}.{member})"));
    let union: Vec<_> = union.chain([format!("({value}.type == 'Const') == {has_constant}")]).collect();
    vec![
        (
            union.join(" && "),
            "exactly the member named by type must be set: path, enum, string, integer, number, const, array or \
             object, and none for Boolean; correct type or the member",
        ),
        (
            format!("!has({value}.integer) || {value}.integer.minimum <= {value}.integer.maximum"),
            "integer.minimum must not be larger than integer.maximum; swap them",
        ),
        (
            format!("!has({value}.number) || double({value}.number.minimum) <= double({value}.number.maximum)"),
            "number.minimum must not be larger than number.maximum; swap them",
        ),
        (
            format!(
                "!{has_constant} || (has({constant}.string) ? 1 : 0) + (has({constant}.integer) ? 1 : 0) + \
                 (has({constant}.boolean) ? 1 : 0) == 1"
            ),
            "const must have exactly one of string, integer and boolean; set one and remove the others",
        ),
        (
            format!(
                "!has({value}.string) || !has({value}.string.pattern) || {value}.string.pattern.startsWith('^') && \
                 {value}.string.pattern.endsWith('$')"
            ),
            "string.pattern must begin with ^ and end with $, so that it covers the whole string",
        ),
    ]
}

/// Every type except Const and Boolean, with its member. The plain types come first.
const MEMBERS: [(&str, &str); 7] = [
    ("Path", "path"),
    ("Enum", "enum"),
    ("String", "string"),
    ("Integer", "integer"),
    ("Number", "number"),
    ("Array", "array"),
    ("Object", "object"),
];

/// Number of plain types in [`MEMBERS`], which hold no other values.
const PLAIN: usize = 5;
