//! The relay's configuration: one file, under the environment, under the flags.
//!
//! ```text
//!  file ────────┐
//!  environment ─┼─▶ Layers ──▶ Keys: one pass that declares and reads ──▶ Configuration ──▶ RelayBuilder
//!  flags ───────┘                  └─▶ what can be set, what it is now and by whom; every problem, not only the first
//! ```
//! What the files say that it names is looked at elsewhere: [`super::check`].

mod issuers;
mod keys;
mod kind;
mod layers;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealwire_protocol::address::Address;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits::{HANDSHAKE_SECONDS, MAX_SEALED_MESSAGE_BYTES};
use sealwire_server::policy::{Allowance, ConnectionLimits};
use sealwire_server::{Drain, Relay, RelayBuilder, Tls};
use tracing_subscriber::EnvFilter;

use self::issuers::Exchange;
use self::keys::{Key, Keys};
use self::kind::{Bool, Choice, Count, File, List, Size, Time, Word};
use self::layers::Layers;
use crate::exit::Failure;
use crate::{files, logging};

pub(super) use self::issuers::{Jwks, Provider, algorithm};
pub(super) use self::keys::{Declared, Setting, Usual};
pub(in crate::commands) use self::layers::PREFIX;
pub(super) use self::layers::{FILE_VARIABLE, Place, Problem, Raw, Source};

/// Events in a minute, at most, that a limit of the relay allows.
const MAX_PER_MINUTE: u64 = 10_000_000;
/// Messages or blobs, at most, of which a limit of the relay allows.
const MAX_NUMBER: u64 = 100_000_000;
/// Connections, at most, that a limit of the relay allows.
const MAX_CONNECTIONS: u64 = 1_000_000;
/// Seconds, at most, that a relay takes to end.
const MAX_DRAIN_SECONDS: u64 = 600;
/// Seconds, at most, that devices are kept away: no device stays away for longer (docs/protocol.md §5.2).
const MAX_RETURN_SECONDS: u64 = 30;
/// Bytes, at most, of which a limit of the relay allows.
const MAX_BYTES: u64 = 1 << 50;
/// Bytes of a sealed message that every relay takes: the first one to a device carries an attestation.
const MIN_MESSAGE_BYTES: u64 = 16 << 10;
/// Frames, at least, that are read in a minute.
const MIN_FRAMES_PER_MINUTE: u64 = 60;
/// Bytes, at least, that are read in a minute: the largest record is read in three.
const MIN_BYTES_PER_MINUTE: u64 = 1 << 20;
/// Seconds, at most, for which a relay holds what nobody fetches.
const MAX_RETENTION_SECONDS: u64 = 366 * 86_400;
/// Seconds, at least, for which it does.
const MIN_RETENTION_SECONDS: u64 = 60;
/// Seconds, at most, that a connection may take to authenticate.
const MAX_HANDSHAKE_SECONDS: u64 = 60;
/// Seconds, at most, of silence and of waiting for a slow reader.
const MAX_PATIENCE_SECONDS: u64 = 600;
/// Seconds of silence, and of waiting for a slow reader, by default.
const PATIENCE_SECONDS: u64 = 30;
/// Where a relay listens that nobody has told anything.
pub(super) const LISTEN: &str = "127.0.0.1:8443";

/// All that can be configured, read.
#[derive(Debug)]
pub(super) struct Configuration {
    pub(super) data: Option<Setting<PathBuf>>,
    pub(super) listen: Setting<String>,
    pub(super) public_address: Option<Setting<String>>,
    pub(super) tls: TlsSettings,
    limits: Limits,
    pub(super) issuer: Option<Provider>,
    pub(super) exchange: Vec<Exchange>,
    require_tenant: bool,
    pub(super) admin: Option<Setting<SocketAddr>>,
    pub(super) drain: Drain,
    pub(super) log: Log,
    #[cfg_attr(
        not(feature = "opentelemetry"),
        allow(dead_code, reason = "read, so that it is known what is set in vain")
    )]
    pub(super) telemetry: Telemetry,
}

/// How the port is protected.
#[derive(Debug)]
pub(super) enum TlsSettings {
    SelfSigned,
    Files {
        certificate: Setting<PathBuf>,
        key: Setting<PathBuf>,
    },
    None,
}

