//! Looking for words in everything that a relay stored, in every encoding they could have got there in.

use std::fmt;
use std::path::{Path, PathBuf};

use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding as _};

use crate::exit::Failure;

/// Zeros that stay at the end of a file that has more.
const ZEROS_KEPT: usize = 64;

/// The contents of files.
pub(super) struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    /// Every file under `directory`.
    pub(super) fn read(directory: &Path) -> Result<Self, Failure> {
        let mut files = Vec::new();
        read(directory, &mut files).map_err(|error| {
            Failure::failed(format_args!(
                "what is in {} cannot be read: {error}",
                directory.display()
            ))
        })?;
        Ok(Self(files))
    }

    /// These and others, as they were at another time.
    pub(super) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Whether a file has `bytes`: as they are, as UTF-16, as hex, or within base64 of either alphabet at any alignment.
    pub(super) fn have(&self, bytes: &[u8]) -> bool {
        forms(bytes)
            .iter()
            .any(|form| self.0.iter().any(|(_, content)| contains(content, form)))
    }
}

/// How many there are, and how large they are together.
impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut paths: Vec<&Path> = self.0.iter().map(|(path, _)| path.as_path()).collect();
        paths.sort_unstable();
        paths.dedup();
        let bytes: usize = self.0.iter().map(|(_, content)| content.len()).sum();
        write!(f, "{} files ({} KiB)", paths.len(), bytes.div_ceil(1_024))
    }
}

fn read(directory: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, files)?;
        } else if path.is_file() {
            // Not the operator's socket.
            let mut content = std::fs::read(&path)?;
            cut_reserve(&mut content);
            files.push((path, content));
        }
    }
    Ok(())
}

/// Cuts off the zeros at the end, which a log has in reserve: nothing is found in them, and the search would take long. Enough of them stay for
/// whatever ends in zeros.
fn cut_reserve(content: &mut Vec<u8>) {
    let used = content.iter().rposition(|byte| *byte != 0);
    let used = used.map_or(0, |last| last.saturating_add(1));
    content.truncate(used.saturating_add(ZEROS_KEPT));
}

fn forms(bytes: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        bytes.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
    ];
    if let Ok(text) = std::str::from_utf8(bytes) {
        forms.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
        forms.push(text.encode_utf16().flat_map(u16::to_be_bytes).collect());
    }
    // With other bytes before them, base64 of the same bytes is another text; what is left out at either end depends on the
    // neighbours.
    for (before, left_out) in [(0, 0), (1, 2), (2, 3)] {
        let mut shifted = vec![0; before];
        shifted.extend_from_slice(bytes);
        let whole = shifted.len() / 3 * 4;
        for text in [
            Base64Unpadded::encode_string(&shifted),
            Base64UrlUnpadded::encode_string(&shifted),
        ] {
            forms.extend(
                text.get(left_out..whole)
                    .map(|text| text.as_bytes().to_vec()),
            );
        }
    }
    forms
}

fn contains(content: &[u8], form: &[u8]) -> bool {
    let Some((first, rest)) = form.split_first() else {
        return true;
    };
    let mut left = content;
    while let Some(at) = left.iter().position(|byte| byte == first) {
        left = left.get(at + 1..).unwrap_or_default();
        if left.starts_with(rest) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "nobody reads this";

    fn file(content: impl AsRef<[u8]>) -> Files {
        Files(vec![("file".into(), content.as_ref().to_vec())])
    }

    #[test]
    fn words_are_found_in_every_encoding() {
        let inside = format!("no{WORDS}.");
        let utf16 =
            |bytes: fn(u16) -> [u8; 2]| inside.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        assert!(file(&inside).have(WORDS.as_bytes()));
        assert!(file(utf16(u16::to_le_bytes)).have(WORDS.as_bytes()));
        assert!(file(utf16(u16::to_be_bytes)).have(WORDS.as_bytes()));
        let hex: String = inside.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(file(hex.to_uppercase()).have(WORDS.as_bytes()));
        assert!(file(hex).have(WORDS.as_bytes()));
        for before in ["", "x", "xy", "xyz"] {
            for after in ["", "x", "xy", "xyz"] {
                let inside = format!("{before}{WORDS}{after}");
                assert!(
                    file(Base64Unpadded::encode_string(inside.as_bytes())).have(WORDS.as_bytes()),
                    "{inside}"
                );
                assert!(
                    file(Base64UrlUnpadded::encode_string(inside.as_bytes()))
                        .have(WORDS.as_bytes()),
                    "{inside}"
                );
            }
        }
    }

    #[test]
    fn words_that_are_not_there_are_not_found() {
        assert!(!file("nobody reads that").have(WORDS.as_bytes()));
        assert!(!file("nobody nobody reads thi").have(WORDS.as_bytes()));
        assert!(!file("").have(WORDS.as_bytes()));
    }
}
