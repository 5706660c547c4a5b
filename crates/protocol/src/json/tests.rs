use alloc::{format, string::ToString, vec};

use proptest::prelude::*;

use super::*;

fn parse(json: &str) -> Result<Object, JsonError> {
    Object::parse(json.as_bytes())
}

/// The value of the one member.
fn value(json: &str) -> Result<Value, JsonError> {
    parse(&format!(r#"{{"v":{json}}}"#)).map(|object| object.member("v").cloned().unwrap())
}

#[test]
fn every_kind_of_value_is_read() {
    let object = parse(" {\r\n\t\"a\" : [ null , true , false ] , \"b\" : { \"c\" : \"d\" } , \"e\" : { } , \"f\" : [ ] } \n").unwrap();
    assert_eq!(
        object.member("a"),
        Some(&Value::Array(vec![
            Value::Null,
            Value::Bool(true),
            Value::Bool(false)
        ]))
    );
    let Some(Value::Object(b)) = object.member("b") else {
        panic!()
    };
    assert_eq!(b.member("c"), Some(&Value::String("d".into())));
    assert_eq!(
        object.members().map(|(name, _)| name).collect::<Vec<_>>(),
        ["a", "b", "e", "f"]
    );
    assert_eq!(object.member("c"), None);
    assert!(parse("{}").unwrap().is_empty());
}

#[test]
fn escapes_are_resolved() {
    assert_eq!(
        value(r#""\"\\\/\b\f\n\r\t\u0041\u00e9\uD83D\uDE00\u0000""#),
        Ok(Value::String("\"\\/\u{8}\u{c}\n\r\tAé😀\0".into()))
    );
}

/// docs/protocol.md §2.1: a time is an integer in plain digits.
#[test]
fn only_plain_digits_are_an_integer() {
    assert_eq!(value("0"), Ok(Value::Integer(0)));
    assert_eq!(value("18446744073709551615"), Ok(Value::Integer(u64::MAX)));
    for number in [
        "18446744073709551616",
        "-0",
        "-1",
        "1.0",
        "0.5",
        "1e3",
        "1E3",
        "1e+3",
        "1e-3",
        "-1.5e300",
        "1e999999999",
    ] {
        assert_eq!(value(number), Ok(Value::OtherNumber), "{number}");
    }
}

/// docs/protocol.md §2.1
#[test]
fn what_is_not_json_is_refused() {
    for json in [
        "",
        "nul",
        "nulll",
        "True",
        "NaN",
        "Infinity",
        "undefined",
        "01",
        "-",
        "-01",
        "+1",
        ".5",
        "1.",
        "1e",
        "1e+",
        "0x10",
        "1-1",
        "1.2.3",
        "1e2e3",
        "١",
        "'a'",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[",
        "[1",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{\"a\" 1}",
        "{1:1}",
        "{\"a\":1",
        "//c\n1",
        "\"",
        "\"a",
        "\"\n\"",
        "\"\t\"",
        "\"\0\"",
        r#""\x41""#,
        r#""\u12""#,
        r#""\u12g4""#,
        r#""\u+123""#,
        r#""\U0041""#,
        r#""\""#,
        "\u{a0}1",
        "\u{b}1",
    ] {
        assert_eq!(value(json), Err(JsonError::Malformed), "{json:?}");
    }
}

/// docs/protocol.md §2.1
#[test]
fn unpaired_surrogates_are_refused() {
    for json in [
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800\ud800""#,
        r#""\ud800x""#,
        r#""\ud800\n""#,
        r#""\udc00\ud800""#,
        r#""\ud83d\u0041""#,
    ] {
        assert_eq!(value(json), Err(JsonError::Malformed), "{json}");
    }
}

/// docs/protocol.md §2.1, 3
#[test]
fn duplicate_members_are_refused_at_any_depth_and_in_any_spelling() {
    for json in [
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"b":2,"a":3}"#,
        r#"{"":1,"":2}"#,
        r#"{"exp":1,"ex\u0070":2}"#,
        r#"{"\u0065xp":1,"exp":2}"#,
        r#"{"/":1,"\/":2}"#,
        r#"{"😀":1,"\ud83d\ude00":2}"#,
        r#"{"x":{"a":1,"a":2}}"#,
        r#"{"x":[[{"y":{"a":1,"a":2}}]]}"#,
    ] {
        assert_eq!(parse(json), Err(JsonError::DuplicateMember), "{json}");
    }
    assert!(parse(r#"{"a":{"a":[{"a":1},{"a":1}]},"A":1}"#).is_ok());
}

/// docs/protocol.md §2.1, 3
#[test]
fn nesting_deeper_than_8_is_refused() {
    let arrays = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&arrays(7)).is_ok());
    assert_eq!(parse(&arrays(8)), Err(JsonError::TooDeep));
    let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    assert!(parse(&objects(8)).is_ok());
    assert_eq!(parse(&objects(9)), Err(JsonError::TooDeep));
    // Refused on the way down, whatever follows.
    assert_eq!(parse(&r#"{"a":["#.repeat(100_000)), Err(JsonError::TooDeep));
    assert_eq!(
        parse(&format!(r#"{{"a":{}"#, "[".repeat(100_000))),
        Err(JsonError::TooDeep)
    );
}

/// docs/protocol.md §2.1, 3
#[test]
fn more_than_64_members_or_256_items_are_refused() {
    let object = |members: usize| {
        format!(
            "{{{}}}",
            (0..members)
                .map(|n| format!("\"{n}\":{n}"))
                .collect::<Vec<_>>()
                .join(",")
        )
    };
    assert_eq!(parse(&object(64)).map(|object| object.len()), Ok(64));
    assert_eq!(parse(&object(65)), Err(JsonError::TooManyMembers));
    let array = |items: usize| format!(r#"{{"a":[{}]}}"#, vec!["0"; items].join(","));
    assert!(parse(&array(256)).is_ok());
    assert_eq!(parse(&array(257)), Err(JsonError::TooManyItems));
}

/// docs/protocol.md §2.1, 3
#[test]
fn anything_but_one_object_is_refused() {
    for json in [
        "", " ", "[]", "[{}]", "null", "1", "\"{}\"", "x{}", "\u{a0}{}",
    ] {
        assert_eq!(parse(json), Err(JsonError::NotAnObject), "{json:?}");
    }
    for json in [
        "{}{}",
        "{} x",
        "{},",
        "{}\0",
        "{}\u{a0}",
        "{}\u{b}",
        "{}}",
        "{}//",
        "{}\u{feff}",
    ] {
        assert_eq!(parse(json), Err(JsonError::Trailing), "{json:?}");
    }
    assert_eq!(parse("\u{feff}{}"), Err(JsonError::ByteOrderMark));
    for json in [
        &b"{\"a\":\"\xff\"}"[..],
        b"{\"\xc0\x80\":1}",
        b"{\"a\":\"\xed\xa0\x80\"}",
        b"\xff\xfe{\0}\0",
        b"{}\x80",
    ] {
        assert_eq!(Object::parse(json), Err(JsonError::NotUtf8), "{json:?}");
    }
}

/// What `serde_json` makes of the same text, in our terms.
fn converted(value: serde_json::Value) -> Value {
    use serde_json::Value as Other;
    match value {
        Other::Null => Value::Null,
        Other::Bool(bool) => Value::Bool(bool),
        Other::Number(number) => number.as_u64().map_or(Value::OtherNumber, Value::Integer),
        Other::String(string) => Value::String(string),
        Other::Array(items) => Value::Array(items.into_iter().map(converted).collect()),
        Other::Object(object) => Value::Object(sorted(
            object
                .into_iter()
                .map(|(name, value)| (name, converted(value))),
        )),
    }
}

fn sorted(members: impl Iterator<Item = (String, Value)>) -> Object {
    let mut members: Vec<_> = members.collect();
    members.sort_by(|(a, _), (b, _)| a.cmp(b));
    Object { members }
}

/// Members in the order of their names, at every depth.
fn in_order(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(sorted(
            object
                .members
                .into_iter()
                .map(|(name, value)| (name, in_order(value))),
        )),
        Value::Array(items) => Value::Array(items.into_iter().map(in_order).collect()),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::OtherNumber
        | Value::String(_) => value,
    }
}

/// The text of a value, mostly valid.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(String::from("null")),
        "-?[0-9]{1,3}(\\.[0-9])?([eE][+-]?[0-9]{1,2})?",
        r#""([a-z]|é|\\[nt"\\/bfrx]|\\u00[0-9a-f]{2}|\\ud83d\\ude0[0-9]|\\u[dD][89a-f]00){0,3}""#,
    ];
    leaf.prop_recursive(9, 40, 5, |inner| {
        let member =
            ("[abc]", inner.clone()).prop_map(|(name, value)| format!("\"{name}\" :{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(|items| format!("[ {}]", items.join(","))),
            prop::collection::vec(member, 0..5)
                .prop_map(|members| format!("{{{} }}", members.join(",\t"))),
        ]
    })
}

proptest! {
    /// Another reader agrees on everything: what is JSON, and what it says. (It does not see duplicate members.)
    #[test]
    fn another_reader_agrees(
        value in json_text(),
        edit in prop::option::of((any::<prop::sample::Index>(), r#"[\[\]{}:,"0-9.eE \\u-]?"#)),
    ) {
        let mut text = format!(r#"{{"m":{value}}}"#);
        if let Some((at, replacement)) = edit {
            let (at, old) = text.char_indices().nth(at.index(text.chars().count())).unwrap();
            text.replace_range(at..at + old.len_utf8(), &replacement);
        }
        let ours = parse(&text);
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(in_order(Value::Object(ours)), converted(theirs)),
            (Err(JsonError::DuplicateMember | JsonError::TooDeep), Ok(_)) => {}
            // It has no numbers beyond f64.
            (Ok(_), Err(error)) => prop_assert!(error.to_string().starts_with("number out of range"), "{text}: {error}"),
            (Err(JsonError::NotAnObject), _) => {}
            (Err(error), theirs) => prop_assert!(theirs.is_err(), "{text}: {error}"),
        }
    }

    /// docs/protocol.md §2.1
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = Object::parse(&bytes);
    }

    /// docs/protocol.md §2.1
    #[test]
    fn json_like_text_never_panics(text in r#"\{("a"|"\\u00|[]\[{}:,"0-9eE.+ \\-]|null|true){0,40}\}?"#) {
        let _ = parse(&text);
    }
}

#[test]
fn debug_shows_types_and_no_values() {
    let object = Object::parse(br#"{"sub":"alice","a":[1,true],"o":{}}"#).unwrap();
    assert_eq!(alloc::format!("{object:?}"), "Object(3 members)");
    for (name, shown) in [
        ("sub", "String(..)"),
        ("a", "Array(2 items)"),
        ("o", "Object(0 members)"),
    ] {
        assert_eq!(alloc::format!("{:?}", object.member(name).unwrap()), shown);
    }
}
