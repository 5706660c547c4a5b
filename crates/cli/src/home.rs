//! A device's home: the directory in which one device of one user lives.
//!
//! ```text
//! HOME/              only its owner may enter
//!   device.json      who this is and which relay and issuer it trusts, where tokens come from; nothing secret; written last, by a join that worked
//!   device.key       what the store is encrypted under, unless that is a passphrase or in the system's keyring
//!   device.keyring   under which name the keyring has it; nothing secret
//!   device.store     keys, sessions and messages
//! ```
//! A join that was interrupted leaves no `device.json` and is simply run again, with the same invitation. Talking to the relay
//! is left to the client.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sealwire_client::error::{Misuse, NotAuthorised};
use sealwire_client::{
    Client, ClientBuilder, Error, ErrorClass, FileStore, StoreError, StoreKey, Thumbprint, Tls,
    TrustedIssuer,
};
use sealwire_protocol::address::Address;
use sealwire_protocol::base64url;
use sealwire_protocol::introduction::Introduction;
use sealwire_protocol::invite::Invitation;
use sealwire_protocol::key::PublicKey;
use sealwire_protocol::name::User;
use serde::{Deserialize, Serialize};

use crate::sign_in::SignIn;

const DESCRIPTION: &str = "device.json";
const KEY: &str = "device.key";
const STORE: &str = "device.store";
#[cfg(feature = "keyring")]
const KEYRING: &str = "device.keyring";

/// What the system's keyring calls this program.
#[cfg(feature = "keyring")]
const KEYRING_SERVICE: &str = "sealwire";
/// Bytes of the name under which the keyring has a key, at most.
#[cfg(feature = "keyring")]
const MAX_KEYRING_NAME_BYTES: u64 = 512;

/// The layout this program writes; a home with a higher number is refused.
const LAYOUT_VERSION: u32 = 1;
/// Bytes of the description, at most: what is in it is bounded, so that it always fits ([`crate::sign_in::MAX_BYTES`]).
const MAX_DESCRIPTION_BYTES: u64 = 64 << 10;

/// A directory in which a device lives, or will.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    path: PathBuf,
}

/// What `device.json` says.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Where the relay is, and which key it has.
    pub(crate) address: Address,
    /// SHA-256 of the relay's certificate, if that is self-signed: the only one to accept.
    pub(crate) certificate: Option<[u8; 32]>,
    /// The key of the issuer that attests this user's peers.
    pub(crate) issuer_key: PublicKey,
    /// Whose device this is.
    pub(crate) user: User,
    /// Which device.
    pub(crate) device: Thumbprint,
    /// What its user calls it.
    pub(crate) name: Option<String>,
    /// What opens the store.
    pub(crate) lock: Lock,
    /// Where it has its provider's tokens from, if it was not invited.
    pub(crate) sign_in: Option<SignIn>,
}

/// What the device store is encrypted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lock {
    /// The key file in the home.
    File,
    /// A passphrase, which is kept nowhere.
    Passphrase,
    /// A key in the system's keyring.
    Keyring,
}

/// `device.json` as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    version: u32,
    user: String,
    device: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    address: String,
    certificate: Option<String>,
    issuer_key: String,
    lock: Lock,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sign_in: Option<SignIn>,
}

/// Only the version, whatever else a newer program wrote.
#[derive(Deserialize)]
struct DescriptionVersion {
    version: u32,
}

