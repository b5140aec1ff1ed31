//! A configuration that is read again: all of it or nothing, and no call is the worse for it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use crate::support::*;

/// An upstream that says its name.
fn named(name: &str) -> Upstream {
    Upstream::answering(answer(&format!("\"{name}\"")))
}

/// Everything goes to the first of these upstreams; they are called a, b, c.
fn everything_to(upstreams: &[&Upstream], rest: &str) -> String {
    let upstream = |(name, upstream): (char, &&Upstream)| {
        format!("  {name}: {{ url: '{}' }}\n", upstream.url())
    };
    let upstreams: String = ('a'..='z').zip(upstreams).map(upstream).collect();
    format!("upstreams:\n{upstreams}routes: [{{ upstream: a }}]\n{rest}")
}

/// Puts another text in the place of the configuration, at once.
fn rewrite(sidecar: &Sidecar, text: &str) {
    let next = sidecar.file("next.yaml");
    fs::write(&next, text).expect("a folder to write to");
    fs::rename(next, sidecar.file("tidegate.yaml")).expect("a folder to write to");
}

/// How often the configuration was read again with this result.
fn reloads(sidecar: &Sidecar, result: &str) -> f64 {
    let text = sidecar.ask("/metrics").text();
    let name = format!("tidegate_config_reloads_total{{result=\"{result}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&name)).expect("it is counted");
    count.parse().expect("a number")
}

/// Has the sidecar read this by SIGHUP, and waits until it has.
fn reload(sidecar: &Sidecar, text: &str, result: &str) {
    let before = reloads(sidecar, result);
    rewrite(sidecar, text);
    sidecar.signal("HUP");
    wait_until("the configuration is read", || reloads(sidecar, result) > before);
}

#[test]
fn new_calls_go_by_a_new_configuration_on_connections_that_were_open_before() {
    let (a, b) = (named("a"), named("b"));
    let sidecar = Launch::new().config(&everything_to(&[&a], "")).start();
    let mut callers: Vec<_> = (0..8).map(|_| sidecar.connect()).collect();
    for caller in &mut callers {
        assert_eq!(caller.call(call()).json(), "a");
    }
    let loaded = sidecar.metric("tidegate_config_loaded_timestamp_seconds");
    reload(&sidecar, &everything_to(&[&b], ""), "good");
    for caller in &mut callers {
        assert_eq!(caller.call(call()).json(), "b");
    }
    a.wait_for_closed(a.connections());
    assert!(sidecar.metric("tidegate_config_loaded_timestamp_seconds") >= loaded);
    assert_eq!(sidecar.metric("tidegate_config_last_reload_good"), 1.0);
    drop(callers);
    sidecar.finish().iter().for_each(|record| assert_outcome(record, "completed", None));
}

#[test]
fn a_file_that_changes_is_read_without_a_signal_and_once() {
    let (a, b) = (named("a"), named("b"));
    let sidecar = Launch::new().config(&everything_to(&[&a], "")).start();
    rewrite(&sidecar, &everything_to(&[&b], ""));
    wait_until("calls go to b", || sidecar.call(call()).json() == "b");
    // In place, too.
    fs::write(sidecar.file("tidegate.yaml"), everything_to(&[&a], "")).expect("it can be written");
    wait_until("calls go to a", || sidecar.call(call()).json() == "a");
    // It counts once all workers have taken it up.
    wait_until("both are counted", || reloads(&sidecar, "good") == 2.0);
    assert_eq!(reloads(&sidecar, "bad"), 0.0);
}

/// As the kubelet changes a ConfigMap: the file is a link into a folder, which is a link to another.
#[test]
fn a_config_map_that_changes_is_followed() {
    let (a, b) = (named("a"), named("b"));
    let folder = Folder::new();
    let version = |name: &str, text: &str| {
        fs::create_dir(folder.file(name)).expect("a folder to write to");
        fs::write(folder.file(name).join("tidegate.yaml"), text).expect("a folder to write to");
    };
    version("..1", &everything_to(&[&a], ""));
    version("..2", &everything_to(&[&b], ""));
    symlink("..1", folder.file("..data")).expect("a link");
    symlink(Path::new("..data").join("tidegate.yaml"), folder.file("tidegate.yaml"))
        .expect("a link");
    let path = folder.file("tidegate.yaml");
    let path = path.to_str().expect("a path of ours");
    let sidecar = Launch::new().arg("--config").arg(path).start();
    assert_eq!(sidecar.call(call()).json(), "a");
    symlink("..2", folder.file("..data_tmp")).expect("a link");
    fs::rename(folder.file("..data_tmp"), folder.file("..data")).expect("a link");
    wait_until("calls go to b", || sidecar.call(call()).json() == "b");
}

#[test]
fn flags_count_more_than_a_file_that_is_read_again() {
    let (a, b) = (named("a"), named("b"));
    let sidecar = Sidecar::with(&a, "");
    reload(&sidecar, &everything_to(&[&b], "workers: 7\nlisten: 127.0.0.1:1\n"), "good");
    assert_eq!(sidecar.call(call()).json(), "a");
    assert!(!sidecar.log().contains("restart"), "{}", sidecar.log());
}

/// Calls without a pause, until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    callers: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(sidecar: &Sidecar) -> Self {
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let caller = |_| {
            let (stop, good, mut wire) = (stop.clone(), good.clone(), sidecar.connect());
            thread::spawn(move || {
                while !stop.load(SeqCst) {
                    assert_eq!(wire.call(call()).status(), 200);
                    good.fetch_add(1, SeqCst);
                }
            })
        };
        let callers = (0..4).map(caller).collect();
        Self { stop, good, callers }
    }

    /// Waits until so many calls more have been served.
    fn more(&self, calls: usize) {
        let before = self.good.load(SeqCst);
        wait_until("more calls are served", || self.good.load(SeqCst) >= before + calls);
    }

    /// How many calls there were, of which none has failed.
    fn finish(self) -> usize {
        self.stop.store(true, SeqCst);
        for caller in self.callers {
            caller.join().expect("no call has failed");
        }
        self.good.load(SeqCst)
    }
}

