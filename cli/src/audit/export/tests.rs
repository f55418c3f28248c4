#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use mcp_fleet_audit::MAX_LINE;
use mcp_fleet_policy::class::Class;
use mcp_fleet_policy::loops::Kind;
use mcp_fleet_policy::reason::Reason;
use serde_json::{Value, json};

use super::line::Decision;
use super::{Format, export};

const DOCUMENTATION: &str = include_str!("../../../../docs/audit.md");
/// Begins with the line of a call that was refused, with every field.
const SAMPLE: &str = include_str!("sample.jsonl");

/// Returns the events of a log, and the numbers of its broken lines with the causes.
fn exported(log: impl AsRef<[u8]>, format: Format) -> (Vec<String>, Vec<(u64, String)>) {
    let (mut out, mut broken) = (Vec::new(), Vec::new());
    export(log.as_ref(), format, &mut out, |number, cause| broken.push((number, cause.to_owned()))).unwrap();
    (String::from_utf8(out).unwrap().lines().map(str::to_owned).collect(), broken)
}

fn ocsf(line: &Value) -> Value {
    let (events, broken) = exported(line.to_string(), Format::Ocsf);
    assert_eq!((events.len(), broken), (1, vec![]), "{line}");
    serde_json::from_str(&events[0]).unwrap()
}

/// Parses an event of CEF as a receiver does. Returns the header, and the pairs with their values unescaped.
fn cef(line: &Value) -> (Vec<String>, BTreeMap<String, String>) {
    let (events, broken) = exported(line.to_string(), Format::Cef);
    assert_eq!((events.len(), broken), (1, vec![]), "{line}");
    let parts: Vec<&str> = events[0].splitn(8, '|').collect();
    let pattern = parts[7];
    let mut pairs = BTreeMap::new();
    // A key begins after a space, and ends at an equals sign that is not escaped.
    let equals = |text: &str| {
        let bytes = text.as_bytes();
        (0..bytes.len()).find(|at| {
            bytes[*at] == b'=' && bytes[..*at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0
        })
    };
    let mut rest = pattern;
    while let Some(at) = equals(rest) {
        let (key, value) = (&rest[..at], &rest[at + 1..]);
        let end = match equals(value) {
            Some(next) => value[..next].rfind(' ').unwrap(),
            None => value.len(),
        };
        let plain = value[..end].replace("\\n", "\n").replace("\\r", "\r").replace("\\=", "=").replace("\\\\", "\\");
        pairs.insert(key.trim_start().to_owned(), plain);
        rest = &value[end..];
    }
    (parts[..7].iter().map(|part| (*part).to_owned()).collect(), pairs)
}

fn sample() -> Vec<Value> {
    SAMPLE.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the values of an event of OCSF, by the paths that the documentation uses.
fn at<'v>(event: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(event, |value, part| match part.strip_suffix("[]") {
        Some(list) => &value[list][0],
        None => &value[part],
    })
}

/// Returns the rows of the documented mapping: the field, and its attributes in OCSF and keys in CEF.
fn mapping() -> Vec<(String, Vec<String>, Vec<String>)> {
    let section = DOCUMENTATION.split("## Export").nth(1).unwrap();
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            (quoted(cells[1])[0].clone(), quoted(cells[2]), quoted(cells[3]))
        })
        .collect()
}

#[test]
fn the_documented_mapping_is_the_one_that_is_written() {
    let line = &sample()[0];
    let fields: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let documented = DOCUMENTATION.split("## Traces").next().unwrap();
    let documented: BTreeSet<&str> =
        documented.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(fields, documented, "the sample has not every field");
    let mapping = mapping();
    assert_eq!(mapping.iter().map(|(field, ..)| field.as_str()).collect::<BTreeSet<_>>(), documented);
    let (event, (header, pairs)) = (ocsf(line), cef(line));
    let mut used = BTreeSet::new();
    for (field, attributes, keys) in &mapping {
        assert!(!attributes.is_empty() && !keys.is_empty(), "{field} is lost");
        for path in attributes {
            assert!(!at(&event, path).is_null(), "{field}: {path} is not in {event}");
        }
        for key in keys {
            let found = pairs.contains_key(key) || ["Version", "Severity", "Name", "Signature"].contains(&key.as_str());
            assert!(found, "{field}: {key} is not in {pairs:?}");
            used.insert(key.clone());
        }
    }
    assert!(pairs.keys().all(|key| used.contains(key)), "a pair is not documented: {pairs:?}");
    assert_eq!(header[..6], ["CEF:0", "MCP Fleet", "gateway", "1", "loop_detected", "request denied"]);
}

#[test]
fn a_value_arrives_in_its_place() {
    let line = &sample()[0];
    let event = ocsf(line);
    for (path, expected) in [
        ("class_uid", json!(6003)),
        ("type_uid", json!(600_302)),
        ("time", json!(1_795_723_200_123_i64)),
        ("duration", json!(1)),
        ("count", json!(3)),
        ("action", json!("Denied")),
        ("status", json!("Failure")),
        ("status_code", json!("loop_detected")),
        ("severity", json!("Medium")),
        ("actor.user.name", json!("acme/coder")),
        ("actor.user.uid", json!("0b6b")),
        ("src_endpoint.name", json!("acme/coder")),
        ("api.operation", json!("read")),
        ("api.service.name", json!("files")),
        ("metadata.correlation_uid", line["call"].clone()),
        ("metadata.uid", json!(format!("{}.7", line["chain"].as_str().unwrap()))),
        ("metadata.tenant_uid", json!("acme")),
        ("policy.version", json!("12")),
        ("trace.uid", line["trace_id"].clone()),
        ("trace.span.uid", line["span_id"].clone()),
        ("unmapped.durationMs", json!(1.234)),
        ("unmapped.arguments", line["arguments"].clone()),
        ("unmapped.previous", line["previous"].clone()),
    ] {
        assert_eq!(*at(&event, path), expected, "{path}");
    }
    let (_, pairs) = cef(line);
    for (key, expected) in
        [("rt", "1795723200123"), ("act", "denied"), ("outcome", "failure"), ("cnt", "3"), ("mcpFleetCost", "0.001")]
    {
        assert_eq!(pairs[key], expected, "{key}");
    }
}

