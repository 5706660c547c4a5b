//! One pass over all settings: each is declared where it is read, so that what can be set, what is printed as the default file, and what is
//! used are the same list.

use std::path::Path;

use serde_json::Value;

use super::kind::{Kind, Wrong};
use super::layers::{Layers, Problem, Source, path, variable};
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
    /// `section.key`.
    pub(in super::super) fn path(&self) -> String {
        path(self.section, self.key)
    }

    /// Its environment variable.
    pub(in super::super) fn variable(&self) -> String {
        variable(self.section, self.key)
    }
}

/// The pass.
pub(super) struct Keys<'l> {
    layers: &'l Layers,
    section: &'static str,
    pub(super) declared: Vec<Declared>,
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
            declared: Vec::new(),
            problems,
        }
    }

    /// What is read from here on is in this section.
    pub(super) fn section(&mut self, section: &'static str) {
        self.section = section;
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
    pub(super) fn is_said(&self, section: &str, key: &str) -> bool {
        self.layers.said(section, key).is_some()
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
        let known: Vec<_> = self
            .declared
            .iter()
            .map(|declared| (declared.section, declared.key))
            .collect();
        self.problems.extend(self.layers.unknown(&known));
        self.problems.sort();
    }

    fn said<K: Kind>(&mut self, key: Key, kind: &K) -> Option<Setting<K::Value>> {
        let said = self.layers.said(self.section, key.name)?;
        let path = path(self.section, key.name);
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

    fn declare(&mut self, key: Key, usual: Usual, now: Option<Value>, source: &Source) {
        self.declared.push(Declared {
            section: self.section,
            key: key.name,
            about: key.about,
            flag: key.flag,
            usual,
            now,
            source: source.clone(),
        });
    }
}
