//! `faultd`: the upstream that fails as told, as a program of its own.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use tidegate_faultd::{Door, Faultd, Script, grammar};

/// An upstream that fails as told, by its requests' `x-fault` field or by its own script.
///
/// `GET /-/seen` says what it has counted.
#[derive(Debug, Parser)]
#[command(name = "faultd")]
struct Arguments {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What requests get that have no `x-fault` of their own: `3*status=503;retry-after=2, good`.
    #[arg(long, default_value = "good")]
    script: String,
    /// What connections meet before they are read.
    #[arg(long, value_enum, default_value_t = Meets::Open)]
    door: Meets,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Meets {
    /// It serves.
    Open,
    /// It accepts, and says nothing.
    Silent,
    /// It closes what it accepts.
    Closes,
    /// It resets what it accepts.
    Resets,
    /// Nobody listens.
    Refuses,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let door = match arguments.door {
        Meets::Open | Meets::Refuses => Door::Open,
        Meets::Silent => Door::Silent,
        Meets::Closes => Door::Closes,
        Meets::Resets => Door::Resets,
    };
    let script: Script = grammar::script(&arguments.script)?.behind([door]);
    let faultd = Faultd::at(arguments.listen, script)?;
    if !matches!(arguments.door, Meets::Refuses) {
        faultd.serve();
    }
    println!("listening on {}", faultd.address());
    loop {
        std::thread::park();
    }
}