#[test]
fn every_decision_reason_loop_and_class_is_exported_in_every_format() {
    let row = DOCUMENTATION.lines().find(|line| line.starts_with("| `decision`")).unwrap();
    for decision in Decision::ALL.map(Decision::as_str) {
        assert!(row.contains(&format!("`{decision}`")), "{decision} is not an audit line's");
    }
    let base = json!({"audit": 1, "time": "2026-11-26T20:00:00Z", "generation": 0});
    let with = |field: &str, name: &str, decision: &str| {
        let mut line = base.clone();
        (line["decision"], line[field]) = (decision.into(), name.into());
        line
    };
    let mut lines: Vec<Value> = Decision::ALL.map(|decision| with("method", "ping", decision.as_str())).to_vec();
    lines.extend(Reason::ALL.iter().map(|reason| with("reason", reason.as_str(), "denied")));
    lines.extend(Kind::ALL.map(|kind| with("loop", kind.as_str(), "allowed")));
    lines.extend(Class::ALL.map(|class| with("class", class.as_str(), "allowed")));
    for line in &lines {
        let event = ocsf(line);
        // OCSF 1.6.0: the required attributes of the class and of its profiles.
        for required in [
            "activity_id",
            "actor.user.name",
            "api.operation",
            "category_uid",
            "class_uid",
            "metadata.version",
            "metadata.product.name",
            "severity_id",
            "src_endpoint.name",
            "time",
            "type_uid",
            "action_id",
        ] {
            assert!(!at(&event, required).is_null(), "{required} is missing: {event}");
        }
        assert_eq!(event["type_uid"], 600_300 + event["activity_id"].as_i64().unwrap());
        assert_eq!(at(&event, "unmapped.decision"), &line["decision"]);
        assert_eq!(event["status_code"], line["reason"]);
        let (header, pairs) = cef(line);
        assert_eq!(header[4], line["reason"].as_str().or(line["decision"].as_str()).unwrap());
        assert!((1..=10).contains(&header[6].parse::<u8>().unwrap()));
        assert_eq!(pairs.get("mcpFleetLoop").map(String::as_str), line["loop"].as_str());
        assert_eq!(pairs.get("mcpFleetClass").map(String::as_str), line["class"].as_str());
    }
}

#[test]
fn a_cleared_principal_is_the_resource_and_not_the_actor() {
    let line = json!({"audit": 1, "time": "2026-11-26T20:00:00Z", "generation": 1, "decision": "cleared",
        "principal": "acme/coder", "principalUid": "0b6b"});
    let event = ocsf(&line);
    assert_eq!((at(&event, "actor.user.name"), at(&event, "actor.user.uid")), (&json!("unknown"), &Value::Null));
    assert_eq!(event["resources"], json!([{"type": "MCPPrincipal", "name": "acme/coder", "uid": "0b6b"}]));
    assert_eq!(at(&event, "api.operation"), "clear_breakers");
}

#[test]
fn hostile_values_stay_in_their_place() {
    let hostile = "a|b=c\\d\\=e act=allowed\nCEF:0|x|\r\u{1b}[31m\u{2028}\"}{";
    let mut line = sample()[0].clone();
    for field in ["tool", "server", "method", "principal", "tenant", "cost", "arguments", "chain"] {
        line[field] = hostile.into();
    }
    assert_eq!(ocsf(&line)["api"]["operation"], hostile);
    let (header, pairs) = cef(&line);
    assert_eq!((header.len(), pairs["act"].as_str()), (7, "denied"));
    let expected = hostile.replace(['\u{1b}', '\u{2028}'], "?");
    for key in ["mcpFleetTool", "destinationServiceName", "requestMethod", "suser", "mcpFleetTenant", "mcpFleetChain"] {
        assert_eq!(pairs[key], expected, "{key}");
    }
}

#[test]
fn a_broken_line_is_named_and_the_others_are_exported() {
    let good = &sample()[0];
    let with = |field: &str, value: Value| {
        let mut line = good.clone();
        line[field] = value;
        line.to_string()
    };
    let prefixed = format!("2026-11-26T20:00:00.1Z stdout F {good}");
    let oversize = format!("{{\"audit\":1,\"tool\":\"{}\"}}", "x".repeat(1 << 20));
    let cut = &SAMPLE[..200];
    let log = [
        good.to_string(),
        "{\"level\":\"INFO\",\"fields\":{\"audit\":1}}".into(),
        "started".into(),
        String::new(),
        prefixed,
        with("audit", json!(2)),
        with("reason", json!("of_tomorrow")),
        with("loop", json!("of_tomorrow")),
        with("decision", json!("maybe")),
        with("added", json!(1)),
        with("time", json!("yesterday")),
        oversize,
        format!("{{\"level\":\"{}\"}}", "x".repeat(MAX_LINE)),
        good.to_string(),
        cut.to_owned(),
    ]
    .join("\n");
    for format in [Format::Ocsf, Format::Cef] {
        let (events, broken) = exported(&log, format);
        assert_eq!(events.len(), 3, "{broken:?}");
        assert_eq!(broken.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [6, 7, 8, 9, 10, 11, 12, 15]);
        assert!(broken[1].1.contains("\"of_tomorrow\", which this program does not know"), "{broken:?}");
    }
}
