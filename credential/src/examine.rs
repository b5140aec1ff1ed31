//! What each source of a credential has to say, for a person who wants to know why calls are not
//! signed, or by whom they are.
//!
//! Names are told, values never: of a key its length, of an access key id its two ends. What a
//! token service says of its failure is told by a word of a known list alone.

mod aws;
mod google;
mod profile;

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout};

use crate::Secret;
use crate::config::{CredentialConfig, Place};
use crate::header::{self, MAX_BYTES};

/// How a source answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It gives a credential, or is a good step on the way to one.
    Yes,
    /// It gives one that may not be what was meant.
    Doubtful,
    /// It is not configured here, which is no fault as long as another one answers.
    Absent,
    /// It is configured, and gives none.
    No,
    /// It was not asked, because an earlier one has settled the matter.
    NotAsked,
}

/// What one source has to say.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The source, in few words: `environment`, `metadata server`.
    pub source: &'static str,
    /// How it answered.
    pub said: Said,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub advice: Option<String>,
    /// How long it took.
    pub took: Duration,
    /// Until the credential expires, where that is stated.
    pub expires_in: Option<Duration>,
}

/// What all sources of a credential have to say, in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub struct Examined {
    /// One for each source.
    pub findings: Vec<Finding>,
    /// The Google Cloud project that the credential belongs to, where it says so.
    pub project: Option<String>,
}

/// Asks each source of this credential; none for longer than `limit`.
pub async fn examine(config: &CredentialConfig, limit: Duration) -> Examined {
    match config {
        CredentialConfig::Bearer(place) => of_key(key(place, "Bearer ", limit).await),
        CredentialConfig::Header(header) => of_key(key(&header.place, &header.prefix, limit).await),
        CredentialConfig::Aws(config) => {
            Examined { findings: aws::examine(config, limit).await, project: None }
        }
        CredentialConfig::Google(config) => google::examine(config, limit).await,
    }
}

fn of_key(finding: Finding) -> Examined {
    Examined { findings: vec![finding], project: None }
}

// === impl Examined ===

impl Examined {
    /// Whether there is a credential to sign with.
    pub fn is_found(&self) -> bool {
        !self.findings.iter().any(|finding| finding.said == Said::No)
            && self.findings.iter().any(|finding| finding.is_good())
    }
}

// === impl Finding ===

impl Finding {
    fn new(source: &'static str, said: Said, text: impl Into<String>) -> Self {
        Self {
            source,
            said,
            text: text.into(),
            advice: None,
            took: Duration::ZERO,
            expires_in: None,
        }
    }

    fn advising(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    fn after(self, start: Instant) -> Self {
        Self { took: start.elapsed(), ..self }
    }

    fn is_good(&self) -> bool {
        matches!(self.said, Said::Yes | Said::Doubtful)
    }
}

/// The two ends of a name that is not for everybody: `AKIA…WXYZ`.
fn ends(name: &str) -> String {
    let letters: Vec<char> = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let text = |letters: &[char]| letters.iter().collect::<String>();
    match letters.len() {
        0..12 => format!("{}…", text(&letters[..letters.len().min(4)])),
        length => format!("{}…{}", text(&letters[..4]), text(&letters[length - 4..])),
    }
}

/// A name as it may be shown: of plain characters, and not long.
fn plain(name: &str) -> Option<&str> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"@.-_:/+=,".contains(&byte);
    (1..=256).contains(&name.len()).then_some(name).filter(|name| name.bytes().all(legal))
}

/// `its file cannot be read`, and what to do about it.
fn unreadable(path: &Path, kind: ErrorKind) -> (String, &'static str) {
    let advice = match kind {
        ErrorKind::NotFound => "mount it there, or correct the path in the configuration",
        ErrorKind::PermissionDenied => {
            "let the user that Tidegate runs as read it (in Kubernetes `fsGroup` or `defaultMode`)"
        }
        ErrorKind::IsADirectory => "name the file in that folder which holds the key",
        _ => "see that it is a file that can be read",
    };
    (format!("{} cannot be read: {kind}", path.display()), advice)
}

// === keys in files and variables ===

async fn key(place: &Place, prefix: &str, limit: Duration) -> Finding {
    let start = Instant::now();
    let finding = match place {
        Place::Env(name) => of_variable(name, prefix),
        Place::File(path) => of_file(path, prefix, limit).await,
    };
    finding.after(start)
}

