//! `sealwire relay config`: a configuration file to begin with, what is configured and by whom, and whether it is good.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::check;
use super::options::Options;
use super::settings::{self, Declared, Loaded, PREFIX, Place, Source, Usual};
use crate::exit::Failure;
use crate::logging::Logging;
use crate::output::{Lines, Output};

/// Characters of a line of the printed file, at most, where words allow it.
const WIDTH: usize = 100;

/// Print a configuration file, show what is configured, and check it
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print a configuration file with every key, what it is, and its default
    Default(Default),
    /// Show every setting that is in effect, and who has said it
    Show(Show),
    /// Read the configuration and all that it names, and report everything that is wrong
    Check(Check),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Every key is commented out: the file changes nothing as it is.\n\
\n\
Examples:\n  \
    sealwire relay config default > /etc/sealwire/relay.toml")]
pub(crate) struct Default {}

#[derive(Debug, Args)]
#[command(after_help = "\
What is printed is a configuration file again, with the defaults commented out. With --json each setting is an object with its key, value, and source: default, file, environment or flag.\n\
\n\
Examples:\n  \
    sealwire relay config show --config relay.toml\n  \
    # what the environment or a flag would change\n  \
    SEALWIRE_RELAY_LISTEN_ADDRESS=[::]:443 sealwire relay config show --config relay.toml --messages-per-minute 60")]
