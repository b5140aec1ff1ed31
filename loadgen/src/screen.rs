//! Standard error, at whose end a block of lines may stand that changes: what is said meanwhile scrolls
//! above it.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rustix::termios::tcgetwinsize;

/// What stands there now.
static BLOCK: Mutex<Block> = Mutex::new(Block { lines: Vec::new() });

/// Columns and rows, where a terminal does not say how many it has.
const USUAL: (usize, usize) = (80, 24);

/// Lines below all others.
#[derive(Default)]
struct Block {
    lines: Vec<Drawn>,
}

/// A line, and how many columns it takes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Drawn {
    pub(crate) text: String,
    pub(crate) columns: usize,
}

/// Something that is being said. It comes out as a whole, once it is dropped.
#[derive(Debug, Default)]
pub struct Saying(Vec<u8>);

/// Standard error, for whole lines: they come above the view of a run, where there is one.
pub fn stderr() -> Saying {
    Saying::default()
}

/// Draws these lines in place of those that stand there.
pub(crate) fn draw(lines: Vec<Drawn>) {
    // A panic of some thread tells its story on standard error too.
    static ONCE: Once = Once::new();
    ONCE.call_once(clear_before_panics);
    let mut block = block();
    let text = block.replaced_by(lines, size().0);
    put(text.as_bytes());
}

/// Takes the lines away.
pub(crate) fn clear() {
    take_away(&mut block());
}

/// Columns and rows of the terminal.
pub(crate) fn size() -> (usize, usize) {
    let size = tcgetwinsize(io::stderr()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or(USUAL, |size| (size.ws_col.into(), size.ws_row.into()))
}

/// Whether a block can be drawn: on a terminal that moves its cursor, and is looked at by somebody.
pub(crate) fn is_live() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var("TERM").map_or(true, |term| term.is_empty() || term == "dumb");
    io::stderr().is_terminal() && !is_dumb && !is_set("CI")
}

/// Whether it may have colours: <https://no-color.org>.
pub(crate) fn has_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn block() -> MutexGuard<'static, Block> {
    BLOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_away(block: &mut Block) {
    let text = block.replaced_by(Vec::new(), size().0);
    put(text.as_bytes());
}

fn clear_before_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |story| {
        // Whoever panics may be drawing; then there is nothing to take away.
        if let Ok(mut block) = BLOCK.try_lock() {
            take_away(&mut block);
        }
        tell(story);
    }));
}

/// A closed standard error is no reason to end a run.
fn put(text: &[u8]) {
    if !text.is_empty() {
        let _ = io::stderr().write_all(text);
    }
}

// === impl Block ===

impl Block {
    /// What draws other lines in its place, each over that which stood there: so nothing flickers.
    fn replaced_by(&mut self, lines: Vec<Drawn>, columns: usize) -> String {
        if self.lines.is_empty() && lines.is_empty() {
            return String::new();
        }
        let mut text = self.up(columns);
        for Drawn { text: line, .. } in &lines {
            text += line;
            text += "\x1b[K\n";
        }
        self.lines = lines;
        text + "\x1b[J"
    }

    /// What says something above it.
    fn pushed_down_by(&mut self, said: &[u8], columns: usize) -> Vec<u8> {
        if self.lines.is_empty() {
            return said.to_vec();
        }
        let mut text = (self.up(columns) + "\x1b[J").into_bytes();
        text.extend_from_slice(said);
        if !said.ends_with(b"\n") {
            text.push(b'\n');
        }
        let lines = std::mem::take(&mut self.lines);
        text.extend_from_slice(self.replaced_by(lines, columns).as_bytes());
        text
    }

    /// What moves the cursor to its first line, from below its last one. In a terminal that has become
    /// narrower, lines take more rows than they did.
    fn up(&self, columns: usize) -> String {
        let rows = self.lines.iter().map(|line| line.columns.div_ceil(columns.max(1)).max(1));
        match rows.sum::<usize>() {
            0 => "\r".to_owned(),
            rows => format!("\r\x1b[{rows}A"),
        }
    }
}

// === impl Saying ===

impl Write for Saying {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Saying {
    fn drop(&mut self) {
        let mut block = block();
        let text = block.pushed_down_by(&self.0, size().0);
        put(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<Drawn> {
        let drawn = |line: &&str| Drawn { text: (*line).to_owned(), columns: line.len() };
        lines.iter().map(drawn).collect()
    }

    #[test]
    fn a_block_is_drawn_over_the_last_one_and_what_is_said_stands_above_it() {
        let mut block = Block::default();
        assert_eq!(block.replaced_by(lines(&["a", "b"]), 80), "\ra\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(block.replaced_by(lines(&["c"]), 80), "\r\x1b[2Ac\x1b[K\n\x1b[J");
        let said = block.pushed_down_by(b"warning", 80);
        let expected = "\r\x1b[1A\x1b[Jwarning\n\rc\x1b[K\n\x1b[J";
        assert_eq!(String::from_utf8_lossy(&said), expected);
        assert_eq!(block.replaced_by(Vec::new(), 80), "\r\x1b[1A\x1b[J");
        assert_eq!(block.pushed_down_by(b"bare", 80), b"bare");
        assert_eq!(block.replaced_by(Vec::new(), 80), "");
    }

    #[test]
    fn lines_of_a_terminal_that_became_narrower_take_more_rows() {
        let mut block = Block::default();
        block.replaced_by(lines(&["twelve chars", ""]), 80);
        assert!(block.replaced_by(Vec::new(), 5).starts_with("\r\x1b[4A"));
    }
}
