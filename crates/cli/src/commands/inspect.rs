//! `sealwire inspect`: what anybody can see of a message, such as the relay that carries it.

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;
use sealwire_e2e::inspect::{Form, Inspected, SealedSummary, inspect};
use sealwire_jose::jwe::{MAX_JWE_BYTES, UnopenedJwe};
use sealwire_protocol::base64url;
use serde_json::{Value, json};

use crate::{
    commands::token,
    exit::Failure,
    files,
    output::{Output, Printable},
};

/// Show what a sealed message, a JWE or a JWT says to anybody, without a key
#[derive(Debug, Args)]
#[command(
    after_help = "A sealed message is taken in its binary form, as base64url of it, or as a JWE.\n\
    Nothing that is shown is authentic: that takes the key."
)]
pub(crate) struct Inspect {
    /// The message; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    input: PathBuf,
}

pub(crate) fn run(command: &Inspect, output: Output) -> Result<(), Failure> {
    let input = files::read(&command.input, MAX_JWE_BYTES)?;
    // The binary form begins with its version, which is no text.
    if input
        .first()
        .is_none_or(|first| !first.is_ascii_graphic() && !first.is_ascii_whitespace())
    {
        return sealed(&input, output);
    }
    let text = input.trim_ascii();
    if token::looks_like_jwt(text) {
        return token::show(text, output);
    }
    if !text.contains(&b'.') {
        let binary = base64url::decode(text).map_err(|_| {
            Failure::failed(
                "neither a sealed message, its base64url, a JWE nor a JWT; check what was copied",
            )
        })?;
        return sealed(&binary, output);
    }
    match UnopenedJwe::parse(text) {
        Ok(jwe) => standard(text, jwe.ciphertext.len(), output),
        Err(_) => sealed(text, output),
    }
}

fn sealed(input: &[u8], output: Output) -> Result<(), Failure> {
    match inspect(input).map_err(Failure::failed)? {
        Inspected::Sealed(summary) => show_sealed(&summary, output),
        Inspected::Standard(jwe) => standard(input, jwe.ciphertext_len, output),
    }
}

fn standard(compact: &[u8], ciphertext_len: usize, output: Output) -> Result<(), Failure> {
    let part = compact
        .split(|&byte| byte == b'.')
        .next()
        .unwrap_or_default();
    let header = token::object(part)
        .map_err(|what| Failure::failed(format_args!("the JWE's header {what}")))?;
    let value = json!({"form": "jwe", "verified": false, "header": header, "ciphertext_bytes": ciphertext_len});
    let human = format!(
        "standard JWE, not opened\nheader      {}\nciphertext  {ciphertext_len} bytes",
        Printable(&header.to_string())
    );
    output.result(&value, human)
}

fn show_sealed(summary: &SealedSummary, output: Output) -> Result<(), Failure> {
    let form = match summary.form {
        Form::Binary => "binary",
        Form::Jwe => "jwe",
    };
    let session = base64url::encode(&summary.session);
    let ratchet_key = base64url::encode(&summary.ratchet_key);
    let first = summary.first.as_ref().map(|first| {
        json!({
            "device": first.device.map(|device| device.to_string()), "generation": first.generation,
            "one_time_prekey": first.one_time, "proof": first.proof, "attestation": first.attestation,
        })
    });
    let value = json!({
        "form": "sealed", "given_as": form, "verified": false, "bytes": summary.binary_len, "session": session,
        "ratchet_key": ratchet_key, "pn": summary.pn, "n": summary.n, "iv": base64url::encode(&summary.iv),
        "ciphertext_bytes": summary.ciphertext_len, "first": first.unwrap_or(Value::Null),
    });
    let kind = if summary.first.is_some() {
        "first sealed message"
    } else {
        "sealed message"
    };
    let mut human = format!(
        "{kind}, not opened\nsession      {session}\nratchet key  {ratchet_key}\nnumber       {} in its chain, after a chain of {}\n\
         ciphertext   {} bytes, padded",
        summary.n, summary.pn, summary.ciphertext_len
    );
    if let Some(first) = &summary.first {
        let device = first
            .device
            .map_or_else(|| "not a sound key".into(), |device| device.to_string());
        let prekey = first
            .one_time
            .map_or_else(|| "none".into(), |id| id.to_string());
        let _ = write!(
            human,
            "\nfrom device  {device} (says the message)\nto card      generation {}, one-time prekey {prekey}\nproof        {}\n\
             attestation  {}",
            first.generation,
            Printable(&first.proof),
            Printable(&first.attestation),
        );
    }
    output.result(&value, human)
}
