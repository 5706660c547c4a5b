//! `sealwire join`: makes this machine a device of the invited user, or of who signs in with an identity provider.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use clap::Args;
use sealwire_protocol::address::Address;
use sealwire_protocol::introduction::{self, Introduction};
use sealwire_protocol::invite::Invitation;
use serde_json::json;
use zeroize::Zeroizing;

use crate::device::{JoinedWith, NewLock, device_name, not_joined};
use crate::exit::{Class, Failure};
use crate::home::Home;
use crate::output::{Output, Printable};
use crate::sign_in::{SignIn, SignInOptions};
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
    sealwire join --passphrase\n  \
    # with a token of your identity provider, if the relay exchanges these\n  \
    sealwire join sealwire-relay:… --exchange-command 'oidc-agent token chat'")]
pub(crate) struct Join {
    /// The line that begins with "sealwire-invite:", or with "sealwire-relay:" to sign in with an identity provider [default: asked for, or read from
    /// standard input]
    #[arg(value_name = "INVITE")]
    invitation: Option<String>,

    /// What to call this device; only you and your other devices see it
    #[arg(long, value_name = "NAME", value_parser = device_name)]
    name: Option<String>,

    #[command(flatten)]
    sign_in: SignInOptions,

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
    let line = invitation.trim();
    let sign_in = join.sign_in.sign_in()?;
    let with = if line.starts_with(introduction::PREFIX) {
        let relay = Introduction::parse(line).map_err(Failure::usage)?;
        let Some(sign_in) = sign_in else {
            return Err(Failure::usage(
                "this line says where the relay is and invites nobody; say where your identity provider's token is with --exchange-token-file or --exchange-command",
            ));
        };
        With::Exchange(Box::new(relay), sign_in)
    } else {
        let invitation = Invitation::parse(line).map_err(Failure::usage)?;
        if sign_in.is_some() {
            return Err(Failure::usage(
                "an invitation needs no token of an identity provider; to sign in with one, use the relay's line, which begins with \"sealwire-relay:\"",
            ));
        }
        With::Invitation(Box::new(invitation))
    };
    let (lock, key) = join.lock.key(home, with.whom())?;
    let url = with.address().url();
    super::runtime()?.block_on(async {
        let how = with.how();
        let joined = match with {
            With::Invitation(invitation) => home.join(&invitation, lock, key).await,
            With::Exchange(relay, sign_in) => {
                home.join_by_exchange(&relay, sign_in, lock, key).await
            }
        };
        let (client, identity) = joined.map_err(|error| not_joined(error, &url, how))?;
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
        client.close().await;
        result
    })
}

/// What somebody joins with.
enum With {
    Invitation(Box<Invitation>),
    Exchange(Box<Introduction>, SignIn),
}

impl With {
    fn address(&self) -> &Address {
        match self {
            Self::Invitation(invitation) => &invitation.relay.address,
            Self::Exchange(relay, _) => &relay.address,
        }
    }

    /// As whom the keyring knows it; the provider's token says only later who it is.
    fn whom(&self) -> &str {
        match self {
            Self::Invitation(invitation) => invitation.user.as_str(),
            Self::Exchange(..) => "signed in",
        }
    }

    fn how(&self) -> JoinedWith {
        match self {
            Self::Invitation(invitation) => JoinedWith::Invitation {
                expired: invitation.expires <= when::now(),
            },
            Self::Exchange(..) => JoinedWith::ProvidersToken,
        }
    }
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
            "no invitation was given; paste the line that begins with \"sealwire-invite:\" or \"sealwire-relay:\"",
        ));
    }
    Ok(line)
}
