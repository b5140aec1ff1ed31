//! Who opens what was sealed.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use age::{DecryptError, Decryptor, x25519};

use crate::{is_secret_path, lines};

/// Secret keys: what is sealed for one of them can be opened. None opens nothing.
#[derive(Default)]
pub struct Identities(Vec<x25519::Identity>);

/// Why a file of identities cannot be used. It shows nothing of what stands in it.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of it is no identity.
    #[error(
        "{}:{line}: this is no identity of age-keygen (AGE-SECRET-KEY-1...); keys of SSH and of \
         plugins, and identities with a passphrase, are not taken",
        path.display()
    )]
    Line {
        /// Which file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// There is none in it.
    #[error("{}: there is no identity in it", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// An identity stands where the name of its file belongs.
    #[error("this is an identity itself; write the name of a file that holds it")]
    NoFile,
}

/// Why something cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no identity to try.
    #[error("it is encrypted, and no identity is there to open it")]
    NoIdentity,
    /// It was sealed for others.
    #[error("it is encrypted for others: none of the identities opens it")]
    NotTheirs,
    /// It is no message, or not the one that was sealed.
    #[error("it does not decrypt: it is not what was sealed")]
    Damaged,
}

// === impl Identities ===

impl Identities {
    /// Those in these files, as `age -i` takes them: lines that begin with # are not read.
    pub fn read(paths: &[impl AsRef<Path>]) -> Result<Self, IdentityError> {
        let read = paths.iter().map(|path| read(path.as_ref())).collect::<Result<Vec<_>, _>>()?;
        Ok(Self(read.into_iter().flatten().collect()))
    }

    /// What was sealed in this message.
    pub fn open(&self, message: &[u8]) -> Result<Vec<u8>, OpenError> {
        if self.0.is_empty() {
            return Err(OpenError::NoIdentity);
        }
        if !has_header(message) {
            return Err(OpenError::Damaged);
        }
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        let decryptor = Decryptor::new_buffered(message).map_err(|_| OpenError::Damaged)?;
        let opened = decryptor.decrypt(identities).map_err(|error| match error {
            DecryptError::NoMatchingKeys => OpenError::NotTheirs,
            _ => OpenError::Damaged,
        });
        let mut plain = Vec::with_capacity(message.len());
        opened?.read_to_end(&mut plain).map_err(|_| OpenError::Damaged)?;
        Ok(plain)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identities").field(&self.0.len()).finish()
    }
}

/// Whether a message has a header of a length that one may have: age reads it again from its beginning
/// with each piece of it, which takes for ever where it does not end.
fn has_header(message: &[u8]) -> bool {
    /// That of some 150 recipients.
    const LONGEST: usize = 16 << 10;
    const END: &[u8] = b"\n--- ";
    let beginning = &message[..message.len().min(LONGEST)];
    beginning.windows(END.len()).any(|part| part == END)
}

fn read(path: &Path) -> Result<Vec<x25519::Identity>, IdentityError> {
    if is_secret_path(path) {
        return Err(IdentityError::NoFile);
    }
    let file = |source| IdentityError::File { path: path.to_owned(), source };
    let text = crate::read(path).map_err(file)?;
    let identity = |(line, text): (usize, &str)| {
        text.parse().map_err(|_| IdentityError::Line { path: path.to_owned(), line })
    };
    let identities: Vec<_> = lines(&text).map(identity).collect::<Result<_, _>>()?;
    match identities.is_empty() {
        true => Err(IdentityError::Empty { path: path.to_owned() }),
        false => Ok(identities),
    }
}

/// Whether everybody on this machine may read a file.
pub fn is_open_to_all(path: &Path) -> bool {
    const OTHERS_READ: u32 = 0o004;
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & OTHERS_READ != 0)
}
