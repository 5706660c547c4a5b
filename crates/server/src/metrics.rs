//! What an operator's monitoring reads, in Prometheus' text format 0.0.4. No user, device or message is in a label.
//!
//! Events are counted where they happen; states are looked at when somebody asks. A label has only values that are known beforehand, so that
//! nobody can make more series.
use std::fmt;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use sealwire_protocol::close::{CloseCode, RefusalCode};

use crate::closing::{self, End, GONE};
use crate::http::Problem;
use crate::shared::Shared;

/// One label.
type Label = [(&'static str, &'static str); 1];
type Counts = Family<Label, Counter>;

/// What is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    connections: Counter,
    connections_open: Gauge,
    dropped: Counts,
    links: Counter,
    links_open: Gauge,
    refused: Counts,
    closed: Counts,
    refusals: Counts,
    http: Counts,
    messages_accepted: Counter,
    messages_delivered: Counter,
    throttled: Counter,
    certificates: Counts,
}

/// Why a connection was dropped as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// As many are open as the relay takes.
    Full,
    /// As many as the relay takes have not authenticated.
    Unauthenticated,
    /// Its address has too many that have not authenticated.
    Address,
    /// Its address makes too many connections.
    Rate,
}

impl Dropped {
    const ALL: [Self; 4] = [Self::Full, Self::Unauthenticated, Self::Address, Self::Rate];

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Unauthenticated => "unauthenticated",
            Self::Address => "address",
            Self::Rate => "rate",
        }
    }

    fn label(self) -> Label {
        [("reason", self.name())]
    }

    /// What helps, for the log.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::Full => {
                "raise limits.connections in the configuration, and the system's limit of open files"
            }
            Self::Unauthenticated => {
                "if these are devices: raise limits.unauthenticated in the configuration"
            }
            Self::Address => {
                "if these are devices: raise limits.unauthenticated_per_address in the configuration"
            }
            Self::Rate => {
                "if these are devices: raise limits.connections_per_minute in the configuration"
            }
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "more are open than limits.connections allows, or the system's open files",
            Self::Unauthenticated => {
                "more have not authenticated than limits.unauthenticated allows"
            }
            Self::Address => {
                "more of its address have not authenticated than limits.unauthenticated_per_address allows"
            }
            Self::Rate => "its address makes more than limits.connections_per_minute allows",
        })
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let ends = || {
            let gone = [("code", GONE)];
            CloseCode::ALL.into_iter().map(close_label).chain([gone])
        };
        Self {
            connections: Counter::default(),
            connections_open: Gauge::default(),
            dropped: counts(Dropped::ALL.into_iter().map(Dropped::label)),
            links: Counter::default(),
            links_open: Gauge::default(),
            refused: counts(ends()),
            closed: counts(ends()),
            refusals: counts(RefusalCode::ALL.into_iter().map(refusal_label)),
            http: counts(
                (Problem::ALL.into_iter().map(Problem::code))
                    .chain(["ok"])
                    .map(outcome_label),
            ),
            messages_accepted: Counter::default(),
            messages_delivered: Counter::default(),
            throttled: Counter::default(),
            certificates: counts([true, false].into_iter().map(result_label)),
        }
    }
}

impl Metrics {
    /// A connection was dropped as it arrived.
    pub(crate) fn dropped(&self, why: Dropped) {
        count(&self.dropped, why.label());
    }

    /// A connection is open until this is dropped.
    pub(crate) fn connection(&self) -> Open {
        self.connections.inc();
        Open::count(&self.connections_open)
    }

    /// A device has authenticated; its link is open until this is dropped.
    pub(crate) fn link(&self) -> Open {
        self.links.inc();
        Open::count(&self.links_open)
    }

    /// Links that are open.
    pub(crate) fn links_open(&self) -> usize {
        usize::try_from(self.links_open.get()).unwrap_or_default()
    }

    /// A WebSocket ended before its device had authenticated.
    pub(crate) fn refused(&self, end: &End) {
        count(&self.refused, end_label(end));
    }

    /// A link ended.
    pub(crate) fn closed(&self, end: &End) {
        count(&self.closed, end_label(end));
    }

    /// A request of a device was refused.
    pub(crate) fn refusal(&self, code: RefusalCode) {
        count(&self.refusals, refusal_label(code));
    }

    /// A request by HTTP was answered: `ok`, or the code of its problem.
    pub(crate) fn request(&self, outcome: &'static str) {
        count(&self.http, outcome_label(outcome));
    }

    /// A message is safe, and its sender knows.
    pub(crate) fn accepted(&self) {
        self.messages_accepted.inc();
    }

    /// A message was given to a link of the device that it is for.
    pub(crate) fn delivered(&self) {
        self.messages_delivered.inc();
    }

    /// A link is read later, because its device, its user or its tenant sends too fast.
    pub(crate) fn throttled(&self) {
        self.throttled.inc();
    }

