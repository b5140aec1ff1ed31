//! Load tests that hold conversations: each question goes with the model's own answers to those before.

use std::fs;

use serde_json::{Value, json};

use crate::support::*;

/// A load test of one user, who rests a second after a conversation so that few are held.
fn load(target: &str, mix: &str, more: &[&str]) -> Value {
    let folder = Folder::new();
    let path = |name: &str| folder.file(name).to_str().expect("a path of UTF-8").to_owned();
    let (mix_file, json) = (path("mix.yaml"), path("run.json"));
    fs::write(&mix_file, mix).expect("a folder to write to");
    let own = ["load", "--target", target, "--mix", &mix_file, "--json", &json];
    let own = own.into_iter().chain(["--users", "1", "--duration", "2s"]);
    let output = tidegate(own.chain(more.iter().copied())).output().expect("the program is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&json).expect("a report");
    serde_json::from_str(&text).expect("in JSON")
}

/// The bodies of the first conversation, of so many calls.
fn bodies(upstream: &Upstream, calls: usize) -> Vec<Value> {
    let requests = upstream.requests();
    assert!(requests.len() >= calls, "{} calls", requests.len());
    requests[..calls].iter().map(Message::json).collect()
}

fn completion(text: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
        "choices": [{ "index": 0, "finish_reason": "stop",
                      "message": { "role": "assistant", "content": text } }],
        "usage": { "prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12 },
    })
}

#[test]
fn a_user_goes_on_from_what_the_model_answered() {
    let upstream = Upstream::answering(answer(&completion("The tide is high.").to_string()));
    let mix = "[{ call: openai/chat, model: gpt-4o, turns: 3, think: 10ms, shared_tokens: 40 }]";
    let report = load(&upstream.url(), mix, &[]);
    let bodies = bodies(&upstream, 3);
    let turns = |at: usize| bodies[at]["messages"].as_array().expect("messages");
    let roles = |at: usize| -> Vec<_> { turns(at).iter().map(|turn| &turn["role"]).collect() };
    assert_eq!(roles(0), ["system", "user"]);
    assert_eq!(roles(2), ["system", "user", "assistant", "user", "assistant", "user"]);
    assert_eq!(turns(2)[2]["content"], "The tide is high.");
    assert_eq!(turns(2)[..4], turns(1)[..], "all that was said before is said again");
    let shared = turns(0)[0]["content"].as_str().expect("a text");
    assert_eq!(shared.split(' ').count(), 40);
    let requests = upstream.requests();
    let begins_anew = requests.iter().skip(3).map(Message::json);
    let mut begins_anew = begins_anew.filter(|body| body["messages"][2].is_null());
    let next = begins_anew.next().expect("another conversation");
    assert_eq!(next["messages"][0]["content"], shared);
    assert_ne!(next["messages"][1], turns(0)[1]);
    assert_eq!(report["total"]["calls"], requests.len());
}

#[test]
fn a_stream_is_gone_on_from_as_well_and_a_failure_is_not() {
    let simulator = Simulator::start(&["--ttft", "1ms", "--tpot", "1ms", "--output-tokens", "5"]);
    let sidecar = Launch::new().arg("--upstream").arg(&simulator.url).start();
    let target = format!("http://{}", sidecar.address);
    let mix = "[{ call: anthropic/messages, model: claude-sonnet-4-5, stream: true, turns: 2, \
                 input_tokens: 10, output_tokens: 5, think: 20ms }]";
    let report = load(&target, mix, &[]);
    let records = sidecar.finish();
    assert_eq!(report["total"]["calls"], records.len());
    let input = |record: &Value| record["gen_ai.usage.input_tokens"].as_u64().expect("tokens");
    // Every second call has the question, the answer of five tokens and the question before it.
    let grown = records.chunks_exact(2).filter(|pair| input(&pair[1]) >= input(&pair[0]) + 5);
    assert!(records.len() > 10 && grown.count() == records.len() / 2, "{records:?}");

    let failing = Upstream::answering(answer_with(500, "{}"));
    load(&failing.url(), mix, &[]);
    let requests = failing.requests();
    assert!(requests.len() > 2);
    assert!(requests.iter().all(|request| request.json()["messages"][1].is_null()));
}

