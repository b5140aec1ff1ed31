//! Who calls, where one sidecar serves several.
//!
//! A caller is known by what only it can show: a key, which stands where its own credential would, or
//! a certificate, to which `tls.callers` must lead. Or it is known by the name that it gives itself in
//! a header, which is believed. Who has keys or certificates cannot be named by anybody else. This is
//! no policy: it is known before the first of them looks, and to bypass them changes nothing here.

use std::borrow::Cow;
use std::sync::Arc;

use tidegate_credential::{credential_parameters, is_credential};
use tidegate_wire::glob;

use crate::config::Config;
use crate::error::Error;
use crate::head::RequestHead;
use crate::tls::ShownNames;

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
    config: CallerConfig,
}

/// Whose call it is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) name: Arc<str>,
    /// Whether it has shown a key or a certificate of its own: nobody else could have called so.
    pub(crate) is_proven: bool,
    /// Absent where the name is not among the known ones.
    known: Option<Arc<Caller>>,
}

/// Who has proven to be the caller.
enum Proof<'a> {
    None,
    Of(&'a Arc<Caller>),
    /// Two have.
    Contradictory,
}

// === impl Callers ===

impl Callers {
    /// Those of a configuration; absent where it says nothing of callers.
    pub(crate) fn of(config: &Config) -> Option<Arc<Self>> {
        let config = &config.callers;
        let caller = |(name, caller): (&String, &CallerConfig)| {
            Arc::new(Caller { name: name.as_str().into(), config: caller.clone() })
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
        let identity = match self.proven(head) {
            Proof::Of(caller) => Some(Identity::of(caller, true)),
            Proof::None => self.by_header(head),
            Proof::Contradictory => None,
        };
        let is_known = identity.as_ref().is_some_and(|identity| identity.known.is_some());
        match self.refuses_others && !is_known {
            true => Err(Error::CallerUnknown),
            false => Ok(identity),
        }
    }

    /// The one whose key or certificate came with the call. Who brings those of two is neither.
    fn proven(&self, head: &RequestHead) -> Proof<'_> {
        let has_keys = self.known.iter().any(|caller| !caller.config.keys.is_empty());
        let keys = has_keys.then(|| keys(head)).into_iter().flatten();
        let by_key = keys.filter_map(|key| self.owner(&digest::of(&key)));
        let by_certificate = head.shown.iter().flat_map(|shown| self.shown_by(shown));
        by_key.chain(by_certificate).fold(Proof::None, Proof::and)
    }

    /// Those who have a certificate with such a name.
    fn shown_by<'a>(&'a self, shown: &ShownNames) -> impl Iterator<Item = &'a Arc<Caller>> {
        let has = |caller: &&Arc<Caller>| {
            let is_own = |name| caller.config.certificates.iter().any(|own| glob(own, name));
            shown.iter().any(is_own)
        };
        self.known.iter().filter(has)
    }

    /// All are looked at, so that the time tells nothing of who it is.
    fn owner(&self, key: &digest::Digest) -> Option<&Arc<Caller>> {
        self.known.iter().fold(None, |found, caller| {
            let is_own = |own: &KeyDigest| digest::is_same(&own.0, key);
            match caller.config.keys.iter().filter(|own| is_own(own)).count() {
                0 => found,
                _ => Some(caller),
            }
        })
    }

    /// The one that the call names, unless that one could prove it.
    fn by_header(&self, head: &RequestHead) -> Option<Identity> {
        let name = head.fields.get(self.header.as_deref()?)?;
        let name = std::str::from_utf8(name).ok().filter(|name| is_name(name))?;
        match self.known.iter().find(|caller| &*caller.name == name) {
            Some(caller) if !caller.config.can_prove() => Some(Identity::of(caller, false)),
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

// === impl Proof ===

impl<'a> Proof<'a> {
    fn and(self, other: &'a Arc<Caller>) -> Self {
        match self {
            Self::None => Self::Of(other),
            Self::Of(caller) if caller.name == other.name => self,
            Self::Of(_) | Self::Contradictory => Self::Contradictory,
        }
    }
}

// === impl Identity ===

impl Identity {
    fn of(caller: &Arc<Caller>, is_proven: bool) -> Self {
        Self { name: caller.name.clone(), is_proven, known: Some(caller.clone()) }
    }

    /// The models that the caller may ask for; absent where it may ask for all.
    fn models(&self) -> Option<&[String]> {
        self.known.as_ref()?.config.models.as_deref()
    }
}

#[cfg(test)]
mod tests;
