//! `sealwire verify`: two people make sure that nobody stands between their devices.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Args;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use sealwire_client::SafetyNumber;
use sealwire_protocol::name::User;
use serde_json::json;

use crate::device::{Connect, Device, Unlock};
use crate::exit::{Class, Failure};
use crate::home::Home;
use crate::output::{Output, Printable};

/// Digits of a safety number (docs/protocol.md §11).
const DIGITS: usize = 60;

#[derive(Debug, Args)]
#[command(after_help = "\
Both run this and compare the numbers, by voice or side by side: they are equal if both devices see the same keys. A user who is verified stays so until their devices change; then nothing is sent to them until they are verified again.\n\
\n\
Examples:\n  \
    # shows the number, and asks whether bob sees the same\n  \
    sealwire verify bob\n  \
    # compares with the code on bob's screen; exit code 5 if it differs\n  \
    sealwire verify bob --qr \"$(zbarcam -1 --raw)\"\n  \
    # without a terminal: the number that you have compared, all 60 digits of it; exit code 5 if it is another one by now\n  \
    sealwire verify bob --confirm \"12345 67890 ...\"")]
pub(crate) struct Verify {
    /// Whom
    user: User,

    /// Mark the user as verified without asking, if this is the number: the one that was compared already
    #[arg(long, value_name = "NUMBER", value_parser = digits)]
    confirm: Option<String>,

    /// The text of the code that the other device shows: compare it, and mark the user as verified if it is the same
    #[arg(long, value_name = "TEXT", conflicts_with = "confirm")]
    qr: Option<String>,

    #[command(flatten)]
    unlock: Unlock,
}

pub(crate) fn run(verify: &Verify, home: &Home, output: Output) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let device = Device::connect(home, &verify.unlock, Connect::AT_ONCE).await?;
        let result = compare(verify, &device, output).await;
        device.close(result).await
    })
}

async fn compare(verify: &Verify, device: &Device, output: Output) -> Result<(), Failure> {
    let user = verify.user.as_str();
    if verify.user == device.identity.user {
        return Err(Failure::usage(
            "this is yourself; name somebody else, who then verifies you",
        ));
    }
    let number = device.client.safety_number(user).await?;
    if let Some(scanned) = &verify.qr {
        number
            .verify_qr(scanned.trim())
            .map_err(|error| Failure::new(Class::Peer, error))?;
        device.client.mark_verified(user, &number).await?;
        return report(user, &number, true, output);
    }
    if let Some(compared) = &verify.confirm {
        if digits(&number.to_string()).as_ref() != Ok(compared) {
            return Err(Failure::new(
                Class::Peer,
                format_args!(
                    "this is not the safety number with {}: it was mistyped, has changed since, or somebody stands between; compare again",
                    Printable(user)
                ),
            ));
        }
        device.client.mark_verified(user, &number).await?;
        return report(user, &number, true, output);
    }
    let verified = device.client.is_verified(user).await?;
    report(user, &number, verified, output)?;
    if verified || output.is_json() || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(());
    }
    if !agreed(user)? {
        return Err(Failure::new(
            Class::Peer,
            format_args!(
                "{} is not verified; if the numbers differ, do not send them anything secret",
                Printable(user)
            ),
        ));
    }
    // Fails if the number is another one by now.
    device.client.mark_verified(user, &number).await?;
    output.hint(format_args!("{} is verified", Printable(user)));
    Ok(())
}

fn report(
    user: &str,
    number: &SafetyNumber,
    verified: bool,
    output: Output,
) -> Result<(), Failure> {
    let state = if verified { "verified" } else { "not verified" };
    output.result(
        &json!({"user": user, "number": number.to_string(), "qr": number.qr_text(), "verified": verified}),
        format_args!("{}{}\n\n{}, {state}", picture(number)?, rows(number), Printable(user)),
    )
}

/// The digits of a safety number, however they are grouped.
fn digits(text: &str) -> Result<String, &'static str> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(digits)
    } else {
        Err("a safety number has 60 digits; write all that were compared, in one argument")
    }
}

/// The twelve groups of digits, four in a row.
fn rows(number: &SafetyNumber) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.split(' ').collect();
    groups
        .chunks(4)
        .map(|row| format!("    {}", row.join(" ")))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The code to scan, dark on light whatever the terminal's colours are.
fn picture(number: &SafetyNumber) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(number.qr_text(), EcLevel::L)
        .map_err(Failure::failed)?;
    // A terminal is usually light on dark: what is drawn is the light part.
    let image = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Ok(format!("{image}\n\n"))
}

fn agreed(user: &str) -> Result<bool, Failure> {
    let failed =
        |error: io::Error| Failure::failed(format_args!("the answer cannot be read: {error}"));
    let mut stderr = io::stderr();
    write!(
        stderr,
        "Does {} see the same number? [y/N] ",
        Printable(user)
    )
    .and_then(|()| stderr.flush())
    .map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
