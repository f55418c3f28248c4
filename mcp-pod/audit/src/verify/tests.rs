#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::chain::Chain;

const ID: Ulid = Ulid::from_parts(1, 7);

/// Returns this many lines of a chain, without line feeds, and its head.
fn lines(count: usize) -> (Vec<String>, Head) {
    let (mut chain, mut out) = (Chain::new(ID), Vec::new());
    for number in 0..count {
        chain.link(format!("{{\"audit\":1,\"cost\":\"{number}\"").as_bytes(), &mut out);
    }
    let text = String::from_utf8(out).unwrap();
    (text.lines().map(str::to_owned).collect(), chain.head().unwrap())
}

fn verify_with<'l>(lines: impl IntoIterator<Item = &'l String>, checkpoints: &[Checkpoint], partial: bool) -> Report {
    let mut verifier = Verifier::new();
    let text: Vec<&str> = lines.into_iter().map(String::as_str).collect();
    verifier.read_log(0, text.join("\n").as_bytes()).unwrap();
    verifier.finish(checkpoints, partial)
}

fn problems<'l>(lines: impl IntoIterator<Item = &'l String>) -> Vec<Problem> {
    verify_with(lines, &[], false).problems
}

fn checkpoint(head: Head) -> Checkpoint {
    Checkpoint { head, pod: "gateway-1".into() }
}

const fn place(line: u64) -> Place {
    Place { file: 0, line }
}

#[test]
fn an_untouched_log_has_no_problems() {
    let (lines, head) = lines(5);
    let report = verify_with(&lines, &[checkpoint(head)], false);
    assert_eq!(report.problems, []);
    assert_eq!(report.chains, [Summary { chain: ID, first: 1, last: 5, confirmed: 5 }]);
}

#[test]
fn a_removed_line_is_found() {
    let (mut lines, _) = lines(5);
    lines.remove(2);
    assert_eq!(problems(&lines), [Problem::Removed { chain: ID, from: 3, to: 3 }]);
}

#[test]
fn removed_first_lines_are_found_unless_the_log_is_partial() {
    let (lines, _) = lines(5);
    assert_eq!(problems(&lines[2..]), [Problem::Removed { chain: ID, from: 1, to: 2 }]);
    assert_eq!(verify_with(&lines[2..], &[], true).problems, []);
}

#[test]
fn a_changed_line_is_found() {
    let (mut lines, _) = lines(5);
    lines[1] = lines[1].replace("\"cost\":\"1\"", "\"cost\":\"0\"");
    assert_eq!(problems(&lines), [Problem::Changed { chain: ID, sequence: 2, place: place(2) }]);
}

#[test]
fn a_last_line_that_was_changed_is_found_by_a_checkpoint_only() {
    let (mut lines, head) = lines(2);
    lines[1] = lines[1].replace("\"cost\":\"1\"", "\"cost\":\"0\"");
    assert_eq!(problems(&lines), []);
    let report = verify_with(&lines, &[checkpoint(head)], false);
    assert_eq!(report.problems, [Problem::Changed { chain: ID, sequence: 2, place: place(2) }]);
    assert_eq!(report.chains[0].confirmed, 0);
}

#[test]
fn a_line_that_was_moved_is_found() {
    let (mut lines, _) = lines(5);
    lines.swap(1, 2);
    assert_eq!(problems(&lines), [Problem::Reordered { chain: ID, sequence: 2, place: place(3) }]);
}

#[test]
fn a_chain_may_continue_in_another_file_in_any_order() {
    let (lines, _) = lines(4);
    let mut verifier = Verifier::new();
    for (file, half) in [&lines[2..], &lines[..2]].into_iter().enumerate() {
        verifier.read_log(file, half.join("\n").as_bytes()).unwrap();
    }
    assert_eq!(verifier.finish(&[], false).problems, []);
}

