//! Captured calls as lines of a file, which the load generator replays.
//!
//! What was synced is there after any crash. The line that a crash tore is cut off when the file is
//! opened again; the ones before it stay.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_wire::Record;
use tidegate_wire::capture::{Entry, LineError, Mode, Writer};
use tracing::{info, warn};

use super::Exporter;
use super::metrics::lock;
use super::rotating::{Rotating, Torn, count_lines, whole_lines};
use crate::config::{Ratio, Size, Span};

/// Lines are written when so many bytes are together, and at the end of each batch.
const BUFFER_BYTES: usize = 64 << 10;
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
    /// How often what was written is synced to the disk.
    pub sync: Span,
}

/// Writes each captured call as one line.
#[derive(Debug)]
pub struct Capture {
    file: Rotating,
    writer: Writer,
    /// Whole lines that are not written yet.
    buffer: Vec<u8>,
    /// Whether the last write failed: said once, not for every batch.
    failing: bool,
    syncer: Syncer,
}

/// Syncs files on a thread of its own: a slow disk holds up nobody.
#[derive(Debug)]
struct Syncer {
    shared: Arc<(Mutex<Dirty>, Condvar)>,
    /// Taken when it ends.
    thread: Option<JoinHandle<()>>,
}

/// What was written and not synced.
#[derive(Debug, Default)]
struct Dirty {
    /// Each once, by how often the file had been opened.
    files: Vec<(u64, File)>,
    is_over: bool,
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
        }
    }
}

// === impl CaptureConfig ===

impl CaptureConfig {
    /// Refuses to keep a credential.
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_credential = |name: &&String| tidegate_credential::is_credential(name.as_bytes());
        match self.headers.iter().find(is_credential) {
            None => Ok(()),
            Some(name) => Err(format!("`{name}` carries a credential, which is never captured")),
        }
    }
}

// === impl Capture ===

impl Capture {
    /// Captures to this file, after what it holds already; a torn end of it is cut off.
    pub fn open(path: &Path, config: &CaptureConfig) -> io::Result<Self> {
        let cut = mend(path)?;
        if cut > 0 {
            warn!(file = %path.display(), bytes = cut, "the capture ended in a torn line, which was cut off");
        }
        let file = Rotating::open(path, config.max_file.as_u64(), config.files.get(), FILE_MODE)?;
        // Only this run knows it: nobody can try what a text may have been.
        let writer = Writer::new(config.mode, &rand::random()).sampling(config.sample.share());
        let syncer = Syncer::start(config.sync.0)?;
        Ok(Self { file, writer, buffer: Vec::new(), failing: false, syncer })
    }

    /// Writes what the buffer holds. Says how many lines were lost.
    fn flush(&mut self) -> u64 {
        let result = self.file.write(&self.buffer);
        let lost = match &result {
            Ok(()) => 0,
            Err(torn) => count_lines(&self.buffer[whole_lines(&self.buffer[..torn.written])..]),
        };
        self.buffer.clear();
        self.tell(result);
        self.syncer.soon(&self.file);
        lost
    }

    fn tell(&mut self, result: Result<(), Torn>) {
        let file = self.file.path.display();
        match result {
            Err(Torn { error, .. }) if !self.failing => {
                warn!(%error, %file, "calls cannot be captured and are dropped");
                self.failing = true;
            }
            Ok(()) if self.failing => {
                info!(%file, "calls are captured again");
                self.failing = false;
            }
            _ => {}
        }
    }
}

impl Exporter for Capture {
    fn name(&self) -> &'static str {
        "capture"
    }

    fn export(&mut self, records: &[Record]) -> u64 {
        let mut lost = 0;
        for record in records {
            let Some(captured) = &record.captured else { continue };
            self.writer.write(record, captured, &mut self.buffer);
            if self.buffer.len() >= BUFFER_BYTES {
                lost += self.flush();
            }
        }
        if !self.buffer.is_empty() {
            lost += self.flush();
        }
        lost
    }

    fn takes(&self) -> fn(&Record) -> bool {
        |record| record.captured.is_some()
    }

    fn reopen(&mut self) {
        self.file.reopen();
    }
}

// === impl Syncer ===

impl Syncer {
    fn start(interval: Duration) -> io::Result<Self> {
        let shared: Arc<(Mutex<Dirty>, Condvar)> = Arc::default();
        let theirs = shared.clone();
        let sync = move || {
            while let Some(files) = wait(&theirs, interval) {
                for error in files.iter().filter_map(|(_, file)| file.sync_data().err()) {
                    warn!(%error, "the capture cannot be synced");
                }
            }
        };
        let thread = std::thread::Builder::new().name("capture".to_owned()).spawn(sync)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Has this file synced with the next round.
    fn soon(&self, file: &Rotating) {
        let (dirty, woken) = &*self.shared;
        let mut dirty = lock(dirty);
        let is_there = dirty.files.last().is_some_and(|(opened, _)| *opened == file.opened());
        if let Some(handle) = file.handle().filter(|_| !is_there) {
            dirty.files.push((file.opened(), handle));
            woken.notify_one();
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        let (dirty, woken) = &*self.shared;
        lock(dirty).is_over = true;
        woken.notify_one();
        _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Waits until something was written, and for so long after it, for more to come. Nothing where all
/// is synced and no more will come.
fn wait((dirty, woken): &(Mutex<Dirty>, Condvar), interval: Duration) -> Option<Vec<(u64, File)>> {
    let is_idle = |dirty: &mut Dirty| dirty.files.is_empty() && !dirty.is_over;
    let dirty = woken.wait_while(lock(dirty), is_idle).unwrap_or_else(PoisonError::into_inner);
    let goes_on = |dirty: &mut Dirty| !dirty.is_over;
    let waited = woken.wait_timeout_while(dirty, interval, goes_on);
    let (mut dirty, _) = waited.unwrap_or_else(PoisonError::into_inner);
    let files = std::mem::take(&mut dirty.files);
    (!files.is_empty() || !dirty.is_over).then_some(files)
}

/// Cuts off what a crash left of the last lines. Says how many bytes that were.
fn mend(path: &Path) -> io::Result<u64> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        file => file?,
    };
    let length = file.metadata()?.len();
    if !file.metadata()?.is_file() {
        return Ok(0);
    }
    let mut end = length;
    while let Some(line) = last_line(&mut file, end)? {
        let is_whole = line.last() == Some(&b'\n')
            && !matches!(Entry::read(&line), Err(LineError::Damaged | LineError::Foreign));
        if is_whole {
            break;
        }
        end -= line.len() as u64;
    }
    if end < length {
        file.set_len(end)?;
    }
    Ok(length - end)
}

/// The last line before this place, with its end where it has one.
fn last_line(file: &mut File, end: u64) -> io::Result<Option<Vec<u8>>> {
    const PIECE: u64 = 64 << 10;
    let mut line = Vec::new();
    let mut start = end;
    while start > 0 {
        let piece = PIECE.min(start);
        start -= piece;
        file.seek(SeekFrom::Start(start))?;
        let mut read = vec![0; piece as usize];
        file.read_exact(&mut read)?;
        read.append(&mut line);
        line = read;
        // The end of the line itself is not the one before it.
        let inner = &line[..line.len() - 1];
        if let Some(at) = memchr::memrchr(b'\n', inner) {
            return Ok(Some(line.split_off(at + 1)));
        }
    }
    Ok((!line.is_empty()).then_some(line))
}

#[cfg(test)]
mod tests {
    use tidegate_wire::capture::Captured;
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
