//! A stream of any length takes the memory of a short one.

use std::time::Duration;

use http::HeaderMap;
use peak_alloc::PeakAlloc;
use tidegate_wire::{Ending, HeadView, Observer, Outcome, Record, Shape};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const SHORT: u64 = 100;
const EVENTS: u64 = 20_000;
const MAX_GROWTH: usize = 1 << 10;

/// By path: the content type, an event that may come any number of times, and the last one.
const STREAMS: [(&str, &str, &str, &str); 4] = [
    (
        "/v1/chat/completions",
        "text/event-stream",
        "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    ),
    (
        "/v1/responses",
        "text/event-stream",
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n",
        "data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\"}}\n\n",
    ),
    (
        "/v1/messages",
        "text/event-stream",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"hi\"}}\n\n",
        "data: {\"type\":\"message_stop\"}\n\n",
    ),
    (
        "/v1beta/models/gemini:streamGenerateContent",
        "application/json",
        "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hi\"}]}}]}\n",
        "{\"candidates\":[{\"finishReason\":\"STOP\"}]}\n",
    ),
];

#[test]
fn a_stream_of_any_length_takes_the_memory_of_a_short_one() {
    for (path, content_type, event, last) in STREAMS {
        let mut observer = Observer::new(Shape::read(&HeadView {
            method: "POST",
            host: Some("localhost"),
            path,
            query: None,
            headers: &HeaderMap::new(),
        }));
        let mut headers = HeaderMap::new();
        headers.insert("content-type", content_type.parse().expect("a value"));
        observer.head(200, &headers, Duration::ZERO);
        let mut begun = 0;
        for at in 0..EVENTS {
            if at == SHORT {
                begun = MEMORY.current_usage();
            }
            // Cut elsewhere each time, so that what is kept of a cut text is there, too.
            let (head, tail) = event.split_at(at as usize % event.len());
            observer.chunk(head.as_bytes(), Duration::from_millis(at));
            observer.chunk(tail.as_bytes(), Duration::from_millis(at));
        }
        let growth = MEMORY.current_usage().saturating_sub(begun);
        observer.chunk(last.as_bytes(), Duration::from_millis(EVENTS));
        let mut record = Record::default();
        observer.finish(Ending::Clean, Duration::from_millis(EVENTS), &mut record);
        assert_eq!(record.outcome, Some(Outcome::Completed), "{path}");
        assert!(record.time_to_last_token_s.is_some(), "{path}");
        assert!(growth <= MAX_GROWTH, "{path} grew by {growth} bytes");
    }
}
