//! Of which kinds settings are: how each is written, what is allowed, and how it is shown.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::layers::Raw;

/// Bytes of a text, at most.
const MAX_TEXT_BYTES: usize = 4_096;
/// Items of a list, at most.
const MAX_ITEMS: usize = 64;

/// Units of sizes, with their bytes, the largest first.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];
/// Units of durations, with their seconds, the largest first.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400),
    ("h", 3_600),
    ("min", 60),
    ("m", 60),
    ("s", 1),
];

/// What a setting may be.
pub(super) trait Kind {
    /// What it is read to.
    type Value: Clone;

    /// What is allowed, as it completes "write …".
    fn allowed(&self) -> String;

    /// Reads it. Relative paths are relative to `base`.
    fn read(&self, raw: &Raw, base: &Path) -> Result<Self::Value, Wrong>;

    /// As it is shown: text, number or list.
    fn show(&self, value: &Self::Value) -> Value;
}

/// Why a value is none of its kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is not what is allowed.
    NotAllowed,
    /// It may be a secret, which is not repeated.
    Inline(&'static str),
}

/// A whole number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    pub(super) least: u64,
    pub(super) most: u64,
}

/// A size in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) least: u64,
    pub(super) most: u64,
}

/// A duration in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    pub(super) least: u64,
    pub(super) most: u64,
}

/// The name of a file or directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct File {
    /// What is in it.
    pub(super) what: &'static str,
}

/// A word of which `read` knows whether it is good.
pub(super) struct Word<T> {
    pub(super) what: &'static str,
    pub(super) read: fn(&str) -> Option<T>,
    pub(super) show: fn(&T) -> String,
}

/// `true` or `false`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bool;

/// Any text without control characters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    pub(super) what: &'static str,
    /// Whether it may be empty.
    pub(super) empty: bool,
}

/// Words, or a table with words for each of its keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct OneOrTable {
    pub(super) what: &'static str,
}

/// Words in one text, with spaces between them, or a list of them.
fn words(raw: &Raw) -> Option<String> {
    match raw {
        Raw::List(items) => {
            let words: Option<Vec<_>> = items.iter().map(text).collect();
            words.map(|words| words.join(" "))
        }
        Raw::Text(_)
        | Raw::Word(_)
        | Raw::Number(_)
        | Raw::Bool(_)
        | Raw::Table(_)
        | Raw::Other(_)
        | Raw::Words(_) => text(raw).map(str::to_owned),
    }
}

/// The value of [`OneOrTable`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Texts {
    One(String),
    Table(Vec<(String, String)>),
}

/// One of a few words.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

/// Several of a kind.
pub(super) struct List<K>(pub(super) K);

/// A word, or the name of a file.
pub(super) struct FileOr<T> {
    pub(super) what: &'static str,
    /// The value of a word, or `None` if it is the name of a file.
    pub(super) read: fn(&str) -> Option<T>,
    pub(super) file: fn(PathBuf) -> T,
    pub(super) show: fn(&T) -> String,
}

impl Kind for Count {
    type Value = u64;

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.least, self.most)
    }

    fn read(&self, raw: &Raw, _: &Path) -> Result<u64, Wrong> {
        let number = match raw {
            Raw::Number(number) => *number,
            Raw::Word(word) => digits(word),
            Raw::Text(_)
            | Raw::List(_)
            | Raw::Words(_)
            | Raw::Bool(_)
            | Raw::Table(_)
            | Raw::Other(_) => None,
        };
        within(number, self.least, self.most)
    }

    fn show(&self, value: &u64) -> Value {
        json!(value)
    }
}

impl Kind for Size {
    type Value = u64;

    fn allowed(&self) -> String {
        format!(
            "a size from {} to {}: \"64 MiB\", or a number of bytes",
            with_unit(self.least, &SIZE_UNITS),
            with_unit(self.most, &SIZE_UNITS)
        )
    }

    fn read(&self, raw: &Raw, _: &Path) -> Result<u64, Wrong> {
        within(quantity(raw, &SIZE_UNITS), self.least, self.most)
    }

    fn show(&self, value: &u64) -> Value {
        json!(with_unit(*value, &SIZE_UNITS))
    }
}

impl Kind for Time {
    type Value = u64;

    fn allowed(&self) -> String {
        format!(
            "a time from {} to {}: \"30 d\", \"12 h\", \"5 min\", \"30 s\", or a number of seconds",
            with_unit(self.least, &TIME_UNITS),
            with_unit(self.most, &TIME_UNITS)
        )
    }

