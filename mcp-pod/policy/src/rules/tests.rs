//! Tests of values against rules, and of intersections.

use proptest::prelude::*;

use super::*;
use crate::json::Value;
use crate::model::{ArrayRule, MapRule, PathRule, Scalar, StringRule};
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

fn object(members: Vec<(&'static str, Value<'static>)>) -> Value<'static> {
    Value::Object(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn names(max_length: u32, pattern: Option<&str>) -> StringRule {
    StringRule { max_length, pattern: pattern.map(str::to_owned), leading_dash: false }
}

#[test]
fn a_map_admits_any_names_of_the_form() {
    let values = Rule::Integer { minimum: 0, maximum: 9 };
    let map = Rule::Map(Box::new(MapRule { names: names(3, Some("[a-z_]+")), values, max_properties: 2 }));
    let one = || Value::Integer(1);
    assert_eq!(check(&map, &object(vec![])), Ok(()));
    assert_eq!(check(&map, &object(vec![("a", one()), ("bcd", one())])), Ok(()));
    assert_eq!(check(&map, &object(vec![("a", one()), ("b", one()), ("c", one())])), Err(Reason::ArgumentOutOfRange));
    assert_eq!(check(&map, &object(vec![("abcd", one())])), Err(Reason::ArgumentOutOfRange));
    for name in ["A", "", "-a", "a\0"] {
        assert_eq!(check(&map, &object(vec![(name, one())])), Err(Reason::ArgumentPattern), "{name:?}");
    }
    assert_eq!(check(&map, &object(vec![("a", text("1"))])), Err(Reason::ArgumentType));
    assert_eq!(check(&map, &Value::Array(vec![])), Err(Reason::ArgumentType));
    let any = Rule::Map(Box::new(MapRule { names: names(99, None), values: Rule::Boolean, max_properties: 2 }));
    let prototype = object(vec![("__proto__", Value::Bool(true))]);
    assert_eq!(check(&any, &prototype), Err(Reason::ArgumentPattern), "it changes what other objects inherit");
}

#[test]
fn maps_are_narrowed_in_number_names_and_values() {
    let map = |max_length, max_properties, maximum| {
        let values = Rule::Integer { minimum: 0, maximum };
        Check::new(&Rule::Map(Box::new(MapRule { names: names(max_length, None), values, max_properties }))).unwrap()
    };
    for (one, other) in [(map(1, 5, 5), map(3, 1, 9)), (map(3, 1, 9), map(1, 5, 5))] {
        let both = one.intersect(&other).unwrap();
        let admits =
            |members: Vec<(&'static str, Value<'static>)>| both.admit(&object(members), &mut Vec::new()).is_ok();
        assert!(admits(vec![("a", Value::Integer(5))]));
        assert!(!admits(vec![("a", Value::Integer(6))]));
        assert!(!admits(vec![("ab", Value::Integer(5))]));
        assert!(!admits(vec![("a", Value::Integer(5)), ("b", Value::Integer(5))]));
    }
}

#[test]
fn a_refusal_does_not_repeat_the_names_in_a_map() {
    let values = Rule::Integer { minimum: 0, maximum: 9 };
    let map = Rule::Map(Box::new(MapRule { names: names(9, Some("[a-z]*")), values, max_properties: 2 }));
    let arguments = Arguments::new(&[Argument { name: "m".into(), required: true, rule: map, shown: None }]).unwrap();
    for (name, value, place) in [("secret", 10, "m{}"), ("SECRET", 1, "m")] {
        let members = vec![("m".into(), object(vec![(name, Value::Integer(value))]))];
        let denial = arguments.admit(&members, &mut Vec::new()).unwrap_err().into_denial();
        assert_eq!(denial.argument.as_deref(), Some(place));
        assert!(!denial.limit.unwrap().to_lowercase().contains("secret"));
    }
}

#[test]
fn one_of_several_rules_is_enough_and_paths_are_not_among_them() {
    let number = Rule::Number { minimum: "0".into(), maximum: "9".into() };
    let cell = Rule::Nullable(Box::new(Rule::OneOf(vec![Rule::Enum(vec!["a".into()]), number])));
    for good in [text("a"), Value::Integer(3), Value::Number(0.5), Value::Null] {
        assert_eq!(check(&cell, &good), Ok(()), "{good:?}");
    }
    assert_eq!(check(&cell, &text("b")), Err(Reason::ArgumentNotAllowed));
    assert_eq!(check(&cell, &Value::Integer(10)), Err(Reason::ArgumentOutOfRange));
    let refused = Check::new(&cell).unwrap().admit(&Value::Bool(true), &mut Vec::new()).unwrap_err().into_denial();
    assert_eq!(refused.reason, Reason::ArgumentType);
    assert_eq!(refused.limit.as_deref(), Some("must be a string or a number or null"));
    let nested = Rule::Nullable(Box::new(Rule::Boolean));
    for option in [path_rule(&["/w"], &[], false), nested, Rule::OneOf(vec![Rule::Boolean])] {
        assert_eq!(validate(&Rule::OneOf(vec![Rule::Boolean, option])), Err(RuleError::Option));
    }
    assert!(validate(&Rule::OneOf(vec![])).is_err());
}

#[test]
fn null_is_kept_where_it_is_declared_and_left_out_where_it_stands_for_nothing() {
    let nullable = |rule| Rule::Nullable(Box::new(rule));
    let list = Rule::Object(vec![Argument { name: "x".into(), required: false, rule: Rule::Boolean, shown: None }]);
    let rules = [
        ("a", nullable(Rule::Boolean)),
        ("b", Rule::Boolean),
        ("c", Rule::Json(JsonRule { max_bytes: 9, max_depth: 0 })),
        ("d", nullable(list)),
    ];
    let argument = |(name, rule): (&str, Rule)| Argument { name: name.into(), required: false, rule, shown: None };
    let arguments = Arguments::new(&rules.map(argument)).unwrap();
    let null = || Value::Null;
    let Value::Object(mut members) =
        object(vec![("a", null()), ("b", null()), ("c", null()), ("d", object(vec![("x", null())]))])
    else {
        unreachable!()
    };
    arguments.leave_out_nulls(&mut members);
    assert_eq!(Value::Object(members.clone()), object(vec![("a", null()), ("c", null()), ("d", object(vec![]))]));
    assert!(arguments.admit(&members, &mut Vec::new()).is_ok());
}

#[test]
fn any_json_is_bounded_in_size_and_depth() {
    let json = |max_bytes, max_depth| Rule::Json(JsonRule { max_bytes, max_depth });
    let value = Value::Array(vec![object(vec![("a", text("b"))]), Value::Null]);
    assert_eq!(check(&json(16, 2), &value), Ok(()));
    assert_eq!(check(&json(15, 2), &value), Err(Reason::ArgumentOutOfRange));
    assert_eq!(check(&json(16, 1), &value), Err(Reason::ArgumentOutOfRange));
    assert_eq!(check(&json(16, 0), &Value::Bool(true)), Ok(()));
    assert_eq!(check(&json(16, 0), &text("a\0")), Err(Reason::ArgumentPattern));
    // A scope that declares what may be in it.
    let narrow = Rule::Object(vec![Argument { name: "a".into(), required: true, rule: Rule::Boolean, shown: None }]);
    let both = Check::new(&narrow).unwrap().intersect(&Check::new(&json(10, 1)).unwrap()).unwrap();
    let admits = |value: &Value<'_>| both.admit(value, &mut Vec::new()).is_ok();
    assert!(admits(&object(vec![("a", Value::Bool(true))])));
    assert!(!admits(&object(vec![("a", Value::Bool(false))])), "it has eleven bytes");
    assert!(!admits(&object(vec![])));
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

#[test]
fn an_object_is_narrowed_by_a_map_property_by_property() {
    let map = |pattern: &'static str, maximum, max_properties| {
        let values = Rule::Nullable(Box::new(Rule::Integer { minimum: 0, maximum }));
        Check::new(&Rule::Map(Box::new(MapRule { names: names(9, Some(pattern)), values, max_properties }))).unwrap()
    };
    let property = |name: &str, required, rule| Argument { name: name.into(), required, rule, shown: None };
    let number = || Rule::Integer { minimum: 5, maximum: 20 };
    let object = |required| {
        let properties = vec![
            property("a", required, number()),
            property("b", false, Rule::Nullable(Box::new(number()))),
            property("c", false, number()),
        ];
        Check::new(&Rule::Object(properties)).unwrap()
    };
    for (one, other) in [(object(true), map("[ab]*", 9, 9)), (map("[ab]*", 9, 9), object(true))] {
        let Some(Check::Object { properties, max_properties: None }) = one.intersect(&other) else { panic!() };
        let names: Vec<&str> = properties.0.iter().map(|property| &*property.name).collect();
        assert_eq!(names, ["a", "b"], "the name of the third is refused");
        assert_eq!(properties.0[0].check, Check::Integer { minimum: 5, maximum: 9 });
    }
    let Some(Check::Object { max_properties, .. }) = object(true).intersect(&map("[a-z]*", 9, 2)) else { panic!() };
    assert_eq!(max_properties, Some(2));
    assert!(object(true).intersect(&map("[bc]*", 9, 9)).is_none(), "a required name is refused");
    assert!(object(true).intersect(&map("[a-z]*", 4, 9)).is_none(), "a required value is refused");
    assert!(object(true).intersect(&map("[a-z]*", 9, 0)).is_none(), "there is no room for the required one");
    assert!(
        object(false)
            .intersect(&map("[bc]*", 4, 0))
            .is_some_and(|both| { both.admit(&self::object(vec![]), &mut Vec::new()).is_ok() })
    );
    // A path is collected once.
    let paths =
        |rule| Check::new(&Rule::Map(Box::new(MapRule { names: names(9, None), values: rule, max_properties: 1 })));
    let file = Check::new(&Rule::Object(vec![
        property("a", false, path_rule(&["/w"], &[], false)),
        property("b", false, path_rule(&["/w"], &[], false)),
    ]));
    let both = file.unwrap().intersect(&paths(path_rule(&["/w/r"], &[], false)).unwrap()).unwrap();
    let (value, mut collected) = (self::object(vec![("a", text("/w/r/x"))]), Vec::new());
    both.admit(&value, &mut collected).unwrap();
    assert_eq!(collected, [PathArgument { value: "/w/r/x", within: &["/w/r".to_owned()] }]);
    let two = self::object(vec![("a", text("/w/r/x")), ("b", text("/w/r/x"))]);
    assert!(both.admit(&two, &mut Vec::new()).is_err());
}

#[test]
fn the_alternatives_of_two_rules_are_few_and_different() {
    let ranges = |width: i64| {
        let range = |n: i64| Rule::Integer { minimum: n, maximum: n + width };
        Check::new(&Rule::Nullable(Box::new(Rule::OneOf((0..8).map(range).collect())))).unwrap()
    };
    let Some(Check::Any(equal)) = ranges(0).intersect(&ranges(0)) else { panic!() };
    assert_eq!(equal.len(), 9);
    let twice = Rule::OneOf(vec![Rule::Boolean, Rule::Boolean]);
    let twice = Check::new(&twice).unwrap();
    assert_eq!(twice.intersect(&twice), Some(Check::Boolean(None)));
    // 8 × 8 overlapping ranges.
    let Some(Check::All(both)) = ranges(100).intersect(&ranges(99)) else { panic!() };
    assert_eq!(both.len(), 2);
    let both = Check::All(both);
    assert!(both.admit(&Value::Integer(106), &mut Vec::new()).is_ok());
    assert!(both.admit(&Value::Integer(107), &mut Vec::new()).is_err(), "only one of the two admits it");
    assert!(both.admit(&Value::Null, &mut Vec::new()).is_ok());
}

#[test]
fn a_property_that_changes_what_objects_inherit_cannot_be_declared() {
    let argument = || Argument { name: "__proto__".into(), required: false, rule: Rule::Boolean, shown: None };
    assert_eq!(validate_arguments(&[argument()]), Err(RuleError::Prototype));
    assert_eq!(validate(&Rule::Object(vec![argument()])), Err(RuleError::Prototype));
    let usual = Argument { name: "constructor".into(), ..argument() };
    assert_eq!(validate_arguments(&[usual]), Ok(()));
}
