//! What goes wrong with calls until further notice, as `POST /-/fault` says.
//!
//! Which calls it strikes is drawn by the seed and the call's number. What a request asks for itself,
//! by header, goes before it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use super::overrides::{Fault, Overrides, duration, fault};

/// The words of a `POST /-/fault`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    kind: String,
    #[serde(default = "all")]
    ratio: f64,
    retry_after: Option<u32>,
    ttft: Option<String>,
}

/// How some of the calls go wrong.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    fault: Option<Fault>,
    ttft: Option<Duration>,
    /// In seconds, with every status that is an error.
    retry_after: Option<u32>,
    /// The part of the calls that it strikes.
    ratio: f64,
}

/// The trouble of the moment.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<Trouble>);

// === impl Troubles ===

impl Troubles {
    /// Sets what goes wrong from now on; calls that have come keep theirs.
    pub(super) fn set(&self, wish: &[u8]) -> Result<(), String> {
        let trouble = Trouble::read(wish)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        Ok(())
    }

    /// Strikes a call that drew this number, from 0 to 1, if it is among those to be struck.
    pub(super) fn strike(&self, call: &mut Overrides, drawn: f64) {
        let trouble = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if drawn < trouble.ratio {
            call.fault = call.fault.or(trouble.fault);
            call.ttft = call.ttft.or(trouble.ttft);
            call.retry_after = trouble.retry_after;
        }
    }
}

// === impl Trouble ===

impl Trouble {
    fn read(wish: &[u8]) -> Result<Self, String> {
        let wish: Wish = serde_json::from_slice(wish).map_err(|error| error.to_string())?;
        if !(0.0..=1.0).contains(&wish.ratio) {
            return Err(format!("ratio {} is not from 0 to 1", wish.ratio));
        }
        let mut trouble = Self { ratio: wish.ratio, ..Self::default() };
        match (wish.kind.as_str(), wish.ttft, wish.retry_after) {
            ("none", None, None) => {}
            ("slow", Some(ttft), None) => {
                let ttft = duration(&ttft).ok_or_else(|| format!("`{ttft}` is no time"))?;
                trouble.ttft = Some(ttft);
            }
            ("slow", ..) => return Err("`slow` needs a `ttft`, such as 2s, and no more".to_owned()),
            (kind, None, retry_after) => {
                let kind = fault(kind).ok_or_else(|| format!("there is no fault `{kind}`"))?;
                if retry_after.is_some() && !matches!(kind, Fault::Status(_)) {
                    return Err("`retry_after` goes with a status".to_owned());
                }
                (trouble.fault, trouble.retry_after) = (Some(kind), retry_after);
            }
            (kind, Some(_), _) => {
                return Err(format!("`ttft` goes with `slow`, not with `{kind}`"));
            }
        }
        Ok(trouble)
    }
}

fn all() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (wish, why) in [
            (r#"{"kind":"explode"}"#, "there is no fault `explode`"),
            (r#"{"kind":"500","ratio":2}"#, "not from 0 to 1"),
            (r#"{"kind":"slow"}"#, "`slow` needs a `ttft`"),
            (r#"{"kind":"slow","ttft":"soon"}"#, "is no time"),
            (r#"{"kind":"cut","ttft":"1s"}"#, "`ttft` goes with `slow`"),
            (r#"{"kind":"cut","retry_after":1}"#, "`retry_after` goes with a status"),
            (r#"{"kind":"500","rate":1}"#, "unknown field `rate`"),
            ("", "EOF"),
        ] {
            let told = Troubles::default().set(wish.as_bytes()).expect_err(wish);
            assert!(told.contains(why), "{wish}: {told}");
        }
    }

    #[test]
    fn a_request_knows_better_what_it_wants() {
        let troubles = Troubles::default();
        troubles.set(br#"{"kind":"cut","ratio":0.5}"#).expect("it makes sense");
        let mut call = Overrides { fault: fault("503"), ..Overrides::default() };
        troubles.strike(&mut call, 0.1);
        assert_eq!(call.fault, fault("503"));
        let [mut struck, mut spared] = <[Overrides; 2]>::default();
        troubles.strike(&mut struck, 0.49);
        troubles.strike(&mut spared, 0.5);
        assert_eq!((struck.fault, spared.fault), (fault("cut"), None));
    }
}
