//! Records as lines of JSON, in a file or on standard output.
//!
//! A file is rotated before it outgrows its limit. What could not be written is lost and counted,
//! exactly; a line is there whole or not at all.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use tidegate_wire::Record;
use tracing::{info, warn};

use super::Exporter;
use super::rotating::{Rotating, Torn, count_lines, whole_lines, write};

/// A file is rotated before it holds more bytes.
const FILE_BYTES: u64 = 64 << 20;
/// How many rotated files are kept.
const KEPT: u32 = 2;
/// Whoever may read the folder may read the records.
const FILE_MODE: u32 = 0o644;
/// Lines are written when so many bytes are together, and at the end of each batch.
const BUFFER_BYTES: usize = 64 << 10;

/// Writes each record as one line.
#[derive(Debug)]
pub struct JsonLines {
    target: Target,
    /// Whole lines that are not written yet.
    buffer: Vec<u8>,
    /// Whether the last write failed: said once, not for every batch.
    failing: bool,
}

#[derive(Debug)]
enum Target {
    Stdout(File),
    File(Rotating),
}

// === impl JsonLines ===

impl JsonLines {
    /// Writes to this file, after what it holds already; `-` is standard output.
    pub fn open(path: &Path) -> io::Result<Self> {
        let target = if path == Path::new("-") {
            // A descriptor of our own: nothing else must hold back or split a line.
            Target::Stdout(File::from(io::stdout().as_fd().try_clone_to_owned()?))
        } else {
            Target::File(Rotating::open(path, FILE_BYTES, KEPT, FILE_MODE)?)
        };
        Ok(Self { target, buffer: Vec::new(), failing: false })
    }

    /// Writes what the buffer holds. Says how many lines were lost.
    fn flush(&mut self) -> u64 {
        let result = self.target.write(&self.buffer);
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
        if let Target::File(file) = &mut self.target {
            file.reopen();
        }
    }
}

// === impl Target ===

impl Target {
    fn write(&mut self, lines: &[u8]) -> Result<(), Torn> {
        match self {
            Self::Stdout(file) => write(file, lines),
            Self::File(file) => file.write(lines),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout(_) => f.write_str("standard output"),
            Self::File(file) => file.path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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
        if let Target::File(file) = &mut lines.target {
            file.limit_bytes = 300;
        }
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
}
