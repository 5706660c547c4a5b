//! `sealwire jwk`: keys as JSON Web Keys (RFC 7517).

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};
use sealwire_jose::{Algorithm, KeyError, KeyType, MAX_KEY_FILE_BYTES, PrivateKey, PublicKey};
use sealwire_protocol::base64url;
use serde_json::{Value, json};

use crate::{exit::Failure, files, output::Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a key and keep it in a file that only you can read
    New(New),
    /// Show the public part of keys, one JWK a line or as one JWK set
    Public(Public),
    /// Show the SHA-256 thumbprint of a key (RFC 7638)
    Thumbprint(Thumbprint),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sealwire jwk new --type ed25519 -o issuer.jwk       # a key to sign tokens with\n  \
    sealwire jwk new --type x25519 -o inbox.jwk         # a key to receive standard JWE with\n  \
    sealwire jwk new --type rsa3072 --alg RS256 -o k.jwk")]
pub(crate) struct New {
    /// What kind of key
    #[arg(long = "type", value_name = "TYPE", default_value = "ed25519")]
    kind: Kind,
    /// The one algorithm to sign with [default: the type's own; PS256 for RSA]
    #[arg(long, value_name = "ALG", value_parser = algorithm)]
    alg: Option<Algorithm>,
    /// The key's id [default: its thumbprint]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    kid: Option<String>,
    /// Where to keep the private key; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace the file if there is one: the key in it is lost
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Ed25519,
    X25519,
    P256,
    P384,
    Rsa2048,
    Rsa3072,
    Rsa4096,
    Oct,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example: what an issuer publishes\n  sealwire jwk public --set issuer.jwk next.jwk > jwks.json"
)]
pub(crate) struct Public {
    /// Private or public keys: JWK or PEM files, `-` for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    keys: Vec<PathBuf>,
    /// One JWK set (RFC 7517 §5) of all of them
    #[arg(long)]
    set: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Thumbprint {
    /// A private or public key: a JWK or PEM file, `-` for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    key: PathBuf,
}

pub(crate) fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::New(new) => make(&new, output),
        Command::Public(public) => show_public(&public, output),
        Command::Thumbprint(thumbprint) => show_thumbprint(&thumbprint, output),
    }
}

fn make(new: &New, output: Output) -> Result<(), Failure> {
    let mut key = PrivateKey::generate(new.kind.into()).map_err(Failure::failed)?;
    if let Some(algorithm) = new.alg.or_else(|| key.algorithms().first().copied()) {
        key = key
            .with_algorithm(algorithm)
            .map_err(|error| Failure::usage(format_args!("--alg {algorithm}: {error}")))?;
    }
    let thumbprint = base64url::encode(&key.thumbprint());
    let kid = new.kid.as_deref().unwrap_or(&thumbprint);
    let key = key
        .with_kid(kid)
        .map_err(|_| Failure::usage("--kid must have 1 to 255 bytes"))?;
    let mut jwk = key.to_jwk();
    jwk.push('\n');
    if files::is_stdout(&new.output) {
        return crate::output::bytes(jwk.as_bytes());
    }
    files::write_secret(&new.output, jwk.as_bytes(), new.force)?;
    let public = key.public().map(|public| public.to_jwk());
    let path = new.output.display().to_string();
    let value = json!({"file": path, "thumbprint": thumbprint, "public": public.as_deref().map(parsed).transpose()?});
    let mut human = format!("private key   {path}\nthumbprint    {thumbprint}");
    if let Some(public) = &public {
        let _ = write!(human, "\npublic key    {public}");
    }
    output.result(&value, human)
}

fn show_public(public: &Public, output: Output) -> Result<(), Failure> {
    let mut keys = Vec::with_capacity(public.keys.len());
    for path in &public.keys {
        keys.push(public_key(path)?.to_jwk());
    }
    if public.set {
        let set = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        return output.result(&parsed(&set)?, set);
    }
    keys.iter()
        .try_for_each(|jwk| output.result(&parsed(jwk)?, jwk))
}

fn show_thumbprint(thumbprint: &Thumbprint, output: Output) -> Result<(), Failure> {
    let file = files::read(&thumbprint.key, MAX_KEY_FILE_BYTES)?;
    let thumbprint = match PublicKey::parse(&file) {
        Err(KeyError::Private) => PrivateKey::parse(&file).map(|key| key.thumbprint()),
        public => public.map(|key| key.thumbprint()),
    }
    .map_err(|error| unusable(&thumbprint.key, error))?;
    let text = base64url::encode(&thumbprint);
    output.result(&json!({ "thumbprint": text }), &text)
}

/// Reads a public key, or the public half of a private one.
pub(crate) fn public_key(path: &Path) -> Result<PublicKey, Failure> {
    let file = files::read(path, MAX_KEY_FILE_BYTES)?;
    match PublicKey::parse(&file) {
        Err(KeyError::Private) => {
            let private = PrivateKey::parse(&file).map_err(|error| unusable(path, error))?;
            private.public().ok_or_else(|| {
                Failure::failed(format_args!(
                    "{}: a shared secret has no public part",
                    files::name(path)
                ))
            })
        }
        public => public.map_err(|error| unusable(path, error)),
    }
}

/// Reads a private key or shared secret.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKey, Failure> {
    let file = files::read(path, MAX_KEY_FILE_BYTES)?;
    PrivateKey::parse(&file).map_err(|error| unusable(path, error))
}

pub(crate) fn unusable(path: &Path, error: KeyError) -> Failure {
    Failure::failed(format_args!("{}: {error}", files::name(path)))
}

/// Reads the name of an algorithm from the command line.
pub(crate) fn algorithm(name: &str) -> Result<Algorithm, String> {
    Algorithm::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Algorithm::ALL
            .iter()
            .map(|algorithm| algorithm.name())
            .collect();
        format!("one of {}", names.join(", "))
    })
}

fn parsed(json: &str) -> Result<Value, Failure> {
    serde_json::from_str(json).map_err(Failure::failed)
}

impl From<Kind> for KeyType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Ed25519 => Self::Ed25519,
            Kind::X25519 => Self::X25519,
            Kind::P256 => Self::P256,
            Kind::P384 => Self::P384,
            Kind::Rsa2048 => Self::Rsa2048,
            Kind::Rsa3072 => Self::Rsa3072,
            Kind::Rsa4096 => Self::Rsa4096,
            Kind::Oct => Self::Oct,
        }
    }
}
