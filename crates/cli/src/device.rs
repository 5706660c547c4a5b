//! From a home to a connected device: which home, what opens it, and what its errors mean to whoever typed the command.

use std::path::{Path, PathBuf};

use clap::Args;
use sealwire_client::error::NotAuthorised;
use sealwire_client::store::KeyringError;
use sealwire_client::{Client, Error, ErrorClass, Event, StoreError, StoreKey};
use zeroize::Zeroizing;

use crate::exit::{Class, Failure};
use crate::files;
use crate::home::{Home, HomeError, Identity, Lock, OpenError};

/// Bytes of a device's name, at most (docs/protocol.md §9.3).
const MAX_NAME_BYTES: usize = 64;
/// Bytes of a passphrase, at most.
const MAX_PASSPHRASE_BYTES: usize = 1_024;

/// Reads a device's name.
///
/// # Errors
/// What is wrong, in words for a usage error.
pub(crate) fn device_name(text: &str) -> Result<String, &'static str> {
    let fits = (1..=MAX_NAME_BYTES).contains(&text.len());
    if fits && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("a device's name has 1 to 64 bytes, without line breaks and other control characters")
    }
}

/// How to open a store that has a passphrase.
#[derive(Debug, Args)]
pub(crate) struct Unlock {
    /// Read the store's passphrase from the first line of FILE instead of asking for it
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// What a new store is to be encrypted under: a key file, unless something else is asked for.
#[derive(Debug, Args)]
pub(crate) struct NewLock {
    /// Ask for a passphrase to encrypt the store under, instead of making a key file
    #[arg(long)]
    passphrase: bool,

    /// Have the system's keyring keep the key, instead of a file: the Secret Service (GNOME Keyring, KWallet, KeePassXC), the keychain of macOS, the
    /// Credential Manager of Windows. On a server there is mostly none
    #[cfg(feature = "keyring")]
    #[arg(long, conflicts_with_all = ["passphrase", "passphrase_file"])]
    keyring: bool,

    #[command(flatten)]
    unlock: Unlock,
}

/// What to do when the relay cannot be reached at the start.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Connect {
    /// Wait for a relay that is away at the start, instead of ending with exit code 4; and for a mailbox that is full, instead of giving the message up
    #[arg(long)]
    pub(crate) keep_trying: bool,
}

impl Connect {
    /// For a command that ends where the relay is away.
    pub(crate) const AT_ONCE: Self = Self { keep_trying: false };
}

/// A device that is connected to its relay, or is about to be.
pub(crate) struct Device {
    pub(crate) client: Client,
    pub(crate) identity: Identity,
    home: Home,
}

impl Device {
    /// Opens the store in `home` and connects, or says why not.
    pub(crate) async fn connect(
        home: &Home,
        unlock: &Unlock,
        connect: Connect,
    ) -> Result<Self, Failure> {
        let identity = home.identity()?;
        let key = unlock.key(home, identity.lock)?;
        let builder = home.client(&identity, key)?;
        let connected = if connect.keep_trying {
            builder.start().await
        } else {
            builder.connect().await
        };
        let client = connected.map_err(|error| not_opened(error, &identity.address.url()))?;
        Ok(Self {
            client,
            identity,
            home: home.clone(),
        })
    }

    /// Remembers the relay's new key, if that is what has happened: the client knows it, and what looks at the address does not.
    pub(crate) fn follow(&self, event: &Event) -> Result<(), Failure> {
        if let Event::RelayKeyChanged { relay } = event {
            self.home.remember_relay(&self.identity, relay)?;
        }
        Ok(())
    }

    /// Waits for `work`, and closes the connection whatever has come of it.
    pub(crate) async fn close<T>(self, result: Result<T, Failure>) -> Result<T, Failure> {
        self.client.close().await;
        result
    }
}

impl Unlock {
    /// What opens the store of a device that is there.
    pub(crate) fn key(&self, home: &Home, lock: Lock) -> Result<StoreKey, Failure> {
        match (lock, &self.passphrase_file) {
            (Lock::File, None) => Ok(home.key_file()),
            (Lock::File, Some(_)) => Err(Failure::usage(
                "this device's store has no passphrase but a key file; leave --passphrase-file away",
            )),
            (Lock::Keyring, Some(_)) => Err(Failure::usage(
                "the key of this device's store is in the system's keyring, and it has no passphrase; leave --passphrase-file away",
            )),
            #[cfg(feature = "keyring")]
            (Lock::Keyring, None) => Ok(home.keyring_key()?),
            #[cfg(not(feature = "keyring"))]
            (Lock::Keyring, None) => Err(Failure::failed(
                "the key of this device's store is in the system's keyring, and this sealwire was built without the feature `keyring`; use one with it",
            )),
            (Lock::Passphrase, Some(file)) => from_file(file),
            (Lock::Passphrase, None) => Ok(StoreKey::from_passphrase(ask("Passphrase: ")?)),
        }
    }
}

