//! Who calls, what they may ask for, and what goes by it.

use serde_json::Value;

use crate::support::*;

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"gpt-4o","temperature":0}"#;

/// Keys of `search` and `batch`; the configuration has what `sha256sum` says of them.
const SEARCH: &str = "key-of-search-1f2e3d";
const SPARE: &str = "spare-key-of-search-4c5b";
const BATCH: &str = "key-of-batch-9a8b7c";
const CALLERS: &str = "callers:
  header: x-team
  known:
    search:
      keys:
        - sha256:2425c579a7cef8d68b725ce9a30dda3fe1fa8e923f05909730b82b4ba7ef17ae
        - sha256:89afb5352bfd4210f780785ac0e362033162899cb22220159a8091059e32a24a
      models: [\"gpt-4o*\", gemini, claude, nova]
    batch: { keys: [\"sha256:a568eba02d6b66b4bfdd4133944f4118f89e9219c41b018c7b63af78aff5b62c\"] }
    web: {}
";

/// A sidecar before this upstream that knows the callers, with more keys of its configuration.
fn launch(upstream: &Upstream, route: &str, rest: &str) -> Sidecar {
    let url = upstream.url();
    let config = format!(
        "upstreams: {{ a: {{ url: '{url}', provider: openai }} }}\n\
         routes: [{{ upstream: a{route} }}]\n{rest}\n{CALLERS}"
    );
    Launch::new().config(&config).start()
}

/// A call with this line in its head.
fn by(line: &str, path: &str, body: &str) -> String {
    bare_post(path, body).replacen("\r\n", &format!("\r\n{line}\r\n"), 1)
}

fn with_key(key: &str) -> String {
    by(&format!("Authorization: Bearer {key}"), CHAT, BODY)
}

/// The value of the only series of this metric that has this in its labels; nothing where there is
/// none.
fn series(sidecar: &Sidecar, name: &str, label: &str) -> f64 {
    let text = sidecar.ask("/metrics").text();
    let is_it = |line: &&str| line.starts_with(&format!("{name}{{")) && line.contains(label);
    let values = text.lines().filter(is_it).filter_map(|line| line.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<f64>().expect("a number")).sum()
}

/// A record of a call that was answered so.
fn with_status(records: &[Value], status: u16) -> &Value {
    let is_it = |record: &&Value| record["http.response.status_code"] == status;
    records.iter().find(is_it).expect("there is one")
}

#[test]
fn a_caller_has_its_name_in_records_and_metrics_and_no_key_is_shown() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = launch(&upstream, "", "");
    let calls = [
        (with_key(SEARCH), Some("search")),
        (with_key(SPARE), Some("search")),
        (by(&format!("x-api-key: {BATCH}"), CHAT, BODY), Some("batch")),
        (by("X-Team: web", CHAT, BODY), Some("web")),
        (by("X-Team: unheard-of", CHAT, BODY), Some("unheard-of")),
        (by("X-Team: search", CHAT, BODY), None),
        (bare_post(CHAT, BODY), None),
    ];
    for (at, (call, name)) in calls.iter().enumerate() {
        assert_eq!(sidecar.call(call).status(), 200);
        let record = sidecar.wait_records(at + 1).remove(at);
        assert_eq!(record["tidegate.caller"].as_str(), *name, "{call}");
    }
    for (label, calls) in [("search", 2.0), ("batch", 1.0), ("web", 1.0), ("other", 1.0)] {
        let label = format!("caller=\"{label}\"");
        assert_eq!(series(&sidecar, "tidegate_calls_total", &label), calls, "{label}");
        assert_eq!(
            series(
                &sidecar,
                "tidegate_tokens_total",
                &format!("{label},split=\"\",type=\"input\"")
            ),
            calls * 3.0
        );
    }
    let text = sidecar.ask("/metrics").text();
    assert!(!text.contains("unheard-of"), "a caller makes no labels up");
    let shown = sidecar.ask("/config").text() + &text + &sidecar.log();
    for secret in [SEARCH, SPARE, BATCH, "2425c579", "a568eba0"] {
        assert!(!shown.contains(secret), "{secret}");
    }
}

#[test]
fn who_may_not_ask_for_a_model_is_told_so_in_the_words_of_its_dialect() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = launch(&upstream, "", "");
    let key = format!("Authorization: Bearer {SEARCH}");
    for (path, body, pointer, word) in [
        (CHAT, r#"{"model":"o3"}"#, "/error/code", "model_not_allowed"),
        ("/v1/messages", r#"{"model":"opus"}"#, "/error/type", "model_not_allowed"),
        ("/v1beta/models/ultra:generateContent", "{}", "/error/status", "PERMISSION_DENIED"),
        (
            "/model/titan/converse",
            "{}",
            "/message",
            "tidegate: caller `search` may not ask for model `titan`",
        ),
    ] {
        let refused = sidecar.call(by(&key, path, body));
        assert_eq!(refused.status(), 403, "{path}");
        let found = refused.json().pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        assert_eq!(found.as_deref(), Some(word), "{path}");
    }
    assert!(upstream.requests().is_empty());
    for (path, body) in [
        (CHAT, r#"{"messages":[],"model":"gpt-4o-mini"}"#),
        ("/v1/messages", r#"{"model":"claude"}"#),
        ("/v1beta/models/gemini:generateContent", "{}"),
        ("/model/nova/converse", "{}"),
    ] {
        assert_eq!(sidecar.call(by(&key, path, body)).status(), 200, "{path}");
        assert_eq!(upstream.requests().last().expect("it came").text(), body);
    }
    let records = sidecar.wait_records(8);
    let record = with_status(&records, 403);
    assert_outcome(record, "refused", Some("client"));
    assert_eq!(
        (&record["error.type"], &record["tidegate.caller"]),
        (&"model_not_allowed".into(), &"search".into())
    );
}

#[test]
fn a_body_that_may_name_another_model_does_not_get_through() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = launch(&upstream, "", "");
    let key = format!("Authorization: Bearer {SEARCH}");
    for body in [
        r#"{"model":"gpt-4o","model":"o3"}"#,
        r#"{"model":"gpt-4o","mod\u0065l":"o3"}"#,
        r#"{"model":"gpt-4o","Model":"o3"}"#,
        r#"{"messages":[]}"#,
        "model=gpt-4o",
    ] {
        assert_eq!(sidecar.call(by(&key, CHAT, body)).status(), 403, "{body}");
    }
    let encoded = by(&format!("{key}\r\nContent-Encoding: gzip"), CHAT, BODY);
    assert_eq!(sidecar.call(encoded).status(), 403);
    assert_eq!(
        sidecar.call(by(&key, "/v1/files", "{}")).status(),
        403,
        "a batch may ask for anything"
    );
    assert!(upstream.requests().is_empty());
    // Who only looks may, and who may ask for everything is not looked at.
    let mut caller = sidecar.connect();
    caller.send(format!("GET /v1/models HTTP/1.1\r\nHost: a\r\n{key}\r\n\r\n"));
    assert_eq!(caller.response_to("GET").status(), 200);
    let batch = format!("Authorization: Bearer {BATCH}");
    assert_eq!(sidecar.call(by(&batch, CHAT, r#"{"model":"a","model":"b"}"#)).status(), 200);
}

#[test]
fn with_others_refused_only_callers_that_are_known_get_in_bypass_or_not() {
    let upstream = Upstream::answering(answer(COMPLETION));
    for bypass in ["", "bypass: true"] {
        let url = upstream.url();
        let config = format!(
            "upstreams: {{ a: {{ url: '{url}' }} }}\nroutes: [{{ upstream: a }}]\n{bypass}\n{}",
            CALLERS.replace("header: x-team", "others: refuse\n  header: x-team")
        );
        let sidecar = Launch::new().config(&config).start();
        assert_eq!(sidecar.call(with_key(SEARCH)).status(), 200);
        assert_eq!(sidecar.call(by("x-team: web", CHAT, BODY)).status(), 200);
        for stranger in [bare_post(CHAT, BODY), with_key("wrong"), by("x-team: batch", CHAT, BODY)]
        {
            let refused = sidecar.call(stranger);
            let error = refused.header("x-tidegate-error");
            assert_eq!((refused.status(), error), (401, Some("caller_unknown")));
        }
        let records = sidecar.wait_records(5);
        assert_outcome(with_status(&records, 401), "refused", Some("client"));
    }
}

#[test]
fn a_route_may_be_for_one_caller() {
    let (one, other) = (Upstream::answering(answer(COMPLETION)), Upstream::answering(answer("{}")));
    let config = format!(
        "upstreams: {{ a: {{ url: '{}' }}, b: {{ url: '{}' }} }}\n\
         routes: [{{ match: {{ caller: \"b*\" }}, upstream: b }}, {{ upstream: a }}]\n{CALLERS}",
        one.url(),
        other.url()
    );
    let sidecar = Launch::new().config(&config).start();
    for call in [with_key(BATCH), with_key(SEARCH), bare_post(CHAT, BODY)] {
        assert_eq!(sidecar.call(call).status(), 200);
    }
    assert_eq!((one.requests().len(), other.requests().len()), (2, 1));
}

#[test]
fn a_cache_goes_by_who_has_shown_a_key_and_by_no_name_alone() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = launch(&upstream, ", cache: {}", "");
    let hit = |call: String| {
        let reply = sidecar.call(call);
        assert_eq!(reply.status(), 200);
        reply.header("x-tidegate-cache").is_some()
    };
    let kept = |count: f64| {
        wait_until("it is kept", || sidecar.metric("tidegate_cache_entries") >= count);
    };
    assert!(!hit(with_key(SEARCH)));
    kept(1.0);
    assert!(hit(with_key(SEARCH)));
    assert!(!hit(with_key(SPARE)), "what another key is worth is for the upstream to say");
    kept(2.0);
    assert!(!hit(with_key(BATCH)), "another caller");
    kept(3.0);
    // Anybody may say that name: what was kept for one credential is not told to another.
    let web = |key: &str| by(&format!("x-team: web\r\nAuthorization: Bearer {key}"), CHAT, BODY);
    assert!(!hit(web("one")));
    kept(4.0);
    assert!(hit(web("one")) && !hit(web("two")));
}

#[test]
fn each_caller_spends_its_own_quota() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let quotas = "quotas: { own: { window: 1h, requests: 2, per: caller, mode: enforce } }";
    let sidecar = launch(&upstream, "", quotas);
    let status = |key: &str| sidecar.call(with_key(key)).status();
    assert_eq!([SEARCH, SPARE, SEARCH].map(status), [200, 200, 429], "two keys, one caller");
    assert_eq!([BATCH, BATCH, BATCH].map(status), [200, 200, 429]);
    let refused = sidecar.call(with_key(BATCH));
    let message = refused.json()["error"]["message"].as_str().expect("a text").to_owned();
    assert!(message.contains("quota `own` of caller `batch` is spent"), "{message}");
    sidecar.wait_records(7);
    for (caller, refusals) in [("search", 1.0), ("batch", 2.0)] {
        let label = format!("caller=\"{caller}\"");
        assert_eq!(series(&sidecar, "tidegate_quota_used", &label), 2.0, "{caller}");
        assert_eq!(series(&sidecar, "tidegate_quota_refusals_total", &label), refusals, "{caller}");
    }
}
