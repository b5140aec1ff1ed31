//! One question to the admin address of a running sidecar, without an HTTP client to carry about.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Exit;

/// Bytes of an answer that are read.
const MAX_ANSWER: u64 = 4096;
/// Bytes of metrics that are read.
const MAX_METRICS: u64 = 32 << 20;

/// Shows a good answer to this question, and says on standard error why there is none.
pub(crate) fn show(
    admin: SocketAddr,
    timeout: Duration,
    line: &str,
    fields: &str,
    show: impl FnOnce(&str),
) -> Exit {
    match ask(admin, timeout, line, fields, MAX_ANSWER) {
        Ok((200, answer)) => {
            show(&answer);
            return Exit::Good;
        }
        Ok((status, answer)) => eprintln!("tidegate: {admin} answers {status}: {}", answer.trim()),
        Err(error) => eprintln!("tidegate: no answer from {admin}: {error}"),
    }
    Exit::NotSo
}

/// What `/metrics` says, or why it says nothing.
pub(crate) fn metrics(admin: SocketAddr, timeout: Duration) -> Result<String, String> {
    match ask(admin, timeout, "GET /metrics", "", MAX_METRICS) {
        Ok((200, text)) => Ok(text),
        Ok((status, _)) => Err(format!("{admin} answers {status}: what went past it is not told")),
        Err(error) => {
            Err(format!("no answer from {admin}: {error}; what went past it is not told"))
        }
    }
}

/// Asks with this request line and these fields (each ends its line), and gives status and body.
fn ask(
    admin: SocketAddr,
    timeout: Duration,
    line: &str,
    fields: &str,
    limit: u64,
) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&admin, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "{line} HTTP/1.0\r\nHost: {admin}\r\n{fields}\r\n")?;
    let mut answer = String::new();
    stream.take(limit).read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    Ok((status, body.unwrap_or_default()))
}
