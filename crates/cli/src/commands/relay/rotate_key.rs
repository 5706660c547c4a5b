//! `sealwire relay rotate-key`: a new key for the relay, with a time for devices to learn of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use sealwire_server::data_dir::DataDir;
use serde_json::json;

use crate::exit::Failure;
use crate::output::Output;
use crate::when;

#[derive(Debug, Args)]
#[command(after_help = "\
The old key signs that the new one follows it, and is erased. Devices that connect within the overlap accept the new key from then on, and no other; a device \
that is away for all of it, or for three rotations, needs the relay's new address. The relay uses the new key once it is started again.\n\
\n\
This is for a key that nobody else has. Whoever has stolen it can name a successor of their own: then set up the relay anew, and tell devices its new address.\n\
\n\
Example:\n  \
    sealwire relay rotate-key --data /var/lib/sealwire/relay && systemctl restart sealwire-relay")]
pub(crate) struct RotateKey {
    /// The relay's data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// For how long devices that know the old key accept the new one
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = when::parse_duration)]
    overlap: Duration,
}

pub(super) fn run(rotate: &RotateKey, output: Output) -> Result<(), Failure> {
    let data = DataDir::open(&rotate.data)?;
    let (old, now) = (data.relay_key().thumbprint(), when::now());
    let overlap = rotate.overlap.as_secs();
    let new = data.rotate_relay_key(overlap, now)?;
    let until = now.saturating_add(overlap);
    output.result(
        &json!({
            "data": rotate.data,
            "thumbprint": new.to_string(),
            "previous": old.to_string(),
            "overlap_until": until,
        }),
        format_args!(
            "relay {new}, which follows {old} until {}",
            when::Moment(until)
        ),
    )?;
    output.hint(format_args!(
        "start the relay again now: until then it has the old key, and invitations made meanwhile name the new one. Then make a backup, and remove older ones: devices refuse a relay that is put back with the old key"
    ));
    Ok(())
}