/// What the relay allows, and how patient it is.
#[derive(Debug)]
struct Limits {
    allowance: Allowance,
    connections: ConnectionLimits,
    handshake_deadline: Duration,
    keep_alive: Duration,
    write_timeout: Duration,
    allowed_origins: Vec<String>,
}

/// What is logged, and how.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) json: bool,
    pub(super) filter: String,
}

/// Where traces go, and how many.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "opentelemetry"),
    allow(dead_code, reason = "read, so that it is known what is set in vain")
)]
pub(super) struct Telemetry {
    pub(super) endpoint: Option<Setting<String>>,
    pub(super) one_in: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    SelfSigned,
    Files,
    None,
}

/// What was read, and what there is to say about it.
#[derive(Debug)]
pub(super) struct Loaded {
    /// What is wrong is left out of it.
    pub(super) configuration: Configuration,
    pub(super) declared: Vec<Declared>,
    /// What sections could have that may be there several times.
    pub(super) possible: Vec<Declared>,
    pub(super) problems: Vec<Problem>,
    /// The file is no TOML: nothing is known of what it says.
    pub(super) unreadable: bool,
}

/// A flag that stands for a setting.
pub(super) struct Flag {
    /// `section.key`.
    pub(super) path: &'static str,
    pub(super) flag: &'static str,
    pub(super) value: Raw,
}

impl Loaded {
    /// Reads all of it.
    ///
    /// # Errors
    /// Only where there is no such file; everything else is in [`Loaded::problems`].
    pub(super) fn read(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        flags: Vec<Flag>,
    ) -> Result<Self, Failure> {
        let text = match file {
            None => None,
            Some(path) => {
                let bytes = files::read(path, layers::MAX_FILE_BYTES)
                    .map_err(|failure| Failure::usage(failure.to_string()))?;
                let text = std::str::from_utf8(&bytes).map_err(|_| {
                    Failure::usage(format_args!("{} is not UTF-8, as TOML is", path.display()))
                })?;
                Some((path, text.to_owned()))
            }
        };
        let file = text.as_ref().map(|(path, text)| (*path, text.as_str()));
        Ok(Self::of(file, environment, flags))
    }

    /// The same from a file's text.
    fn of(
        file: Option<(&Path, &str)>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        flags: Vec<Flag>,
    ) -> Self {
        let (mut layers, mut problems) = (Layers::default(), Vec::new());
        if let Some((path, text)) = file {
            layers.file(path, text, &mut problems);
        }
        // What else could be said would be about what somebody has written all the same.
        problems.sort();
        let broken = (!problems.is_empty()).then(|| std::mem::take(&mut problems));
        layers.environment(environment, &mut problems);
        for Flag { path, flag, value } in flags {
            layers.flag(path, flag, value);
        }
        let mut keys = Keys::new(&layers, problems);
        let configuration = Configuration::read(&mut keys);
        keys.finish();
        Self {
            configuration,
            declared: keys.declared,
            possible: keys.possible,
            unreadable: broken.is_some(),
            problems: broken.unwrap_or(keys.problems),
        }
    }

    /// What can be configured, with nobody having said anything.
    pub(super) fn default() -> Self {
        Self::of(None, std::iter::empty(), Vec::new())
    }

    /// The configuration, if nothing is wrong. Otherwise all but the last problem are said here.
    ///
    /// # Errors
    /// The last problem, as a usage error.
    pub(super) fn good(self, json: bool) -> Result<Configuration, Failure> {
        refuse(&self.problems, json)?;
        Ok(self.configuration)
    }
}

/// Says every problem but the last.
///
/// # Errors
/// The last one.
pub(super) fn refuse(problems: &[Problem], json: bool) -> Result<(), Failure> {
    let Some((last, others)) = problems.split_last() else {
        return Ok(());
    };
    for problem in others {
        Failure::usage(problem).say(json);
    }
    Err(Failure::usage(last))
}