impl NewLock {
    /// What the store of a new device of `of`, a user or a relay, is made with: a passphrase is asked for twice.
    pub(crate) fn key(&self, home: &Home, of: &str) -> Result<(Lock, StoreKey), Failure> {
        #[cfg(feature = "keyring")]
        if self.keyring {
            return Ok((Lock::Keyring, home.new_keyring_key(of)?));
        }
        #[cfg(not(feature = "keyring"))]
        let _ = of;
        if let Some(file) = &self.unlock.passphrase_file {
            return Ok((Lock::Passphrase, from_file(file)?));
        }
        if !self.passphrase {
            return Ok((Lock::File, home.key_file()));
        }
        let first = Zeroizing::new(ask("New passphrase: ")?);
        let second = Zeroizing::new(ask("The same again: ")?);
        if first != second {
            return Err(Failure::usage("the two passphrases differ; try again"));
        }
        Ok((
            Lock::Passphrase,
            StoreKey::from_passphrase(first.to_string()),
        ))
    }
}

fn ask(prompt: &str) -> Result<String, Failure> {
    rpassword::prompt_password(prompt)
        .map_err(|_| Failure::usage("there is no terminal to ask for the passphrase on; give it with --passphrase-file FILE"))
}

fn from_file(path: &Path) -> Result<StoreKey, Failure> {
    let content = files::read(path, MAX_PASSPHRASE_BYTES)?;
    let line = content
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(passphrase) if !passphrase.is_empty() => {
            Ok(StoreKey::from_passphrase(passphrase.to_owned()))
        }
        Ok(_) | Err(_) => Err(Failure::failed(format_args!(
            "{} does not begin with a line of text; write the passphrase there",
            path.display()
        ))),
    }
}

/// An error of a connection, with the address it was to.
pub(crate) fn unreachable(error: Error, url: &str) -> Failure {
    if error.class() == ErrorClass::Unreachable {
        let message = format!("{url}: {error}");
        return Failure::from(error).with_message(message);
    }
    error.into()
}

/// An error of a device that is there.
fn not_opened(error: Error, url: &str) -> Failure {
    if let Error::Store(StoreError::Keyring(KeyringError::Unavailable(reason))) = &error {
        let message = format!(
            "the key of this device's store is in the system's keyring, which does not work here ({reason}); start it, or use this device where it runs"
        );
        return Failure::from(error).with_message(message);
    }
    unreachable(error, url)
}

/// What somebody joins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JoinedWith {
    Invitation { expired: bool },
    ProvidersToken,
}

/// An error of a join: what the relay did not accept was the invitation or the token.
pub(crate) fn not_joined(error: OpenError, url: &str, with: JoinedWith) -> Failure {
    match error {
        OpenError::Client(Error::NotAuthorised(NotAuthorised::Credential)) => {
            Failure::not_authorised(match with {
                JoinedWith::Invitation { expired: true } => {
                    "the invitation has expired; ask for a new one"
                }
                JoinedWith::Invitation { expired: false } => {
                    "the relay does not accept this invitation: it was used, or is not one of this relay's any more; ask for a new one"
                }
                JoinedWith::ProvidersToken => {
                    "the relay does not accept this token: it is not for this relay, has expired, or gives you nothing to do here; whoever runs the relay finds the reason in its log"
                }
            })
        }
        OpenError::Client(error @ Error::Store(StoreError::Keyring(_))) => {
            let message = format!(
                "{error}. Without --keyring a key file is made, and with --passphrase none is needed; the invitation was not used"
            );
            Failure::from(error).with_message(message)
        }
        OpenError::Client(error) => unreachable(error, url),
        OpenError::Home(error) => error.into(),
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        let class = match error {
            HomeError::NotJoined { .. } => Class::NotAuthorised,
            HomeError::AlreadyJoined { .. }
            | HomeError::Newer { .. }
            | HomeError::Damaged { .. }
            | HomeError::Exposed { .. }
            | HomeError::Io { .. } => Class::Failed,
        };
        Self::new(class, error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Home(error) => error.into(),
            OpenError::Client(error) => error.into(),
        }
    }
}