/// Why a home cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HomeError {
    /// No device lives there.
    #[error("there is no device in {}; run `sealwire join` with an invitation first, or name its home with --home", .path.display())]
    NotJoined {
        /// The home.
        path: PathBuf,
    },
    /// A device lives there already.
    #[error("{} already holds a device of {user}, which is never replaced; name another directory with --home", .path.display())]
    AlreadyJoined {
        /// The home.
        path: PathBuf,
        /// Whose device it is.
        user: User,
    },
    /// Made by a newer version of this program.
    #[error("{} was made by a newer sealwire (layout {found}, this one knows {LAYOUT_VERSION}); use the newer one", .path.display())]
    Newer {
        /// The home.
        path: PathBuf,
        /// The layout it has.
        found: u32,
    },
    /// A file is missing, or is not what `join` wrote.
    #[error("{} is missing or damaged; restore it from a backup, or join again in another home", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else could have written the command that is to be run.
    #[error("{} says which command to run, and somebody else can have written it; look at it, and make it your own (chown), for nobody else to write (chmod 600)", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// A file or directory could not be read or written.
    #[error("cannot use {}: {error}", .path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
}

impl Home {
    /// The home at `path`, whether or not anything is there.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// `$XDG_DATA_HOME/sealwire`, or `~/.local/share/sealwire`; `None` where neither is known.
    pub(crate) fn default_path() -> Option<PathBuf> {
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        absolute("XDG_DATA_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".local/share")))
            .map(|data| data.join("sealwire"))
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The key file in the home, which is made with the store.
    pub(crate) fn key_file(&self) -> StoreKey {
        StoreKey::from_file(self.path.join(KEY))
    }

    /// The key in the system's keyring under the name that a join has written down here.
    ///
    /// # Errors
    /// [`HomeError::Damaged`] if none has.
    #[cfg(feature = "keyring")]
    pub(crate) fn keyring_key(&self) -> Result<StoreKey, HomeError> {
        let path = self.path.join(KEYRING);
        let name = match read(&path, MAX_KEYRING_NAME_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            name => name.map_err(io_error(&path))?,
        };
        match str::from_utf8(&name) {
            Ok(name) if !name.is_empty() => Ok(StoreKey::from_keyring(KEYRING_SERVICE, name)),
            Ok(_) | Err(_) => Err(HomeError::Damaged { path }),
        }
    }

    /// The same for a home that is to be one of `of`, a user or a relay. The name is this home's alone and stays when the home is moved; a join that is
    /// run again finds it.
    ///
    /// # Errors
    /// [`HomeError::Io`].
    #[cfg(feature = "keyring")]
    pub(crate) fn new_keyring_key(&self, of: &str) -> Result<StoreKey, HomeError> {
        private_directory(&self.path).map_err(io_error(&self.path))?;
        let path = self.path.join(KEYRING);
        if !path.try_exists().map_err(io_error(&path))? {
            let name = format!("{of} {}", base64url::encode(&rand::random::<[u8; 16]>()));
            self.put(KEYRING, name.as_bytes(), Existing::Refuse)?;
        }
        self.keyring_key()
    }

    /// Who lives here.
    ///
    /// # Errors
    /// [`HomeError::NotJoined`] if nobody does.
    pub(crate) fn identity(&self) -> Result<Identity, HomeError> {
        let path = self.path.join(DESCRIPTION);
        let mut file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(HomeError::NotJoined {
                    path: self.path.clone(),
                });
            }
            Err(error) => return Err(io_error(&path)(error)),
        };
        let json = read_open(&mut file, MAX_DESCRIPTION_BYTES).map_err(io_error(&path))?;
        let damaged = || HomeError::Damaged { path: path.clone() };
        let DescriptionVersion { version } =
            serde_json::from_slice(&json).map_err(|_| damaged())?;
        if version > LAYOUT_VERSION {
            return Err(HomeError::Newer {
                path: self.path.clone(),
                found: version,
            });
        }
        let description = serde_json::from_slice(&json).map_err(|_| damaged())?;
        let identity = Identity::read(&description)
            .filter(|_| version == LAYOUT_VERSION)
            .ok_or_else(damaged)?;
        let runs = matches!(identity.sign_in, Some(SignIn::Command(_)));
        if runs && !is_ours(&file).map_err(io_error(&path))? {
            return Err(HomeError::Exposed { path });
        }
        Ok(identity)
    }

