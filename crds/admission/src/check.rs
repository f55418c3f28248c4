//! Applies a schema to an object: unknown fields, defaults, and what is wrong with it, in the words of an API server.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::cel::{Engine, value};
use crate::schema::{List, Node};
use crate::violation::{Path, Violation};

/// Returns the fields of an object that its schema does not have.
pub(crate) fn unknown_fields(root: &Node, object: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    find_unknown(root, object, &Path::root(), &mut found);
    found
}

fn find_unknown(node: &Node, object: &Value, path: &Path, found: &mut Vec<Violation>) {
    match object {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = path.child(name);
                match node.field(name) {
                    Some(node) => find_unknown(node, field, &path, found),
                    None if node.keeps_unknown_fields || node.kind.as_deref() != Some("object") => {}
                    None => {
                        let text = format!("strict decoding error: unknown field \"{path}\"");
                        found.push(Violation::new(path, text));
                    }
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for (index, item) in items.iter().enumerate() {
                    find_unknown(node, item, &path.item(index), found);
                }
            }
        }
        _ => {}
    }
}

/// Fills in defaults, from the outside to the inside. A null is taken for an absent field.
pub(crate) fn set_defaults(node: &Node, object: &mut Value) {
    match object {
        Value::Object(fields) => {
            let is_kept = |name: &str| node.field(name).is_some_and(|field| field.is_nullable);
            fields.retain(|name, field| !field.is_null() || is_kept(name));
            for (name, property) in &node.properties {
                if let (Some(default), false) = (&property.default, fields.contains_key(name)) {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, field) in fields.iter_mut() {
                if let Some(node) = node.field(name) {
                    set_defaults(node, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for item in items {
                    set_defaults(node, item);
                }
            }
        }
        _ => {}
    }
}

/// Returns what is wrong with an object. Rules are evaluated only if the rest of the schema is satisfied, as an API server
/// does.
pub(crate) fn violations(engine: &Engine, root: &Node, object: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut checker = Checker { engine, found: Vec::new() };
    checker.structure(root, object, &Path::root());
    if checker.found.is_empty() {
        checker.rules(root, object, old, &Path::root());
    }
    checker.found
}

struct Checker<'e> {
    engine: &'e Engine,
    found: Vec<Violation>,
}

impl Checker<'_> {
    fn add(&mut self, path: &Path, text: &str) {
        self.found.push(Violation::at(path, text));
    }

    /// Adds an invalid value, in the form of an API server.
    fn invalid(&mut self, path: &Path, found: &Value, problem: &str) {
        self.add(path, &format!("Invalid value: {}: {path} in body {problem}", shown(found)));
    }

    fn structure(&mut self, node: &Node, object: &Value, path: &Path) {
        if !self.has_type(node, object, path) {
            return;
        }
        if !node.allowed.is_empty() && !node.allowed.contains(object) {
            let allowed: Vec<String> = node.allowed.iter().map(ToString::to_string).collect();
            self.add(path, &format!("Unsupported value: {object}: supported values: {}", allowed.join(", ")));
        }
        match object {
            Value::String(text) => self.text(node, text, path),
            Value::Number(_) => self.number(node, object, path),
            Value::Array(items) => self.items(node, items, path),
            Value::Object(fields) => self.fields(node, fields, path),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn has_type(&mut self, node: &Node, object: &Value, path: &Path) -> bool {
        let (matches, wanted) = match node.kind.as_deref() {
            _ if node.is_int_or_string => (is_integer(object) || object.is_string(), "integer,string"),
            Some("object") => (object.is_object(), "object"),
            Some("array") => (object.is_array(), "array"),
            Some("string") => (object.is_string(), "string"),
            Some("boolean") => (object.is_boolean(), "boolean"),
            Some("integer") => (is_integer(object), "integer"),
            Some("number") => (object.is_number(), "number"),
            _ => (true, ""),
        };
        let matches = matches || node.is_nullable && object.is_null();
        if !matches {
            let found = type_name(object);
            self.add(
                path,
                &format!("Invalid value: \"{found}\": {path} in body must be of type {wanted}: \"{found}\""),
            );
        }
        matches
    }

    fn text(&mut self, node: &Node, text: &str, path: &Path) {
        let (length, shown) = (text.chars().count(), Value::String(text.to_owned()));
        if let Some(most) = node.length.1.filter(|most| length > *most) {
            self.add(path, &format!("Too long: may not be more than {most} bytes"));
        }
        if let Some(least) = node.length.0.filter(|least| length < *least) {
            self.invalid(path, &shown, &format!("should be at least {least} chars long"));
        }
        if let Some(pattern) = node.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            self.invalid(path, &shown, &format!("should match '{pattern}'"));
        }
        if node.is_time && text.parse::<Timestamp>().is_err() {
            self.invalid(path, &shown, &format!("must be of type date-time: {shown}"));
        }
    }

    fn number(&mut self, node: &Node, number: &Value, path: &Path) {
        let found = number.as_f64().unwrap_or_default();
        if let Some(least) = node.range.0.filter(|least| found < *least) {
            self.invalid(path, number, &format!("should be greater than or equal to {least}"));
        }
        if let Some(most) = node.range.1.filter(|most| found > *most) {
            self.invalid(path, number, &format!("should be less than or equal to {most}"));
        }
    }

    fn items(&mut self, node: &Node, items: &[Value], path: &Path) {
        let count = items.len();
        if let Some(most) = node.items_count.1.filter(|most| count > *most) {
            self.add(path, &format!("Too many: {count}: must have at most {most} items"));
        }
        if let Some(least) = node.items_count.0.filter(|least| count < *least) {
            self.invalid(path, &count.into(), &format!("should have at least {least} items"));
        }
        for (index, item) in items.iter().enumerate() {
            let (path, before) = (path.item(index), items.get(..index).unwrap_or_default());
            if before.iter().any(|earlier| node.list.is_same(earlier, item)) {
                self.add(&path, &format!("Duplicate value: {}", node.list.identity(item)));
            }
            if let Some(node) = &node.items {
                self.structure(node, item, &path);
            }
        }
    }

    fn fields(&mut self, node: &Node, fields: &Map<String, Value>, path: &Path) {
        for name in node.required.iter().filter(|name| !fields.contains_key(*name)) {
            self.add(&path.child(name), "Required value");
        }
        let count = fields.len();
        if let Some(most) = node.properties_count.1.filter(|most| count > *most) {
            self.add(path, &format!("Too many: {count}: must have at most {most} items"));
        }
        if let Some(least) = node.properties_count.0.filter(|least| count < *least) {
            self.invalid(path, &count.into(), &format!("should have at least {least} properties"));
        }
        for (name, field) in fields {
            if let Some(node) = node.field(name) {
                self.structure(node, field, &path.child(name));
            }
        }
    }

    /// Evaluates the rules of an object and of the values in it. A rule that compares with the stored object is evaluated
    /// only where there is a stored value.
    fn rules(&mut self, node: &Node, object: &Value, old: Option<&Value>, path: &Path) {
        if !node.rules.is_empty() {
            let mut variables = vec![("self", value(object))];
            variables.extend(old.map(|old| ("oldSelf", value(old))));
            for rule in node.rules.iter().filter(|rule| !rule.is_transition || old.is_some()) {
                match self.engine.is_true(&rule.expression, &variables) {
                    Ok(true) => {}
                    Ok(false) => {
                        self.add(path, &format!("Invalid value: \"{}\": {}", type_name(object), rule.message));
                    }
                    // What cannot be checked is refused.
                    Err(error) => {
                        let text = rule.expression.text();
                        self.add(path, &format!("Invalid value: failed to evaluate the rule {text}: {error}"));
                    }
                }
            }
        }
        match object {
            Value::Object(fields) => {
                for (name, field) in fields {
                    if let Some(node) = node.field(name) {
                        self.rules(node, field, old.and_then(|old| old.get(name)), &path.child(name));
                    }
                }
            }
            Value::Array(items) => {
                let Some(item_node) = &node.items else { return };
                for (index, item) in items.iter().enumerate() {
                    let stored = old.and_then(Value::as_array).and_then(|old| node.list.find(old, item));
                    self.rules(item_node, item, stored, &path.item(index));
                }
            }
            _ => {}
        }
    }
}

impl List {
    fn is_same(&self, one: &Value, other: &Value) -> bool {
        match self {
            Self::Atomic => false,
            Self::Set => one == other,
            Self::Map(keys) => keys.iter().all(|key| one.get(key) == other.get(key)),
        }
    }

    /// Returns what makes an item different from others.
    fn identity(&self, item: &Value) -> Value {
        match self {
            Self::Map(keys) => keys.iter().map(|key| (key.clone(), item[key].clone())).collect::<Map<_, _>>().into(),
            Self::Atomic | Self::Set => item.clone(),
        }
    }

    /// Finds the stored item that a new one replaces. Only items of maps have an identity.
    fn find<'v>(&self, stored: &'v [Value], item: &Value) -> Option<&'v Value> {
        let Self::Map(_) = self else { return None };
        stored.iter().find(|old| self.is_same(old, item))
    }
}

/// Returns whether an API server takes a number for a whole one: it allows for an error of a billionth.
fn is_integer(object: &Value) -> bool {
    const MOST: f64 = 9_007_199_254_740_991.0;
    object.is_i64()
        || object.is_u64()
        || object.as_f64().is_some_and(|number| {
            let whole = number.trunc();
            let error = (number - whole).abs();
            number.abs() <= MOST && (error == 0.0 || whole != 0.0 && error / (number.abs() + whole.abs()) < 1e-9)
        })
}

fn type_name(object: &Value) -> &'static str {
    match object {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Returns a value for a message: short ones as they are.
fn shown(found: &Value) -> String {
    const MOST: usize = 128;
    let text = found.to_string();
    if text.len() <= MOST { text } else { format!("{}…", &text[..text.floor_char_boundary(MOST)]) }
}