#[test]
fn a_bad_configuration_changes_nothing_and_is_said_loudly() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let good = everything_to(&[&upstream], "");
    let sidecar = Launch::new().config(&good).start();
    let load = Load::start(&sidecar);
    for (text, told) in [
        ("upstreams: {".to_owned(), "tidegate.yaml: line 1"),
        (String::new(), "there is nowhere to send calls to"),
        (format!("{good}timeouts:\n  idel: 3s\n"), "line 5 column 3"),
        (format!("{good}timeouts:\n  idel: 3s\n"), "did you mean `idle`?"),
        (format!("{good}prices: none.yaml\n"), "none.yaml"),
        (good.replace("upstream: a", "upstream: x"), "there is no upstream `x`"),
        (good.replace("' }", "', credential: { bearer: { env: NONE } } }"), "NONE is not set"),
        (good.replace("http://", "ftp://"), "does not begin with http"),
    ] {
        reload(&sidecar, &text, "bad");
        assert_eq!(sidecar.metric("tidegate_config_last_reload_good"), 0.0);
        let log = sidecar.log();
        let line = log.lines().rfind(|line| line.contains("ERROR")).expect("it is said");
        assert!(line.contains(told), "{told}: {line}");
        load.more(20);
    }
    reload(&sidecar, &good, "good");
    assert_eq!(sidecar.metric("tidegate_config_last_reload_good"), 1.0);
    load.more(20);
    let calls = load.finish();
    assert!(upstream.connections() <= 8, "no connection was dropped: {}", upstream.connections());
    let records = sidecar.finish();
    assert_eq!(records.len(), calls);
    records.iter().for_each(|record| assert_outcome(record, "completed", None));
}

#[test]
fn a_file_that_is_gone_changes_nothing() {
    let upstream = named("a");
    let sidecar = Launch::new().config(&everything_to(&[&upstream], "")).start();
    fs::remove_file(sidecar.file("tidegate.yaml")).expect("it is there");
    wait_until("it is missed", || reloads(&sidecar, "bad") == 1.0);
    assert!(sidecar.log().contains("tidegate.yaml: No such file"), "{}", sidecar.log());
    assert_eq!(sidecar.call(call()).json(), "a");
}

#[test]
fn what_needs_a_restart_is_told_by_its_keys_and_stays_as_it_was() {
    let (a, b) = (named("a"), named("b"));
    let folder = Folder::new();
    let records = folder.file("records.jsonl");
    let launch = Launch::new().config(&everything_to(&[&a], ""));
    let sidecar = launch.start();
    let rest = format!(
        "health: 127.0.0.1:1\nrecords: {}\ncapture_content: true\nlimits: {{ jobs: 7 }}\notlp: {{ interval: 1s }}\n",
        records.display()
    );
    reload(&sidecar, &everything_to(&[&b], &rest), "good");
    wait_until("it is told", || sidecar.log().contains("restart"));
    let log = sidecar.log();
    let line = log.lines().find(|line| line.contains("restart")).expect("it was told");
    for key in ["health", "capture_content", "limits.jobs", "otlp"] {
        assert!(line.contains(key), "{key}: {line}");
    }
    assert!(!line.contains("records"), "a flag counts more: {line}");
    assert_eq!(sidecar.call(call()).json(), "b", "the rest is in use");
    assert!(!records.exists());
}

