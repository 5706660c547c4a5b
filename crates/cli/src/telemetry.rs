//! Traces of a relay, to an OpenTelemetry collector: OTLP over HTTP, in protobuf.
//!
//! What is traced is in [`sealwire_server::spans`]. Spans are queued, as many as the SDK has room for, and sent in batches by a thread of its own: a collector
//! that is slow or away costs spans, and nobody a message.
use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use reqwest::blocking::{Client, ClientBuilder};
use sealwire_server::spans;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;

use crate::exit::Failure;
use crate::logging::Beside;

/// For how long a batch may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// For how long all that is left at the end may.
const END: Duration = Duration::from_secs(3);

/// Sends what is traced.
#[derive(Debug)]
pub(crate) struct Telemetry(SdkTracerProvider);

impl Telemetry {
    /// Sends one of `one_in` traces to the collector at `endpoint`, an HTTP URL without `/v1/traces`.
    pub(crate) fn start(endpoint: &str, one_in: u64) -> Result<Self, Failure> {
        let refused = |error| {
            Failure::failed(format_args!(
                "traces cannot be sent to {endpoint}: {error}; see telemetry.otlp_endpoint"
            ))
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client(endpoint).map_err(refused)?)
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        let resource = Resource::builder()
            .with_service_name("sealwire-relay")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler(one_in))
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    /// What takes the spans.
    pub(crate) fn layer(&self) -> Beside {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("sealwire"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_level(false)
            .with_target(false)
            .with_filter(Targets::new().with_target(spans::TARGET, LevelFilter::TRACE))
            .boxed()
    }

    /// Sends what is left. It waits for that, and not for long.
    pub(crate) async fn end(self) {
        let (done, sent) = tokio::sync::oneshot::channel();
        // A thread that does not keep the process.
        std::thread::spawn(move || {
            // If nobody waits any more, the process ends.
            let _ = done.send(self.0.force_flush());
        });
        let sent = tokio::time::timeout(END, sent).await;
        let why = match sent {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) | Err(_) => format!("the collector takes longer than {END:?}"),
        };
        tracing::warn!(%why, "the last traces are not sent");
    }
}

/// What speaks HTTP to the collector, and to no proxy.
fn client(endpoint: &str) -> Result<Client, String> {
    let builder = ClientBuilder::new().no_proxy().timeout(TIMEOUT);
    let builder = if endpoint.starts_with("https:") {
        builder
    } else {
        // The system need not have certificates.
        builder.tls_certs_only([])
    };
    // It has a runtime of its own, which is not made in another one's thread.
    match std::thread::spawn(move || builder.build()).join() {
        Ok(built) => built.map_err(|error| with_causes(&error)),
        Err(_) => Err("there is no HTTP client".to_owned()),
    }
}

/// What an error says, and what lies below it.
fn with_causes(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        // Into a string it does not fail.
        let _ = write!(said, ": {error}");
        below = error.source();
    }
    said
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a share of traces need not be exact"
)]
fn sampler(one_in: u64) -> Sampler {
    match one_in {
        0 | 1 => Sampler::AlwaysOn,
        one_in => Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(1.0 / one_in as f64))),
    }
}
