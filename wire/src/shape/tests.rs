use http::HeaderMap;

use super::*;

fn shape(method: &str, host: &str, path: &str) -> Shape {
    read(method, host, path, &HeaderMap::new())
}

fn read(method: &str, host: &str, path: &str, headers: &HeaderMap) -> Shape {
    Shape::read(&HeadView { method, host: Some(host), path, query: None, headers })
}

/// A call on localhost: its dialect, operation, model and stream, as the path says them.
#[track_caller]
fn check(path: &str, dialect: Dialect, operation: &str, model: Option<&str>, stream: Option<bool>) {
    let shape = shape("POST", "localhost", path);
    assert_eq!(shape.dialect, dialect, "{path}");
    assert_eq!(shape.operation.as_deref(), Some(operation), "{path}");
    assert_eq!((shape.model.as_deref(), shape.stream), (model, stream), "{path}");
}

#[test]
fn calls_are_recognised_at_the_end_of_the_path() {
    use Dialect::*;
    check("/v1/chat/completions", OpenAi, "chat", None, None);
    check("/a/b/openai/v1/chat/completions", OpenAi, "chat", None, None);
    check("/chat/completions/", OpenAi, "chat", None, None);
    check("/v1/completions", OpenAi, "text_completion", None, None);
    check("/v1/embeddings", OpenAi, "embeddings", None, Some(false));
    check("/openai/v1/responses", OpenAi, "chat", None, None);
    check(
        "//openai/deployments/my%20one/completions",
        OpenAi,
        "text_completion",
        Some("my one"),
        None,
    );
    check("/claude/v1/messages", Anthropic, "chat", None, None);
    check("/v1/messages/count_tokens", Anthropic, "count_tokens", None, Some(false));
    check("/v1/complete", Anthropic, "text_completion", None, None);
    check("/generate", Generate, "text_completion", None, None);
    check("/v1/generate", Generate, "text_completion", None, None);
}

#[test]
fn google_names_model_and_verb_in_the_path() {
    use Dialect::*;
    let published = |rest: &str| format!("/vertex/v1/projects/p/locations/l/publishers/{rest}");
    let call = |rest: &str, operation, model, stream| {
        check(&published(rest), Vertex, operation, model, stream);
    };
    call("google/models/g:generateContent", "generate_content", Some("g"), Some(false));
    call("google/models/g%3AstreamGenerateContent", "generate_content", Some("g"), Some(true));
    call("google/models/g:countTokens", "count_tokens", Some("g"), Some(false));
    call(
        "google/models/text-embedding-1:predict",
        "embeddings",
        Some("text-embedding-1"),
        Some(false),
    );
    call("google/models/imagen:predict", "generate_image", Some("imagen"), Some(false));
    call("google/models/own:predict", "predict", Some("own"), Some(false));
    call("google/models/veo:predictLongRunning", "predict_long_running", Some("veo"), Some(false));
    call("anthropic/models/c@1:rawPredict", "chat", Some("c@1"), Some(false));
    call("anthropic/models/c@1:streamRawPredict", "chat", Some("c@1"), Some(true));
    call("anthropic/models/count-tokens:rawPredict", "count_tokens", None, Some(false));
    check("/v1beta/models/g:embedContent", Gemini, "embeddings", Some("g"), Some(false));
    check(
        "/v1beta/models/g:streamGenerateContent",
        Gemini,
        "generate_content",
        Some("g"),
        Some(true),
    );
    let endpoint = |rest: &str| format!("/v1/projects/p/locations/l/endpoints/{rest}");
    check(&endpoint("openapi/chat/completions"), Vertex, "chat", None, None);
    check(&endpoint("7:generateContent"), Vertex, "generate_content", Some("7"), Some(false));
}

