//! Answers as they leave this process: sealed, so that nobody reads them who has not the key, and
//! nobody makes others pass for them.
//!
//! A key for each answer is drawn from the store's own by HKDF with a salt of its own, so that no
//! number of answers wears the key out; AES-256-GCM seals it, bound to the call that it answers. What
//! was written under another form, changed, or kept in the place of another does not open.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Piece};
use super::key::Key;
use crate::exchange::Told;
use crate::head::{Fields, ResponseHead};

/// The form's own version, with which each sealed answer begins.
const FORM: u8 = 1;
/// Bytes of the salt behind it.
const SALT: usize = 32;
/// Bytes by which a sealed answer is longer than its body, at most: its head and its pieces are not
/// larger than that, or it is not shared.
pub(super) const OVERHEAD: usize = 256 << 10;

/// Seals answers, and opens them.
pub(super) struct Seal {
    key: hkdf::Prk,
    /// What the keys of calls are made with, the same for all who have the key.
    pub(super) of_calls: [u8; 32],
}

/// All of an answer but its body.
#[derive(Serialize, Deserialize)]
struct Written {
    stored: Timestamp,
    keep_s: f64,
    status: u16,
    reason: String,
    fields: Vec<(String, String)>,
    is_stream: bool,
    told: Told,
    /// Where each piece ends, and when it came, in seconds from the head on.
    pieces: Vec<(u32, f64)>,
}

// === impl Seal ===

impl Seal {
    /// By this key.
    pub(super) fn new(key: &[u8]) -> Self {
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tidegate seal").extract(key);
        let mut of_calls = [0; 32];
        let expanded = key.expand(&[b"keys of calls"], hkdf::HKDF_SHA256);
        expanded
            .and_then(|okm| okm.fill(&mut of_calls))
            .expect("32 bytes are no more than it gives");
        Self { key, of_calls }
    }

    /// An answer as it may be kept elsewhere; nothing where it has no such form.
    pub(super) fn seal(&self, key: &Key, entry: &Entry) -> Option<Vec<u8>> {
        let head = serde_json::to_vec(&Written::of(entry)?).ok()?;
        let length =
            u32::try_from(head.len()).ok().filter(|length| *length as usize <= OVERHEAD / 2)?;
        let salt: [u8; SALT] = rand::random();
        let mut sealed = Vec::with_capacity(1 + SALT + 4 + head.len() + entry.body.len() + 16);
        sealed.push(FORM);
        sealed.extend_from_slice(&salt);
        let mut text = Vec::with_capacity(4 + head.len() + entry.body.len() + 16);
        text.extend_from_slice(&length.to_le_bytes());
        text.extend_from_slice(&head);
        text.extend_from_slice(&entry.body);
        let (once, nonce) = self.once(&salt);
        once.seal_in_place_append_tag(nonce, bound_to(key), &mut text).ok()?;
        sealed.extend_from_slice(&text);
        Some(sealed)
    }

    /// The answer to this call, if that is what was sealed, and it may still be given.
    pub(super) fn open(&self, key: &Key, sealed: &[u8]) -> Option<Entry> {
        let (&form, rest) = sealed.split_first()?;
        let (salt, text) = rest.split_at_checked(SALT)?;
        if form != FORM {
            return None;
        }
        let mut text = text.to_vec();
        let (once, nonce) = self.once(salt);
        let text = once.open_in_place(nonce, bound_to(key), &mut text).ok()?;
        let (length, rest) = text.split_first_chunk::<4>()?;
        let (head, body) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let written: Written = serde_json::from_slice(head).ok()?;
        written.entry(*key, Bytes::copy_from_slice(body))
    }

