//! The search for the capacity, against a simulator whose capacity is known.

use std::fs;
use std::process::Output;
use std::thread;

use serde_json::Value;

use crate::support::*;

const MIX: &str = "[{ call: openai/chat, model: gpt-4o, stream: true, input_tokens: 20 }]";

/// A simulator whose calls take a fifth of a second, and what is asked of it.
struct Place {
    folder: Folder,
    simulator: Simulator,
    options: Vec<&'static str>,
}

impl Place {
    fn new(capacity: &'static str, objectives: &str) -> Self {
        Self::of(["--ttft", "140ms", "--tpot", "20ms", "--capacity", capacity], objectives)
    }

    /// One whose calls have four tokens.
    fn of(options: [&'static str; 6], objectives: &str) -> Self {
        let options = [&options[..], &["--output-tokens", "4"]].concat();
        let folder = Folder::new();
        let write = |name, text: &str| fs::write(folder.file(name), text).expect("a folder");
        write("mix.yaml", MIX);
        write("slo.yaml", &format!("objectives: [{objectives}]"));
        Self { simulator: Simulator::start(&options), folder, options }
    }

    fn path(&self, name: &str) -> String {
        self.folder.file(name).to_str().expect("a path of UTF-8").to_owned()
    }

    fn search(&self, more: &[&str]) -> (Output, Value) {
        let [mix, slo, json] = ["mix.yaml", "slo.yaml", "search.json"].map(|name| self.path(name));
        let own = ["load", "--target", &self.simulator.url, "--mix", &mix, "--slo", &slo];
        let own = own.into_iter().chain(["--json", &json, "--search-pause", "100ms", "--search"]);
        let output = tidegate(own.chain(more.iter().copied())).output().expect("it is built");
        let text = fs::read_to_string(&json).unwrap_or_else(|_| panic!("{}", said(&output)));
        (output, serde_json::from_str(&text).expect("in JSON"))
    }

    /// The highest rate in truth, by the simulator's own model.
    fn truth(&self) -> f64 {
        let [mix, slo] = ["mix.yaml", "slo.yaml"].map(|name| self.path(name));
        let own = ["sim", "--capacity-of", &slo, "--mix", &mix];
        let all = own.into_iter().chain(self.options.iter().copied());
        let output = tidegate(all).output().expect("it is built");
        let text = said(&output);
        let rate = text.split_once(" calls/s: the highest rate").map(|(rate, _)| rate.trim());
        rate.and_then(|rate| rate.parse().ok()).unwrap_or_else(|| panic!("{text}"))
    }
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_rate_is_bracketed_and_what_it_came_to_is_told_in_every_form() {
    // Four sequences answer twenty calls a second.
    let place = Place::new("4", "{ metric: duration, quantile: 0.5, below: 1s }");
    let [page, note, cases] = ["page.html", "note.md", "cases.xml"].map(|name| place.path(name));
    let more = ["--search-from", "6", "--duration", "3s", "--warm-up", "500ms", "--search-steps"];
    let forms = ["7", "--report", &page, "--markdown", &note, "--junit", &cases];
    let (output, report) = place.search(&[&more[..], &forms].concat());
    // So few short steps cannot tell it to 5 %.
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("VERDICT: inconclusive"), "{}", said(&output));
    assert_eq!((&report["found"], &report["what"]), (&"spent".into(), &"rate".into()));

    let steps = report["steps"].as_array().expect("steps");
    assert!((5..=7).contains(&steps.len()), "{report:#}");
    assert_eq!((&steps[0]["load"], &steps[0]["held"]), (&6.0.into(), &"held".into()));
    let too_much = steps.iter().find(|step| step["held"] == "missed").expect("one is too much");
    assert!(too_much["why"][0].is_string(), "{too_much:#}");
    let load = report["capacity"]["load"].as_f64().expect("a capacity");
    assert!((10.0..40.0).contains(&load), "{load}: {}", said(&output));
    assert!(report["curve"].as_array().is_some_and(|curve| curve.len() >= 3), "{report:#}");
    assert!(report["knee"]["load"].is_number(), "{report:#}");
    let read = |path: &str| fs::read_to_string(path).expect("it was written");
    assert!(read(&page).contains("Time to first token, over load"));
    assert!(read(&note).starts_with("## Search for the capacity: INCONCLUSIVE"));
    assert!(read(&cases).contains("<error type=\"inconclusive\""));
}

#[test]
fn the_most_users_are_those_whom_the_sequences_serve_in_time() {
    // Five users on four sequences wait 50 ms each time, six 100 ms, seven 150 ms.
    let place = Place::new("4", "{ metric: time_to_first_token, quantile: 0.5, below: 265ms }");
    let more = ["users", "--search-from", "2", "--search-to", "64", "--search-steps", "12"];
    let (output, report) = place.search(&[&more[..], &["--duration", "2s"]].concat());
    let load = report["capacity"]["load"].as_f64().expect("a capacity");
    assert!((5.0..=8.0).contains(&load), "{load}: {}", said(&output));
    assert_eq!(report["what"], "users");
    let held = &report["steps"][0];
    assert_eq!(
        (&held["load"], &held["users"], &held["held"]),
        (&2.0.into(), &2.into(), &"held".into())
    );
}

#[test]
fn what_not_even_one_call_keeps_has_no_capacity_and_what_all_keep_has_one_beyond() {
    let place = Place::new("4", "{ metric: duration, quantile: 0.5, below: 20ms }");
    let short = ["--duration", "1s", "--warm-up", "100ms"];
    let (output, report) = place.search(&[&["users", "--search-from", "2"], &short[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(report["found"], "none_holds");
    assert!(report["sentence"].as_str().expect("said").starts_with("Not even 1 user keeps"));

    let place = Place::new("64", "{ metric: duration, quantile: 0.5, below: 20s }");
    let few = ["users", "--search-from", "2", "--search-to", "4"];
    let (output, report) = place.search(&[&few, &short[..]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert_eq!(report["found"], "all_hold");
    let enough = ["--search-needs", "4"];
    let (output, _) = place.search(&[&few, &short[..], &enough].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn a_load_that_the_generator_cannot_make_is_no_capacity() {
    let place = Place::new("64", "{ metric: duration, quantile: 0.5, below: 20s }");
    // Three users make no hundred calls a second, though the server would bear them.
    let few = ["--users", "3", "--search-from", "100", "--duration", "1s", "--warm-up", "100ms"];
    let (output, report) = place.search(&few);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert_eq!(report["found"], "invalid");
    assert!(
        report["steps"].as_array().expect("steps").iter().all(|step| step["held"] == "invalid")
    );
    assert!(report["capacity"].is_null() && report["curve"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn what_the_other_side_says_stands_beside_the_times_of_each_load() {
    // Six users on four sequences: two of them wait.
    let place = Place::new("4", "{ metric: duration, quantile: 0.5, below: 20s }");
    let [page, note] = ["page.html", "note.md"].map(|name| place.path(name));
    let metrics = format!("{}/metrics", place.simulator.url);
    let more = ["users", "--search-from", "2", "--search-to", "6", "--search-steps", "3"];
    let watched = ["--scrape", &metrics, "--duration", "4s", "--warm-up", "500ms"];
    let forms = ["--report", &page, "--markdown", &note];
    let (output, report) = place.search(&[&more[..], &watched, &forms].concat());
    let steps = report["steps"].as_array().expect("steps");
    let said = |step: &Value, what: &str, of: &str| step["other_side"][what][of].as_f64();
    let (light, heavy) = (&steps[0], steps.last().expect("a step"));
    assert_eq!(
        (&light["load"], &heavy["load"]),
        (&2.0.into(), &6.0.into()),
        "{}",
        self::said(&output)
    );
    assert_eq!(said(light, "waiting", "most"), Some(0.0), "{light:#}");
    assert!(said(heavy, "waiting", "mean") > Some(0.5), "{heavy:#}");
    assert!(said(heavy, "waiting", "most") <= Some(2.0), "{heavy:#}");
    assert!(said(light, "gpu", "mean") < Some(0.7) && said(heavy, "gpu", "mean") > Some(0.7));
    for what in ["waiting", "running", "cache", "gpu"] {
        let place = report["curve"].as_array().and_then(|curve| curve.last()).expect("a curve");
        assert!(said(place, what, "mean").is_some(), "{what}: {place:#}");
    }
    let read = |path: &str| fs::read_to_string(path).expect("it was written");
    assert!(read(&page).contains("Calls that wait at the other side, over load"));
    assert!(read(&note).contains("| waiting | running | cache | GPU |"));
    assert!(
        self::said(&output).contains("waiting  running  cache   GPU"),
        "{}",
        self::said(&output)
    );
}

#[test]
fn what_goes_together_with_no_search_is_refused() {
    let place = Place::new("4", "{ metric: calls_per_second, above: 3 }");
    let [slo, baseline] = [place.path("slo.yaml"), place.path("none.json")];
    let refused = |more: &[&str]| {
        let own = ["load", "--target", "http://127.0.0.1:1", "--search"];
        let output = tidegate(own.into_iter().chain(more.iter().copied())).output();
        let output = output.expect("it is built");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    };
    assert!(refused(&[]).contains("--slo"));
    assert!(refused(&["--slo", &slo]).contains("calls_per_second rises with the load"));
    assert!(refused(&["--slo", &slo, "--rate", "3"]).contains("cannot be used with"));
    assert!(
        refused(&["--slo", &slo, "--baseline", &baseline])
            .contains("--baseline is of a single run")
    );
    let crossed = ["--slo", &slo, "--search-from", "9", "--search-to", "3"];
    assert!(refused(&crossed).contains("--search-from 9 is above --search-to 3"));
}

/// The figure that is promised: nine of ten searches come within 5 % of the truth.
#[test]
#[ignore = "an hour: tests/run --long makes it"]
fn nine_of_ten_searches_come_within_five_percent_of_the_truth() {
    const AT_ONCE: usize = 2;
    let objectives = "{ metric: time_to_first_token, quantile: 0.95, below: 1s }";
    // Calls of a second: what a busy machine adds to each is little of that.
    let options = ["--ttft", "700ms", "--tpot", "100ms", "--capacity", "32"];
    let places: Vec<_> = (0..10).map(|_| Place::of(options, objectives)).collect();
    let truth = places[0].truth();
    let search = |(number, place): (usize, &Place)| {
        let seed = (100 * number + 1).to_string();
        let more = ["--search-from", "16", "--duration", "15s", "--seed", &seed];
        let (output, report) = place.search(&more);
        let load = report["capacity"]["load"].as_f64();
        println!(
            "{:?} of {truth}: {}, exit code {:?}",
            load,
            report["sentence"],
            output.status.code()
        );
        load.is_some_and(|load| (load / truth - 1.0).abs() < 0.05)
    };
    let numbered: Vec<_> = places.iter().enumerate().collect();
    let mut near = 0;
    for some in numbered.chunks(AT_ONCE) {
        near += thread::scope(|scope| {
            let searches: Vec<_> = some.iter().map(|one| scope.spawn(|| search(*one))).collect();
            let joined = searches.into_iter().map(|one| one.join().expect("no search panics"));
            joined.filter(|is_near| *is_near).count()
        });
    }
    assert!(near >= 9, "{near} of 10");
}
