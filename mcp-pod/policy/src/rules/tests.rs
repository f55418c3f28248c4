//! Tests of values against rules, and of intersections.

use proptest::prelude::*;

use super::*;
use crate::json::Value;
use crate::model::{ArrayRule, PathRule, Scalar, StringRule};
use crate::reason::Reason;
use crate::testing;

fn check(rule: &Rule, value: &Value<'_>) -> Result<(), Reason> {
    let check = Check::new(rule).unwrap();
    let result = check.admit(value, &mut Vec::new());
    result.map_err(|violation| violation.into_denial().reason)
}

fn text(text: &str) -> Value<'_> {
    Value::String(text.into())
}

fn path_rule(within: &[&str], extensions: &[&str], dotfiles: bool) -> Rule {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Rule::Path(PathRule { within: owned(within), extensions: owned(extensions), dotfiles })
}

#[test]
fn a_path_must_be_at_or_below_a_root_as_written() {
    let rule = path_rule(&["/workspace/reports"], &[], false);
    for good in ["/workspace/reports", "/workspace/reports/a", "/workspace/reports/a b/é.txt"] {
        assert_eq!(check(&rule, &text(good)), Ok(()), "{good}");
    }
    for bad in [
        "",
        "/",
        "reports/a",
        "a",
        "/workspace",
        "/workspace/reportsx",
        "/workspace/reports/../x",
        "/workspace/reports/..",
        "/workspace/reports/./a",
        "/workspace/reports//a",
        "/workspace/reports/",
        "//workspace/reports/a",
        "/etc/passwd",
        "~/a",
        "/workspace/reports/~root",
        "file:///workspace/reports/a",
    ] {
        assert_eq!(check(&rule, &text(bad)), Err(Reason::PathOutsideRoots), "{bad}");
    }
    for odd in [
        "/workspace/reports/a\0",
        "/workspace/reports/a\n",
        "/workspace/reports/*",
        "/workspace/reports/?git",
        "/workspace/reports/.git/hooks/x",
        "/workspace/reports/[.]git",
        "/workspace/reports/{.git,a}",
        "/workspace/reports/..\\x",
    ] {
        assert_eq!(check(&rule, &text(odd)), Err(Reason::ArgumentPattern), "{odd:?}");
    }
    let long = format!("/workspace/reports/{}", "a/".repeat(2500));
    assert_eq!(check(&rule, &text(&long)), Err(Reason::ArgumentOutOfRange));
    assert_eq!(check(&rule, &Value::Null), Err(Reason::ArgumentType));
}

#[test]
fn hidden_names_and_brackets_pass_only_if_the_rule_allows_them() {
    let rule = path_rule(&["/w"], &[], true);
    for good in ["/w/.git/config", "/w/app/[id].tsx"] {
        assert_eq!(check(&rule, &text(good)), Ok(()), "{good}");
    }
    let below_hidden = path_rule(&["/w/.config"], &[], false);
    assert_eq!(check(&below_hidden, &text("/w/.config/a")), Ok(()));
    assert_eq!(check(&below_hidden, &text("/w/.config/.a")), Err(Reason::ArgumentPattern));
}

#[test]
fn an_extension_is_the_end_of_the_file_name() {
    let rule = path_rule(&["/w"], &["md", "tar.gz", "c++"], true);
    for good in ["/w/a.md", "/w/a.tar.gz", "/w/a.c++"] {
        assert_eq!(check(&rule, &text(good)), Ok(()), "{good}");
    }
    for bad in ["/w/a.gz", "/w/amd", "/w/.md", "/w/a.md/b", "/w/a.MD", "/w"] {
        assert_eq!(check(&rule, &text(bad)), Err(Reason::ArgumentPattern), "{bad}");
    }
}

#[test]
fn a_string_is_measured_in_characters_and_must_not_look_like_an_option() {
    let rule = |pattern: Option<&str>, leading_dash| {
        Rule::String(StringRule { max_length: 3, pattern: pattern.map(str::to_owned), leading_dash })
    };
    assert_eq!(check(&rule(None, false), &text("ééé")), Ok(()));
    assert_eq!(check(&rule(None, false), &text("😀😀😀😀")), Err(Reason::ArgumentOutOfRange));
    assert_eq!(check(&rule(None, false), &text("-rf")), Err(Reason::ArgumentPattern));
    assert_eq!(check(&rule(None, true), &text("-rf")), Ok(()));
    assert_eq!(check(&rule(None, true), &text("a\0")), Err(Reason::ArgumentPattern));
    assert_eq!(check(&rule(Some("a+"), true), &text("aab")), Err(Reason::ArgumentPattern));
    assert_eq!(check(&rule(Some("a+"), true), &text("aaa")), Ok(()));
}

