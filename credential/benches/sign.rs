//! What does signing cost a call, beside setting a header?

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate_credential::{Credential, CredentialConfig, Request};
use tokio::runtime::{Builder, Runtime};

/// Bytes of a request body.
const SIZES: [usize; 3] = [1 << 10, 64 << 10, 1 << 20];

fn sign(c: &mut Criterion) {
    let folder = std::env::temp_dir().join(format!("tidegate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let key = folder.join("key");
    std::fs::write(&key, "sk-0123456789").expect("a file");

    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut group = c.benchmark_group("sign");
    let kinds = [
        ("bearer", serde_json::json!({ "bearer": { "file": key } })),
        ("aws", serde_json::json!({ "aws": { "region": "us-east-1" } })),
    ];
    for (name, config) in kinds {
        let credential = made(&runtime, config);
        for size in SIZES {
            let body = vec![b'x'; size];
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(format!("{name}/{size}"), |b| {
                b.iter(|| runtime.block_on(credential.sign(black_box(&request(&body)))).is_ok());
            });
        }
    }
    group.finish();
    std::fs::remove_dir_all(&folder).expect("the folder goes");
}

/// A credential whose first fetch is over.
fn made(runtime: &Runtime, config: serde_json::Value) -> Credential {
    let config: CredentialConfig = serde_json::from_value(config).expect("a good configuration");
    let credential = Credential::new(&config, runtime.handle()).expect("a credential");
    let signed = runtime.block_on(credential.sign(&request(b"")));
    signed.expect("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to anything, for this bench");
    credential
}

fn request(body: &[u8]) -> Request<'_> {
    Request {
        method: "POST",
        scheme: "https",
        host: "bedrock-runtime.us-east-1.amazonaws.com",
        path_and_query: "/model/us.anthropic.claude-sonnet-4-20250514-v1%3A0/converse",
        headers: &[("content-type", "application/json")],
        body,
    }
}

criterion_group!(benches, sign);
criterion_main!(benches);
