//! CEL rules on one argument: that the member its `type` names is set, and that the member makes sense.
//!
//! The cost of a rule in a definition is multiplied by every enclosing `maxItems`, so the definitions carry these for
//! the outermost arguments only; the nested ones are checked by a `ValidatingAdmissionPolicy` (see `admission`).

/// How an expression reaches an argument.
#[derive(Clone, Copy)]
pub(crate) struct At {
    /// The argument itself.
    value: &'static str,
    /// Its member `const`, a reserved word in CEL, and whether it is set.
    constant: &'static str,
    has_constant: &'static str,
    /// Whether it may hold other values.
    nests: bool,
}

/// As a rule of the definition, where reserved words are escaped.
pub(crate) const IN_SCHEMA: At =
    At { value: "self", constant: "self.__const__", has_constant: "has(self.__const__)", nests: true };

/// As the variable `v` of an admission policy, which sees the object as a plain map.
pub(crate) const AT_DEPTH_2: At =
    At { value: "v", constant: "v['const']", has_constant: "('const' in v)", nests: true };

/// The same at depth 3.
pub(crate) const AT_DEPTH_3: At = At { nests: false, ..AT_DEPTH_2 };

/// The rules on an argument, each with its message.
pub(crate) fn rules(at: At) -> Vec<(String, &'static str)> {
    let At { value: at, constant, has_constant, nests } = at;
    let members = if nests { &MEMBERS[..] } else { &MEMBERS[..PLAIN] };
    let union = members.iter().map(|(kind, member)| format!("({at}.type == '{kind}') == has({at}.{member})"));
    let union: Vec<_> = union.chain([format!("({at}.type == 'Const') == {has_constant}")]).collect();
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
                "!{has_constant} || (has({constant}.string) ? 1 : 0) + (has({constant}.integer) ? 1 : 0) + \
                 (has({constant}.boolean) ? 1 : 0) == 1"
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

/// Types and the member of each, but for Const; the plain ones come first.
const MEMBERS: [(&str, &str); 7] = [
    ("Path", "path"),
    ("Enum", "enum"),
    ("String", "string"),
    ("Integer", "integer"),
    ("Number", "number"),
    ("Array", "array"),
    ("Object", "object"),
];

/// How many of [`MEMBERS`] hold no other values.
const PLAIN: usize = 5;
