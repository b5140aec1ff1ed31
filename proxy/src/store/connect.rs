//! Opens a connection to a store: TCP, TLS, and who we are there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::{Address, StoreConfig};
use super::trouble::Trouble;
use crate::tls::client;

/// How long it may take to open a connection: a call waits no longer than its deadline, but the next
/// one finds it open.
const OPENING: Duration = Duration::from_secs(5);
/// Questions that wait for their answers on one connection, at most.
const QUESTIONS: usize = 1024;

/// All that is needed to open a connection.
#[derive(Clone)]
pub(super) struct Door {
    config: StoreConfig,
    address: Address,
}

/// Runs a connection to its end.
pub(super) type Driver = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Door {
    pub(super) fn new(config: &StoreConfig) -> Self {
        Self { config: config.clone(), address: config.address() }
    }

    /// Where it leads, for people.
    pub(super) fn address(&self) -> String {
        format!("{}:{}/{}", self.address.host, self.address.port, self.address.database)
    }

    /// How long an answer is waited for.
    pub(super) fn patience(&self) -> Duration {
        self.config.deadline.0
    }

    /// Opens a connection, which goes on as long as its driver runs.
    pub(super) async fn open(&self) -> Result<(MultiplexedConnection, Driver), Trouble> {
        timeout(OPENING, self.opened()).await.unwrap_or(Err(Trouble::Timeout))
    }

    async fn opened(&self) -> Result<(MultiplexedConnection, Driver), Trouble> {
        let Address { host, port, database, .. } = &self.address;
        let mut info = RedisConnectionInfo::default().set_db(*database).set_skip_set_lib_name();
        if let Some(place) = &self.config.password {
            // Read each time: it may have changed.
            let password = place.read().await.map_err(|_| Trouble::Denied)?;
            info = info.set_password(password.expose());
        }
        if let Some(username) = &self.config.username {
            info = info.set_username(username);
        }
        let tcp = TcpStream::connect((host.as_str(), *port)).await;
        let tcp = tcp.map_err(|_| Trouble::Connection)?;
        tcp.set_nodelay(true).map_err(|_| Trouble::Connection)?;
        if !self.address.has_tls {
            return self.introduce(&info, tcp).await;
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| Trouble::Tls)?;
        let tls = self.connector()?.connect(name, tcp).await;
        self.introduce(&info, tls.map_err(|error| of_handshake(&error))?).await
    }

    /// TLS by its files as they are now.
    fn connector(&self) -> Result<TlsConnector, Trouble> {
        let config = match &self.config.tls {
            None => client::usual(),
            Some(own) => own.config().map_err(|_| Trouble::Tls)?,
        };
        let mut config = ClientConfig::clone(&config);
        // No HTTP is spoken.
        config.alpn_protocols.clear();
        Ok(Arc::new(config).into())
    }

    async fn introduce(
        &self,
        info: &RedisConnectionInfo,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(MultiplexedConnection, Driver), Trouble> {
        // Deadlines are ours.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(QUESTIONS);
        let opened = MultiplexedConnection::new_with_config(info, stream, config).await;
        let (connection, driver) = opened.map_err(|error| Trouble::from(&error))?;
        Ok((connection, Box::pin(driver)))
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Door").field(&self.address).finish()
    }
}

/// Whoever closes within a handshake is gone; all else is about certificates.
fn of_handshake(error: &io::Error) -> Trouble {
    match error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        true => Trouble::Tls,
        false => Trouble::Connection,
    }
}
