//! Long-running jobs: the submit and the polls of one job, tied together by its name.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};

use crate::support::*;

const VEO: &str = "/v1/projects/p/locations/eu/publishers/google/models/veo-3";
const NAME: &str = "projects/p/locations/eu/publishers/google/models/veo-3/operations/1";
const ARN: &str = "arn:aws:bedrock:us-east-1:123456789012:async-invoke/1";

/// An upstream whose job is done with the poll of this number, counted from 1.
fn making_videos(done_with: usize, result: Value) -> Upstream {
    let polls = AtomicUsize::new(0);
    Upstream::new(move |mut peer| {
        while let Some(request) = peer.request() {
            let is_poll = request.target().ends_with(":fetchPredictOperation");
            let is_done = is_poll && polls.fetch_add(1, SeqCst) + 1 >= done_with;
            let mut operation = json!({"name": NAME});
            if is_done {
                operation["done"] = true.into();
                let result = result.as_object().expect("an object").clone();
                operation.as_object_mut().expect("an object").extend(result);
            }
            peer.wire.send(answer(&operation.to_string()));
        }
    })
}

fn submit() -> String {
    let body = json!({"instances": [{"prompt": "a"}], "parameters": {"durationSeconds": 6, "sampleCount": 2}});
    post(&format!("{VEO}:predictLongRunning"), &body.to_string())
}

fn poll() -> String {
    post(&format!("{VEO}:fetchPredictOperation"), &json!({"operationName": NAME}).to_string())
}

fn two_videos() -> Value {
    json!({"response": {"videos": [{"gcsUri": "gs://a/0"}, {"gcsUri": "gs://a/1"}]}})
}

fn seconds(record: &Value, key: &str) -> f64 {
    record[key].as_f64().unwrap_or_else(|| panic!("no {key} in {record}"))
}

#[test]
fn the_poll_that_finds_a_job_done_says_how_long_it_took_and_what_it_made() {
    let upstream = making_videos(2, two_videos());
    let sidecar = Sidecar::to(&upstream);
    // Each on a connection of its own: whichever worker takes it.
    for (request, ended) in [submit(), poll(), poll(), poll()].into_iter().zip(1..) {
        assert_eq!(sidecar.call(request).status(), 200);
        sidecar.wait_records(ended);
    }
    for (metric, value) in [
        ("tidegate_jobs_total", 1.0),
        ("tidegate_job_duration_seconds_count", 1.0),
        ("tidegate_job_polls_total", 3.0),
        ("tidegate_jobs_open", 0.0),
        ("tidegate_jobs_forgotten_total", 0.0),
        ("tidegate_video_seconds_total", 12.0),
    ] {
        assert_eq!(sidecar.metric(metric), value, "{metric}");
    }
    let metrics = sidecar.ask("/metrics").text();
    let labels = r#"{model="veo-3",provider="gcp.vertex_ai",region="eu",outcome="succeeded"} 1"#;
    assert!(metrics.contains(&format!("tidegate_jobs_total{labels}")), "{metrics}");

    let mut records = sidecar.finish();
    records.sort_by(|one, other| one["time"].as_str().cmp(&other["time"].as_str()));
    records.iter().for_each(|record| assert_eq!(record["tidegate.job.name"], NAME));
    let [submit, running, done, again] = &records[..] else { panic!("{records:#?}") };
    assert_eq!(submit["tidegate.job.video_length_s"], 6.0);
    assert_eq!(submit["tidegate.job.video_count"], 2);
    assert_eq!(submit["tidegate.job.polls"], Value::Null);
    assert_eq!(running["tidegate.job.done"], false);
    assert_eq!(running["tidegate.job.polls"], 1);
    assert_eq!(running["tidegate.job.duration_s"], Value::Null);
    assert_eq!(done["tidegate.job.outcome"], "succeeded");
    assert_eq!(done["tidegate.job.polls"], 2);
    assert_eq!(done["tidegate.output.videos"], 2);
    assert_eq!(done["tidegate.output.video_seconds"], 12.0);
    let took = seconds(done, "tidegate.job.duration_s");
    assert!(took >= seconds(submit, "tidegate.duration_s"), "{took}");
    assert_eq!(seconds(again, "tidegate.job.duration_s"), took);
    assert_eq!(again["tidegate.output.video_seconds"], Value::Null);
}

#[test]
fn a_sidecar_that_saw_no_submit_ties_the_poll_by_name_and_makes_nothing_up() {
    let upstream = making_videos(1, two_videos());
    let (one, other) = (Sidecar::to(&upstream), Sidecar::to(&upstream));
    one.call(submit());
    other.call(poll());
    let (submit, done) = (one.finish_with_one(), other.finish_with_one());
    assert_eq!(submit["tidegate.job.name"], done["tidegate.job.name"]);
    assert_eq!(done["tidegate.output.videos"], 2);
    for key in ["tidegate.job.duration_s", "tidegate.output.video_seconds"] {
        assert_eq!(done[key], Value::Null, "{key}");
    }
}