pub(crate) struct Show {
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is changed, no port is opened and no network is used, so it may run beside the relay. Exit code 0: it is good; 2: it is not, and every problem is on a line \
of its own.\n\
\n\
Examples:\n  \
    sealwire relay config check --config /etc/sealwire/relay.toml && systemctl restart sealwire-relay")]
pub(crate) struct Check {
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(command: Command, logging: &Logging, output: Output) -> Result<(), Failure> {
    match command {
        Command::Default(_) => {
            output.result(&json!({"file": default_file()}), default_file().trim_end())
        }
        Command::Show(show) => {
            let loaded = show.options.load(logging, false)?;
            settings::refuse(&loaded.problems, output.is_json())?;
            show_all(&loaded.declared, output)
        }
        Command::Check(check) => {
            let loaded = check.options.load(logging, false)?;
            let mut problems = loaded.problems;
            if !loaded.unreadable {
                problems.extend(check::files(&loaded.configuration));
            }
            settings::refuse(&problems, output.is_json())?;
            output.result(
                &json!({"good": true, "file": check.options.config}),
                "the configuration is good",
            )
        }
    }
}

/// The file of `config default`.
pub(super) fn default_file() -> String {
    let mut file = format!(
        "# The configuration of a Sealwire relay, for `sealwire relay run --config FILE`.\n\
         #\n\
         # A line that begins with \"#\" and a key shows its default, or an example where it says so. Take the \"#\"\n\
         # away to set it. `sealwire relay config check --config FILE` says whether the file is good, and\n\
         # `sealwire relay config show --config FILE` what is in effect.\n\
         #\n\
         # A size is \"64 MiB\" (B, KiB, MiB, GiB, TiB, or kB, MB, GB, TB) or a number of bytes; a time is \"30 d\", \"12 h\",\n\
         # \"5 min\", \"30 s\" or a number of seconds. A path is relative to the directory of this file.\n\
         # No secret stands here: keys are in files that this file names.\n\
         #\n\
         # Each key is also an environment variable, which wins over this file: {PREFIX}LISTEN_ADDRESS is\n\
         # address in [listen]. In a variable, a list has commas. A flag wins over both.\n"
    );
    let Loaded {
        declared, possible, ..
    } = Loaded::default();
    let mut section = "";
    for one in declared.iter().chain(&possible) {
        if one.section != section {
            section = one.section;
            // A section of which there may be several is there only once it is wanted.
            let _ = match one.number {
                None => write!(file, "\n[{section}]\n"),
                Some(_) => write!(file, "\n#[[{section}]]\n"),
            };
        } else {
            file.push('\n');
        }
        for line in one.about.lines() {
            comment(&mut file, line);
        }
        let value = match &one.usual {
            Usual::Default(value) => literal(value),
            Usual::Example(example) => {
                comment(&mut file, "Not set by default; for example:");
                literal(&json!(example))
            }
        };
        let _ = writeln!(file, "#{} = {value}", one.key);
    }
    file
}

/// A paragraph of a comment.
fn comment(file: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column == 0 || column + 1 + length > WIDTH {
            if column > 0 {
                file.push('\n');
            }
            file.push('#');
            column = 1;
        }
        file.push(' ');
        file.push_str(word);
        column += 1 + length;
    }
    file.push('\n');
}

fn show_all(declared: &[Declared], output: Output) -> Result<(), Failure> {
    let width = declared.iter().map(|one| shown(one).chars().count()).max();
    let mut section = ("", None);
    for one in declared {
        let mut human = String::new();
        if (one.section, one.number) != section {
            section = (one.section, one.number);
            let _ = match one.number {
                None => write!(human, "\n[{}]\n", one.section),
                Some(_) => write!(human, "\n[[{}]]\n", one.section),
            };
        }
        let (line, width) = (shown(one), width.unwrap_or_default());
        let _ = write!(human, "{line:width$}  # {}", one.source);
        output.result(&as_json(one), Lines(&human))?;
    }
    Ok(())
}

/// `key = value`, in TOML; what nobody has said is a comment.
fn shown(declared: &Declared) -> String {
    let key = declared.key;
    match (&declared.now, &declared.source) {
        (None, _) => format!("#{key} is not set"),
        (Some(value), Source::Default) => format!("#{key} = {}", literal(value)),
        (Some(value), Source::File(_) | Source::Variable(_) | Source::Flag(_)) => {
            format!("{key} = {}", literal(value))
        }
    }
}

fn as_json(declared: &Declared) -> Value {
    let (source, file, line, name) = match &declared.source {
        Source::Default => ("default", None, None, None),
        Source::File(Place { file, line }) => ("file", Some(file), Some(line), None),
        Source::Variable(name) => ("environment", None, None, Some(name.as_str())),
        Source::Flag(flag) => ("flag", None, None, Some(*flag)),
    };
    json!({
        "key": declared.path(),
        "value": declared.now,
        "source": source,
        "file": file,
        "line": line,
        "name": name,
        "variable": declared.variable(),
        "flag": declared.flag,
    })
}

/// A value in TOML, without anything that could command a terminal.
fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(literal).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(table) => {
            let pairs: Vec<_> = table
                .iter()
                .map(|(key, value)| format!("{} = {}", quoted(key), literal(value)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        // No setting is null.
        Value::Number(_) | Value::Null | Value::Bool(_) => value.to_string(),
    }
}

/// A basic string (TOML 1.0, "String"); what is not ASCII and not a letter is escaped.
fn quoted(text: &str) -> String {
    let mut literal = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => literal.extend(['\\', c]),
            c if c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric() => literal.push(c),
            c => {
                let _ = write!(literal, "\\U{:08X}", u32::from(c));
            }
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str) -> Loaded {
        let path = std::env::temp_dir().join(format!("sealwire-config-{}", std::process::id()));
        let directory = tempfile::Builder::new()
            .tempdir_in(path.parent().unwrap())
            .unwrap();
        let path = directory.path().join("relay.toml");
        std::fs::write(&path, file).unwrap();
        Loaded::read(Some(&path), std::iter::empty(), Vec::new()).unwrap()
    }

    /// It says what is so without it.
    #[test]
    fn printed_file_parses_and_changes_nothing() {
        let loaded = read(&default_file());
        assert_eq!(loaded.problems, []);
        for declared in loaded.declared {
            assert_eq!(declared.source, Source::Default, "{}", declared.path());
        }
    }

    /// With every line taken for what it shows.
    fn uncommented(file: &str) -> String {
        let lines = file.lines().map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '[') => {
                format!("{key}\n")
            }
            Some(_) | None => format!("{line}\n"),
        });
        lines.collect()
    }

    /// What is set, and is not the default or the example.
    fn unusual(declared: &[Declared]) -> Vec<String> {
        let unusual = declared.iter().filter(|one| {
            assert!(matches!(one.source, Source::File(_)), "{}", one.path());
            let usual = match &one.usual {
                Usual::Default(value) => value.clone(),
                Usual::Example(example) => json!(example),
            };
            one.now != Some(usual)
        });
        unusual.map(Declared::path).collect()
    }

    #[test]
    fn every_key_of_the_printed_file_is_good_and_what_it_is_by_default() {
        let file = default_file();
        let (single, several) = file.split_once("\n#[[").unwrap();
        // With the other modes a certificate would not be used.
        let set = uncommented(single).replace("mode = \"self-signed\"", "mode = \"files\"");
        let mut loaded = read(&set);
        if !cfg!(feature = "opentelemetry") {
            let of_traces = "this build cannot send traces";
            loaded
                .problems
                .retain(|problem| !problem.message.contains(of_traces));
        }
        assert_eq!(loaded.problems, []);
        assert_eq!(unusual(&loaded.declared), ["tls.mode"]);
        assert!(loaded.declared.len() > 30);

        // Scopes are said in one of two ways.
        let set = uncommented(&format!("#[[{several}"));
        let set: String = set
            .lines()
            .filter(|line| !line.starts_with("scopes = "))
            .map(|line| format!("{line}\n"))
            .collect();
        let loaded = read(&set);
        assert_eq!(loaded.problems, []);
        let mut several = loaded.declared;
        several.retain(|one| one.number.is_some() && one.key != "scopes");
        assert_eq!(unusual(&several), [""; 0]);
        assert_eq!(several.len() + 1, loaded.possible.len());
    }

    #[test]
    fn literal_means_the_same_in_toml() {
        for text in [
            "a",
            "ü € \u{1b}[2J",
            "\"\\\n\t\u{7f}",
            "\u{202e}txt",
            "\u{e0041}🦀",
        ] {
            let file = format!("[log]\nfilter = {}\n", quoted(text));
            let table = toml::de::DeTable::parse(&file).unwrap();
            let value = table.get_ref().get("log").unwrap().get_ref();
            assert_eq!(value.get("filter").unwrap().get_ref().as_str(), Some(text));
            assert!(!quoted(text).contains([
                '\u{1b}',
                '\n',
                '\t',
                '\u{7f}',
                '\u{202e}',
                '\u{e0041}'
            ]));
        }
    }
}
