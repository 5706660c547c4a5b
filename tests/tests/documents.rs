//! The documents name tests and files that exist.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "all of this is test code, also what is not marked as a test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use sealwire_client::error::{CardFault, Misuse, NotAuthorised, Refusal, RelayFault, Unreachable};
use sealwire_client::{
    CallError, Closed, Error, ErrorClass, FileError, NotDelivered, ServiceNameError, StoreError,
    Thumbprint,
};
use sealwire_protocol::close::{CloseCode, RefusalCode, Retry};
use sealwire_protocol::introduction::IntroductionError;
use sealwire_protocol::invite::InviteError;
use sealwire_server::Relay;
use sealwire_server::issuer_keys::KeySource;
use sealwire_tests::within;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn every_test_that_the_delivery_document_names_exists() {
    let tests = tests_of_the_workspace();
    assert!(tests.contains("every_test_that_the_delivery_document_names_exists"));
    let document = read("docs/delivery.md");
    let table = document.split("\n## Guarantees\n").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(2)
        .collect();
    assert!(rows.len() > 20);
    for row in rows {
        let proof = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let named: Vec<&str> = code(proof).collect();
        assert!(!named.is_empty(), "no test in {row}");
        for name in named {
            assert!(tests.contains(name), "there is no test {name}");
        }
    }
}

#[test]
fn every_file_that_the_documents_name_exists() {
    let mut found = 0;
    let files: Vec<String> = files_below(Path::new(WORKSPACE))
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    for document in ["ARCHITECTURE.md", "docs/delivery.md"] {
        for name in code(&read(document)).filter(|name| is_path(name)) {
            let place = format!("/{name}");
            let exists = files.iter().any(|file| file.contains(&place));
            assert!(exists, "{document}: {name}");
            found += 1;
        }
    }
    assert!(found > 40, "{found}");
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let workspace = Path::new(WORKSPACE).canonicalize().unwrap();
    let pages: Vec<PathBuf> = files_below(&workspace)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    let mut found = 0;
    for page in &pages {
        let text = std::fs::read_to_string(page).unwrap();
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            assert!(target.exists(), "{}: {link}", page.display());
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let there = anchors(&text).any(|there| there == anchor);
                assert!(there, "{}: {link}", page.display());
            }
            found += 1;
        }
    }
    assert!(found > 50, "{found}");
}

/// Where the links of a page lead, but for those to other places.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')'));
    targets
        .map(|(target, _)| target)
        .filter(|target| !target.contains("://") && !target.contains(char::is_whitespace))
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> impl Iterator<Item = String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

#[test]
fn every_close_code_is_documented_with_its_retry_and_no_other() {
    let documented: BTreeSet<_> = rows("Close codes")
        .into_iter()
        .map(|row| [0, 1, 4].map(|column| row[column].clone()))
        .collect();
    let codes: BTreeSet<_> = CloseCode::ALL
        .into_iter()
        .map(|code| {
            let name = if code.name().is_empty() {
                "–"
            } else {
                code.name()
            };
            let retry = match code.retry() {
                Retry::Never => "never",
                Retry::BackOff => "back-off",
                Retry::Later => "later",
                Retry::NewCredential => "new credential",
            };
            [code.code().to_string(), name.to_owned(), retry.to_owned()]
        })
        .collect();
    assert_eq!(documented, codes);
}

/// For devices and for applications, as the client's errors have the same names.
#[test]
fn every_refusal_is_documented_with_its_retry_and_no_other() {
    let documented: BTreeSet<_> = rows("Refusals")
        .into_iter()
        .map(|row| [0, 1, 4].map(|column| row[column].clone()))
        .collect();
    let codes: BTreeSet<_> = RefusalCode::ALL
        .into_iter()
        .map(|code| {
            let retry = yes_or_no(code.is_retryable());
            [code.code().to_string(), code.name().to_owned(), retry]
        })
        .collect();
    assert_eq!(documented, codes);
    let by_name: BTreeMap<_, _> = documented
        .iter()
        .map(|[_, name, retry]| (name.as_str(), retry.as_str()))
        .collect();
    let names = codes_in("crates/client/src/error.rs", "impl Refusal {");
    assert_eq!(names, by_name.keys().copied().map(str::to_owned).collect());
    for refusal in refusals() {
        let class = match refusal {
            Refusal::NotPermitted => ErrorClass::NotAuthorised,
            _ => ErrorClass::Other,
        };
        let error = Error::from(refusal);
        assert_eq!(by_name[error.code()], yes_or_no(error.is_retryable()));
        assert_eq!(error.class(), class, "{error}");
    }
}

