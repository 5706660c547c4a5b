//! The relay's data directory: keys, certificate, store, and invitations that wait.
//!
//! ```text
//! DIR/              only its owner may enter
//!   relay.key       the relay's identity: a private Ed25519 JWK (RFC 8037 §2)
//!   relay.previous  once that key has followed another: the statements that say so, a line each, the newest first (docs/protocol.md §3.9)
//!   issuer.key      the built-in issuer's key, likewise; a different one
//!   tls-cert.pem    a self-signed certificate, and tls-key.pem, its key
//!   relay.redb      directory and issuer; made when the relay first runs, as is
//!   mail/           the mailboxes
//!   invites/        invitations that nobody has redeemed
//!   blobs/          sealed files that devices have left; made when the relay first runs
//!   issuer-keys-*   the last good key set of an outside issuer
//!   admin.sock      where a relay that runs answers its operator
//!   relay.json      what this is; written last, so that an interrupted `init` is noticed
//! ```
//! [`DataDir::rotate_relay_key`] replaces the relay's key; nothing else replaces one: a directory that has any is refused by [`DataDir::init`]. The files are not encrypted; whoever can
//! read the directory is the relay.
pub(crate) mod files;
pub(crate) mod waiting;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rand::TryRng as _;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use sealwire_protocol::address::{Address, AddressError};
use sealwire_protocol::base64url;
use sealwire_protocol::introduction::Introduction;
use sealwire_protocol::invite::Invitation;
use sealwire_protocol::key::{Seed, SigningKey, Thumbprint};
use sealwire_protocol::name::User;
use sealwire_protocol::succession::{Succession, Successions};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use crate::issuer::{IssuerError, new_code};

const RELAY_KEY: &str = "relay.key";
const PREVIOUS_KEYS: &str = "relay.previous";
/// The relay's next key, until it is in its place.
const NEXT_RELAY_KEY: &str = "relay.key.next";
const ISSUER_KEY: &str = "issuer.key";
const CERTIFICATE: &str = "tls-cert.pem";
const CERTIFICATE_KEY: &str = "tls-key.pem";
const INVITES: &str = "invites";
const BLOBS: &str = "blobs";
const REVOCATIONS: &str = "revocations.jsonl";
const MAIL: &str = "mail";
const DESCRIPTION: &str = "relay.json";
/// The layout this code writes; a directory with a higher number is refused.
const LAYOUT_VERSION: u32 = 1;
/// Bytes of a key file or of the description.
const MAX_SMALL_FILE_BYTES: u64 = 4_096;
/// Bytes of the certificate file.
const MAX_CERTIFICATE_BYTES: u64 = 65_536;
/// In every certificate, so that a relay can be tried where it runs.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// An initialised data directory, with its keys.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    relay_key: SigningKey,
    issuer_key: SigningKey,
}

/// What [`DataDir::init`] needs to know.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// The address that devices will use, `wss://host[:port]/v1`, if it is known already ([`DataDir::announce`]).
    pub address: Option<String>,
    /// Names and IP addresses for the certificate, besides `localhost`, `127.0.0.1`, `::1` and the host of `address`.
    pub hosts: Vec<String>,
}

/// Why a data directory is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// There is nothing initialised there.
    #[error("{dir} is not a relay's data directory; run `sealwire relay init {dir}` first", dir = .path.display())]
    NotInitialised {
        /// The directory.
        path: PathBuf,
    },
    /// An earlier `init` was interrupted.
    #[error("{dir} was not initialised to the end; remove what is in it and run `sealwire relay init {dir}` again", dir = .path.display())]
    Incomplete {
        /// The directory.
        path: PathBuf,
    },
    /// There is a relay, or a part of one, already.
    #[error("{} holds a relay's keys already, which are never replaced; use it as it is or name another directory", .path.display())]
    AlreadyInitialised {
        /// The directory.
        path: PathBuf,
    },
    /// Made by a newer version of this program.
    #[error("{} has layout {found}, newer than this program knows ({LAYOUT_VERSION}); use the newer program", .path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The layout it has.
        found: u32,
    },
    /// A key file is not what `init` wrote.
    #[error("{} is damaged; restore it from a backup", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read a key.
    #[error("others can read {file}; run `chmod 600 {file}`, and make a new relay if somebody may have", file = .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// A host name cannot stand in a certificate.
    #[error("{host:?} is not a host name or IP address that a certificate can have")]
    Host {
        /// What was given.
        host: String,
    },
    /// An address is not one of a relay.
    #[error("{address:?} is not a relay's address: {error}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        #[source]
        error: AddressError,
    },
    /// Nobody has said yet where the relay is.
    #[error("the relay's address is not known yet; run the relay once, or say its address")]
    NoAddress,
    /// The certificate could not be made.
    #[error("the self-signed certificate cannot be made: {0}")]
    Certificate(#[source] rcgen::Error),
    /// No randomness.
    #[error("the operating system gives no randomness; try again later")]
    Randomness,
    /// A file or directory could not be read or written.
    #[error("cannot use {}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
}

