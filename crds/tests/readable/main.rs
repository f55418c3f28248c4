//! Every object that the API server stores can be read: the types of each kind read whatever its schema admits.
//!
//! The operator decodes all objects of a kind from one watch. An object that is admitted but cannot be decoded would
//! hide the changes of every other object of that kind. Start at [`schema`], which generates the objects. CEL rules are
//! left out: they only narrow what the schema admits.
#![allow(clippy::unwrap_used, clippy::panic)]

mod number;
mod pattern;
mod schema;
mod time;

use std::fmt::Debug;

use kube::CustomResourceExt;
use mcp_fleet_crds::{MCPBudget, MCPLedger, MCPPrincipal, MCPScope, MCPServer, MCPTenant};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde::de::DeserializeOwned;

/// Generates objects as the API server stores them, and reads each one from its JSON text.
fn reads_whatever_is_admitted<K: CustomResourceExt + DeserializeOwned + Debug>() {
    let objects = schema::stored(&K::crd().spec.names.kind);
    let mut runner = proptest::test_runner::TestRunner::default();
    let result = runner.run(&objects, |object| {
        let text = object.to_string();
        let read = serde_json::from_str::<K>(&text);
        prop_assert!(read.is_ok(), "{}: {text}", read.unwrap_err());
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn every_admitted_tenant_can_be_read() {
    reads_whatever_is_admitted::<MCPTenant>();
}

#[test]
fn every_admitted_server_can_be_read() {
    reads_whatever_is_admitted::<MCPServer>();
}

#[test]
fn every_admitted_scope_can_be_read() {
    reads_whatever_is_admitted::<MCPScope>();
}

#[test]
fn every_admitted_principal_can_be_read() {
    reads_whatever_is_admitted::<MCPPrincipal>();
}

#[test]
fn every_admitted_budget_can_be_read() {
    reads_whatever_is_admitted::<MCPBudget>();
}

#[test]
fn every_admitted_ledger_can_be_read() {
    reads_whatever_is_admitted::<MCPLedger>();
}

#[test]
fn the_generator_reaches_limits_and_fractions() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut sample = |strategy: BoxedStrategy<serde_json::Value>| -> Vec<String> {
        (0..256).map(|_| strategy.new_tree(&mut runner).unwrap().current().to_string()).collect()
    };
    let numbers = sample(number::integer(Some(1.0), Some(4_294_967_296.0)));
    for expected in ["1", "1.000000001", "4294967296", "1000000000.999"] {
        assert!(numbers.iter().any(|number| number == expected), "{expected} is not among {numbers:?}");
    }
    let amounts = sample(pattern::matching("^[1-9][0-9]{0,9}$").prop_map(serde_json::Value::from).boxed());
    assert!(amounts.iter().any(|amount| amount.len() == 12) && amounts.iter().any(|amount| amount.len() == 3));
    let times =
        sample(time::lenient().prop_filter("the format", |time| time::is_date_time(time)).prop_map_into().boxed());
    assert!(
        times.iter().any(|time| time.contains("+9")) && times.iter().any(|time| time.to_lowercase().contains("zt"))
    );
}
