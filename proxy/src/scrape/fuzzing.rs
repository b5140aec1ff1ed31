//! What of it `tests/fuzz` may call. No part of the sidecar.

use std::time::{Duration, UNIX_EPOCH};

use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use super::ScrapeConfig;
use super::families::Reader;

/// What is passed on of one page.
#[derive(Debug, PartialEq)]
pub struct Figures {
    /// Samples: kept, not allowed, malformed, unusable, over the limit.
    pub samples: [u64; 5],
    /// Of each point, its name, its value as text, since when it counts, and when it was read.
    pub points: Vec<(String, String, u64, u64)>,
    /// Of each histogram, how many it counts, and how many each of its buckets does.
    pub histograms: Vec<(u64, Vec<u64>)>,
}

/// Reads these pages one second after the other, the first in the second 1,000 of all time; of each no
/// more than so many samples.
pub fn figures(pages: &[&str], max_samples: u32) -> Vec<Figures> {
    let config = format!("url: http://a/metrics\nallow: ['*']\nmax_samples: {max_samples}");
    let config: ScrapeConfig = crate::config::parse_yaml(&config).expect("it is valid");
    let mut reader = Reader::new(&config, "a");
    let page = |(at, page): (usize, &&str)| {
        let (metrics, counts) =
            reader.read(page, UNIX_EPOCH + Duration::from_secs(1_000 + at as u64));
        let mut figures = Figures { samples: counts.0, points: Vec::new(), histograms: Vec::new() };
        for metric in metrics {
            let mut put = |value: String, since, at| {
                figures.points.push((metric.name.clone(), value, since, at));
            };
            match metric.data.expect("it has data") {
                Data::Sum(sum) => sum.data_points.iter().for_each(|point| {
                    let value = format!("{:?}{:?}", point.attributes, point.value);
                    put(value, point.start_time_unix_nano, point.time_unix_nano);
                }),
                Data::Gauge(gauge) => gauge.data_points.iter().for_each(|point| {
                    let value = format!("{:?}{:?}", point.attributes, point.value);
                    put(value, point.start_time_unix_nano, point.time_unix_nano);
                }),
                Data::Histogram(histogram) => histogram.data_points.iter().for_each(|point| {
                    let value =
                        format!("{:?}{:?}{:?}", point.attributes, point.bucket_counts, point.sum);
                    put(value, point.start_time_unix_nano, point.time_unix_nano);
                    figures.histograms.push((point.count, point.bucket_counts.clone()));
                }),
                Data::Summary(summary) => summary.data_points.iter().for_each(|point| {
                    let value = format!(
                        "{:?}{:?}{:?}",
                        point.attributes, point.count, point.quantile_values
                    );
                    put(value, point.start_time_unix_nano, point.time_unix_nano);
                }),
                Data::ExponentialHistogram(_) => unreachable!("no page has one"),
            }
        }
        figures
    };
    pages.iter().enumerate().map(page).collect()
}