impl Configuration {
    fn read(keys: &mut Keys<'_>) -> Self {
        keys.section("");
        let data = keys.optional(
            Key::new("data", "The directory that `sealwire relay init` has made. What is in it is the relay: keep it private, and back it up.")
                .flag("--data"),
            &File { what: "a directory" },
            "/var/lib/sealwire/relay",
        );
        let require_tenant = keys.setting(
            Key::new(
                "require_tenant",
                "Refuses whoever is of no tenant: a relay for several organisations that are not to see each other.",
            ),
            &Bool,
            false,
        );
        keys.section("listen");
        let listen = keys.setting(
            Key::new("address", "Where to listen: 0.0.0.0:443 and [::]:443 are for everybody; port 0 takes a free one.")
                .flag("--listen"),
            &Word {
                what: "an address and port, as in 127.0.0.1:8443 or [::]:443",
                read: |text| has_port(text).then(|| text.to_owned()),
                show: String::clone,
            },
            LISTEN.to_owned(),
        );
        let public_address = keys.optional(
            Key::new("public_address", "Where devices reach the relay, if it is not where it listens, or if that is in the data directory already.")
                .flag("--address"),
            &Word {
                what: "a relay's address, wss://HOST[:PORT]/v1",
                read: |text| host_and_port(text).map(|_| text.to_owned()),
                show: String::clone,
            },
            "wss://relay.example/v1",
        );
        let tls = TlsSettings::read(keys);
        let limits = Limits::read(keys);
        let issuer = Provider::direct(keys);
        let exchange = Exchange::all(keys, &issuer, require_tenant.value);
        keys.section("admin");
        let admin = keys.optional(
            Key::new("listen", "Where the operator's port is: /healthz, /readyz and /metrics (Prometheus), as HTTP without TLS. It names nobody, but tells how busy\nthe relay is: loopback, or a network of your own.")
                .flag("--admin"),
            &Word {
                what: "an IP address and port, as in 127.0.0.1:9464",
                read: |text| text.parse().ok(),
                show: SocketAddr::to_string,
            },
            "127.0.0.1:9464",
        );
        let drain = read_drain(keys);
        let log = Log::read(keys);
        let telemetry = Telemetry::read(keys);
        Self {
            data,
            listen,
            public_address,
            tls,
            limits,
            issuer,
            admin,
            drain,
            exchange,
            require_tenant: require_tenant.value,
            log,
            telemetry,
        }
    }

    /// The relay in `data` that this describes; `initialised` is the address that the directory was made for.
    pub(super) fn builder(
        &self,
        data: &Path,
        initialised: Option<String>,
    ) -> Result<RelayBuilder, Failure> {
        let limits = &self.limits;
        let mut builder = Relay::builder(data)
            .allowance(limits.allowance)
            .connection_limits(limits.connections)
            .handshake_deadline(limits.handshake_deadline)
            .keep_alive(limits.keep_alive)
            .write_timeout(limits.write_timeout);
        if let Some(admin) = &self.admin {
            builder = builder.admin(admin.value);
        }
        for origin in &limits.allowed_origins {
            builder = builder.allow_origin(origin);
        }
        builder = match &self.tls {
            TlsSettings::SelfSigned => builder.tls(Tls::SelfSigned),
            TlsSettings::Files { certificate, key } => builder.tls(Tls::Files {
                certificates: certificate.value.clone(),
                key: key.value.clone(),
            }),
            TlsSettings::None => builder.tls(Tls::Plain),
        };
        let said = self
            .public_address
            .as_ref()
            .map(|public| public.value.clone());
        if let Some(public) = said.or(initialised) {
            let host = host_and_port(&public).ok_or_else(|| {
                Failure::usage(format_args!("{public:?} is not a relay's address"))
            })?;
            builder = builder.public_host(host);
        }
        if let Some(issuer) = &self.issuer {
            let source = issuer.source().map_err(Failure::usage)?;
            let (name, audience) = (issuer.name.value.clone(), &issuer.audience);
            builder = builder.issuer_with_keys_from(name, audience, source);
        }
        for exchange in &self.exchange {
            builder = builder.exchange(exchange.issuer().map_err(Failure::usage)?);
        }
        Ok(builder.require_tenant(self.require_tenant))
    }
}

