//! Certificates and keys in files.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{Error, provider};

/// Bytes of one file that are read.
const MAX: u64 = 1 << 20;

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let read = || {
        if fs::metadata(path)?.len() > MAX {
            return Err(ErrorKind::FileTooLarge.into());
        }
        fs::read_to_string(path)
    };
    read().map_err(|source| Error::File { what: "read", path: path.to_owned(), advice: "", source })
}

/// The certificates in a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(read(path)?.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong(path, "holds no certificate (PEM)".to_owned())),
        Err(error) => Err(wrong(path, format!("is no certificate (PEM): {error}"))),
    }
}

/// A certificate and its key, as TLS needs them.
pub(super) fn certified(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, Error> {
    let chain = certificates(certificate)?;
    // Whatever is wrong with a key, no message may hold a part of it.
    let of_key = |_| wrong(key, "holds no private key (PEM) that can be used".to_owned());
    let found = PrivateKeyDer::from_pem_slice(read(key)?.as_bytes()).map_err(|_| of_key(()))?;
    CertifiedKey::from_der(chain, found, &provider()).map(Arc::new).map_err(|error| {
        wrong(certificate, format!("cannot be used with {}: {error}", key.display()))
    })
}

/// When each of these files was written; nothing for one that is not there.
pub(super) fn versions<'a>(
    files: impl IntoIterator<Item = &'a PathBuf>,
) -> Vec<Option<SystemTime>> {
    let written = |path: &PathBuf| fs::metadata(path).and_then(|data| data.modified()).ok();
    files.into_iter().map(written).collect()
}

/// Says loudly that a key is everybody's: whoever has an authority's is any host to an application.
pub(super) fn warn_of_readers(key: &Path) {
    let Ok(data) = fs::metadata(key) else { return };
    if data.permissions().mode() & 0o007 != 0 {
        let key = key.display();
        tracing::warn!(%key, "others than its owner and group may read this key: take the right away (chmod 600)");
    }
}

/// Writes a file for others to read, all at once, where it does not say the same already.
pub(super) fn publish(path: &Path, text: &str) -> Result<(), Error> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let temporary = temporary(path);
    let write = || {
        create(&temporary, 0o644)?.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| cannot_write(path, source))
}

/// Writes a file that nobody else may read, unless one is there: then that stays.
pub(super) fn keep_secret(path: &Path, text: &str) -> Result<(), Error> {
    let temporary = temporary(path);
    let write = || {
        let mut file = create(&temporary, 0o600)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Of several that start at a time, one is the first.
        match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    };
    let written = write();
    let _ = fs::remove_file(&temporary);
    written.map_err(|source| cannot_write(path, source))
}

pub(super) fn cannot_write(path: &Path, source: std::io::Error) -> Error {
    let advice = "; name a folder that can be written in `ca.folder`";
    Error::File { what: "write", path: path.to_owned(), advice, source }
}

pub(super) fn wrong(path: &Path, why: String) -> Error {
    Error::Content { path: path.to_owned(), why }
}

fn temporary(path: &Path) -> std::path::PathBuf {
    path.with_extension(format!("{}.tmp", std::process::id()))
}

fn create(path: &Path, mode: u32) -> std::io::Result<fs::File> {
    let _ = fs::remove_file(path);
    fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}
