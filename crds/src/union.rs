//! CEL rules on one argument: the member named by `type` is set, and its values are consistent.
//!
//! The API server multiplies the cost of a rule in a CRD by every enclosing `maxItems`, so the CRDs cannot have these rules
//! on arguments. A `ValidatingAdmissionPolicy` checks them (see `admission`).

/// Returns the rules on an argument `v` as an admission policy sees it, each with its message.
pub(crate) fn rules() -> Vec<(String, &'static str)> {
    // `const` is a reserved word in CEL.
    let (value, constant, has_constant) = ("v", "v['const']", "('const' in v)");
    let union = MEMBERS.iter().map(|(kind, member)| format!("({value}.type == '{kind}') == has({value}.{member})"));
    let union: Vec<_> = union.chain([format!("({value}.type == 'Const') == {has_constant}")]).collect();
    vec![
        (
            union.join(" && "),
            "exactly the member named by type must be set: path, enum, string, integer, number, const, array, \
             object, map, oneOf or json, and none for Boolean; correct type or the member",
        ),
        (
            format!("!has({value}.name) || {value}.name != '__proto__'"),
            "name must not be __proto__, which changes what other objects inherit; rename it at the server",
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
        (
            format!(
                "!has({value}.map) || !has({value}.map.names.pattern) || {value}.map.names.pattern.startsWith('^') && \
                 {value}.map.names.pattern.endsWith('$')"
            ),
            "map.names.pattern must begin with ^ and end with $, so that it covers the whole name",
        ),
        (
            format!("!has({value}.oneOf) || {value}.oneOf.rules.all(r, !has(r.nullable) || !r.nullable)"),
            "oneOf.rules must not be nullable; set nullable beside oneOf",
        ),
    ]
}

/// Every type except Const and Boolean, with its member.
const MEMBERS: [(&str, &str); 10] = [
    ("Path", "path"),
    ("Enum", "enum"),
    ("String", "string"),
    ("Integer", "integer"),
    ("Number", "number"),
    ("Array", "array"),
    ("Object", "object"),
    ("Map", "map"),
    ("OneOf", "oneOf"),
    ("Json", "json"),
];
