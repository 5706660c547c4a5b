//! `sealwire doctor`: finds what is wrong with a connection, from the address to the token, and says what to do.
//!
//! ```text
//!  address ── dns ── tcp ── tls ── http ── relay ── token ── clock
//!  what fails is said with what to do; what needs it is skipped
//! ```
//! What is looked at, and how, is in [`sealwire_client::connection::probe`]; here is the order, and what it means to whoever reads it.

mod token;

use std::path::PathBuf;

use clap::Args;
use sealwire_client::connection::probe::{
    CertificateFault, Entered, Fault, Pass, Probe, ProbeDevice, Secured, Upgraded,
};
use sealwire_client::{StoreError, Tls};
use sealwire_protocol::close::CloseCode;
use sealwire_protocol::introduction::{self, Introduction};
use serde_json::json;
use zeroize::Zeroizing;

use crate::device::Unlock;
use crate::exit::{Class, Failure};
use crate::files;
use crate::home::{Home, Identity};
use crate::output::{Output, Printable};
use crate::when::{self, Moment};

/// Seconds by which clocks may differ without anybody being told to set one; beyond 60, no link is made (docs/protocol.md §12).
const TOLERABLE_SECONDS: u64 = 30;
/// Bytes of a token, at most (docs/protocol.md §12).
const MAX_TOKEN_BYTES: usize = 8_192;

#[derive(Debug, Args)]
#[command(after_help = "\
Each step is a line: ok, failed with what to do, or skipped. The exit code is that of the first that failed: 2 the address, 4 what is on the way to the relay, 3 the token, \
1 the rest, such as a device that is in use. A device connects once, as with any command, and says nothing: no message is taken, sent or confirmed. It must not be in use meanwhile.\n\
\n\
Examples:\n  \
    # this device, up to whether the relay lets it in\n  \
    sealwire doctor\n  \
    sealwire doctor ./alice\n  \
    # without a device: what is on the way to a relay\n  \
    sealwire doctor wss://relay.example/v1#vT7dUh0sDLZDZoVqh_qKFOPjy0rfcTwfBnkGwUQ4cXE\n  \
    # the same where its certificate is self-signed: the line of `sealwire invite --exchange` names that\n  \
    sealwire doctor sealwire-relay:…\n  \
    # a token of your identity provider\n  \
    sealwire doctor wss://relay.example/v1#vT7dUh0sDLZDZoVqh_qKFOPjy0rfcTwfBnkGwUQ4cXE --token token.jwt --audience https://relay.example")]
pub(crate) struct Doctor {
    /// A relay's address, its line that begins with "sealwire-relay:", or a device's directory [default: this device]
    #[arg(value_name = "ADDRESS|LINE|DIR")]
    target: Option<String>,

    /// Look at this access token, and enter with it if there is a device
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,

    /// What `aud` of the token has to contain: the relay's audience
    #[arg(long, value_name = "AUD", requires = "token")]
    audience: Option<String>,

    #[command(flatten)]
    unlock: Unlock,
}

/// What is looked at, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Address,
    Dns,
    Tcp,
    Tls,
    Http,
    Relay,
    Token,
    Clock,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Address,
        Self::Dns,
        Self::Tcp,
        Self::Tls,
        Self::Http,
        Self::Relay,
        Self::Token,
        Self::Clock,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Relay => "relay",
            Self::Token => "token",
            Self::Clock => "clock",
        }
    }

    const fn class(self) -> Class {
        match self {
            Self::Address => Class::Usage,
            Self::Dns | Self::Tcp | Self::Tls | Self::Http | Self::Relay => Class::Unreachable,
            Self::Token => Class::NotAuthorised,
            Self::Clock => Class::Failed,
        }
    }
}

/// What is wrong in a step, and what to do.
#[derive(Debug)]
struct Finding {
    /// That of its step, if it has none of its own.
    class: Option<Class>,
    code: &'static str,
    found: String,
    advice: String,
}

impl From<Fault> for Finding {
    fn from(fault: Fault) -> Self {
        Self {
            class: Some(class(&fault)),
            code: fault.code(),
            found: fault.to_string(),
            advice: fault.advice().to_owned(),
        }
    }
}

