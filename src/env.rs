//! `tidegate env`: what an application sets so that its calls come through the sidecar.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use tidegate_proxy::clients::{CLIENTS, Client, Settings, Way};
use tidegate_proxy::{Config, InterceptConfig};

use crate::Exit;

/// Print the variables by which an application's calls come through the sidecar.
///
/// `eval "$(tidegate env --for openai)"` sets them in a shell. Without --for, those of all SDKs are
/// printed. Three ways: `--way base-url` tells each SDK another URL; `--way proxy` makes the sidecar its
/// HTTPS_PROXY, for SDKs whose URL cannot be told (the sidecar then runs with --intercept); `--way redirect`
/// is for connections that the system redirects, and sets no more than whom to trust.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The SDK; may be given more than once
    #[arg(long = "for", value_name = "SDK", value_parser = names())]
    clients: Vec<String>,
    /// The way by which its calls are to come
    #[arg(long, value_name = "WAY", default_value = "base-url")]
    way: WayArg,
    /// The configuration of the sidecar; the defaults where absent
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Where the sidecar listens, if not where its configuration says
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_LISTEN")]
    listen: Option<SocketAddr>,
    /// Where it listens as a proxy, if not where its configuration says
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_INTERCEPT")]
    intercept: Option<SocketAddr>,
    /// The folder of its certificate authority, if not where its configuration says
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_CA")]
    ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum WayArg {
    BaseUrl,
    Proxy,
    Redirect,
}

fn names() -> clap::builder::PossibleValuesParser {
    let value = |client: &Client| clap::builder::PossibleValue::new(client.name).help(client.what);
    CLIENTS.iter().map(value).collect::<Vec<_>>().into()
}

pub(crate) fn run(args: Args) -> anyhow::Result<Exit> {
    let mut config = match &args.config {
        Some(path) => Config::read_without_variables(path)?,
        None => Config { intercept: Some(InterceptConfig::default()), ..Config::default() },
    };
    config.listen = args.listen.unwrap_or(config.listen);
    config.ca.folder = args.ca.or(config.ca.folder);
    if let Some(listen) = args.intercept {
        config.intercept.get_or_insert_default().listen = listen;
    }
    let named = |name: &String| Client::named(name).expect("only known names are taken");
    let clients: Vec<_> = match args.clients.is_empty() {
        true => CLIENTS.iter().collect(),
        false => args.clients.iter().map(named).collect(),
    };
    let way = match args.way {
        WayArg::BaseUrl => Way::BaseUrl,
        WayArg::Proxy => Way::Proxy,
        WayArg::Redirect => Way::Redirect,
    };
    let settings = Settings::new(&config, &clients, way).context("there is nothing to set")?;
    print!("{settings}");
    Ok(Exit::Good)
}
