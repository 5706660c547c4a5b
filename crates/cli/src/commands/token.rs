//! `sealwire token`: an issuer's tokens (`docs/protocol.md` §2).

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use sealwire_jose::{
    Algorithm, Algorithms, Claims, KeySet, MAX_KEY_FILE_BYTES, PrivateKey, SigningKey,
    TokenVerifier,
};
use sealwire_protocol::{
    TokenError, base64url,
    json::Object,
    jws::JwtType,
    key::Thumbprint,
    limits::{MAX_CARD_BYTES, MAX_TOKEN_BYTES},
    name::Issuer,
    permissions::{Permissions, Recipient},
    token::{UnverifiedAccessToken, UnverifiedAttestation},
};
use serde_json::{Value, json};

use crate::{
    commands::{jwk, now},
    exit::Failure,
    files,
    output::{Lines, Output, Printable},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a token, signed with an issuer's private key
    Mint(Box<Mint>),
    /// Check a token as a relay would, and show what it allows
    Verify(Verify),
    /// Show what a token says, without checking anything
    Inspect(Inspect),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sealwire token mint --key issuer.jwk --iss https://id.example --aud relay.example --sub alice \\\n      \
        --device 0cqZFl0iTNzb0Sp9nA3-zXGr-vZHVgB7ODlRaQO6OSE --scope 'sealwire:send sealwire:receive'\n  \
    sealwire token mint --key issuer.jwk --claims claims.json")]
pub(crate) struct Mint {
    /// The issuer's private key, or a shared secret: a JWK or PEM file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The algorithm, for a key that could have several
    #[arg(long, value_name = "ALG", value_parser = jwk::algorithm)]
    alg: Option<Algorithm>,
    /// Make an attestation, for other devices, instead of an access token
    #[arg(long)]
    attestation: bool,
    /// All claims, as one JSON object in a file; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["iss", "aud", "sub", "device", "scope", "jti", "details", "lifetime"])]
    claims: Option<PathBuf>,
    /// Who issues the token
    #[arg(long, value_name = "ISSUER", required_unless_present = "claims")]
    iss: Option<String>,
    /// For whom it is: the relay's audience
    #[arg(long, value_name = "AUDIENCE", required_unless_present = "claims")]
    aud: Option<String>,
    /// The user
    #[arg(long, value_name = "USER", required_unless_present = "claims")]
    sub: Option<String>,
    /// The thumbprint of the user's device
    #[arg(
        long,
        value_name = "THUMBPRINT",
        allow_hyphen_values = true,
        required_unless_present = "claims"
    )]
    device: Option<Thumbprint>,
    /// What it allows: sealwire:send, sealwire:receive, sealwire:publish, separated by spaces
    #[arg(long, value_name = "SCOPE", conflicts_with = "attestation")]
    scope: Option<String>,
    /// The token's id, `jti`
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    jti: Option<String>,
    /// authorization_details: a JSON array in a file
    #[arg(long, value_name = "FILE")]
    details: Option<PathBuf>,
    /// For how long it is good, in seconds
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 3_600)]
    lifetime: u64,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    sealwire token verify --keys jwks.json --iss https://id.example --aud relay.example token.jwt\n\n\
    Exit code 3 if the token is refused.")]
pub(crate) struct Verify {
    /// The token; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    token: PathBuf,
    /// The issuer's public keys: a JWK set, JWK or PEM file
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "secret",
        conflicts_with = "secret"
    )]
    keys: Option<PathBuf>,
    /// A secret shared with the issuer, for HS256: an oct JWK, or a file of at least 32 bytes, each of which counts
    #[arg(long, value_name = "FILE", conflicts_with = "alg")]
    secret: Option<PathBuf>,
    /// An algorithm that is allowed; may be repeated [default: all with public keys]
    #[arg(long, value_name = "ALG", value_parser = jwk::algorithm)]
    alg: Vec<Algorithm>,
    /// Who has to have issued it
    #[arg(long, value_name = "ISSUER")]
    iss: Issuer,
    /// For whom it has to be
    #[arg(long, value_name = "AUDIENCE")]
    aud: String,
    /// Check it as an attestation (its age instead of its expiry)
    #[arg(long)]
    attestation: bool,
    /// The time to check at, in seconds since 1970 [default: now]
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The token; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    token: PathBuf,
}

pub(crate) fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Mint(mint) => make(&mint, output),
        Command::Verify(verify) => check(&verify, output),
        Command::Inspect(inspect) => {
            show(&files::read_token(&inspect.token, MAX_CARD_BYTES)?, output)
        }
    }
}