/// Of what kind a fault is, in whichever step it is met.
fn class(fault: &Fault) -> Class {
    let closed = |codes: &[CloseCode]| matches!(fault, Fault::Closed(code) if codes.iter().any(|one| one.code() == *code));
    if closed(&[
        CloseCode::NotAuthorised,
        CloseCode::TokenExpired,
        CloseCode::Revoked,
    ]) {
        Class::NotAuthorised
    } else if matches!(fault, Fault::Clock { .. }) || closed(&[CloseCode::Replaced]) {
        Class::Failed
    } else {
        Class::Unreachable
    }
}

/// What has been said so far.
struct Report {
    output: Output,
    said: Vec<Step>,
    first: Option<Failure>,
    /// What is wrong with the token by what it says itself, until its turn comes.
    token: Option<Finding>,
}

impl Report {
    fn ok(&mut self, step: Step, found: impl std::fmt::Display) -> Result<(), Failure> {
        self.line(step, "ok", None, &found.to_string(), None)
    }

    fn skipped(&mut self, step: Step, why: &str) -> Result<(), Failure> {
        self.line(step, "skipped", None, why, None)
    }

    fn failed(&mut self, step: Step, finding: &Finding) -> Result<(), Failure> {
        let Finding {
            class,
            code,
            found,
            advice,
        } = finding;
        if self.first.is_none() {
            let message = format!("{}: {found}; {advice}", step.name());
            self.first = Some(Failure::new(class.unwrap_or(step.class()), message).with_code(code));
        }
        self.line(step, "failed", Some(code), found, Some(advice))
    }

    fn line(
        &mut self,
        step: Step,
        result: &str,
        code: Option<&str>,
        found: &str,
        advice: Option<&str>,
    ) -> Result<(), Failure> {
        self.said.push(step);
        let advised = advice.map_or_else(String::new, |advice| format!("; {advice}"));
        self.output.result(
            &json!({
                "step": step.name(),
                "result": result,
                "code": code,
                "found": found,
                "advice": advice,
            }),
            format_args!("{result:8} {:8} {}{advised}", step.name(), Printable(found)),
        )
    }

    /// Skips what has not been said, and gives the first failure.
    fn finish(mut self, why: &str) -> Result<(), Failure> {
        for step in Step::ALL {
            if self.said.contains(&step) {
                continue;
            }
            match self.token.take_if(|_| step == Step::Token) {
                Some(finding) => self.failed(step, &finding)?,
                None => self.skipped(step, why)?,
            }
        }
        self.first.map_or(Ok(()), Err)
    }
}

/// Whom to look at.
struct Patient {
    address: String,
    tls: Tls,
    home: Option<(Home, Identity)>,
}

pub(crate) fn run(
    doctor: &Doctor,
    default_home: impl FnOnce() -> Result<Home, Failure>,
    output: Output,
) -> Result<(), Failure> {
    let patient = match &doctor.target {
        Some(address) if address.contains("://") => Patient {
            address: address.clone(),
            tls: Tls::SystemRoots,
            home: None,
        },
        Some(line) if line.starts_with(introduction::PREFIX) => Patient::introduced(line)?,
        Some(directory) => Patient::at(Home::at(directory))?,
        None => Patient::at(default_home()?)?,
    };
    let token = match &doctor.token {
        Some(file) => Some(files::read_token(file, MAX_TOKEN_BYTES)?),
        None => None,
    };
    if doctor.audience.is_some()
        && matches!(&patient.home, Some((_, identity)) if identity.sign_in.is_some())
    {
        return Err(Failure::usage(
            "--audience is for access tokens, and the relay exchanges this device's; leave it out",
        ));
    }
    super::runtime()?.block_on(examine(doctor, &patient, token, output))
}

impl Patient {
    /// The relay of a line that `sealwire invite --exchange` prints, which names its certificate where that is self-signed.
    fn introduced(line: &str) -> Result<Self, Failure> {
        let relay = Introduction::parse(line)
            .map_err(|error| Failure::usage(error).with_code("bad_introduction"))?;
        Ok(Self {
            address: relay.address.to_string(),
            tls: relay.certificate.map_or(Tls::SystemRoots, Tls::Pinned),
            home: None,
        })
    }