    fn read(&self, raw: &Raw, _: &Path) -> Result<u64, Wrong> {
        within(quantity(raw, &TIME_UNITS), self.least, self.most)
    }

    fn show(&self, value: &u64) -> Value {
        json!(with_unit(*value, &TIME_UNITS))
    }
}

impl Kind for File {
    type Value = PathBuf;

    fn allowed(&self) -> String {
        format!("the name of {}", self.what)
    }

    fn read(&self, raw: &Raw, base: &Path) -> Result<PathBuf, Wrong> {
        file(word(raw).ok_or(Wrong::NotAllowed)?, base)
    }

    fn show(&self, value: &PathBuf) -> Value {
        json!(value.to_string_lossy())
    }
}

impl<T: Clone> Kind for Word<T> {
    type Value = T;

    fn allowed(&self) -> String {
        self.what.to_owned()
    }

    fn read(&self, raw: &Raw, _: &Path) -> Result<T, Wrong> {
        text(raw).and_then(self.read).ok_or(Wrong::NotAllowed)
    }

    fn show(&self, value: &T) -> Value {
        json!((self.show)(value))
    }
}

impl Kind for Bool {
    type Value = bool;

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn read(&self, raw: &Raw, _: &Path) -> Result<bool, Wrong> {
        match raw {
            Raw::Bool(value) => Ok(*value),
            Raw::Word(word) => match word.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(Wrong::NotAllowed),
            },
            Raw::Text(_)
            | Raw::Number(_)
            | Raw::List(_)
            | Raw::Table(_)
            | Raw::Other(_)
            | Raw::Words(_) => Err(Wrong::NotAllowed),
        }
    }

    fn show(&self, value: &bool) -> Value {
        json!(value)
    }
}

impl Kind for Text {
    type Value = String;

    fn allowed(&self) -> String {
        self.what.to_owned()
    }

    fn read(&self, raw: &Raw, _: &Path) -> Result<String, Wrong> {
        let text = word(raw).ok_or(Wrong::NotAllowed)?;
        let fits = text.len() <= MAX_TEXT_BYTES && (self.empty || !text.is_empty());
        if fits && !text.chars().any(char::is_control) {
            Ok(text.to_owned())
        } else {
            Err(Wrong::NotAllowed)
        }
    }

    fn show(&self, value: &String) -> Value {
        json!(value)
    }
}

impl Kind for OneOrTable {
    type Value = Texts;

    fn allowed(&self) -> String {
        self.what.to_owned()
    }

    fn read(&self, raw: &Raw, _: &Path) -> Result<Texts, Wrong> {
        if let Raw::Table(table) = raw {
            let texts = table
                .iter()
                .map(|(key, value)| Some((key.clone(), words(value)?)));
            let texts: Option<_> = texts.collect();
            return texts.map(Texts::Table).ok_or(Wrong::NotAllowed);
        }
        words(raw).map(Texts::One).ok_or(Wrong::NotAllowed)
    }

    fn show(&self, value: &Texts) -> Value {
        match value {
            Texts::One(text) => json!(text),
            Texts::Table(table) => table.iter().cloned().collect(),
        }
    }
}

impl<T: Clone + PartialEq> Kind for Choice<T> {
    type Value = T;

    fn allowed(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("{word:?}")).collect();
        words.join(" or ")
    }

    fn read(&self, raw: &Raw, _: &Path) -> Result<T, Wrong> {
        let word = text(raw).ok_or(Wrong::NotAllowed)?;
        let chosen = self.0.iter().find(|(name, _)| *name == word);
        chosen
            .map(|(_, value)| value.clone())
            .ok_or(Wrong::NotAllowed)
    }

    fn show(&self, value: &T) -> Value {
        let chosen = self.0.iter().find(|(_, known)| known == value);
        json!(chosen.map(|(name, _)| name))
    }
}

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn allowed(&self) -> String {
        format!("a list, each {}", self.0.allowed())
    }

    fn read(&self, raw: &Raw, base: &Path) -> Result<Self::Value, Wrong> {
        let items: Vec<Raw> = match raw {
            Raw::List(items) => items.clone(),
            Raw::Words(words) => words.iter().cloned().map(Raw::Word).collect(),
            // A variable is empty for none, and has commas between several.
            Raw::Word(word) if word.is_empty() => Vec::new(),
            Raw::Word(word) => word
                .split(',')
                .map(|item| Raw::Word(item.trim().to_owned()))
                .collect(),
            Raw::Text(_) | Raw::Number(_) | Raw::Bool(_) | Raw::Table(_) | Raw::Other(_) => {
                return Err(Wrong::NotAllowed);
            }
        };
        if items.len() > MAX_ITEMS {
            return Err(Wrong::NotAllowed);
        }
        items.iter().map(|item| self.0.read(item, base)).collect()
    }

    fn show(&self, value: &Self::Value) -> Value {
        value.iter().map(|item| self.0.show(item)).collect()
    }
}