#[test]
fn every_error_of_the_client_is_documented_with_its_class_and_retry_and_no_other() {
    let documented: BTreeSet<_> = rows("Errors of the client")
        .into_iter()
        .map(|row| [0, 1, 4].map(|column| row[column].clone()))
        .collect();
    let errors: BTreeSet<_> = errors()
        .iter()
        .map(|error| {
            let class = match error.class() {
                ErrorClass::Usage => "usage",
                ErrorClass::NotAuthorised => "not_authorised",
                ErrorClass::Unreachable => "unreachable",
                ErrorClass::Peer => "peer",
                ErrorClass::Timeout => "timeout",
                _ => "other",
            };
            let retry = yes_or_no(error.is_retryable());
            [error.code().to_owned(), class.to_owned(), retry]
        })
        .collect();
    assert_eq!(documented, errors);
    // Whatever `errors` below has left out.
    let mut known: BTreeSet<_> = documented.into_iter().map(|[code, ..]| code).collect();
    known.extend(RefusalCode::ALL.map(|code| code.name().to_owned()));
    let mut in_the_source = codes_in("crates/client/src/error.rs", "");
    in_the_source.extend(codes_in("crates/client/src/transfer/error.rs", ""));
    assert_eq!(known, in_the_source);
}

#[test]
fn every_error_of_calls_is_documented_with_its_retry_and_no_other() {
    let documented: BTreeSet<_> = rows("Errors of calls")
        .into_iter()
        .map(|row| [0, 3].map(|column| row[column].clone()))
        .collect();
    let errors = [
        CallError::Name(ServiceNameError::EmptyPart),
        CallError::TooLarge(0),
        CallError::TooMany,
        CallError::NotSent,
        CallError::Timeout,
        CallError::Interrupted,
        CallError::Closed(Closed::ByApplication),
    ];
    let errors: BTreeSet<_> = errors
        .iter()
        .map(|error| [error.code().to_owned(), yes_or_no(error.is_retryable())])
        .collect();
    assert_eq!(documented, errors);
    let in_the_source = codes_in("crates/client/src/call.rs", "impl CallError {");
    let known: BTreeSet<_> = documented.into_iter().map(|[code, _]| code).collect();
    assert_eq!(known, in_the_source);
    for refusal in refusals() {
        let error = CallError::from(refusal);
        assert_eq!(
            (error.code(), error.is_retryable()),
            (refusal.code(), refusal.is_retryable())
        );
    }
}

#[test]
fn every_http_status_is_documented_and_no_other() {
    let documented: BTreeSet<_> = rows("HTTP statuses")
        .into_iter()
        .map(|row| row[1].to_uppercase().replace(' ', "_"))
        .collect();
    let files = ["http.rs", "http/api.rs", "http/problem.rs"];
    let used: BTreeSet<_> = files
        .iter()
        .flat_map(|file| statuses_in(&read(&format!("crates/server/src/{file}"))))
        .collect();
    assert_eq!(documented, used);
}

