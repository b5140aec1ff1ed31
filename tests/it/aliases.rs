//! Models that an upstream calls otherwise than callers do.

use crate::support::*;

const CHAT: &str = "/v1/chat/completions";
const BEDROCK_ID: &str = "eu.anthropic.claude-sonnet-4-20250514-v1:0";

fn with_aliases(upstream: &Upstream, rest: &str) -> Sidecar {
    let config = format!(
        "upstreams: {{ a: {{ url: '{}', provider: openai, \
         aliases: {{ sonnet: '{BEDROCK_ID}', smart: gpt-4o }} }} }}\n\
         routes: [{{ upstream: a }}]\n{rest}",
        upstream.url()
    );
    Launch::new().config(&config).start()
}

#[test]
fn a_plain_name_becomes_the_upstreams_own_in_path_or_body_and_nothing_else_moves() {
    let upstream = Upstream::answering(answer("{}"));
    for bypass in ["", "bypass: true"] {
        let sidecar = with_aliases(&upstream, bypass);
        for (calls, (path, body, sent_path, sent_body)) in [
            (
                "/model/sonnet/converse?x=sonnet",
                r#"{"messages":[], "model":"sonnet"}"#,
                "/model/eu.anthropic.claude-sonnet-4-20250514-v1%3A0/converse?x=sonnet",
                r#"{"messages":[], "model":"sonnet"}"#,
            ),
            (
                CHAT,
                r#"{ "messages": ["smart"], "model" : "smart","n":1 }"#,
                CHAT,
                r#"{ "messages": ["smart"], "model" : "gpt-4o","n":1 }"#,
            ),
            (CHAT, r#"{"model":"other"}"#, CHAT, r#"{"model":"other"}"#),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(sidecar.call(bare_post(path, body)).status(), 200, "{path}");
            let sent = upstream.requests().pop().expect("it came");
            assert!(sent.line.contains(&format!(" {sent_path} ")), "{}", sent.line);
            assert_eq!(sent.text(), sent_body);
            sidecar.wait_records(calls + 1);
        }
        let records = sidecar.records();
        let names = records.iter().map(|record| {
            (record["gen_ai.request.model"].as_str(), record["tidegate.called_model"].as_str())
        });
        let asked_and_called = [
            (Some("sonnet"), Some(BEDROCK_ID)),
            (Some("smart"), Some("gpt-4o")),
            (Some("other"), None),
        ];
        assert_eq!(names.collect::<Vec<_>>(), asked_and_called);
    }
}

#[test]
fn a_call_that_cannot_be_renamed_goes_on_as_it_came_and_says_so() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = with_aliases(&upstream, "");
    let twice = r#"{"model":"smart","model":"smart"}"#;
    assert_eq!(sidecar.call(bare_post(CHAT, twice)).status(), 200);
    assert_eq!(upstream.request().text(), twice);
    let signed = bare_post("/model/sonnet/converse", "{}").replacen(
        "\r\n",
        "\r\nAuthorization: AWS4-HMAC-SHA256 Credential=A/b, Signature=c\r\n",
        1,
    );
    assert_eq!(sidecar.call(signed).status(), 200);
    for record in sidecar.wait_records(2) {
        assert!(record["tidegate.called_model"].is_null(), "{record:#}");
        assert_eq!(record["tidegate.warnings"][0], "alias_not_applied");
    }
}

#[test]
fn each_upstream_is_asked_by_its_own_name_and_what_is_charged_is_the_one_that_was_called() {
    let good = Upstream::answering(answer(&COMPLETION.replace("\"model\":\"gpt-4o\",", "")));
    // Where nobody listens nothing is sent, and the call comes back as it is.
    let failing = Upstream::answering(answer_with(503, "{}"));
    for first in [format!("http://{}", nowhere()), failing.url()] {
        let config = format!(
            "upstreams:\n  a: {{ url: '{first}', aliases: {{ smart: name-at-a }} }}\n\
             \x20 b: {{ url: '{}', provider: openai, aliases: {{ smart: gpt-4o }} }}\n\
             routes: [{{ upstream: a, fallback: [{{ upstream: b }}] }}]\n",
            good.url()
        );
        let sidecar = Launch::new().config(&config).start();
        let body = r#"{"model":"smart","messages":[]}"#;
        assert_eq!(sidecar.call(bare_post(CHAT, body)).status(), 200, "{first}");
        let sent = good.requests().pop().expect("it came");
        assert_eq!(sent.text(), r#"{"model":"gpt-4o","messages":[]}"#);
        assert_eq!(sent.header("content-length"), Some("32"));
        let record = sidecar.wait_records(1).remove(0);
        assert_eq!(record["gen_ai.request.model"], "smart");
        assert_eq!(record["tidegate.called_model"], "gpt-4o");
        assert!(record["tidegate.cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{record:#}");
    }
}