/// `relay.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    version: u32,
    /// What the operator has said.
    address: Option<String>,
    /// What the relay used when it last ran.
    announced: Option<String>,
    self_signed: bool,
}

/// Only the version, whatever else a newer program wrote.
#[derive(Deserialize)]
struct DescriptionVersion {
    version: u32,
}

/// A key file: a private JWK with exactly these members.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    kty: String,
    crv: String,
    x: String,
    d: String,
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.d.zeroize();
    }
}

impl DataDir {
    /// Makes the directory if it is not there, and in it new keys, a self-signed certificate and the place for invitations.
    ///
    /// # Errors
    /// [`DataDirError`]; what was there before is not changed.
    pub fn init(path: &Path, options: &InitOptions) -> Result<Self, DataDirError> {
        let hosts = certificate_hosts(options)?;
        for file in [
            DESCRIPTION,
            RELAY_KEY,
            ISSUER_KEY,
            CERTIFICATE,
            CERTIFICATE_KEY,
            crate::storage::STORE_FILE,
        ] {
            if path
                .join(file)
                .try_exists()
                .map_err(io_error(&path.join(file)))?
            {
                return Err(DataDirError::AlreadyInitialised {
                    path: path.to_owned(),
                });
            }
        }
        files::private_directory(path).map_err(io_error(path))?;
        // Of two that start at once, one finds this file and stops.
        let relay_key = new_key(&path.join(RELAY_KEY))?;
        let issuer_key = new_key(&path.join(ISSUER_KEY))?;
        let (certificate, key) = new_certificate(hosts)?;
        create(&path.join(CERTIFICATE), certificate.as_bytes())?;
        create(&path.join(CERTIFICATE_KEY), key.as_bytes())?;
        let invites = path.join(INVITES);
        files::private_directory(&invites).map_err(io_error(&invites))?;
        let dir = Self {
            path: path.to_owned(),
            relay_key,
            issuer_key,
        };
        dir.describe(&Description {
            version: LAYOUT_VERSION,
            address: options.address.clone(),
            announced: None,
            self_signed: true,
        })?;
        Ok(dir)
    }

