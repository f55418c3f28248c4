//! CEL rules on one argument: that the member its `type` names is set, and that the member makes sense.
//!
//! The cost of a rule in a definition is multiplied by every enclosing `maxItems`, so the definitions carry these for
//! the outermost arguments only; the nested ones are checked by a `ValidatingAdmissionPolicy` (see `admission`).

/// The rules on an argument that stands at `at` in the expression, each with its message.
pub(crate) fn rules(at: &str, nests: bool) -> Vec<(String, &'static str)> {
    let members = if nests { &MEMBERS[..] } else { &MEMBERS[..PLAIN] };
    let union: Vec<_> =
        members.iter().map(|(kind, member)| format!("({at}.type == '{kind}') == has({at}.{member})")).collect();
    vec![
        (
            union.join(" && "),
            "exactly the member that type names must be set: path, enum, string, integer, number, const, array or \
             object, and none for Boolean; correct type or the member",
        ),
        (
            format!("!has({at}.integer) || {at}.integer.minimum <= {at}.integer.maximum"),
            "integer.minimum must not be larger than integer.maximum; swap them",
        ),
        (
            format!("!has({at}.number) || double({at}.number.minimum) <= double({at}.number.maximum)"),
            "number.minimum must not be larger than number.maximum; swap them",
        ),
        (
            format!(
                "!has({at}.__const__) || (has({at}.__const__.string) ? 1 : 0) + (has({at}.__const__.integer) ? 1 : 0) \
                 + (has({at}.__const__.boolean) ? 1 : 0) == 1"
            ),
            "const must have exactly one of string, integer and boolean; remove the others",
        ),
        (
            format!(
                "!has({at}.string) || !has({at}.string.pattern) || {at}.string.pattern.startsWith('^') && \
                 {at}.string.pattern.endsWith('$')"
            ),
            "string.pattern must begin with ^ and end with $, so that it covers the whole string",
        ),
        (
            format!(
                "!has({at}.path) || {at}.path.within.all(r, r == '/' || !r.endsWith('/') && !r.contains('//') && !(r + \
                 '/').contains('/./') && !(r + '/').contains('/../'))"
            ),
            "path.within must hold normalised directories: no //, . or .. in them and no slash at the end; write them \
             in full",
        ),
    ]
}

/// Types and the member of each, as CEL writes it (`const` is a reserved word); the plain ones come first.
const MEMBERS: [(&str, &str); 8] = [
    ("Path", "path"),
    ("Enum", "enum"),
    ("String", "string"),
    ("Integer", "integer"),
    ("Number", "number"),
    ("Const", "__const__"),
    ("Array", "array"),
    ("Object", "object"),
];

/// How many of [`MEMBERS`] hold no other values.
const PLAIN: usize = 6;