#[test]
fn bedrock_names_model_and_verb_in_the_path() {
    let call = |rest: &str, operation, model, stream| {
        check(&format!("/model/{rest}"), Dialect::Bedrock, operation, Some(model), Some(stream));
    };
    call("us.anthropic.c-v1%3A0/converse", "chat", "us.anthropic.c-v1:0", false);
    call("us.anthropic.c-v1:0/converse-stream", "chat", "us.anthropic.c-v1:0", true);
    call("amazon.titan-text-lite-v1/invoke", "text_completion", "amazon.titan-text-lite-v1", false);
    call("cohere.embed-v4:0/invoke", "embeddings", "cohere.embed-v4:0", false);
    call("meta.l/invoke-with-response-stream", "chat", "meta.l", true);
    call("a/count-tokens", "count_tokens", "a", false);
    call(
        "arn:aws:bedrock:r:1:prompt-router/x/converse",
        "chat",
        "arn:aws:bedrock:r:1:prompt-router/x",
        false,
    );
}

#[test]
fn anything_else_is_no_model_call() {
    for (method, path) in [
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/threads/t/messages"),
        ("POST", "/v1/messages/batches"),
        ("GET", "/v1/models"),
        ("POST", "/v1beta/models/g:tune"),
        ("POST", "/model/a/describe"),
        ("POST", "/"),
        ("OPTIONS", "*"),
        ("GET", ""),
    ] {
        let shape = shape(method, "api.openai.com", path);
        assert_eq!((shape.dialect, shape.operation), (Dialect::Other, None), "{method} {path}");
        assert_eq!(shape.provider.as_deref(), Some("openai"));
    }
}

#[test]
fn the_region_comes_from_host_path_arn_or_signature() {
    let region = |host: &str, path: &str| shape("POST", host, path).region;
    let vertex = "/v1/projects/p/locations/europe-west4/publishers/google/models/g:generateContent";
    assert_eq!(region("localhost", vertex).as_deref(), Some("europe-west4"));
    let converse = "/model/a/converse";
    let host = "bedrock-runtime.us-west-2.amazonaws.com";
    assert_eq!(region(host, converse).as_deref(), Some("us-west-2"));
    let arn = "/model/arn%3Aaws%3Abedrock%3Aeu-west-3%3A%3Afoundation-model%2Fx/converse";
    assert_eq!(region("localhost", arn).as_deref(), Some("eu-west-3"));
    assert_eq!(region("localhost", converse), None);

    let scope = "AWS4-HMAC-SHA256 Credential=AKID/20260102/ap-south-1/bedrock/aws4_request, x";
    let headers = HeaderMap::from_iter([(
        http::header::AUTHORIZATION,
        scope.parse().expect("a header value"),
    )]);
    let signed = read("POST", "localhost", converse, &headers);
    assert_eq!(signed.region.as_deref(), Some("ap-south-1"));
}

#[test]
fn the_host_says_who_serves_and_the_path_only_where_it_does_not() {
    let provider = |host: &str, path: &str| shape("POST", host, path).provider;
    let chat = "/v1/chat/completions";
    assert_eq!(provider("api.groq.com", chat).as_deref(), Some("groq"));
    assert_eq!(provider("vllm.default.svc", chat).as_deref(), Some("openai"));
    let mantle = "bedrock-mantle.us-east-1.api.aws";
    assert_eq!(provider(mantle, chat).as_deref(), Some("aws.bedrock"));
    assert_eq!(provider("localhost", "/v1/messages").as_deref(), Some("anthropic"));
    assert_eq!(provider("localhost", "/generate"), None);
}

#[test]
fn a_body_that_is_no_json_is_not_asked() {
    let kind = |kind: &str| {
        let value = kind.parse().expect("a header value");
        let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, value)]);
        read("POST", "localhost", "/v1/generate", &headers).asks
    };
    assert_eq!(kind("multipart/form-data; boundary=x"), Asks::default());
    assert_eq!(kind("Application/JSON"), Asks { model: false, stream: true });
}

#[test]
fn nonsense_in_a_path_is_taken_as_it_stands() {
    let model = shape("POST", "localhost", "/model/%zz%e2%28%/converse").model;
    assert_eq!(model.as_deref(), Some("%zz\u{fffd}(%"));
}