    /// Opens a directory that [`DataDir::init`] made.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        read_description(path)?;
        let relay_key = read_key(&path.join(RELAY_KEY))?;
        let issuer_key = read_key(&path.join(ISSUER_KEY))?;
        Ok(Self {
            path: path.to_owned(),
            relay_key,
            issuer_key,
        })
    }

    /// Opens the directory, or makes it where there is nothing.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open_or_init(path: &Path, options: &InitOptions) -> Result<Self, DataDirError> {
        match Self::open(path) {
            Err(DataDirError::NotInitialised { .. }) => Self::init(path, options),
            opened => opened,
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The relay's identity.
    #[must_use]
    pub fn relay_key(&self) -> &SigningKey {
        &self.relay_key
    }

    /// The built-in issuer's key.
    #[must_use]
    pub fn issuer_key(&self) -> &SigningKey {
        &self.issuer_key
    }

    /// Hands over the relay's and the issuer's key, in this order.
    #[must_use]
    pub fn into_keys(self) -> (SigningKey, SigningKey) {
        (self.relay_key, self.issuer_key)
    }

    /// The self-signed certificate in PEM.
    #[must_use]
    pub fn certificate_path(&self) -> PathBuf {
        self.path.join(CERTIFICATE)
    }

    /// The certificate's key in PEM.
    #[must_use]
    pub fn certificate_key_path(&self) -> PathBuf {
        self.path.join(CERTIFICATE_KEY)
    }

    /// SHA-256 of the self-signed certificate (DER): what an invitation tells devices to accept.
    ///
    /// # Errors
    /// [`DataDirError`] if it cannot be read.
    pub fn certificate_sha256(&self) -> Result<[u8; 32], DataDirError> {
        let path = self.certificate_path();
        let pem = files::read(&path, MAX_CERTIFICATE_BYTES).map_err(io_error(&path))?;
        let certificate =
            CertificateDer::from_pem_slice(&pem).map_err(|_| DataDirError::Damaged { path })?;
        Ok(Sha256::digest(&certificate).into())
    }

    /// Where invitations wait that were made while the relay has the store open, for
    /// [`crate::issuer::Issuer::with_waiting_invites`].
    #[must_use]
    pub fn invites_path(&self) -> PathBuf {
        self.path.join(INVITES)
    }

    /// What is revoked ([`crate::revocations`]); there need not be such a file.
    #[must_use]
    pub fn revocations_path(&self) -> PathBuf {
        self.path.join(REVOCATIONS)
    }

    /// Where sealed files are that devices have left.
    pub(crate) fn blobs_path(&self) -> PathBuf {
        self.path.join(BLOBS)
    }

    /// Where the mailboxes are, for [`crate::mail::disk::DirectoryDisk::open`].
    #[must_use]
    pub fn mail_path(&self) -> PathBuf {
        self.path.join(MAIL)
    }

    /// The address, `wss://host[:port]/v1`, that [`DataDir::init`] was told.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn address(&self) -> Result<Option<String>, DataDirError> {
        Ok(read_description(&self.path)?.address)
    }

    /// Remembers where devices reach the relay and whether it shows its self-signed certificate, so that
    /// [`DataDir::invite`] need not be told. For a relay that has begun to listen.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn announce(&self, address: &Address, self_signed: bool) -> Result<(), DataDirError> {
        let description = read_description(&self.path)?;
        self.describe(&Description {
            announced: Some(address.url()),
            self_signed,
            ..description
        })
    }

    /// What somebody has to know who joins with a token that the relay exchanges, also while the relay runs. `address` (`wss://host[:port]/v1`) stands in for
    /// the announced one.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn introduction(&self, address: Option<&str>) -> Result<Introduction, DataDirError> {
        let description = read_description(&self.path)?;
        let address = address
            .map(str::to_owned)
            .or(description.announced)
            .or(description.address)
            .ok_or(DataDirError::NoAddress)?;
        Ok(Introduction {
            address: parse_address(&address, &self.relay_key.thumbprint())?,
            certificate: if description.self_signed {
                Some(self.certificate_sha256()?)
            } else {
                None
            },
            issuer_key: *self.issuer_key.public(),
        })
    }

    /// Invites `user`, also while the relay runs: the line to hand over, good for `lifetime_seconds` from `now` (seconds since
    /// 1970). `address` (`wss://host[:port]/v1`) stands in for the announced one.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn invite(
        &self,
        user: &User,
        address: Option<&str>,
        lifetime_seconds: u64,
        now: u64,
    ) -> Result<Invitation, DataDirError> {
        let relay = self.introduction(address)?;
        let (code, hash) = new_code().map_err(|_: IssuerError| DataDirError::Randomness)?;
        let expires = now.saturating_add(lifetime_seconds);
        let waiting = waiting::WaitingInvite {
            user: user.clone(),
            expires,
        };
        let dir = self.invites_path();
        waiting::write(&dir, &hash, &waiting, now).map_err(io_error(&dir))?;
        Ok(Invitation {
            relay,
            user: user.clone(),
            code,
            expires,
        })
    }

    /// Gives the relay a new key, and erases the one before once it has said, with its last signature, that the new one follows it: devices that know the
    /// relay by the old key accept the new one for `overlap_seconds`. A relay that runs goes on with the old key until it is started again. Gives the new
    /// key's thumbprint. Whoever may have the old key can name a successor, too: a key that was stolen is not to be followed by any.
    ///
    /// # Errors
    /// [`DataDirError::Randomness`], [`DataDirError::Exposed`], [`DataDirError::Io`]. The old key is in use then, unless the new one is in its place.
    pub fn rotate_relay_key(
        &self,
        overlap_seconds: u64,
        now: u64,
    ) -> Result<Thumbprint, DataDirError> {
        let next = self.path.join(NEXT_RELAY_KEY);
        // What an interrupted rotation left was never in use.
        match std::fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(&next)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let new = new_key(&next)?.thumbprint();
        let before = self.statements()?;
        let kept = Successions::leading_to(&self.relay_key.thumbprint(), before.lines(), now);
        let mut statements = Succession::sign(
            &self.relay_key,
            &new,
            now,
            now.saturating_add(overlap_seconds),
        );
        for statement in kept.as_str().split(' ') {
            statements.push('\n');
            statements.push_str(statement);
        }
        // In this order: a statement of a key that never came is passed over.
        let previous = self.path.join(PREVIOUS_KEYS);
        files::replace(&previous, statements.as_bytes()).map_err(io_error(&previous))?;
        let key = self.path.join(RELAY_KEY);
        std::fs::rename(&next, &key).map_err(io_error(&key))?;
        files::sync_directory(&key).map_err(io_error(&key))?;
        Ok(new)
    }

    /// What leads to the relay's key from those before, as far as it counts at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn previous_keys(&self, now: u64) -> Result<Successions, DataDirError> {
        let (statements, key) = (self.statements()?, self.relay_key.thumbprint());
        Ok(Successions::leading_to(&key, statements.lines(), now))
    }

    fn statements(&self) -> Result<String, DataDirError> {
        let path = self.path.join(PREVIOUS_KEYS);
        match files::read(&path, MAX_SMALL_FILE_BYTES) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    fn describe(&self, description: &Description) -> Result<(), DataDirError> {
        let path = self.path.join(DESCRIPTION);
        let json = serde_json::to_vec_pretty(description)
            .map_err(|error| io_error(&path)(error.into()))?;
        files::replace(&path, &json).map_err(io_error(&path))
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |error| DataDirError::Io { path, error }
}

fn create(path: &Path, content: &[u8]) -> Result<(), DataDirError> {
    files::create(path, content).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            DataDirError::AlreadyInitialised {
                path: path.to_owned(),
            }
        } else {
            io_error(path)(error)
        }
    })
}

