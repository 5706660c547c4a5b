//! The address of a relay: `wss://host[:port]/v1#<thumbprint>` (docs/protocol.md §3.1).
//!
//! It says where the relay is and which key it has. The fragment never leaves the device: [`Address::url`] is without it.

use alloc::string::String;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use crate::key::Thumbprint;

/// Bytes of a host name, at most (RFC 1035 §2.3.4).
const MAX_HOST_BYTES: usize = 253;
/// Bytes of one label of a host name, at most (RFC 1035 §2.3.4).
const MAX_LABEL_BYTES: usize = 63;
const PATH: &str = "/v1";

/// Where a relay is and which key it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    secure: bool,
    host: Host,
    port: u16,
    relay: Thumbprint,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    /// In lower case.
    Name(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl Address {
    /// Whether the connection uses TLS: the scheme is `wss`. Only loopback addresses go without.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host as a resolver or TLS takes it: a name in lower case, or an IP address without brackets.
    #[must_use]
    pub fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::V4(address) => alloc::format!("{address}"),
            Host::V6(address) => alloc::format!("{address}"),
        }
    }

    /// The IP address, if the host is one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Name(_) => None,
            Host::V4(address) => Some(IpAddr::V4(address)),
            Host::V6(address) => Some(IpAddr::V6(address)),
        }
    }

    /// The port: 443, or 80 without TLS, if the address names none.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The thumbprint of the relay's key.
    #[must_use]
    pub const fn relay(&self) -> Thumbprint {
        self.relay
    }

    /// The URL for the upgrade request, without the fragment.
    #[must_use]
    pub fn url(&self) -> String {
        alloc::format!("{}", Url(self))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", Url(self), self.relay)
    }
}

struct Url<'a>(&'a Address);

impl fmt::Display for Url<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address {
            secure, host, port, ..
        } = self.0;
        f.write_str(if *secure { "wss://" } else { "ws://" })?;
        match host {
            Host::Name(name) => f.write_str(name)?,
            Host::V4(address) => write!(f, "{address}")?,
            Host::V6(address) => write!(f, "[{address}]")?,
        }
        if *port != default_port(*secure) {
            write!(f, ":{port}")?;
        }
        f.write_str(PATH)
    }
}

const fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (secure, rest) = match (text.strip_prefix("wss://"), text.strip_prefix("ws://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(AddressError::Scheme),
        };
        let (location, fragment) = rest.split_once('#').ok_or(AddressError::NoThumbprint)?;
        let relay = fragment.parse().map_err(|_| AddressError::Thumbprint)?;
        if location.contains('?') {
            return Err(AddressError::Query);
        }
        let authority = location.strip_suffix(PATH).ok_or(AddressError::Path)?;
        if authority.contains('@') {
            return Err(AddressError::UserInfo);
        }
        if authority.contains('/') {
            return Err(AddressError::Path);
        }
        let (host, port) = split_port(authority)?;
        let host = parse_host(host)?;
        let port = port.map_or(Ok(default_port(secure)), parse_port)?;
        if !secure && !host.is_loopback() {
            return Err(AddressError::NotSecure);
        }
        Ok(Self {
            secure,
            host,
            port,
            relay,
        })
    }
}

impl Host {
    fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost",
            Self::V4(address) => address.is_loopback(),
            Self::V6(address) => address.is_loopback(),
        }
    }
}

/// The host, with brackets around an IPv6 address, and the text after the colon.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), AddressError> {
    let end_of_host = authority
        .rfind(']')
        .map_or(0, |bracket| bracket.saturating_add(1));
    let (bracketed, tail) = authority
        .split_at_checked(end_of_host)
        .ok_or(AddressError::Host)?;
    match (bracketed.is_empty(), tail.split_once(':')) {
        (true, Some((host, port))) => Ok((host, Some(port))),
        (true, None) => Ok((tail, None)),
        (false, Some(("", port))) => Ok((bracketed, Some(port))),
        (false, None) if tail.is_empty() => Ok((bracketed, None)),
        (false, _) => Err(AddressError::Host),
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    if text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressError::Port);
    }
    text.parse().map_err(|_| AddressError::Port)
}