fn make(mint: &Mint, output: Output) -> Result<(), Failure> {
    let key = jwk::private_key(&mint.key)?;
    let signer = match mint.alg {
        Some(algorithm) => SigningKey::with_algorithm(&key, algorithm),
        None => SigningKey::new(&key),
    }
    .map_err(|error| jwk::unusable(&mint.key, error))?;
    let token = match &mint.claims {
        Some(path) => {
            let claims = files::read(path, MAX_TOKEN_BYTES)?;
            let typ = if mint.attestation {
                JwtType::Attestation
            } else {
                JwtType::AccessToken
            };
            let token = signer
                .json(typ.typ(), claims.trim_ascii())
                .map_err(Failure::failed)?;
            note_what_is_refused(token.as_bytes(), mint.attestation, output);
            token
        }
        None => named_claims(mint, &signer)?,
    };
    output.result(&json!({ "token": token }), &token)
}

/// Claims from a file are signed as they are, which is what whoever tests a verifier wants; others should know.
fn note_what_is_refused(token: &[u8], attestation: bool, output: Output) {
    let refused = if attestation {
        UnverifiedAttestation::parse(token).err()
    } else {
        UnverifiedAccessToken::parse(token).err()
    };
    if let Some(error) = refused {
        let note = format!("a relay will refuse this token: {error}");
        output.notice(&json!({"note": note}), format_args!("note: {note}"));
    }
}

fn named_claims(mint: &Mint, signer: &SigningKey) -> Result<String, Failure> {
    let (Some(issuer), Some(audience), Some(user), Some(device)) =
        (&mint.iss, &mint.aud, &mint.sub, mint.device)
    else {
        return Err(Failure::usage(
            "give --iss, --aud, --sub and --device, or all claims with --claims FILE",
        ));
    };
    let details = match &mint.details {
        Some(path) => {
            let file = files::read(path, MAX_TOKEN_BYTES)?;
            let details: Value = serde_json::from_slice(&file)
                .map_err(|error| Failure::failed(format_args!("{}: {error}", path.display())))?;
            Some(details)
        }
        None => None,
    };
    let issued = now()?;
    let claims = Claims {
        issuer,
        user,
        audience,
        issued,
        expires: issued.saturating_add(mint.lifetime),
        id: mint.jti.as_deref(),
        device,
        scope: mint.scope.as_deref(),
        authorization_details: details.as_ref(),
    };
    if mint.attestation {
        signer.attestation(&claims)
    } else {
        signer.access_token(&claims)
    }
    .map_err(Failure::failed)
}

fn check(verify: &Verify, output: Output) -> Result<(), Failure> {
    let keys = match (&verify.keys, &verify.secret) {
        (Some(path), _) => {
            let allowed = if verify.alg.is_empty() {
                Algorithms::PUBLIC_KEY
            } else {
                verify.alg.iter().copied().collect()
            };
            let file = files::read(path, MAX_KEY_FILE_BYTES)?;
            KeySet::parse(&file, allowed).map_err(|error| jwk::unusable(path, error))?
        }
        (None, Some(path)) => {
            let secret = shared_secret(path)?;
            KeySet::from_secret(&secret).map_err(|error| jwk::unusable(path, error))?
        }
        (None, None) => {
            return Err(Failure::usage(
                "name the issuer's keys with --keys FILE, or the shared secret with --secret FILE",
            ));
        }
    };
    let token = files::read_token(&verify.token, MAX_TOKEN_BYTES)?;
    let at = match verify.at {
        Some(at) => at,
        None => now()?,
    };
    let verifier = TokenVerifier::new(verify.iss.clone(), &verify.aud, keys);
    let refused =
        |error: TokenError| Failure::not_authorised(format_args!("the token is refused: {error}"));
    if verify.attestation {
        let attestation = verifier.attestation(&token, at).map_err(refused)?;
        let value = json!({
            "valid": true, "iss": attestation.issuer().as_str(), "sub": attestation.user().as_str(),
            "device": attestation.device().to_string(), "iat": attestation.issued(),
        });
        let human = format!(
            "good attestation\nissuer   {}\nuser     {}\ndevice   {}\nissued   {}",
            Printable(attestation.issuer().as_str()),
            Printable(attestation.user().as_str()),
            attestation.device(),
            ago(attestation.issued(), at),
        );
        return output.result(&value, human);
    }
    let token = verifier.access_token(&token, at).map_err(refused)?;
    let claims = token.claims();
    let value = json!({
        "valid": true, "iss": claims.issuer.as_str(), "sub": claims.user.as_str(), "aud": claims.audience,
        "device": claims.device.to_string(), "iat": claims.issued, "exp": claims.expires, "jti": claims.id,
        "permissions": permissions(&claims.permissions),
    });
    let human = format!(
        "good token, for whoever proves the device's key\nissuer   {}\nuser     {}\ndevice   {}\nallows   {}\nexpires  in {} s",
        Printable(claims.issuer.as_str()),
        Printable(claims.user.as_str()),
        claims.device,
        allowed(&claims.permissions),
        claims.expires.saturating_sub(at),
    );
    output.result(&value, human)
}

