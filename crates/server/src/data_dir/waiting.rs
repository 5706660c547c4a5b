//! Invitations as files, one each, named by the hash of their code: how `sealwire invite` reaches a relay that has the store open.
//! A file holds who is invited and until when; the code is nowhere.
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sealwire_protocol::base64url;
use sealwire_protocol::name::User;
use serde::{Deserialize, Serialize};

use super::files;

/// Bytes of a file, at most: a user of 255 bytes, each escaped.
const MAX_FILE_BYTES: u64 = 4_096;

/// An invitation that nobody has redeemed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WaitingInvite {
    pub(crate) user: User,
    /// In seconds since 1970.
    pub(crate) expires: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitingFile {
    user: String,
    expires: u64,
}

/// Stores an invitation durably, after it has cleared those that have expired away.
pub(crate) fn write(
    dir: &Path,
    hash: &[u8; 32],
    invite: &WaitingInvite,
    now: u64,
) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if read_file(&path).is_ok_and(|waiting| waiting.expires <= now) {
            drop(fs::remove_file(path));
        }
    }
    let file = WaitingFile {
        user: invite.user.as_str().to_owned(),
        expires: invite.expires,
    };
    files::replace(&path(dir, hash), &serde_json::to_vec(&file)?)
}

/// The invitation with the hash of a code, if it waits here and its file is whole.
pub(crate) fn read(dir: &Path, hash: &[u8; 32]) -> Option<WaitingInvite> {
    match read_file(&path(dir, hash)) {
        Ok(waiting) => Some(waiting),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, "an invitation that waits in the data directory cannot be read");
            None
        }
    }
}

/// Forgets an invitation that the store has taken over. A failure does no harm: the store's entry comes first.
pub(crate) fn remove(dir: &Path, hash: &[u8; 32]) {
    if let Err(error) = fs::remove_file(path(dir, hash)) {
        tracing::warn!(%error, "a redeemed invitation could not be removed from the data directory");
    }
}

fn path(dir: &Path, hash: &[u8; 32]) -> PathBuf {
    dir.join(format!("{}.json", base64url::encode(hash)))
}

fn read_file(path: &Path) -> io::Result<WaitingInvite> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)?;
    let file: WaitingFile = serde_json::from_slice(&bytes)?;
    Ok(WaitingInvite {
        user: User::new(&file.user).map_err(|_| io::ErrorKind::InvalidData)?,
        expires: file.expires,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invitation_that_is_not_there_is_told_from_one_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("invitation.json");
        let kind = |path| read_file(path).unwrap_err().kind();
        assert_eq!(kind(&path), io::ErrorKind::NotFound);
        fs::write(&path, "{").unwrap();
        assert_ne!(kind(&path), io::ErrorKind::NotFound);
        fs::write(&path, "{\"user\":\"\",\"expires\":1}").unwrap();
        assert_eq!(kind(&path), io::ErrorKind::InvalidData);
    }
}
