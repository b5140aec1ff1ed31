//! What the other side says of a load test: the sidecar's records, joined with the client's, and the
//! metrics of sidecar and model server.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::support::*;

const MIX: &str = "[{ call: openai/chat, model: gemma, stream: true, output_tokens: 8 }]";

/// A load test through a sidecar before a simulator with two places.
struct Stand {
    simulator: Simulator,
    sidecar: Sidecar,
    folder: Folder,
}

impl Stand {
    fn start() -> Self {
        let simulator = Simulator::start(&["--ttft", "30ms", "--tpot", "2ms", "--capacity", "2"]);
        let sidecar = Launch::new().arg("--upstream").arg(&simulator.url).start();
        let folder = Folder::new();
        fs::write(folder.file("mix.yaml"), MIX).expect("a folder to write to");
        Self { simulator, sidecar, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.file(name).to_str().expect("a path of UTF-8").to_owned()
    }

    /// A load test with these flags besides.
    fn load(&self, more: &[&str]) -> Output {
        let target = format!("http://{}", self.sidecar.address);
        let (mix, json) = (self.path("mix.yaml"), self.path("run.json"));
        let own = ["load", "--target", &target, "--mix", &mix, "--json", &json, "--users", "4"];
        let output = tidegate(own.into_iter().chain(more.iter().copied())).output();
        output.expect("the program is built")
    }

    fn report(&self) -> Value {
        let text = fs::read_to_string(self.folder.file("run.json")).expect("a report");
        serde_json::from_str(&text).expect("in JSON")
    }
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn series<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["other_side"].as_array().expect("series");
    all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} in {all:?}"))
}

#[test]
fn each_call_is_joined_with_the_record_of_the_sidecar() {
    let stand = Stand::start();
    let admin = format!("http://{}", stand.sidecar.admin);
    let (page, markdown) = (stand.path("page.html"), stand.path("run.md"));
    let more = ["--duration", "2s", "--warm-up", "500ms", "--sidecar", &admin];
    let output = stand.load(&[&more[..], &["--report", &page, "--markdown", &markdown]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let report = stand.report();
    let (places, calls) = (&report["places"], report["total"]["calls"].as_u64());
    assert!(calls > Some(10), "{calls:?} calls");
    assert_eq!((places["calls"].as_u64(), &places["missing"]), (calls, &0.into()));
    assert_eq!(places["differing"], 0, "both saw the same statuses and tokens");

    // The simulator alone takes 30 ms to the first token, and 14 more to the last.
    let median = |time: &str, part: &str| places[time][part]["p50"].as_f64().expect("a time");
    assert!(median("first_token_s", "upstream") > 0.029);
    assert!(median("duration_s", "upstream") > 0.043);
    for part in ["network", "sidecar", "upstream"] {
        assert_eq!(places["first_token_s"][part]["count"].as_u64(), calls, "{part}");
    }
    let service = report["total"]["service_time_to_first_token_s"]["mean"].as_f64();
    let mean = |part: &str| places["first_token_s"][part]["mean"].as_f64().expect("a mean");
    let sum = mean("network") + mean("sidecar") + mean("upstream");
    let gap = (sum / service.expect("a mean") - 1.0).abs();
    assert!(gap < 0.01, "the parts add up to the whole: {sum} and {service:?}");

    assert!(series(&report, "tidegate_calls_in_flight")["most"].as_f64() > Some(0.0));
    let shown = fs::read_to_string(&page).expect("a page");
    assert!(shown.contains("Where the time went") && shown.contains("tidegate_calls_in_flight"));
    assert!(fs::read_to_string(&markdown).expect("Markdown").contains("| upstream |"));
    assert!(said(&output).contains("where the time went"), "{}", said(&output));
}

#[test]
fn metrics_of_the_model_server_stand_beside_the_latency() {
    let stand = Stand::start();
    let scrape = format!("{}/metrics?key=of-no-interest", stand.simulator.url);
    let more = ["--scrape", &scrape, "--scrape-also", "vllm:generation_*", "--duration", "4s"];
    let output = stand.load(&more);
    assert!(output.status.success(), "{}", said(&output));
    let report = stand.report();
    assert_eq!(report["places"], Value::Null, "no sidecar was asked");
    // Four users and two places: two wait, most of the time.
    let waiting = series(&report, "vllm:num_requests_waiting");
    assert!(waiting["most"].as_f64() >= Some(1.0), "{waiting}");
    assert_eq!(waiting["source"], format!("{}/metrics", stand.simulator.url));
    assert_eq!(series(&report, "vllm:num_requests_running")["most"], 2.0);
    assert_eq!(series(&report, "vllm:request_queue_time_seconds")["shows"], "mean");
    let tokens = series(&report, "vllm:generation_tokens_total");
    assert_eq!(tokens["shows"], "a second");
    let rate = report["total"]["output_tokens_per_s"].as_f64().expect("a rate");
    let seen = tokens["most"].as_f64().expect("a rate");
    assert!(seen > rate / 2.0 && seen < rate * 2.0, "{seen} where the client saw {rate}");
    assert!(!said(&output).contains("of-no-interest"));
}

#[test]
fn who_does_not_answer_is_missed_before_the_run_and_not_after() {
    let stand = Stand::start();
    let nobody = format!("http://{}", nowhere());
    let admin = format!("http://{}", stand.sidecar.admin);
    let listens = format!("http://{}", stand.sidecar.address);
    for (flag, url, advice) in [
        ("--scrape", &nobody, "cannot read"),
        ("--scrape", &format!("{admin}/nothing"), "answers 404 and not with metrics"),
        ("--scrape", &format!("{admin}/readyz"), "shows no metrics in the text format"),
        ("--sidecar", &nobody, "cannot read"),
        ("--sidecar", &listens, "answers 404 and not with the calls of a sidecar"),
        ("--sidecar", &"http://ada:PASSWORD@a".to_owned(), "neither user nor password"),
        ("--sidecar", &"http://ada:PASSWORD@a b".to_owned(), "no URL such as"),
        ("--scrape", &"a:b".to_owned(), "http://"),
    ] {
        let output = stand.load(&["--duration", "1s", flag, url]);
        assert_eq!(output.status.code(), Some(2), "{flag} {url}: {}", said(&output));
        assert!(said(&output).contains(advice), "{flag} {url}: {}", said(&output));
        assert!(!said(&output).contains("PASSWORD"), "{}", said(&output));
    }
    assert_eq!(stand.simulator.served()["calls"], 0, "no call was made");
}