impl TlsSettings {
    fn read(keys: &mut Keys<'_>) -> Self {
        keys.section("tls");
        let mode = keys.setting(
            Key::new("mode", "\"self-signed\": TLS with the certificate in the data directory, which invitations tell devices to accept.\n\
                \"files\": TLS with the certificate and key below.\n\
                \"none\": no TLS, on loopback or behind a proxy that ends it.")
                .flag("--plain"),
            &Choice(&[
                ("self-signed", Mode::SelfSigned),
                ("files", Mode::Files),
                ("none", Mode::None),
            ]),
            Mode::SelfSigned,
        );
        let certificate = keys.optional(
            Key::new(
                "certificate",
                "The certificate chain in PEM, the relay's own first; for mode \"files\".",
            )
            .flag("--tls-cert"),
            &File {
                what: "a file with the certificate chain in PEM",
            },
            "/etc/sealwire/chain.pem",
        );
        let key = keys.optional(
            Key::new(
                "key",
                "Its private key in PEM: PKCS#8, SEC1 or PKCS#1; for mode \"files\". Nobody but its owner and its group may read it.",
            )
            .flag("--tls-key"),
            &File {
                what: "a file with the certificate's key in PEM",
            },
            "/etc/sealwire/key.pem",
        );
        if mode.value != Mode::Files {
            // What a stronger layer has said about the mode is to switch off what a weaker one has said.
            for (name, file) in [("certificate", &certificate), ("key", &key)] {
                if let Some(file) = file
                    && file.source.is_at_least(&mode.source)
                {
                    keys.problem(
                        &file.source,
                        format!("tls.{name} would not be used; set tls.mode to \"files\", or leave it away"),
                    );
                }
            }
        }
        match (mode.value, certificate, key) {
            (Mode::SelfSigned, _, _) => Self::SelfSigned,
            (Mode::None, _, _) => Self::None,
            (Mode::Files, Some(certificate), Some(key)) => Self::Files { certificate, key },
            (Mode::Files, _, _) => {
                for name in ["certificate", "key"] {
                    missing(
                        keys,
                        &mode.source,
                        name,
                        "TLS with files needs a certificate and its key",
                    );
                }
                Self::SelfSigned
            }
        }
    }
}

/// How a relay ends that is asked to.
fn read_drain(keys: &mut Keys<'_>) -> Drain {
    keys.section("drain");
    let mut time = |name, about, most, default: Duration| {
        let kind = Time { least: 0, most };
        let seconds = keys.setting(Key::new(name, about), &kind, default.as_secs());
        Duration::from_secs(seconds.value)
    };
    let usual = Drain::default();
    let window = time(
        "within",
        "A relay that is asked to end (SIGTERM) has links leave one after another within this time; about 500 leave in a second.",
        MAX_DRAIN_SECONDS,
        usual.window(),
    );
    let return_after = time(
        "return_after",
        "How long after that there is a relay again: devices stay away until then, and never for longer than 30 seconds.",
        MAX_RETURN_SECONDS,
        usual.returns_after(),
    );
    usual.within(window).return_after(return_after)
}

fn read_connections(keys: &mut Keys<'_>) -> ConnectionLimits {
    let mut limits = ConnectionLimits::default();
    let mut set = |name, about, of: &mut usize| {
        let kind = Count {
            least: 1,
            most: MAX_CONNECTIONS,
        };
        let default = u64::try_from(*of).unwrap_or(MAX_CONNECTIONS);
        let said = keys.setting(Key::new(name, about), &kind, default);
        *of = usize::try_from(said.value).unwrap_or(usize::MAX);
    };
    set(
        "connections",
        "Connections at one time, of all kinds; fewer where the system grants fewer open files.",
        &mut limits.connections,
    );
    set(
        "unauthenticated",
        "Of these, connections that have not authenticated. Who comes beyond that is dropped; who is connected is served.",
        &mut limits.unauthenticated,
    );
    set(
        "unauthenticated_per_address",
        "Of these, connections of one address. Not behind a proxy, which has one address for all.",
        &mut limits.unauthenticated_per_address,
    );
    set(
        "links_per_user",
        "Devices of one user that are connected at one time.",
        &mut limits.links_per_user,
    );
    let key = Key::new(
        "links_per_tenant",
        "Devices of one tenant, as their tokens name it, that are connected at one time. By default half of all connections, also of the fewer that the system grants.",
    );
    let links = Count {
        least: 1,
        most: MAX_CONNECTIONS,
    };
    let half = u64::try_from(limits.connections / 2).unwrap_or(MAX_CONNECTIONS);
    let setting = keys.setting(key, &links, half.max(1));
    // What half is, the relay knows better.
    limits.links_per_tenant = (setting.source != Source::Default)
        .then(|| usize::try_from(setting.value).unwrap_or(usize::MAX));
    let mut set = |name, about, of: &mut u64| {
        let rate = Count {
            least: 1,
            most: MAX_PER_MINUTE,
        };
        *of = keys.setting(Key::new(name, about), &rate, *of).value;
    };
    set(
        "connections_per_minute",
        "Connections of one address in a minute. Not behind a proxy, which has one address for all.",
        &mut limits.per_minute,
    );
    set(
        "links_per_minute",
        "Times that a device connects and authenticates in a minute.",
        &mut limits.links_per_minute,
    );
    set(
        "links_per_minute_per_user",
        "The same of a user, all devices together.",
        &mut limits.links_per_minute_per_user,
    );
    set(
        "links_per_minute_per_tenant",
        "The same of a tenant, all devices together. After a restart all of them come back at once.",
        &mut limits.links_per_minute_per_tenant,
    );
    limits
}

