//! Answers that are given to calls which are not equal to one before, but ask the same.

use serde_json::{Value, json};

use crate::support::*;

const CHAT: &str = "/v1/chat/completions";
const HIGH: &str = "how high is the tide in the bay today";
/// The same words.
const HIGH_TODAY: &str = "today how high is the tide in the bay";

/// A server of embeddings: texts of the same words mean the same here.
fn embeddings() -> Upstream {
    Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            let asked: Value = serde_json::from_slice(&request.body).expect("JSON");
            let text = asked["input"].as_str().expect("one text");
            let answer = json!({
                "object": "list",
                "data": [{ "object": "embedding", "index": 0, "embedding": meaning(text) }],
                "model": asked["model"],
                "usage": { "prompt_tokens": 9, "total_tokens": 9 },
            });
            peer.wire.send(answer_of(&answer));
        }
    })
}

fn meaning(text: &str) -> Vec<f64> {
    let mut places = vec![0.0; 257];
    for word in text.split_whitespace() {
        let place = word.bytes().fold(7, |place, byte| (place * 31 + usize::from(byte)) % 257);
        places[place] += 1.0;
    }
    places
}

fn answer_of(body: &Value) -> String {
    answer(&body.to_string())
}

fn sidecar(upstream: &Upstream, embeddings: &Upstream) -> Sidecar {
    let (url, other) = (upstream.url(), embeddings.url());
    let config = format!(
        "upstreams:\n  a: {{ url: '{url}', provider: openai }}\n  e: {{ url: '{other}' }}\n\
         routes:\n  - name: chat\n    upstream: a\n    cache:\n      \
         alike: {{ embeddings: {{ upstream: e, model: small, threshold: 0.9, time: 20s }} }}\n"
    );
    Launch::new().config(&config).start()
}

fn body(text: &str) -> Value {
    let turns = [
        json!({ "role": "system", "content": "Be brief." }),
        json!({ "role": "user", "content": text }),
    ];
    json!({ "model": "gpt-4o", "temperature": 0, "messages": turns })
}

fn ask(sidecar: &Sidecar, body: &Value) -> Message {
    sidecar.call(post(CHAT, &body.to_string()))
}

/// What became of the call at the cache, without its numbers.
fn said(reply: &Message) -> Option<&str> {
    reply.header("x-tidegate-cache").map(|said| said.split(';').next().expect("a word"))
}

/// Asks for the first time, until its answer is kept.
fn ask_first(sidecar: &Sidecar, body: &Value) {
    assert_eq!(said(&ask(sidecar, body)), None);
    wait_until("the answer is kept", || sidecar.metric("tidegate_cache_entries") > 0.0);
}

/// The records of callers' calls, and those of embeddings.
fn records(sidecar: &Sidecar, count: usize) -> (Vec<Value>, Vec<Value>) {
    let records = sidecar.wait_records(count).into_iter();
    records.partition(|record| record["tidegate.embedding"].is_null())
}

#[test]
fn the_same_text_written_down_in_another_way_is_answered_without_a_model() {
    let (upstream, embeddings) = (Upstream::answering(answer(COMPLETION)), embeddings());
    let sidecar = sidecar(&upstream, &embeddings);
    ask_first(&sidecar, &body("What is a caf\u{e9}?"));
    let reply = ask(&sidecar, &body(" What  is a cafe\u{301}? \n"));
    assert_eq!((said(&reply), reply.text().as_str()), (Some("normalised"), COMPLETION));
    assert_eq!((upstream.requests().len(), embeddings.requests().len()), (1, 1));
    let (calls, _) = records(&sidecar, 3);
    let record = &calls[1];
    assert_eq!(record["tidegate.cache"], "normalised");
    assert_eq!(record["tidegate.saved.input_tokens"], 3);
    assert!(record["tidegate.cache.similarity"].is_null(), "{record:#}");
}