/// In the page on codes, and in the description for programs.
#[test]
fn every_problem_of_requests_is_documented_and_no_other() {
    let documented: BTreeSet<_> = rows("Problems of requests")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let source = read("crates/server/src/http/problem.rs");
    let function = source.split("fn code(self)").nth(1).unwrap();
    let function = function.split("\n    }\n").next().unwrap();
    let literals = function.split("=> \"").skip(1);
    let mut codes: BTreeSet<_> = literals
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    let refusals = RefusalCode::ALL.into_iter().filter(|code| {
        let named = format!("RefusalCode::{code:?}.name()");
        function.contains(&named)
    });
    codes.extend(refusals.map(|code| code.name().to_owned()));
    assert!(codes.len() > 10);
    assert_eq!(documented, codes);
    statuses_and_retries_of_problems(&source);
    let openapi = read("docs/openapi.json");
    let openapi: serde_json::Value = serde_json::from_str(&openapi).unwrap();
    let described = openapi
        .pointer("/components/schemas/Problem/properties/code/enum")
        .unwrap();
    let described: BTreeSet<_> = described
        .as_array()
        .unwrap()
        .iter()
        .map(|code| code.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(described, codes);
}

/// A problem that is no refusal passes by itself where the relay is late or busy.
fn statuses_and_retries_of_problems(source: &str) {
    let numbers: BTreeMap<_, _> = rows("HTTP statuses")
        .into_iter()
        .map(|row| (row[1].to_uppercase().replace(' ', "_"), row[0].clone()))
        .collect();
    let variant = |pattern: &str| pattern.split('(').next().unwrap().to_owned();
    let statuses: BTreeMap<_, _> = arms(block(source, "fn status(self)", "\n    }\n"))
        .map(|(problem, status)| {
            let name = status.trim_start_matches("StatusCode::");
            (variant(problem), numbers[name].clone())
        })
        .collect();
    let codes = arms(block(source, "fn code(self)", "\n    }\n"));
    let expected: BTreeSet<_> = codes
        .map(|(problem, code)| {
            let status = statuses[&variant(problem)].clone();
            let refusal = RefusalCode::ALL
                .into_iter()
                .find(|refusal| code == format!("RefusalCode::{refusal:?}.name()"));
            let retry = match refusal {
                Some(refusal) => refusal.is_retryable(),
                None => ["408", "503"].contains(&status.as_str()),
            };
            let name = refusal.map_or(code.trim_matches('"'), |refusal| refusal.name());
            [name.to_owned(), status, yes_or_no(retry)]
        })
        .collect();
    let documented: BTreeSet<_> = rows("Problems of requests")
        .into_iter()
        .map(|row| [0, 1, 4].map(|column| row[column].clone()))
        .collect();
    assert_eq!(documented, expected);
}

#[test]
fn every_status_of_the_operators_port_and_socket_is_documented_and_no_other() {
    let documented: BTreeSet<_> = rows("The operator's port and socket")
        .into_iter()
        .map(|row| row[1].to_uppercase().replace(' ', "_"))
        .collect();
    let files = ["admin.rs", "operator/answers.rs"];
    let used: BTreeSet<_> = files
        .iter()
        .flat_map(|file| statuses_in(&read(&format!("crates/server/src/{file}"))))
        .collect();
    assert_eq!(documented, used);
}

/// The names of statuses in a source, without its tests.
fn statuses_in(source: &str) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    source
        .split("StatusCode::")
        .skip(1)
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_');
            rest[..end.unwrap_or(rest.len())].to_owned()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

/// Each series of a relay by its name, and its label with the value, if there is one of those that are known beforehand.
async fn series() -> BTreeSet<(String, Option<(String, String)>)> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let key = sealwire_jose::PrivateKey::generate(sealwire_jose::KeyType::P256).unwrap();
    let set = format!("{{\"keys\":[{}]}}", key.public().unwrap().to_jwk());
    std::fs::write(&file, set).unwrap();
    let keys = KeySource::file(file, sealwire_jose::Algorithms::PUBLIC_KEY);
    let relay = Relay::in_memory()
        .issuer_with_keys_from("https://idp.example".parse().unwrap(), "relay", keys)
        .admin("127.0.0.1:0".parse().unwrap())
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let mut stream = TcpStream::connect(relay.admin_addr().unwrap())
        .await
        .unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    within("the metrics", reading).await.unwrap();
    let (_, text) = answer.split_once("\r\n\r\n").unwrap();
    let samples = text.lines().filter(|line| line.starts_with("sealwire_"));
    samples
        .map(|line| {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.trim_end_matches('}').split(',');
            let known = labels
                .filter_map(|label| label.split_once('='))
                .find(|(label, _)| !["issuer", "version"].contains(label))
                .map(|(label, value)| (label.to_owned(), value.trim_matches('"').to_owned()));
            (name.to_owned(), known)
        })
        .collect()
}