impl<T: Clone> Kind for FileOr<T> {
    type Value = T;

    fn allowed(&self) -> String {
        self.what.to_owned()
    }

    fn read(&self, raw: &Raw, base: &Path) -> Result<T, Wrong> {
        let word = word(raw).ok_or(Wrong::NotAllowed)?;
        match (self.read)(word) {
            Some(value) => Ok(value),
            None => file(word, base).map(self.file),
        }
    }

    fn show(&self, value: &T) -> Value {
        json!((self.show)(value))
    }
}

/// Text of any length.
fn word(raw: &Raw) -> Option<&str> {
    match raw {
        Raw::Text(text) | Raw::Word(text) => Some(text),
        Raw::Number(_)
        | Raw::List(_)
        | Raw::Words(_)
        | Raw::Bool(_)
        | Raw::Table(_)
        | Raw::Other(_) => None,
    }
}

/// Text of a length that makes sense.
fn text(raw: &Raw) -> Option<&str> {
    word(raw).filter(|text| (1..=MAX_TEXT_BYTES).contains(&text.len()))
}

fn file(name: &str, base: &Path) -> Result<PathBuf, Wrong> {
    if name.starts_with("-----BEGIN") {
        return Err(Wrong::Inline(
            "this is a key or certificate itself; put it into a file that only the relay reads, and name the file",
        ));
    }
    if name.trim_start().starts_with('{') {
        return Err(Wrong::Inline(
            "these are keys themselves; put them into a file, and name the file",
        ));
    }
    // Whatever else it is: it may be a secret, which is not repeated.
    if name.len() > MAX_TEXT_BYTES || name.chars().any(char::is_control) {
        return Err(Wrong::Inline(
            "this is no name of a file: it has line breaks, or is too long",
        ));
    }
    if name.is_empty() {
        return Err(Wrong::NotAllowed);
    }
    Ok(base.join(name))
}

fn within(number: Option<u64>, least: u64, most: u64) -> Result<u64, Wrong> {
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or(Wrong::NotAllowed)
}