#[test]
fn a_text_that_means_nearly_the_same_is_answered_and_the_record_says_how_nearly() {
    let (upstream, embeddings) = (Upstream::answering(answer(COMPLETION)), embeddings());
    let sidecar = sidecar(&upstream, &embeddings);
    ask_first(&sidecar, &body(HIGH));
    let reply = ask(&sidecar, &body(HIGH_TODAY));
    assert_eq!((said(&reply), reply.text().as_str()), (Some("similar"), COMPLETION));
    let told = reply.header("x-tidegate-cache").expect("it is told");
    assert!(told.ends_with("; similarity=1.0000"), "{told}");
    // Asked so again, it is known.
    assert_eq!(said(&ask(&sidecar, &body(HIGH_TODAY))), Some("similar"));
    assert_eq!((upstream.requests().len(), embeddings.requests().len()), (1, 2));

    let (calls, own) = records(&sidecar, 5);
    let near = |record: &Value| {
        let similarity = record["tidegate.cache.similarity"].as_f64().expect("it is told");
        assert!((similarity - 1.0).abs() < 1e-5, "{record:#}");
        assert_eq!(record["tidegate.cache.threshold"], 0.9);
    };
    assert_eq!(calls.len(), 3);
    calls[1..].iter().for_each(near);
    // What it takes to know is a call of its own, with the call's trace, in none of the callers' figures.
    for (own, call) in own.iter().zip(&calls) {
        assert_eq!(own["tidegate.upstream"], "e");
        assert_eq!(own["gen_ai.usage.input_tokens"], 9);
        assert_eq!(own["parent_span_id"], call["span_id"]);
    }
    assert_eq!(sidecar.metric("tidegate_calls_total"), 3.0);
    assert_eq!(sidecar.metric("tidegate_own_calls_total"), 2.0);
    // Nobody's credential goes there.
    for request in embeddings.requests() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
        assert_eq!(request.line, "POST /v1/embeddings HTTP/1.1");
    }
}

#[test]
fn whatever_else_is_not_equal_makes_another_question() {
    let (upstream, embeddings) = (Upstream::answering(answer(COMPLETION)), embeddings());
    let sidecar = sidecar(&upstream, &embeddings);
    ask_first(&sidecar, &body("what do 2 and 3 make"));
    let changed = |change: fn(&mut Value)| {
        let mut body = body("what  do 2 and 3 make");
        change(&mut body);
        body
    };
    for (other, why) in [
        (body("what do 2 and 4 make"), "another number"),
        (body("what would be left of 2 and 3"), "other words"),
        (changed(|body| body["model"] = "gpt-4o-mini".into()), "another model"),
        (changed(|body| body["seed"] = 7.into()), "another parameter"),
        (changed(|body| body["messages"][0]["content"] = "Be long.".into()), "other turns before"),
    ] {
        assert_eq!(said(&ask(&sidecar, &other)), None, "{why}");
    }
    let somebody = bare_post(CHAT, &body("what  do 2 and 3 make").to_string());
    let somebody = somebody.replacen("\r\n", "\r\nAuthorization: Bearer other\r\n", 1);
    assert_eq!(said(&sidecar.call(somebody)), None, "another caller");
    assert_eq!(upstream.requests().len(), 7);
}

