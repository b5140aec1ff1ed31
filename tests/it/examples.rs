//! The examples of the configuration: each is good, and does what its comments say. Their own text is
//! run, with local upstreams where it names those of providers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use crate::support::*;

/// What the examples name of the environment.
const ENVIRONMENT: [(&str, &str); 2] =
    [("VLLM_API_KEY", canary::API_KEY), ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")];
const CLAUDE: &str = "/model/us.anthropic.claude-sonnet-4-20250514-v1%3A0/converse";
const PRO: &str =
    "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-2.5-pro:generateContent";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")
}

/// An example with other texts in the place of these, each of which must be there.
fn example(name: &str, others: &[(&str, &str)]) -> String {
    let text = fs::read_to_string(folder().join(name)).expect("the example is there");
    others.iter().fold(text, |text, (own, other)| {
        assert!(text.contains(own), "{name} has no {own}");
        text.replace(own, other)
    })
}

/// This configuration, with the environment that examples need, and Google's tokens from a server of ours.
fn start(config: &str, tokens: &Upstream) -> Sidecar {
    let launch = ENVIRONMENT
        .iter()
        .fold(Launch::new().config(config), |launch, (name, value)| launch.env(name, value));
    let user = format!(
        r#"{{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r","token_uri":"{}/token"}}"#,
        tokens.url()
    );
    let file = launch.file("user.json");
    fs::write(&file, user).expect("a folder to write to");
    launch.env("GOOGLE_APPLICATION_CREDENTIALS", file).start()
}

/// Gives out access tokens.
fn tokens() -> Upstream {
    let token =
        r#"{"access_token":"tidecanary-token-tidecanary","expires_in":3600,"token_type":"Bearer"}"#;
    Upstream::answering(answer(token))
}

fn failing() -> Upstream {
    Upstream::answering(answer_with(503, "{}"))
}

fn well() -> Upstream {
    Upstream::answering(answer(COMPLETION))
}

/// The calls that an upstream had, without the questions of a health check.
fn calls(upstream: &Upstream) -> Vec<Message> {
    let requests = upstream.requests().into_iter();
    requests.filter(|request| request.line.starts_with("POST")).collect()
}

#[test]
fn every_example_is_checked_without_a_word() {
    let files = fs::read_dir(folder()).expect("there are examples");
    let paths = files.map(|file| file.expect("it can be listed").path());
    // Objectives are another kind of file, and have their own test.
    let checked = paths.filter(|path| path.is_file() && !path.ends_with("slo.yaml")).map(|path| {
        let path = path.to_str().expect("a path of UTF-8");
        let output = tidegate(["check", path]).envs(ENVIRONMENT).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{path}: {told}");
        assert_eq!(told, "", "{path}");
    });
    assert!(checked.count() >= 6);
}

#[test]
fn every_example_names_the_schema_that_lies_beside_the_reference() {
    for file in fs::read_dir(folder()).expect("there are examples") {
        let path = file.expect("it can be listed").path();
        if path.is_dir() {
            continue;
        }
        let text = fs::read_to_string(&path).expect("it can be read");
        let first = text.lines().next().and_then(|line| line.split_once("$schema="));
        let (_, schema) = first.unwrap_or_else(|| panic!("{}: no schema", path.display()));
        assert!(folder().join(schema).is_file(), "{}: {schema}", path.display());
    }
}

/// Whether a request asks for what is named so, in its path.
fn asks(request: &Message, part: &str) -> bool {
    request.target().contains(part)
}

