//! Upstreams that do not accept the credential that the sidecar has for them (401, 403).

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::Value;

use crate::support::*;

const REFUSAL: &str =
    r#"{"error":{"message":"The token is revoked.","type":"authentication_error"}}"#;
const REFUSED: &str = "tidegate_credential_refused_total";

/// Serves who brings this, and refuses all else with this status.
fn accepting(accepted: &'static str, status: u16) -> Upstream {
    Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            peer.wire.send(match request.header("authorization") == Some(accepted) {
                true => answer("served"),
                false => answer_with(status, REFUSAL),
            });
        }
    })
}

/// Gives `token-1`, `token-2` and so on, each for an hour, and counts them.
fn tokens() -> (Upstream, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let count = given.clone();
    let upstream = Upstream::new(move |mut peer| {
        while peer.request().is_some() {
            let number = count.fetch_add(1, SeqCst) + 1;
            peer.wire.send(answer(&format!(
                r#"{{"access_token":"token-{number}","expires_in":3600,"token_type":"Bearer"}}"#
            )));
        }
    });
    (upstream, given)
}

/// All calls go to this upstream by such a token, on a route that says this too.
fn by_token(upstream: &Upstream, tokens: &Upstream, route: &str) -> Sidecar {
    let launch = Launch::new().config(&format!(
        "upstreams: {{ a: {{ url: '{}', credential: {{ google: {{ file: user.json }} }} }} }}\nroutes: [{{ upstream: a{route} }}]",
        upstream.url()
    ));
    let user = format!(
        r#"{{"type":"authorized_user","client_id":"c","client_secret":"{0}","refresh_token":"{0}","token_uri":"{1}/token"}}"#,
        canary::IN_FILE,
        tokens.url()
    );
    fs::write(launch.file("user.json"), user).expect("a folder to write to");
    launch.start()
}

/// With a key that its upstream does not accept, and never changes.
fn by_key(config: &str) -> Sidecar {
    let launch = Launch::new().config(config);
    fs::write(launch.file("key"), "revoked").expect("a folder to write to");
    launch.env("OTHER_KEY", "good").start()
}

fn state(sidecar: &Sidecar) -> Value {
    let policies: Value = sidecar.ask("/policies").json();
    policies["credentials"]["a"]["refused"].clone()
}

#[test]
fn a_token_that_is_refused_is_fetched_anew_and_the_call_made_once_more() {
    for status in [401, 403] {
        let upstream = accepting("Bearer token-2", status);
        let (tokens, given) = tokens();
        let sidecar = by_token(&upstream, &tokens, ", retry: {}");
        assert_eq!(sidecar.call(call()).text(), "served");
        assert_eq!(sidecar.call(call()).text(), "served");
        assert_eq!((given.load(SeqCst), upstream.requests().len()), (2, 3));
        assert_eq!(sidecar.metric(REFUSED), 1.0);
        assert_eq!(state(&sidecar)["count"], 1);
        assert_eq!(state(&sidecar)["last"]["status"], status);
        let records = sidecar.finish();
        assert_outcome(&records[0], "completed", None);
        assert_eq!(
            (&records[0]["tidegate.attempts"], &records[1]["tidegate.attempts"]),
            (&2.into(), &1.into())
        );
        assert!(records[0]["tidegate.wait.retry_s"].is_f64(), "{:#}", records[0]);
        assert_eq!(records[0]["error.type"], Value::Null);
    }
}

#[test]
fn a_body_that_has_gone_by_is_not_sent_again_but_the_next_call_has_the_new_token() {
    let upstream = accepting("Bearer token-2", 401);
    let (tokens, _) = tokens();
    let sidecar = by_token(&upstream, &tokens, "");
    let refused = sidecar.call(call());
    assert_eq!((refused.status(), refused.text()), (401, REFUSAL.to_owned()));
    assert_outcome(&sidecar.wait_records(1)[0], "failed", Some("sidecar"));
    wait_until("the new token is in use", || sidecar.call(call()).status() == 200);
}

