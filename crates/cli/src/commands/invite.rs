//! `sealwire invite`: one line with which one device joins.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use sealwire_protocol::name::User;
use sealwire_server::data_dir::DataDir;
use serde_json::json;

use crate::exit::Failure;
use crate::output::{Output, Printable};
use crate::when::{self, Moment};

#[derive(Debug, Args)]
#[command(after_help = "\
The line is a secret until it is used: whoever joins with it first is that user. It works once, for one device; invite the same user again for another.\n\
\n\
Examples:\n  \
    sealwire invite alice --data ./relay\n  \
    sealwire invite bob --data ./relay --lifetime 7d | ssh bob.example sealwire join\n  \
    # for all who sign in with an identity provider whose tokens the relay exchanges\n  \
    sealwire invite --exchange --data ./relay")]
pub(crate) struct Invite {
    /// Whom to invite: the name that others will write to
    #[arg(required_unless_present = "exchange")]
    user: Option<User>,

    /// Invite nobody by name: print the line with which everybody joins who has a token of an identity provider that the relay exchanges. It is no
    /// secret, but has to come from you
    #[arg(long, conflicts_with_all = ["user", "lifetime"])]
    exchange: bool,

    /// The relay's data directory; the relay may be running
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// How long the invitation is good: 90s, 15m, 24h, 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = when::parse_duration)]
    lifetime: Duration,

    /// Where devices reach the relay: wss://HOST:PORT/v1 [default: what the relay says when it runs]
    #[arg(long, value_name = "URL")]
    address: Option<String>,
}

pub(crate) fn run(invite: &Invite, output: Output) -> Result<(), Failure> {
    let data = DataDir::open(&invite.data)?;
    let Some(user) = &invite.user else {
        return introduce(&data, invite, output);
    };
    let lifetime = invite.lifetime.as_secs();
    let invitation = data.invite(user, invite.address.as_deref(), lifetime, when::now())?;
    let line = invitation.to_line();
    output.result(
        &json!({
            "invite": line.as_str(),
            "user": user.as_str(),
            "address": invitation.relay.address.to_string(),
            "expires": invitation.expires,
        }),
        line.as_str(),
    )?;
    output.hint(format_args!(
        "hand this line to {} in private; it works once, until {}, with `sealwire join`",
        Printable(user.as_str()),
        Moment(invitation.expires)
    ));
    Ok(())
}

fn introduce(data: &DataDir, invite: &Invite, output: Output) -> Result<(), Failure> {
    let introduction = data.introduction(invite.address.as_deref())?;
    let line = introduction.to_line();
    output.result(
        &json!({"relay": line, "address": introduction.address.to_string()}),
        &line,
    )?;
    output.hint(
        "publish this line where people find it is yours; they join with `sealwire join LINE --exchange-token-file FILE`",
    );
    Ok(())
}