#[test]
fn a_line_that_a_collector_delivered_twice_is_fine_but_another_one_with_its_number_is_not() {
    let (mut lines, _) = lines(3);
    lines.push(lines[2].clone());
    assert_eq!(problems(&lines), []);
    lines[3] = lines[3].replace("\"cost\":\"2\"", "\"cost\":\"0\"");
    assert_eq!(problems(&lines), [Problem::Conflicting { chain: ID, sequence: 3, place: place(4) }]);
}

#[test]
fn a_line_that_was_added_is_found() {
    let (mut lines, _) = lines(2);
    lines.push(r#"{"audit":1,"decision":"allowed"}"#.into());
    lines.push(r#"{"audit":1,"chain":"x","sequence":1}"#.into());
    lines.push(r#"{"audit":1,"audit":2}"#.into());
    let found = problems(&lines);
    assert!(
        matches!(
            &found[..],
            [Problem::Unreadable { .. }, Problem::Unreadable { .. }, Problem::Unchained { count: 1, .. }]
        ),
        "{found:?}"
    );
}

#[test]
fn an_end_that_was_cut_off_is_found_by_a_checkpoint() {
    let (lines, head) = lines(5);
    let cut = Problem::CutOff { chain: ID, from: 4, to: 5, pod: "gateway-1".into() };
    assert_eq!(verify_with(&lines[..3], &[checkpoint(head)], false).problems, [cut]);
    let missing = Problem::CutOff { chain: ID, from: 1, to: 5, pod: "gateway-1".into() };
    assert_eq!(verify_with(&[], &[checkpoint(head)], true).problems, [missing]);
}

#[test]
fn an_audit_line_that_is_too_long_is_found() {
    let (mut lines, _) = lines(3);
    lines.push(format!("started {}", "x".repeat(2 * MAX_LINE)));
    assert_eq!(problems(&lines), [], "it is not an audit line");
    lines.push(format!("{{\"audit\":1,\"cost\":\"{}\"}}", "1".repeat(MAX_LINE)));
    lines.push(format!("{{\"audit\":1}}{}", " ".repeat(MAX_LINE)));
    let cause = "it is longer than 65536 bytes";
    let unreadable = |line| Problem::Unreadable { place: place(line), cause: cause.to_owned() };
    assert_eq!(problems(&lines), [unreadable(5), unreadable(6)]);
}

#[test]
fn other_log_lines_and_prefixes_of_container_logs_are_skipped() {
    let (lines, _) = lines(2);
    let log = [
        r#"{"timestamp":"2026-11-26T00:00:00Z","level":"INFO","fields":{"message":"\"audit\":1"}}"#.into(),
        format!("2026-11-26T00:00:00.1Z stdout F {}", lines[0]),
        "not JSON {".into(),
        format!("{}\r\n", lines[1]),
    ];
    let report = verify_with(&log, &[], false);
    assert_eq!(report.problems, []);
    assert_eq!(report.chains[0].last, 2);
}

proptest! {
    #[test]
    fn no_input_makes_the_verifier_panic(
        lines in prop::collection::vec(
            prop_oneof![
                ".*",
                (any::<u64>(), 0_u8..3).prop_map(|(sequence, kind)| {
                    let chain = Ulid::from_parts(u64::from(kind), 0);
                    format!("{{\"audit\":1,\"chain\":\"{chain}\",\"sequence\":{sequence}}}")
                }),
            ],
            0..20,
        ),
        sequence in any::<u64>(),
    ) {
        let head = Head { chain: Ulid::from_parts(0, 0), sequence, digest: Digest::of(b"") };
        verify_with(&lines, &[checkpoint(head)], false);
    }

    #[test]
    fn any_change_of_one_byte_is_found(position in 0_usize..10_000, byte in any::<u8>()) {
        let (lines, head) = lines(4);
        let mut text = lines.join("\n").into_bytes();
        let position = position % text.len();
        prop_assume!(text[position] != byte);
        text[position] = byte;
        let mut verifier = Verifier::new();
        verifier.read_log(0, &text[..]).unwrap();
        prop_assert_ne!(verifier.finish(&[checkpoint(head)], false).problems, []);
    }
}
