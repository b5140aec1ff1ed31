//! A bare client: it makes calls and notes when each first token came, and does nothing else.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep};

/// The first argument of this program where it is to be the client.
pub(crate) const WORD: &str = "direct-client";

/// What the client is to do.
pub(crate) struct Asked {
    target: SocketAddr,
    users: u32,
    long: Duration,
    /// A line for each call: its trace id, and the wall clock at its first token in nanoseconds.
    file: PathBuf,
}

/// What this process is asked, where it is to be the client.
pub(crate) fn asked() -> Option<Asked> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != WORD {
        return None;
    }
    let mut next = || arguments.next().expect("who starts it gives all of them");
    let (target, users, seconds, file) = (next(), next(), next(), next());
    let read = "who starts it writes them well";
    Some(Asked {
        target: target.parse().expect(read),
        users: users.parse().expect(read),
        long: Duration::from_secs(seconds.parse().expect(read)),
        file: file.into(),
    })
}

pub(crate) fn main(asked: &Asked) -> ExitCode {
    match run(asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(asked: &Asked) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let calls = LocalSet::new().block_on(&runtime, async {
        let mut users = JoinSet::new();
        let end = Instant::now() + asked.long;
        for user in 0..asked.users {
            // They come in one after the other, as those of a load test do.
            users.spawn_local(call_again_and_again(asked.target, user, asked.users, end));
        }
        let mut calls = Vec::new();
        while let Some(user) = users.join_next().await {
            calls.extend(user.context("a user panicked")??);
        }
        Ok::<_, anyhow::Error>(calls)
    })?;
    let mut text = String::new();
    for (trace, nanos) in calls {
        writeln!(text, "{trace:032x} {nanos}")?;
    }
    fs::write(&asked.file, text).context("writing what was seen")
}

async fn call_again_and_again(
    target: SocketAddr,
    user: u32,
    users: u32,
    end: Instant,
) -> Result<Vec<(u128, u128)>> {
    sleep(Duration::from_secs(1) * user / users).await;
    let mut stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (mut seen, mut calls) = (Vec::new(), Vec::new());
    for number in 1.. {
        if Instant::now() >= end {
            break;
        }
        let trace = u128::from(user + 1) << 64 | number;
        calls.push((trace, call(&mut stream, trace, &mut seen).await?));
    }
    Ok(calls)
}

/// The wall clock at the first token.
async fn call(stream: &mut TcpStream, trace: u128, seen: &mut Vec<u8>) -> Result<u128> {
    const BODY: &str = r#"{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Why does the tide rise twice a day?"}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: target\r\nContent-Type: application/json\r\n\
         traceparent: 00-{trace:032x}-00000000000000ff-01\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    stream.write_all(request.as_bytes()).await?;
    seen.clear();
    let mut first = None;
    while !seen.ends_with(b"\r\n0\r\n\r\n") {
        let read = stream.read_buf(seen).await?;
        let now = SystemTime::now();
        ensure!(read > 0, "the connection has ended");
        if first.is_none() && has_token(seen) {
            first = Some(now.duration_since(UNIX_EPOCH)?.as_nanos());
        }
    }
    first.context("an answer without a token")
}

/// Whether there is text in what came so far.
fn has_token(seen: &[u8]) -> bool {
    const TEXT: &[u8] = br#""content":""#;
    seen.windows(TEXT.len() + 1).any(|part| part.starts_with(TEXT) && part[TEXT.len()] != b'"')
}