#[test]
fn a_long_stream_is_gone_on_from_word_for_word() {
    let words: Vec<_> = (0..5_000).map(|number| format!("w{number} ")).collect();
    let said = words.concat();
    let chat = |word: &str| {
        json!({ "id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": 1_700_000_000,
                "model": "m", "system_fingerprint": "fp_0123456789",
                "choices": [{ "index": 0, "delta": { "content": word }, "finish_reason": null }] })
    };
    let messages = |word: &str| {
        json!({ "type": "content_block_delta", "index": 0,
                "delta": { "type": "text_delta", "text": word } })
    };
    let begun = json!({ "type": "content_block_start", "index": 0,
                        "content_block": { "type": "text", "text": "" } });
    let stopped = json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" } });
    let named = |event: Value| {
        format!("event: {}\ndata: {event}\n\n", event["type"].as_str().expect("a type"))
    };
    let deltas: String = words.iter().map(|word| named(messages(word))).collect();
    let end = named(stopped) + &named(json!({ "type": "message_stop" }));
    let chunks: String = words.iter().map(|word| format!("data: {}\n\n", chat(word))).collect();
    for (call, events) in [
        ("openai/chat", format!("{chunks}{FINISH}{DONE}")),
        ("anthropic/messages", named(begun) + &deltas + &end),
    ] {
        let upstream = Upstream::answering(format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(&events)));
        let mix = format!("[{{ call: {call}, model: m, stream: true, turns: 2, think: 10ms }}]");
        load(&upstream.url(), &mix, &[]);
        let next = &bodies(&upstream, 2)[1];
        assert!(
            events.len() > 5 * (64 << 10) && next.to_string().contains(&said),
            "{call}: {next}"
        );
    }
}

#[test]
fn people_s_questions_are_asked_as_far_as_the_mix_says() {
    let upstream = Upstream::answering(answer(&completion("New.").to_string()));
    let said = |from: &str, value: &str| json!({ "from": from, "value": value });
    let parts = json!([
        said("human", "one?"),
        said("gpt", "old one"),
        said("human", "two?"),
        said("gpt", "old two is longer"),
        said("human", "three?"),
        said("gpt", "old three"),
    ]);
    let folder = Folder::new();
    let file = folder.file("sharegpt.json");
    let text = json!([{ "id": "a", "conversations": parts }]).to_string();
    fs::write(&file, text).expect("a folder to write to");
    let file = file.to_str().expect("a path of UTF-8");
    let mix = "[{ call: openai/chat, model: gpt-4o, turns: 2 }]";
    load(&upstream.url(), mix, &["--from", file]);
    let bodies = bodies(&upstream, 3);
    assert_eq!(bodies[0]["messages"], json!([{ "role": "user", "content": "one?" }]));
    assert_eq!(
        bodies[1]["messages"],
        json!([{ "role": "user", "content": "one?" }, { "role": "assistant", "content": "New." },
               { "role": "user", "content": "two?" }])
    );
    assert_eq!(bodies[1]["max_tokens"], 4, "as long as it was answered then");
    assert_eq!(bodies[2], bodies[0], "and then from the beginning");
}

#[test]
fn questions_have_pictures_as_every_interface_takes_them() {
    for (call, model, at) in [
        ("openai/chat", "m", "/messages/1/content/0/image_url/url"),
        ("openai/responses", "m", "/input/0/content/0/image_url"),
        ("anthropic/messages", "m", "/messages/0/content/0/source/data"),
        ("gemini/generate-content", "m", "/contents/0/parts/0/inlineData/data"),
        ("bedrock/converse", "m", "/messages/0/content/0/image/source/bytes"),
    ] {
        let upstream = Upstream::answering(answer("{}"));
        let mix =
            format!("[{{ call: {call}, model: {model}, images: 2, image_size: 64, think: 1s }}]");
        load(&upstream.url(), &mix, &[]);
        let body = &bodies(&upstream, 1)[0];
        let picture = body.pointer(at).and_then(Value::as_str).unwrap_or_else(|| panic!("{body}"));
        assert!(picture.trim_start_matches("data:image/png;base64,").starts_with("iVBORw0KGgo"));
        let second =
            body.pointer(&at.replacen("/0/i", "/1/i", 1).replacen("/0/source", "/1/source", 1));
        assert!(second.is_some(), "{call}: {body}");
    }
}
