//! What SDKs do behind the back of those who use them.

use crate::support::*;

fn by_google_sdk(request: String) -> String {
    request.replacen("\r\n", "\r\nX-Goog-Api-Client: google-genai-sdk/3.4.0 gl-python/3.11\r\n", 1)
}

#[test]
fn a_call_that_lost_its_path_is_never_forwarded_and_told_how_to_keep_it() {
    let upstream = Upstream::answering(answer("{}"));
    let sidecar = Sidecar::to(&upstream);
    let body = r#"{"contents":[{"parts":[{"text":"hi"}]}]}"#;
    for (number, path) in ["/", "/vertex", "/vertex/v1?alt=sse"].into_iter().enumerate() {
        let reply = sidecar.call(by_google_sdk(post(path, body)));
        assert_eq!(reply.status(), 400);
        assert_eq!(reply.header("x-tidegate-error"), Some("sdk_lost_path"));
        let error = &reply.json()["error"];
        assert_eq!((&error["code"], &error["status"]), (&400.into(), &"INVALID_ARGUMENT".into()));
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("`project` and `location`"), "{message}");
        let record = &sidecar.wait_records(number + 1)[number];
        assert_outcome(record, "refused", Some("client"));
        assert_eq!(record["error.type"], "sdk_lost_path");
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_call_that_kept_its_path_is_forwarded_whatever_it_asks_for() {
    let upstream = Upstream::answering(answer("{}"));
    let sidecar = Sidecar::to(&upstream);
    let lawful = [
        "/vertex/v1beta1/projects/p/locations/l/publishers/google/models/m:generateContent",
        "/v1beta/files",
        "/upload/v1beta/files",
        "/v1beta/cachedContents",
        "/v1beta/interactions",
    ];
    for path in lawful {
        assert_eq!(sidecar.call(by_google_sdk(post(path, "{}"))).status(), 200, "{path}");
    }
    assert_eq!(sidecar.call(post("/", "{}")).status(), 200, "it is not Google's SDK");
    assert_eq!(upstream.requests().len(), lawful.len() + 1);
}

#[test]
fn a_record_says_how_often_the_caller_had_tried_before() {
    let upstream = Upstream::answering(answer("{}"));
    let sidecar = Sidecar::to(&upstream);
    let with = |field: &str| call().replacen("\r\n", &format!("\r\n{field}\r\n"), 1);
    for (number, (request, retries)) in [
        (call(), None),
        (with("X-Stainless-Retry-Count: 0"), Some(0)),
        (with("X-Stainless-Retry-Count: 1"), Some(1)),
        (with("amz-sdk-request: attempt=3; max=3"), Some(2)),
        (with("X-Stainless-Retry-Count: 99999999999999999999"), None),
    ]
    .into_iter()
    .enumerate()
    {
        sidecar.call(&request);
        let record = &sidecar.wait_records(number + 1)[number];
        assert_eq!(record["tidegate.client_retries"].as_u64(), retries, "{request}");
    }
}