#[test]
fn a_server_of_embeddings_that_fails_is_left_alone_and_calls_are_made_all_the_same() {
    for broken in
        ["HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_owned(), answer(r#"{"data":[]}"#)]
    {
        let (upstream, embeddings) =
            (Upstream::answering(answer(COMPLETION)), Upstream::answering(broken));
        let sidecar = sidecar(&upstream, &embeddings);
        ask_first(&sidecar, &body(HIGH));
        assert_eq!(said(&ask(&sidecar, &body(HIGH_TODAY))), None);
        assert_eq!(said(&ask(&sidecar, &body(&format!(" {HIGH}")))), Some("normalised"));
        assert_eq!((upstream.requests().len(), embeddings.requests().len()), (2, 1));
        assert!(sidecar.log().contains("no embedding"), "{}", sidecar.log());
        let state = sidecar.ask("/policies").json();
        assert_eq!(state["cache"]["alike"]["embeddings_paused"], true, "{state:#}");
    }
}

#[test]
fn a_text_that_its_server_cannot_take_stops_no_others() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let embeddings = Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            let asked: Value = serde_json::from_slice(&request.body).expect("JSON");
            let text = asked["input"].as_str().expect("one text");
            let refused = text.starts_with("too long").then(|| answer_with(413, "{}"));
            let good = || answer_of(&json!({ "data": [{ "embedding": meaning(text) }] }));
            peer.wire.send(refused.unwrap_or_else(good));
        }
    });
    let sidecar = sidecar(&upstream, &embeddings);
    ask_first(&sidecar, &body(HIGH));
    for text in ["too long a text", "too long a text as well"] {
        assert_eq!(said(&ask(&sidecar, &body(text))), None);
    }
    let state = sidecar.ask("/policies").json();
    assert_eq!(state["cache"]["alike"]["embeddings_paused"], false, "{state:#}");
    assert_eq!(said(&ask(&sidecar, &body(HIGH_TODAY))), Some("similar"));
    assert_eq!((upstream.requests().len(), embeddings.requests().len()), (3, 4));
}

#[test]
fn a_server_of_embeddings_that_fails_stops_no_other_one() {
    let (upstream, good) = (Upstream::answering(answer(COMPLETION)), embeddings());
    let broken = Upstream::answering(answer_with(500, "{}"));
    let route = |name: &str, embeddings: &str| {
        format!(
            "  - name: {name}\n    match: {{ path: /{name}/* }}\n    strip_prefix: /{name}\n    \
             upstream: a\n    cache:\n      alike: {{ embeddings: {{ upstream: {embeddings}, \
             model: small, threshold: 0.9, time: 20s }} }}\n"
        )
    };
    let config = format!(
        "upstreams:\n  a: {{ url: '{}', provider: openai }}\n  good: {{ url: '{}' }}\n  \
         broken: {{ url: '{}' }}\nroutes:\n{}{}",
        upstream.url(),
        good.url(),
        broken.url(),
        route("one", "broken"),
        route("other", "good"),
    );
    let sidecar = Launch::new().config(&config).start();
    let ask = |route: &str, text: &str| {
        sidecar.call(post(&format!("/{route}{CHAT}"), &body(text).to_string()))
    };
    assert_eq!(said(&ask("one", HIGH)), None);
    assert_eq!(said(&ask("other", HIGH)), None);
    wait_until("both are kept", || sidecar.metric("tidegate_cache_entries") == 2.0);
    assert_eq!(said(&ask("other", HIGH_TODAY)), Some("similar"));
    assert_eq!(said(&ask("one", HIGH_TODAY)), None);
    assert_eq!((broken.requests().len(), good.requests().len()), (1, 2));
}

#[test]
fn a_caller_may_do_without() {
    let (upstream, embeddings) = (Upstream::answering(answer(COMPLETION)), embeddings());
    let sidecar = sidecar(&upstream, &embeddings);
    ask_first(&sidecar, &body(HIGH));
    let with = |text: &str, lines: &str| {
        let request = post(CHAT, &body(text).to_string());
        sidecar.call(request.replacen("\r\n", &format!("\r\n{lines}\r\n"), 1))
    };
    assert_eq!(said(&with(HIGH_TODAY, "Cache-Control: no-cache")), None);
    assert_eq!(upstream.requests().len(), 2);
    let known = with(&format!("{HIGH} "), "Cache-Control: only-if-cached");
    assert_eq!(said(&known), Some("normalised"));
    assert_eq!(with("who is there", "Cache-Control: only-if-cached").status(), 504);
}