#[test]
fn numbers_are_checked_for_type_and_range() {
    let integer = Rule::Integer { minimum: 1, maximum: 10 };
    assert_eq!(check(&integer, &Value::Integer(10)), Ok(()));
    assert_eq!(check(&integer, &Value::Integer(11)), Err(Reason::ArgumentOutOfRange));
    assert_eq!(check(&integer, &Value::Number(1.5)), Err(Reason::ArgumentType));
    assert_eq!(check(&integer, &text("1")), Err(Reason::ArgumentType));
    let number = Rule::Number { minimum: "0.1".into(), maximum: "2".into() };
    assert_eq!(check(&number, &Value::Number(0.1)), Ok(()));
    assert_eq!(check(&number, &Value::Integer(2)), Ok(()));
    assert_eq!(check(&number, &Value::Integer(0)), Err(Reason::ArgumentOutOfRange));
    assert_eq!(check(&Rule::Const(Scalar::Integer(3)), &Value::Integer(4)), Err(Reason::ArgumentOutOfRange));
    assert_eq!(check(&Rule::Const(Scalar::Boolean(true)), &Value::Bool(false)), Err(Reason::ArgumentNotAllowed));
    assert_eq!(check(&Rule::Enum(vec!["a".into()]), &text("b")), Err(Reason::ArgumentNotAllowed));
}

#[test]
fn a_denial_names_the_argument_by_its_location_in_the_policy() {
    let item = Rule::Object(vec![Argument {
        name: "line".into(),
        required: true,
        rule: Rule::Integer { minimum: 1, maximum: 10_000 },
        shown: None,
    }]);
    let edits = Argument {
        name: "edits".into(),
        required: false,
        rule: Rule::Array(Box::new(ArrayRule { item, max_items: 2 })),
        shown: None,
    };
    let arguments = Arguments::new(&[edits]).unwrap();
    let denial = |line: Value<'static>| {
        let line = Value::Array(vec![Value::Object(vec![("line".into(), line)])]);
        let members = vec![("edits".into(), line)];
        arguments.admit(&members, &mut Vec::new()).unwrap_err().into_denial()
    };
    let out_of_range = denial(Value::Integer(0));
    assert_eq!(out_of_range.argument.as_deref(), Some("edits[].line"));
    assert_eq!(out_of_range.limit.as_deref(), Some("argument `edits[].line` must be between 1 and 10000"));
    let undeclared = vec![("rm\u{202e}".into(), Value::Null)];
    let denial = arguments.admit(&undeclared, &mut Vec::new()).unwrap_err().into_denial();
    assert_eq!(denial.reason, Reason::ArgumentUndeclared);
    assert_eq!(denial.argument, None);
    assert_eq!(denial.limit.as_deref(), Some(r"there is no argument `rm\u{202e}` for this caller"));
}

#[test]
fn paths_in_arrays_are_collected_with_their_roots() {
    let paths = Rule::Array(Box::new(ArrayRule { item: path_rule(&["/a", "/b"], &[], false), max_items: 5 }));
    let arguments =
        Arguments::new(&[Argument { name: "paths".into(), required: true, rule: paths, shown: None }]).unwrap();
    let members = vec![("paths".into(), Value::Array(vec![text("/a/1"), text("/b/2")]))];
    let mut collected = Vec::new();
    arguments.admit(&members, &mut collected).unwrap();
    assert_eq!(collected.iter().map(|path| path.value).collect::<Vec<_>>(), ["/a/1", "/b/2"]);
    assert!(collected.iter().all(|path| path.within == ["/a", "/b"]));
}

#[test]
fn an_enumeration_of_paths_keeps_the_roots_of_the_catalogue() {
    let scope = Check::new(&Rule::Enum(vec!["/w/a".into(), "/etc/passwd".into()])).unwrap();
    let both = scope.intersect(&Check::new(&path_rule(&["/w"], &[], false)).unwrap()).unwrap();
    let value = text("/w/a");
    let mut paths = Vec::new();
    both.admit(&value, &mut paths).unwrap();
    assert_eq!(paths, [PathArgument { value: "/w/a", within: &["/w".to_owned()] }]);
    assert!(both.admit(&text("/etc/passwd"), &mut Vec::new()).is_err());
}

