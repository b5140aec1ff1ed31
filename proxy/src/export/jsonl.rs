//! Records as lines of JSON, in a file or on standard output.
//!
//! A file is rotated before it outgrows its limit. What could not be written is lost and counted,
//! exactly; a line is there whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use tidegate_wire::Record;
use tracing::{info, warn};

use super::Exporter;

/// A file is rotated before it holds more bytes.
const FILE_BYTES: u64 = 64 << 20;
/// How many rotated files are kept: `FILE.1` is the younger one.
const KEPT: u32 = 2;
/// Lines are written when so many bytes are together, and at the end of each batch.
const BUFFER_BYTES: usize = 64 << 10;

/// Writes each record as one line.
#[derive(Debug)]
pub struct JsonLines {
    target: Target,
    limit_bytes: u64,
    /// Whole lines that are not written yet.
    buffer: Vec<u8>,
    /// Whether the last write failed: said once, not for every batch.
    failing: bool,
}

#[derive(Debug)]
enum Target {
    Stdout(File),
    /// `open` is absent while the file cannot be opened.
    File {
        path: PathBuf,
        open: Option<Open>,
    },
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    /// Pipes and devices have no size, and are not rotated.
    regular: bool,
}

/// How much of a buffer was written, and why not all.
struct Torn {
    written: usize,
    error: io::Error,
}

// === impl JsonLines ===

impl JsonLines {
    /// Writes to this file, after what it holds already; `-` is standard output.
    pub fn open(path: &Path) -> io::Result<Self> {
        let target = if path == Path::new("-") {
            // A descriptor of our own: nothing else must hold back or split a line.
            Target::Stdout(File::from(io::stdout().as_fd().try_clone_to_owned()?))
        } else {
            Target::File { path: path.into(), open: Some(Open::append(path)?) }
        };
        Ok(Self { target, limit_bytes: FILE_BYTES, buffer: Vec::new(), failing: false })
    }

    /// Writes what the buffer holds. Says how many lines were lost.
    fn flush(&mut self) -> u64 {
        let result = self.target.write(&self.buffer, self.limit_bytes);
        let lost = match &result {
            Ok(()) => 0,
            Err(torn) => count_lines(&self.buffer[whole_lines(&self.buffer[..torn.written])..]),
        };
        self.buffer.clear();
        match result {
            Err(Torn { error, .. }) if !self.failing => {
                warn!(%error, target = %self.target, "records cannot be written and are dropped");
                self.failing = true;
            }
            Ok(()) if self.failing => {
                info!(target = %self.target, "records are written again");
                self.failing = false;
            }
            _ => {}
        }
        lost
    }
}

impl Exporter for JsonLines {
    fn name(&self) -> &'static str {
        "jsonl"
    }

    fn export(&mut self, records: &[Record]) -> u64 {
        let mut lost = 0;
        for record in records {
            record.write_json(&mut self.buffer);
            self.buffer.push(b'\n');
            if self.buffer.len() >= BUFFER_BYTES {
                lost += self.flush();
            }
        }
        if !self.buffer.is_empty() {
            lost += self.flush();
        }
        lost
    }

    fn reopen(&mut self) {
        if let Target::File { open, .. } = &mut self.target {
            *open = None;
        }
    }
}

// === impl Target ===

impl Target {
    fn write(&mut self, lines: &[u8], limit_bytes: u64) -> Result<(), Torn> {
        let (path, open) = match self {
            Self::Stdout(file) => return write(file, lines),
            Self::File { path, open } => (path, open),
        };
        let nothing_written = |error| Torn { written: 0, error };
        if open.is_none() {
            *open = Some(Open::append(path).map_err(nothing_written)?);
        }
        if open.as_ref().is_some_and(|open| open.is_full(lines.len(), limit_bytes)) {
            rotate(path).map_err(nothing_written)?;
            // The old file is closed even where the new one cannot be opened: it has its new name.
            *open = None;
            *open = Some(Open::append(path).map_err(nothing_written)?);
        }
        open.as_mut().expect("it has just been opened").write(lines)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout(_) => f.write_str("standard output"),
            Self::File { path, .. } => path.display().fmt(f),
        }
    }
}

// === impl Open ===