/// Those that are no names of close codes, refusals or problems, which have tables of their own.
#[tokio::test]
async fn every_value_of_the_labels_of_metrics_is_documented_and_no_other() {
    let documented: BTreeSet<_> = rows("Labels of metrics")
        .into_iter()
        .flat_map(|row| {
            let metrics: Vec<_> = code(&row[1]).map(str::to_owned).collect();
            let value = row[0].clone();
            metrics
                .into_iter()
                .map(move |metric| (metric, value.clone()))
        })
        .collect();
    let names = |section, column: usize| {
        rows(section)
            .into_iter()
            .map(move |row| row[column].clone())
    };
    let closes: BTreeSet<_> = names("Close codes", 1).collect();
    let refusals: BTreeSet<_> = names("Refusals", 1).collect();
    let problems: BTreeSet<_> = names("Problems of requests", 0).collect();
    let series = series().await;
    assert!(series.len() > 50);
    let others: BTreeSet<_> = series
        .into_iter()
        .filter_map(|(name, label)| Some((name, label?.1)))
        .filter(|(name, value)| {
            let above = match name.as_str() {
                "sealwire_links_closed_total" | "sealwire_handshakes_refused_total" => &closes,
                "sealwire_requests_refused_total" => &refusals,
                "sealwire_http_requests_total" => &problems,
                _ => return true,
            };
            !above.contains(value)
        })
        .collect();
    assert_eq!(documented, others);
}

/// With the labels that they name.
#[tokio::test]
async fn every_metric_that_the_documents_name_exists() {
    let series = series().await;
    let mut found = 0;
    for document in ["docs/operations.md", "docs/codes.md", "CHANGELOG.md"] {
        let page = read(document);
        for rest in page.split("sealwire_").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_');
            let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
            if ["server", "client", "protocol", "e", "jose"].contains(&name) {
                continue; // a crate
            }
            let name = format!("sealwire_{name}");
            let label = rest.strip_prefix('{').map(|rest| {
                let (label, value) = block(rest, "", "}").split_once('=').unwrap();
                (label.to_owned(), value.trim_matches('"').to_owned())
            });
            let is_there = series
                .iter()
                .any(|(known, of)| *known == name && (label.is_none() || *of == label));
            assert!(is_there, "{document}: {name} {label:?}");
            found += 1;
        }
    }
    assert!(found > 15, "{found}");
}

#[test]
fn every_finding_of_the_doctor_is_documented_and_no_other() {
    let findings = rows("Findings of the doctor");
    let doctor = read("crates/cli/src/commands/doctor.rs");
    let steps: Vec<_> = arms(block(&doctor, "fn name(self)", "\n    }\n"))
        .map(|(_, name)| name.trim_matches('"'))
        .chain(["any"])
        .collect();
    assert_eq!(steps.len(), 9);
    let of_the_client: BTreeMap<_, _> = rows("Errors of the client")
        .into_iter()
        .map(|row| (row[0].clone(), row[4].clone()))
        .collect();
    for row in &findings {
        for step in row[1].split(", ") {
            assert!(steps.contains(&step), "{row:?}");
        }
        // What the client calls the same is the same; but a closed client is no closed link.
        match of_the_client.get(&row[0]) {
            Some(retry) if row[0] != "closed" => assert_eq!(row[4], *retry, "{row:?}"),
            _ => assert!(["yes", "no"].contains(&row[4].as_str()), "{row:?}"),
        }
    }
    let documented: BTreeSet<_> = findings.into_iter().map(|row| row[0].clone()).collect();
    let probe = read("crates/client/src/connection/probe.rs");
    let function = probe.split("pub fn code(&self)").nth(1).unwrap();
    let function = function.split("\n    }\n").next().unwrap();
    let mut codes: BTreeSet<_> = function
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|code| !code.is_empty())
        .map(str::to_owned)
        .collect();
    assert!(codes.len() > 20);
    for file in ["doctor.rs", "doctor/token.rs"] {
        let source = read(&format!("crates/cli/src/commands/{file}"));
        let named = source.split("code: \"").chain(source.split("finding(\n"));
        let named = named
            .skip(1)
            .map(|rest| rest.trim_start().trim_start_matches('"'))
            .filter_map(|rest| rest.split_once('"'));
        codes.extend(named.map(|(code, _)| code.to_owned()).filter(|code| {
            code.bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_lowercase())
        }));
    }
    assert_eq!(documented, codes);
}

#[test]
fn every_exit_code_is_documented_and_no_other() {
    let documented: BTreeSet<_> = rows("Exit codes")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let source = read("crates/cli/src/exit.rs");
    let class = source.split("enum Class {").nth(1).unwrap();
    let class = class.split('}').next().unwrap();
    let mut codes: BTreeSet<_> = class
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(_, code)| code.trim_end_matches(',').to_owned())
        .collect();
    assert!(codes.len() > 3);
    codes.insert("0".to_owned());
    assert_eq!(documented, codes);
}

