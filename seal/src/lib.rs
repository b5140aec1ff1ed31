//! What is kept encrypted: for whom it is sealed, and who can open it. The cryptography is age's.
//!
//! Who seals holds public keys alone, and cannot read what was sealed. An identity is shown nowhere,
//! and its memory is zeroed when it is dropped.

mod identities;
mod recipients;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub use identities::{Identities, IdentityError, OpenError, is_open_to_all};
pub use recipients::{Recipient, Recipients, RecipientsError, Wrong};
use zeroize::Zeroizing;

/// What an identity begins with; nothing that holds it is ever shown.
const SECRET: &str = "AGE-SECRET-KEY-";
/// The largest file of recipients or identities.
const MOST_BYTES: u64 = 64 << 10;

/// What such a file holds; one that is larger is refused, for its end would be missed.
fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    // As large as it may become: where it grew, what it held before would stay behind.
    let mut text = Zeroizing::new(String::with_capacity(MOST_BYTES as usize + 1));
    File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MOST_BYTES {
        true => Err(io::Error::other(format!("it is larger than {} KiB", MOST_BYTES >> 10))),
        false => Ok(text),
    }
}

/// The lines of such a file that say something, with their numbers, counted from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Whether an identity stands in a text, wherever.
fn is_secret(text: &str) -> bool {
    let mut parts = text.as_bytes().windows(SECRET.len());
    parts.any(|part| part.eq_ignore_ascii_case(SECRET.as_bytes()))
}

