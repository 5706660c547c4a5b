//! Where a setting is said: flags before the environment, that before the file, and where the file says it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::logging;

/// What the names of environment variables begin with.
pub(in crate::commands) const PREFIX: &str = "SEALWIRE_RELAY_";
/// The variable that names the file, and is no setting.
pub(in super::super) const FILE_VARIABLE: &str = "SEALWIRE_RELAY_CONFIG";
/// Bytes of a configuration file, at most.
pub(super) const MAX_FILE_BYTES: usize = 256 << 10;
/// Characters of a value that a message repeats, at most.
const MAX_SHOWN_CHARS: usize = 60;

/// Where a value comes from; later ones win.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Source {
    /// Nobody has said anything.
    Default,
    /// A line of the file, counted from 1.
    File(Place),
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Place {
    pub(in super::super) file: PathBuf,
    pub(in super::super) line: usize,
}

impl Source {
    /// Whether it is of the same layer as `other`, or wins over it.
    pub(in super::super) fn is_at_least(&self, other: &Self) -> bool {
        self.rank() >= other.rank()
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::Variable(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(Place { file, line }) => write!(f, "{}:{line}", file.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Problem {
    /// [`Source::Default`]: nowhere in particular, as something is missing.
    pub(in super::super) source: Source,
    pub(in super::super) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source != Source::Default {
            write!(f, "{}: ", self.source)?;
        }
        f.write_str(&self.message)
    }
}

/// A value before it is known of which kind it should be.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Raw {
    /// A string of the file.
    Text(String),
    /// A whole number of the file, or `None` if it is negative or beyond 64 bits.
    Number(Option<u64>),
    /// A list of the file.
    List(Vec<Raw>),
    /// `true` or `false` of the file.
    Bool(bool),
    /// A table of the file.
    Table(Vec<(String, Raw)>),
    /// Anything else of the file, by what it is called.
    Other(&'static str),
    /// A variable or flag: it has no type.
    Word(String),
    /// A flag that was given several times.
    Words(Vec<String>),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Word(text) => {
                let mut shown: String = text.chars().take(MAX_SHOWN_CHARS).collect();
                if shown.len() < text.len() {
                    shown.push('…');
                }
                write!(f, "{shown:?}")
            }
            Self::Number(Some(number)) => number.fmt(f),
            Self::Number(None) => f.write_str("a number below 0 or beyond 64 bits"),
            Self::List(_) | Self::Words(_) => f.write_str("a list"),
            Self::Bool(value) => value.fmt(f),
            Self::Table(_) => f.write_str("a table"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// A value with where it is.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) raw: Raw,
    pub(super) source: Source,
    /// What relative paths are relative to.
    pub(super) base: PathBuf,
}

/// The configuration file, in memory.
#[derive(Debug, Default)]
struct Document {
    path: PathBuf,
    /// By section; the empty one has the keys before the first section.
    sections: BTreeMap<Part, Section>,
}

/// A section, or one of several of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    name: String,
    /// Which one, from 0 on, of those that are written `[[name]]`.
    number: Option<usize>,
}

#[derive(Debug, Default)]
struct Section {
    line: usize,
    keys: BTreeMap<String, (Raw, usize)>,
}

impl Document {
    fn add(
        &mut self,
        name: &str,
        number: Option<usize>,
        line: usize,
        keys: Vec<(String, (Raw, usize))>,
    ) {
        let name = name.to_owned();
        let section = self
            .sections
            .entry(Part { name, number })
            .or_insert_with(|| Section {
                line,
                ..Section::default()
            });
        section.keys.extend(keys);
    }
}

/// The tables of a list that has nothing else.
fn tables<'v, 'i>(value: &'v DeValue<'i>) -> Option<Vec<(Range<usize>, &'v DeTable<'i>)>> {
    let list = value.as_array().filter(|list| !list.is_empty())?;
    let tables = list.iter().map(|item| {
        let table = item.get_ref().as_table()?;
        Some((item.span(), table))
    });
    tables.collect()
}

/// All that was said.
#[derive(Debug, Default)]
pub(super) struct Layers {
    document: Document,
    /// By the variable that stands for the setting: the one that was said, and its value.
    variables: BTreeMap<String, (String, String)>,
    flags: BTreeMap<&'static str, (&'static str, Raw)>,
}

impl Layers {
    /// Takes a file's text; what is no TOML is reported.
    pub(super) fn file(&mut self, path: &Path, text: &str, problems: &mut Vec<Problem>) {
        let at = |span: Range<usize>| {
            let before = text.as_bytes().get(..span.start).unwrap_or_default();
            1 + before.iter().filter(|byte| **byte == b'\n').count()
        };
        let place = |line| {
            Source::File(Place {
                file: path.to_owned(),
                line,
            })
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        problems.extend(errors.iter().map(|error| Problem {
            source: place(at(error.span().unwrap_or_default())),
            message: format!("this is no TOML: {}", error.message()),
        }));
        let mut document = Document {
            path: path.to_owned(),
            ..Document::default()
        };
        let keys = |table: &DeTable<'_>| -> Vec<(String, (Raw, usize))> {
            let keys = table.iter().map(|(key, value)| {
                let said = (raw(value.get_ref()), at(key.span()));
                (key.get_ref().to_string(), said)
            });
            keys.collect()
        };
        for (name, value) in table.get_ref() {
            let (line, name) = (at(name.span()), name.get_ref().as_ref());
            if let DeValue::Table(table) = value.get_ref() {
                document.add(name, None, line, keys(table));
            } else if let Some(tables) = tables(value.get_ref()) {
                for (number, (span, table)) in tables.into_iter().enumerate() {
                    document.add(name, Some(number), at(span), keys(table));
                }
            } else {
                let key = (name.to_owned(), (raw(value.get_ref()), line));
                document.add("", None, line, vec![key]);
            }
        }
        self.document = document;
    }

    /// Takes the environment: the variables that begin with [`PREFIX`], and the one that says for every command what is logged.
    pub(super) fn environment(
        &mut self,
        variables: impl Iterator<Item = (OsString, OsString)>,
        problems: &mut Vec<Problem>,
    ) {
        for (name, value) in variables {
            let is_ours = |name: &&str| name.starts_with(PREFIX) || *name == logging::VARIABLE;
            let Some(name) = name.to_str().filter(is_ours) else {
                continue;
            };
            if name == FILE_VARIABLE {
                continue;
            }
            match value.into_string() {
                // The relay's own wins, whichever comes first.
                Ok(value) if name == logging::VARIABLE => {
                    let filter = variable("log", "filter");
                    let said = || (name.to_owned(), value);
                    self.variables.entry(filter).or_insert_with(said);
                }
                Ok(value) => {
                    let said = (name.to_owned(), value);
                    self.variables.insert(name.to_owned(), said);
                }
                Err(_) => problems.push(Problem {
                    source: Source::Variable(name.to_owned()),
                    message: "this is not UTF-8".to_owned(),
                }),
            }
        }
    }

    /// Takes a flag that stands for the setting `path`.
    pub(super) fn flag(&mut self, path: &'static str, flag: &'static str, value: Raw) {
        self.flags.insert(path, (flag, value));
    }

    /// How many sections are written `[[section]]`, and where each begins.
    pub(super) fn numbered(&self, section: &str) -> Vec<Source> {
        let sections = self.document.sections.iter();
        let numbered = sections.filter(|(part, _)| part.name == section && part.number.is_some());
        numbered
            .map(|(_, section)| self.line(section.line))
            .collect()
    }

    /// What was said of a setting of a section that is written `[[section]]`: only a file can.
    pub(super) fn said_in(&self, section: &str, number: usize, key: &str) -> Option<Said> {
        let part = Part {
            name: section.to_owned(),
            number: Some(number),
        };
        self.in_file(&part, key)
    }

    /// What was said of a setting, by who wins.
    pub(super) fn said(&self, section: &str, key: &str) -> Option<Said> {
        let path = path(section, key);
        if let Some((flag, raw)) = self.flags.get(path.as_str()) {
            return Some(Said {
                raw: raw.clone(),
                source: Source::Flag(flag),
                base: PathBuf::new(),
            });
        }
        let name = variable(section, key);
        if let Some((said, value)) = self.variables.get(&name) {
            return Some(Said {
                raw: Raw::Word(value.clone()),
                source: Source::Variable(said.clone()),
                base: PathBuf::new(),
            });
        }
        let part = Part {
            name: section.to_owned(),
            number: None,
        };
        self.in_file(&part, key)
    }

    fn in_file(&self, part: &Part, key: &str) -> Option<Said> {
        let (raw, line) = self.document.sections.get(part)?.keys.get(key)?;
        Some(Said {
            raw: raw.clone(),
            source: self.line(*line),
            base: self
                .document
                .path
                .parent()
                .unwrap_or(Path::new(""))
                .to_owned(),
        })
    }

    /// What was said, and is no setting.
    pub(super) fn unknown(&self, known: &Known<'_>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (part, section) in &self.document.sections {
            let at = self.line(section.line);
            if let Some(message) = known.section(part) {
                let source = at;
                problems.push(Problem { source, message });
                continue;
            }
            for (key, (_, line)) in &section.keys {
                problems.extend(known.key(&part.name, key).map(|message| Problem {
                    source: self.line(*line),
                    message,
                }));
            }
        }
        let names: Vec<String> = known
            .single
            .iter()
            .map(|(section, key)| variable(section, key))
            .collect();
        for name in self.variables.keys().filter(|name| !names.contains(name)) {
            let meant = nearest(name, names.iter().map(String::as_str));
            problems.push(Problem {
                source: Source::Variable(name.clone()),
                message: match meant {
                    Some(meant) => format!("there is no such setting; did you mean {meant}?"),
                    None => "there is no such setting".to_owned(),
                },
            });
        }
        problems
    }

    fn line(&self, line: usize) -> Source {
        Source::File(Place {
            file: self.document.path.clone(),
            line,
        })
    }
}

/// What there is: sections with their keys.
#[derive(Debug, Default)]
pub(super) struct Known<'k> {
    /// Of those that are there once.
    pub(super) single: Vec<(&'k str, &'k str)>,
    /// Of those that are written `[[section]]`.
    pub(super) numbered: Vec<(&'k str, &'k str)>,
}