fn of_variable(name: &str, prefix: &str) -> Finding {
    let what = format!("the environment variable {name}");
    match std::env::var(name) {
        Ok(text) => judged("environment", &what, &Secret::new(text), prefix),
        Err(std::env::VarError::NotPresent) => {
            Finding::new("environment", Said::No, format!("{what} is not set")).advising(format!(
                "set {name} where Tidegate runs; in Kubernetes `env` with `secretKeyRef` in its own container"
            ))
        }
        Err(_) => Finding::new("environment", Said::No, format!("{what} is not text"))
            .advising("a key is printable ASCII; see how it was encoded"),
    }
}

async fn of_file(path: &Path, prefix: &str, limit: Duration) -> Finding {
    let text = match timeout(limit, read(path)).await {
        Ok(Ok(text)) => text,
        Ok(Err(kind)) => {
            let (text, advice) = unreadable(path, kind);
            return Finding::new("file", Said::No, text).advising(advice);
        }
        Err(_) => {
            let text = format!("{} cannot be read: no answer in time", path.display());
            return Finding::new("file", Said::No, text)
                .advising("see that it is a file, on a disk that answers");
        }
    };
    judged("file", &path.display().to_string(), &text, prefix)
}

async fn read(path: &Path) -> Result<Secret, ErrorKind> {
    let file = tokio::fs::File::open(path).await.map_err(|error| error.kind())?;
    let mut text = String::new();
    let mut file = file.take(MAX_BYTES as u64 + 1);
    let read = file.read_to_string(&mut text).await;
    let text = Secret::new(text);
    read.map_err(|error| error.kind())?;
    Ok(text)
}

fn judged(source: &'static str, what: &str, text: &Secret, prefix: &str) -> Finding {
    let key = text.expose().trim();
    if let Err(reason) = header::key(key, "") {
        let lines = key.lines().count();
        let (reason, advice) = match reason {
            "is empty" => (reason.to_owned(), "put the key there, and nothing else"),
            _ if lines > 1 => (
                format!("has a line break inside: {lines} lines"),
                "a key is one line; put it there, and nothing else",
            ),
            _ => (reason.to_owned(), "a key is one line of printable ASCII; see how it was made"),
        };
        return Finding::new(source, Said::No, format!("{what} {reason}")).advising(advice);
    }
    let text = format!("{what} holds a key of {} characters", key.len());
    match doubt(key, prefix) {
        Some((doubt, advice)) => {
            Finding::new(source, Said::Doubtful, format!("{text}, {doubt}")).advising(advice)
        }
        None => Finding::new(source, Said::Yes, text),
    }
}

/// What a key most likely is not meant to look like.
fn doubt(key: &str, prefix: &str) -> Option<(&'static str, &'static str)> {
    let prefix = prefix.trim();
    let starts = key.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if starts && !prefix.is_empty() {
        return Some((
            "which begins with the prefix that is put before it",
            "leave the prefix out of the key: it would be sent twice",
        ));
    }
    if key.starts_with(['"', '\'']) || key.ends_with(['"', '\'']) {
        return Some(("in quotes", "leave the quotes out: they are sent with the key"));
    }
    if key.contains(' ') {
        return Some(("with a space inside", "see that it is the key and nothing else"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, prefix: &str, said: Said, part: &str) {
        let finding = judged("file", "it", &Secret::new(text.to_owned()), prefix);
        assert_eq!(finding.said, said, "{finding:?}");
        assert!(finding.text.contains(part), "{finding:?}");
        assert_eq!(finding.advice.is_some(), said != Said::Yes, "{finding:?}");
        assert!(!format!("{finding:?}").contains("canary"), "{finding:?}");
    }

    #[test]
    fn of_a_key_its_length_is_told_and_what_is_wrong_with_it() {
        check("sk-canary\n", "Bearer ", Said::Yes, "a key of 9 characters");
        check(" \n", "", Said::No, "is empty");
        check("canary-1\ncanary-2", "", Said::No, "a line break inside: 2 lines");
        check("canarÿ", "", Said::No, "characters that a header may not have");
        check("bearer canary", "Bearer ", Said::Doubtful, "the prefix");
        check("\"canary\"", "", Said::Doubtful, "in quotes");
        check("key canary", "", Said::Doubtful, "a space inside");
    }

    #[test]
    fn of_an_access_key_id_two_ends_are_told() {
        assert_eq!(ends("AKIAIOSFODNN7EXAMPLE"), "AKIA…MPLE");
        assert_eq!(ends("AKIDENV"), "AKID…");
        assert_eq!(ends("ab"), "ab…");
    }
}
