//! The documents name tests and files that exist.
#![expect(
    clippy::unwrap_used,
    reason = "all of this is test code, also what is not marked as a test"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
