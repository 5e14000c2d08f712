//! The process's Prometheus registry. Labels are bounded (reasons, outcomes), never names of objects. No I/O.

use axum::{http::header, response::IntoResponse};
use prometheus::{Encoder as _, Registry, TextEncoder, core::Collector};

use super::KitError;

/// Where every role registers what it counts.
pub fn registry() -> &'static Registry {
    prometheus::default_registry()
}

/// Registers a metric and hands it back, for `static LazyLock` or a struct of metrics made once.
pub fn register<M: Collector + Clone + 'static>(
    name: &str,
    metric: prometheus::Result<M>,
) -> Result<M, KitError> {
    let metric = metric.map_err(|error| KitError::Metric(format!("{name}: {error}")))?;
    registry()
        .register(Box::new(metric.clone()))
        .map_err(|error| KitError::Metric(format!("{name}: {error}")))?;
    Ok(metric)
}

/// Everything registered, in Prometheus text format.
pub(super) fn render() -> impl IntoResponse {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    if let Err(error) = encoder.encode(&registry().gather(), &mut text) {
        tracing::warn!(%error, "a metric cannot be shown");
    }
    ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text)
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;

    use super::*;

    #[test]
    fn a_metric_registers_once_and_the_second_of_its_name_is_refused() {
        let make = || IntCounter::new("shadow_test_total", "a test");
        assert!(register("shadow_test_total", make()).is_ok());
        assert!(matches!(register("shadow_test_total", make()), Err(KitError::Metric(_))));
    }
}
