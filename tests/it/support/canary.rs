//! Secrets that tests plant, and the search for them in all that a process says and writes.
//!
//! Every secret begins and ends with one mark: what looks for the mark finds each of them, and a
//! half of one, in whatever form.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use memchr::memmem;

/// What a secret is known by. Its base64 has letters and digits alone.
const MARK: &str = "tidecanary";

/// A key of AWS, in the environment.
pub(crate) const SECRET_ACCESS_KEY: &str = "tidecanary-of-the-secret-access-key/1+tidecanary";
/// The token that belongs to it.
pub(crate) const SESSION_TOKEN: &str = "tidecanary-of-the-session-token/+=tidecanary";
/// A key of a provider, in the environment.
pub(crate) const API_KEY: &str = "tidecanary-of-a-provider~2&tidecanary";
/// What a file holds.
pub(crate) const IN_FILE: &str = "tidecanary-in-a-file=3?tidecanary";
/// What a collector of metrics and spans asks for.
pub(crate) const OF_COLLECTOR: &str = "tidecanary-of-a-collector-tidecanary";
/// What the admin address asks for before it switches anything.
pub(crate) const OF_ADMIN: &str = "tidecanary-of-the-admin-address-tidecanary";
/// What a caller sends.
pub(crate) const OF_CALLER: &str = "tidecanary-of-a-caller&4+tidecanary";

/// What every process of a test finds in its environment. None of it may change what it does.
pub(crate) const ENVIRONMENT: [(&str, &str); 6] = [
    ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
    ("AWS_SESSION_TOKEN", SESSION_TOKEN),
    ("AWS_BEARER_TOKEN_BEDROCK", API_KEY),
    ("OPENAI_API_KEY", API_KEY),
    ("ANTHROPIC_API_KEY", API_KEY),
    ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=tidecanary-of-a-collector-tidecanary"),
];

/// Every field that a caller's key may stand in, each on a line of its own.
pub(crate) fn callers_fields() -> String {
    let field = |(name, before): (&str, &str)| format!("{name}: {before}{OF_CALLER}\r\n");
    CALLERS_FIELDS.into_iter().map(field).collect()
}

/// Name, and what stands before the key.
pub(crate) const CALLERS_FIELDS: [(&str, &str); 4] =
    [("Authorization", "Bearer "), ("x-api-key", ""), ("api-key", ""), ("x-goog-api-key", "")];

/// A caller's key in a query.
pub(crate) const CALLERS_QUERY: &str = "key=tidecanary-of-a-caller%264%2Btidecanary";

/// Leaks found where no test would hear of a panic.
static ELSEWHERE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A search of everything that one process has put out.
#[derive(Debug, Default)]
pub(crate) struct Search {
    leaks: Vec<String>,
}

impl Search {
    /// Looks through one output.
    pub(crate) fn output(&mut self, name: &str, bytes: &[u8]) {
        count(name);
        if let Some(form) = found(bytes) {
            self.leaks.push(format!("a secret ({form}) in {name}"));
        }
    }
}

impl Drop for Search {
    /// Tells what was found, here and elsewhere.
    fn drop(&mut self) {
        let mut elsewhere = ELSEWHERE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.leaks.append(&mut elsewhere);
        drop(elsewhere);
        if !self.leaks.is_empty() && !std::thread::panicking() {
            panic!("{}", self.leaks.join("; "));
        }
    }
}

/// Looks through what came to a collector; whoever searches next tells of it.
pub(crate) fn search_elsewhere(name: &str, bytes: &[u8]) {
    count(name);
    if let Some(form) = found(bytes) {
        let mut elsewhere = ELSEWHERE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        elsewhere.push(format!("a secret ({form}) in {name}"));
    }
}

/// The form in which a secret stands here, if one does.
pub(crate) fn found(bytes: &[u8]) -> Option<&'static str> {
    let is_in = |(_, form): &(&str, String)| memmem::find(bytes, form.as_bytes()).is_some();
    forms().into_iter().find(is_in).map(|(name, _)| name)
}

/// The mark as it stands, with every byte encoded, and in base64 wherever it begins. Base64 has it
/// the same in both its alphabets.
fn forms() -> Vec<(&'static str, String)> {
    let hex = |start: &str| MARK.bytes().map(|byte| format!("{start}{byte:02x}")).collect();
    let base64 = (0..3).map(|shift| {
        let text = STANDARD_NO_PAD.encode([&b"xxx"[..shift], MARK.as_bytes()].concat());
        // The first characters tell of what stands before, the last of what follows.
        ("in base64", text[[0, 2, 3][shift]..text.len() - 1].to_owned())
    });
    let plain = [
        ("plain", MARK.to_owned()),
        ("percent-encoded", hex("%")),
        ("percent-encoded", hex("%").to_uppercase()),
        ("in hexadecimal", hex("")),
    ];
    plain.into_iter().chain(base64).collect()
}

/// Adds an output to the list of all that were searched, where one is kept:
/// `TIDEGATE_CANARY_COUNT=file cargo nextest run`, then `sort file | uniq -c`.
fn count(name: &str) {
    let Some(path) = std::env::var_os("TIDEGATE_CANARY_COUNT") else { return };
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(format!("{name}\n").as_bytes()))
        .expect("the list of outputs is written");
}

mod tests {
    use std::panic::catch_unwind;

    use super::*;

    /// All forms in which a secret could come out.
    fn leaks(secret: &str) -> Vec<Vec<u8>> {
        let percent = |byte: u8| match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        };
        let every = |byte: u8| format!("%{byte:02x}");
        let mut leaks = vec![
            secret.as_bytes().to_vec(),
            secret.bytes().map(percent).collect::<String>().into_bytes(),
            secret.bytes().map(every).collect::<String>().into_bytes(),
            secret.as_bytes()[..secret.len() / 2].to_vec(),
            secret.as_bytes()[secret.len() / 2..].to_vec(),
            format!("{:?}", serde_json::json!({ "a": [secret] }).to_string()).into_bytes(),
        ];
        for before in ["", "x", "xy", "user:"] {
            let text = format!("{before}{secret}:after");
            leaks.push(STANDARD_NO_PAD.encode(&text).into_bytes());
            let url_safe = base64::engine::general_purpose::URL_SAFE.encode(&text);
            leaks.push(url_safe.into_bytes());
        }
        leaks
    }

    #[test]
    fn a_planted_secret_is_found_in_every_form() {
        let secrets = [SECRET_ACCESS_KEY, SESSION_TOKEN, API_KEY, IN_FILE, OF_COLLECTOR, OF_CALLER];
        for leak in secrets.into_iter().flat_map(leaks) {
            let shown = String::from_utf8_lossy(&leak).into_owned();
            assert!(found(&leak).is_some(), "{shown}");
            // However many pieces it came in, it is looked for in what they make together.
            for cut in 0..leak.len() {
                let pieces = [b"before ", &leak[..cut], &leak[cut..], b" after"];
                assert!(found(&pieces.concat()).is_some(), "{shown}");
            }
            let told = catch_unwind(|| Search::default().output("an output", &leak));
            let told = told.expect_err("it is told").downcast::<String>().expect("a text");
            assert!(told.contains("in an output"), "{told}");
        }
        assert_eq!(found(b"tide canary: Authorization: Bearer [secret]"), None);
    }

    #[test]
    fn what_a_collector_was_sent_is_told_by_the_next_search() {
        search_elsewhere("a test's own collector", OF_CALLER.as_bytes());
        let told = catch_unwind(|| drop(Search::default())).expect_err("it is told");
        assert!(told.downcast::<String>().expect("a text").contains("a test's own collector"));
    }
}