/// Whether a path is an identity, where the name of a file belongs.
fn is_secret_path(path: &Path) -> bool {
    is_secret(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret;

    use super::*;

    /// An identity in a file of its own that goes with its test, and who it is the identity of.
    fn identity(name: &str) -> (std::path::PathBuf, Recipient) {
        let identity = age::x25519::Identity::generate();
        let path = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
        let text = format!("# created: today\n\n{}\n", identity.to_string().expose_secret());
        std::fs::write(&path, text).expect("it writes");
        let recipient = identity.to_public().to_string();
        (path, Recipient::try_from(recipient).expect("it has just been made"))
    }

    fn identities(path: &std::path::Path) -> Identities {
        let read = Identities::read(&[path]).expect("it holds one");
        std::fs::remove_file(path).expect("it was written");
        read
    }

    #[test]
    fn what_is_sealed_is_opened_by_each_of_its_recipients_and_nobody_else() {
        let [one, other, stranger] =
            ["one", "other", "stranger"].map(|name| identity(&format!("seal-{name}")));
        let recipients = Recipients::of(vec![one.1.clone(), other.1.clone()]).expect("two");
        for length in [0, 1, 70_000] {
            let plain = vec![b'a'; length];
            let sealed = recipients.seal(&plain).expect("it seals");
            assert!(memory_has_not(&sealed, b"aaaa"));
            for (path, _) in [&one, &other] {
                let opened = Identities::read(&[path]).expect("it holds one").open(&sealed);
                assert_eq!(opened.expect("it is theirs"), plain);
            }
            let refused = Identities::read(&[&stranger.0]).expect("it holds one").open(&sealed);
            assert!(matches!(refused, Err(OpenError::NotTheirs)), "{refused:?}");
            let refused = Identities::default().open(&sealed);
            assert!(matches!(refused, Err(OpenError::NoIdentity)), "{refused:?}");
        }
        [one, other, stranger].iter().for_each(|(path, _)| drop(identities(path)));
    }

    fn memory_has_not(bytes: &[u8], part: &[u8]) -> bool {
        !bytes.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn what_was_changed_or_cut_anywhere_does_not_open() {
        let (path, recipient) = identity("seal-damage");
        let identities = identities(&path);
        let sealed = Recipients::of(vec![recipient]).expect("one").seal(b"what Ada said");
        let sealed = sealed.expect("it seals");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(identities.open(&changed).is_err(), "changed at {at}");
            assert!(identities.open(&sealed[..at]).is_err(), "cut at {at}");
        }
    }

    /// Byte by byte, with all before read again for each, they would take hours.
    #[test]
    fn a_header_without_end_is_damage_and_not_read_for_ever() {
        let (path, _) = identity("seal-endless");
        let identities = identities(&path);
        let long = vec![b'a'; 16 << 20];
        let lines = b"-> X a\n\n".repeat(2 << 20);
        for (header, end) in [(&long, ""), (&long, "\n--- "), (&lines, ""), (&lines, "--- ")] {
            let message = [b"age-encryption.org/v1\n-> X ", &header[..], end.as_bytes()].concat();
            let refused = identities.open(&message);
            assert!(matches!(refused, Err(OpenError::Damaged)), "{refused:?}");
        }
    }

    #[test]
    fn an_identity_is_shown_nowhere() {
        let (path, _) = identity("seal-shown");
        let text = std::fs::read_to_string(&path).expect("it was written");
        let secret = text.lines().last().expect("a line").to_owned();
        std::fs::write(&path, format!("# mine\n{secret}oops\n")).expect("it writes");
        let shown = [
            format!("{:?}", Identities::read(&[&path]).expect_err("no identity")),
            Identities::read(&[&path]).expect_err("no identity").to_string(),
            Identities::read(&[&secret]).expect_err("no file").to_string(),
            format!("{:?}", Identities::read(&[&secret]).expect_err("no file")),
            Recipient::try_from(secret.clone()).expect_err("no recipient"),
            Recipient::try_from(format!("key={}", secret.to_lowercase())).expect_err("none"),
            Recipients::read(&path).expect_err("no recipient").to_string(),
        ];
        let below = [secret.clone(), format!("/etc/{secret}"), secret.to_lowercase()];
        let below = below.iter().flat_map(|path| {
            let recipients = Recipients::read(path.as_ref()).expect_err("no file");
            let identities = Identities::read(&[path]).expect_err("no file");
            [format!("{recipients} {recipients:?}"), format!("{identities} {identities:?}")]
        });
        let shown: Vec<_> = shown.into_iter().chain(below).collect();
        let line = |line: String| {
            std::fs::write(&path, format!("# ours\n{line}\n")).expect("it writes");
            let error = Recipients::read(&path).expect_err("no recipient");
            assert!(error.to_string().contains(":2: this is "), "{error}");
            format!("{error} {error:?}")
        };
        let lines = [
            format!("KEY={secret}"),
            format!("\"{}\"", secret.to_lowercase()),
            format!("- {secret}"),
            format!("\u{feff}{secret}"),
            // Of a token that stands where a recipient belongs, we know nothing.
            secret[16..].to_owned(),
        ];
        let shown: Vec<_> = shown.into_iter().chain(lines.map(line)).collect();
        std::fs::write(&path, &secret).expect("it writes");
        let shown = shown.into_iter().chain([format!("{:?}", identities(&path))]);
        for text in shown {
            assert!(!text.to_uppercase().contains(&secret[20..40]), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_and_not_cut() {
        let (path, recipient) = identity("seal-large");
        let text = std::fs::read_to_string(&path).expect("it was written");
        let filled =
            |text: &str, size: usize| format!("{text}\n#{}", "x".repeat(size - text.len() - 2));
        let limit = MOST_BYTES as usize;
        std::fs::write(&path, filled(&text, limit)).expect("it writes");
        assert!(Identities::read(&[&path]).is_ok());
        std::fs::write(&path, filled(&text, limit + 1)).expect("it writes");
        let error = Identities::read(&[&path]).expect_err("it is refused");
        assert!(matches!(error, IdentityError::File { .. }), "{error}");
        std::fs::write(&path, filled(&recipient.to_string(), limit + 1)).expect("it writes");
        let error = Recipients::read(&path).expect_err("it is refused").to_string();
        assert!(error.ends_with("it is larger than 64 KiB"), "{error}");
        std::fs::remove_file(path).expect("it was written");
    }

    #[test]
    fn what_is_no_recipient_is_told_with_what_to_write() {
        let path = std::env::temp_dir().join(format!("tidegate-recipients-{}", std::process::id()));
        let (file, recipient) = identity("seal-told");
        std::fs::remove_file(file).expect("it was written");
        for (text, told) in [
            ("age1nobody".to_owned(), ":1: this is no public key"),
            (format!("# ours\n{recipient}\nssh-ed25519 AAAA\n"), ":3: this is no public key"),
            ("\n# nobody\n".to_owned(), ": it names nobody who could read"),
            (format!("{recipient}\n").repeat(17), "at most 16"),
        ] {
            std::fs::write(&path, &text).expect("it writes");
            let error = Recipients::read(&path).expect_err(&text).to_string();
            assert!(error.contains(told), "{error}");
        }
        std::fs::write(&path, format!("# ours\n{recipient}\n\n")).expect("it writes");
        assert_eq!(Recipients::read(&path).expect("one"), [recipient]);
        std::fs::remove_file(path).expect("it was written");
    }
}