#[test]
fn rules_that_cannot_be_enforced_are_refused() {
    let string =
        |pattern: &str| Rule::String(StringRule { max_length: 1, pattern: Some(pattern.into()), leading_dash: false });
    for rule in [
        path_rule(&[], &[], false),
        path_rule(&["workspace"], &[], false),
        path_rule(&["/w/"], &[], false),
        path_rule(&["/w/../x"], &[], false),
        path_rule(&["/w/*"], &[], false),
        path_rule(&["/w"], &[".md"], false),
        path_rule(&["/w"], &["m/d"], false),
        path_rule(&["/w"], &["tar..gz"], false),
        path_rule(&["/w"], &["md."], false),
        path_rule(&["/w"], &[""], false),
        Rule::Enum(vec![]),
        Rule::Enum(vec!["a\0".into()]),
        Rule::Const(Scalar::String("\0".into())),
        string("(?=a)"),
        string("("),
        Rule::Integer { minimum: 2, maximum: 1 },
        Rule::Number { minimum: "2".into(), maximum: "1".into() },
        Rule::Number { minimum: "inf".into(), maximum: "1".into() },
        Rule::Number { minimum: "0".into(), maximum: "1e999".into() },
        Rule::Number { minimum: "0".into(), maximum: "1e3".into() },
        Rule::Number { minimum: "0".into(), maximum: "1234567890123456".into() },
        Rule::Const(Scalar::Integer(1 << 53)),
        (0..20).fold(Rule::Boolean, |item, _| Rule::Array(Box::new(ArrayRule { item, max_items: 1 }))),
    ] {
        assert!(validate(&rule).is_err(), "{rule:?} was accepted");
    }
    for name in ["", "a\n", "a\u{85}"] {
        let argument = Argument { name: name.into(), required: true, rule: Rule::Boolean, shown: None };
        assert_eq!(validate_arguments(&[argument]), Err(RuleError::Name), "{name:?}");
    }
    let twice = vec![Argument { name: "a".into(), required: true, rule: Rule::Boolean, shown: None }; 2];
    assert_eq!(validate_arguments(&twice), Err(RuleError::Duplicate("a".into())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    #[test]
    fn a_root_has_only_components_that_no_server_takes_for_other_names(
        root in r"/?([a.~*?{}\[\]\\é\x00\x7f\x85]{0,3}/){0,3}[a.~é]{0,3}"
    ) {
        let ordinary = |character: char| !character.is_control() && !"/*?[{\\".contains(character);
        let plain = |name: &str| {
            !matches!(name, "" | "." | "..") && !name.starts_with('~') && name.chars().all(ordinary)
        };
        let expected = root == "/" || root.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain));
        prop_assert_eq!(forms::ROOT.admits(&root), expected, "{:?}", root);
    }

    #[test]
    fn an_intersection_admits_exactly_what_both_rules_admit(
        (left, right, value) in (testing::rule(), testing::rule()).prop_flat_map(|(left, right)| {
            let value = testing::value_for(&left);
            (Just(left), Just(right), value)
        })
    ) {
        let (left, right) = (Check::new(&left).unwrap(), Check::new(&right).unwrap());
        let admits = |check: &Check| check.admit(&value, &mut Vec::new()).is_ok();
        let both = left.intersect(&right);
        prop_assert_eq!(both.as_ref().is_some_and(admits), admits(&left) && admits(&right));
    }

    #[test]
    fn an_intersection_of_path_rules_admits_exactly_what_both_rules_admit(
        (left, right) in (testing::path_rule(), testing::path_rule()), value in testing::path()
    ) {
        let (left, right) = (Check::new(&left).unwrap(), Check::new(&right).unwrap());
        let admits = |check: &Check| check.admit(&value, &mut Vec::new()).is_ok();
        let both = left.intersect(&right);
        prop_assert_eq!(both.as_ref().is_some_and(admits), admits(&left) && admits(&right));
    }

    #[test]
    fn a_collected_path_lies_below_a_root_of_both_rules(
        (left, right, members) in (testing::arguments(), testing::arguments()).prop_flat_map(|(left, right)| {
            let members = testing::members_for(&left);
            (Just(left), Just(right), members)
        })
    ) {
        let (left, right) = (Arguments::new(&left).unwrap(), Arguments::new(&right).unwrap());
        let Some(both) = left.intersect(&right) else { return Ok(()) };
        let mut collected = Vec::new();
        if both.admit(&members, &mut collected).is_ok() {
            prop_assert!(left.admit(&members, &mut Vec::new()).is_ok());
            prop_assert!(right.admit(&members, &mut Vec::new()).is_ok());
            for path in collected {
                let below = |root: &String| path.value == root || root == "/" || path.value.starts_with(&format!("{root}/"));
                prop_assert!(path.within.iter().any(below));
            }
        }
    }
}

#[test]
fn more_members_than_arguments_are_counted_and_not_compared() {
    let path = Argument { name: "path".into(), required: true, rule: path_rule(&["/w"], &[], false), shown: None };
    let arguments = Arguments::new(&[path]).unwrap();
    let members: Vec<_> = (0..30_000).map(|n| (format!("x{n}").into(), text("x"))).collect();
    assert_eq!(arguments.distance(&members), 29_999);
}
