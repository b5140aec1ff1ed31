//! Captured calls as lines of a file, which the load generator replays.
//!
//! What was synced is there after any crash. The line that a crash tore is cut off when the file is
//! opened again; the ones before it stay.

mod lines;
mod mend;

use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use tidegate_seal::{Recipient, Recipients, RecipientsError};
use tidegate_wire::Record;
use tidegate_wire::capture::{Mode, Writer};
use tracing::warn;

use self::lines::Lines;
use self::mend::mend;
use super::Exporter;
use super::rotating::Rotating;
use crate::config::{Ratio, Size, Span};

/// What was asked is its owner's to read.
const FILE_MODE: u32 = 0o600;

/// Where calls are captured, and how much of them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureConfig {
    /// The file. Nothing is captured where this is absent.
    pub file: Option<PathBuf>,
    /// How much of a request is kept: `full`, `redacted` (filler in place of every text, as long as
    /// it was) or `shape` (how long texts are, and which beginnings they share).
    pub mode: Mode,
    /// Of how many calls: the same ones in every sidecar, for it goes by the trace id.
    pub sample: Ratio,
    /// Fields of the request's head to keep beside those that say how its body reads.
    pub headers: Vec<String>,
    /// A body that is larger is left out.
    pub max_body: Size,
    /// The file is rotated before it holds more.
    pub max_file: Size,
    /// How many rotated files are kept: `FILE.1` is the youngest.
    pub files: NonZeroU32,
    /// How often what was written is synced to the disk; what is encrypted is written then.
    pub sync: Span,
    /// Who can read it: nobody else can, this sidecar neither. It is not encrypted where absent.
    #[serde(deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "EncryptConfig")]
    pub encrypt: Option<EncryptConfig>,
}

/// Whose identities open what is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EncryptConfig {
    /// Public keys of age (`age1...`): the identity of any one of them opens it.
    pub recipients: Vec<Recipient>,
    /// A file with more of them, one on each line, as `age -R` takes it; beside this file, unless it
    /// says where.
    pub recipients_file: Option<PathBuf>,
    /// What stood in it when it was read: where that has changed, so has the configuration.
    #[serde(skip)]
    of_file: Vec<Recipient>,
}

/// Writes each captured call as one line.
#[derive(Debug)]
pub struct Capture {
    writer: Writer,
    lines: Lines,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            file: None,
            mode: Mode::default(),
            sample: Ratio::percent(100),
            headers: Vec::new(),
            max_body: Size::mib(1),
            max_file: Size::mib(64),
            files: NonZeroU32::new(15).expect("it is not zero"),
            sync: Span(Duration::from_secs(1)),
            encrypt: None,
        }
    }
}

/// Who is asked to encrypt and names nobody must not be taken for who does not ask: null is as `{}`.
fn named<'de, D: Deserializer<'de>>(value: D) -> Result<Option<EncryptConfig>, D::Error> {
    Option::deserialize(value).map(|encrypt| Some(encrypt.unwrap_or_default()))
}

// === impl CaptureConfig ===

impl CaptureConfig {
    /// Refuses to keep a credential, and to encrypt for nobody: else the key that says so, and what is
    /// wrong with it.
    pub(crate) fn check(&self) -> Result<(), (&'static [&'static str], String)> {
        let is_credential = |name: &&String| tidegate_credential::is_credential(name.as_bytes());
        if let Some(name) = self.headers.iter().find(is_credential) {
            let message = format!("`{name}` carries a credential, which is never captured");
            return Err((&["headers"], message));
        }
        let names_nobody = |encrypt: &EncryptConfig| *encrypt == EncryptConfig::default();
        match self.encrypt.as_ref().is_some_and(names_nobody) {
            true => Err((&["encrypt"], "names nobody who could read it".to_owned())),
            false => Ok(()),
        }
    }
}

// === impl EncryptConfig ===

impl EncryptConfig {
    /// Reads its file, which lies in this folder unless it says where: else the key that is wrong, and
    /// what is wrong with it.
    pub(crate) fn read_file(&mut self, folder: &Path) -> Result<(), (&'static str, String)> {
        if let Some(file) = &mut self.recipients_file {
            *file = folder.join(&*file);
            let read = Recipients::read(file);
            self.of_file = read.map_err(|error| ("recipients_file", error.to_string()))?;
        }
        self.all().map(drop).map_err(|error| ("recipients", error.to_string()))
    }

    /// All who can read it.
    fn all(&self) -> Result<Recipients, RecipientsError> {
        Recipients::of(self.recipients.iter().chain(&self.of_file).cloned().collect())
    }
}

// === impl Capture ===

impl Capture {
    /// Captures to this file, after what it holds already; a torn end of it is cut off.
    pub fn open(path: &Path, config: &CaptureConfig) -> io::Result<Self> {
        let recipients = config.encrypt.as_ref().map(EncryptConfig::all).transpose();
        let recipients = recipients.map_err(io::Error::other)?;
        let cut = mend(path)?;
        if cut > 0 {
            warn!(file = %path.display(), bytes = cut, "the capture ended in a torn line, which was cut off");
        }
        let file = Rotating::open(path, config.max_file.as_u64(), config.files.get(), FILE_MODE)?;
        // Only this run knows it: nobody can try what a text may have been.
        let writer = Writer::new(config.mode, &rand::random()).sampling(config.sample.share());
        Ok(Self { writer, lines: Lines::start(file, recipients, config.sync.0)? })
    }
}

