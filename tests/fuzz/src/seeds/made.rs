//! Seeds of which no fixture tells: gRPC, pictures, rate limits.

use crate::grpc::{FRAMED, METHODS};

#[path = "../../../support/grpc_messages.rs"]
mod grpc_messages;
#[path = "../../../support/protobuf.rs"]
mod protobuf;
#[path = "../../../support/protobuf_values.rs"]
mod protobuf_values;

use grpc_messages::{last, message, token};
use protobuf::{field, number};
use protobuf_values::{double, structure};

type Seeds = Vec<(String, Vec<u8>)>;

/// Messages with something at each path of the target.
pub(super) fn protobuf() -> Seeds {
    let value = |number| double(2, number);
    let inner = structure(&[("x", value(1.0)), ("b", value(12.0))]);
    let part = [field(1, "hi"), number(2, 1), number(3, 1), field(4, field(1, "m"))].concat();
    let whole = [
        field(1, "name"),
        number(2, 300),
        field(3, part),
        field(4, [7; 20]),
        field(5, structure(&[("a", inner), ("c", value(3.0)), ("c", field(3, "text"))])),
        field(6, field(1, "f")),
        number(7, 1),
        field(9, [0xFF; 30]),
    ];
    let built = b"\x01\x01\x01\x01\x02hi\x02\x03\x02\x04\x01\x01\x01m\x03\0\0\x03\x02\x03\0\x04\x02\0\0\0\0\0\0\x28\x40\x06\x04abc";
    named([
        ("every-path", [&[0, 7, 0][..], &whole.concat()].concat()),
        ("built", [&[0, 7], &built[..]].concat()),
        ("token", [&[0, 7, 0][..], &token("The")].concat()),
    ])
}

/// A call of each method.
pub(super) fn grpc() -> Seeds {
    const MODEL: &str = "projects/p/locations/l/publishers/google/models/m";
    let value = |number| double(2, number);
    let statistics = structure(&[("token_count", value(7.0))]);
    let prediction = structure(&[("embeddings", structure(&[("statistics", statistics)]))]);
    let chat = br#"{"id":"c","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let http = field(2, chat);
    let bodies = [
        ("stream", 0, vec![token("The"), last(1, 7, 12)]),
        ("whole", 1, vec![[token("The"), last(2, 7, 12)].concat()]),
        ("embeddings", 2, vec![field(2, number(1, 5))]),
        ("predict", 3, vec![field(1, prediction)]),
        ("count", 4, vec![number(1, 31)]),
        ("raw", 5, vec![http.clone()]),
        ("raw-stream", 6, vec![[field(1, "application/json"), http].concat()]),
        ("unknown", 9, vec![b"any".to_vec()]),
    ];
    let request = message([field(2, field(2, field(1, "why?"))), field(5, MODEL)].concat());
    let [high, low] = (request.len() as u16).to_be_bytes();
    let mut seeds = Vec::new();
    for (name, method, messages) in bodies {
        assert!(usize::from(method) < METHODS.len());
        let front = |encoding, choices| [method, encoding, 0, choices, 0, 0, 7, high, low];
        let status = &b"grpc-status:0\n\n"[..];
        let raw = messages.iter().flat_map(message).collect::<Vec<_>>();
        seeds.push((name, [&front(0, 0), status, &request, &raw].concat()));
        // The same, compressed.
        let framed = messages.iter().flat_map(|message| {
            let [high, low] = (message.len() as u16).to_be_bytes();
            [&[1, high, low], message.as_slice()].concat()
        });
        let framed = [&front(1, FRAMED), status, &request, &framed.collect::<Vec<_>>()].concat();
        seeds.push((["stream-gzip", "gzip"][usize::from(method > 0)], framed));
    }
    let quota = b"grpc-status:8\ngrpc-message:quota\ngrpc-status-details-bin:CAgaMQoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIFCgMIBxA\n\n";
    seeds.push(("quota", [&[0, 0, 0, 1, 0, 0, 7, 0, 0][..], quota].concat()));
    let named = seeds.into_iter().enumerate();
    named.map(|(at, (name, seed))| (format!("{name}-{at}"), seed)).collect()
}

