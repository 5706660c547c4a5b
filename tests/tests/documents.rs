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
    let sources = files.map(|file| read(&format!("crates/server/src/{file}")));
    let source: String = sources
        .iter()
        .map(|source| source.split("#[cfg(test)]").next().unwrap())
        .collect();
    let used: BTreeSet<_> = source
        .split("StatusCode::")
        .skip(1)
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_');
            rest[..end.unwrap_or(rest.len())].to_owned()
        })
        .filter(|name| !name.is_empty())
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

#[test]
fn every_finding_of_the_doctor_is_documented_and_no_other() {
    let documented: BTreeSet<_> = rows("Findings of the doctor")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
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
