//! `sealwire devices`: the devices that are attested for a user, and what may be done with one's own.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::{Args, Subcommand};
use sealwire_client::{Error, Thumbprint};
use sealwire_protocol::base64url;
use sealwire_protocol::name::User;
use serde_json::json;

use crate::device::{Connect, Device, Unlock, device_name};
use crate::exit::Failure;
use crate::home::Home;
use crate::output::{Output, Printable};
use crate::when::Moment;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Only your own devices have names, and only you see them.\n\
\n\
Examples:\n  \
    # your own\n  \
    sealwire devices\n  \
    sealwire devices bob\n  \
    sealwire devices name 'the old laptop'\n  \
    sealwire devices remove 51S3iIWCfYor0Ny6YVMZ2ZcBq0v3mXbqZ2VHh8nWJ8w\n  \
    # the key for `sealwire jwe seal`\n  \
    sealwire devices bob --json | jq .jwe_key"
)]
pub(crate) struct Devices {
    #[command(subcommand)]
    change: Option<Change>,

    /// Whose devices [default: your own]
    user: Option<User>,

    #[command(flatten)]
    unlock: Unlock,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Name this device, for you and your other devices
    Name(Name),
    /// Remove a device of yours, for good
    Remove(Remove),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealwire devices name 'the old laptop'")]
struct Name {
    /// What to call it: at most 64 bytes
    #[arg(value_parser = device_name)]
    name: String,

    #[command(flatten)]
    unlock: Unlock,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Its link is closed, what waits for it at the relay is erased, and people who write to you seal nothing for it any more. What it has on its disk stays \
there: change what must not be known to whoever has it. It cannot come back; invite yourself again for a new one.\n\
\n\
Examples:\n  \
    # shows the thumbprints\n  \
    sealwire devices\n  \
    sealwire devices remove 51S3iIWCfYor0Ny6YVMZ2ZcBq0v3mXbqZ2VHh8nWJ8w")]
struct Remove {
    /// Which one, as `sealwire devices` shows it
    #[arg(allow_hyphen_values = true)]
    thumbprint: Thumbprint,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    unlock: Unlock,
}

pub(crate) fn run(devices: &Devices, home: &Home, output: Output) -> Result<(), Failure> {
    let unlock = match &devices.change {
        None => &devices.unlock,
        Some(Change::Name(name)) => &name.unlock,
        Some(Change::Remove(remove)) => &remove.unlock,
    };
    super::runtime()?.block_on(async {
        let device = Device::connect(home, unlock, Connect::AT_ONCE).await?;
        let result = match &devices.change {
            None => show(&device, devices.user.as_ref(), output).await,
            Some(Change::Name(Name { name, .. })) => name_this(&device, home, name, output).await,
            Some(Change::Remove(one)) => remove(&device, one, output).await,
        };
        device.close(result).await
    })
}

async fn show(device: &Device, user: Option<&User>, output: Output) -> Result<(), Failure> {
    let user = user.unwrap_or(&device.identity.user);
    // What is fetched may be a change: whether the user is verified is asked afterwards.
    let devices = device.client.devices(user.as_str()).await?;
    let verified = device.client.is_verified(user.as_str()).await?;
    for found in devices {
        let name = found.name.as_deref();
        let called = name.map_or_else(String::new, |name| format!("  {}", Printable(name)));
        let since = found
            .first_seen
            .map_or_else(String::new, |seen| format!("  since {}", Moment(seen)));
        let note = match (found.is_this, verified) {
            (true, _) => "  this device",
            (false, true) => "  verified",
            (false, false) => "",
        };
        output.result(
            &json!({
                "user": user.as_str(),
                "device": found.thumbprint.to_string(),
                "name": name,
                "since": found.first_seen,
                "this": found.is_this,
                "verified": verified,
                "jwe_key": found.jwe_key.map(|key| json!({"kty": "OKP", "crv": "X25519", "x": base64url::encode(&key)})),
            }),
            format_args!("{}{called}{since}{note}", found.thumbprint),
        )?;
    }
    Ok(())
}

async fn name_this(
    device: &Device,
    home: &Home,
    name: &str,
    output: Output,
) -> Result<(), Failure> {
    device.client.set_device_name(name).await?;
    home.remember_name(&device.identity, name)?;
    let thumbprint = device.identity.device.to_string();
    output.result(
        &json!({"device": thumbprint, "name": name}),
        format_args!("{thumbprint}  {}", Printable(name)),
    )
}

async fn remove(device: &Device, remove: &Remove, output: Output) -> Result<(), Failure> {
    let own = device.client.devices(device.identity.user.as_str()).await?;
    let found = own
        .into_iter()
        .find(|found| found.thumbprint == remove.thumbprint);
    let Some(found) = found else {
        return Err(Failure::failed(
            "this is no device of yours; `sealwire devices` shows which are",
        ));
    };
    if !remove.yes && !agreed(found.is_this, found.name.as_deref())? {
        return Err(Failure::failed("it was not removed"));
    }
    match device.client.remove_device(found.thumbprint).await {
        Ok(()) => {}
        // It was this one: the relay has hung up.
        Err(Error::Closed(_) | Error::NotAuthorised(_)) if found.is_this => {}
        Err(error) => return Err(error.into()),
    }
    let thumbprint = found.thumbprint.to_string();
    output.result(
        &json!({"device": thumbprint, "removed": true}),
        format_args!("{thumbprint}  removed"),
    )?;
    if found.is_this {
        output.hint("this home has no device any more that the relay would let in");
    }
    Ok(())
}

fn agreed(this: bool, name: Option<&str>) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "there is no terminal to ask on; remove it without being asked with --yes",
        ));
    }
    let failed =
        |error: io::Error| Failure::failed(format_args!("the answer cannot be read: {error}"));
    let which = match (this, name) {
        (true, _) => "this device, the one you are on,".to_owned(),
        (false, Some(name)) => format!("\"{}\"", Printable(name)),
        (false, None) => "this device".to_owned(),
    };
    let mut stderr = io::stderr();
    write!(stderr, "Remove {which} for good? [y/N] ")
        .and_then(|()| stderr.flush())
        .map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
