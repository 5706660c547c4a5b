//! Where a setting is said: flags before the environment, that before the file, and where the file says it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

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
    sections: BTreeMap<String, Section>,
}

#[derive(Debug, Default)]
struct Section {
    line: usize,
    keys: BTreeMap<String, (Raw, usize)>,
}

/// All that was said.
#[derive(Debug, Default)]
pub(super) struct Layers {
    document: Document,
    variables: BTreeMap<String, String>,
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
        for (name, value) in table.get_ref() {
            let line = at(name.span());
            let value = value.get_ref();
            let (section, keys) = match value {
                DeValue::Table(table) => (name.get_ref().as_ref(), Some(table)),
                DeValue::Array(_)
                | DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_) => ("", None),
            };
            let section = document
                .sections
                .entry(section.to_owned())
                .or_insert_with(|| Section {
                    line,
                    ..Section::default()
                });
            match keys {
                None => {
                    section
                        .keys
                        .insert(name.get_ref().to_string(), (raw(value), line));
                }
                Some(table) => section.keys.extend(table.iter().map(|(key, value)| {
                    let said = (raw(value.get_ref()), at(key.span()));
                    (key.get_ref().to_string(), said)
                })),
            }
        }
        self.document = document;
    }

    /// Takes the environment: the variables that begin with [`PREFIX`].
    pub(super) fn environment(
        &mut self,
        variables: impl Iterator<Item = (OsString, OsString)>,
        problems: &mut Vec<Problem>,
    ) {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            if name == FILE_VARIABLE {
                continue;
            }
            match value.into_string() {
                Ok(value) => drop(self.variables.insert(name.to_owned(), value)),
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
        if let Some(value) = self.variables.get(&name) {
            return Some(Said {
                raw: Raw::Word(value.clone()),
                source: Source::Variable(name),
                base: PathBuf::new(),
            });
        }
        let (raw, line) = self.document.sections.get(section)?.keys.get(key)?;
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

    /// What was said, and is no setting: nothing of `known`, which are sections with their keys.
    pub(super) fn unknown(&self, known: &[(&'static str, &'static str)]) -> Vec<Problem> {
        let sections: BTreeSet<&str> = known.iter().map(|(section, _)| *section).collect();
        let mut problems = Vec::new();
        for (name, section) in &self.document.sections {
            if !sections.contains(name.as_str()) {
                let meant = nearest(name, sections.iter().copied());
                problems.push(Problem {
                    source: self.line(section.line),
                    message: match meant {
                        Some(meant) => {
                            format!("there is no section [{name}]; did you mean [{meant}]?")
                        }
                        None => format!("there is no section [{name}]"),
                    },
                });
                continue;
            }
            for (key, (_, line)) in &section.keys {
                if known.contains(&(name.as_str(), key.as_str())) {
                    continue;
                }
                problems.push(Problem {
                    source: self.line(*line),
                    message: self.unknown_key(name, key, known),
                });
            }
        }
        let names: Vec<String> = known
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

    fn unknown_key(
        &self,
        section: &str,
        key: &str,
        known: &[(&'static str, &'static str)],
    ) -> String {
        let is_section = section.is_empty() && known.iter().any(|(name, _)| *name == key);
        if is_section {
            return format!("{key} is a section: write [{key}], and its keys below");
        }
        let here = known.iter().filter(|(name, _)| *name == section);
        let elsewhere = known.iter().find(|(_, name)| *name == key);
        let meant = match elsewhere {
            Some((section, key)) => Some(path(section, key)),
            None => nearest(key, here.map(|(_, name)| *name)).map(str::to_owned),
        };
        let path = path(section, key);
        match meant {
            Some(meant) => format!("there is no key {path}; did you mean {meant}?"),
            None => format!("there is no key {path}"),
        }
    }

    fn line(&self, line: usize) -> Source {
        Source::File(Place {
            file: self.document.path.clone(),
            line,
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
        DeValue::Boolean(_) => Raw::Other("true or false"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}