    fn at(home: Home) -> Result<Self, Failure> {
        let identity = home.identity()?;
        Ok(Self {
            address: identity.address.to_string(),
            tls: identity.certificate.map_or(Tls::SystemRoots, Tls::Pinned),
            home: Some((home, identity)),
        })
    }
}

async fn examine(
    doctor: &Doctor,
    patient: &Patient,
    token: Option<Zeroizing<Vec<u8>>>,
    output: Output,
) -> Result<(), Failure> {
    // What a token says of itself needs no relay.
    let device = patient.home.as_ref().map(|(_, identity)| identity.device);
    let look = |token: &Zeroizing<Vec<u8>>| {
        token::look(token, device, doctor.audience.as_deref(), when::now())
    };
    // A token that the relay exchanges is of any form that its provider has.
    let exchanged = matches!(&patient.home, Some((_, identity)) if identity.sign_in.is_some());
    let (seen, wrong) = match token.as_ref().filter(|_| !exchanged).map(look) {
        None => (None, None),
        Some(Ok(seen)) => (Some(seen), None),
        Some(Err(finding)) => (None, Some(finding)),
    };
    let mut report = Report {
        output,
        said: Vec::new(),
        first: None,
        token: wrong,
    };
    let probe = match Probe::new(&patient.address, patient.tls.clone()) {
        Ok(probe) => probe,
        Err(error) => {
            let finding = Finding {
                class: None,
                code: "bad_address",
                found: error.to_string(),
                advice: "take the address as `sealwire relay run` prints it".to_owned(),
            };
            report.failed(Step::Address, &finding)?;
            return report.finish("there is no address");
        }
    };
    report.ok(
        Step::Address,
        format_args!("the relay has to have the key {}", probe.relay()),
    )?;
    let Some(reached) = reach(&probe, &mut report).await? else {
        return report.finish("a step before it failed");
    };
    if !reached.trusted {
        return report.finish("nothing is presented where TLS is not trusted");
    }
    match (&patient.home, seen, report.token.take()) {
        (_, _, Some(finding)) => report.failed(Step::Token, &finding)?,
        (Some(home), _, None) => enter(&probe, doctor, home, token, &mut report).await?,
        (None, Some(seen), None) => report.ok(
            Step::Token,
            format_args!("{seen}; only its device can find out whether the relay takes it"),
        )?,
        (None, None, None) => {
            report.skipped(Step::Token, "there is no device; name its directory")?;
        }
    }
    if !report.said.contains(&Step::Clock) {
        report.ok(Step::Clock, "within 60 seconds of the relay's")?;
    }
    report.finish("")
}

/// What is known once the relay has proved its key, or has not.
struct Reached {
    /// TLS is trusted, or there is none to be.
    trusted: bool,
}

/// From the name to the relay's key. `None` if that is not reached.
async fn reach(probe: &Probe, report: &mut Report) -> Result<Option<Reached>, Failure> {
    let (secured, trusted, other);
    match tls_steps(probe, report).await? {
        Some(Ok(done)) => (secured, trusted) = (done, true),
        // The relay proves its key whatever TLS says, so it is worth going on: with this certificate, and without presenting anything.
        Some(Err(certificate)) => {
            other = probe.trusting(certificate);
            match silently(&other).await {
                Ok(done) => (secured, trusted) = (done, false),
                Err(_) => return Ok(None),
            }
        }
        None => return Ok(None),
    }
    let upgraded = match secured.upgrade().await {
        Ok(upgraded) => upgraded,
        Err(fault) => {
            report.failed(Step::Http, &fault.into())?;
            return Ok(None);
        }
    };
    report.ok(Step::Http, "a WebSocket that speaks sealwire.v1")?;
    relay_step(upgraded.relay_key().await, trusted, report)
}

