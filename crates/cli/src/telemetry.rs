//! Traces of a relay, to an OpenTelemetry collector: OTLP over HTTP, in protobuf.
//!
//! What is traced is in [`sealwire_server::spans`]. Spans are queued, as many as the SDK has room for, and sent in batches by a thread of its own: a collector
//! that is slow or away costs spans, and nobody a message.
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use sealwire_server::spans;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;

use crate::exit::Failure;
use crate::logging::Beside;

/// For how long a batch, and all that is left at the end, may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends what is traced.
#[derive(Debug)]
pub(crate) struct Telemetry(SdkTracerProvider);

impl Telemetry {
    /// Sends one of `one_in` traces to the collector at `endpoint`, an HTTP URL without the path.
    pub(crate) fn start(endpoint: &str, one_in: u64) -> Result<Self, Failure> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| {
                Failure::failed(format_args!(
                    "traces cannot be sent to {endpoint}: {error}; see telemetry.otlp_endpoint"
                ))
            })?;
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

    /// Sends what is left, and ends. It waits for that, and not for long.
    pub(crate) async fn end(self) {
        let sent = tokio::task::spawn_blocking(move || {
            // Only this says what became of them.
            let sent = self.0.force_flush();
            sent.and(self.0.shutdown_with_timeout(TIMEOUT))
        });
        if let Ok(Err(error)) = sent.await {
            tracing::warn!(%error, "the last traces are not sent");
        }
    }
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
