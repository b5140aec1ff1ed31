//! Who calls, where one sidecar serves several.
//!
//! A caller is known by a key that only it has, which stands where its own credential would, or by
//! the name that it gives itself in a header, which is believed. Who has keys cannot be named by
//! anybody else. This is no policy: it is known before the first of them looks, and to bypass them
//! changes nothing here.

use std::borrow::Cow;
use std::sync::Arc;

use tidegate_credential::{credential_parameters, is_credential};

use crate::config::Config;
use crate::error::Error;
use crate::head::RequestHead;

mod config;
mod digest;
mod permit;

pub use config::{CallerConfig, CallersConfig, KeyDigest, Others};

pub(crate) use config::is_name;

/// All callers that are known.
#[derive(Debug)]
pub(crate) struct Callers {
    /// The header that names a caller.
    header: Option<String>,
    refuses_others: bool,
    known: Vec<Arc<Caller>>,
}

/// One that is known.
#[derive(Debug)]
struct Caller {
    name: Arc<str>,
    keys: Vec<KeyDigest>,
    /// The models that it may ask for; absent where it may ask for all.
    models: Option<Vec<String>>,
}

/// Whose call it is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) name: Arc<str>,
    /// Whether it has shown a key of its own: nobody else could have called so.
    pub(crate) is_proven: bool,
    /// Absent where the name is not among the known ones.
    known: Option<Arc<Caller>>,
}

// === impl Callers ===

impl Callers {
    /// Those of a configuration; absent where it says nothing of callers.
    pub(crate) fn of(config: &Config) -> Option<Arc<Self>> {
        let config = &config.callers;
        let caller = |(name, caller): (&String, &CallerConfig)| {
            let CallerConfig { keys, models } = caller.clone();
            Arc::new(Caller { name: name.as_str().into(), keys, models })
        };
        (!config.is_nothing()).then(|| {
            Arc::new(Self {
                header: config.header.clone(),
                refuses_others: config.others == Others::Refuse,
                known: config.known.iter().map(caller).collect(),
            })
        })
    }

    /// Whose call this is, as its head says; of nobody that is known where that is absent.
    pub(crate) fn identify(&self, head: &RequestHead) -> Result<Option<Identity>, Error> {
        let identity = self.by_key(head).or_else(|| self.by_header(head));
        let is_known = identity.as_ref().is_some_and(|identity| identity.known.is_some());
        match self.refuses_others && !is_known {
            true => Err(Error::CallerUnknown),
            false => Ok(identity),
        }
    }

    /// The one who has the key that came with the call. Who brings the keys of two is neither.
    fn by_key(&self, head: &RequestHead) -> Option<Identity> {
        if self.known.iter().all(|caller| caller.keys.is_empty()) {
            return None;
        }
        let mut found: Option<&Arc<Caller>> = None;
        for key in keys(head) {
            let Some(caller) = self.owner(&digest::of(&key)) else { continue };
            if found.is_some_and(|found| found.name != caller.name) {
                return None;
            }
            found = Some(caller);
        }
        found.map(|caller| Identity::of(caller, true))
    }

    /// All are looked at, so that the time tells nothing of who it is.
    fn owner(&self, key: &digest::Digest) -> Option<&Arc<Caller>> {
        self.known.iter().fold(None, |found, caller| {
            let is_own = |own: &KeyDigest| digest::is_same(&own.0, key);
            match caller.keys.iter().filter(|own| is_own(own)).count() {
                0 => found,
                _ => Some(caller),
            }
        })
    }

    /// The one that the call names, unless that one would have a key.
    fn by_header(&self, head: &RequestHead) -> Option<Identity> {
        let name = head.fields.get(self.header.as_deref()?)?;
        let name = std::str::from_utf8(name).ok().filter(|name| is_name(name))?;
        match self.known.iter().find(|caller| &*caller.name == name) {
            Some(caller) if caller.keys.is_empty() => Some(Identity::of(caller, false)),
            Some(_) => None,
            None => Some(Identity { name: name.into(), is_proven: false, known: None }),
        }
    }
}

/// What of a call may be a caller's key: what stands where credentials stand.
fn keys(head: &RequestHead) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let fields = head.fields.iter().filter(|(name, _)| is_credential(name));
    let target = std::str::from_utf8(head.target.as_bytes()).unwrap_or_default();
    let parameters = credential_parameters(target).map(|value| match value {
        Cow::Borrowed(value) => value.as_bytes().into(),
        Cow::Owned(value) => value.into_bytes().into(),
    });
    fields.map(|(_, value)| without_scheme(value).into()).chain(parameters)
}

/// A key without the word before it: `Bearer`.
fn without_scheme(value: &[u8]) -> &[u8] {
    const BEARER: &[u8] = b"bearer ";
    let value = value.trim_ascii();
    match value.get(..BEARER.len()) {
        Some(scheme) if scheme.eq_ignore_ascii_case(BEARER) => value[BEARER.len()..].trim_ascii(),
        _ => value,
    }
}

// === impl Identity ===

impl Identity {
    fn of(caller: &Arc<Caller>, is_proven: bool) -> Self {
        Self { name: caller.name.clone(), is_proven, known: Some(caller.clone()) }
    }

    /// The models that the caller may ask for; absent where it may ask for all.
    fn models(&self) -> Option<&[String]> {
        self.known.as_ref()?.models.as_deref()
    }
}

#[cfg(test)]
mod tests;