/// A number without sign.
fn digits(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// A number, or one with a unit.
fn quantity(raw: &Raw, units: &[(&str, u64)]) -> Option<u64> {
    match raw {
        Raw::Number(number) => *number,
        Raw::Text(text) | Raw::Word(text) => {
            let end = text.find(|c: char| !c.is_ascii_digit());
            let Some((number, unit)) = end.and_then(|end| text.split_at_checked(end)) else {
                // A number in quotes has no unit, though somebody may have meant one.
                return matches!(raw, Raw::Word(_)).then(|| digits(text)).flatten();
            };
            let unit = unit.strip_prefix(' ').unwrap_or(unit);
            let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
            digits(number)?.checked_mul(*factor)
        }
        Raw::List(_) | Raw::Words(_) | Raw::Bool(_) | Raw::Table(_) | Raw::Other(_) => None,
    }
}

/// With the largest unit of which it is a whole number, binary ones before decimal ones.
fn with_unit(number: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| number != 0 && number.is_multiple_of(*factor);
    let binary = units
        .iter()
        .filter(|(_, factor)| !units.contains(&("B", 1)) || factor.is_power_of_two())
        .find(fits);
    match binary {
        Some((name, factor)) => format!("{} {name}", number / factor),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        least: 1,
        most: 1 << 50,
    };
    const TIME: Time = Time {
        least: 1,
        most: 400 * 86_400,
    };

    fn word(text: &str) -> Raw {
        Raw::Word(text.to_owned())
    }

    fn quoted(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn sizes_and_times_are_read_with_and_without_unit() {
        for (raw, bytes) in [
            (quoted("64 MiB"), 64 << 20),
            (quoted("64MiB"), 64 << 20),
            (quoted("5 MB"), 5_000_000),
            (quoted("7 B"), 7),
            (word("1 TiB"), 1 << 40),
            (word("4096"), 4_096),
            (Raw::Number(Some(4_096)), 4_096),
        ] {
            assert_eq!(SIZE.read(&raw, Path::new("")), Ok(bytes), "{raw}");
        }
        for (raw, seconds) in [
            (quoted("30 d"), 30 * 86_400),
            (quoted("12h"), 43_200),
            (quoted("5 min"), 300),
            (quoted("5 m"), 300),
            (word("90 s"), 90),
            (Raw::Number(Some(90)), 90),
        ] {
            assert_eq!(TIME.read(&raw, Path::new("")), Ok(seconds), "{raw}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "MiB",
            "64 mib",
            "64  MiB",
            " 64 MiB",
            "64 MiB ",
            "-1 MiB",
            "+1 MiB",
            "1.5 MiB",
            "64",
            "64 d",
            "99999999999999999999 B",
            "99999999999 TiB",
            "0 B",
            "2000 TiB",
            "１ MiB",
        ] {
            let read = SIZE.read(&quoted(text), Path::new(""));
            assert_eq!(read, Err(Wrong::NotAllowed), "{text:?}");
        }
        for raw in [
            Raw::Number(None),
            Raw::Other("a fraction"),
            Raw::List(vec![]),
        ] {
            assert_eq!(
                SIZE.read(&raw, Path::new("")),
                Err(Wrong::NotAllowed),
                "{raw}"
            );
        }
    }

    /// What is shown is what can be written.
    #[test]
    fn shown_sizes_and_times_are_read_again() {
        for bytes in [
            1,
            1_000,
            1_023,
            1_024,
            98_304,
            64 << 20,
            (64 << 20) + 1,
            1 << 40,
            5_000_000,
        ] {
            let shown = SIZE.show(&bytes);
            let raw = quoted(shown.as_str().unwrap());
            assert_eq!(SIZE.read(&raw, Path::new("")), Ok(bytes), "{shown}");
        }
        assert_eq!(SIZE.show(&(64 << 20)), "64 MiB");
        assert_eq!(TIME.show(&86_400), "1 d");
        assert_eq!(TIME.show(&300), "5 min");
        assert_eq!(TIME.show(&90), "90 s");
    }

    #[test]
    fn count_of_the_file_is_a_number_without_quotes() {
        let count = Count { least: 1, most: 10 };
        assert_eq!(count.read(&word("10"), Path::new("")), Ok(10));
        for raw in [
            quoted("10"),
            Raw::Number(Some(0)),
            Raw::Number(Some(11)),
            word("+5"),
            word(""),
        ] {
            assert_eq!(
                count.read(&raw, Path::new("")),
                Err(Wrong::NotAllowed),
                "{raw}"
            );
        }
    }

    #[test]
    fn file_is_relative_to_the_file_that_names_it_and_never_the_content() {
        let kind = File { what: "a file" };
        let read = kind.read(&quoted("a/b"), Path::new("/etc/sealwire"));
        assert_eq!(read, Ok(PathBuf::from("/etc/sealwire/a/b")));
        let read = kind.read(&quoted("/a"), Path::new("/etc/sealwire"));
        assert_eq!(read, Ok(PathBuf::from("/a")));
        let long = "k".repeat(MAX_TEXT_BYTES + 1);
        for content in [
            "-----BEGIN PRIVATE KEY-----\nMC4C",
            " {\"kty\":\"oct\"}",
            "a\nb",
            "a\u{0}b",
            &long,
        ] {
            let read = kind.read(&quoted(content), Path::new(""));
            assert!(matches!(read, Err(Wrong::Inline(_))), "{content}");
        }
        assert_eq!(
            kind.read(&quoted(""), Path::new("")),
            Err(Wrong::NotAllowed)
        );
    }

    #[test]
    fn list_is_written_as_one_or_with_commas_in_a_variable() {
        let list = List(Choice(&[("a", 1), ("b", 2)]));
        let items = Raw::List(vec![quoted("a"), quoted("b")]);
        for raw in [
            items,
            word("a, b"),
            Raw::Words(vec!["a".into(), "b".into()]),
        ] {
            assert_eq!(list.read(&raw, Path::new("")), Ok(vec![1, 2]), "{raw:?}");
        }
        assert_eq!(list.read(&word(""), Path::new("")), Ok(vec![]));
        let many = Raw::List(vec![quoted("a"); MAX_ITEMS + 1]);
        for raw in [word("a,c"), word("a,"), quoted("a"), many] {
            assert_eq!(
                list.read(&raw, Path::new("")),
                Err(Wrong::NotAllowed),
                "{raw:?}"
            );
        }
    }
}
