//! The certificate authority that an application beside us trusts, and the certificates that it signs.
//!
//! It is made at the first start and kept in a folder: its key for us alone, its certificate, and a
//! bundle of the system's roots and its own, for applications whose variables replace their roots.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use moka::sync::Cache;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, server};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files::{certificates, keep_secret, publish, read, versions, warn_of_readers, wrong};
use super::{CaConfig, Error, LOOK, provider};

/// The key and the certificate of an authority of ours, which belong together.
const SECRET: &str = "ca-key.pem";
/// What applications need that add to their roots.
const CERTIFICATE: &str = "ca.pem";
/// What applications need whose variables replace their roots.
const BUNDLE: &str = "bundle.pem";
/// How long our own authority lasts.
const YEARS: Duration = Duration::from_hours(24 * 365 * 10);
/// How long a certificate lasts that it signs.
const DAYS: Duration = Duration::from_hours(24 * 30);
/// How far the clocks of applications may be behind.
const BACKDATED: Duration = Duration::from_hours(24);
/// How long a certificate is shown.
const SHOWN: Duration = Duration::from_hours(24);
/// An authority that lasts no longer is warned of.
const SOON: Duration = Duration::from_hours(24 * 30);
/// Hosts whose certificates are kept.
const KEPT: u64 = 1024;

/// Signs certificates for the hosts whose calls are taken in.
pub(crate) struct Authority {
    signer: RwLock<Arc<Signer>>,
    /// The one key of all certificates that it signs; it lives as long as this process.
    key: KeyPair,
    /// Where its certificate and its key stand; they may be one file.
    files: [PathBuf; 2],
    folder: PathBuf,
    shown: Cache<Box<str>, Arc<ServerConfig>>,
    sessions: Arc<dyn server::StoresServerSessions>,
}

/// An authority's key and certificate, as they stood in their files.
struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, and what leads from there to a root.
    chain: Vec<CertificateDer<'static>>,
}

/// What an application needs to trust us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// The authority's certificate.
    pub(crate) certificate: PathBuf,
    /// The same, with the system's roots.
    pub(crate) bundle: PathBuf,
}

impl Authority {
    /// The authority of this configuration, which is made where there is none yet.
    pub(crate) fn open(config: &CaConfig) -> Result<Self, Error> {
        let folder = config.folder()?;
        fs::create_dir_all(&folder)
            .map_err(|source| super::files::cannot_write(&folder, source))?;
        let (certificate, key) = match (&config.certificate, &config.key) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
            _ => {
                let secret = folder.join(SECRET);
                if !secret.exists() {
                    keep_secret(&secret, &make()?)?;
                }
                (secret.clone(), secret)
            }
        };
        let authority = Self {
            signer: RwLock::new(Arc::new(Signer::read(&certificate, &key)?)),
            key: KeyPair::generate().map_err(made("hosts"))?,
            files: [certificate, key],
            folder,
            shown: Cache::builder().max_capacity(KEPT).time_to_live(SHOWN).build(),
            sessions: server::ServerSessionMemoryCache::new(KEPT as usize),
        };
        authority.publish()?;
        Ok(authority)
    }

    fn signer(&self) -> Arc<Signer> {
        self.signer.read().expect("nobody panics while writing").clone()
    }

    /// Signs with what the files say by then, again and again. Never ends.
    pub(crate) async fn renew(self: Arc<Self>) {
        let mut seen = versions(&self.files);
        loop {
            tokio::time::sleep(LOOK).await;
            let now = versions(&self.files);
            if now == seen {
                continue;
            }
            seen = now;
            match self.read_again() {
                Ok(()) => tracing::info!("the certificate authority was read anew"),
                Err(error) => {
                    tracing::error!(%error, "the certificate authority cannot be read anew; the one before it still signs");
                }
            }
        }
    }

    fn read_again(&self) -> Result<(), Error> {
        let [certificate, key] = &self.files;
        let signer = Arc::new(Signer::read(certificate, key)?);
        *self.signer.write().expect("nobody panics while writing") = signer;
        self.shown.invalidate_all();
        self.publish()
    }
    /// The files that it stands in.
    pub(super) fn sources(&self) -> &[PathBuf] {
        &self.files
    }

    /// The files for applications.
    pub(crate) fn files(&self) -> Files {
        files_of(&self.folder)
    }

    fn publish(&self) -> Result<(), Error> {
        let files = self.files();
        let signer = self.signer();
        let own = signer.chain.first().map(pem).unwrap_or_default();
        publish(&files.certificate, &own)?;
        let mut roots: Vec<CertificateDer<'_>> = rustls_native_certs::load_native_certs().certs;
        roots.retain(|root| *root != signer.chain[0]);
        roots.sort_by(|one, other| one.as_ref().cmp(other));
        roots.dedup();
        if roots.is_empty() {
            tracing::warn!(
                "no system certificates found: {} holds Tidegate's own alone",
                files.bundle.display()
            );
        }
        let bundle: String = roots.iter().map(pem).chain([own]).collect();
        publish(&files.bundle, &bundle)
    }

    /// What is shown to callers who mean this host.
    pub(crate) fn host(&self, host: &str) -> Result<Arc<ServerConfig>, Error> {
        if let Some(shown) = self.shown.get(host) {
            return Ok(shown);
        }
        let certified = self.certify(vec![host.to_owned()])?;
        let mut config = base()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.session_storage = self.sessions.clone();
        let config = Arc::new(offering(config));
        self.shown.insert(host.into(), config.clone());
        Ok(config)
    }

    /// A certificate for these names and addresses, with its key.
    pub(crate) fn certify(&self, names: Vec<String>) -> Result<CertifiedKey, Error> {
        let name = names.join(", ");
        let made = made(&name);
        let signer = self.signer();
        let mut params = lasting(CertificateParams::new(names).map_err(&made)?, DAYS);
        params.distinguished_name.push(DnType::CommonName, "Tidegate");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&self.key, &signer.issuer).map_err(&made)?;
        let chain = signer.chain.iter().cloned();
        let chain = [leaf.der().clone()].into_iter().chain(chain).collect();
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        Ok(CertifiedKey::from_der(chain, key.into(), &provider())
            .expect("a key that was made just now can be used"))
    }
}

