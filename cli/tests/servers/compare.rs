//! A session with a server as people run it, and the same one through a gateway, field by field.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use mcp_fleet_policy::class::Class;
use serde_json::{Map, Value, json};

use crate::case::{Case, Session};
use crate::client::{Answer, Client, LEGACY, MODERN};
use crate::direct::Direct;
use crate::fleet::Fleet;
use crate::schema::{Check, problems};

/// How long a server may take to report its tools to its gateway. Nothing waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// Members of a tool that a gateway drops: it offers no tasks (`execution`), and nothing may reach an agent that nobody has looked at.
const DROPPED: [&str; 3] = ["execution", "icons", "_meta"];

/// What a server says about itself, its tools, and its answers to the calls of a session.
struct Seen {
    about: Value,
    tools: Map<String, Value>,
    answers: Vec<Answer>,
}

/// Holds a session of a server through a gateway against one without, and its settings to what the session needs.
pub(crate) fn session(name: &str) {
    let case = Case::read(name);
    let unused = unused(&case);
    assert!(unused.is_empty(), "the catalogue has what no call of the session uses: {unused:?}");
    // One after the other, because both may listen on the same port.
    let direct = {
        let mut direct = Direct::start(&case);
        let mut client = direct.connect(&case);
        Seen { about: client.about.take(), tools: client.tools(), answers: answers(&mut client, &case.session) }
    };
    for modern in [false, true] {
        let fleet = Fleet::start(&case).unwrap();
        let mut client = reported(&fleet, modern);
        let tools = client.tools();
        let through = Seen { about: client.about.take(), tools, answers: answers(&mut client, &case.session) };
        let differences = differences(&case, modern, &direct, &through);
        let revision = if modern { MODERN } else { LEGACY };
        assert!(differences.is_empty(), "{revision}:\n{}\n{}", differences.join("\n"), fleet.log());
    }
    for (setting, without) in case.without_each_setting() {
        assert!(!works(&without, &direct), "the server works as well without {setting}, so it does not need it");
    }
}

/// Returns whether all results of a session through a gateway are the expected ones.
fn works(case: &Case, direct: &Seen) -> bool {
    let Ok(fleet) = Fleet::start(case) else { return false };
    let modern = case.session.modern;
    let answers = answers(&mut fleet.connect(modern), &case.session);
    results(case, modern, &direct.answers, &answers).is_empty()
}

fn answers(client: &mut Client, session: &Session) -> Vec<Answer> {
    session.calls.iter().map(|call| client.call(call)).collect()
}

