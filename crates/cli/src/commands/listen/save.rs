//! Files that arrive, saved in a directory under plain names.

use std::path::{Path, PathBuf};

use sealwire_client::{Client, Error, FileError, FileOffer};

use crate::exit::Failure;
use crate::output::Output;
use crate::progress::Bar;

/// Names tried for a file before its directory counts as full of them.
const MAX_NAMES: u32 = 1_000;

/// What became of a file.
pub(super) enum Saved {
    /// It is here.
    At(PathBuf),
    /// It cannot be had any more, whatever is done.
    Lost(FileError),
}

/// Fetches a file into `directory`, or the rest of it: under its name, or with a number where another file has that.
///
/// # Errors
/// What may be different the next time.
pub(super) async fn save(
    client: &Client,
    offer: &FileOffer,
    directory: &Path,
    output: Output,
) -> Result<Saved, Failure> {
    for number in 1..=MAX_NAMES {
        let path = directory.join(numbered(offer.name(), number));
        let mut receiving = client.receive_file(offer, &path);
        let mut bar = Bar::new(output, offer.name());
        while let Some(progress) = receiving.progress().await {
            bar.show(progress.done, progress.total);
        }
        drop(bar);
        match receiving.finish().await {
            Ok(path) => return Ok(Saved::At(path)),
            Err(Error::File(FileError::Exists)) => {}
            Err(Error::File(error @ (FileError::Gone | FileError::Damaged))) => {
                return Ok(Saved::Lost(error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::failed(format_args!(
        "{} has too many files of this name",
        directory.display()
    )))
}

/// `name`, and for others `name (2)`, before the ending.
fn numbered(name: &str, number: u32) -> String {
    if number < 2 {
        return name.to_owned();
    }
    match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() => format!("{stem} ({number}).{ending}"),
        Some(_) | None => format!("{name} ({number})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_stands_before_the_ending() {
        for (name, second) in [
            ("a.txt", "a (2).txt"),
            ("a", "a (2)"),
            ("a.tar.gz", "a.tar (2).gz"),
            (".a", ".a (2)"),
        ] {
            assert_eq!(numbered(name, 1), name);
            assert_eq!(numbered(name, 2), second);
        }
    }
}
