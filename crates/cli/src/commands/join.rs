//! `sealwire join`: makes this machine a device of the invited user.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use clap::Args;
use sealwire_protocol::invite::Invitation;
use serde_json::json;
use zeroize::Zeroizing;

use crate::device::{Device, NewLock, device_name, not_joined};
use crate::exit::{Class, Failure};
use crate::home::Home;
use crate::output::{Output, Printable};
use crate::when;

/// Bytes that are read in search of an invitation: more than the longest one.
const MAX_LINE_BYTES: u64 = 4_096;

#[derive(Debug, Args)]
#[command(after_help = "\
The keys that are made here never leave this machine. They are kept in its home, encrypted under a key file there, a passphrase, or a key that the system's \
keyring keeps.\n\
\n\
Examples:\n  \
    # asks for the invitation, so that it shows nowhere\n  \
    sealwire join\n  \
    sealwire join --home ./alice --name 'the old laptop' < invitation.txt\n  \
    sealwire join --passphrase")]
pub(crate) struct Join {
    /// The line that begins with "sealwire-invite:" [default: asked for, or read from standard input]
    #[arg(value_name = "INVITE")]
    invitation: Option<String>,

    /// What to call this device; only you and your other devices see it
    #[arg(long, value_name = "NAME", value_parser = device_name)]
    name: Option<String>,

    #[command(flatten)]
    lock: NewLock,
}

pub(crate) fn run(join: Join, home: &Home, output: Output) -> Result<(), Failure> {
    // Before anything is asked for.
    home.vacant()?;
    let invitation = match join.invitation.map(Zeroizing::new) {
        Some(line) if line.as_str() != "-" => line,
        Some(_) | None => read_line()?,
    };
    let invitation = Invitation::parse(invitation.trim()).map_err(Failure::usage)?;
    let (lock, key) = join.lock.key(home, &invitation.user)?;
    let url = invitation.address.url();
    super::runtime()?.block_on(async {
        let expired = invitation.expires <= when::now();
        let joined = home.join(&invitation, lock, key).await;
        let (client, identity) = joined.map_err(|error| not_joined(error, &url, expired))?;
        if let Some(name) = &join.name {
            client.set_device_name(name).await?;
            home.remember_name(&identity, name)?;
        }
        let result = output.result(
            &json!({
                "user": identity.user.as_str(),
                "device": identity.device.to_string(),
                "name": join.name,
                "address": identity.address.to_string(),
                "home": home.path(),
            }),
            format_args!(
                "joined {url} as {}, device {}",
                Printable(identity.user.as_str()),
                identity.device
            ),
        );
        output.hint("send with `sealwire send USER TEXT`, receive with `sealwire listen`");
        Device { client, identity }.close(result).await
    })
}

fn read_line() -> Result<Zeroizing<String>, Failure> {
    let failed = |error: io::Error| {
        Failure::new(
            Class::Failed,
            format_args!("the invitation cannot be read: {error}"),
        )
    };
    if io::stdin().is_terminal() {
        return rpassword::prompt_password("Invitation (not shown): ")
            .map(Zeroizing::new)
            .map_err(failed);
    }
    let mut line = Zeroizing::new(String::new());
    io::stdin()
        .lock()
        .take(MAX_LINE_BYTES)
        .read_line(&mut line)
        .map_err(failed)?;
    if line.trim().is_empty() {
        return Err(Failure::usage(
            "no invitation was given; paste the line that begins with \"sealwire-invite:\"",
        ));
    }
    Ok(line)
}
