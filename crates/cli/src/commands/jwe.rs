//! `sealwire jwe`: standard JWE (`docs/protocol.md` §10), for whoever has no session with a device.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sealwire_jose::{
    PublicKey,
    jwe::{self, Header, MAX_JWE_BYTES},
};
use sealwire_protocol::base64url;
use serde_json::json;

use crate::{
    commands::jwk,
    exit::Failure,
    files,
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
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sealwire jwe open --key inbox.jwk sealed.jwe")]
pub(crate) struct Open {
    /// Your X25519 private key: a JWK or PEM file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
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

pub(crate) fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Seal(seal) => write(&seal, output),
        Command::Open(open) => read(&open, output),
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

fn read(open: &Open, output: Output) -> Result<(), Failure> {
    let key = jwk::private_key(&open.key)?;
    let compact = files::read_token(&open.input, MAX_JWE_BYTES)?;
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