/// What it comes to that the relay has proved its key, or has not.
fn relay_step(
    proved: Result<(), Fault>,
    trusted: bool,
    report: &mut Report,
) -> Result<Option<Reached>, Failure> {
    match proved {
        Ok(()) => {
            report.ok(
                Step::Relay,
                "the relay has proved the key that the address names",
            )?;
            Ok(Some(Reached { trusted }))
        }
        Err(fault @ Fault::Clock { .. }) => {
            // The key and its signature were checked before.
            report.ok(
                Step::Relay,
                "the relay has proved the key that the address names",
            )?;
            report.skipped(
                Step::Token,
                "no link is made while the clocks differ so much",
            )?;
            report.failed(Step::Clock, &fault.into())?;
            Ok(None)
        }
        Err(fault) => {
            report.failed(Step::Relay, &fault.into())?;
            Ok(None)
        }
    }
}

/// Up to TLS. The error is a certificate that is not trusted; `None`: something else failed.
async fn tls_steps<'p>(
    probe: &'p Probe,
    report: &mut Report,
) -> Result<Option<Result<Secured<'p>, [u8; 32]>>, Failure> {
    let addresses = match probe.resolve().await {
        Ok(addresses) => addresses,
        Err(fault) => {
            report.failed(Step::Dns, &fault.into())?;
            return Ok(None);
        }
    };
    let shown: Vec<_> = addresses
        .iter()
        .map(|found| found.ip().to_string())
        .collect();
    report.ok(Step::Dns, shown.join(", "))?;
    let connected = match probe.connect(&addresses).await {
        Ok(connected) => connected,
        Err(fault) => {
            report.failed(Step::Tcp, &fault.into())?;
            return Ok(None);
        }
    };
    report.ok(Step::Tcp, connected.peer())?;
    match connected.secure().await {
        Ok(secured) => {
            match (secured.certificate(), probe.is_pinned()) {
                (None, _) => {
                    report.skipped(Step::Tls, "the address is one without TLS, on this machine")?
                }
                (Some(_), true) => report.ok(
                    Step::Tls,
                    "the certificate is the one that the invitation, or the relay's line, names",
                )?,
                (Some(_), false) => {
                    report.ok(Step::Tls, "the certificate is trusted by this system")?
                }
            }
            Ok(Some(Ok(secured)))
        }
        Err(fault) => {
            let certificate = if let Fault::Certificate { fault, presented } = &fault
                && *fault != CertificateFault::Other
            {
                Some(*presented)
            } else {
                None
            };
            report.failed(Step::Tls, &fault.into())?;
            Ok(certificate.map(Err))
        }
    }
}

/// The same steps again, without a word.
async fn silently(probe: &Probe) -> Result<Secured<'_>, Fault> {
    let addresses = probe.resolve().await?;
    probe.connect(&addresses).await?.secure().await
}

async fn upgraded(probe: &Probe) -> Result<Upgraded<'_>, Fault> {
    silently(probe).await?.upgrade().await
}

/// Enters as the device that lives in `home`.
async fn enter(
    probe: &Probe,
    doctor: &Doctor,
    (home, identity): &(Home, Identity),
    token: Option<Zeroizing<Vec<u8>>>,
    report: &mut Report,
) -> Result<(), Failure> {
    let key = doctor.unlock.key(home, identity.lock)?;
    let (store, issuer) = match home.store(identity) {
        Ok(opened) => opened,
        Err(error) => return report.failed(Step::Token, &not_opened(Failure::from(error))),
    };
    let device = match ProbeDevice::open(store, &key, issuer) {
        Ok(device) => device,
        Err(error) => {
            return report.failed(Step::Token, &not_opened(store_failure(error)));
        }
    };
    let given = match (token, &identity.sign_in) {
        (Some(token), _) => Some(token),
        (None, None) => None,
        (None, Some(sign_in)) => match sign_in.get(identity.device).await {
            Ok(token) => Some(Zeroizing::new(token.as_bytes().to_vec())),
            Err(reason) => {
                let finding = Finding {
                    class: None,
                    code: "no_token_now",
                    found: format!("there is no token to sign in with: {reason}"),
                    advice: "look at the file or command that this device was joined with"
                        .to_owned(),
                };
                return report.failed(Step::Token, &finding);
            }
        },
    };
    // What is no text is no token, and is refused as such.
    let text = given
        .as_ref()
        .map(|token| str::from_utf8(token).unwrap_or("?"));
    let pass = match (text, &identity.sign_in) {
        (None, _) => Pass::Enrolment,
        (Some(token), None) => Pass::Token(token),
        (Some(token), Some(_)) => Pass::Exchange(token),
    };
    let entered = match upgraded(probe).await {
        Ok(upgraded) => upgraded.enter(&device, pass).await,
        Err(fault) => Err(fault),
    };
    match entered {
        Ok(entered) => {
            report.ok(Step::Token, let_in(&entered))?;
            clock(&entered, report)
        }
        Err(fault) => report.failed(Step::Token, &fault.into()),
    }
}

