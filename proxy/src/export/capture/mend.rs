//! What a crash left of the last lines of a file is cut off before it is gone on with.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use tidegate_wire::capture::{Entry, LineError};

/// Cuts off what a crash left of the last lines. Says how many bytes that were.
pub(super) fn mend(path: &Path) -> io::Result<u64> {
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