impl Limits {
    fn read(keys: &mut Keys<'_>) -> Self {
        keys.section("limits");
        let rate = Count {
            least: 1,
            most: MAX_PER_MINUTE,
        };
        let number = Count {
            least: 1,
            most: MAX_NUMBER,
        };
        let size = Size {
            least: 1,
            most: MAX_BYTES,
        };
        let retention = Time {
            least: MIN_RETENTION_SECONDS,
            most: MAX_RETENTION_SECONDS,
        };
        let patience = Time {
            least: 1,
            most: MAX_PATIENCE_SECONDS,
        };

        let mut allowance = Allowance::default();
        let mut set = |key, kind: &dyn Bound, of: fn(&mut Allowance) -> &mut u64| {
            let default = *of(&mut allowance);
            *of(&mut allowance) = kind.set(keys, key, default);
        };
        set(
            Key::new("messages_per_minute", "Messages that a device may send in a minute, each counted once for each device it is for.")
                .flag("--messages-per-minute"),
            &rate,
            |allowance| &mut allowance.messages_per_minute,
        );
        set(
            Key::new(
                "card_fetches_per_minute",
                "Times that a user may ask for the cards of somebody's devices in a minute.",
            ),
            &rate,
            |allowance| &mut allowance.card_fetches_per_minute,
        );
        set(
            Key::new(
                "card_fetches_per_minute_per_tenant",
                "The same of a tenant, all users together.",
            ),
            &rate,
            |allowance| &mut allowance.card_fetches_per_minute_per_tenant,
        );
        set(
            Key::new(
                "refreshes_per_minute",
                "Times that a device may present a new token on its link in a minute.",
            ),
            &rate,
            |allowance| &mut allowance.refreshes_per_minute,
        );
        set(
            Key::new(
                "max_message_bytes",
                "The largest sealed message. Larger content goes as a file.",
            ),
            &Size {
                least: MIN_MESSAGE_BYTES,
                most: MAX_SEALED_MESSAGE_BYTES as u64,
            },
            |allowance| &mut allowance.max_message_bytes,
        );
        set(
            Key::new("mailbox_messages", "Messages that wait for a device."),
            &number,
            |allowance| &mut allowance.mailbox.messages,
        );
        set(
            Key::new("mailbox_bytes", "Bytes of messages that wait for a device."),
            &size,
            |allowance| &mut allowance.mailbox.bytes,
        );
        set(
            Key::new(
                "mailbox_retention",
                "How long a message waits. It is erased then, and its sender is told.",
            ),
            &retention,
            |allowance| &mut allowance.mailbox.retention_seconds,
        );
        set(
            Key::new(
                "transfer_bytes_per_minute",
                "Bytes of files that a user may send and fetch in a minute, all devices together.",
            ),
            &size,
            |allowance| &mut allowance.transfer_bytes_per_minute,
        );
        set(
            Key::new(
                "blob_bytes_per_user",
                "Bytes of files that the relay holds for one user.",
            ),
            &size,
            |allowance| &mut allowance.blobs.bytes_per_user,
        );
        set(
            Key::new("blob_bytes", "Bytes of files that the relay holds for all."),
            &size,
            |allowance| &mut allowance.blobs.bytes,
        );
        set(
            Key::new("blobs_per_user", "Files that the relay holds for one user."),
            &number,
            |allowance| &mut allowance.blobs.blobs_per_user,
        );
        set(
            Key::new("blobs", "Files that the relay holds for all."),
            &number,
            |allowance| &mut allowance.blobs.blobs,
        );
        set(
            Key::new(
                "blob_uploads_per_user",
                "Files of one user that are on their way to the relay.",
            ),
            &number,
            |allowance| &mut allowance.blobs.uploads_per_user,
        );
        set(
            Key::new(
                "blob_retention",
                "How long a file is held once all of it is there.",
            ),
            &retention,
            |allowance| &mut allowance.blobs.retention_seconds,
        );
        set(
            Key::new("blob_upload_time", "How long a file may take to be there."),
            &retention,
            |allowance| &mut allowance.blobs.upload_seconds,
        );
        set(
            Key::new(
                "blob_reserved_bytes",
                "Free bytes of the disk that no file takes, so that messages go on.",
            ),
            &Size {
                least: 0,
                most: MAX_BYTES,
            },
            |allowance| &mut allowance.blobs.reserved_bytes,
        );

        let frames = Count {
            least: MIN_FRAMES_PER_MINUTE,
            most: MAX_NUMBER,
        };
        set(
            Key::new(
                "frames_per_minute",
                "Frames of a device that are read in a minute; who sends more is read later.",
            ),
            &frames,
            |allowance| &mut allowance.frames_per_minute,
        );
        set(
            Key::new(
                "frames_per_minute_per_user",
                "The same of a user, all devices together.",
            ),
            &frames,
            |allowance| &mut allowance.frames_per_minute_per_user,
        );
        set(
            Key::new(
                "frames_per_minute_per_tenant",
                "The same of a tenant, all devices together.",
            ),
            &frames,
            |allowance| &mut allowance.frames_per_minute_per_tenant,
        );
        let bytes = Size {
            least: MIN_BYTES_PER_MINUTE,
            most: MAX_BYTES,
        };
        set(
            Key::new(
                "bytes_per_minute",
                "Bytes of a device's link, below TLS, that are read in a minute; who sends more is read later.",
            ),
            &bytes,
            |allowance| &mut allowance.bytes_per_minute,
        );
        set(
            Key::new(
                "bytes_per_minute_per_user",
                "The same of a user, all devices together.",
            ),
            &bytes,
            |allowance| &mut allowance.bytes_per_minute_per_user,
        );
        set(
            Key::new(
                "bytes_per_minute_per_tenant",
                "The same of a tenant, all devices together.",
            ),
            &bytes,
            |allowance| &mut allowance.bytes_per_minute_per_tenant,
        );
        let connections = read_connections(keys);

        let mut seconds =
            |key, kind: Time, default| Duration::from_secs(keys.setting(key, &kind, default).value);
        let handshake_deadline = seconds(
            Key::new(
                "handshake_deadline",
                "How long a connection may take until it has authenticated.",
            ),
            Time {
                least: 1,
                most: MAX_HANDSHAKE_SECONDS,
            },
            HANDSHAKE_SECONDS,
        );
        let keep_alive = seconds(
            Key::new(
                "keep_alive",
                "How long a device may be silent before it is pinged, and then again before it is given up.",
            ),
            patience,
            PATIENCE_SECONDS,
        );
        let write_timeout = seconds(
            Key::new(
                "write_timeout",
                "How long a device may take to read what was sent to it.",
            ),
            patience,
            PATIENCE_SECONDS,
        );
        let allowed_origins = keys.setting(
            Key::new("allowed_origins", "Origins of web pages whose scripts may connect, for example \"https://app.example\". Devices that are no browsers state none."),
            &List(Word {
                what: "an origin, as in \"https://app.example\"",
                read: |text| is_origin(text).then(|| text.to_owned()),
                show: String::clone,
            }),
            Vec::new(),
        );
        Self {
            allowance,
            connections,
            handshake_deadline,
            keep_alive,
            write_timeout,
            allowed_origins: allowed_origins.value,
        }
    }
}