/// Connects to a server that has told its gateway about itself. Until then, its tools have no descriptions.
fn reported(fleet: &Fleet, modern: bool) -> Client {
    let started = Instant::now();
    loop {
        let mut client = fleet.connect(modern);
        let tools = client.tools();
        if tools.values().all(|tool| tool["description"].is_string()) {
            // What was said before may be older.
            return fleet.connect(modern);
        }
        assert!(started.elapsed() < PATIENCE, "the server has not reported: {tools:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the differences that there should not be.
fn differences(case: &Case, modern: bool, direct: &Seen, through: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    compare("about", &direct.about, &through.about, &mut found);
    found.extend(lists(case, &direct.tools, &through.tools));
    found.extend(results(case, modern, &direct.answers, &through.answers));
    found
}

/// Returns the tools and arguments of the catalogue that no call uses.
fn unused(case: &Case) -> Vec<String> {
    let mut used: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for call in &case.session.calls {
        let names = call.arguments.as_object().unwrap().keys().map(String::as_str);
        used.entry(&call.tool).or_default().extend(names);
    }
    let mut unused = Vec::new();
    for tool in case.server().spec.tools {
        match used.get(&*tool.name) {
            None => unused.push(tool.name),
            Some(names) => {
                let more = tool.arguments.iter().filter(|argument| !names.contains(&*argument.name));
                unused.extend(more.map(|argument| format!("{} of {}", argument.name, tool.name)));
            }
        }
    }
    unused
}

/// Compares the list of a server with that of a gateway. Returns the differences that there should not be.
fn lists(case: &Case, direct: &Map<String, Value>, listed: &Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    let mut checks = Vec::new();
    let catalogue = case.server().spec.tools;
    let (declared, names): (BTreeSet<&str>, BTreeSet<&str>) =
        (catalogue.iter().map(|tool| &*tool.name).collect(), listed.keys().map(String::as_str).collect());
    compare("tools", &json!(declared), &json!(names), &mut found);
    for tool in &catalogue {
        let (Some(direct), Some(listed)) = (direct.get(&tool.name), listed.get(&tool.name)) else {
            found.push(format!("{}: the server does not have it, or the gateway does not", tool.name));
            continue;
        };
        let (mut expected, mut entry) = (as_listed(direct, tool.class), listed.clone());
        let (theirs, ours) = (expected["inputSchema"].take(), entry["inputSchema"].take());
        compare(&tool.name, &expected, &entry, &mut found);
        found.extend(texts(&tool.name, &theirs, &ours, &mut checks));
        for call in case.session.calls.iter().filter(|call| call.tool == tool.name) {
            let what = format!("{} {}", call.tool, call.arguments);
            checks.push(Check::admits(format!("{what} to the gateway"), ours.clone(), call.arguments.clone()));
            if !call.refused {
                checks.push(Check::admits(format!("{what} to the server"), theirs.clone(), call.arguments.clone()));
            }
        }
    }
    found.extend(problems(&checks));
    found
}

/// Returns a tool of a server as a gateway lists it, except for its arguments. `mcp-pod/policy/src/list` says why it does.
fn as_listed(tool: &Value, class: Class) -> Value {
    let mut tool = tool.clone();
    let members = tool.as_object_mut().unwrap();
    for dropped in DROPPED {
        members.remove(dropped);
    }
    // The class of the tool says what it does. A server's own hints are claims.
    let annotations = members.entry("annotations").or_insert_with(|| json!({}));
    annotations["readOnlyHint"] = json!(class == Class::Read);
    annotations["destructiveHint"] = json!(class == Class::Destructive);
    tool
}

/// Compares what the schemas of arguments say to agents: the gateway's is made from the catalogue, with the server's texts.
fn texts(tool: &str, direct: &Value, listed: &Value, checks: &mut Vec<Check>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, ours) in listed["properties"].as_object().into_iter().flatten() {
        let theirs = &direct["properties"][name];
        if theirs.is_null() {
            found.push(format!("{tool}: the server has no argument {name}"));
        }
        for text in ["title", "description"] {
            let (theirs, ours) = (theirs[text].as_str().unwrap_or_default(), ours[text].as_str().unwrap_or_default());
            // The gateway adds what its rule says.
            if !ours.starts_with(theirs) {
                found.push(format!("{tool}: the {text} of {name} is {ours:?}, not {theirs:?}"));
            }
        }
        match (theirs.get("default"), ours.get("default")) {
            // A default that the catalogue does not admit would have agents send what is refused.
            (Some(default), None) => {
                checks.push(Check::refuses(format!("{tool}: default of {name}"), ours.clone(), default.clone()));
            }
            (theirs, ours) => compare(&format!("{tool}: default of {name}"), &json!(theirs), &json!(ours), &mut found),
        }
    }
    found
}

/// Compares the answers to all calls. `modern` is the revision through the gateway.
fn results(case: &Case, modern: bool, direct: &[Answer], through: &[Answer]) -> Vec<String> {
    let mut found = Vec::new();
    for ((call, direct), through) in case.session.calls.iter().zip(direct).zip(through) {
        let what = format!("{} {}", call.tool, call.arguments);
        let mut expected = call.without_varying(&direct.response);
        // Required since 2026-07-28. Before, a member that nobody knows does not matter.
        if modern && expected["result"].is_object() {
            expected["result"]["resultType"] = json!("complete");
        }
        compare(&what, &expected, &call.without_varying(&through.response), &mut found);
        let progress = |answer: &Answer| json!(answer.progress);
        compare(&format!("progress of {what}"), &progress(direct), &progress(through), &mut found);
        let is_refused =
            |answer: &Answer| answer.response["result"].is_null() || answer.response["result"]["isError"] == true;
        if is_refused(direct) != call.refused {
            found.push(format!("{what}: session.yaml says `refused: {}`, but {}", call.refused, direct.response));
        }
    }
    found
}

/// Adds what differs between two values, member by member.
fn compare(path: &str, direct: &Value, through: &Value, found: &mut Vec<String>) {
    match (direct, through) {
        (Value::Object(direct), Value::Object(through)) => {
            let names: BTreeSet<&String> = direct.keys().chain(through.keys()).collect();
            for name in names {
                let member = |members: &Map<String, Value>| members.get(name).cloned();
                match (member(direct), member(through)) {
                    (Some(direct), Some(through)) => compare(&format!("{path}/{name}"), &direct, &through, found),
                    (direct, through) => found.push(format!(
                        "{path}/{name}: {} directly, {} through the gateway",
                        shown(direct),
                        shown(through)
                    )),
                }
            }
        }
        (Value::Array(direct), Value::Array(through)) if direct.len() == through.len() => {
            for (number, (direct, through)) in direct.iter().zip(through).enumerate() {
                compare(&format!("{path}/{number}"), direct, through, found);
            }
        }
        (direct, through) if direct == through => {}
        (direct, through) => found.push(format!("{path}: {direct} directly, {through} through the gateway")),
    }
}

fn shown(value: Option<Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| value.to_string())
}