    /// The store of the device that lives here, and whose word it takes for others.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn store(
        &self,
        identity: &Identity,
    ) -> Result<(FileStore, TrustedIssuer), OpenError> {
        let store = self.path.join(STORE);
        // Opening would make a new, empty one.
        if !store.try_exists().map_err(io_error(&store))? {
            return Err(HomeError::Damaged { path: store }.into());
        }
        let issuer = TrustedIssuer::built_in(identity.issuer_key.as_bytes())?;
        Ok((FileStore::open(store)?, issuer))
    }

    /// A client for the device that lives here.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn client(
        &self,
        identity: &Identity,
        key: StoreKey,
    ) -> Result<ClientBuilder, OpenError> {
        let (store, issuer) = self.store(identity)?;
        let builder = Client::builder(&identity.address.to_string())
            .store(store, key)
            .issuer(issuer);
        let builder = match identity.sign_in.clone() {
            Some(sign_in) => builder.exchange(move |device| sign_in.clone().token(device)),
            None => builder,
        };
        Ok(match identity.certificate {
            Some(certificate) => builder.tls(Tls::Pinned(certificate)),
            None => builder,
        })
    }

    /// Makes sure that no device lives here.
    ///
    /// # Errors
    /// [`HomeError::AlreadyJoined`] if one does.
    pub(crate) fn vacant(&self) -> Result<(), HomeError> {
        match self.identity() {
            Err(HomeError::NotJoined { .. }) => Ok(()),
            Ok(Identity { user, .. }) => Err(HomeError::AlreadyJoined {
                path: self.path.clone(),
                user,
            }),
            Err(error) => Err(error),
        }
    }

    /// Makes this the home of a new device: connects and enrols with the invitation. Gives the connected client, to which others
    /// can write from now on, and who it is.
    ///
    /// # Errors
    /// [`OpenError`]. Nothing is left behind that keeps the same invitation from being tried again.
    pub(crate) async fn join(
        &self,
        invitation: &Invitation,
        lock: Lock,
        key: StoreKey,
    ) -> Result<(Client, Identity), OpenError> {
        let builder = Client::invited(&invitation.to_line())?;
        let (client, fresh) = self.connect_new(builder, key).await?;
        if client.user().await.as_deref() != Some(invitation.user.as_str()) {
            client.close().await;
            if fresh {
                self.forget_device();
            }
            return Err(OpenError::Client(NotAuthorised::OtherUser.into()));
        }
        let identity = Identity {
            address: invitation.relay.address.clone(),
            certificate: invitation.relay.certificate,
            issuer_key: invitation.relay.issuer_key,
            user: invitation.user.clone(),
            device: client.device_thumbprint(),
            name: None,
            lock,
            sign_in: None,
        };
        self.write(&identity, Existing::Refuse)?;
        Ok((client, identity))
    }

    /// Makes this the home of a new device of whomever the provider's tokens name, likewise.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) async fn join_by_exchange(
        &self,
        relay: &Introduction,
        sign_in: SignIn,
        lock: Lock,
        key: StoreKey,
    ) -> Result<(Client, Identity), OpenError> {
        let tokens = sign_in.clone();
        let builder = Client::introduced(&relay.to_line())?
            .exchange(move |device| tokens.clone().token(device));
        let (client, fresh) = self.connect_new(builder, key).await?;
        // The minted token has said it before the connection was there.
        let user = client.user().await.and_then(|user| User::new(&user).ok());
        let Some(user) = user else {
            client.close().await;
            if fresh {
                self.forget_device();
            }
            return Err(OpenError::Client(NotAuthorised::OtherUser.into()));
        };
        let identity = Identity {
            address: relay.address.clone(),
            certificate: relay.certificate,
            issuer_key: relay.issuer_key,
            user,
            device: client.device_thumbprint(),
            name: None,
            lock,
            sign_in: Some(sign_in),
        };
        self.write(&identity, Existing::Refuse)?;
        Ok((client, identity))
    }

    /// Connects a new device. Gives also whether all that is here of it was made now.
    async fn connect_new(
        &self,
        builder: ClientBuilder,
        key: StoreKey,
    ) -> Result<(Client, bool), OpenError> {
        self.vacant()?;
        private_directory(&self.path).map_err(io_error(&self.path))?;
        let fresh = !self.path.join(STORE).exists() && !self.path.join(KEY).exists();
        let store = FileStore::open(self.path.join(STORE))?;
        match builder.store(store, key).connect().await {
            Ok(client) => Ok((client, fresh)),
            // What was made for nothing goes. After any other error the relay may have enrolled it, and it is needed again.
            Err(error) => {
                let keyless = matches!(error, Error::Store(StoreError::Keyring(_)));
                if fresh && (keyless || error.class() == ErrorClass::NotAuthorised) {
                    self.forget_device();
                }
                Err(error.into())
            }
        }
    }

    /// Removes a device that was made for nothing; the next join uses what is left.
    fn forget_device(&self) {
        for file in [STORE, KEY] {
            let _ = std::fs::remove_file(self.path.join(file));
        }
    }

    /// Writes down what the device that lives here is called now. Its other devices are told by the client.
    ///
    /// # Errors
    /// [`HomeError::Io`].
    pub(crate) fn remember_name(&self, identity: &Identity, name: &str) -> Result<(), HomeError> {
        let named = Identity {
            name: Some(name.to_owned()),
            ..identity.clone()
        };
        self.write(&named, Existing::Replace)
    }

    /// Remembers the key that the relay has now.
    ///
    /// # Errors
    /// [`HomeError::Io`].
    pub(crate) fn remember_relay(
        &self,
        identity: &Identity,
        relay: &Thumbprint,
    ) -> Result<(), HomeError> {
        let address = format!("{}#{relay}", identity.address.url()).parse();
        let moved = Identity {
            // An address with another thumbprint is one.
            address: address.unwrap_or_else(|_| identity.address.clone()),
            ..identity.clone()
        };
        self.write(&moved, Existing::Replace)
    }

    fn write(&self, identity: &Identity, existing: Existing) -> Result<(), HomeError> {
        let json = serde_json::to_vec_pretty(&identity.describe());
        let json = json.map_err(|error| io_error(&self.path.join(DESCRIPTION))(error.into()))?;
        if u64::try_from(json.len()).is_ok_and(|length| length > MAX_DESCRIPTION_BYTES) {
            // It could not be read again.
            let error = io::ErrorKind::FileTooLarge.into();
            return Err(io_error(&self.path.join(DESCRIPTION))(error));
        }
        self.put(DESCRIPTION, &json, existing)
    }

    /// Writes a file of the home, whole and durably.
    fn put(&self, name: &str, content: &[u8], existing: Existing) -> Result<(), HomeError> {
        let path = self.path.join(name);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            match existing {
                Existing::Refuse => file.persist_noclobber(&path),
                Existing::Replace => file.persist(&path),
            }
            .map_err(|error| error.error)?;
            std::fs::File::open(&self.path)?.sync_all()
        };
        write().map_err(io_error(&path))
    }
}

