//! Ollama's own interface: `/api/chat`, which streams lines of JSON unless it is told not to.

use std::fmt::Display;

use http::StatusCode;

use super::{Answer, Call, Dialect, Refusal, Reply, Target, Unreadable, json, tool};
use crate::sim::generation::{Ask, Generation, Token, fill, input_tokens, quoted};
use crate::sim::playback::Script;

pub(super) struct Ollama;

const LINE: &str =
    r#"{"model":$model,"created_at":"$time","message":{"role":"assistant",$said},"done":false}"#;
const LAST: &str = r#"{"model":$model,"created_at":"$time","message":{"role":"assistant",$said},"done":true,"done_reason":"$reason","total_duration":$latency,"load_duration":1000000,"prompt_eval_count":$input,"prompt_eval_duration":$first,"eval_count":$output,"eval_duration":$rest}"#;
const CALL: &str =
    r#""content":"","tool_calls":[{"function":{"name":$name,"arguments":$arguments}}]"#;
const NOTHING: &str = r#""content":"""#;

impl Dialect for Ollama {
    fn name(&self) -> &'static str {
        "ollama"
    }

    fn claims(&self, target: &Target) -> bool {
        target.ends_in("api/chat")
    }

    fn read(&self, call: &Call<'_>) -> Result<Answer, Unreadable> {
        let body = call.json()?;
        let ask = Ask {
            model: body["model"].as_str().unwrap_or("sim").to_owned(),
            input_tokens: input_tokens(&[&body["messages"]]),
            limit: body["options"]["num_predict"].as_u64(),
            thinks: true,
            tool: tool(&body, "/tools/0/function/name"),
            ..Ask::default()
        };
        Ok(if body["stream"] == false {
            let write = |generation: &Generation| json(StatusCode::OK, whole(generation));
            Answer::Whole { ask, write: Box::new(write) }
        } else {
            Answer::Stream { ask, write: Box::new(stream) }
        })
    }

    fn refuse(&self, _: &Target, refusal: &Refusal) -> Reply {
        json(refusal.status, format!(r#"{{"error":{}}}"#, quoted(&refusal.message)))
    }

    fn failures(&self) -> &'static [u16] {
        &[503, 500]
    }
}

fn whole(generation: &Generation) -> String {
    let mut said = match &generation.tool {
        Some(name) => call(generation, name),
        None => format!(r#""content":"{}""#, generation.text()),
    };
    if generation.reasoning_tokens > 0 {
        said += &format!(r#","thinking":"{}""#, generation.reasoning_of(0));
    }
    last(generation, &said)
}

fn stream(generation: &Generation) -> Script {
    let line = generation.fill(LINE, &[]);
    let call = generation.tool.as_ref().map(|name| call(generation, name));
    let token = move |token: Token| {
        let said = match &call {
            _ if token.is_reasoning => format!(r#""content":"","thinking":"{}""#, token.word),
            None => format!(r#""content":"{}""#, token.word),
            // A call comes whole, with the last of its tokens.
            Some(call) if token.last => call.clone(),
            Some(_) => return Vec::new(),
        };
        (fill(&line, &[("said", &said)]) + "\n").into_bytes()
    };
    Script {
        content_type: "application/x-ndjson",
        headers: &[],
        opening: Vec::new(),
        token: Box::new(token),
        ending: (last(generation, NOTHING) + "\n").into_bytes(),
        error: b"{\"error\":\"the simulated model failed midway\"}\n".to_vec(),
    }
}

fn call(generation: &Generation, name: &str) -> String {
    fill(CALL, &[("name", &quoted(name)), ("arguments", &generation.arguments_of(0))])
}

/// The object that tells of the whole answer; times are nanoseconds.
fn last(generation: &Generation, said: &str) -> String {
    let (first, all) = (generation.ttft, generation.latency());
    let values: [(&str, &dyn Display); 5] = [
        ("said", &said),
        ("reason", &generation.reason("stop", "length")),
        ("latency", &all.as_nanos()),
        ("first", &first.as_nanos()),
        ("rest", &all.saturating_sub(first).as_nanos()),
    ];
    generation.fill(LAST, &values)
}
