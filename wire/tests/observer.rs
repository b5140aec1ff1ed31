//! What an observer makes of times, endings and requests.

use std::time::Duration;

use http::HeaderMap;
use tidegate_wire::{
    Ending, ErrorOrigin, HeadView, JobOutcome, Observer, Outcome, Record, Shape, UsageSource,
};

#[path = "../../tests/support/encoding.rs"]
mod encoding;
#[path = "../../tests/support/flushing.rs"]
mod flushing;

use encoding::encoded;
use flushing::flushing;

#[test]
fn tokens_are_stamped_and_roles_are_not() {
    let mut observer = chat(r#"{"model":"m","stream":true}"#);
    observer.keep_token_times();
    observer.head(200, &event_stream(), ms(10));
    observer.chunk(&delta(r#"{"role":"assistant","content":""}"#), ms(20));
    observer.chunk(&delta(r#"{"reasoning_content":"hm"}"#), ms(30));
    observer.chunk(&delta(r#"{"content":"hi"}"#), ms(50));
    observer.chunk(&delta(r#"{"tool_calls":[{"function":{"arguments":"{"}}]}"#), ms(90));
    observer.chunk(b"data: {\"choices\":[],\"usage\":{\"completion_tokens\":5}}\n\n", ms(100));
    observer.chunk(b"data: [DONE]\n\n", ms(110));
    assert_eq!(observer.token_times(), [ms(30), ms(50), ms(90)]);
    assert_eq!(observer.token_gaps().collect::<Vec<_>>(), [ms(20), ms(40)]);

    let record = finish(observer, Ending::Clean, ms(120));
    assert_eq!(record.time_to_first_byte_s, Some(0.010));
    assert_eq!(record.time_to_first_body_byte_s, Some(0.020));
    assert_eq!(record.time_to_first_event_s, Some(0.020));
    assert_eq!(record.time_to_first_token_s, Some(0.030));
    assert_eq!(record.time_to_first_visible_token_s, Some(0.050));
    assert_eq!(record.time_to_last_token_s, Some(0.090));
    assert_eq!(record.time_per_output_token_s, Some(0.015));
    assert_eq!((record.token_chunks, record.stalls), (Some(3), Some(0)));
    assert_eq!(record.gap_max_s, Some(0.040));
    let median = record.gap_p50_s.expect("there are gaps");
    assert!((median / 0.020 - 1.0).abs() <= 0.05, "{median}");
    assert_eq!(record.duration_s, Some(0.120));
}

#[test]
fn a_token_is_stamped_when_its_event_is_whole() {
    let mut observer = chat(r#"{"model":"m","stream":true}"#);
    observer.head(200, &event_stream(), ms(10));
    let event = delta(r#"{"content":"hi"}"#);
    observer.chunk(&event[..event.len() - 20], ms(20));
    observer.chunk(&event[event.len() - 20..], ms(30));
    let record = finish(observer, Ending::Clean, ms(40));
    assert_eq!(record.time_to_first_token_s, Some(0.030));
}

#[test]
fn a_call_that_does_not_stream_has_no_token_times() {
    let mut observer = chat(r#"{"model":"m"}"#);
    observer.keep_token_times();
    observer.head(200, &HeaderMap::new(), ms(10));
    observer.chunk(br#"{"choices":[{"text":"hi","finish_reason":"stop"}]}"#, ms(20));
    assert!(observer.token_times().is_empty());
    let record = finish(observer, Ending::Clean, ms(30));
    assert_eq!((record.stream, record.time_to_first_token_s), (Some(false), None));
    assert_eq!((record.time_to_first_body_byte_s, record.time_to_first_event_s), (None, None));
    assert_eq!((record.token_chunks, record.gap_max_s, record.stalls), (None, None, None));
    assert_eq!(record.outcome, Some(Outcome::Completed));
}

#[test]
fn routing_waits_no_longer_than_for_the_model_and_the_rest_is_read_as_it_passes() {
    let mut observer = chat("");
    assert!(observer.reads_request() && observer.awaits_model());
    observer.request(br#"{"messages":[{"model":"no","stream":true}],"mod"#);
    assert_eq!(observer.model(), None);
    observer.request(br#"el":"m","#);
    assert_eq!(observer.model(), Some("m"));
    assert!(observer.reads_request() && !observer.awaits_model());
    observer.request(br#""stream":true,"max_tok"#);
    assert!(observer.reads_request());
    observer.request(br#"ens":9}"#);
    assert!(!observer.reads_request());
    let record = finish(observer, Ending::CallerLeft, ms(1));
    assert_eq!(record.stream, Some(true));
    assert_eq!(record.asked.and_then(|asked| asked.max_tokens), Some(9));
}

#[test]
fn of_a_call_that_no_dialect_knows_only_the_model_is_read() {
    let mut observer = Observer::new(Shape::read(&HeadView {
        method: "POST",
        host: Some("localhost"),
        path: "/v1/rankings",
        query: None,
        headers: &HeaderMap::new(),
    }));
    observer.request(br#"{"model":"m","#);
    assert!(!observer.reads_request());
    assert_eq!(observer.model(), Some("m"));
}

#[test]
fn a_request_that_names_no_model_keeps_nobody_waiting() {
    let mut observer = chat(r#"{"messages":[]}"#);
    assert!(!observer.reads_request() && !observer.awaits_model());
    assert_eq!(observer.model(), None);
    observer.request(b"{\"model\":\"late\"}");
    assert_eq!(observer.model(), None);
}

#[test]
fn what_a_request_says_first_holds_wherever_it_is_cut() {
    let body = r#"{"model":"a","model":"b","stream":true,"stream":false}{"model":"c"}"#;
    for at in 0..body.len() {
        let mut observer = chat(&body[..at]);
        observer.request(&body.as_bytes()[at..]);
        let record = finish(observer, Ending::CallerLeft, ms(1));
        assert_eq!(record.request_model.as_deref(), Some("a"), "cut at {at}");
        assert_eq!(record.stream, Some(true), "cut at {at}");
    }
}

#[test]
fn a_request_that_is_no_json_keeps_nobody_waiting() {
    let observer = chat("--boundary\r\n");
    assert!(!observer.reads_request() && !observer.awaits_model());
}

#[test]
fn the_first_cause_wins() {
    let outcome = |status, body: &[u8], ending| {
        let mut observer = chat(r#"{"model":"m","stream":true}"#);
        observer.head(status, &event_stream(), ms(1));
        observer.chunk(body, ms(2));
        finish(observer, ending, ms(3)).outcome.expect("every record has an outcome")
    };
    let stop = b"data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n";
    let error = b"data: {\"error\":{\"type\":\"x\"}}\n\n";
    assert_eq!(outcome(200, stop, Ending::Clean), Outcome::Completed);
    assert_eq!(outcome(200, stop, Ending::Broken), Outcome::Truncated);
    assert_eq!(outcome(200, stop, Ending::CallerLeft), Outcome::Abandoned);
    assert_eq!(outcome(200, b"", Ending::Clean), Outcome::Truncated);
    assert_eq!(outcome(200, error, Ending::Broken), Outcome::Failed);
    assert_eq!(outcome(200, error, Ending::CallerLeft), Outcome::Failed);
    assert_eq!(outcome(500, b"", Ending::CallerLeft), Outcome::Failed);
    assert_eq!(outcome(500, b"", Ending::NoAnswer), Outcome::Failed);
    assert_eq!(outcome(500, b"", Ending::Refused), Outcome::Refused);
}

#[test]
fn what_the_carrier_said_stays() {
    let mut observer = chat(r#"{"model":"m"}"#);
    observer.head(503, &HeaderMap::new(), ms(1));
    let mut record = Record {
        error_type: Some("breaker_open".to_owned()),
        error_origin: Some(ErrorOrigin::Sidecar),
        request_model: Some("alias".to_owned()),
        provider: Some("groq".into()),
        ..Record::default()
    };
    observer.finish(Ending::Refused, ms(2), &mut record);
    assert_eq!(record.error_type.as_deref(), Some("breaker_open"));
    assert_eq!(record.error_origin, Some(ErrorOrigin::Sidecar));
    assert_eq!(record.request_model.as_deref(), Some("alias"));
    assert_eq!(record.provider.as_deref(), Some("groq"));
}

#[test]
fn usage_is_final_once_it_came_with_the_reason() {
    let source = |body: &[u8]| {
        let mut observer = chat(r#"{"model":"m","stream":true}"#);
        observer.head(200, &event_stream(), ms(1));
        observer.chunk(body, ms(2));
        finish(observer, Ending::Broken, ms(3)).usage_source
    };
    let running = b"data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":1}}\n\n".as_slice();
    let last =
        b"data: {\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}\n\n";
    assert_eq!(source(running), Some(UsageSource::Partial));
    assert_eq!(source(last), Some(UsageSource::Reported));
    assert_eq!(source(b"data: {}\n\n"), None);
}

#[test]
fn an_event_of_an_encoded_stream_is_read_when_it_comes() {
    let event = delta(r#"{"content":"hi"}"#);
    for coding in ["gzip", "deflate", "bare deflate", "br", "zstd"] {
        let mut encode = flushing(coding);
        let mut observer = encoded_stream(coding.rsplit(' ').next().expect("a word"));
        for at in 2..5 {
            observer.chunk(&encode(&event), ms(at));
        }
        assert_eq!(observer.token_times(), [ms(2), ms(3), ms(4)], "{coding}");
        let record = finish(observer, Ending::Clean, ms(5));
        assert_eq!(record.outcome, Some(Outcome::Truncated), "{coding} has not ended");
    }
}

#[test]
fn an_encoding_that_is_none_is_given_up() {
    for coding in ["gzip", "deflate", "br", "zstd", "gzip, br", "compress"] {
        let mut observer = encoded_stream(coding);
        observer.chunk(b"data: {}\n\n", ms(2));
        observer.chunk(b"data: {}\n\n", ms(2));
        let record = finish(observer, Ending::Clean, ms(3));
        assert_eq!(record.not_understood.as_deref(), Some("encoded"), "{coding}");
        assert_eq!(record.outcome, Some(Outcome::Completed), "{coding}");
    }
}

#[test]
fn what_decodes_to_far_more_than_came_is_given_up() {
    let spaces = vec![b' '; 16 << 20];
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let mut observer = encoded_stream(coding);
        observer.chunk(&encoded(coding, spaces.clone()), ms(2));
        let record = finish(observer, Ending::Clean, ms(3));
        assert_eq!(record.not_understood.as_deref(), Some("decoded_too_large"), "{coding}");
    }
}

#[test]
fn a_window_over_8_mib_is_given_up_before_it_is_allocated() {
    let frame = |window_log: u8| {
        let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0, (window_log - 10) << 3];
        // One raw block, the last.
        frame.extend([17, 0, 0]);
        frame.extend([b'{', b'}']);
        frame
    };
    for (window_log, reason) in [(23, None), (24, Some("encoded")), (41, Some("encoded"))] {
        let mut observer = encoded_stream("zstd");
        observer.chunk(&frame(window_log), ms(2));
        let record = finish(observer, Ending::Clean, ms(3));
        assert_eq!(record.not_understood.as_deref(), reason, "2^{window_log}");
    }
}

#[test]
fn what_follows_an_encoding_belongs_to_nothing() {
    let stop = b"data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n";
    for coding in ["gzip", "deflate", "bare deflate", "br"] {
        let mut observer = encoded_stream(coding.rsplit(' ').next().expect("a word"));
        observer.chunk(&encoded(coding, stop.to_vec()), ms(2));
        observer.chunk(&[0; 16], ms(2));
        let record = finish(observer, Ending::Clean, ms(3));
        assert_eq!((record.not_understood, record.outcome), (None, Some(Outcome::Completed)));
        assert_eq!(record.finish_reasons, ["stop"], "{coding}");
    }
}

#[test]
fn a_broken_event_costs_itself_and_no_other() {
    let mut observer = chat(r#"{"model":"m","stream":true}"#);
    observer.head(200, &event_stream(), ms(1));
    observer.chunk(
        b"data: keep-alive\n\ndata: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n",
        ms(2),
    );
    let record = finish(observer, Ending::Clean, ms(3));
    assert_eq!(record.finish_reasons, ["stop"]);
    assert_eq!(record.not_understood.as_deref(), Some("not_json"));
}

#[test]
fn endless_bodies_cost_next_to_nothing() {
    let line = vec![b'x'; 1 << 20];
    for (start, content_type) in [
        (b"data: {\"choices\":[{\"delta\":{\"content\":\"".as_slice(), "text/event-stream"),
        (b"data: [", "text/event-stream"),
        (b"event: ", "text/event-stream"),
        (b"{\"x\":", "application/json"),
        (b"[1,[", "application/json"),
        (b"<html>", "text/html"),
    ] {
        let mut observer = chat(r#"{"model":"m","stream":true}"#);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", content_type.parse().expect("a value"));
        observer.head(200, &headers, ms(1));
        observer.chunk(start, ms(2));
        for _ in 0..4 {
            observer.chunk(&line, ms(3));
        }
        assert_ne!(finish(observer, Ending::Broken, ms(4)).outcome, Some(Outcome::Completed));
    }
}

#[test]
fn an_observer_is_small() {
    assert!(size_of::<Observer>() <= 512, "{} bytes", size_of::<Observer>());
}

fn chat(body: &str) -> Observer {
    let mut observer = Observer::new(Shape::read(&HeadView {
        method: "POST",
        host: Some("localhost"),
        path: "/v1/chat/completions",
        query: None,
        headers: &HeaderMap::new(),
    }));
    observer.request(body.as_bytes());
    observer
}

fn delta(delta: &str) -> Vec<u8> {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n").into_bytes()
}

fn event_stream() -> HeaderMap {
    let content_type = "text/event-stream; charset=utf-8".parse().expect("a value");
    HeaderMap::from_iter([(http::header::CONTENT_TYPE, content_type)])
}

/// An observer of a stream that is encoded.
fn encoded_stream(coding: &str) -> Observer {
    let mut headers = event_stream();
    headers.insert(http::header::CONTENT_ENCODING, coding.parse().expect("a value"));
    let mut observer = chat(r#"{"model":"m","stream":true}"#);
    observer.keep_token_times();
    observer.head(200, &headers, ms(1));
    observer
}

fn finish(observer: Observer, ending: Ending, at: Duration) -> Record {
    let mut record = Record::default();
    observer.finish(ending, at, &mut record);
    record
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn an_answer_that_was_cut_does_not_say_how_its_job_came_out() {
    const PATH: &str =
        "/v1/projects/p/locations/l/publishers/google/models/veo:fetchPredictOperation";
    const ANSWER: &[u8] =
        br#"{"name":"o","done":true,"response":{"videos":[{"gcsUri":"a"},{"gcsUri":"b"}]}}"#;
    let ask = |answer: &[u8], ending| {
        let headers = HeaderMap::new();
        let head =
            HeadView { method: "POST", host: None, path: PATH, query: None, headers: &headers };
        let mut observer = Observer::new(Shape::read(&head));
        observer.head(200, &headers, ms(10));
        observer.chunk(answer, ms(20));
        let record = finish(observer, ending, ms(30));
        let made = record.media.as_ref().and_then(|media| media.videos_made);
        (record.job.and_then(|job| job.outcome), made)
    };
    assert_eq!(ask(ANSWER, Ending::Clean), (Some(JobOutcome::Succeeded), Some(2)));
    for length in 0..ANSWER.len() {
        for ending in [Ending::Clean, Ending::Broken, Ending::CallerLeft] {
            assert_eq!(ask(&ANSWER[..length], ending), (None, None), "{length} {ending:?}");
        }
    }
}

#[test]
fn what_comes_after_its_caller_left_changes_nothing_of_how_a_call_ended() {
    let error = &b"data: {\"error\":{\"message\":\"no\",\"type\":\"server_error\"}}\n\n"[..];
    for (before, after, ending, outcome) in [
        (&b""[..], &b"data: [DONE]\n\n"[..], Ending::Clean, Outcome::Abandoned),
        (b"", error, Ending::Clean, Outcome::Abandoned),
        (b"", b"", Ending::Broken, Outcome::Abandoned),
        (b"", b"", Ending::CallerLeft, Outcome::Abandoned),
        (error, b"", Ending::Clean, Outcome::Failed),
    ] {
        let mut observer = chat(r#"{"model":"m","stream":true}"#);
        observer.head(200, &event_stream(), ms(10));
        observer.chunk(before, ms(20));
        observer.caller_left(false);
        observer.chunk(after, ms(30));
        let record = finish(observer, ending, ms(40));
        assert_eq!(record.outcome, Some(outcome), "{ending:?}");
        assert_eq!(record.error_type.is_some(), outcome == Outcome::Failed, "{ending:?}");
    }
}

#[test]
fn a_status_that_came_after_its_caller_left_is_none_that_the_caller_got() {
    let mut observer = chat(r#"{"model":"m"}"#);
    observer.caller_left(false);
    observer.head(200, &HeaderMap::new(), ms(10));
    observer.chunk(br#"{"choices":[{"text":"hi"}],"usage":{"completion_tokens":7}}"#, ms(20));
    let record = finish(observer, Ending::Clean, ms(30));
    assert_eq!((record.status, record.usage_source), (None, Some(UsageSource::Reported)));
    assert_eq!(record.drain.and_then(|drain| drain.wasted_tokens), Some(7));
}

#[test]
fn wasted_tokens_are_those_behind_the_last_that_the_answer_had_counted() {
    let counted = |text: &str, tokens: u64| {
        let counts = format!(r#"{{"completion_tokens":{tokens}}}"#);
        let choices = format!(r#"[{{"delta":{{"content":"{text}"}}}}]"#);
        format!("data: {{\"choices\":{choices},\"usage\":{counts}}}\n\n").into_bytes()
    };
    let wasted = |ending| {
        let mut observer = chat(r#"{"model":"m","stream":true}"#);
        observer.head(200, &event_stream(), ms(10));
        observer.chunk(&counted("a", 30), ms(20));
        observer.caller_left(false);
        observer.chunk(&counted("b", 80), ms(30));
        if ending == Ending::Clean {
            observer.chunk(b"data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n", ms(31));
            observer.chunk(b"data: [DONE]\n\n", ms(32));
        }
        finish(observer, ending, ms(40)).drain.and_then(|drain| drain.wasted_tokens)
    };
    assert_eq!(wasted(Ending::Clean), Some(50));
    assert_eq!(wasted(Ending::CallerLeft), None, "the last word on them never came");
}

#[test]
fn where_only_the_total_is_stated_wasted_tokens_are_an_estimate_by_chunks() {
    let mut observer = chat(r#"{"model":"m","stream":true}"#);
    observer.head(200, &event_stream(), ms(10));
    for at in 0..4 {
        observer.chunk(&delta(r#"{"content":"hi"}"#), ms(20 + at));
    }
    observer.caller_left(false);
    for at in 0..6 {
        observer.chunk(&delta(r#"{"content":"hi"}"#), ms(30 + at));
    }
    observer.chunk(b"data: {\"choices\":[],\"usage\":{\"completion_tokens\":50}}\n\n", ms(40));
    observer.chunk(b"data: [DONE]\n\n", ms(41));
    let drain = finish(observer, Ending::Clean, ms(42)).drain.expect("a figure");
    assert_eq!((drain.wasted_tokens, drain.estimated_wasted_tokens), (None, Some(30)));
}

#[test]
fn an_answer_that_calls_a_tool_is_known_whatever_its_finish_reason_says() {
    let call = r#"{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}"#;
    let parts = |part: &str| format!(r#"{{"candidates":[{{"content":{{"parts":[{part}]}}}}]}}"#);
    let chat = "/v1/chat/completions";
    let gemini = "/v1beta/models/gemini-pro:generateContent";
    for (path, body, calls_tool) in [
        (chat, format!(r#"{{"choices":[{{"message":{call},"finish_reason":"stop"}}]}}"#), true),
        (
            chat,
            r#"{"choices":[{"message":{"content":"tool_calls","tool_calls":[]}}]}"#.into(),
            false,
        ),
        (chat, r#"{"choices":[{"message":{"content":"hi","tool_calls":null}}]}"#.into(), false),
        ("/v1/responses", r#"{"output":[{"type":"function_call"}]}"#.into(), true),
        ("/v1/responses", r#"{"output":[{"type":"message"}]}"#.into(), false),
        (gemini, parts(r#"{"functionCall":{"name":"f"}}"#), true),
        (gemini, parts(r#"{"text":"functionCall"}"#), false),
        ("/api/chat", r#"{"message":{"tool_calls":[{"function":{}}]},"done":true}"#.into(), true),
    ] {
        let mut observer = Observer::new(Shape::read(&HeadView {
            method: "POST",
            host: None,
            path,
            query: None,
            headers: &HeaderMap::new(),
        }));
        observer.head(200, &HeaderMap::new(), ms(1));
        observer.chunk(body.as_bytes(), ms(2));
        assert_eq!(finish(observer, Ending::Clean, ms(3)).calls_tool, calls_tool, "{path} {body}");
    }
}
