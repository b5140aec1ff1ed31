//! For whom something is sealed.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use age::x25519;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{MOST_BYTES, is_secret, lines};

/// Each takes 100 bytes of every message, and 0.1 ms of CPU.
const MOST: usize = 16;

/// The public key of one who may read: `age1...`, as `age-keygen` prints it.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Recipient(x25519::Recipient);

/// Those for whom something is sealed: any one of them can open it.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipients(Vec<Recipient>);

/// Why a file of recipients, or a list of them, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipientsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of it is no recipient.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// There is none in it.
    #[error("{}: it names nobody who could read what is sealed", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// There are too many, or none.
    #[error("{number} recipients; there must be one, and at most {MOST}")]
    Number {
        /// How many there are.
        number: usize,
    },
}

// === impl Recipient ===

impl TryFrom<String> for Recipient {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| wrong(&text))
    }
}

/// What is wrong with a text that is no recipient. It is not shown where it may be a secret.
fn wrong(text: &str) -> String {
    match is_secret(text) {
        true => "this is an identity, which is secret: write its public key, as `age-keygen -y` \
                 prints it, and make a new one if others may have seen this"
            .to_owned(),
        false => format!(
            "`{text}` is no public key of age-keygen, such as age1...; keys of SSH and of plugins \
             are not taken"
        ),
    }
}

impl From<Recipient> for String {
    fn from(recipient: Recipient) -> Self {
        recipient.to_string()
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for Recipient {
    fn schema_name() -> Cow<'static, str> {
        "Recipient".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^age1[02-9ac-hj-np-z]{58}$" })
    }
}

// === impl Recipients ===

impl Recipients {
    /// These; there must be one.
    pub fn of(recipients: Vec<Recipient>) -> Result<Self, RecipientsError> {
        match recipients.len() {
            1..=MOST => Ok(Self(recipients)),
            number => Err(RecipientsError::Number { number }),
        }
    }

    /// Those in a file, one on each line, as `age -R` takes them: lines that begin with # are not read.
    pub fn read(path: &Path) -> Result<Vec<Recipient>, RecipientsError> {
        let file = |source| RecipientsError::File { path: path.to_owned(), source };
        let mut text = String::new();
        File::open(path).map_err(file)?.take(MOST_BYTES).read_to_string(&mut text).map_err(file)?;
        let recipient = |(line, text): (usize, &str)| {
            let of_line = |message| RecipientsError::Line { path: path.to_owned(), line, message };
            Recipient::try_from(text.to_owned()).map_err(of_line)
        };
        let recipients: Vec<_> = lines(&text).map(recipient).collect::<Result<_, _>>()?;
        match recipients.len() {
            0 => Err(RecipientsError::Empty { path: path.to_owned() }),
            1..=MOST => Ok(recipients),
            number => Err(RecipientsError::Number { number }),
        }
    }

    /// Seals this: a message that `age -d` opens.
    pub fn seal(&self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let recipients = self.0.iter().map(|Recipient(key)| key as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        let mut sealed = Vec::with_capacity(plain.len() + self.0.len() * 256 + 256);
        let mut writer = encryptor.wrap_output(&mut sealed)?;
        writer.write_all(plain)?;
        writer.finish()?;
        Ok(sealed)
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recipients").field(&self.0.len()).finish()
    }
}
