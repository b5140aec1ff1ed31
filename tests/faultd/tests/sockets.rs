//! The upstream by its sockets: what it is told, it does, and what it saw, it tells.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate_faultd::Dialect::{Anthropic, OpenAi};
use tidegate_faultd::{
    Cut, Door, Ended, Faultd, Frame, Manners, Script, any, frame, good, silent, status, token,
};

const LIMIT: Duration = Duration::from_secs(20);

fn connect(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).expect("somebody listens");
    tcp.set_read_timeout(Some(LIMIT)).expect("a limit that is not zero");
    tcp
}

fn request(fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// All that comes of a request on a connection of its own, once nothing more does.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut tcp = connect(address);
    tcp.write_all(request.as_bytes()).expect("it is taken");
    tcp.shutdown(std::net::Shutdown::Write).expect("a connection");
    let mut said = Vec::new();
    let _ = tcp.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn a_port_refuses_serves_and_refuses_again() {
    let upstream = Faultd::refusing(any());
    let refused = || TcpStream::connect(upstream.address()).map_err(|error| error.kind()).err();
    assert_eq!(refused(), Some(ErrorKind::ConnectionRefused));
    upstream.serve();
    assert!(ask(upstream.address(), &request("", "{}")).contains(&token(5)));
    upstream.refuse();
    assert_eq!(refused(), Some(ErrorKind::ConnectionRefused));
    upstream.serve();
    assert!(ask(upstream.address(), &request("", "{}")).contains(&token(5)));
    assert_eq!((upstream.connections(), upstream.attempts()), (2, 2));
}

#[test]
fn a_black_hole_takes_no_connection_until_it_serves() {
    let upstream = Faultd::black_hole(any());
    let tried = TcpStream::connect_timeout(&upstream.address(), Duration::from_millis(200));
    assert_eq!(tried.map_err(|error| error.kind()).err(), Some(ErrorKind::TimedOut));
    upstream.serve();
    assert!(ask(upstream.address(), &request("", "{}")).contains(&token(5)));
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn doors_open_in_their_order() {
    let doors = [Door::Closes, Door::Resets, Door::Silent, Door::Open];
    let upstream = Faultd::start(Script::default().behind(doors));
    let read = |tcp: &mut TcpStream| tcp.read(&mut [0; 9]).map_err(|error| error.kind());
    assert_eq!(read(&mut connect(upstream.address())), Ok(0));
    assert_eq!(read(&mut connect(upstream.address())), Err(ErrorKind::ConnectionReset));
    let silent = connect(upstream.address());
    upstream.wait_for_connections(3);
    drop(silent);
    upstream.wait_for_closed(1);
    assert!(ask(upstream.address(), &request("", "{}")).contains("200 OK"));
    assert_eq!(upstream.attempts(), 1, "only the last was read");
}

#[test]
fn a_script_answers_by_the_number_of_the_request() {
    let upstream = Faultd::start(Script::sequence([status(503), good(OpenAi)]));
    let statuses: Vec<_> = (0..3)
        .map(|_| ask(upstream.address(), &request("", "{}")))
        .map(|said| said[9..12].to_owned())
        .collect();
    assert_eq!(statuses, ["503", "200", "200"]);
    assert_eq!(upstream.attempts(), 3);
    upstream.change(status(529));
    assert!(ask(upstream.address(), &request("", "{}")).starts_with("HTTP/1.1 529"));
}

#[test]
fn a_request_brings_a_script_of_its_own_counted_by_its_key() {
    let upstream = Faultd::start(any());
    let fault = |key: &str| {
        let fields =
            format!("x-fault: status=429;retry-after=2, good=anthropic\r\nx-fault-key: {key}\r\n");
        ask(upstream.address(), &request(&fields, "{}"))
    };
    for key in ["a", "b"] {
        let first = fault(key);
        assert!(
            first.starts_with("HTTP/1.1 429") && first.contains("retry-after: 2\r\n"),
            "{first}"
        );
        assert!(fault(key).contains("\"type\":\"message\""));
    }
    assert!(fault("a").contains("200 OK"));
    assert_eq!((upstream.attempts_of("a"), upstream.attempts_of("b")), (3, 2));
    let said = ask(upstream.address(), &request("x-fault: nonsense\r\n", "{}"));
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("nonsense"), "{said}");
}

#[test]
fn what_is_said_is_kept_without_its_framing() {
    let upstream = Faultd::start(good(Anthropic).cut_after_tokens(2, Cut::Close));
    let said = ask(upstream.address(), &request("", r#"{"stream":true}"#));
    upstream.wait_for_ended(1);
    let call = upstream.call();
    let payload = String::from_utf8(call.payload).expect("text");
    assert!(payload.contains(&token(2)) && !payload.contains(&token(3)), "{payload}");
    assert!(said.contains(&token(2)) && !said.ends_with("0\r\n\r\n"), "{said}");
    assert_eq!(call.ended, Some(Ended::AsScripted));
    assert_eq!(upstream.bytes_sent(), said.len() as u64);
}

#[test]
fn a_peer_that_leaves_is_counted_even_where_its_body_lies_unread() {
    let upstream = Faultd::start(Script::sequence([silent(), silent().early()]));
    for (number, body) in [(1, "{}".to_owned()), (2, "x".repeat(100_000))] {
        let mut tcp = connect(upstream.address());
        tcp.write_all(request("", &body).as_bytes()).expect("the kernel takes it");
        upstream.wait_for_attempts(number);
        drop(tcp);
        upstream.wait_for_cancelled(number);
        upstream.wait_for_closed(number);
    }
    let read: Vec<_> = upstream.calls().iter().map(|call| call.request.body_bytes).collect();
    assert_eq!(read, [2, 0]);
}

#[test]
fn an_answer_is_held_until_the_test_says_go() {
    let upstream = Faultd::start(any().cut_after_pieces(1, Cut::Reset).held());
    let mut tcp = connect(upstream.address());
    tcp.write_all(request("", r#"{"stream":true}"#).as_bytes()).expect("it is taken");
    let mut reader = BufReader::new(&tcp);
    let mut line = String::new();
    while !line.starts_with("data:") {
        line.clear();
        reader.read_line(&mut line).expect("a line");
    }
    assert_eq!(upstream.call().ended, None);
    upstream.go();
    let end = std::io::copy(&mut reader, &mut std::io::sink());
    assert_eq!(end.map_err(|error| error.kind()).err(), Some(ErrorKind::ConnectionReset));
}

#[test]
fn http_2_is_spoken_in_frames_of_ones_own() {
    let manners = Manners { more_settings: 2, streams: Some(7), ..Manners::default() };
    let script = Script::always(status(200).frames([Frame::ping()])).manners(manners);
    let upstream = Faultd::start(script);
    let mut tcp = connect(upstream.address());
    // GET, http, /, and a field in the static table: indexed fields alone.
    let head = frame(1, 5, 1, b"\x82\x86\x84");
    tcp.write_all(
        &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, b""), head].concat(),
    )
    .expect("it is taken");
    let mut kinds = Vec::new();
    let mut body = Vec::new();
    loop {
        let mut start = [0; 9];
        tcp.read_exact(&mut start).expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, start[0], start[1], start[2]]) as usize];
        tcp.read_exact(&mut payload).expect("its payload");
        kinds.push((start[3], start[4]));
        match (start[3], start[4]) {
            (0, 1) => break,
            (0, _) => body.extend_from_slice(&payload),
            _ => {}
        }
    }
    let count = |kind: (u8, u8)| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!((count((4, 0)), count((4, 1)), count((6, 0)), count((1, 4))), (3, 1, 1, 1));
    assert_eq!(body, b"{}");
    let call = upstream.call();
    assert_eq!((call.request.method.as_str(), call.request.target.as_str()), ("GET", "/"));
    drop(tcp);
    upstream.wait_for_closed(1);
}

#[test]
fn the_program_says_where_it_listens_and_what_it_has_seen() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_faultd"))
        .args(["--listen", "127.0.0.1:0", "--script", "status=503, good"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program is built");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("a line");
    let address = line.trim().strip_prefix("listening on ").expect("a line").parse();
    let address: SocketAddr = address.expect("an address");
    assert!(ask(address, &request("", "{}")).contains("503"));
    assert!(ask(address, &request("", "{}")).contains("200 OK"));
    let seen = ask(address, "GET /-/seen HTTP/1.1\r\nHost: a\r\n\r\n");
    child.kill().expect("it runs");
    child.wait().expect("it is our child");
    let body: serde_json::Value =
        serde_json::from_str(seen.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
    assert_eq!((&body["attempts"], &body["ended"]), (&2.into(), &2.into()), "{body}");
}