/// A kind of number, whichever.
trait Bound {
    fn set(&self, keys: &mut Keys<'_>, key: Key, default: u64) -> u64;
}

impl<K: kind::Kind<Value = u64>> Bound for K {
    fn set(&self, keys: &mut Keys<'_>, key: Key, default: u64) -> u64 {
        keys.setting(key, self, default).value
    }
}

impl Log {
    fn read(keys: &mut Keys<'_>) -> Self {
        keys.section("log");
        let json = keys.setting(
            Key::new("format", "\"text\" for people, \"json\" for programs: one object a line. The log goes to standard error.").flag("--json"),
            &Choice(&[("text", false), ("json", true)]),
            false,
        );
        let filter = keys.setting(
            Key::new("filter", "What is logged: error, warn, info, debug or trace, also for a part of the relay, as in sealwire_server=debug.\n\
                Nothing that is logged has a message, token, key or name of a person in it.")
                .flag("--log"),
            &Word {
                what: "error, warn, info, debug or trace, or parts with a level, as in \"warn,sealwire_server=info\"",
                read: |text| EnvFilter::try_new(text).ok().map(|_| text.to_owned()),
                show: String::clone,
            },
            logging::RELAY.to_owned(),
        );
        Self {
            json: json.value,
            filter: filter.value,
        }
    }
}

impl Telemetry {
    fn read(keys: &mut Keys<'_>) -> Self {
        keys.section("telemetry");
        let endpoint = keys.optional(
            Key::new("otlp_endpoint", "The OpenTelemetry collector that takes traces, by OTLP over HTTP in protobuf, without /v1/traces: what the relay is asked and how long it\ntakes. A trace has the first characters of a device's thumbprint, as the log has, and no user. Needs a build with OpenTelemetry."),
            &Word {
                what: "a collector's address, as in \"http://127.0.0.1:4318\"",
                read: |text| is_collector(text).then(|| text.to_owned()),
                show: String::clone,
            },
            "http://127.0.0.1:4318",
        );
        if let (Some(endpoint), false) = (&endpoint, cfg!(feature = "opentelemetry")) {
            keys.problem(
                &endpoint.source,
                "telemetry.otlp_endpoint: this build cannot send traces; build it with --features opentelemetry, or leave this out",
            );
        }
        let one_in = keys.setting(
            Key::new("one_in", "Of so many traces one is sent; 1 sends all."),
            &Count {
                least: 1,
                most: MAX_NUMBER,
            },
            1,
        );
        Self {
            endpoint,
            one_in: one_in.value,
        }
    }
}

/// Reports that a setting is missing, unless it is there and wrong.
fn missing(keys: &mut Keys<'_>, source: &Source, key: &str, why: &str) {
    if !keys.is_said(key) {
        let path = keys.path(key);
        keys.problem(source, format!("{path} is missing: {why}"));
    }
}

/// Whether it is of the form `host:port`.
fn has_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        !host.is_empty() && digits && port.parse::<u16>().is_ok()
    })
}

/// Whether it is the origin of a page (RFC 6454 §6.2), as a browser states it.
fn is_origin(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'/')
    })
}

/// Whether it is `http://host[:port]`, or with https, and a path that may lead there.
fn is_collector(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest.filter(|rest| !rest.ends_with('/') && !rest.ends_with("/v1/traces"))
    else {
        return false;
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%/".contains(&byte);
    // A host is of the form that devices connect to as well.
    host_and_port(&format!("wss://{host}/v1")).is_some() && path.bytes().all(in_path)
}

/// `host[:port]` of `wss://host[:port]/v1`.
pub(super) fn host_and_port(address: &str) -> Option<String> {
    // The thumbprint is the relay's own and known only later; any does for reading the rest.
    let any = Thumbprint::from_bytes([0; 32]);
    let parsed: Address = format!("{address}#{any}").parse().ok()?;
    let url = parsed.url();
    let authority = url.strip_prefix("wss://")?.strip_suffix("/v1")?;
    Some(authority.to_owned())
}
