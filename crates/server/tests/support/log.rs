//! What the relay logs in the thread of a test, field by field.
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// The relay's settings, as the command reads them.
const SETTINGS: &str = include_str!("../../../cli/src/commands/relay/settings/mod.rs");

/// Users of the tests that look at logs.
const USERS: [&str; 3] = ["alice", "bob", "carol"];
/// Characters of a thumbprint.
const THUMBPRINT: usize = 43;

/// What has been logged since it was last looked at.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Line>>>);

#[derive(Debug)]
struct Line {
    level: Level,
    fields: BTreeMap<&'static str, String>,
}

impl Line {
    fn is_of_a_link_that_just_ended(&self) -> bool {
        let code = self.fields.get("code").map_or("", |code| code);
        ["gone", "going_away"].contains(&code)
    }
}

impl Log {
    /// Begins, until the guard is dropped.
    pub(crate) fn begin() -> (Self, DefaultGuard) {
        // Where there is one in all, whatever thread comes first to a line decides for all threads whether it is logged.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(Self::default()));
        let log = Self::default();
        (log.clone(), set_default(log))
    }

    /// Forgets what has been logged.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap().clear();
    }

    /// There is just one line of something refused, for whoever looks for it and nobody else: it has this code, `names` is in it, and so is what helps.
    /// No user is, and no whole thumbprint.
    pub(crate) fn says(&self, code: &str, names: &[&str]) {
        let lines = std::mem::take(&mut *self.0.lock().unwrap());
        let said: Vec<_> = lines
            .iter()
            .filter(|line| line.fields.contains_key("why") && !line.is_of_a_link_that_just_ended())
            .collect();
        let [line] = &said[..] else {
            panic!("{code}, {names:?}: {lines:#?}")
        };
        assert_eq!(line.level, Level::DEBUG, "{line:?}");
        assert_eq!(
            line.fields.get("code").map_or("", |code| code),
            code,
            "{line:?}"
        );
        let text = format!("{}; {}", line.fields["why"], line.fields["remedy"]);
        assert!(line.fields["remedy"].len() > 10, "{line:?}");
        for name in names {
            assert!(text.contains(name), "{name} in {text}");
        }
        for setting in settings_in(&text) {
            let key = format!("\"{setting}\",");
            assert!(SETTINGS.contains(&key), "{setting} is none: {text}");
        }
        for value in line.fields.values() {
            let is_id = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
            let longest = value.split(|letter| !is_id(letter)).map(str::len).max();
            assert!(longest < Some(THUMBPRINT), "{line:?}");
            assert!(!USERS.iter().any(|user| value.contains(user)), "{line:?}");
        }
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

/// The keys of `[limits]` that a text names.
fn settings_in(text: &str) -> impl Iterator<Item = &str> {
    let is_key = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    text.split("limits.").skip(1).map(move |rest| {
        rest.split_once(|letter| !is_key(letter))
            .map_or(rest, |(key, _)| key)
    })
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("sealwire_server")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line {
            level: *event.metadata().level(),
            fields: BTreeMap::new(),
        };
        event.record(&mut line);
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}
