//! Reports of made-up runs, and what all forms of a report have in common.

use std::time::Duration;

use tidegate_settings::Objectives;
use tidegate_wire::{ErrorOrigin, Id, Outcome, Record};

use super::*;
use crate::figures::tests::call;
use crate::figures::{Seen, Sent, SeriesId, Shows};
use crate::workload::Mix;

/// A run of two hundred calls in ten seconds, of which each twentieth failed.
pub(super) fn report(model: &str) -> Report {
    judged(model, None)
}

/// The same, held against these.
fn judged(model: &str, objectives: Option<&str>) -> Report {
    let mut figures = Figures::default();
    for number in 0..200_u32 {
        let outcome = if number % 20 == 7 { Outcome::Failed } else { Outcome::Completed };
        let mut call = call(0.2 + f64::from(number) / 1e3, outcome);
        call.key.model = model.into();
        call.due = Duration::from_millis(u64::from(number) * 50);
        call.send_lag = Duration::from_micros(500 + u64::from(number));
        call.record.trace_id = Id(rand::random());
        call.record.status = Some(if outcome == Outcome::Failed { 503 } else { 200 });
        call.record.time_to_first_byte_s = Some(0.05);
        call.record.time_to_first_token_s = Some(0.1 + f64::from(number) / 1e4);
        call.record.input_tokens = Some(u64::from(100 + number));
        call.record.output_tokens = Some(20);
        call.record.cost_usd = Some(0.001);
        if outcome == Outcome::Failed {
            call.record.error_type = Some(format!("overloaded <{model}>"));
            call.record.error_origin = Some(ErrorOrigin::Upstream);
            call.kind = Some(Kind::Capacity);
        }
        figures.record(&call, outcome == Outcome::Completed);
        let seen = Record {
            duration_s: call.record.duration_s.map(|time| time / 2.0),
            time_to_first_token_s: Some(0.05),
            overhead_s: Some(0.001),
            ..call.record.clone()
        };
        figures.joined.record(&Sent::of(&call), &Seen::of(&seen));
        let waiting = SeriesId {
            name: "vllm:num_requests_waiting".into(),
            shows: Shows::Value,
            source: "http://127.0.0.1:8000/metrics".into(),
            labels: format!("model_name=\"{model}\"").into(),
        };
        figures.watched.record(&waiting, call.due, f64::from(number % 7));
        figures.watched.reads += 1;
    }
    let run = Setup {
        ids: vec!["a".to_owned()],
        target: "http://127.0.0.1:4100".to_owned(),
        schedule: "poisson".to_owned(),
        from: None,
        users: 10,
        stages: None,
        rate: Some(20.0),
        seed: 1,
        mix: Mix::default().entries().to_vec(),
        began: "2026-11-21T10:00:00Z".parse().expect("a time"),
        duration_s: 10.0,
        warm_up_s: 0.0,
        lasted_s: 10.4,
        resumed: 0,
        done_s: 10.0,
    };
    let slo = objectives.map(|text| Objectives::parse(text).expect("good objectives"));
    Report::new(run, Ended::Complete, Generator::default(), slo, figures)
}

const OBJECTIVES: &str = "objectives:\n\
    - { metric: duration, quantile: 0.5, below: 10s, name: a <good> \"one\" }\n\
    - { metric: error_ratio, below: 1% }\n\
    - { metric: error_ratio, below: 6% }\n";

#[test]
fn junit_has_a_case_for_each_objective_and_one_for_the_run() {
    let xml = judged("m", Some(OBJECTIVES)).junit();
    assert_eq!(xml.matches("<testcase ").count(), 4, "{xml}");
    assert!(xml.contains("tests=\"4\" failures=\"1\" errors=\"1\" skipped=\"0\""), "{xml}");
    assert!(
        xml.contains("<failure type=\"missed\"") && xml.contains("<error type=\"inconclusive\"")
    );
    assert!(xml.contains("a &lt;good&gt; &quot;one&quot;"), "{xml}");
    let invalid = Report { invalid: Some("no user was there".to_owned()), ..report("m") };
    assert!(invalid.junit().contains("<error type=\"invalid\" message=\"no user was there\">"));
}

