//! A file of lines that is rotated before it outgrows its limit. A line is there whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file, and its older ones: `FILE.1` is the youngest of them.
#[derive(Debug)]
pub(super) struct Rotating {
    pub(super) path: PathBuf,
    /// It is rotated before it holds more bytes.
    pub(super) limit_bytes: u64,
    /// How many rotated files are kept.
    kept: u32,
    /// Who may read it, as Unix writes it.
    mode: u32,
    /// Absent while it cannot be opened.
    open: Option<Open>,
    /// How often a file was opened.
    opened: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    /// Pipes and devices have no size, and are not rotated.
    regular: bool,
}

/// How much of a buffer was written, and why not all.
pub(super) struct Torn {
    pub(super) written: usize,
    pub(super) error: io::Error,
}

// === impl Rotating ===

impl Rotating {
    /// Writes to this file, after what it holds already.
    pub(super) fn open(path: &Path, limit_bytes: u64, kept: u32, mode: u32) -> io::Result<Self> {
        let open = Some(Open::append(path, mode)?);
        Ok(Self { path: path.into(), limit_bytes, kept, mode, open, opened: 1 })
    }

    /// Writes these lines, all of them into one file.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Torn> {
        let nothing_written = |error| Torn { written: 0, error };
        let is_full = |open: &Open| open.is_full(lines.len(), self.limit_bytes);
        if self.open.as_ref().is_some_and(is_full) {
            rotate(&self.path, self.kept).map_err(nothing_written)?;
            // The old file is closed even where the new one cannot be opened: it has its new name.
            self.open = None;
        }
        if self.open.is_none() {
            self.open = Some(Open::append(&self.path, self.mode).map_err(nothing_written)?);
            self.opened += 1;
        }
        self.open.as_mut().expect("it has just been opened").write(lines)
    }

    /// Opens the file anew with the next write: it may have been moved away.
    pub(super) fn reopen(&mut self) {
        self.open = None;
    }

    /// How often a file was opened: another number is another file.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// Another handle of the file, to have it synced.
    pub(super) fn handle(&self) -> Option<File> {
        self.open.as_ref().and_then(|open| open.file.try_clone().ok())
    }
}

// === impl Open ===

impl Open {
    fn append(path: &Path, mode: u32) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(mode).open(path)?;
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
fn rotate(path: &Path, kept: u32) -> io::Result<()> {
    for age in (1..kept).rev() {
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
pub(super) fn write(to: &mut impl Write, lines: &[u8]) -> Result<(), Torn> {
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

pub(super) fn whole_lines(bytes: &[u8]) -> usize {
    memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1)
}

pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

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