#[test]
fn every_error_of_the_command_is_documented_with_its_exit_code_and_no_other() {
    let documented: BTreeSet<_> = rows("Errors of the command")
        .into_iter()
        .map(|row| {
            assert!(["yes", "no"].contains(&row[4].as_str()), "{row:?}");
            [0, 1].map(|column| row[column].clone())
        })
        .collect();
    let source = read("crates/cli/src/exit.rs");
    let numbers: BTreeMap<_, _> = block(&source, "enum Class {", "}")
        .lines()
        .filter_map(|line| line.trim().trim_end_matches(',').split_once(" = "))
        .collect();
    let codes: BTreeSet<_> = arms(block(&source, "fn code(self)", "\n    }\n"))
        .map(|(class, code)| {
            let number = numbers[class.trim_start_matches("Self::")];
            [code.trim_matches('"').to_owned(), number.to_owned()]
        })
        .collect();
    assert_eq!(codes.len(), numbers.len());
    assert_eq!(documented, codes);
}

/// What stands between `from` and the next `to`.
fn block<'s>(source: &'s str, from: &str, to: &str) -> &'s str {
    let (_, rest) = source.split_once(from).unwrap();
    rest.split_once(to).unwrap().0
}

/// The arms of a `match`, with one pattern each and what it is matched to.
fn arms(block: &str) -> impl Iterator<Item = (&str, &str)> {
    block
        .split(",\n")
        .flat_map(|arm| {
            let (patterns, value) = arm.split_once(" => ").unwrap_or_default();
            let patterns = patterns.rsplit("{\n").next().unwrap_or_default();
            let patterns = patterns.split('|').map(str::trim);
            patterns.map(move |pattern| (pattern, value.trim()))
        })
        .filter(|(pattern, _)| !pattern.is_empty())
}

