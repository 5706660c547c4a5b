//! `sealwire jwe`: standard JWE (`docs/protocol.md` §10), for whoever has no session with a device.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sealwire_jose::{
    OpenError, PrivateKey, PublicKey,
    jwe::{self, Header, MAX_JWE_BYTES, UnopenedJwe},
};
use sealwire_protocol::base64url;
use serde_json::json;

use crate::{
    cli::Global,
    commands::{jwk, runtime},
    device::{Connect, Device, Unlock},
    exit::Failure,
    files,
    home::Home,
    output::{self, Output},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Seal standard input to an X25519 key. Not forward secret, and it does not say who wrote it
    Seal(Seal),
    /// Open a JWE and write what was in it
    Open(Open),
}

#[derive(Debug, Args)]
#[command(after_help = "Example: a signed JWT for a device\n  \
    sealwire jwe seal --to inbox.public.jwk --cty JWT signed.jwt > sealed.jwe\n\n\
    Whoever gets the recipient's private key, at any time, can read it. For forward secrecy use `sealwire send`.")]
pub(crate) struct Seal {
    /// The recipient's X25519 key: a JWK or PEM file
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// What to seal; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// `cty`, what the content is: JWT for a signed JWT
    #[arg(long, value_name = "TYPE")]
    cty: Option<String>,
    /// `typ`, what the whole is
    #[arg(long, value_name = "TYPE")]
    typ: Option<String>,
    /// `kid`, which of the recipient's keys it is for [default: the key's own]
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    kid: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sealwire jwe open --key inbox.jwk sealed.jwe\n  \
    sealwire jwe open sealed.jwe                        # with this device's own key; connects to its relay")]
pub(crate) struct Open {
    /// Your X25519 private key: a JWK or PEM file [default: this device's own]
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    key: Option<PathBuf>,
    #[command(flatten)]
    unlock: Unlock,
    /// The JWE; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Keep the content in a file that only you can read
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace that file if there is one
    #[arg(long, requires = "output")]
    force: bool,
}

pub(crate) fn run(command: Command, global: &Global, output: Output) -> Result<(), Failure> {
    match command {
        Command::Seal(seal) => write(&seal, output),
        Command::Open(open) => read(&open, global, output),
    }
}

fn write(seal: &Seal, output: Output) -> Result<(), Failure> {
    let recipient: PublicKey = jwk::public_key(&seal.to)?;
    let plaintext = files::read(&seal.input, MAX_JWE_BYTES)?;
    let kid = seal.kid.as_deref().or(recipient.kid()).map(Into::into);
    let header = Header {
        typ: seal.typ.clone(),
        cty: seal.cty.clone(),
        kid,
    };
    let jwe = jwe::seal_to(&recipient, &plaintext, &header).map_err(Failure::failed)?;
    output.result(&json!({ "jwe": jwe }), &jwe)
}

fn read(open: &Open, global: &Global, output: Output) -> Result<(), Failure> {
    let compact = files::read_token(&open.input, MAX_JWE_BYTES)?;
    // What is no JWE is refused before a relay is asked for anything.
    UnopenedJwe::parse(&compact).map_err(|fault| Failure::failed(OpenError::Malformed(fault)))?;
    let key = match &open.key {
        Some(path) => jwk::private_key(path)?,
        None => own_key(&global.home()?, &open.unlock)?,
    };
    let opened = jwe::open_with(&key, &compact).map_err(Failure::failed)?;
    let header =
        json!({"typ": opened.header.typ, "cty": opened.header.cty, "kid": opened.header.kid});
    if let Some(path) = &open.output {
        files::write_secret(path, &opened.plaintext, open.force)?;
        let path = path.display().to_string();
        let human = format!("{} bytes in {path}", opened.plaintext.len());
        return output.result(
            &json!({"file": path, "bytes": opened.plaintext.len(), "header": header}),
            human,
        );
    }
    if output.is_json() {
        let value = match core::str::from_utf8(&opened.plaintext) {
            Ok(text) => json!({"text": text, "header": header}),
            Err(_) => json!({"base64url": base64url::encode(&opened.plaintext), "header": header}),
        };
        return output.result(&value, "");
    }
    output::bytes(&opened.plaintext)
}

/// The X25519 key of the device in `home`, which its client gives out once it is connected.
fn own_key(home: &Home, unlock: &Unlock) -> Result<PrivateKey, Failure> {
    runtime()?.block_on(async {
        let device = Device::connect(home, unlock, Connect::AT_ONCE).await?;
        let secret = device.client.export_secret_jwe_key().await;
        let secret = device.close(secret.map_err(Failure::from)).await?;
        PrivateKey::from_x25519(&secret).map_err(Failure::failed)
    })
}