/// What to do with a description that is there.
#[derive(Debug, Clone, Copy)]
enum Existing {
    Refuse,
    Replace,
}

impl Identity {
    fn read(description: &Description) -> Option<Self> {
        let array = |text: &String| base64url::decode_array::<32>(text.as_bytes()).ok();
        Some(Self {
            address: description.address.parse().ok()?,
            certificate: match &description.certificate {
                Some(certificate) => Some(array(certificate)?),
                None => None,
            },
            issuer_key: PublicKey::from_bytes(&array(&description.issuer_key)?).ok()?,
            user: User::new(&description.user).ok()?,
            device: description.device.parse().ok()?,
            name: description.name.clone(),
            lock: description.lock,
            sign_in: description.sign_in.clone(),
        })
    }

    fn describe(&self) -> Description {
        Description {
            version: LAYOUT_VERSION,
            user: self.user.to_string(),
            device: self.device.to_string(),
            name: self.name.clone(),
            address: self.address.to_string(),
            certificate: self
                .certificate
                .as_ref()
                .map(|bytes| base64url::encode(bytes)),
            issuer_key: base64url::encode(self.issuer_key.as_bytes()),
            lock: self.lock,
            sign_in: self.sign_in.clone(),
        }
    }
}

/// Why a device could not be opened or joined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Its home is not usable.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The client says no.
    #[error(transparent)]
    Client(#[from] sealwire_client::Error),
}