/// The rows of the table in a section of the page on codes.
fn rows(section: &str) -> Vec<Vec<String>> {
    let page = read("docs/codes.md");
    let section = page.split(&format!("\n## {section}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines: Vec<_> = section
        .lines()
        .filter(|line| line.starts_with("| "))
        .collect();
    let columns = lines[0].split(" | ").count();
    assert!(columns > 1 && lines[1].starts_with("| --- "));
    let rows: Vec<Vec<String>> = lines[2..]
        .iter()
        .map(|line| {
            let cells = line.trim_start_matches("| ").trim_end_matches(" |");
            cells.split(" | ").map(str::to_owned).collect()
        })
        .collect();
    for row in &rows {
        assert_eq!(row.len(), columns, "{row:?}");
    }
    let firsts: BTreeSet<_> = rows.iter().map(|row| &row[0]).collect();
    assert_eq!(firsts.len(), rows.len(), "a code stands there twice");
    rows
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// The names that a file gives to errors, from `after` on to the end of that block.
fn codes_in(file: &str, after: &str) -> BTreeSet<String> {
    let source = read(file);
    let (_, block) = source.split_once(after).unwrap();
    let end = if after.is_empty() {
        None
    } else {
        block.find("\n}\n")
    };
    let block = &block[..end.unwrap_or(block.len())];
    let found: BTreeSet<_> = block
        .lines()
        .filter_map(|line| line.split_once("=> \"")?.1.split_once('"'))
        .map(|(code, _)| code.to_owned())
        .collect();
    assert!(found.len() > 5, "{file}");
    found
}

fn refusals() -> [Refusal; RefusalCode::ALL.len()] {
    [
        Refusal::NotPermitted,
        Refusal::UnknownUser,
        Refusal::DevicesChanged,
        Refusal::MailboxFull,
        Refusal::TooLarge,
        Refusal::RateLimited,
        Refusal::InvalidCard,
        Refusal::TooMany,
        Refusal::TokenRefused,
        Refusal::Unavailable,
        Refusal::OwnDevicesChanged,
        Refusal::Quota,
        Refusal::Stale,
        Refusal::UnknownDevice,
        Refusal::UnknownBlob,
        Refusal::BlobConflict,
        Refusal::StorageFull,
        Refusal::Overtaken,
        Refusal::UnknownService,
        Refusal::ServiceFailed,
        Refusal::ServiceTimeout,
    ]
}

/// One of every kind but refusals.
fn errors() -> Vec<Error> {
    let key = Thumbprint::from_bytes([0; 32]);
    let misuse = [
        Misuse::Address,
        Misuse::PlainText,
        Misuse::NoStore,
        Misuse::NoIssuer,
        Misuse::IssuerKey,
        Misuse::Issuer,
        Misuse::User,
        Misuse::Invite,
        Misuse::InviteLine(InviteError::Prefix),
        Misuse::IntroductionLine(IntroductionError::Prefix),
        Misuse::BodyTooLarge,
        Misuse::MediaType,
        Misuse::OutboxFull,
        Misuse::NoOtherDevice,
        Misuse::MessageId,
        Misuse::MessageIdInUse,
        Misuse::DeviceName,
        Misuse::Unconfirmed,
    ];
    let store = [
        StoreError::InUse,
        StoreError::WrongKey,
        StoreError::EmptyPassphrase,
        StoreError::Damaged,
        StoreError::NotAStore,
        StoreError::Failed,
        StoreError::NewerVersion,
    ];
    let unreachable = [
        Unreachable::Connect(io::ErrorKind::ConnectionRefused),
        Unreachable::CertificatePin,
        Unreachable::Certificate,
        Unreachable::Tls,
        Unreachable::NoRoots,
        Unreachable::NotARelay(404),
        Unreachable::Broken,
        Unreachable::Timeout,
        Unreachable::NoToken,
        Unreachable::CredentialRefused,
        Unreachable::Unavailable(4000),
    ];
    let not_authorised = [
        NotAuthorised::Credential,
        NotAuthorised::Expired,
        NotAuthorised::Revoked,
        NotAuthorised::NoToken,
        NotAuthorised::NotEnrolled,
        NotAuthorised::OtherDevice,
        NotAuthorised::OtherUser,
        NotAuthorised::Attestation,
    ];
    let disk = || io::Error::from(io::ErrorKind::StorageFull);
    let file = [
        FileError::Read(disk()),
        FileError::NotAFile,
        FileError::TooLarge,
        FileError::Changed,
        FileError::Name,
        FileError::Exists,
        FileError::Busy,
        FileError::Write(disk()),
        FileError::Gone,
        FileError::Damaged,
    ];
    let mut errors = vec![
        Error::RelayKey {
            expected: key,
            presented: key,
        },
        Error::Relay(RelayFault::Handshake),
        Error::PeerChanged,
        Error::PeerUnverified,
        Error::Card(CardFault::Invalid),
        Error::NotDelivered(NotDelivered::Expired),
        Error::Timeout,
        Error::Closed(Closed::ByApplication),
    ];
    errors.extend(misuse.map(Error::from));
    errors.extend(store.map(Error::from));
    errors.extend(unreachable.map(Error::from));
    errors.extend(not_authorised.map(Error::from));
    errors.extend(file.map(Error::from));
    errors
}

/// A file, or a folder that is written with its slash.
fn is_path(name: &str) -> bool {
    let form = name.ends_with(".rs") || name.ends_with('/') && !name.contains(['…', '<']);
    form && !name.contains([' ', ':'])
}

/// What stands between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn read(document: &str) -> String {
    std::fs::read_to_string(Path::new(WORKSPACE).join(document)).unwrap()
}

/// The names of all functions that are marked as tests.
fn tests_of_the_workspace() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["crates", "tests"] {
        for file in files_below(&Path::new(WORKSPACE).join(folder)) {
            let Ok(source) = std::fs::read_to_string(file) else {
                continue; // a vector in bytes
            };
            let mut marked = false;
            for line in source.lines().map(str::trim) {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    marked = true;
                } else if let Some((_, rest)) = line.split_once("fn ")
                    && marked
                {
                    names.insert(rest.split('(').next().unwrap().to_owned());
                    marked = false;
                }
            }
        }
    }
    names
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries
        .map(|entry| entry.unwrap().path())
        .partition(|path| path.is_dir());
    let hidden = |path: &PathBuf| {
        path.file_name().is_some_and(|name| {
            name.as_encoded_bytes().starts_with(b".") || name == "node_modules" || name == "target"
        })
    };
    let below = folders
        .iter()
        .filter(|path| !hidden(path))
        .flat_map(|path| files_below(path))
        .collect::<Vec<_>>();
    files.into_iter().chain(below).collect()
}