impl Exporter for Capture {
    fn name(&self) -> &'static str {
        "capture"
    }

    /// What is lost is counted where it is, for lines may be held: here it is none yet.
    fn export(&mut self, records: &[Record]) -> u64 {
        self.lines.add_to(|lines| {
            for record in records {
                let Some(captured) = &record.captured else { continue };
                lines.add(|line| self.writer.write(record, captured, line));
            }
        });
        0
    }

    fn count_in(&mut self, lost: Arc<AtomicU64>) {
        self.lines.state().count_in(lost);
    }

    fn takes(&self) -> fn(&Record) -> bool {
        |record| record.captured.is_some()
    }

    fn reopen(&mut self) {
        self.lines.state().reopen();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tidegate_wire::capture::{Captured, Entry};
    use tidegate_wire::content::Budget;

    use super::*;

    fn record(number: u64) -> Record {
        let (target, budget) = (format!("/{number}"), Budget::new(1 << 20));
        let captured = Captured::new(target, &http::HeaderMap::new(), &[], 100, &budget);
        Record { captured: Some(Arc::new(captured)), ..Record::default() }
    }

    /// A folder that goes with its test, and the file in it.
    fn file(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        folder.join("capture.jsonl")
    }

    fn targets(path: &Path) -> Vec<String> {
        let text = std::fs::read(path).expect("the file is there");
        let target = |line: &[u8]| Entry::read(line).expect("a whole line").request.target;
        text.split_inclusive(|byte| *byte == b'\n').map(target).collect()
    }

    #[test]
    fn what_a_crash_tore_is_cut_off_and_nothing_else() {
        let path = file("torn");
        let capture = || Capture::open(&path, &CaptureConfig::default()).expect("it opens");
        assert_eq!(capture().export(&[record(1), record(2), Record::default()]), 0);
        let whole = std::fs::read(&path).expect("the file is there");
        let second = memchr::memchr(b'\n', &whole).expect("two lines") + 1;
        for end in second..whole.len() {
            std::fs::write(&path, &whole[..end]).expect("it writes");
            assert_eq!(capture().export(&[record(3)]), 0);
            assert_eq!(targets(&path), ["/1", "/3"], "cut at {end}");
        }
        // After a power cut a file may end in zeros.
        std::fs::write(&path, [&whole[..], &[0; 5000]].concat()).expect("it writes");
        drop(capture());
        assert_eq!(targets(&path), ["/1", "/2"]);
        std::fs::remove_dir_all(path.parent().expect("a folder")).expect("it goes");
    }

    #[test]
    fn sealed_lines_are_lines_as_any_to_a_crash_and_to_a_disk_that_is_full() {
        const ANYBODYS: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
        let recipient = Recipient::try_from(ANYBODYS.to_owned()).expect("a public key");
        let encrypt = EncryptConfig { recipients: vec![recipient], ..EncryptConfig::default() };
        let config = CaptureConfig { encrypt: Some(encrypt), ..CaptureConfig::default() };
        let path = file("sealed");
        let capture = || Capture::open(&path, &config).expect("it opens");
        let lines = || {
            let text = std::fs::read(&path).expect("the file is there");
            memchr::memchr_iter(b'\n', &text).count()
        };
        for _ in 0..2 {
            assert_eq!(capture().export(&[record(1), record(2)]), 0);
        }
        let whole = std::fs::read(&path).expect("the file is there");
        let second = memchr::memchr(b'\n', &whole).expect("two lines") + 1;
        for end in (second..whole.len()).step_by(50).chain([whole.len() - 1]) {
            std::fs::write(&path, &whole[..end]).expect("it writes");
            drop(capture());
            assert_eq!(lines(), 1, "cut at {end}");
        }
        std::fs::remove_dir_all(path.parent().expect("a folder")).expect("it goes");

        let full = |sync| {
            let config = CaptureConfig { sync: Span(sync), ..config.clone() };
            let mut full = Capture::open(Path::new("/dev/full"), &config).expect("it opens");
            let lost = Arc::new(AtomicU64::new(0));
            full.count_in(lost.clone());
            assert_eq!(full.export(&[record(1), record(2)]), 0, "nobody knows yet");
            (full, lost)
        };
        let (held, lost) = full(Duration::from_millis(1));
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while lost.load(Ordering::Relaxed) < 2 && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(lost.load(Ordering::Relaxed), 2, "though no other call is made");
        drop(held);
        let (held, lost) = full(Duration::from_secs(3_600));
        drop(held);
        assert_eq!(lost.load(Ordering::Relaxed), 2, "the end is the last round");
    }

    #[test]
    fn a_capture_is_its_owners_alone_and_is_rotated() {
        use std::os::unix::fs::PermissionsExt;
        let path = file("rotated");
        let config = CaptureConfig { max_file: Size::mib(0), ..CaptureConfig::default() };
        let mut capture = Capture::open(&path, &config).expect("it opens");
        for number in 0..20 {
            assert_eq!(capture.export(&[record(number)]), 0);
        }
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(targets(&path), ["/19"]);
        assert_eq!(targets(&path.with_extension("jsonl.15")), ["/4"]);
        let folder = path.parent().expect("a folder");
        assert_eq!(std::fs::read_dir(folder).expect("it lists").count(), 16);
        std::fs::remove_dir_all(folder).expect("it goes");
    }
}