    /// The key for one answer, which is used once: so its nonce may be any.
    fn once(&self, salt: &[u8]) -> (LessSafeKey, Nonce) {
        let info = [b"answer".as_slice(), salt];
        let expanded = self.key.expand(&info, &AES_256_GCM);
        let key = UnboundKey::from(expanded.expect("32 bytes are no more than it gives"));
        (LessSafeKey::new(key), Nonce::assume_unique_for_key([0; 12]))
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

fn bound_to(key: &Key) -> Aad<Vec<u8>> {
    Aad::from([&[FORM][..], &key.id, &key.check].concat())
}

// === impl Written ===

impl Written {
    fn of(entry: &Entry) -> Option<Self> {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let fields = entry.head.fields.iter();
        let pieces = entry.pieces.iter().map(|piece| (piece.end, piece.at.as_secs_f64()));
        Some(Self {
            stored: Timestamp::now().checked_sub(entry.age()).ok()?,
            keep_s: entry.keep().as_secs_f64(),
            status: entry.head.status,
            reason: text(&entry.head.reason)?,
            fields: fields
                .map(|(name, value)| Some((text(name)?, text(value)?)))
                .collect::<Option<_>>()?,
            is_stream: entry.is_stream,
            told: entry.told.clone(),
            pieces: pieces.collect(),
        })
    }

    fn entry(self, key: Key, body: Bytes) -> Option<Entry> {
        // Clocks of two machines are never the same: what comes from the future came just now.
        let age = Timestamp::now().duration_since(self.stored).try_into().unwrap_or(Duration::ZERO);
        let keep = Duration::try_from_secs_f64(self.keep_s).ok().filter(|keep| age <= *keep)?;
        let lines: Vec<_> =
            self.fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let head = ResponseHead {
            status: self.status,
            reason: Bytes::from(self.reason.into_bytes()),
            fields: Fields::of(&lines),
        };
        let piece = |(end, at)| Some(Piece { end, at: Duration::try_from_secs_f64(at).ok()? });
        let pieces: Box<[Piece]> = self.pieces.into_iter().map(piece).collect::<Option<_>>()?;
        // What is not its own body's is no answer.
        let is_whole =
            pieces.last().map_or(body.is_empty(), |last| last.end as usize == body.len());
        let is_in_order = pieces.is_sorted_by_key(|piece| piece.end);
        (is_whole && is_in_order).then(|| {
            Entry::kept_elsewhere(key, age, keep, head, body, pieces, self.is_stream, self.told)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_wire::Record;

    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn key(number: u8) -> Key {
        Key { id: [number; 32], check: [number; 32] }
    }

    fn entry(keep: Duration) -> Entry {
        let lines: [(&[u8], &[u8]); 1] = [(b"content-type", b"text/event-stream")];
        let head = ResponseHead { status: 200, reason: "OK".into(), fields: Fields::of(&lines) };
        let pieces = [
            ("data: a\n\n".into(), Duration::ZERO),
            ("data: b\n\n".into(), Duration::from_millis(5)),
        ];
        let record = Record {
            stream: Some(true),
            input_tokens: Some(3),
            cost_usd: Some(0.25),
            finish_reasons: vec!["stop".to_owned()],
            ..Record::default()
        };
        Entry::new(key(1), &head, &pieces, &record, keep)
    }

    #[test]
    fn an_answer_opens_for_whoever_has_the_key_and_for_its_own_call_alone() {
        let (seal, entry) = (Seal::new(KEY), entry(Duration::from_secs(60)));
        let sealed = seal.seal(&key(1), &entry).expect("it has a form");
        let found = Seal::new(KEY).open(&key(1), &sealed).expect("it opens");
        assert_eq!((&found.body, &found.pieces), (&entry.body, &entry.pieces));
        assert_eq!(found.head.fields.get("content-type"), Some(&b"text/event-stream"[..]));
        assert_eq!((found.told.input_tokens, found.told.cost_usd), (Some(3), Some(0.25)));
        assert_eq!((found.is_stream, found.head.status, found.keep()), (true, 200, entry.keep()));
        assert!(found.is_for(&key(1)) && found.age() < Duration::from_secs(60));
        assert!(seal.open(&key(2), &sealed).is_none(), "it stands in another's place");
        let half = Key { check: [2; 32], ..key(1) };
        assert!(seal.open(&half, &sealed).is_none(), "it was found by half a key");
        let other = Seal::new(b"another key that is long enough.");
        assert!(other.open(&key(1), &sealed).is_none());
        assert_ne!(other.of_calls, seal.of_calls);
    }

    #[test]
    fn nothing_of_it_can_be_read_and_no_two_look_alike() {
        let (seal, entry) = (Seal::new(KEY), entry(Duration::from_secs(60)));
        let sealed = [0; 2].map(|_| seal.seal(&key(1), &entry).expect("it has a form"));
        for text in [&b"data: a"[..], b"event-stream", b"stop"] {
            assert!(memchr::memmem::find(&sealed[0], text).is_none());
        }
        assert_ne!(sealed[0][1..], sealed[1][1..]);
    }

    #[test]
    fn what_is_too_old_does_not_open() {
        let seal = Seal::new(KEY);
        let sealed = seal.seal(&key(1), &entry(Duration::ZERO)).expect("it has a form");
        assert!(seal.open(&key(1), &sealed).is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_changed_does_not_open(at in any::<prop::sample::Index>(), flip in 1..=u8::MAX, cut in any::<prop::sample::Index>()) {
            let seal = Seal::new(KEY);
            let sealed = seal.seal(&key(1), &entry(Duration::from_secs(60))).expect("it has a form");
            let mut changed = sealed.clone();
            changed[at.index(sealed.len())] ^= flip;
            prop_assert!(seal.open(&key(1), &changed).is_none());
            prop_assert!(seal.open(&key(1), &sealed[..cut.index(sealed.len())]).is_none());
        }

        #[test]
        fn no_bytes_of_others_open(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Seal::new(KEY).open(&key(1), &bytes).is_none());
        }
    }
}
