//! `sealwire devices`: the devices that are attested for a user.

use clap::Args;
use sealwire_protocol::base64url;
use sealwire_protocol::name::User;
use serde_json::json;

use crate::device::{Connect, Device, Unlock};
use crate::exit::Failure;
use crate::home::Home;
use crate::output::Output;
use crate::when::Moment;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:\n  \
    # your own\n  \
    sealwire devices\n  \
    sealwire devices bob\n  \
    # the key for `sealwire jwe seal`\n  \
    sealwire devices bob --json | jq .jwe_key")]
pub(crate) struct Devices {
    /// Whose devices [default: your own]
    user: Option<User>,

    #[command(flatten)]
    unlock: Unlock,
}

pub(crate) fn run(devices: &Devices, home: &Home, output: Output) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let device = Device::connect(home, &devices.unlock, Connect::AT_ONCE).await?;
        let result = show(&device, devices.user.as_ref(), output).await;
        device.close(result).await
    })
}

async fn show(device: &Device, user: Option<&User>, output: Output) -> Result<(), Failure> {
    let user = user.unwrap_or(&device.identity.user);
    // What is fetched may be a change: whether the user is verified is asked afterwards.
    let devices = device.client.devices(user.as_str()).await?;
    let verified = device.client.is_verified(user.as_str()).await?;
    for found in devices {
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
                "since": found.first_seen,
                "this": found.is_this,
                "verified": verified,
                "jwe_key": found.jwe_key.map(|key| json!({"kty": "OKP", "crv": "X25519", "x": base64url::encode(&key)})),
            }),
            format_args!("{}{since}{note}", found.thumbprint),
        )?;
    }
    Ok(())
}