impl Known<'_> {
    /// What is wrong with a section, if anything is.
    fn section(&self, part: &Part) -> Option<String> {
        let is_in = |keys: &[(&str, &str)]| keys.iter().any(|(name, _)| *name == part.name);
        let name = &part.name;
        match (is_in(&self.single), is_in(&self.numbered), part.number) {
            (true, _, None) | (_, true, Some(_)) => None,
            (true, false, Some(_)) => Some(format!(
                "{name} is one section: write [{name}], and its keys below"
            )),
            (false, true, None) => Some(format!(
                "there may be several {name}: write [[{name}]], and the keys of one below"
            )),
            (false, false, _) => {
                let once = self.single.iter().map(|(name, _)| *name);
                let several = self.numbered.iter().map(|(name, _)| *name);
                let meant = nearest(name, once.chain(several.clone()));
                let (shown, meant) = match (part.number, meant) {
                    (None, meant) => (format!("[{name}]"), meant),
                    (Some(_), meant) => (format!("[[{name}]]"), meant),
                };
                Some(match meant {
                    None => format!("there is no section {shown}"),
                    Some(meant) if several.clone().any(|name| name == meant) => {
                        format!("there is no section {shown}; did you mean [[{meant}]]?")
                    }
                    Some(meant) => {
                        format!("there is no section {shown}; did you mean [{meant}]?")
                    }
                })
            }
        }
    }

    /// What is wrong with a key of a section that is there, if anything is.
    fn key(&self, section: &str, key: &str) -> Option<String> {
        let all = || self.single.iter().chain(&self.numbered);
        if all().any(|known| *known == (section, key)) {
            return None;
        }
        if section.is_empty() && all().any(|(name, _)| *name == key) {
            return Some(if self.single.iter().any(|(name, _)| *name == key) {
                format!("{key} is a section: write [{key}], and its keys below")
            } else {
                format!("{key} are sections: write [[{key}]], and the keys of one below")
            });
        }
        let here = all().filter(|(name, _)| *name == section);
        let near = nearest(key, here.map(|(_, name)| *name));
        let elsewhere = self.single.iter().find(|(_, name)| *name == key);
        let meant = match (elsewhere, near) {
            (Some((section, key)), _) => Some(path(section, key)),
            (None, near) => near.map(str::to_owned),
        };
        let path = path(section, key);
        Some(match meant {
            Some(meant) => format!("there is no key {path}; did you mean {meant}?"),
            None => format!("there is no key {path}"),
        })
    }
}

/// `section.key`.
pub(super) fn path(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

/// The environment variable of a setting.
pub(super) fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{}", path(section, key).replace('.', "_")).to_uppercase()
}

/// Of `known`, what a typing error may have made `word` of.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let (distance, nearest) = known
        .filter(|known| !known.is_empty())
        .map(|known| (strsim::damerau_levenshtein(word, known), known))
        .min()?;
    // Every third letter wrong is another word.
    (distance * 3 <= nearest.len().max(3)).then_some(nearest)
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => {
            Raw::Number(u64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Array(list) => Raw::List(list.iter().map(Spanned::get_ref).map(raw).collect()),
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(table) => Raw::Table(
            table
                .iter()
                .map(|(key, value)| (key.get_ref().to_string(), raw(value.get_ref())))
                .collect(),
        ),
    }
}