/// The address with the relay's thumbprint, from one without.
fn parse_address(address: &str, relay: &Thumbprint) -> Result<Address, DataDirError> {
    let parsed = format!("{address}#{relay}").parse();
    parsed.map_err(|error| DataDirError::Address {
        address: address.to_owned(),
        error,
    })
}

fn certificate_hosts(options: &InitOptions) -> Result<Vec<String>, DataDirError> {
    let mut hosts = LOCAL_HOSTS.map(str::to_owned).to_vec();
    if let Some(address) = &options.address {
        // The thumbprint does not exist yet; any does for the host.
        hosts.push(parse_address(address, &Thumbprint::from_bytes([0; 32]))?.host());
    }
    hosts.extend(options.hosts.iter().cloned());
    for (index, host) in hosts.iter().enumerate() {
        let name = host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        if host.is_empty() || host.len() > 253 || !(name || host.parse::<IpAddr>().is_ok()) {
            return Err(DataDirError::Host {
                host: hosts.get(index).cloned().unwrap_or_default(),
            });
        }
    }
    hosts.sort();
    hosts.dedup();
    Ok(hosts)
}

fn new_certificate(hosts: Vec<String>) -> Result<(String, Zeroizing<String>), DataDirError> {
    let key = rcgen::KeyPair::generate().map_err(DataDirError::Certificate)?;
    let mut params = rcgen::CertificateParams::new(hosts).map_err(DataDirError::Certificate)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Sealwire relay");
    let certificate = params
        .self_signed(&key)
        .map_err(DataDirError::Certificate)?;
    Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
}

fn new_key(path: &Path) -> Result<SigningKey, DataDirError> {
    let mut seed = [0; 32];
    rand::rngs::SysRng
        .try_fill_bytes(&mut seed)
        .map_err(|_| DataDirError::Randomness)?;
    let key = SigningKey::from_seed(&Seed::new(seed));
    let file = KeyFile {
        kty: "OKP".into(),
        crv: "Ed25519".into(),
        x: base64url::encode(key.public().as_bytes()),
        d: base64url::encode(&seed),
    };
    seed.zeroize();
    let json = serde_json::to_vec(&file)
        .map(Zeroizing::new)
        .map_err(|error| io_error(path)(error.into()))?;
    create(path, &json)?;
    Ok(key)
}

fn read_key(path: &Path) -> Result<SigningKey, DataDirError> {
    if files::is_exposed(path).map_err(io_error(path))? {
        return Err(DataDirError::Exposed {
            path: path.to_owned(),
        });
    }
    let json = files::read(path, MAX_SMALL_FILE_BYTES).map_err(io_error(path))?;
    let damaged = || DataDirError::Damaged {
        path: path.to_owned(),
    };
    let file: KeyFile = serde_json::from_slice(&json).map_err(|_| damaged())?;
    let seed = Seed::new(base64url::decode_array(file.d.as_bytes()).map_err(|_| damaged())?);
    let key = SigningKey::from_seed(&seed);
    let described = file.kty == "OKP"
        && file.crv == "Ed25519"
        && file.x == base64url::encode(key.public().as_bytes());
    if described { Ok(key) } else { Err(damaged()) }
}

fn read_description(dir: &Path) -> Result<Description, DataDirError> {
    let path = dir.join(DESCRIPTION);
    let json = match files::read(&path, MAX_SMALL_FILE_BYTES) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let dir = dir.to_owned();
            let begun = dir.join(RELAY_KEY).try_exists().map_err(io_error(&path))?;
            return Err(if begun {
                DataDirError::Incomplete { path: dir }
            } else {
                DataDirError::NotInitialised { path: dir }
            });
        }
        Err(error) => return Err(io_error(&path)(error)),
    };
    let damaged = |_| DataDirError::Damaged { path: path.clone() };
    let DescriptionVersion { version } = serde_json::from_slice(&json).map_err(damaged)?;
    if version > LAYOUT_VERSION {
        return Err(DataDirError::Newer {
            path: dir.to_owned(),
            found: version,
        });
    }
    serde_json::from_slice(&json).map_err(damaged)
}

#[cfg(test)]
mod tests;
