//! For whom something is sealed.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use age::x25519;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{is_secret, is_secret_path, lines, read};

/// Each takes 100 bytes of every message, and 0.1 ms of CPU.
const MOST: usize = 16;
/// Keys of low order: the secret shared with them is zero whoever shares it, so that nothing could be
/// sealed for them alone, and age panics rather than try. They are 0, 1, the two points of order 8,
/// p-1, p and p+1, each without the bit that X25519 ignores and with it.
const OF_LOW_ORDER: [&str; 14] = [
    "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z",
    "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqzqqsuwj9m",
    "age1qyqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqj7vrya",
    "age1qyqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqzqqk67yly",
    "age1ur4h5lpmgxu2u9jku0a0r87ydtdqnr0tnsetrlvxvgz3vh6fhqqqzyt4v9",
    "age1ur4h5lpmgxu2u9jku0a0r87ydtdqnr0tnsetrlvxvgz3vh6fhzqqxqejhu",
    "age1t7wft09r2zxzfvwsk92eeql0tvzyghxytqwgapkcyf8dm5ylz9ts6wm9s8",
    "age1t7wft09r2zxzfvwsk92eeql0tvzyghxytqwgapkcyf8dm5ylz8ts72fzt7",
    "age1anlllllllllllllllllllllllllllllllllllllllllllllllals4n2t7m",
    "age1anllllllllllllllllllllllllllllllllllllllllllllllllls3hcv9z",
    "age1ahlllllllllllllllllllllllllllllllllllllllllllllllalsn46ayy",
    "age1ahlllllllllllllllllllllllllllllllllllllllllllllllllsh3g6la",
    "age1amlllllllllllllllllllllllllllllllllllllllllllllllalselrwrv",
    "age1amlllllllllllllllllllllllllllllllllllllllllllllllllsam3fc4",
];

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
    /// A line of it is no recipient. It is not shown: who knows what else it may be.
    #[error("{}:{line}: this {wrong}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        wrong: Wrong,
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
    /// An identity stands where the name of the file belongs.
    #[error(
        "this is an identity, which is secret; write the name of a file of public keys, and make \
         a new identity if others may have seen this"
    )]
    NoFile,
}

/// Why a text is no recipient.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Wrong {
    /// There is an identity in it.
    #[error(
        "is an identity, which is secret: write its public key, as `age-keygen -y` prints it, and \
         make a new one if others may have seen this"
    )]
    Secret,
    /// It is something else.
    #[error(
        "is no public key of age-keygen, such as age1...; keys of SSH and of plugins are not taken"
    )]
    NoKey,
    /// Nobody has its identity, and nobody needs one.
    #[error("is no key of anybody's: what is sealed for it is open to all")]
    LowOrder,
}

// === impl Recipient ===

impl FromStr for Recipient {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = if is_secret(text) { Wrong::Secret } else { Wrong::NoKey };
        let key: x25519::Recipient = text.parse().map_err(|_| wrong)?;
        match OF_LOW_ORDER.contains(&&*key.to_string()) {
            true => Err(Wrong::LowOrder),
            false => Ok(Self(key)),
        }
    }
}

impl TryFrom<String> for Recipient {
    type Error = String;

    /// What is wrong is told with the text, unless it may be a secret.
    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|wrong| match wrong {
            Wrong::Secret => format!("this {wrong}"),
            wrong => format!("`{text}` {wrong}"),
        })
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
        if is_secret_path(path) {
            return Err(RecipientsError::NoFile);
        }
        let file = |source| RecipientsError::File { path: path.to_owned(), source };
        let text = read(path).map_err(file)?;
        let recipient = |(line, text): (usize, &str)| {
            let of_line = |wrong| RecipientsError::Line { path: path.to_owned(), line, wrong };
            text.parse().map_err(of_line)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_nothing_can_be_sealed_for_is_refused() {
        let mut seen = std::collections::HashSet::new();
        for text in OF_LOW_ORDER {
            let key: x25519::Recipient = text.parse().expect("it reads as a key");
            assert!(seen.insert(key.to_string()), "{text} stands there twice");
            // What would happen to it: it panics in age.
            let sealing = std::panic::catch_unwind(|| Recipients(vec![Recipient(key)]).seal(b""));
            assert!(!matches!(sealing, Ok(Ok(_))), "{text} would have done");
            for text in [text.to_owned(), text.to_uppercase()] {
                let error = Recipient::try_from(text).expect_err("it is refused");
                assert!(error.contains("open to all"), "{error}");
            }
        }
    }
}