/// A small picture of each format.
pub(super) fn pictures() -> Seeds {
    let webp = |kind: &[u8], rest: &[u8]| [b"RIFF\0\0\0\0WEBPVP8", kind, &[0; 4], rest].concat();
    let jpeg = b"\xff\xd8\xff\xe1\0\x06abcd\xff\xff\xc2\0\x0b\x08\x01\xe0\x02\x80\x01more than thirty bytes of it";
    let pictures = [
        ("png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x80\0\0\x01\xe0\x08\x06\0\0\0".to_vec()),
        ("gif", b"GIF89a\x80\x02\xe0\x01\xf7\0\0".to_vec()),
        ("bmp", b"BM\0\0\0\0\0\0\0\0\0\0\0\0\x28\0\0\0\x80\x02\0\0\x20\xfe\xff\xff\x01\0".to_vec()),
        ("old-bmp", b"BM\0\0\0\0\0\0\0\0\0\0\0\0\x0c\0\0\0\x80\x02\xe0\x01\x01\0\x18\0".to_vec()),
        ("webp", webp(b" ", b"\0\0\0\x9d\x01\x2a\x80\x02\xe0\x01\0")),
        ("webp-l", webp(b"L", b"\x2f\x7f\xc2\x77\0\0\0\0\0\0")),
        ("webp-x", webp(b"X", b"\x10\0\0\0\x7f\x02\0\xdf\x01\0more")),
        ("jpeg", jpeg.to_vec()),
        ("large", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x08\x80\0\0\x08\xe0\x08\x06\0\0\0".to_vec()),
        ("none", b"%PDF-1.7 and more than thirty bytes of it".to_vec()),
    ];
    let seeds = pictures.into_iter().enumerate().map(|(at, (name, picture))| {
        (name, [&[0, 7, at as u8, at as u8 % 3 * 5], picture.as_slice()].concat())
    });
    named(seeds)
}

/// Rate limits in the words of several providers.
pub(super) fn hints() -> Seeds {
    const DATE: &str = "date:Sat, 15 Mar 2025 09:38:16 GMT\n";
    let fields = [
        (
            "openai",
            "x-ratelimit-limit-requests:10000\nx-ratelimit-remaining-requests:9999\nx-ratelimit-reset-requests:1m30.5s\nx-ratelimit-reset-tokens:4ms\n",
        ),
        (
            "anthropic",
            "anthropic-ratelimit-input-tokens-limit:50000\nanthropic-ratelimit-input-tokens-remaining:9\nanthropic-ratelimit-input-tokens-reset:2025-03-15T09:40:00Z\n",
        ),
        (
            "mistral",
            "x-ratelimitbysize-limit-minute:5\nx-ratelimitbysize-remaining:3\nratelimit-reset:12\n",
        ),
        (
            "draft",
            "ratelimit:limit=10, remaining=5, reset=30\nratelimit:\"burst\";r=5;t=30, \"day\";r=9\n",
        ),
        ("epoch", "x-ratelimit-reset:1742031500\nx-ratelimit-reset-day:1742031500123\n"),
        (
            "offset",
            "x-ratelimit-reset-a:2025-03-15T10:40:00.5+01:00\nretry-after:Sat, 15 Mar 2025 09:39:16 GMT\n",
        ),
        ("wait", "retry-after-ms:1500.5\nretry-after:2\n"),
    ];
    // The status is 429.
    named(fields.map(|(name, fields)| (name, format!("\x04{DATE}{fields}").into_bytes())))
}

/// Pages of figures, in both formats.
pub(super) fn pages() -> Seeds {
    let pages = [
        (
            "text",
            "# HELP vllm:n Waiting.\n# TYPE vllm:n gauge\nvllm:n{model_name=\"a\",engine=\"0\"} 3.0\n# TYPE t_total counter\nt_total{a=\"\\\"\"} 7 1700000000000\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 2.5\nh_count 3\n# TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 1\ns_count 2\nprocess_start_time_seconds 1e2\n",
        ),
        (
            "openmetrics",
            "# TYPE c counter\nc_total 5 # {trace_id=\"f\"} 1 1\nc_created 99.5\n# TYPE \"a.b\" gauge\n{\"a.b\",\"c.d\"=\"e\"} 1\n# TYPE h histogram\nh_bucket{le=\"1\"} 4\nh_bucket{le=\"+Inf\"} 3\n# EOF\n",
        ),
        ("html", "<html>\n<body>not found</body>\n"),
    ];
    named(pages.map(|(name, page)| (name, page.as_bytes().to_vec())))
}

fn named(seeds: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Seeds {
    seeds.into_iter().map(|(name, seed)| (name.to_owned(), seed)).collect()
}
