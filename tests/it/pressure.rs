//! Large bodies stream through: nothing is gathered, and whoever is slow slows the other side.

use std::thread;
use std::time::Duration;

use crate::support::*;

/// What the sidecar may take for one stalled call, its allocator's caution included.
const ROOM_KIB: u64 = 8 * 1024;

#[test]
fn a_caller_that_reads_nothing_stops_the_upstream_and_costs_no_memory() {
    const SIZE: usize = 200 << 20;
    let (stuck, go_on) = (Gate::default(), Gate::default());
    let (is_stuck, may_go_on) = (stuck.clone(), go_on.clone());
    let upstream = Upstream::new(move |mut peer| {
        peer.request();
        peer.wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
        let sent = peer.wire.send_until_stuck(Duration::from_millis(300), SIZE);
        assert!(sent < SIZE / 2, "the kernel's buffers hold less than {sent}");
        is_stuck.open();
        may_go_on.pass();
        peer.wire.send_until_stuck(STOP, SIZE - sent);
        peer.closed();
    });
    let sidecar = Sidecar::to(&upstream);
    assert_eq!(sidecar.call("GET /../ HTTP/1.1\r\nHost: a\r\n\r\n").status(), 400);
    let before = sidecar.memory_kib();
    let mut caller = sidecar.connect();
    caller.send(call());
    stuck.pass();
    let grown = sidecar.memory_kib().saturating_sub(before);
    assert!(grown < ROOM_KIB, "{grown} KiB while stuck");

    go_on.open();
    assert_eq!(caller.head().expect("a head").status(), 200);
    assert_eq!(caller.skip(SIZE), SIZE);
    let grown = sidecar.memory_kib().saturating_sub(before);
    assert!(grown < ROOM_KIB, "{grown} KiB after {SIZE} bytes");
    drop(caller);
    let records = sidecar.finish();
    let record = records.iter().find(|record| record["http.response.status_code"] == 200);
    let record = record.expect("the record of the large answer");
    assert_outcome(record, "completed", None);
    assert_eq!(record["tidegate.response.bytes"], SIZE);
}

#[test]
fn an_upload_goes_on_before_it_is_whole() {
    let by_model = "upstreams: {{ a: {{ url: '{url}' }} }}\nroutes: [{{ match: {{ model: 'gpt-*' }}, upstream: a }}]";
    let by_path = "upstreams: {{ a: {{ url: '{url}' }} }}\nroutes: [{{ upstream: a }}]";
    for config in [by_path, by_model] {
        const SIZE: usize = 20 << 20;
        let begun = Gate::default();
        let has_begun = begun.clone();
        let upstream = Upstream::new(move |mut peer| {
            peer.head();
            assert!(peer.wire.through(b"gpt-4o").is_some());
            has_begun.open();
            peer.wire.skip(SIZE);
            peer.wire.send(answer("{}"));
            peer.closed();
        });
        let config = config.replace("{{", "{").replace("}}", "}").replace("{url}", &upstream.url());
        let sidecar = Launch::new().config(&config).start();
        let before = sidecar.memory_kib();
        let mut caller = sidecar.connect();
        // The model's last quote and comma are the first two bytes of the rest.
        let start = r#"{"model":"gpt-4o","#;
        let length = start.len() + SIZE - 2;
        caller.send(format!("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{start}"));
        begun.pass();
        let mut upload = caller.same();
        let rest = SIZE - 2;
        let uploading = thread::spawn(move || upload.send_until_stuck(STOP, rest));
        assert_eq!(caller.response().status(), 200);
        assert_eq!(uploading.join().expect("no panic"), rest);
        let grown = sidecar.memory_kib().saturating_sub(before);
        assert!(grown < ROOM_KIB, "{grown} KiB");
        drop(caller);
        let record = sidecar.finish_with_one();
        assert_outcome(&record, "completed", None);
        assert_eq!(record["tidegate.request.bytes"], length);
    }
}
