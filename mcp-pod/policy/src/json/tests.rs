//! Tests of parser and writer: what must be rejected, and agreement with `serde_json` on valid text.

use proptest::prelude::*;

use super::*;

fn problem(text: &str) -> Problem {
    parse(text.as_bytes(), &Limits::REQUEST).unwrap_err().problem
}

fn written(text: &str) -> String {
    let mut out = Vec::new();
    write(&parse(text.as_bytes(), &Limits::REQUEST).unwrap(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn strings_passed_on_unchanged_are_checked_just_as_strictly() {
    let text = r#"{"a\u0062":"x\ny\u0041\\","c":["\ud83d\ude00"]}"#;
    let value = parse(text.as_bytes(), &Limits::PASS_THROUGH).unwrap();
    assert_eq!(value.get("ab").unwrap().as_str(), Some(r"x\ny\u0041\\"));
    for wrong in [r#""\x""#, r#""\ud800""#, r#""\u12""#, "\"a\nb\"", r#""open\""#, r#"{"a":1,"\u0061":2}"#] {
        assert!(parse(wrong.as_bytes(), &Limits::PASS_THROUGH).is_err(), "{wrong} was accepted");
    }
}

#[test]
fn memory_is_requested_before_values_are_parsed() {
    let text = format!("[{}0]", "0,".repeat(199));
    let parse_with = |free, room: usize| {
        let mut reserved = 0;
        let parsed = parse_metered(text.as_bytes(), &Limits::REQUEST, free, &mut |values| {
            reserved += values;
            reserved <= room
        });
        (parsed.map(|value| value.as_array().unwrap().len()).map_err(|error| error.problem), reserved)
    };
    // The array is a value too.
    assert_eq!(parse_with(201, 0), (Ok(200), 0));
    assert_eq!(parse_with(0, 256), (Ok(200), 256));
    assert_eq!(parse_with(10, 192), (Ok(200), 192));
    assert_eq!(parse_with(0, 100), (Err(Problem::Memory), 128));
    let few = Limits { nodes: 100, ..Limits::REQUEST };
    let parsed = parse_metered(text.as_bytes(), &few, 0, &mut |_| true);
    assert_eq!(parsed.unwrap_err().problem, Problem::Nodes);
}

#[test]
fn duplicate_keys_are_rejected_even_if_spelled_with_escapes() {
    assert_eq!(problem(r#"{"path":1,"path":2}"#), Problem::DuplicateKey);
    assert_eq!(problem(r#"{"path":1,"p\u0061th":2}"#), Problem::DuplicateKey);
    assert_eq!(problem(r#"[{"a":{"b":1,"\u0062":1}}]"#), Problem::DuplicateKey);
    let many: Vec<String> = (0..40).map(|n| format!("\"k{n}\":0")).collect();
    assert!(parse(format!("{{{}}}", many.join(",")).as_bytes(), &Limits::REQUEST).is_ok());
    assert_eq!(problem(&format!("{{{},\"k7\":1}}", many.join(","))), Problem::DuplicateKey);
}

#[test]
fn numbers_on_which_parsers_differ_are_rejected() {
    for (text, expected) in [
        ("1e400", Problem::NumberRange),
        ("-1e400", Problem::NumberRange),
        ("1e-400", Problem::NumberRange),
        ("9007199254740992", Problem::IntegerRange),
        ("-9007199254740992", Problem::IntegerRange),
        ("123456789012345678901234567890", Problem::IntegerRange),
        ("9007199254740993.0", Problem::NumberPrecision),
        ("0.1000000000000000001", Problem::NumberPrecision),
        ("1.00000000000000001", Problem::NumberPrecision),
        ("2e-324", Problem::NumberRange),
        ("01", Problem::Number),
        ("-", Problem::Number),
        ("1.", Problem::Number),
        ("1e", Problem::Number),
        ("1e+", Problem::Number),
        (".5", Problem::Unexpected),
        ("+1", Problem::Unexpected),
        ("0x10", Problem::Trailing),
        ("NaN", Problem::Unexpected),
        ("Infinity", Problem::Unexpected),
    ] {
        assert_eq!(problem(text), expected, "{text}");
    }
}

#[test]
fn each_number_is_written_in_exactly_one_form() {
    for (text, expected) in [
        ("9007199254740991", "9007199254740991"),
        ("-9007199254740991", "-9007199254740991"),
        ("0", "0"),
        ("-0", "-0.0"),
        ("-0.0", "-0.0"),
        ("0e999", "0"),
        ("1.0", "1"),
        ("1e2", "100"),
        ("12.50", "12.5"),
        ("0.1", "0.1"),
        ("0.10000000000000001", "0.1"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("1E-7", "1e-7"),
        ("1e300", "1e300"),
        ("1.7976931348623157e308", "1.7976931348623157e308"),
        ("5e-324", "5e-324"),
        ("100000000000000000000e0", "1e20"),
    ] {
        assert_eq!(written(text), expected, "{text}");
    }
}

#[test]
fn numbers_in_server_answers_may_be_rounded() {
    let value = parse(b"18446744073709551615", &Limits::RESULT).unwrap();
    assert_eq!(value, Value::Number(18_446_744_073_709_551_615.0));
    assert!(parse(b"1e400", &Limits::RESULT).is_err());
}

#[test]
fn strings_that_are_not_valid_unicode_are_rejected() {
    for text in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\u0041""#, r#""\ud800x""#, r#""\udc00\ud800""#] {
        assert_eq!(problem(text), Problem::LoneSurrogate, "{text}");
    }
    for text in [r#""\x41""#, r#""\u12""#, r#""\u12g4""#, r#""\u+123""#, r#""\U0041""#] {
        assert_eq!(problem(text), Problem::Escape, "{text}");
    }
    assert_eq!(problem("\"a\nb\""), Problem::ControlCharacter);
    assert_eq!(problem("\"a\0b\""), Problem::ControlCharacter);
    assert_eq!(problem("\"a"), Problem::End);
    assert_eq!(problem("\"a\\"), Problem::End);
    assert_eq!(problem(r#"{"a\u0000b":1}"#), Problem::NulInKey);
    assert_eq!(parse(b"\"\xff\"", &Limits::REQUEST).unwrap_err().problem, Problem::Utf8);
    assert_eq!(parse(b"\"\xed\xa0\x80\"", &Limits::REQUEST).unwrap_err().problem, Problem::Utf8);
    assert_eq!(written(r#""\ud83d\ude00\u0000\/""#), "\"\u{1f600}\\u0000/\"");
}

#[test]
fn exactly_one_value_is_accepted() {
    assert_eq!(problem(""), Problem::End);
    assert_eq!(problem("{} {}"), Problem::Trailing);
    assert_eq!(problem("{}\u{b}"), Problem::Trailing);
    assert_eq!(problem("\u{feff}{}"), Problem::ByteOrderMark);
    assert_eq!(problem("[1,]"), Problem::Unexpected);
    assert_eq!(problem("{\"a\":1,}"), Problem::Unexpected);
    assert_eq!(problem("{a:1}"), Problem::Unexpected);
    assert_eq!(problem("[1 2]"), Problem::Unexpected);
    assert_eq!(problem("tru"), Problem::Unexpected);
    assert_eq!(problem("{\"a\""), Problem::End);
    assert_eq!(written(" \t\r\n{ \"a\" : [ 1 , true , null ] } "), r#"{"a":[1,true,null]}"#);
}

#[test]
fn nesting_and_number_of_values_are_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(nested(32).as_bytes(), &Limits::REQUEST).is_ok());
    assert_eq!(problem(&nested(33)), Problem::Depth);
    assert_eq!(problem(&"[".repeat(1_000_000)), Problem::Depth);
    let flat = |items: usize| format!("[{}]", vec!["0"; items].join(","));
    assert!(parse(flat(32_767).as_bytes(), &Limits::REQUEST).is_ok());
    assert_eq!(problem(&flat(32_768)), Problem::Nodes);
}

#[test]
fn an_error_never_contains_the_text() {
    let error = parse(br#"{"secret":1,"secret":2}"#, &Limits::REQUEST).unwrap_err();
    assert!(!error.to_string().contains("secret"));
}

#[test]
fn a_string_without_escapes_is_borrowed() {
    let text = format!("\"{}\"", "x".repeat(32 * 1024));
    let value = parse(text.as_bytes(), &Limits::REQUEST).unwrap();
    assert!(matches!(value, Value::String(Cow::Borrowed(_))));
}

#[test]
fn long_strings_are_escaped_at_every_offset() {
    for offset in 0..200 {
        let mut text = "é".repeat(100);
        text.replace_range(offset / 2 * 2..offset / 2 * 2, if offset % 2 == 0 { "\n" } else { "x\"\\\u{1}" });
        let mut out = Vec::new();
        write_str(&text, &mut out);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        assert_eq!(parse(&out, &Limits::REQUEST).unwrap().as_str(), Some(&*text));
    }
}

fn any_value() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-MAX_INTEGER..=MAX_INTEGER).prop_map(Value::Integer),
        any::<f64>()
            .prop_filter("finite and not an integer", |number| number.is_finite() && number.fract() != 0.0)
            .prop_map(Value::Number),
        any::<String>().prop_map(|text| Value::String(text.into())),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::btree_map("[^\0]{0,6}", inner, 0..16).prop_map(|members| Value::Object(
                members.into_iter().map(|(key, value)| (key.into(), value)).collect()
            )),
        ]
    })
}

/// Compares values. Doubles are compared with a tolerance, because `serde_json` may be off in the last digits.
fn is_same(ours: &Value<'_>, theirs: &serde_json::Value) -> bool {
    match (ours, theirs) {
        (Value::Null, serde_json::Value::Null) => true,
        (Value::Bool(ours), serde_json::Value::Bool(theirs)) => ours == theirs,
        #[allow(clippy::cast_precision_loss)]
        (Value::Integer(ours), serde_json::Value::Number(theirs)) => theirs.as_f64() == Some(*ours as f64),
        (Value::Number(ours), serde_json::Value::Number(theirs)) => theirs
            .as_f64()
            .is_some_and(|theirs| (theirs - ours).abs() <= (ours.abs() * 4.0 * f64::EPSILON).max(f64::MIN_POSITIVE)),
        (Value::String(ours), serde_json::Value::String(theirs)) => ours == theirs,
        (Value::Array(ours), serde_json::Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| is_same(ours, theirs))
        }
        (Value::Object(ours), serde_json::Value::Object(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().all(|(key, ours)| theirs.get(key.as_ref()).is_some_and(|theirs| is_same(ours, theirs)))
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_written_value_is_read_back(value in any_value()) {
        let mut out = Vec::new();
        write(&value, &mut out);
        prop_assert_eq!(parse(&out, &Limits::RESULT).unwrap(), value);
    }

    #[test]
    fn serde_json_reads_the_same_value(value in any_value()) {
        let mut out = Vec::new();
        write(&value, &mut out);
        let theirs: serde_json::Value = serde_json::from_slice(&out).unwrap();
        prop_assert!(is_same(&value, &theirs));
        // serde_json escapes and formats differently; our parser has to read the same value from it.
        let text = serde_json::to_vec_pretty(&theirs).unwrap();
        prop_assert!(is_same(&parse(&text, &Limits::RESULT).unwrap(), &theirs));
    }

    #[test]
    fn whatever_serde_json_rejects_is_rejected(text in r#"[\[\]{}:,"\\ueE0-9.+\-atrfnlsd ]{0,24}"#) {
        if parse(text.as_bytes(), &Limits::REQUEST).is_ok() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }

    #[test]
    fn arbitrary_bytes_never_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes, &Limits::REQUEST);
    }

    #[test]
    fn a_double_is_accepted_in_its_shortest_form_and_with_17_digits(bits in any::<u64>()) {
        let number = f64::from_bits(bits);
        prop_assume!(number.is_finite() && number != 0.0);
        for text in [format!("{number:e}"), format!("{number:.16e}")] {
            let read = match parse(text.as_bytes(), &Limits::REQUEST).unwrap() {
                Value::Number(read) => read,
                #[allow(clippy::cast_precision_loss)]
                Value::Integer(read) => read as f64,
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(read.to_bits(), number.to_bits());
        }
    }
}

#[test]
fn every_byte_is_escaped_exactly_if_required_at_every_offset() {
    for character in (0..0x100).filter_map(char::from_u32) {
        for before in 0..20 {
            let text = format!("{}{character}{}", "a".repeat(before), "\u{80}\u{1f}b".repeat(before % 3));
            let mut out = Vec::new();
            write_str(&text, &mut out);
            let read: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(read, text);
            let escaped = matches!(character, '\0'..='\u{1f}' | '"' | '\\');
            assert_eq!(out.get(before + 1) == Some(&b'\\'), escaped, "{character:?} after {before} bytes");
        }
    }
}