#[test]
fn calls_that_are_refused_together_have_one_token_fetched_for_all() {
    let upstream = accepting("Bearer token-2", 401);
    let (tokens, given) = tokens();
    let sidecar = by_token(&upstream, &tokens, ", retry: {}");
    let mut callers: Vec<_> = (0..40).map(|_| sidecar.connect()).collect();
    callers.iter_mut().for_each(|caller| caller.send(call()));
    for caller in &mut callers {
        assert_eq!(caller.response().text(), "served");
    }
    assert_eq!(given.load(SeqCst), 2);
    assert!(upstream.requests().len() <= 80, "each call is made once more at most");
}

#[test]
fn a_key_that_stays_refused_costs_one_attempt_each_call_and_one_line_of_the_log() {
    let upstream = accepting("Bearer good", 401);
    let sidecar = by_key(&format!(
        "upstreams: {{ a: {{ url: '{}', credential: {{ bearer: {{ file: key }} }} }} }}\nroutes: [{{ upstream: a, retry: {{}} }}]",
        upstream.url()
    ));
    for _ in 0..20 {
        assert_eq!(sidecar.call(call()).status(), 401);
    }
    assert_eq!(upstream.requests().len(), 20);
    assert_eq!(sidecar.metric(REFUSED), 20.0);
    let text = sidecar.ask("/metrics").text();
    assert!(text.contains(&format!("{REFUSED}{{upstream=\"a\"}} 20")), "{text}");
    for record in sidecar.wait_records(20) {
        assert_outcome(&record, "failed", Some("sidecar"));
        assert_eq!(record["error.type"], "authentication_error");
    }
    let log = sidecar.finish_log();
    assert_eq!(log.matches("does not accept its credential").count(), 1, "{log}");
}

#[test]
fn a_caller_whose_own_credential_is_refused_is_at_fault_itself() {
    let upstream = accepting("Bearer good", 401);
    let sidecar = Sidecar::to(&upstream);
    assert_eq!(sidecar.call(call()).status(), 401);
    assert!(!sidecar.ask("/metrics").text().contains(REFUSED));
    assert_outcome(&sidecar.finish_with_one(), "failed", Some("client"));
}

#[test]
fn a_refused_credential_leads_to_a_target_that_has_another_and_opens_no_breaker() {
    let (upstream, other) = (accepting("Bearer nobody's", 403), accepting("Bearer good", 401));
    let sidecar = by_key(&format!(
        "upstreams:\n  a: {{ url: '{}', breaker: {{ consecutive: 2 }}, credential: {{ bearer: {{ file: key }} }} }}\n  b: {{ url: '{}', credential: {{ bearer: {{ env: OTHER_KEY }} }} }}\nroutes: [{{ upstream: a, fallback: [{{ upstream: b }}] }}]",
        upstream.url(),
        other.url()
    ));
    for _ in 0..5 {
        let reply = sidecar.call(call());
        assert_eq!(
            (reply.text(), reply.header("x-tidegate-fallback")),
            ("served".to_owned(), Some("b"))
        );
    }
    assert_eq!(upstream.requests().len(), 5, "it is well, and no breaker keeps calls away");
    for record in sidecar.finish() {
        assert_outcome(&record, "completed", None);
    }
}

#[test]
fn while_policies_look_on_a_refused_credential_is_fetched_anew_and_no_call_made_again() {
    let upstream = accepting("Bearer token-2", 401);
    let (tokens, _) = tokens();
    let sidecar = by_token(&upstream, &tokens, " }]\nbypass: true #");
    // All of it is at hand.
    let call = "GET /v1/models HTTP/1.1\r\nHost: api.example\r\n\r\n";
    assert_eq!(sidecar.call(call).status(), 401);
    assert_eq!(upstream.requests().len(), 1);
    wait_until("the new token is in use", || sidecar.call(call).status() == 200);
}