#[test]
fn gemini_pro_falls_back_to_another_location_and_then_to_flash() {
    // The places in the order of the targets, and how many attempts each one gets.
    let places = [
        ("/us-central1/", "pro"),
        ("/europe-west4/", "pro"),
        ("/us-central1/", "flash"),
        ("/europe-west4/", "flash"),
    ];
    for (status, well_at, attempts) in [(503, 1, 3), (429, 1, 2), (429, 2, 3), (429, 3, 4)] {
        let is_well = move |request: &Message| {
            let (location, model) = places[well_at];
            asks(request, location) && asks(request, model)
        };
        let has_begun = Arc::new(AtomicBool::new(false));
        let begun = has_begun.clone();
        let vertex = Upstream::new(move |mut peer| {
            while let Some(request) = peer.request() {
                let is_well = !begun.load(SeqCst) || is_well(&request);
                peer.wire.send(answer_with(if is_well { 200 } else { status }, "{}"));
            }
        });
        let at = format!(
            "\"http://{{location}}-aiplatform.googleapis.com\"\n    address: {}",
            vertex.address
        );
        let url = "\"https://{location}-aiplatform.googleapis.com\"";
        let sidecar = start(&example("vertex-with-flash-fallback.yaml", &[(url, &at)]), &tokens());
        // A model that was answered once has a breaker and a gate of its own.
        for (location, model) in places {
            let path = PRO.replace("/us-central1/", location).replace("pro:", &format!("{model}:"));
            assert_eq!(sidecar.call(post(&path, "{}")).status(), 200);
        }
        has_begun.store(true, SeqCst);
        let reply = sidecar.call(post(PRO, r#"{"contents":[]}"#));
        assert_eq!(reply.status(), 200, "{status}: {:?}", vertex.requests());
        let requests = vertex.requests().split_off(places.len());
        assert_eq!(requests.len(), attempts, "{requests:?}");
        let last = requests.last().expect("a request");
        assert!(is_well(last), "{last:?}");
        let host = last.header("host").expect("a host");
        assert!(host.starts_with(places[well_at].0.trim_matches('/')), "{host}");
        for request in &requests {
            assert_eq!(request.header("authorization"), Some("Bearer tidecanary-token-tidecanary"));
            assert!(!format!("{request:?}").contains(canary::OF_CALLER), "{request:?}");
        }
        let records = sidecar.finish();
        let record = records
            .iter()
            .find(|record| !record["tidegate.fallback"].is_null())
            .expect("a call went elsewhere");
        assert_outcome(record, "completed", None);
        assert_eq!(record["tidegate.fallback"], well_at);
        assert_eq!(record["tidegate.attempts"], attempts);
    }
}

#[test]
fn bedrock_goes_to_the_other_region_signed_for_it() {
    for (status, attempts) in [(503, 2), (429, 1)] {
        let (east, west) = (Upstream::answering(answer_with(status, "{}")), well());
        let [at_east, at_west] =
            [("us-east-1", &east), ("us-west-2", &west)].map(|(region, upstream)| {
                format!(
                    "http://bedrock-runtime.{region}.amazonaws.com\n    address: {}",
                    upstream.address
                )
            });
        let config = example(
            "bedrock-in-two-regions.yaml",
            &[
                ("https://bedrock-runtime.us-east-1.amazonaws.com", &at_east),
                ("https://bedrock-runtime.us-west-2.amazonaws.com", &at_west),
            ],
        );
        let sidecar = start(&config, &tokens());
        let reply = sidecar.call(post(CLAUDE, r#"{"messages":[]}"#));
        assert_eq!(
            (reply.status(), reply.header("x-tidegate-fallback")),
            (200, Some("bedrock-west"))
        );
        assert_eq!(east.requests().len(), attempts);
        for (upstream, region) in [(&east, "us-east-1"), (&west, "us-west-2")] {
            let request = upstream.requests().pop().expect("a request");
            assert_eq!(request.target(), CLAUDE);
            assert_eq!(request.text(), r#"{"messages":[]}"#);
            let host = format!("bedrock-runtime.{region}.amazonaws.com");
            assert_eq!(request.header("host"), Some(host.as_str()));
            let signature = request.header("authorization").expect("a signature");
            assert!(signature.contains(&format!("/{region}/bedrock/aws4_request")), "{signature}");
        }
        assert_eq!(sidecar.finish()[0]["cloud.region"], "us-west-2");
    }
}

/// The third example, with these servers in the cluster and this Vertex AI.
fn vllm(first: &Upstream, second: &Upstream, vertex: &Upstream, limit: &str) -> Sidecar {
    let at = format!(
        "http://us-central1-aiplatform.googleapis.com/v1/projects/my-project/locations/us-central1/endpoints/openapi\n    address: {}",
        vertex.address
    );
    let config = example(
        "vllm-with-vertex-behind.yaml",
        &[
            ("http://vllm-0.vllm.default.svc:8000", &first.url()),
            ("http://vllm-1.vllm.default.svc:8000", &second.url()),
            (
                "https://us-central1-aiplatform.googleapis.com/v1/projects/my-project/locations/us-central1/endpoints/openapi",
                &at,
            ),
            ("concurrency: 128", limit),
            ("queue: 64", "queue: 0"),
        ],
    );
    start(&config, &tokens())
}

/// Asserts that this is the call as Vertex AI knows it.
#[track_caller]
fn assert_for_vertex(request: &Message) {
    let path = "/v1/projects/my-project/locations/us-central1/endpoints/openapi/chat/completions";
    assert_eq!(request.target(), path);
    assert_eq!(request.text(), r#"{"model":"google/gemini-2.5-flash","n":1}"#);
    assert_eq!(request.header("authorization"), Some("Bearer tidecanary-token-tidecanary"));
    assert!(!format!("{request:?}").contains(canary::OF_CALLER), "{request:?}");
}

fn chat() -> String {
    post("/v1/chat/completions", r#"{"model":"gemma-3-12b","n":1}"#)
}

#[test]
fn what_fails_in_the_cluster_is_asked_of_vertex_below_its_own_path() {
    let (first, second, vertex) = (failing(), failing(), well());
    let sidecar = vllm(&first, &second, &vertex, "concurrency: 128");
    let reply = sidecar.call(chat());
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.header("x-tidegate-fallback"), Some("vertex; model=google/gemini-2.5-flash"));
    let own = [calls(&first), calls(&second)].concat();
    assert_eq!(own.len(), 2, "{own:?}");
    for request in own {
        let key = format!("Bearer {}", canary::API_KEY);
        assert_eq!(request.header("authorization"), Some(key.as_str()));
        assert_eq!(request.text(), r#"{"model":"gemma-3-12b","n":1}"#);
    }
    assert_for_vertex(&vertex.request());
}

#[test]
fn what_finds_no_place_in_the_cluster_is_asked_of_vertex() {
    let turn = Arc::new(AtomicUsize::new(0));
    let (gate, at_work) = (Gate::default(), turn.clone());
    let opened = gate.clone();
    let slow = Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            if request.line.starts_with("POST") {
                at_work.fetch_add(1, SeqCst);
                opened.pass();
            }
            peer.wire.send(answer(COMPLETION));
        }
    });
    let vertex = well();
    let sidecar = vllm(&slow, &slow, &vertex, "concurrency: 1");
    let mut first = sidecar.connect();
    first.send(chat());
    wait_until("the only place is taken", || turn.load(SeqCst) == 1);
    assert_eq!(sidecar.call(chat()).status(), 200);
    assert_for_vertex(&vertex.request());
    gate.open();
    assert_eq!(first.response().status(), 200);
    assert_eq!(turn.load(SeqCst), 1);
}

#[test]
fn bedrock_is_read_to_the_end_of_what_it_bills() {
    let usage = r#"{"output":{"message":{"role":"assistant","content":[{"text":"hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":9,"outputTokens":4,"totalTokens":13}}"#;
    let gate = Gate::default();
    let go = gate.clone();
    let bedrock = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            go.pass();
            peer.wire.send(answer(usage));
        }
    });
    let at =
        format!("http://bedrock-runtime.us-east-1.amazonaws.com\n    address: {}", bedrock.address);
    let config = example(
        "bedrock-billed-anyway.yaml",
        &[("https://bedrock-runtime.us-east-1.amazonaws.com", &at)],
    );
    let sidecar = start(&config, &tokens());
    let mut caller = sidecar.connect();
    caller.send(post(CLAUDE, r#"{"messages":[]}"#));
    wait_until("bedrock has the call", || bedrock.requests().len() == 1);
    drop(caller);
    wait_until("it is read on", || sidecar.metric("tidegate_drains_open") == 1.0);
    gate.open();
    sidecar.wait_records(1);
    let record = sidecar.finish_with_one();
    assert_outcome(&record, "abandoned", None);
    assert_eq!(record["tidegate.wasted.output_tokens"], 4);
    assert!(record["tidegate.cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{record:#}");
}

/// A call with temperature 0 that ends at its token limit, from this key, with a header of the
/// application's own.
fn label(key: &str, document: &str) -> String {
    let body = r#"{"model":"gpt-4o-mini","temperature":0,"max_tokens":1}"#;
    let request = bare_post("/v1/chat/completions", body);
    let fields = format!("\r\nAuthorization: Bearer {key}\r\nX-Document: {document}\r\n");
    request.replacen("\r\n", &fields, 1)
}

#[test]
fn a_label_is_asked_for_once_by_each_key_and_kept_for_when_its_provider_fails() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let openai = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            let is_well = count.fetch_add(1, SeqCst) < 2;
            let cut_off = COMPLETION.replace("\"stop\"", "\"length\"");
            peer.wire.send(if is_well { answer(&cut_off) } else { answer_with(503, "{}") });
        }
    });
    let url = openai.url();
    let others = [("https://api.openai.com", url.as_str()), ("ttl: 24h", "ttl: 1ns")];
    for (at, kept) in [(1, "hit"), (2, "stale")] {
        asked.store(0, SeqCst);
        let sidecar = start(&example("cached-classifier.yaml", &others[..at]), &tokens());
        for key in ["a", "b"] {
            assert_eq!(sidecar.call(label(key, "1")).header("x-tidegate-cache"), None, "{key}");
        }
        wait_until("both are kept", || sidecar.metric("tidegate_cache_entries") == 2.0);
        let again = sidecar.call(label("b", "2"));
        let said = again.header("x-tidegate-cache").unwrap_or_default();
        assert!(said.starts_with(kept), "{said}");
        assert_eq!(asked.load(SeqCst), if kept == "hit" { 2 } else { 3 });
    }
}