fn parse_host(text: &str) -> Result<Host, AddressError> {
    if let Some(inside) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        return inside.parse().map(Host::V6).map_err(|_| AddressError::Host);
    }
    let last_label = text.rsplit('.').next().unwrap_or(text);
    // A name whose last label is a number would be taken for an IPv4 address by others, in one of its odd forms.
    if last_label.starts_with(|first: char| first.is_ascii_digit())
        && !last_label.bytes().any(|b| b == b'-')
    {
        return text.parse().map(Host::V4).map_err(|_| AddressError::Host);
    }
    if text.len() > MAX_HOST_BYTES || !text.split('.').all(is_label) {
        return Err(AddressError::Host);
    }
    Ok(Host::Name(text.to_ascii_lowercase()))
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// What is wrong with an address, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Neither `wss://` nor `ws://`.
    #[error("the address has to begin with wss://, as in wss://relay.example/v1#<thumbprint>")]
    Scheme,
    /// `ws://` to another machine.
    #[error("ws:// is for this machine only (localhost, 127.0.0.1, [::1]); write wss://")]
    NotSecure,
    /// No `#`.
    #[error(
        "the address lacks the relay's thumbprint; ask its operator for the whole address, with what follows the #"
    )]
    NoThumbprint,
    /// What follows the `#` is no thumbprint.
    #[error(
        "what follows the # is not a thumbprint, which has 43 characters; copy the address again in full"
    )]
    Thumbprint,
    /// The path is not `/v1`.
    #[error("the path of the address has to be /v1, as in wss://relay.example/v1#<thumbprint>")]
    Path,
    /// A query.
    #[error(
        "the address may not have a query; remove the ? and what follows it, and never put a token or a code there"
    )]
    Query,
    /// A user or a password.
    #[error("the address may not have a user or a password; remove what stands before the @")]
    UserInfo,
    /// Not a host name or an IP address.
    #[error("the host has to be a name in ASCII, an IPv4 address, or an IPv6 address in brackets")]
    Host,
    /// Not a port.
    #[error("the port has to be a number from 1 to 65535")]
    Port,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString as _;

    const THUMBPRINT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

    fn parse(location: &str) -> Result<Address, AddressError> {
        format!("{location}#{THUMBPRINT}").parse()
    }

    #[test]
    fn a_canonical_address_prints_as_it_was() {
        for location in [
            "wss://relay.example/v1",
            "wss://relay.example:8443/v1",
            "wss://192.0.2.1/v1",
            "wss://[2001:db8::1]:8443/v1",
            "ws://localhost:8080/v1",
            "ws://127.0.0.53/v1",
            "ws://[::1]/v1",
        ] {
            let address = parse(location).unwrap();
            assert_eq!(address.to_string(), format!("{location}#{THUMBPRINT}"));
            assert_eq!(address.url(), location, "the fragment stays on the device");
        }
    }

    #[test]
    fn host_is_lowered_and_the_default_port_left_out() {
        let address = parse("wss://Relay.Example:443/v1").unwrap();
        assert_eq!(address.url(), "wss://relay.example/v1");
        assert_eq!(
            (address.host().as_str(), address.port(), address.ip()),
            ("relay.example", 443, None)
        );
        assert_eq!(parse("wss://[::1]/v1").unwrap().host(), "::1");
    }

    /// docs/protocol.md §3.1
    #[test]
    fn address_refuses_everything_else() {
        for (location, error) in [
            ("relay.example/v1", AddressError::Scheme),
            ("https://relay.example/v1", AddressError::Scheme),
            ("WSS://relay.example/v1", AddressError::Scheme),
            (" wss://relay.example/v1", AddressError::Scheme),
            ("ws://relay.example/v1", AddressError::NotSecure),
            ("ws://192.0.2.1/v1", AddressError::NotSecure),
            ("ws://localhost.example/v1", AddressError::NotSecure),
            ("ws://[::2]/v1", AddressError::NotSecure),
            ("wss://relay.example", AddressError::Path),
            ("wss://relay.example/", AddressError::Path),
            ("wss://relay.example/v2", AddressError::Path),
            ("wss://relay.example/v1/", AddressError::Path),
            ("wss://relay.example/x/v1", AddressError::Path),
            ("wss://relay.example/v1?code=1", AddressError::Query),
            ("wss://relay.example?/v1", AddressError::Query),
            ("wss://user@relay.example/v1", AddressError::UserInfo),
            (
                "wss://user:password@relay.example/v1",
                AddressError::UserInfo,
            ),
            ("wss:///v1", AddressError::Host),
            ("wss://:443/v1", AddressError::Host),
            ("wss://relay..example/v1", AddressError::Host),
            ("wss://relay.example./v1", AddressError::Host),
            ("wss://-relay.example/v1", AddressError::Host),
            ("wss://relay-.example/v1", AddressError::Host),
            ("wss://relay_.example/v1", AddressError::Host),
            ("wss://relay example/v1", AddressError::Host),
            ("wss://bücher.example/v1", AddressError::Host),
            ("wss://%72elay.example/v1", AddressError::Host),
            ("wss://127.1/v1", AddressError::Host),
            ("wss://0x7f.0.0.1/v1", AddressError::Host),
            ("wss://relay.0x7f/v1", AddressError::Host),
            ("wss://256.0.0.1/v1", AddressError::Host),
            ("wss://::1/v1", AddressError::Host),
            ("wss://[::1/v1", AddressError::Host),
            ("wss://[::1]x/v1", AddressError::Host),
            ("wss://[::1%25lo]/v1", AddressError::Host),
            ("wss://x[::1]/v1", AddressError::Host),
            ("wss://relay.example:/v1", AddressError::Port),
            ("wss://relay.example:0/v1", AddressError::Port),
            ("wss://relay.example:0443/v1", AddressError::Port),
            ("wss://relay.example:+443/v1", AddressError::Port),
            ("wss://relay.example:65536/v1", AddressError::Port),
            ("wss://relay.example:1:2/v1", AddressError::Port),
        ] {
            assert_eq!(parse(location), Err(error), "{location}");
        }
        assert_eq!(
            "wss://relay.example/v1".parse::<Address>(),
            Err(AddressError::NoThumbprint)
        );
        assert_eq!(
            "wss://relay.example/v1#".parse::<Address>(),
            Err(AddressError::Thumbprint)
        );
        assert_eq!(
            parse("wss://relay.example/v1#"),
            Err(AddressError::Thumbprint)
        );
        let label = "a".repeat(64);
        assert_eq!(
            parse(&format!("wss://{label}.example/v1")),
            Err(AddressError::Host)
        );
        let long = ["a"; 128].join(".");
        assert_eq!(parse(&format!("wss://{long}/v1")), Err(AddressError::Host));
    }
}