#[test]
fn a_job_that_fails_fails_its_call_and_its_count() {
    let upstream = making_videos(
        1,
        json!({"error": {"code": 3, "message": "no", "status": "INVALID_ARGUMENT"}}),
    );
    let sidecar = Sidecar::to(&upstream);
    sidecar.call(submit());
    sidecar.call(poll());
    sidecar.wait_records(2);
    assert!(sidecar.ask("/metrics").text().contains(r#"region="eu",outcome="failed""#));
    let records = sidecar.finish();
    let failed = records.iter().find(|record| record["tidegate.job.done"] == true);
    let failed = failed.expect("the job was seen done");
    assert_outcome(failed, "failed", Some("client"));
    assert_eq!(failed["http.response.status_code"], 200);
    assert_eq!(failed["tidegate.job.outcome"], "failed");
    assert_eq!(failed["tidegate.output.video_seconds"], Value::Null);
}

#[test]
fn a_job_that_nobody_polls_is_counted_as_abandoned() {
    let upstream = making_videos(1, two_videos());
    let sidecar = Sidecar::with(&upstream, "timeouts: { job_idle: 1ms }");
    sidecar.call(submit());
    wait_until("the job is given up", || sidecar.metric("tidegate_jobs_total") == 1.0);
    assert!(sidecar.ask("/metrics").text().contains(r#"outcome="abandoned""#));
    assert_eq!(sidecar.metric("tidegate_jobs_open"), 0.0);
    sidecar.finish_with_one();
}

#[test]
fn open_jobs_are_bounded_and_what_is_forgotten_is_counted() {
    let upstream = Upstream::new(|mut peer| {
        let mut number = 0;
        while peer.request().is_some() {
            number += 1;
            peer.wire.send(answer(&json!({"name": format!("operations/{number}")}).to_string()));
        }
    });
    let sidecar = Sidecar::with(&upstream, "limits: { jobs: 3 }");
    let mut caller = sidecar.connect();
    for _ in 0..10 {
        caller.call(submit());
    }
    drop(caller);
    sidecar.wait_records(10);
    assert_eq!(sidecar.metric("tidegate_jobs_open"), 3.0);
    assert_eq!(sidecar.metric("tidegate_jobs_forgotten_total"), 7.0);
    sidecar.finish();
}

#[test]
fn an_asynchronous_invocation_is_a_job_and_states_its_own_times() {
    let upstream = Upstream::new(|mut peer| {
        while let Some(request) = peer.request() {
            let body = match request.target() {
                "/async-invoke" => json!({"invocationArn": ARN}),
                _ => json!({
                    "invocationArn": ARN,
                    "status": "Completed",
                    "submitTime": "2026-11-21T10:00:00Z",
                    "endTime": "2026-11-21T10:01:30Z",
                }),
            };
            peer.wire.send(answer(&body.to_string()));
        }
    });
    let sidecar = Sidecar::to(&upstream);
    let body = json!({"modelId": "nova-reel", "modelInput": {"videoGenerationConfig": {"durationSeconds": 6}}});
    sidecar.call(post("/async-invoke", &body.to_string()));
    let path = format!("/async-invoke/{}", ARN.replace(':', "%3A").replace('/', "%2F"));
    sidecar.call(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    sidecar.wait_records(2);
    let metrics = sidecar.ask("/metrics").text();
    assert!(metrics.contains(r#"tidegate_video_seconds_total{model="nova-reel""#), "{metrics}");
    let records = sidecar.finish();
    let done = records.iter().find(|record| record["tidegate.job.done"] == true);
    let done = done.expect("the job was seen done");
    assert_eq!(done["tidegate.job.duration_s"], 90.0);
    assert_eq!(done["tidegate.output.video_seconds"], 6.0);
}

#[test]
fn a_call_is_counted_by_the_sizes_of_its_prompt_and_its_answer_and_by_where_it_waited() {
    let usage = r#"data: {"choices":[],"usage":{"prompt_tokens":5000,"completion_tokens":1}}"#;
    let events = [TOKEN, TOKEN, FINISH, &format!("{usage}\n\n"), DONE].map(chunk).concat();
    let upstream = Upstream::answering(format!("{STREAM_HEAD}{events}{LAST_CHUNK}"));
    let sidecar = Sidecar::to(&upstream);
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
    let body = json!({"model": "m", "stream": true, "messages": [{"content": [image, image]}]});
    sidecar.call(post("/v1/chat/completions", &body.to_string()));
    sidecar.wait_records(1);
    let metrics = sidecar.ask("/metrics").text();
    for series in [
        r#"tidegate_input_media_total{model="m",kind="image"} 2"#,
        r#"tidegate_time_to_first_token_by_input_seconds_count{model="m",input_size="up_to_16k"} 1"#,
        r#"tidegate_call_duration_by_output_seconds_count{model="m",output_size="up_to_256"} 1"#,
        r#"tidegate_longest_gap_seconds_count{model="m",provider="openai",region="",route="default",upstream="default"} 1"#,
        r#"tidegate_stalls_total{model="m",provider="openai",region="",route="default",upstream="default"} 0"#,
        r#"tidegate_wait_seconds_count{route="default",upstream="default",wait="connect"} 1"#,
    ] {
        assert!(metrics.contains(series), "{series} is not in {metrics}");
    }
    let record = sidecar.finish_with_one();
    assert_eq!(record["tidegate.input.size_class"], "up_to_16k");
    assert_eq!(record["tidegate.input.image_bytes"], 6);
}

#[test]
fn a_request_is_read_to_its_end_while_it_streams_on() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let routes = format!(
        "upstreams: {{ a: {{ url: '{}' }} }}\nroutes: [{{ match: {{ model: 'gpt-*' }}, upstream: a }}]",
        upstream.url()
    );
    let sidecar = Launch::new().config(&routes).start();
    let padding = "A".repeat(1 << 20);
    let body = format!(
        r#"{{"model":"gpt-4o","messages":[{{"content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{padding}"}}}}]}}],"max_tokens":7}}"#
    );
    assert_eq!(sidecar.call(post("/v1/chat/completions", &body)).status(), 200);
    assert_eq!(upstream.request().text(), body);
    let record = sidecar.finish_with_one();
    assert_eq!(record["gen_ai.request.max_tokens"], 7);
    assert_eq!(record["tidegate.input.image_bytes"], (1 << 20) / 4 * 3);
}