#[test]
fn an_upstream_that_is_the_same_keeps_its_connections_and_one_that_is_not_gets_others() {
    let (a, b) = (named("a"), named("b"));
    let config = |b_rest: &str| {
        format!(
            "upstreams: {{ a: {{ url: '{}' }}, b: {{ url: '{}'{b_rest} }} }}\nroutes: [{{ match: {{ path: '/a' }}, upstream: a }}, {{ upstream: b }}]\n",
            a.url(),
            b.url()
        )
    };
    let sidecar = Launch::new().config(&config("")).start();
    let mut caller = sidecar.connect();
    for round in 0..5 {
        assert_eq!(caller.call(post("/a", "{}")).json(), "a");
        assert_eq!(caller.call(post("/b", "{}")).json(), "b");
        reload(&sidecar, &config(&format!(", region: r{round}")), "good");
        b.wait_for_closed(round + 1);
    }
    assert_eq!(caller.call(post("/a", "{}")).json(), "a");
    assert_eq!(caller.call(post("/b", "{}")).json(), "b");
    assert_eq!((a.connections(), b.connections()), (1, 6));
}

#[test]
fn credentials_that_are_the_same_stay_and_others_come_and_go() {
    let upstreams = ["a", "b"].map(named);
    let config = |a: &str, b: &str| {
        let [to_a, to_b] = upstreams.each_ref().map(Upstream::url);
        format!(
            "upstreams:\n  a: {{ url: '{to_a}'{a} }}\n  b: {{ url: '{to_b}'{b} }}\nroutes: [{{ match: {{ path: '/a' }}, upstream: a }}, {{ upstream: b }}]\n"
        )
    };
    let from = |file: &str| format!(", credential: {{ bearer: {{ file: {file} }} }}");
    let launch = Launch::new().config(&config(&from("missing"), &from("one")));
    for key in ["one", "two"] {
        fs::write(launch.file(key), key).expect("a folder to write to");
    }
    let sidecar = launch.start();
    let failures = || sidecar.metric("tidegate_credential_failures_total");
    let bearer = || {
        sidecar.call(bare_post("/b", "{}"));
        let last = upstreams[1].requests().pop().expect("a call has come");
        last.header("authorization").map(str::to_owned)
    };
    assert_eq!(bearer().as_deref(), Some("Bearer one"));
    wait_until("some fetches have failed", || failures() >= 2.0);
    reload(&sidecar, &config(&from("missing"), &from("two")), "good");
    assert!(failures() >= 2.0, "the credential of a was made anew");
    assert_eq!(bearer().as_deref(), Some("Bearer two"));
    reload(&sidecar, &config("", ""), "good");
    assert_eq!(bearer(), None);
    assert!(!sidecar.ask("/metrics").text().contains("tidegate_credential_"));
    assert_eq!(sidecar.call(post("/a", "{}")).status(), 200);
}