impl From<Misuse> for OpenError {
    fn from(error: Misuse) -> Self {
        Self::Client(error.into())
    }
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Client(error.into())
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.to_owned();
    move |error| HomeError::Io { path, error }
}

/// Whether nobody else can have written to the file.
#[cfg(unix)]
fn is_ours(file: &std::fs::File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = file.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    Ok(metadata.uid() == own && metadata.mode() & 0o022 == 0)
}

/// The directory's rights are inherited, and it is the user's.
#[cfg(not(unix))]
fn is_ours(_: &std::fs::File) -> io::Result<bool> {
    Ok(true)
}

#[cfg(feature = "keyring")]
fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_open(&mut std::fs::File::open(path)?, limit)
}

fn read_open(file: &mut std::fs::File, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut content)?;
    if u64::try_from(content.len()).is_ok_and(|length| length <= limit) {
        Ok(content)
    } else {
        Err(io::ErrorKind::FileTooLarge.into())
    }
}

/// Makes the directory, for its owner only, where it is not there yet.
fn private_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use sealwire_protocol::key::{Seed, SigningKey};

    use super::*;
    use crate::sign_in::MAX_BYTES;

    fn identity(sign_in: SignIn) -> Identity {
        let key = SigningKey::from_seed(&Seed::new([1; 32]));
        let address = format!("wss://relay.example/v1#{}", key.thumbprint());
        Identity {
            address: address.parse().unwrap(),
            certificate: Some([9; 32]),
            issuer_key: *key.public(),
            user: User::new(&"\\".repeat(255)).unwrap(),
            device: key.thumbprint(),
            name: Some("\\".repeat(64)),
            lock: Lock::File,
            sign_in: Some(sign_in),
        }
    }

    #[test]
    fn whatever_is_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        for sign_in in [
            SignIn::Command("\u{1}".repeat(MAX_BYTES)),
            SignIn::File(PathBuf::from("\u{1}".repeat(MAX_BYTES))),
        ] {
            home.write(&identity(sign_in.clone()), Existing::Replace)
                .unwrap();
            assert_eq!(home.identity().unwrap().sign_in, Some(sign_in));
        }
        let longer = identity(SignIn::Command("\u{1}".repeat(2 * MAX_BYTES)));
        assert!(matches!(
            home.write(&longer, Existing::Replace),
            Err(HomeError::Io { .. })
        ));
        home.identity().unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn command_that_others_can_have_written_is_not_run() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        let written = |sign_in, mode| {
            home.write(&identity(sign_in), Existing::Replace).unwrap();
            let path = directory.path().join(DESCRIPTION);
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            home.identity()
        };
        let command = || SignIn::Command("true".to_owned());
        for mode in [0o620, 0o602, 0o666] {
            let refused = written(command(), mode);
            assert!(
                matches!(refused, Err(HomeError::Exposed { .. })),
                "{mode:o}"
            );
        }
        written(command(), 0o644).unwrap();
        // Nothing of it is run.
        written(SignIn::File("/token".into()), 0o666).unwrap();
        // Somebody else's, where a test may give files away.
        written(command(), 0o600).unwrap();
        let path = directory.path().join(DESCRIPTION);
        if std::os::unix::fs::chown(path, Some(12_345), None).is_ok() {
            let refused = home.identity();
            assert!(matches!(refused, Err(HomeError::Exposed { .. })));
        }
    }
}
