//! The page that Prometheus reads: families of samples, each with its help and type, in the text format 0.0.4.

use super::Durations;
use crate::error::{Error, Result};
use prometheus::TextEncoder;
use prometheus::core::Metric as _;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use std::fmt::Write as _;

/// Content type of a page.
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// Families of metrics, of which each may be put there once. No two samples of a family have the same labels.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<MetricFamily>,
    /// Families without a type, as text: the encoder does not know them.
    untyped: String,
}

impl Page {
    /// A value that rises and falls.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.gauges(name, help, [], [([""; 0], value)]);
    }

    /// The same by labels.
    pub fn gauges<const N: usize, L: Into<String>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&str; N],
        samples: impl IntoIterator<Item = ([L; N], u64)>,
    ) {
        let samples = samples.into_iter().map(|(values, value)| (values, number(value)));
        self.fractions(name, help, labels, samples);
    }

    /// Values by labels that are no whole numbers.
    pub fn fractions<const N: usize, L: Into<String>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&str; N],
        samples: impl IntoIterator<Item = ([L; N], f64)>,
    ) {
        let metrics = samples.into_iter().map(|(values, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = Metric::from_gauge(gauge);
            metric.set_label(pairs(labels, values));
            metric
        });
        self.put(name, help, MetricType::GAUGE, metrics.collect());
    }

    /// A count since the mount, or since the volume was made.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.counters(name, help, [], [([""; 0], value)]);
    }

    /// The same by labels.
    pub fn counters<const N: usize, L: Into<String>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&str; N],
        samples: impl IntoIterator<Item = ([L; N], u64)>,
    ) {
        let metrics = samples.into_iter().map(|(values, value)| {
            let mut counter = Counter::default();
            counter.set_value(number(value));
            let mut metric = Metric::from_label(pairs(labels, values));
            metric.set_counter(counter);
            metric
        });
        self.put(name, help, MetricType::COUNTER, metrics.collect());
    }

    /// Distributions by labels.
    pub fn histograms<'d, const N: usize, L: Into<String>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [&str; N],
        samples: impl IntoIterator<Item = ([L; N], &'d Durations)>,
    ) {
        let metrics = samples.into_iter().map(|(values, durations)| {
            let mut metric = durations.0.metric();
            metric.set_label(pairs(labels, values));
            metric
        });
        self.put(name, help, MetricType::HISTOGRAM, metrics.collect());
    }

    /// A value that rises and falls under a name that only counters should have: it has no type.
    pub fn untyped(&mut self, name: &'static str, help: &'static str, value: u64) {
        // Writing to a String cannot fail.
        write!(self.untyped, "# HELP {name} {help}\n# TYPE {name} untyped\n{name} {value}\n")
            .expect("a string takes everything");
    }

    /// The text.
    ///
    /// Errors: `Internal` if a family cannot be told.
    pub fn text(self) -> Result<String> {
        let mut text = TextEncoder::new()
            .encode_to_string(&self.families)
            .map_err(|error| Error::internal(format!("write the metrics: {error}")))?;
        text.push_str(&self.untyped);
        Ok(text)
    }

    fn put(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.families.push(family);
    }
}

fn pairs<const N: usize, L: Into<String>>(labels: [&str; N], values: [L; N]) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, L)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.into());
        pair
    };
    labels.into_iter().zip(values).map(pair).collect()
}

/// The format knows floating-point numbers only; beyond 2^53 the last digits are lost.
fn number(value: u64) -> f64 {
    value as f64
}
