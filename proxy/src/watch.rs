//! Tells when files have changed: when they read otherwise, wherever their names lead by now.
//!
//! The text is compared, for time and size may stay the same, and a ConfigMap changes by a link
//! that then leads elsewhere. What reads otherwise must do so twice in a row: whoever writes in
//! place may not be done yet.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Files that are looked at, as long as [`FileWatch::changed`] is waited for.
#[derive(Debug)]
pub struct FileWatch {
    files: Vec<PathBuf>,
    seen: Vec<Content>,
    /// What was seen once and is not the same.
    other: Option<Vec<Content>>,
}

/// What a file held: length and digest; absent where it cannot be read.
type Content = Option<(usize, u64)>;

impl FileWatch {
    /// Looks at this file; absent where it is one that can be read but once, such as a pipe.
    pub fn new(file: &Path) -> Option<Self> {
        let files = vec![file.to_owned()];
        is_file(file).then(|| Self { seen: read(&files), files, other: None })
    }

    /// Looks at this file and, from now on, at these beside it and no others.
    pub fn beside(&mut self, others: impl IntoIterator<Item = PathBuf>) {
        let others: Vec<_> = others.into_iter().collect();
        if self.files[1..] != others {
            self.files.truncate(1);
            self.files.extend(others);
            // What the first one held when it was read stays what it is compared with.
            self.seen.truncate(1);
            self.seen.extend(read(&self.files[1..]));
            self.other = None;
        }
    }

    /// What the files hold now is known.
    pub fn note(&mut self) {
        self.seen = read(&self.files);
        self.other = None;
    }

    /// Waits until they hold something else.
    pub async fn changed(&mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.look() {
                return;
            }
        }
    }

    fn look(&mut self) -> bool {
        let found = read(&self.files);
        if found == self.seen {
            self.other = None;
            return false;
        }
        let is_settled = self.other.as_ref() == Some(&found);
        if is_settled {
            self.seen = found;
            self.other = None;
        } else {
            self.other = Some(found);
        }
        is_settled
    }
}

fn read(files: &[PathBuf]) -> Vec<Content> {
    files.iter().map(|file| content(file)).collect()
}

fn content(file: &Path) -> Content {
    let text = is_file(file).then(|| std::fs::read(file).ok()).flatten()?;
    let mut digest = DefaultHasher::new();
    text.hash(&mut digest);
    Some((text.len(), digest.finish()))
}

/// Reading anything else might wait for ever.
fn is_file(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|found| found.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_otherwise_counts_once_it_has_settled() {
        let file = std::env::temp_dir().join(format!("tidegate-watch-{}", std::process::id()));
        let write = |text: &str| std::fs::write(&file, text).expect("a folder to write to");
        write("one");
        let mut watch = FileWatch::new(&file).expect("it is a file");
        assert!(!watch.look(), "nothing has changed");
        write("");
        assert!(!watch.look(), "it may not be whole yet");
        write("two");
        assert!(!watch.look(), "nor now");
        assert!(watch.look(), "now it is");
        assert!(!watch.look(), "it is told once");
        write("six");
        watch.note();
        assert!(!watch.look() && !watch.look(), "it is known");
        std::fs::remove_file(&file).expect("it is there");
        assert!(!watch.look() && watch.look(), "that it is gone is a change");
    }

    #[test]
    fn what_can_be_read_but_once_is_not_watched() {
        assert!(FileWatch::new(Path::new("/dev/null")).is_none());
    }
}
