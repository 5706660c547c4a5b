//! One pass over all settings: each is declared where it is read, so that what can be set, what is printed as the default file, and what is
//! used are the same list.

use std::path::Path;

use serde_json::Value;

use super::kind::{Kind, Wrong};
use super::layers::{Known, Layers, Problem, Said, Source, path, variable};
use crate::output::Printable;

/// A value, and who has said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Setting<T> {
    pub(in super::super) value: T,
    pub(in super::super) source: Source,
}

/// What there is to say about a setting, whoever reads it.
#[derive(Debug, Clone)]
pub(in super::super) struct Declared {
    /// Empty for the keys before the first section.
    pub(in super::super) section: &'static str,
    /// Which one, from 0 on, of several sections of this name.
    pub(in super::super) number: Option<usize>,
    pub(in super::super) key: &'static str,
    /// What it is, in lines.
    pub(in super::super) about: &'static str,
    /// The flag that stands for it.
    pub(in super::super) flag: Option<&'static str>,
    /// Its default, or an example where it has none.
    pub(in super::super) usual: Usual,
    /// What it is now; `None`: not set.
    pub(in super::super) now: Option<Value>,
    pub(in super::super) source: Source,
}

/// What a file says that changes nothing.
#[derive(Debug, Clone)]
pub(in super::super) enum Usual {
    Default(Value),
    Example(&'static str),
}

impl Declared {
    /// `section.key`, or `section[number].key`.
    pub(in super::super) fn path(&self) -> String {
        numbered_path(self.section, self.number, self.key)
    }

    /// Its environment variable; what may be there several times has none.
    pub(in super::super) fn variable(&self) -> Option<String> {
        match self.number {
            None => Some(variable(self.section, self.key)),
            Some(_) => None,
        }
    }
}

/// The pass.
pub(super) struct Keys<'l> {
    layers: &'l Layers,
    section: &'static str,
    /// Which one, of several sections of this name.
    number: Option<usize>,
    pub(super) declared: Vec<Declared>,
    /// What a section that is not there could have, of those that may be there several times.
    pub(super) possible: Vec<Declared>,
    pub(super) problems: Vec<Problem>,
}

/// A setting's name, what it is, and the flag that stands for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    name: &'static str,
    about: &'static str,
    flag: Option<&'static str>,
}

impl Key {
    pub(super) const fn new(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            flag: None,
        }
    }

    pub(super) const fn flag(self, flag: &'static str) -> Self {
        Self {
            flag: Some(flag),
            ..self
        }
    }
}

impl<'l> Keys<'l> {
    pub(super) fn new(layers: &'l Layers, problems: Vec<Problem>) -> Self {
        Self {
            layers,
            section: "",
            number: None,
            declared: Vec::new(),
            possible: Vec::new(),
            problems,
        }
    }

    /// What is read from here on is in this section.
    pub(super) fn section(&mut self, section: &'static str) {
        (self.section, self.number) = (section, None);
    }

    /// Reads every section that is written `[[section]]`, by a function that is told where one begins.
    pub(super) fn sections<T>(
        &mut self,
        section: &'static str,
        read: impl Fn(&mut Keys<'_>, &Source) -> Option<T>,
    ) -> Vec<T> {
        // What there could be is known from reading one that is not there; what it lacks is no problem.
        let nothing = Layers::default();
        let mut possible = Keys::new(&nothing, Vec::new());
        (possible.section, possible.number) = (section, Some(0));
        let _ = read(&mut possible, &Source::Default);
        self.possible.extend(possible.declared);
        let mut found = Vec::new();
        for (number, source) in self.layers.numbered(section).iter().enumerate() {
            (self.section, self.number) = (section, Some(number));
            found.extend(read(self, source));
        }
        self.number = None;
        found
    }

    /// A setting that has a default.
    pub(super) fn setting<K: Kind>(
        &mut self,
        key: Key,
        kind: &K,
        default: K::Value,
    ) -> Setting<K::Value> {
        let said = self.said(key, kind);
        let usual = Usual::Default(kind.show(&default));
        let setting = said.unwrap_or(Setting {
            value: default,
            source: Source::Default,
        });
        self.declare(key, usual, Some(kind.show(&setting.value)), &setting.source);
        setting
    }

    /// A setting that need not be there.
    pub(super) fn optional<K: Kind>(
        &mut self,
        key: Key,
        kind: &K,
        example: &'static str,
    ) -> Option<Setting<K::Value>> {
        let said = self.said(key, kind);
        let source = said
            .as_ref()
            .map_or(&Source::Default, |setting| &setting.source)
            .clone();
        let now = said.as_ref().map(|setting| kind.show(&setting.value));
        self.declare(key, Usual::Example(example), now, &source);
        said
    }

    /// Whether anything was said of a setting, right or wrong.
    pub(super) fn is_said(&self, key: &str) -> bool {
        self.layer(key).is_some()
    }

    /// How a setting of this section is called.
    pub(super) fn path(&self, key: &str) -> String {
        numbered_path(self.section, self.number, key)
    }

    /// Reports what is wrong between settings.
    pub(super) fn problem(&mut self, source: &Source, message: impl Into<String>) {
        self.problems.push(Problem {
            source: source.clone(),
            message: message.into(),
        });
    }

    /// Reports what was said and is no setting.
    pub(super) fn finish(&mut self) {
        let of = |declared: &Declared| (declared.section, declared.key);
        let known = Known {
            single: self
                .declared
                .iter()
                .filter(|one| one.number.is_none())
                .map(of)
                .collect(),
            numbered: self.possible.iter().map(of).collect(),
        };
        let unknown = self.layers.unknown(&known);
        self.problems.extend(unknown);
        self.problems.sort();
    }

    fn said<K: Kind>(&mut self, key: Key, kind: &K) -> Option<Setting<K::Value>> {
        let said = self.layer(key.name)?;
        let path = self.path(key.name);
        match kind.read(&said.raw, Path::new(&said.base)) {
            Ok(value) => Some(Setting {
                value,
                source: said.source,
            }),
            Err(wrong) => {
                let message = match wrong {
                    Wrong::NotAllowed => {
                        let given = said.raw.to_string();
                        format!("{path} is {}; write {}", Printable(&given), kind.allowed())
                    }
                    Wrong::Inline(message) => format!("{path}: {message}"),
                };
                self.problem(&said.source, message);
                None
            }
        }
    }

    fn layer(&self, key: &str) -> Option<Said> {
        match self.number {
            None => self.layers.said(self.section, key),
            Some(number) => self.layers.said_in(self.section, number, key),
        }
    }

    fn declare(&mut self, key: Key, usual: Usual, now: Option<Value>, source: &Source) {
        self.declared.push(Declared {
            section: self.section,
            number: self.number,
            key: key.name,
            about: key.about,
            flag: key.flag,
            usual,
            now,
            source: source.clone(),
        });
    }
}

fn numbered_path(section: &str, number: Option<usize>, key: &str) -> String {
    match number {
        None => path(section, key),
        Some(number) => format!("{section}[{number}].{key}"),
    }
}
