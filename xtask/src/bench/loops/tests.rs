#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use super::*;
use trace::Label;

fn figures() -> Figures {
    let mut figures = Figures::default();
    for trace in corpus::traces() {
        figures.add(&trace, &replay::replay(&trace));
    }
    figures
}

#[test]
fn the_detector_keeps_its_figures() {
    let figures = figures();
    assert!(figures.precision() >= 0.98, "{figures}");
    assert!(figures.recall() >= 0.95, "{figures}");
    assert!(figures.false_stops_per_thousand() <= 1.0, "{figures}");
    assert!(figures.until_detection(50).unwrap() <= 12, "{figures}");
    assert!(figures.until_detection(90).unwrap() <= 20, "{figures}");
}

#[test]
fn the_committed_traces_are_those_of_the_scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(CORPUS);
    let scripts = corpus::traces();
    assert!(scripts.len() >= 60);
    let mut names = HashSet::new();
    for trace in &scripts {
        let name = &trace.head.name;
        assert!(names.insert(format!("{name}.jsonl")), "{name} occurs twice");
        let committed = std::fs::read_to_string(folder.join(format!("{name}.jsonl"))).unwrap_or_default();
        assert!(committed == trace.text().unwrap(), "run `cargo xtask bench loops --generate`: {name} has changed");
    }
    let files: HashSet<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, names);
}

fn parse(lines: &[&str]) -> Result<Trace> {
    let file = std::env::temp_dir().join(format!("trace-{}-{:p}.jsonl", std::process::id(), lines));
    std::fs::write(&file, lines.join("\n")).unwrap();
    let trace = Trace::read(&file);
    std::fs::remove_file(file).unwrap();
    trace
}

#[test]
fn a_trace_needs_only_the_documented_fields() {
    let call = r#"{"at_ms":5,"tool":"t","args":{},"result":"x","is_error":false}"#;
    let trace = parse(&[r#"{"name":"n","label":"loop","loop_from":1}"#, call, call, ""]).unwrap();
    assert_eq!((trace.calls.len(), trace.honest(), trace.head.label), (2, 1, Label::Loop));
    let trace = parse(&[r#"{"name":"n","label":"work","loop_from":null}"#, call]).unwrap();
    assert_eq!(trace.honest(), 1);
}

#[test]
fn a_wrong_trace_is_refused_with_its_line() {
    let (early, late) = (r#"{"at_ms":5,"tool":"t"}"#, r#"{"at_ms":6,"tool":"t"}"#);
    let error = |lines: &[&str]| format!("{:#}", parse(lines).unwrap_err());
    assert!(error(&[]).contains("the file is empty"));
    assert!(error(&["{}"]).contains("line 1 must be"));
    assert!(error(&[r#"{"name":"n","label":"loop"}"#, early]).contains("no loop_from"));
    assert!(error(&[r#"{"name":"n","label":"loop","loop_from":1}"#, early]).contains("after the last call"));
    assert!(error(&[r#"{"name":"n","label":"work"}"#, late, early]).contains("line 3 is earlier"));
    assert!(error(&[r#"{"name":"n","label":"work"}"#, "[]"]).contains("line 2 must be"));
}

#[test]
fn figures_count_a_refusal_before_the_loop_as_a_false_stop() {
    let call = r#"{"at_ms":0,"tool":"get","result":"x"}"#;
    let trace = parse(&[r#"{"name":"n","label":"loop","loop_from":2}"#, call, call, call, call]).unwrap();
    let mut figures = Figures::default();
    let kind = mcp_fleet_policy::loops::Kind::Retry;
    figures.add(&trace, &replay::Replayed { refused: vec![(1, kind), (3, kind)], warned: vec![0, 2] });
    assert!((figures.precision() - 0.5).abs() < 1e-9 && (figures.recall() - 1.0).abs() < 1e-9);
    assert!((figures.false_stops_per_thousand() - 500.0).abs() < 1e-9);
    assert_eq!(figures.until_detection(50), Some(1));
    assert!(figures.to_string().contains("1 in loops, 1 on honest calls"));
}
