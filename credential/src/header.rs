//! A key in a header, from a file or the environment.
//!
//! Kubernetes changes a mounted secret by moving a link: a file is looked at again and again, and
//! read where its text differs, rather than watched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::config::{HeaderConfig, Place};
use crate::fresh::{Fetched, Fresh, Source};
use crate::{Error, Secret, Signed, Version};

/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Longer keys are none.
pub(crate) const MAX_BYTES: usize = 64 << 10;

/// A header that carries a key.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) name: String,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    /// From the environment, which does not change.
    Fixed(Secret),
    File(Fresh<Secret>),
}

impl Header {
    pub(crate) fn bearer(place: &Place, background: &Handle) -> Result<Self, Error> {
        Self::new("authorization", "Bearer ", place, background)
    }

    pub(crate) fn named(config: &HeaderConfig, background: &Handle) -> Result<Self, Error> {
        Self::new(&config.name, &config.prefix, &config.place, background)
    }

    fn new(name: &str, prefix: &str, place: &Place, background: &Handle) -> Result<Self, Error> {
        let value = match place {
            Place::File(path) => {
                let source = File { path: path.clone(), prefix: prefix.to_owned(), last: None };
                Value::File(Fresh::keep(source, background))
            }
            Place::Env(variable) => Value::Fixed(from_environment(variable, prefix)?),
        };
        Ok(Self { name: name.to_owned(), value })
    }

    /// The header, with the value to send.
    pub(crate) async fn sign(&self, limit: Duration) -> Result<Signed, Error> {
        let (value, key) = match &self.value {
            Value::Fixed(secret) => (secret.clone(), 0),
            Value::File(fresh) => {
                let known = fresh.get(limit).await?;
                (Secret::clone(&known.value), known.version)
            }
        };
        let version = Version { key, ..Version::default() };
        Ok(Signed { headers: vec![(self.name.clone(), value)], version })
    }

    pub(crate) fn fresh(&self) -> Option<&Fresh<Secret>> {
        match &self.value {
            Value::Fixed(_) => None,
            Value::File(fresh) => Some(fresh),
        }
    }
}

impl Place {
    /// The key that stands there now.
    pub async fn read(&self) -> Result<Secret, Error> {
        match self {
            Self::Env(variable) => from_environment(variable, ""),
            Self::File(path) => from_file(path, "").await.map_err(Error::Config),
        }
    }
}

fn from_environment(variable: &str, prefix: &str) -> Result<Secret, Error> {
    let text = std::env::var(variable)
        .map(Secret::new)
        .map_err(|_| Error::Config(format!("the environment variable {variable} is not set")))?;
    key(text.expose(), prefix)
        .map_err(|reason| Error::Config(format!("the environment variable {variable} {reason}")))
}

async fn from_file(path: &Path, prefix: &str) -> Result<Secret, String> {
    let text = tokio::fs::read_to_string(path).await.map(Secret::new);
    let path = path.display();
    let text = text.map_err(|error| format!("{path} cannot be read: {}", error.kind()))?;
    key(text.expose(), prefix).map_err(|reason| format!("{path} {reason}"))
}

/// The header's value, or why the text is no key.
pub(crate) fn key(text: &str, prefix: &str) -> Result<Secret, &'static str> {
    let text = text.trim();
    match text {
        "" => Err("is empty"),
        _ if text.len() > MAX_BYTES => Err("is too long for a key"),
        _ if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
            Err("holds characters that a header may not have")
        }
        _ => Ok(Secret::new(format!("{prefix}{text}"))),
    }
}

struct File {
    path: PathBuf,
    prefix: String,
    last: Option<Secret>,
}

impl Source for File {
    type Value = Secret;

    fn name(&self) -> &'static str {
        "a file"
    }

    async fn fetch(&mut self) -> Result<Fetched<Secret>, String> {
        let value = from_file(&self.path, &self.prefix).await?;
        let is_new = self.last.as_ref() != Some(&value);
        self.last = Some(value.clone());
        Ok(Fetched { value: is_new.then_some(value), expires: None, again_in: LOOK })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_file_that_changes_is_read_again() {
        let folder = std::env::temp_dir().join(format!("tidegate-key-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("key");
        fs::write(&path, "first\n").expect("a file");
        let place = Place::File(path.clone());
        let header = Header::bearer(&place, &Handle::current()).expect("a header");
        let value = async || {
            let signed = header.sign(Duration::from_secs(5)).await.expect("a value");
            signed.headers[0].1.expose().to_owned()
        };
        assert_eq!(value().await, "Bearer first");
        fs::write(&path, "second").expect("a file");
        while value().await != "Bearer second" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fs::remove_dir_all(&folder).expect("the folder goes");
    }

    #[test]
    fn what_no_header_may_hold_is_no_key() {
        for text in ["", " \n", "two\nlines", "naïve"] {
            assert!(key(text, "").is_err(), "{text:?}");
        }
        assert_eq!(
            key(" sk-1 \n", "Bearer ").map(|key| key.expose().to_owned()),
            Ok("Bearer sk-1".to_owned())
        );
    }
}