/// An `oct` JWK, or raw bytes.
fn shared_secret(path: &Path) -> Result<PrivateKey, Failure> {
    let file = files::read(path, MAX_KEY_FILE_BYTES)?;
    let key = match Object::parse(&file) {
        Ok(_) => PrivateKey::parse(&file),
        Err(_) => PrivateKey::from_secret(&file),
    };
    key.map_err(|error| jwk::unusable(path, error))
}

/// Shows a JWT without a key. Nothing of it is true because it is shown.
pub(crate) fn show(compact: &[u8], output: Output) -> Result<(), Failure> {
    let not_a_token = |what: &str| Failure::failed(format_args!("not a JWT: {what}"));
    let mut parts = compact.split(|&byte| byte == b'.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(not_a_token("it does not have three parts"));
    };
    let signature =
        base64url::decode(signature).map_err(|_| not_a_token("its signature is not base64url"))?;
    let header = object(header).map_err(|what| not_a_token(&format!("its header {what}")))?;
    let claims = object(claims).map_err(|what| not_a_token(&format!("its payload {what}")))?;
    let value = json!({
        "form": "jwt", "verified": false, "header": header, "claims": claims, "signature_bytes": signature.len(),
    });
    let human = format!(
        "JWT, not verified: anybody may have written this\nheader     {}\nclaims     {}\nsignature  {} bytes",
        Printable(&header.to_string()),
        Lines(&format!("{claims:#}")),
        signature.len(),
    );
    output.result(&value, human)
}

/// One part that is a strict JSON object (`docs/protocol.md` §2.1).
pub(crate) fn object(part: &[u8]) -> Result<Value, String> {
    let json = base64url::decode(part).map_err(|_| "is not base64url".to_owned())?;
    Object::parse(&json).map_err(|error| format!("is refused: {error}"))?;
    serde_json::from_slice(&json).map_err(|error| format!("is not JSON: {error}"))
}

fn permissions(permissions: &Permissions) -> Value {
    let to = permissions
        .to
        .as_ref()
        .map(|to| to.iter().map(pattern).collect::<Vec<_>>());
    json!({
        "send": permissions.send, "receive": permissions.receive, "publish": permissions.publish, "to": to,
        "max_message_bytes": permissions.max_message_bytes, "messages_per_minute": permissions.messages_per_minute,
        "mailbox_messages": permissions.mailbox_messages, "mailbox_bytes": permissions.mailbox_bytes,
        "retention_seconds": permissions.retention_seconds,
    })
}

fn pattern(recipient: &Recipient) -> String {
    match recipient {
        Recipient::User(user) => user.as_str().to_owned(),
        Recipient::Prefix(prefix) => format!("{prefix}*"),
    }
}

fn allowed(permissions: &Permissions) -> String {
    let each = [
        (permissions.send, "send"),
        (permissions.receive, "receive"),
        (permissions.publish, "publish"),
    ];
    let allowed: Vec<_> = each
        .into_iter()
        .filter_map(|(allowed, what)| allowed.then_some(what))
        .collect();
    let to = permissions.to.as_ref().map_or_else(String::new, |to| {
        let to: Vec<_> = to
            .iter()
            .map(|recipient| Printable(&pattern(recipient)).to_string())
            .collect();
        format!(" (to {})", to.join(", "))
    });
    if allowed.is_empty() {
        "nothing".into()
    } else {
        format!("{}{to}", allowed.join(", "))
    }
}

fn ago(then: u64, now: u64) -> String {
    format!("{} s ago", now.saturating_sub(then))
}

/// Whether text looks like a JWT, and not like a JWE.
pub(crate) fn looks_like_jwt(text: &[u8]) -> bool {
    text.iter().filter(|&&byte| byte == b'.').count() == 2
}