    /// The TLS certificate changed on the disk; a good one is shown from now on.
    pub(crate) fn certificate(&self, is_good: bool) {
        count(&self.certificates, result_label(is_good));
    }

    /// Everything, as Prometheus reads it.
    ///
    /// # Errors
    /// None that is expected: what it is written to takes everything.
    pub(crate) fn text(&self, shared: &Shared) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry(shared))?;
        Ok(text)
    }

    fn registry(&self, shared: &Shared) -> Registry {
        let mut registry = Registry::with_prefix("sealwire");
        let of = &mut registry;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        of.register("build", "The relay's version", version);
        of.register("connections", "Connections taken", self.connections.clone());
        of.register(
            "connections_open",
            "Connections that are open, of all kinds",
            self.connections_open.clone(),
        );
        of.register(
            "connections_dropped",
            "Connections dropped as they arrived, by the limit that they were over",
            self.dropped.clone(),
        );
        of.register(
            "links",
            "Devices that have authenticated",
            self.links.clone(),
        );
        of.register(
            "links_open",
            "Devices that are connected",
            self.links_open.clone(),
        );
        of.register(
            "handshakes_refused",
            "WebSockets that ended before the device had authenticated, by close code",
            self.refused.clone(),
        );
        of.register(
            "links_closed",
            "Links that ended, by close code; gone: the device hung up",
            self.closed.clone(),
        );
        of.register(
            "requests_refused",
            "Requests of devices that were refused, by code",
            self.refusals.clone(),
        );
        of.register(
            "http_requests",
            "Requests by HTTP of devices without a link, by outcome: ok, or the code of the problem",
            self.http.clone(),
        );
        of.register(
            "messages_accepted",
            "Messages that are safe, each counted once however many devices it is for",
            self.messages_accepted.clone(),
        );
        of.register(
            "messages_delivered",
            "Messages given to a device, again where it had not acknowledged them",
            self.messages_delivered.clone(),
        );
        of.register(
            "links_throttled",
            "Times that a link was not read for a while, because its device, its user or its tenant sent too fast",
            self.throttled.clone(),
        );
        of.register(
            "certificate_changes",
            "Changes of the TLS certificate on the disk, and whether the new one is in use",
            self.certificates.clone(),
        );
        states(of, shared);
        registry
    }
}

/// What is looked at when somebody asks.
fn states(of: &mut Registry, shared: &Shared) {
    of.register(
        "store_writable",
        "1 while the stores take what devices send; 0: start the relay again",
        gauge(shared.is_writable().into()),
    );
    of.register(
        "draining",
        "1 while links are asked to leave",
        gauge(shared.draining.borrow().is_some().into()),
    );
    of.register(
        "revocations",
        "Tokens, devices and users that are revoked",
        gauge(shared.revocations.len()),
    );
    let own = shared.authority.fetched_of().into_iter();
    let (looks, known, age) = (OfIssuer::default(), Gauges::default(), Gauges::default());
    for (issuer, keys) in own.chain(shared.exchange.fetched_of()) {
        let of = || vec![("issuer", issuer.as_str().to_owned())];
        let state = keys.state();
        for (result, times) in [("ok", state.found), ("failed", state.failed)] {
            let mut of = of();
            of.push(("result", result.to_owned()));
            looks.get_or_create(&of).inc_by(times);
        }
        known.get_or_create(&of()).set(state.is_known.into());
        if let Some(seconds) = state.age_seconds {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            age.get_or_create(&of()).set(seconds);
        }
    }
    of.register(
        "issuer_keys_looks",
        "Times that an issuer's key set was looked for",
        looks,
    );
    of.register(
        "issuer_keys_known",
        "1 if there is a key set of the issuer; 0: no token of it is accepted",
        known,
    );
    of.register(
        "issuer_keys_age_seconds",
        "Time since the issuer's key set was last had",
        age,
    );
}

/// The operator has named the issuers.
type OfIssuer = Family<Vec<(&'static str, String)>, Counter>;
type Gauges = Family<Vec<(&'static str, String)>, Gauge>;

/// Counts in a gauge for as long as it lives.
#[derive(Debug)]
pub(crate) struct Open(Gauge);

impl Open {
    fn count(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn close_label(code: CloseCode) -> Label {
    [("code", closing::label(code))]
}

fn end_label(end: &End) -> Label {
    [("code", end.label())]
}

fn outcome_label(outcome: &'static str) -> Label {
    [("outcome", outcome)]
}

fn refusal_label(code: RefusalCode) -> Label {
    [("code", code.name())]
}

fn result_label(is_good: bool) -> Label {
    [("result", if is_good { "ok" } else { "failed" })]
}

/// A counter for each label, so that each is there from the start.
fn counts(labels: impl Iterator<Item = Label>) -> Counts {
    let counts = Counts::default();
    for label in labels {
        drop(counts.get_or_create(&label));
    }
    counts
}

fn count(counts: &Counts, label: Label) {
    counts.get_or_create(&label).inc();
}

fn gauge(value: usize) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}
