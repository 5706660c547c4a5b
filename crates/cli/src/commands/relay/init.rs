//! `sealwire relay init`: makes a relay's data directory.

use std::path::PathBuf;

use clap::Args;
use sealwire_server::data_dir::{DataDir, InitOptions};
use serde_json::json;

use crate::exit::Failure;
use crate::output::Output;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:\n  \
    # to try it on this machine\n  \
    sealwire relay init ./relay\n  \
    # behind a name\n  \
    sealwire relay init /var/lib/sealwire/relay --address wss://relay.example/v1")]
pub(crate) struct Init {
    /// The directory to make; one that holds a relay already is left as it is
    dir: PathBuf,

    /// Where devices will reach the relay: wss://HOST:PORT/v1 [default: where it listens]
    #[arg(long, value_name = "URL")]
    address: Option<String>,

    /// Another name or IP address for the certificate; localhost is always in it
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
}

pub(super) fn run(init: &Init, output: Output) -> Result<(), Failure> {
    let options = InitOptions {
        address: init.address.clone(),
        hosts: init.hosts.clone(),
    };
    let data = DataDir::init(&init.dir, &options)?;
    let thumbprint = data.relay_key().thumbprint();
    output.result(
        &json!({"data": init.dir, "thumbprint": thumbprint.to_string(), "address": init.address}),
        format_args!("relay {thumbprint}"),
    )?;
    output.hint(format_args!(
        "made in {dir}; start it with `sealwire relay run --data {dir}`",
        dir = init.dir.display()
    ));
    Ok(())
}
