//! `sealwire relay revoke`: takes back a token, a device or a user, also while the relay runs.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use sealwire_server::data_dir::DataDir;
use sealwire_server::revocations::{self, Revocation};
use serde_json::json;

use crate::exit::Failure;
use crate::output::Output;
use crate::when;

#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("what").args(["device", "user", "jti", "issued_before"]).required(true).multiple(true)),
    after_help = "\
A relay that runs on DIR closes the links within a second, and cards go; peers that are connected are told at once, and others find out when they next write. It is a line in DIR/revocations.jsonl: a line that is taken out \
counts no more, but devices that were removed stay removed, and join again with new keys.\n\
\n\
Examples:\n  \
    # a phone that was lost; `sealwire devices` shows the thumbprints\n  \
    sealwire relay revoke --data DIR --device 51S3iIWCfYor0Ny6YVMZ2ZcBq0v3mXbqZ2VHh8nWJ8w\n  \
    # somebody who has left: all their devices, and new ones too\n  \
    sealwire relay revoke --data DIR --user mallory\n  \
    # tokens were issued that should not have been: everybody gets a new one, and keeps their devices\n  \
    sealwire relay revoke --data DIR --issued-before now"
)]
pub(crate) struct Revoke {
    /// The relay's data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// A device, for good
    #[arg(long, value_name = "THUMBPRINT", allow_hyphen_values = true, conflicts_with_all = ["user", "jti", "issued_before"])]
    device: Option<Thumbprint>,

    /// A user: none of their devices is let in, and those that others can write to are removed for good
    #[arg(long, value_name = "USER", conflicts_with = "jti")]
    user: Option<User>,

    /// The token with this id, its `jti`
    #[arg(long, value_name = "ID", allow_hyphen_values = true, value_parser = token_id, conflicts_with = "issued_before")]
    jti: Option<String>,

    /// Tokens from before this time: `now`, or seconds since 1970; with --user, only that user's, who keeps their devices
    #[arg(long, value_name = "TIME", value_parser = issued_before)]
    issued_before: Option<u64>,
}

pub(super) fn run(revoke: &Revoke, output: Output) -> Result<(), Failure> {
    let data = DataDir::open(&revoke.data)?;
    let path = data.revocations_path();
    let Some(revocation) = revoke.revocation() else {
        return Err(Failure::usage("say what to revoke"));
    };
    revocations::append(&path, &revocation).map_err(Failure::failed)?;
    output.result(
        &json!({
            "device": revoke.device.map(|device| device.to_string()),
            "user": revoke.user.as_ref().map(User::as_str),
            "jti": revoke.jti,
            "issued_before": revoke.issued_before,
            "file": path,
        }),
        format_args!("revoked: a line in {}", path.display()),
    )
}

impl Revoke {
    fn revocation(&self) -> Option<Revocation> {
        match (&self.device, &self.user, &self.jti, self.issued_before) {
            (Some(device), _, _, _) => Some(Revocation::Device(*device)),
            (None, _, Some(id), _) => Some(Revocation::Token(id.clone())),
            (None, user, None, Some(before)) => Some(Revocation::IssuedBefore {
                before,
                user: user.clone(),
            }),
            (None, Some(user), None, None) => Some(Revocation::User(user.clone())),
            // The arguments require one.
            (None, None, None, None) => None,
        }
    }
}

fn token_id(id: &str) -> Result<String, String> {
    if (1..=255).contains(&id.len()) {
        Ok(id.to_owned())
    } else {
        Err("a jti has 1 to 255 bytes".to_owned())
    }
}

fn issued_before(time: &str) -> Result<u64, String> {
    if time == "now" {
        // Not those of this second: whoever comes back at once has such a token.
        return Ok(when::now());
    }
    match time.parse() {
        Ok(before) if before <= when::now() => Ok(before),
        Ok(_) => Err("this is in the future: every token would be refused until then".to_owned()),
        Err(_) => Err("write now, or seconds since 1970".to_owned()),
    }
}
