//! Validation by JSON Schema, with the Python package `jsonschema`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde::Serialize;
use serde_json::Value;

/// Reads checks and prints the problems of each one that has some.
const PROGRAM: &str = "
import json, sys
from jsonschema import validators
for check in json.load(sys.stdin):
    schema = check['schema']
    validator = validators.validator_for(schema, default=validators.Draft202012Validator)
    validator.check_schema(schema)
    problems = [error.message for error in validator(schema).iter_errors(check['value'])]
    if check['admits'] != (not problems):
        print(check['what'] + ': ' + ('; '.join(problems) or 'admitted'))
";

/// A value and a schema that should admit it, or should not.
#[derive(Serialize)]
pub(crate) struct Check {
    what: String,
    schema: Value,
    value: Value,
    admits: bool,
}

impl Check {
    /// Checks that a schema admits a value.
    pub(crate) const fn admits(what: String, schema: Value, value: Value) -> Self {
        Self { what, schema, value, admits: true }
    }

    /// Checks that a schema does not admit a value.
    pub(crate) const fn refuses(what: String, schema: Value, value: Value) -> Self {
        Self { what, schema, value, admits: false }
    }
}

/// Returns the checks that fail, with the reasons.
pub(crate) fn problems(checks: &[Check]) -> Vec<String> {
    let packages = std::env::var("MCP_JSONSCHEMA")
        .unwrap_or_else(|_| panic!("MCP_JSONSCHEMA is not set: run `cargo xtask test servers`"));
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", PROGRAM]).env("PYTHONPATH", packages).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(checks).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}