/// A call of this model, from this key.
fn chat_of(model: &str, key: &str) -> String {
    let body = format!(r#"{{"model":"{model}","max_tokens":150000}}"#);
    let request = bare_post("/v1/chat/completions", &body);
    request.replacen("\r\n", &format!("\r\nAuthorization: Bearer {key}\r\n"), 1)
}

#[test]
fn teams_share_an_account_each_with_its_key_its_models_and_its_part() {
    // Each answer states that it took 150,000 tokens.
    let large = COMPLETION.replace("\"completion_tokens\":1", "\"completion_tokens\":150000");
    let openai = Upstream::answering(answer(&large));
    let launch = Launch::new();
    let key = launch.file("openai-key");
    fs::write(&key, "the-accounts-key").expect("a folder to write to");
    let config = example(
        "teams-share-openai.yaml",
        &[
            ("https://api.openai.com", &openai.url()),
            ("/etc/tidegate/openai-key", key.to_str().expect("a path of text")),
        ],
    );
    let sidecar = launch.config(&config).start();
    let (search, batch) = ("key-of-search-1f2e3d", "key-of-batch-9a8b7c");
    for (calls, (model, key, status)) in [
        ("gpt-4o-mini", search, 200),
        ("gpt-4o", search, 403),
        ("gpt-4o-mini", search, 429),
        ("gpt-4o", batch, 200),
        ("gpt-4o", "nobodys", 401),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(sidecar.call(chat_of(model, key)).status(), status, "{model} {key}");
        sidecar.wait_records(calls + 1);
    }
    for request in calls(&openai) {
        assert_eq!(request.header("authorization"), Some("Bearer the-accounts-key"));
    }
    assert_eq!(calls(&openai).len(), 2);
}

#[test]
fn a_tenth_of_the_users_get_the_canary_and_the_old_version_where_that_fails() {
    const USERS: usize = 200;
    let (stable, canary) = (well(), failing());
    let (old, new) = (stable.url(), canary.url());
    let others =
        [("http://gemma-3.default.svc:8000", &*old), ("http://gemma-4.default.svc:8000", &*new)];
    let sidecar = start(&example("canary.yaml", &others), &tokens());
    let arm = |user: usize| {
        let request = chat().replacen("\r\n", &format!("\r\nx-user: {user}\r\n"), 1);
        let reply = sidecar.call(request);
        assert_eq!(reply.status(), 200);
        let arm = reply.header("x-tidegate-split").expect("it says so").to_owned();
        assert_eq!(reply.header("x-tidegate-fallback").is_some(), arm == "canary");
        arm
    };
    let canaries = (0..USERS).filter(|user| arm(*user) == "canary").count();
    // 20 are to be expected, and these users are always the same.
    assert!((8..=36).contains(&canaries), "{canaries}");
    let asked = |upstream: &Upstream, model: &str| {
        let requests = calls(upstream);
        let is_right = |request: &Message| request.text().contains(model);
        assert!(requests.iter().all(is_right), "{model}");
        requests.len()
    };
    assert_eq!(asked(&stable, "gemma-3-12b"), USERS);
    assert!(asked(&canary, "gemma-4-12b") > 0);
}

#[test]
fn a_twentieth_is_asked_in_the_cluster_too_and_its_callers_notice_nothing() {
    let (openai, gemma) = (well(), well());
    let (real, copy) = (openai.url(), gemma.url().replace("127.0.0.1", "localhost"));
    let others = [
        ("https://api.openai.com", real.as_str()),
        ("http://gemma.default.svc:8000", copy.as_str()),
        ("share: 5%", "share: 100%"),
    ];
    let sidecar = start(&example("shadow.yaml", &others), &tokens());
    assert_eq!(sidecar.call(chat_of("gpt-4o", "the-applications")).text(), COMPLETION);
    wait_until("it is copied", || sidecar.metric("tidegate_own_calls_total") == 1.0);
    let (real, copy) = (openai.request(), gemma.request());
    assert_eq!(real.header("authorization"), Some("Bearer the-applications"));
    let key = format!("Bearer {}", canary::API_KEY);
    assert_eq!(copy.header("authorization"), Some(key.as_str()));
    assert_eq!(copy.text(), real.text().replace("gpt-4o", "gemma-3-12b"));
}

#[test]
fn a_model_server_is_asked_for_a_token_before_anybody_calls() {
    let gemma = well();
    let own = gemma.url();
    let others = [("http://gemma.default.svc:8000", own.as_str())];
    let sidecar = start(&example("warm-model-server.yaml", &others), &tokens());
    wait_until("it is asked", || sidecar.metric("tidegate_own_calls_total") == 1.0);
    assert!(gemma.request().text().contains("\"max_tokens\":1"));
    assert_eq!(sidecar.metric("tidegate_calls_total"), 0.0);
}
