//! A certificate for `localhost`, and a server that shows it.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

/// A certificate that signs for itself.
pub(crate) struct Certificate(rcgen::CertifiedKey<rcgen::KeyPair>);

impl Certificate {
    /// Makes one.
    pub(crate) fn new() -> Self {
        let names = vec!["localhost".to_owned()];
        Self(rcgen::generate_simple_self_signed(names).expect("a certificate is made"))
    }

    /// One whose time was over long ago.
    pub(crate) fn expired() -> Self {
        let names = vec!["localhost".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).expect("a good name");
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        let signing_key = rcgen::KeyPair::generate().expect("a key is made");
        let cert = params.self_signed(&signing_key).expect("a certificate is made");
        Self(rcgen::CertifiedKey { cert, signing_key })
    }

    /// What a caller must have to trust it.
    pub(crate) fn pem(&self) -> String {
        self.0.cert.pem()
    }

    /// Its key, as a file holds it.
    pub(crate) fn key_pem(&self) -> String {
        self.0.signing_key.serialize_pem()
    }

    /// The certificate, and its key.
    pub(crate) fn pair(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::Pkcs8(self.0.signing_key.serialize_der().into());
        (vec![self.0.cert.der().clone()], key)
    }

    /// The same, by a server that asks for the certificate of callers, and knows this one alone.
    pub(crate) fn server_asking(
        &self,
        protocols: &[&str],
        known: &Self,
    ) -> Arc<rustls::ServerConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(known.0.cert.der().clone()).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .expect("a root");
        let (chain, key) = self.pair();
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .expect("the key is the certificate's");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A server that shows it and speaks these protocols.
    pub(crate) fn server(&self, protocols: &[&str]) -> Arc<rustls::ServerConfig> {
        let (chain, key) = self.pair();
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key is the certificate's");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
