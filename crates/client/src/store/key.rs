//! What opens a device store: a key file, a passphrase, a key in the system's keyring, or a key of the application's.

#[cfg(feature = "keyring")]
mod keyring;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::{Zeroize as _, Zeroizing};

use super::StoreError;

/// Cost of a new passphrase key (RFC 9106 §4, the second recommended option): 64 MiB, 3 passes, 4 lanes.
pub(crate) const ARGON2_MEMORY_KIB: u32 = 64 * 1024;
pub(crate) const ARGON2_PASSES: u32 = 3;
pub(crate) const ARGON2_LANES: u32 = 4;
/// The most that the parameters in a store may ask for, so that a forged store cannot exhaust the machine.
const ARGON2_MAX_MEMORY_KIB: u32 = 1024 * 1024;
const ARGON2_MAX_PASSES: u32 = 16;
const ARGON2_MAX_LANES: u32 = 16;

/// What the device store is encrypted under. It is asked for whenever the store is opened and never stored.
pub struct StoreKey {
    source: Source,
}

enum Source {
    Bytes(Zeroizing<[u8; 32]>),
    File(PathBuf),
    Passphrase(Zeroizing<String>),
    #[cfg(feature = "keyring")]
    Keyring(keyring::Keyring),
}

impl StoreKey {
    /// A key of 32 uniformly random bytes that the application keeps, in a platform's key chain for example.
    pub fn from_bytes(mut key: [u8; 32]) -> Self {
        let kept = Zeroizing::new(key);
        key.zeroize();
        Self {
            source: Source::Bytes(kept),
        }
    }

    /// A key in the file at `path`: 32 random bytes, created with mode 0600 where there is no such file.
    ///
    /// It protects the store where only the store is copied; keep the file on other media than the store's backups.
    pub fn from_file(path: impl AsRef<Path>) -> Self {
        Self {
            source: Source::File(path.as_ref().to_owned()),
        }
    }

    /// A key made from a passphrase with Argon2id (RFC 9106); its parameters and salt are in the store.
    pub fn from_passphrase(passphrase: String) -> Self {
        Self {
            source: Source::Passphrase(Zeroizing::new(passphrase)),
        }
    }

    /// A key in the operating system's keyring: 32 random bytes, made where there is no entry for `service` and `account` and no store
    /// yet, and never overwritten. Stores have accounts of their own.
    ///
    /// The keyring is asked when the store is opened, which may wait for somebody to unlock it. Needs the feature `keyring`.
    #[cfg(feature = "keyring")]
    pub fn from_keyring(service: &str, account: &str) -> Self {
        Self {
            source: Source::Keyring(keyring::Keyring {
                service: service.to_owned(),
                account: account.to_owned(),
                store: None,
            }),
        }
    }

    /// The parameters a new store is made with.
    pub(crate) fn new_derivation(&self, salt: [u8; 16]) -> Derivation {
        match self.source {
            Source::Bytes(_) | Source::File(_) => Derivation::None,
            #[cfg(feature = "keyring")]
            Source::Keyring(_) => Derivation::None,
            Source::Passphrase(_) => Derivation::Argon2id {
                memory_kib: ARGON2_MEMORY_KIB,
                passes: ARGON2_PASSES,
                lanes: ARGON2_LANES,
                salt,
            },
        }
    }

    /// The key that wraps the store's own key. `new` says that there is no store yet: only then is a key file created.
    pub(crate) fn wrapping_key(
        &self,
        derivation: &Derivation,
        new: bool,
    ) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        match (&self.source, derivation) {
            (Source::Bytes(key), Derivation::None) => Ok(key.clone()),
            (Source::File(path), Derivation::None) => read_key_file(path, new),
            #[cfg(feature = "keyring")]
            (Source::Keyring(keyring), Derivation::None) => Ok(keyring.key(new)?),
            (
                Source::Passphrase(passphrase),
                &Derivation::Argon2id {
                    memory_kib,
                    passes,
                    lanes,
                    salt,
                },
            ) => {
                if passphrase.is_empty() {
                    return Err(StoreError::EmptyPassphrase);
                }
                if memory_kib > ARGON2_MAX_MEMORY_KIB
                    || passes > ARGON2_MAX_PASSES
                    || lanes > ARGON2_MAX_LANES
                {
                    return Err(StoreError::Damaged);
                }
                let params = Params::new(memory_kib, passes, lanes, Some(32))
                    .map_err(|_| StoreError::Damaged)?;
                let mut key = Zeroizing::new([0; 32]);
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(passphrase.as_bytes(), &salt, key.as_mut_slice())
                    .map_err(|_| StoreError::Damaged)?;
                Ok(key)
            }
            #[cfg(feature = "keyring")]
            (Source::Keyring(_), Derivation::Argon2id { .. }) => Err(StoreError::WrongKey),
            (Source::Bytes(_) | Source::File(_), Derivation::Argon2id { .. })
            | (Source::Passphrase(_), Derivation::None) => Err(StoreError::WrongKey),
        }
    }
}

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.source {
            Source::Bytes(_) => "StoreKey(bytes)",
            Source::File(_) => "StoreKey(file)",
            Source::Passphrase(_) => "StoreKey(passphrase)",
            #[cfg(feature = "keyring")]
            Source::Keyring(_) => "StoreKey(keyring)",
        })
    }
}

/// How the wrapping key follows from what the application gives; stored in the clear, authenticated by the wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Derivation {
    None,
    Argon2id {
        memory_kib: u32,
        passes: u32,
        lanes: u32,
        salt: [u8; 16],
    },
}

fn read_key_file(path: &Path, new: bool) -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let mut file = match std::fs::File::open(path) {
        Err(error) if new && error.kind() == std::io::ErrorKind::NotFound => {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            return fill_key_file(&mut options.open(path)?, path);
        }
        other => other?,
    };
    refuse_exposed(&file)?;
    if new && file.metadata()?.len() == 0 {
        // What a crash leaves that comes between the file's name and its content.
        let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
        return fill_key_file(&mut file, path);
    }
    let mut key = Zeroizing::new([0; 32]);
    file.read_exact(key.as_mut_slice()).map_err(|error| {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            StoreError::KeyFileSize
        } else {
            StoreError::Io(error)
        }
    })?;
    if file.read(&mut [0])? != 0 {
        return Err(StoreError::KeyFileSize);
    }
    Ok(key)
}

fn fill_key_file(file: &mut std::fs::File, path: &Path) -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let key = Zeroizing::new(rand::random::<[u8; 32]>());
    file.write_all(key.as_slice())?;
    file.sync_all()?;
    // A store without its key is lost, so the file must not lose its name either.
    super::sync_folder_of(path)?;
    Ok(key)
}

#[cfg(unix)]
fn refuse_exposed(file: &std::fs::File) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt as _;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(StoreError::KeyFileExposed);
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_exposed(_: &std::fs::File) -> Result<(), StoreError> {
    Ok(())
}