impl Signer {
    fn read(certificate: &Path, key_file: &Path) -> Result<Self, Error> {
        let chain = certificates(certificate)?;
        // Whatever is wrong with a key, no message may hold a part of it.
        let no_key = || wrong(key_file, "holds no private key (PEM) that can be used".to_owned());
        let pem = read(key_file)?;
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| no_key())?;
        let key = KeyPair::try_from(&der).map_err(|_| no_key())?;
        let of_certificate = |error| wrong(certificate, format!("cannot sign: {error}"));
        let issuer = Issuer::from_ca_cert_der(&chain[0], key).map_err(of_certificate)?;
        if !issuer.key_usages().is_empty()
            && !issuer.key_usages().contains(&KeyUsagePurpose::KeyCertSign)
        {
            return Err(wrong(certificate, "is no certificate of an authority".to_owned()));
        }
        expiry(certificate, &chain[0]);
        warn_of_readers(key_file);
        Ok(Self { issuer, chain })
    }
}

/// Says loudly that an authority ends soon, or has: applications trust none of its certificates then.
fn expiry(file: &Path, certificate: &CertificateDer<'_>) {
    let Ok((_, read)) = X509Certificate::from_der(certificate) else { return };
    let left = read.validity().not_after.timestamp() - OffsetDateTime::now_utc().unix_timestamp();
    let file = file.display();
    match left {
        ..=0 => {
            tracing::error!(%file, "the certificate authority has expired: no application trusts what it signs")
        }
        left if left < SOON.as_secs() as i64 => {
            tracing::warn!(%file, days = left / 86_400, "the certificate authority expires soon");
        }
        _ => {}
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// The files for applications in the folder of an authority.
pub(crate) fn files_of(folder: &Path) -> Files {
    Files { certificate: folder.join(CERTIFICATE), bundle: folder.join(BUNDLE) }
}

/// TLS as callers find it here.
pub(super) fn base() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
}

/// The same, with the protocols that are spoken behind it.
pub(super) fn offering(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 1;
    config
}

/// A new authority: its key and its certificate, one after the other.
fn make() -> Result<String, Error> {
    let made = made("an authority");
    let key = KeyPair::generate().map_err(&made)?;
    let mut params = lasting(CertificateParams::default(), YEARS);
    // Each has a name of its own: two of the same name and unlike keys are mistaken for each other.
    let number = format!("{:08x}", rand::random::<u32>());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Tidegate");
    params.distinguished_name.push(DnType::CommonName, format!("Tidegate sidecar {number}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(&made)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

fn lasting(mut params: CertificateParams, length: Duration) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - BACKDATED, now + length);
    params
}

fn made(name: &str) -> impl Fn(rcgen::Error) -> Error {
    move |source| Error::Make { name: name.to_owned(), source }
}

/// A certificate as text (RFC 7468).
fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line));
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        let name = format!("tidegate-authority-{:016x}", rand::random::<u64>());
        std::env::temp_dir().join(name)
    }

    #[test]
    fn hosts_are_kept_up_to_a_bound_however_many_are_asked_for() {
        let folder = folder();
        let config = CaConfig { folder: Some(folder.clone()), ..CaConfig::default() };
        let authority = Authority::open(&config).expect("an authority");
        for number in 0..3 * KEPT {
            authority.host(&format!("host-{number}.example")).expect("a certificate");
        }
        authority.shown.run_pending_tasks();
        assert!((1..=KEPT).contains(&authority.shown.entry_count()));
        fs::remove_dir_all(folder).expect("it is ours");
    }
}