#[test]
fn a_hundred_reloads_under_load_leave_nothing_behind() {
    const RELOADS: usize = 100;
    let gate = Gate::default();
    let go = gate.clone();
    let streaming = Upstream::new(move |mut peer| {
        peer.request().expect("a call");
        peer.wire.send(format!("{STREAM_HEAD}{}", chunk(TOKEN)));
        go.pass();
        peer.wire.send([&chunk(FINISH), &chunk(DONE), LAST_CHUNK].concat());
        peer.closed();
    });
    let upstream = Upstream::answering(answer(COMPLETION));
    let with_stream = format!(
        "upstreams: {{ a: {{ url: '{}' }}, s: {{ url: '{}' }} }}\nroutes: [{{ name: gone, match: {{ path: /stream }}, upstream: s }}, {{ upstream: a }}]\n",
        upstream.url(),
        streaming.url()
    );
    let sidecar = Launch::new().config(&with_stream).start();
    let mut stream = sidecar.connect();
    stream.send(post("/stream", r#"{"stream":true}"#));
    stream.through(b"hi").expect("a token");

    let load = Load::start(&sidecar);
    // Every other generation has other connections.
    let another = |number: usize| {
        everything_to(&[&upstream], &format!("timeouts: {{ connect: {}s }}\n", 1 + number / 2))
    };
    let mut at_first = (0, 0);
    for number in 0..RELOADS {
        reload(&sidecar, &another(number), "good");
        load.more(4);
        if number == RELOADS / 5 {
            at_first = (sidecar.threads(), sidecar.memory_kib());
        }
    }
    assert_eq!(sidecar.threads(), at_first.0);
    let grown = sidecar.memory_kib().saturating_sub(at_first.1);
    assert!(grown < 4 << 10, "{grown} KiB more than at first");
    gate.open();
    stream.through(format!("{DONE}\r\n{LAST_CHUNK}").as_bytes()).expect("the whole stream");
    streaming.wait_closed();
    let calls = load.finish();
    let current = 4;
    upstream.wait_for_closed(upstream.connections().saturating_sub(current));

    drop(stream);
    let records = sidecar.finish();
    assert_eq!(records.len(), calls + 1);
    records.iter().for_each(|record| assert_outcome(record, "completed", None));
    assert!(records.iter().any(|record| record["tidegate.route"] == "gone"));
}

#[test]
fn a_table_of_prices_beside_it_is_read_again_too() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let table = |dollars: u32| {
        format!(
            "version: v{dollars}\nprices:\n  - {{ models: [gpt-4o], input: {dollars}, output: 0 }}\n"
        )
    };
    let launch = Launch::new().config(&everything_to(&[&upstream], "prices: prices.yaml\n"));
    fs::write(launch.file("prices.yaml"), table(1)).expect("a folder to write to");
    let sidecar = launch.start();
    sidecar.call(call());
    fs::write(sidecar.file("prices.yaml"), table(2)).expect("a folder to write to");
    wait_until("the table is read", || reloads(&sidecar, "good") == 1.0);
    sidecar.call(call());
    let prices =
        sidecar.finish().into_iter().map(|mut record| record["tidegate.cost.prices"].take());
    assert_eq!(prices.collect::<Vec<_>>(), ["v1", "v2"]);
}

#[test]
fn the_configuration_in_use_is_shown_without_secrets() {
    let (a, b) = (named("a"), named("b"));
    let rest = "otlp: { endpoint: 'http://user:canary@127.0.0.1:1', headers: { a: canary } }\n";
    let sidecar = Launch::new().config(&everything_to(&[&a], rest)).start();
    let shown = sidecar.ask("/config");
    assert_eq!(shown.header("content-type"), Some("application/json"));
    let before = shown.json();
    assert_eq!(before["config"]["upstreams"]["a"]["url"], a.url());
    assert_eq!(before["config"]["timeouts"]["connect"], "5s");
    assert_eq!(before["config"]["workers"], 2);
    assert!(!shown.text().contains("canary"), "{}", shown.text());

    reload(&sidecar, &everything_to(&[&b], rest), "good");
    reload(&sidecar, "routes: 3", "bad");
    let after = sidecar.ask("/config").json();
    assert_eq!(after["config"]["upstreams"]["a"]["url"], b.url());
    let loaded = |shown: &serde_json::Value| shown["loaded"].as_str().map(str::to_owned);
    assert!(loaded(&after) > loaded(&before), "{before} {after}");
}

#[test]
fn the_state_of_policies_is_shown_for_all_workers_together() {
    let upstreams = ["a", "b"].map(named);
    let config = everything_to(&[&upstreams[0], &upstreams[1]], "");
    let url = format!("'{}' }}", upstreams[0].url());
    let signed = url.replace(" }", ", credential: { bearer: { file: key } } }");
    let launch = Launch::new().config(&config.replace(&url, &signed));
    fs::write(launch.file("key"), "canary").expect("a folder to write to");
    let sidecar = launch.start();
    assert!(sidecar.log().contains("upstreams.b: no route leads to it"), "{}", sidecar.log());
    let mut callers: Vec<_> = (0..6).map(|_| sidecar.connect()).collect();
    // One after the other, so that a worker's next call finds the connection of the last.
    callers.iter_mut().for_each(|caller| assert_eq!(caller.call(call()).json(), "a"));
    let state = sidecar.ask("/policies");
    let json = state.json();
    assert_eq!(json["connections"]["a"]["idle"], upstreams[0].connections());
    assert_eq!(json["connections"]["b"]["idle"], 0);
    assert_eq!(json["credentials"]["a"]["failures"], 0);
    assert!(json["credentials"]["a"]["age_s"].is_u64(), "{json}");
    assert!(!state.text().contains("canary"), "{}", state.text());
}

#[test]
fn check_tells_what_is_said_in_vain_and_still_finds_it_good() {
    let folder = Folder::new();
    let path = folder.file("tidegate.yaml");
    let text = "upstreams:\n  a: { url: 'http://a' }\n  b: { url: 'http://b' }\nroutes:\n- { upstream: a }\n- { match: { path: /x }, upstream: a }\n";
    fs::write(&path, text).expect("a folder to write to");
    let name = path.to_str().expect("a path of ours");
    let output = tidegate(["check", name]).output().expect("the program is built");
    assert!(output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    let warnings = [
        format!(
            "warning: {name}: line 6 column 3: routes[1]: takes no call: routes[0] takes all that it could"
        ),
        format!("warning: {name}: line 3 column 3: upstreams.b: no route leads to it"),
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), warnings);
}
