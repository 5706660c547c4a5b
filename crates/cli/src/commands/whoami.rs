//! `sealwire whoami`: who this device is. It asks nobody, so it works without the relay and beside another command.

use clap::Args;
use serde_json::json;

use crate::exit::Failure;
use crate::home::Home;
use crate::output::{Output, Printable};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealwire whoami\n  sealwire whoami --json | jq -r .device")]
pub(crate) struct Whoami {}

pub(crate) fn run(home: &Home, output: Output) -> Result<(), Failure> {
    let identity = home.identity()?;
    let user = identity.user.as_str();
    let name = identity.name.as_deref();
    let called = name.map_or_else(String::new, |name| format!("\nname    {}", Printable(name)));
    output.result(
        &json!({
            "user": user,
            "device": identity.device.to_string(),
            "name": name,
            "address": identity.address.to_string(),
            "issuer_key": identity.issuer_key.thumbprint().to_string(),
            "lock": identity.lock,
            "home": home.path(),
        }),
        format_args!(
            "user    {}\ndevice  {}{called}\nrelay   {}\nhome    {}",
            Printable(user),
            identity.device,
            identity.address,
            home.path().display()
        ),
    )
}