#[test]
fn the_page_shows_each_objective_with_its_bounds() {
    let html = judged("m", Some(OBJECTIVES)).html();
    assert_eq!(html.matches("class=\"objective ").count(), 3);
    assert!(html.contains("class=\"verdict fail\">FAIL<") && html.contains("a &lt;good&gt;"));
    assert!(html.contains("overloaded &lt;m&gt;"), "errors are told in their own words");
}

#[test]
fn vllm_and_k6_have_the_figures_from_the_send() {
    let report = judged("m", Some(OBJECTIVES));
    let read = |text: String| -> serde_json::Value { serde_json::from_str(&text).expect("JSON") };
    let vllm = read(report.vllm_json());
    assert_eq!((vllm["completed"].as_u64(), vllm["failed"].as_u64()), (Some(190), Some(10)));
    assert_eq!(vllm["request_rate"], 20.0);
    let ms = |value: &serde_json::Value| value.as_f64().expect("a number");
    let lag = ms(&vllm["median_tidegate_due_ttft_ms"]) - ms(&vllm["median_ttft_ms"]);
    assert!((0.4..0.9).contains(&lag), "{lag}");
    for time in ["ttft", "tpot", "itl", "e2el"] {
        let is_there = vllm.get(format!("p99_{time}_ms")).is_some();
        assert_eq!(is_there, time != "tpot", "{time}");
    }

    let k6 = read(report.k6_summary());
    let metrics = &k6["metrics"];
    assert_eq!(
        (metrics["checks"]["passes"].as_u64(), metrics["checks"]["fails"].as_u64()),
        (Some(1), Some(2))
    );
    assert_eq!(metrics["http_req_failed"]["value"], 0.05);
    assert_eq!(metrics["http_reqs"]["count"], 200);
    assert!((ms(&metrics["http_req_waiting"]["p(90)"]) - 49.4).abs() < 0.2, "{metrics:#}");
}

#[test]
fn every_form_is_made_of_a_report_that_was_a_file() {
    let report = judged("m", Some(OBJECTIVES));
    let path = std::env::temp_dir().join(format!("tidegate-forms-{:x}", rand::random::<u64>()));
    std::fs::write(&path, report.json()).expect("a folder to write to");
    let read = Report::read(&path).expect("a report");
    std::fs::remove_file(&path).expect("it was written");
    assert_eq!(read.html(), report.html());
    assert_eq!(read.junit(), report.junit());
    assert_eq!(read.markdown(), report.markdown());
    assert_eq!(read.vllm_json(), report.vllm_json());
    assert_eq!(read.k6_summary(), report.k6_summary());
}

#[test]
fn a_comparison_stands_in_every_form_and_decides() {
    let mut slower = judged("m", Some("objectives: [{ metric: error_ratio, below: 50% }]"));
    assert_eq!(slower.decision(), Decision::Pass);
    slower.compare(&[]);
    assert_eq!(slower.comparison, None);
    let mut other = report("m");
    other.run.rate = Some(21.0);
    slower.compare(&[other]);
    let said = &slower.comparison.as_ref().expect("it was compared").sentence;
    assert_eq!(said, "Not compared with the baseline: its rate was another one.");
    assert_eq!(slower.decision(), Decision::Inconclusive);
    assert!(slower.junit().contains("errors=\"1\"") && slower.html().contains(&**said));

    slower.compare(&[report("m")]);
    let comparison = slower.comparison.as_ref().expect("it was compared");
    assert_eq!((comparison.finding, slower.decision()), (Change::None, Decision::Pass));
    assert!(slower.html().contains("Compared with the baseline"));
    assert!(slower.markdown().contains("No difference from the baseline was seen"));
    assert!(slower.table().to_string().ends_with("VERDICT: pass\n"));
}
