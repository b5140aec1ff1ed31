//! `tidegate health`: asks a running sidecar, for probes in an image without a shell.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Exit;
use crate::units;

/// Ask a running sidecar whether it is ready; exit code 0 if so, 1 if not.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The sidecar's admin or health address
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_ADMIN", default_value = "127.0.0.1:4101")]
    admin: SocketAddr,
    /// Ask whether it lives, not whether it is ready
    #[arg(long, env = "TIDEGATE_HEALTH_LIVE")]
    live: bool,
    /// How long it may take to answer
    #[arg(
        long,
        value_name = "DURATION",
        env = "TIDEGATE_HEALTH_TIMEOUT",
        default_value = "2s",
        value_parser = units::duration
    )]
    timeout: Duration,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let path = if args.live { "/livez" } else { "/readyz" };
    match ask(&args, path) {
        Ok((200, _)) => Ok(Exit::Good),
        Ok((status, answer)) => {
            eprintln!("tidegate: {} answers {status}: {}", args.admin, answer.trim());
            Ok(Exit::NotSo)
        }
        Err(error) => {
            eprintln!("tidegate: no answer from {}: {error}", args.admin);
            Ok(Exit::NotSo)
        }
    }
}

fn ask(args: &Args, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&args.admin, args.timeout)?;
    stream.set_read_timeout(Some(args.timeout))?;
    stream.set_write_timeout(Some(args.timeout))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", args.admin)?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    Ok((status, body.unwrap_or_default()))
}
