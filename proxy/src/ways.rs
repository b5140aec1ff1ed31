//! The ways in, and what each needs before it can be opened: certificates, and who signs them.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;

use crate::config::Config;
use crate::intercept::Intercept;
use crate::listener::{Door, Tls};
use crate::tls::{Authority, Error, Own};

/// The sockets of one worker, and what each is for.
pub(crate) type Doors = Vec<(TcpListener, Door)>;

/// What is needed by the ways in that are configured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways {
    tls: Option<Tls>,
    pub(crate) intercept: Option<Arc<Intercept>>,
}

impl Ways {
    /// Opens what this configuration needs; `listen` is the address of calls. What must be renewed
    /// is, in the background.
    pub(crate) fn open(
        config: &Config,
        listen: SocketAddr,
        background: &Handle,
    ) -> Result<Self, Error> {
        let opened = OnceLock::new();
        let authority = || -> Result<Arc<Authority>, Error> {
            match opened.get() {
                Some(authority) => Ok(Arc::clone(authority)),
                None => {
                    let authority = Arc::new(Authority::open(&config.ca)?);
                    Ok(opened.get_or_init(|| authority).clone())
                }
            }
        };
        let tls = config.tls.as_ref().map(|tls| {
            let own = Own::new(tls, listen, authority)?;
            background.spawn(own.clone().renew());
            Ok::<_, Error>(Tls { own, is_required: tls.is_required() })
        });
        let intercept = config
            .intercept
            .as_ref()
            .map(|intercept| Ok(Arc::new(Intercept::new(intercept.clone(), authority()?))));
        let ways = Self { tls: tls.transpose()?, intercept: intercept.transpose()? };
        if ways.intercept.is_some() {
            // Many files, read before a call needs them.
            drop(crate::tls::client::usual());
        }
        if let Some(authority) = opened.get() {
            background.spawn(authority.clone().renew());
            tracing::info!(
                "certificates are signed by {}; applications trust them by {}",
                authority.files().certificate.display(),
                authority.files().bundle.display(),
            );
        }
        Ok(ways)
    }

    /// The sockets of each worker, of those for calls, for a proxy, and for redirects.
    pub(crate) fn doors(
        &self,
        calls: Vec<TcpListener>,
        proxies: Option<Vec<TcpListener>>,
        redirects: Option<Vec<TcpListener>>,
    ) -> Vec<Doors> {
        let mut doors: Vec<Doors> =
            calls.into_iter().map(|socket| vec![(socket, Door::Calls(self.tls.clone()))]).collect();
        let Some(intercept) = &self.intercept else { return doors };
        let mut open = |sockets: Option<Vec<TcpListener>>, door: fn(Arc<Intercept>) -> Door| {
            for (doors, socket) in doors.iter_mut().zip(sockets.into_iter().flatten()) {
                doors.push((socket, door(intercept.clone())));
            }
        };
        open(proxies, Door::Proxy);
        open(redirects, Door::Redirect);
        doors
    }
}