fn store_failure(error: StoreError) -> Failure {
    Failure::from(sealwire_client::Error::from(error))
}

fn not_opened(failure: Failure) -> Finding {
    Finding {
        class: Some(failure.class()),
        code: failure.code(),
        found: failure.to_string(),
        advice: "without its key the device cannot prove who it is".to_owned(),
    }
}

fn let_in(entered: &Entered) -> String {
    format!(
        "the relay lets this device in as {}; its token is good until {}; {} in its mailbox",
        Printable(&entered.user),
        Moment(entered.token_expires),
        entered.waiting,
    )
}

fn clock(entered: &Entered, report: &mut Report) -> Result<(), Failure> {
    let found = apart(entered.own_time, entered.relay_time);
    if entered.own_time.abs_diff(entered.relay_time) <= TOLERABLE_SECONDS {
        return report.ok(Step::Clock, found);
    }
    let finding = Finding {
        class: Some(Class::Failed),
        code: "clock",
        found,
        advice: "set this machine's clock, best by NTP; from 60 seconds on no link is made"
            .to_owned(),
    };
    report.failed(Step::Clock, &finding)
}

/// How this clock stands to the relay's.
fn apart(own: u64, relay: u64) -> String {
    match (own.abs_diff(relay), own > relay) {
        (0 | 1, _) => "the same as the relay's".to_owned(),
        (seconds, true) => format!("{seconds} seconds ahead of the relay's"),
        (seconds, false) => format!("{seconds} seconds behind the relay's"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            output: Output::new(true),
            said: Vec::new(),
            first: None,
            token: None,
        }
    }

    /// The relay's clock stands at a million.
    fn clock_at(own_time: u64) -> Report {
        let entered = Entered {
            user: "alice".to_owned(),
            token_expires: 2_000_000,
            relay_time: 1_000_000,
            own_time,
            waiting: 0,
        };
        let mut report = report();
        clock(&entered, &mut report).unwrap();
        assert_eq!(report.said, [Step::Clock]);
        report
    }

    #[test]
    fn clock_that_is_off_by_more_than_30_seconds_is_a_failure() {
        for own in [1_000_000, 1_000_030, 999_970] {
            assert!(clock_at(own).first.is_none(), "{own}");
        }
        for (own, found) in [
            (1_000_031, "31 seconds ahead of"),
            (1_000_059, "59 seconds ahead of"),
            (999_969, "31 seconds behind"),
        ] {
            let failure = clock_at(own).first.unwrap();
            let said = (failure.class(), failure.code());
            assert_eq!(said, (Class::Failed, "clock"), "{own}");
            let begins = format!("clock: {found} the relay's; set this machine's clock");
            assert!(failure.message().starts_with(&begins), "{failure}");
        }
    }

    /// It has proved its key all the same, and no token is to blame.
    #[test]
    fn clock_with_which_no_link_is_made_is_a_failure_of_the_clock() {
        for ahead in [true, false] {
            let mut report = report();
            let fault = Fault::Clock { ahead };
            let reached = relay_step(Err(fault), true, &mut report).unwrap();
            assert!(reached.is_none());
            assert_eq!(report.said, [Step::Relay, Step::Token, Step::Clock]);
            let failure = report.first.unwrap();
            let said = (failure.class(), failure.code());
            assert_eq!(said, (Class::Failed, "clock"));
            assert!(failure.message().starts_with("clock: "), "{failure}");
        }
        let mut report = report();
        let broken = relay_step(Err(Fault::Broken), true, &mut report).unwrap();
        assert!(broken.is_none());
        let failure = report.first.unwrap();
        let said = (failure.class(), failure.code());
        assert_eq!(said, (Class::Unreachable, "connection_broken"));
    }
}
