//! Callers' connections, by protocol.

use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::head::{Meant, RequestHead};
use crate::http1::conn::{Conn, Stream};
use crate::http1::parse::HeadError;
use crate::intercept::Intercept;
use crate::listener::Speaks;
use crate::serve::Worker;
use crate::tls::ShownNames;

pub(crate) mod http1;
pub(crate) mod http2;

/// The way by which the calls of a connection come.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// They are made to us, maybe by who has shown a certificate.
    ToUs(Option<Arc<ShownNames>>),
    /// They are made to us as a proxy, by whole URLs.
    ByProxy(Arc<Intercept>),
    /// They are made to this server, by a connection that ends here.
    Meant(Arc<Meant>),
}

/// Serves a connection by TLS, by the protocol that was agreed on.
pub(crate) async fn serve_tls(
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    worker: Rc<Worker>,
    permit: OwnedSemaphorePermit,
    way: Way,
) {
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2::serve(stream, worker, way).await;
        return drop(permit);
    }
    let conn = Conn::new(Stream::Tls(Box::new(stream.into()))).with_permit(permit);
    http1::serve(Rc::new(conn), worker, way).await;
}

/// Serves a connection in the clear, by the protocol that its first bytes speak.
pub(crate) async fn serve_plain(
    tcp: TcpStream,
    speaks: Speaks,
    worker: Rc<Worker>,
    permit: OwnedSemaphorePermit,
    way: Way,
) {
    if speaks == Speaks::Http2 {
        http2::serve(tcp, worker, way).await;
        return drop(permit);
    }
    let conn = Conn::new(Stream::Tcp(tcp)).with_permit(permit);
    http1::serve(Rc::new(conn), worker, way).await;
}

impl Way {
    /// Says in its head which server a call is meant for, and who its caller is as far as that is proven.
    pub(crate) fn lead(&self, head: &mut RequestHead) -> Result<(), HeadError> {
        head.meant = match self {
            Self::ToUs(shown) => {
                head.shown.clone_from(shown);
                None
            }
            Self::ByProxy(_) if !head.is_absolute => return Err(HeadError::NotForProxy),
            Self::ByProxy(intercept) => {
                let meant = Meant::read(&head.authority, false).ok_or(HeadError::Host)?;
                if !intercept.lets_in(&meant.host) {
                    return Err(HeadError::Unlisted);
                }
                Some(Arc::new(meant))
            }
            // Two names on one connection could be one for the certificate and one for the key.
            Self::Meant(meant) if !meant.is_named_by(&head.authority) => {
                return Err(HeadError::Misdirected);
            }
            Self::Meant(meant) => Some(meant.clone()),
        };
        Ok(())
    }
}
