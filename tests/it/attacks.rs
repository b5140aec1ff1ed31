//! Peers that do what no honest one does, and what they must not bring about.

use crate::support::*;

#[test]
fn a_body_that_breaks_the_rules_is_never_sent_without_its_broken_part() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = Sidecar::to(&upstream);
    let mut caller = sidecar.connect();
    assert_eq!(caller.call(call()).status(), 200);

    // Its upstream connection has served before, so a call that was not sent may take a new one.
    let head = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    caller.send(format!("{head}4\r\nlost\r\nno chunk"));
    assert_eq!(caller.response().status(), 400);

    sidecar.finish();
    assert_eq!(upstream.requests().len(), 1);
}
