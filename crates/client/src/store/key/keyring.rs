//! A key that the operating system's keyring keeps: the Secret Service on Linux and the BSDs (GNOME Keyring, KWallet, KeePassXC), the keychain on
//! macOS, the Credential Manager on Windows.
//!
//! Not the Linux kernel's keyring: it forgets at the latest with the next start, and a store without its key is lost.

use std::sync::{Arc, Mutex, PoisonError};

use keyring_core::{CredentialStore, Entry, Error};
use zeroize::Zeroizing;

use crate::store::KeyringError;

/// One of this process makes a key at a time, so that of two the second finds what the first has made.
static CREATING: Mutex<()> = Mutex::new(());

/// Where in the keyring the key is.
pub(super) struct Keyring {
    pub(super) service: String,
    pub(super) account: String,
    /// Takes the place of the system's, for tests.
    pub(super) store: Option<Arc<CredentialStore>>,
}

impl Keyring {
    /// The key. `new` says that there is no store yet: only then is one made, and only where there is none.
    pub(super) fn key(&self, new: bool) -> Result<Zeroizing<[u8; 32]>, KeyringError> {
        let _turn = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
        let store = match &self.store {
            Some(store) => Arc::clone(store),
            None => system_store()?,
        };
        let entry = Entry::new_in_store(&store, &self.service, &self.account).map_err(error)?;
        match entry.get_secret() {
            Err(Error::NoEntry) if new => {}
            found => return key_of(found),
        }
        let key = Zeroizing::new(rand::random::<[u8; 32]>());
        entry.set_secret(key.as_slice()).map_err(error)?;
        // What the keyring gives from now on counts, not what it was given.
        let kept = key_of(entry.get_secret())?;
        if *kept == *key {
            Ok(kept)
        } else {
            Err(KeyringError::NotAKey)
        }
    }
}

fn key_of(found: Result<Vec<u8>, Error>) -> Result<Zeroizing<[u8; 32]>, KeyringError> {
    let secret = Zeroizing::new(found.map_err(error)?);
    let key = secret.as_slice().try_into();
    key.map(Zeroizing::new).map_err(|_| KeyringError::NotAKey)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "keyrings have many errors, and may have more"
)]
fn error(error: Error) -> KeyringError {
    match error {
        Error::NoEntry => KeyringError::NoKey,
        Error::NoStorageAccess(reason) => KeyringError::NoAccess(reason),
        Error::PlatformFailure(reason) => KeyringError::Unavailable(reason),
        // These carry what was found, which is secret or was meant to be.
        Error::BadEncoding(_) | Error::BadDataFormat(..) => KeyringError::NotAKey,
        Error::Ambiguous(_) => KeyringError::Ambiguous,
        other => KeyringError::Unavailable(Box::new(other)),
    }
}

#[cfg(any(
    target_os = "linux",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
))]
fn system_store() -> Result<Arc<CredentialStore>, KeyringError> {
    let store = zbus_secret_service_keyring_store::Store::new().map_err(error)?;
    Ok(store)
}

#[cfg(target_os = "macos")]
fn system_store() -> Result<Arc<CredentialStore>, KeyringError> {
    let store = apple_native_keyring_store::keychain::Store::new().map_err(error)?;
    Ok(store)
}

#[cfg(windows)]
fn system_store() -> Result<Arc<CredentialStore>, KeyringError> {
    let store = windows_native_keyring_store::Store::new().map_err(error)?;
    Ok(store)
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "macos",
    windows
)))]
fn system_store() -> Result<Arc<CredentialStore>, KeyringError> {
    Err(KeyringError::Unavailable(
        "this platform has none that is known here".into(),
    ))
}

#[cfg(test)]
mod tests;