impl Open {
    fn append(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { file, bytes: metadata.len(), regular: metadata.is_file() })
    }

    fn is_full(&self, more: usize, limit_bytes: u64) -> bool {
        self.regular && self.bytes > 0 && self.bytes + more as u64 > limit_bytes
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), Torn> {
        let result = write(&mut self.file, lines);
        let written = match &result {
            Ok(()) => lines.len(),
            Err(torn) => whole_lines(&lines[..torn.written]),
        };
        self.bytes += written as u64;
        if self.regular && result.is_err() {
            // A disk that is full takes half a line: cut it off, so that the next one is readable.
            _ = self.file.set_len(self.bytes);
        }
        result
    }
}

/// Moves each file to the next older name; the oldest is overwritten.
fn rotate(path: &Path) -> io::Result<()> {
    for age in (1..KEPT).rev() {
        match std::fs::rename(aged(path, age), aged(path, age + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    std::fs::rename(path, aged(path, 1))
}

fn aged(path: &Path, age: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}

/// `write_all` that says how far it came.
fn write(to: &mut impl Write, lines: &[u8]) -> Result<(), Torn> {
    let mut written = 0;
    while written < lines.len() {
        match to.write(&lines[written..]) {
            Ok(0) => return Err(Torn { written, error: io::ErrorKind::WriteZero.into() }),
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Torn { written, error }),
        }
    }
    Ok(())
}

fn whole_lines(bytes: &[u8]) -> usize {
    memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1)
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes with its test.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a directory can be made");
            Self(path)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn records(number: u64) -> Vec<Record> {
        let record = |number| Record { input_tokens: Some(number), ..Record::default() };
        (0..number).map(record).collect()
    }

    fn tokens(path: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(path).expect("the file is there");
        let record = |line| serde_json::from_str::<Record>(line).expect("each line is a record");
        text.lines().filter_map(|line| record(line).input_tokens).collect()
    }

    #[test]
    fn each_record_is_a_line_after_those_that_were_there() {
        let directory = Directory::new("append");
        let path = directory.file("records");
        for _ in 0..2 {
            let mut lines = JsonLines::open(&path).expect("the file opens");
            assert_eq!(lines.export(&records(2)), 0);
        }
        assert_eq!(tokens(&path), [0, 1, 0, 1]);
    }

    #[test]
    fn a_full_file_is_rotated_and_two_old_ones_are_kept() {
        let directory = Directory::new("rotate");
        let path = directory.file("records");
        let mut lines = JsonLines::open(&path).expect("the file opens");
        lines.limit_bytes = 300;
        for record in records(10) {
            assert_eq!(lines.export(&[record]), 0);
        }
        let kept: Vec<_> =
            ["records.2", "records.1", "records"].map(|name| tokens(&directory.file(name))).into();
        assert_eq!(kept.concat(), [4, 5, 6, 7, 8, 9]);
        assert_eq!(std::fs::read_dir(&directory.0).expect("it lists").count(), 3);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let directory = Directory::new("reopen");
        let path = directory.file("records");
        let mut lines = JsonLines::open(&path).expect("the file opens");
        lines.export(&records(1));
        std::fs::rename(&path, directory.file("moved")).expect("it can be moved");
        lines.export(&records(2));
        lines.reopen();
        lines.export(&records(3));

        assert_eq!(tokens(&directory.file("moved")), [0, 0, 1]);
        assert_eq!(tokens(&path), [0, 1, 2]);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_writing_resumes() {
        let directory = Directory::new("lost");
        let path = directory.file("gone/records");
        std::fs::create_dir(directory.file("gone")).expect("a directory can be made");
        let mut lines = JsonLines::open(&path).expect("the file opens");
        std::fs::remove_dir_all(directory.file("gone")).expect("and be removed");
        lines.reopen();
        assert_eq!(lines.export(&records(1_000)), 1_000);

        std::fs::create_dir(directory.file("gone")).expect("and be made again");
        assert_eq!(lines.export(&records(3)), 0);
        assert_eq!(tokens(&path), [0, 1, 2]);
    }

    #[test]
    fn a_full_device_loses_all_that_it_is_given() {
        let mut lines = JsonLines::open(Path::new("/dev/full")).expect("it opens");
        assert_eq!(lines.export(&records(1_000)), 1_000);
    }

    #[test]
    fn a_torn_write_counts_the_lines_that_were_not_whole() {
        struct Narrow(usize);

        impl Write for Narrow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let taken = bytes.len().min(self.0);
                self.0 -= taken;
                Ok(taken)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let lines = b"{1}\n{2}\n{3}\n";
        let torn = write(&mut Narrow(6), lines).expect_err("there is no room");
        assert_eq!(torn.written, 6);
        assert_eq!(whole_lines(&lines[..6]), 4);
        assert_eq!(count_lines(&lines[4..]), 2);
    }
}
