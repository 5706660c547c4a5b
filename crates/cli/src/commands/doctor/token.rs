//! What is wrong with an access token, as far as it says so itself. Its signature is the relay's to check.

use sealwire_client::Thumbprint;
use sealwire_protocol::limits::CLOCK_TOLERANCE_SECONDS;
use sealwire_protocol::token::UnverifiedAccessToken;

use super::Finding;
use crate::output::Printable;
use crate::when::Moment;

/// Looks at a token for `device` and a relay with `audience`, as far as they are known; gives what it is.
pub(super) fn look(
    token: &[u8],
    device: Option<Thumbprint>,
    audience: Option<&str>,
    now: u64,
) -> Result<String, Finding> {
    let token = UnverifiedAccessToken::parse(token).map_err(|error| {
        finding(
            "token_malformed",
            format!("no access token that a relay takes: {error}"),
            "have the issuer make it as docs/protocol.md §2.2 says: type at+jwt, with cnf, aud, iat and exp; a token that the relay exchanges is looked at with its device's directory",
        )
    })?;
    let claims = token.claims();
    if let Some(device) = device
        && device != claims.device
    {
        return Err(finding(
            "token_of_other_device",
            format!(
                "its cnf names the device {}, and this is {device}",
                claims.device
            ),
            "ask the issuer for a token that names this device's key",
        ));
    }
    if let Some(audience) = audience
        && !claims.audience.iter().any(|one| one == audience)
    {
        let audiences = claims.audience.join(", ");
        return Err(finding(
            "token_audience",
            format!("it is for {audiences:?}, not for {audience:?}"),
            "ask the issuer for a token with the relay's audience, or correct the audience that the relay is configured with",
        ));
    }
    if now >= claims.expires.saturating_add(CLOCK_TOLERANCE_SECONDS) {
        return Err(finding(
            "token_expired",
            format!("it has expired at {}", Moment(claims.expires)),
            "get a new one; if this one is new, set this machine's clock",
        ));
    }
    let latest = now.saturating_add(CLOCK_TOLERANCE_SECONDS);
    let begins = claims.not_before.unwrap_or_default().max(claims.issued);
    if begins > latest {
        return Err(finding(
            "token_not_yet_valid",
            format!("it is valid only from {} on", Moment(begins)),
            "set this machine's clock, or the issuer's",
        ));
    }
    Ok(format!(
        "a token for {} and the device {}, good until {}",
        Printable(claims.user.as_str()),
        claims.device,
        Moment(claims.expires)
    ))
}

fn finding(code: &'static str, found: String, advice: &str) -> Finding {
    Finding {
        class: None,
        code,
        found,
        advice: advice.to_owned(),
    }
}
