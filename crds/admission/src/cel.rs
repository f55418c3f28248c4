//! CEL as in Kubernetes: the language itself, and the functions of Kubernetes that our rules use.
#![expect(clippy::needless_pass_by_value, reason = "functions of an expression own their arguments")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cel::common::ast::Expr;
use cel::extractors::This;
use cel::objects::{Key, Opaque};
use cel::{Context, Env, ExecutionError, Program, Value as Cel};
use mcp_fleet_crds::quantity::billionths;
use regex::Regex;
use serde_json::Value;

use crate::DefinitionError;

/// Words that a rule in a schema writes between double underscores, because they mean something in CEL.
const RESERVED: [&str; 22] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "__proto__",
];

/// Compiles and evaluates expressions. The definitions repeat most of their expressions and patterns, once for each depth of values in
/// values, so each is compiled once.
pub(crate) struct Engine {
    env: Arc<Env>,
    compiled: RefCell<HashMap<String, Arc<Program>>>,
    patterns: RefCell<HashMap<String, Regex>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// A compiled expression.
pub(crate) struct Expression {
    program: Arc<Program>,
    text: String,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Expression {
    /// Returns the expression as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// A quantity, in billionths.
#[derive(Debug, PartialEq, Eq)]
struct Quantity(i128);

impl Opaque for Quantity {
    fn runtime_type_name(&self) -> &'static str {
        "kubernetes.Quantity"
    }
}

impl Engine {
    pub(crate) fn new() -> Self {
        let mut env = Env::stdlib();
        // Fails only for a second extension with the same functions.
        let _ = cel::extensions::strings(&mut env);
        Self { env: Arc::new(env), compiled: RefCell::default(), patterns: RefCell::default() }
    }

    pub(crate) fn compile(&self, text: &str) -> Result<Expression, DefinitionError> {
        if let Some(program) = self.compiled.borrow().get(text) {
            return Ok(Expression { program: Arc::clone(program), text: text.to_owned() });
        }
        let failed = |detail: String| DefinitionError::Expression { expression: text.to_owned(), detail };
        let program = self.env.compile(text).map_err(|error| failed(error.to_string()))?;
        if matches!(program.expression().expr, Expr::Unspecified) {
            return Err(failed("it is empty".to_owned()));
        }
        let program = Arc::new(program);
        self.compiled.borrow_mut().insert(text.to_owned(), Arc::clone(&program));
        Ok(Expression { program, text: text.to_owned() })
    }

    /// Compiles the pattern of a text.
    pub(crate) fn pattern(&self, text: &str) -> Result<Regex, DefinitionError> {
        if let Some(pattern) = self.patterns.borrow().get(text) {
            return Ok(pattern.clone());
        }
        let pattern = Regex::new(text)?;
        self.patterns.borrow_mut().insert(text.to_owned(), pattern.clone());
        Ok(pattern)
    }

    /// Evaluates an expression.
    pub(crate) fn evaluate(&self, expression: &Expression, variables: &[(&str, Cel)]) -> Result<Cel, ExecutionError> {
        let mut context = Context::with_env(Arc::clone(&self.env));
        // These fail only if the name is taken by a standard function, which a test would show.
        let _ = context.add_function("quantity", quantity);
        let _ = context.add_function("compareTo", compare_to);
        let _ = context.add_function("sum", sum);
        for (name, value) in variables {
            context.add_variable_from_value(*name, value.clone());
        }
        expression.program.execute(&context)
    }

    /// Evaluates an expression to true or false.
    pub(crate) fn is_true(&self, expression: &Expression, variables: &[(&str, Cel)]) -> Result<bool, String> {
        match self.evaluate(expression, variables) {
            Ok(Cel::Bool(value)) => Ok(value),
            Ok(other) => Err(format!("the expression is {}, not a bool", other.type_of())),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn failed(function: &str, message: &str) -> ExecutionError {
    ExecutionError::function_error(function, message)
}

fn quantity(text: Arc<String>) -> Result<Cel, ExecutionError> {
    let value = billionths(&text).ok_or_else(|| failed("quantity", "it is not a quantity"))?;
    Ok(Cel::Opaque(Arc::new(Quantity(value))))
}

fn compare_to(This(this): This<Cel>, other: Cel) -> Result<i64, ExecutionError> {
    let number = |value: &Cel| match value {
        Cel::Opaque(value) => value.downcast_ref::<Quantity>().map(|quantity| quantity.0),
        _ => None,
    };
    match (number(&this), number(&other)) {
        (Some(this), Some(other)) => Ok(this.cmp(&other) as i64),
        _ => Err(failed("compareTo", "it compares only quantities")),
    }
}

fn sum(This(list): This<Arc<Vec<Cel>>>) -> Result<i64, ExecutionError> {
    let number = |value: &Cel| match value {
        Cel::Int(number) => Ok(*number),
        _ => Err(failed("sum", "it adds only whole numbers")),
    };
    list.iter().try_fold(0_i64, |sum, value| Ok(sum.saturating_add(number(value)?)))
}

/// Converts JSON to a value of an expression. Fields whose names are reserved are there under their escaped names too.
pub(crate) fn value(json: &Value) -> Cel {
    match json {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => number.as_i64().map_or_else(|| number.as_f64().unwrap_or_default().into(), Cel::Int),
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(value).collect())),
        Value::Object(fields) => {
            let mut map: HashMap<Key, Cel> = HashMap::with_capacity(fields.len());
            for (name, field) in fields {
                let field = value(field);
                if RESERVED.contains(&name.as_str()) {
                    map.insert(format!("__{name}__").into(), field.clone());
                }
                map.insert(name.clone().into(), field);
            }
            Cel::Map(map.into())
        }
    }
}
