use std::time::Duration;

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_700_000_100_000_000_000;

fn reader(allow: &[&str]) -> Reader {
    let config = serde_saphyr::from_str::<ScrapeConfig>("url: http://127.0.0.1:8000/metrics");
    let mut config = config.expect("it is valid");
    config.allow = allow.iter().map(|pattern| (*pattern).to_owned()).collect();
    config.labels.insert("pod".into(), "a".into());
    Reader::new(&config, "127.0.0.1:8000")
}

fn at(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

fn read(text: &str) -> (Vec<Metric>, Counts) {
    reader(&["*"]).read(text, at(NOW))
}

fn labels(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        _ => None,
    };
    attributes.iter().map(|one| (one.key.clone(), text(one).expect("a text"))).collect()
}

fn number(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(number_data_point::Value::AsDouble(value)) => value,
        _ => panic!("it has no number"),
    }
}

fn sum(metric: &Metric) -> &Sum {
    match &metric.data {
        Some(metric::Data::Sum(sum)) => sum,
        other => panic!("{other:?}"),
    }
}

fn histograms(metric: &Metric) -> &[HistogramDataPoint] {
    match &metric.data {
        Some(metric::Data::Histogram(histogram)) => &histogram.data_points,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gauge_keeps_its_name_and_gets_the_labels_of_all() {
    let text = "# HELP vllm:num_requests_waiting Waiting.\\nNow.\n# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine=\"0\",empty=\"\"} 3.0\n";
    let (metrics, counts) = read(text);
    assert_eq!(counts, Counts([1, 0, 0, 0, 0]));
    let [metric] = &metrics[..] else { panic!("{metrics:?}") };
    assert_eq!(metric.name, "vllm:num_requests_waiting");
    assert_eq!(metric.description, "Waiting.\nNow.");
    let Some(metric::Data::Gauge(gauge)) = &metric.data else { panic!("{metric:?}") };
    let [point] = &gauge.data_points[..] else { panic!("{gauge:?}") };
    assert_eq!((number(point), point.time_unix_nano), (3.0, NOW));
    let expected = [("engine", "0"), ("pod", "a"), ("target", "127.0.0.1:8000")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(labels(&point.attributes), expected.into());
}

#[test]
fn a_counter_is_one_in_both_formats_and_says_since_when() {
    for text in [
        "# TYPE a_total counter\na_total{x=\"1\"} 7\nprocess_start_time_seconds 1700000000\n",
        "# TYPE a counter\na_total{x=\"1\"} 7 # {trace_id=\"f\"} 1\na_created{x=\"1\"} 1700000000\n# EOF\n",
    ] {
        let (metrics, _) = reader(&["a*"]).read(text, at(NOW));
        let sum = sum(&metrics[0]);
        assert_eq!(metrics[0].name, "a_total");
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "{sum:?}");
        let [point] = &sum.data_points[..] else { panic!("{sum:?}") };
        assert_eq!(number(point), 7.0);
        assert_eq!(point.start_time_unix_nano, 1_700_000_000_000_000_000, "{text}");
    }
}

#[test]
fn a_counter_that_fell_has_begun_anew_after_the_reading_before() {
    let mut reader = reader(&["*"]);
    let mut start = |value: f64, now: u64| {
        let (metrics, _) = reader.read(&format!("# TYPE a counter\na_total {value}\n"), at(now));
        sum(&metrics[0]).data_points[0].start_time_unix_nano
    };
    assert_eq!(start(5.0, NOW), NOW);
    assert_eq!(start(9.0, NOW + 10), NOW);
    assert_eq!(start(2.0, NOW + 20), NOW + 10);
    assert_eq!(start(3.0, NOW + 30), NOW + 10);
    // One that was away is another.
    reader.read("# TYPE a counter\n", at(NOW + 40));
    let (metrics, _) = reader.read("# TYPE a counter\na_total 4\n", at(NOW + 50));
    assert_eq!(sum(&metrics[0]).data_points[0].start_time_unix_nano, NOW + 50);
}

#[test]
fn a_histogram_has_its_buckets_whatever_their_order() {
    let text = "# TYPE h histogram\nh_bucket{le=\"+Inf\",m=\"a\"} 10\nh_bucket{le=\"0.5\",m=\"a\"} 4\nh_bucket{m=\"a\",le=\"1\"} 7\nh_sum{m=\"a\"} 8.25\nh_count{m=\"a\"} 10\nh_created{m=\"a\"} 1700000000.5\n";
    let (metrics, counts) = read(text);
    assert_eq!(counts, Counts([6, 0, 0, 0, 0]));
    let [point] = histograms(&metrics[0]) else { panic!("{metrics:?}") };
    assert_eq!(point.explicit_bounds, [0.5, 1.0]);
    assert_eq!(point.bucket_counts, [4, 3, 3]);
    assert_eq!((point.count, point.sum), (10, Some(8.25)));
    assert_eq!(point.start_time_unix_nano, 1_700_000_000_500_000_000);
    assert!(!labels(&point.attributes).contains_key("le"));
}

#[test]
fn a_histogram_that_does_not_add_up_is_left_out_and_its_neighbour_is_not() {
    let good = "h_bucket{m=\"good\",le=\"+Inf\"} 1\n";
    for bad in [
        "h_bucket{le=\"1\"} 4\nh_bucket{le=\"+Inf\"} 3\n",
        "h_bucket{le=\"1\"} 4\nh_count 4\n",
        "h_bucket{le=\"+Inf\"} 3\nh_count 4\n",
        "h_bucket{le=\"+Inf\"} 3.5\n",
        "h_bucket{le=\"x\"} 3\nh_bucket{le=\"+Inf\"} 3\n",
        "h_bucket{le=\"+Inf\"} 3\nh_count 3\nh_count 3\n",
        "h_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 2\nh_bucket{le=\"+Inf\"} 3\n",
    ] {
        let (metrics, Counts(counts)) = read(&format!("# TYPE h histogram\n{bad}{good}"));
        assert_eq!(counts[UNUSABLE], bad.lines().count() as u64, "{bad}");
        let [point] = histograms(&metrics[0]) else { panic!("{metrics:?}") };
        assert_eq!(labels(&point.attributes)["m"], "good");
    }
}

#[test]
fn a_summary_is_one() {
    let text =
        "# TYPE s summary\ns{quantile=\"0.99\"} 2.5\ns{quantile=\"0.5\"} NaN\ns_sum 9\ns_count 4\n";
    let (metrics, counts) = read(text);
    assert_eq!(counts, Counts([4, 0, 0, 0, 0]));
    let Some(metric::Data::Summary(summary)) = &metrics[0].data else { panic!("{metrics:?}") };
    let [point] = &summary.data_points[..] else { panic!("{summary:?}") };
    assert_eq!((point.count, point.sum), (4, 9.0));
    assert_eq!(point.quantile_values[1].value, 2.5);
    assert!(point.quantile_values[0].value.is_nan());
}

#[test]
fn what_is_not_allowed_is_counted_and_dropped() {
    let text = "# TYPE go_threads gauge\ngo_threads 9\n# TYPE vllm:a histogram\nvllm:a_bucket{le=\"+Inf\"} 2\nvllm:a_count 2\nDCGM_FI_DEV_GPU_UTIL{gpu=\"0\"} 98\nbad line here\n";
    let (metrics, counts) = reader(&["vllm:a", "DCGM_FI_*"]).read(text, at(NOW));
    let names: Vec<_> = metrics.iter().map(|metric| &metric.name[..]).collect();
    assert_eq!(names, ["vllm:a", "DCGM_FI_DEV_GPU_UTIL"]);
    assert_eq!(counts, Counts([3, 1, 1, 0, 0]));
}

#[test]
fn of_too_many_samples_the_first_are_kept() {
    let mut reader = reader(&["*"]);
    reader.max_samples = 5;
    let text: String = (0..9).map(|at| format!("a{{n=\"{at}\"}} {at}\n")).collect();
    let (metrics, counts) = reader.read(&text, at(NOW));
    assert_eq!(counts, Counts([5, 0, 0, 0, 4]));
    let Some(metric::Data::Gauge(gauge)) = &metrics[0].data else { panic!("{metrics:?}") };
    assert_eq!(gauge.data_points.len(), 5);
}

#[test]
fn a_page_for_people_is_no_page_of_metrics() {
    assert!(read("<html>\n<body>not found</body>\n").1.is_no_page_of_metrics());
    assert!(!read("").1.is_no_page_of_metrics());
    assert!(!read("<html>\na 1\n").1.is_no_page_of_metrics());
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        series in prop::collection::btree_map("[^\r\u{0}]{1,12}", (0_u64..1 << 50, prop::collection::vec(0_u64..1 << 40, 1..12)), 1..20),
    ) {
        let mut text = "# TYPE c counter\n".to_owned();
        for (label, (value, _)) in &series {
            text += &format!("c_total{{l=\"{}\"}} {value}\n", escaped(label));
        }
        text += "# TYPE h histogram\n";
        for (label, (_, counts)) in &series {
            let label = escaped(label);
            let mut below = 0;
            for (at, count) in counts.iter().enumerate() {
                below += count;
                let bound = if at + 1 == counts.len() { "+Inf".to_owned() } else { format!("{at}.5") };
                text += &format!("h_bucket{{l=\"{label}\",le=\"{bound}\"}} {below}\n");
            }
        }
        let (metrics, Counts(counts)) = read(&text);
        let whole: usize = series.values().map(|(_, counts)| 1 + counts.len()).sum();
        prop_assert_eq!(counts[KEPT], whole as u64);
        prop_assert_eq!(counts.iter().sum::<u64>(), whole as u64);
        for point in &sum(&metrics[0]).data_points {
            prop_assert_eq!(number(point), series[&labels(&point.attributes)["l"]].0 as f64);
        }
        for point in histograms(&metrics[1]) {
            prop_assert_eq!(&point.bucket_counts, &series[&labels(&point.attributes)["l"]].1);
        }
    }
}