#[test]
fn a_session_over_websocket_is_recognised_where_one_is_asked_for() {
    use Dialect::*;
    let mut headers = HeaderMap::new();
    let session = |path: &str, headers: &HeaderMap| {
        let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
        Shape::read(&HeadView { method: "GET", host: None, path, query, headers })
    };
    let google = "google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
    let vertex = "google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent";
    let cases = [
        ("/v1/realtime?model=gpt-realtime&key=secret".to_owned(), OpenAi, Some("gpt-realtime")),
        ("/openai/realtime?api-version=1&deployment=my%20one".to_owned(), OpenAi, Some("my one")),
        ("/v1/realtime?intent=transcription".to_owned(), OpenAi, None),
        (format!("/ws/{google}?key=secret"), Gemini, None),
        (format!("/ws/{google}Constrained?access_token=secret"), Gemini, None),
        (format!("/ws/{vertex}"), Vertex, None),
    ];
    for (path, dialect, model) in &cases {
        assert_eq!(session(path, &headers).operation, None, "{path}");
        headers.insert("upgrade", "WebSocket".parse().expect("a value"));
        let shape = session(path, &headers);
        assert_eq!(shape.operation.as_deref(), Some("realtime"), "{path}");
        assert_eq!((shape.dialect, shape.model.as_deref()), (*dialect, *model), "{path}");
        headers.clear();
    }
}

#[test]
fn a_provider_is_stated_by_its_host_or_a_signature_and_else_only_assumed() {
    for (host, path, provider, is_assumed) in [
        ("api.openai.com", "/v1/chat/completions", "openai", false),
        ("localhost", "/v1/chat/completions", "openai", true),
        ("vllm.default.svc", "/v1/messages", "anthropic", true),
        ("127.0.0.1", "/v1beta/models/m:generateContent", "gcp.gemini", true),
        (
            "generativelanguage.googleapis.com",
            "/v1beta/models/m:generateContent",
            "gcp.gemini",
            false,
        ),
    ] {
        let shape = shape("POST", host, path);
        assert_eq!(shape.provider.as_deref(), Some(provider), "{host}{path}");
        assert_eq!(shape.is_provider_assumed, is_assumed, "{host}{path}");
    }
    let mut headers = HeaderMap::new();
    let signature = "AWS4-HMAC-SHA256 Credential=A/20261126/us-east-1/bedrock/aws4_request";
    headers.insert("authorization", signature.parse().expect("a value"));
    assert!(!read("POST", "localhost", "/model/m/converse", &headers).is_provider_assumed);
}

#[test]
fn what_a_head_makes_up_is_kept_to_a_bound() {
    let long = "x".repeat(60_000);
    for path in [
        format!("/model/{long}/converse"),
        format!("/v1/projects/{long}/locations/{long}/publishers/google/models/{long}:predict"),
        format!("/openai/deployments/{long}/chat/completions"),
        format!("/async-invoke/{long}"),
        format!("/v1/videos/{long}"),
    ] {
        for method in ["GET", "POST"] {
            let mut headers = HeaderMap::new();
            let name = "x-amzn-bedrock-guardrailidentifier";
            headers.insert(name, long.parse().expect("a value"));
            let shape = read(method, &format!("{long}-aiplatform.googleapis.com"), &path, &headers);
            let kept = [shape.model, shape.project, shape.guardrail, shape.job];
            for text in kept.iter().flatten() {
                assert!(text.len() <= 1024, "{} bytes", text.len());
            }
            assert!(shape.region.is_none_or(|region| region.len() <= 1024));
        }
    }
}

#[test]
fn a_query_whose_mark_was_escaped_is_no_part_of_a_name() {
    let path = "/v1beta/models/veo/operations/abc%3Fkey=secret";
    let shape = shape("GET", "localhost", path);
    assert!(shape.job.is_none_or(|job| job.ends_with("/operations/abc")));
}
