//! A history file: an SQLite database that one or several sidecars add to, and others read meanwhile.
//!
//! What is there is never overwritten: a file that is not ours, or that a newer version wrote, is left
//! as it is, and so is a damaged one.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use rustc_hash::FxHashMap;

use super::super::rollup::Key;
#[cfg(test)]
use super::super::rollup::Sums;
use super::{Minutes, columns};
use crate::baseline::{Models, Past};
use crate::usage::{By, Period, groups};

/// Says in its header whose file it is: `Tdgt`.
const APPLICATION: u32 = 0x5464_6774;
/// The schema that this version reads and writes.
const SCHEMA: u32 = 1;
/// How long to wait for another process that writes.
const BUSY: Duration = Duration::from_secs(2);
/// What was written since it was last moved into the file itself.
pub(super) const LOG_BYTES: u64 = 4 << 20;
/// What of a file is thrown away at a time, so that nobody waits long for it.
const STEP_MINUTES: i64 = 240;
/// How often, each time that it is looked through.
const STEPS: usize = 200;
/// Series whose numbers are kept in mind.
const SERIES: usize = 10_000;

/// Why a history file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("history {}: {reason}", path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what can be done.
    pub reason: Reason,
}

/// What is wrong with a history file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It is no file of ours.
    #[error("it is there, and no history of Tidegate; it was left as it is: name another file")]
    Foreign,
    /// A newer version wrote it.
    #[error(
        "a newer Tidegate wrote it (schema {found}, this one knows {SCHEMA}); take that one, or name another file"
    )]
    Newer {
        /// Its schema.
        found: u32,
    },
    /// It does not hold together.
    #[error(
        "it is damaged ({0}) and was left as it is; move it away to begin anew, or have `sqlite3 FILE .recover` save what can be read"
    )]
    Damaged(String),
    /// There is none.
    #[error("there is no such file; a sidecar with `history.path` (or --history) writes one")]
    Absent,
    /// The system or another process stands in the way.
    #[error("{0}; it must be in a folder that may be written to, on a disk of this machine")]
    Io(String),
}

/// A file that is added to.
pub(super) struct File {
    connection: Connection,
    path: PathBuf,
    upsert: String,
    series: FxHashMap<Key, i64>,
}

/// How much there is of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) bytes: u64,
    /// The oldest minute in it.
    pub(super) oldest: Option<i64>,
}

/// Opens a file to be read, while others may write to it.
pub(crate) fn open_to_read(path: &Path) -> Result<Connection, Error> {
    if !is_ours(path)? {
        return Err(Error { path: path.to_owned(), reason: Reason::Absent });
    }
    let failed = failed(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(BUSY)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    });
    let connection = match opened {
        // Who may not write beside it can read it only while nobody writes.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => {
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(immutable(path), flags).map_err(&failed)?
        }
        opened => opened.map_err(&failed)?,
    };
    columns::add_functions(&connection).map_err(failed)?;
    Ok(connection)
}

fn immutable(path: &Path) -> String {
    let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f");
    format!("file:{}?immutable=1", escaped.replace('#', "%23"))
}

// === impl File ===

impl File {
    /// Opens it, or makes a new one.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let is_there = is_ours(path)?;
        let failed = failed(path);
        let connection = Self::connect(path, is_there).map_err(failed)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            upsert: columns::upsert(),
            series: FxHashMap::default(),
        })
    }

    fn connect(path: &Path, is_there: bool) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        if !is_there {
            create(&mut connection)?;
        }
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.execute_batch(&format!(
            "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 500;
             PRAGMA journal_size_limit = {LOG_BYTES};"
        ))?;
        columns::add_functions(&connection)?;
        Ok(connection)
    }

    /// Looks whether it holds together.
    pub(super) fn check(&self) -> Result<(), Error> {
        let found = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        match found.map_err(failed(&self.path))? {
            found if found == "ok" => Ok(()),
            found => Err(Error { path: self.path.clone(), reason: Reason::Damaged(found) }),
        }
    }

    /// Adds all of these minutes, or none of them.
    pub(super) fn add(&mut self, minutes: &Minutes) -> Result<(), Error> {
        if self.series.len() > SERIES {
            self.series.clear();
        }
        let added = self.try_add(minutes).map_err(failed(&self.path));
        if added.is_err() {
            // The numbers of series that were new are gone with the rest.
            self.series.clear();
        }
        added
    }

    fn try_add(&mut self, minutes: &Minutes) -> rusqlite::Result<()> {
        let Self { connection, upsert, series, .. } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut statement = transaction.prepare(upsert)?;
            for (minute, rollup) in minutes {
                for (key, sums) in rollup.iter() {
                    let number = number(&transaction, series, key)?;
                    columns::write(&mut statement, *minute, number, sums)?;
                }
            }
        }
        transaction.commit()
    }

    /// Throws away what is older than this minute, and the oldest of what is more than so many bytes.
    /// Says how much there is then. What was written is safe from a loss of power from here on.
    pub(super) fn prune(&mut self, oldest_kept: i64, bytes: u64) -> Result<Extent, Error> {
        self.try_prune(oldest_kept, bytes).map_err(failed(&self.path))
    }

    fn try_prune(&mut self, oldest_kept: i64, bytes: u64) -> rusqlite::Result<Extent> {
        let room = bytes.saturating_sub(LOG_BYTES);
        for _ in 0..STEPS {
            let oldest = self.oldest()?;
            let Some(from) = oldest else { break };
            let is_over = self.pages("page_count")? - self.pages("freelist_count")? > room;
            if from >= oldest_kept && !is_over {
                break;
            }
            let end = from + STEP_MINUTES;
            let end = if is_over { end } else { end.min(oldest_kept) };
            self.connection.execute("DELETE FROM minutes WHERE minute < ?1", [end])?;
        }
        if self.pages("page_count")? > room {
            self.shrink()?;
        }
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        Ok(Extent { bytes: self.pages("page_count")?, oldest: self.oldest()? })
    }

    /// Gives pages back that hold nothing: each row of the answer is one.
    fn shrink(&self) -> rusqlite::Result<()> {
        let mut vacuum = self.connection.prepare("PRAGMA incremental_vacuum(4096)")?;
        let mut pages = vacuum.query([])?;
        while pages.next()?.is_some() {}
        Ok(())
    }

    fn oldest(&self) -> rusqlite::Result<Option<i64>> {
        self.connection.query_row("SELECT min(minute) FROM minutes", [], |row| row.get(0))
    }

    /// So many pages, in bytes.
    fn pages(&self, pragma: &str) -> rusqlite::Result<u64> {
        let number = |pragma: &str| {
            let sql = format!("PRAGMA {pragma}");
            self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0))
        };
        Ok((number(pragma)? * number("page_size")?).max(0) as u64)
    }
}

impl Past for File {
    type Error = Error;

    fn between(&self, from: i64, until: i64) -> Result<Models, Error> {
        let period = Period::between(from, until);
        let groups = groups(&self.connection, &[By::Model], period, true);
        let models = groups.map_err(failed(&self.path))?.into_iter();
        Ok(models.map(|(names, sums)| (names.concat().into(), sums)).collect())
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Reason {
    /// Whether trying again is of no use.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self, Self::Io(_))
    }
}

/// The number of a series, which is made where there is none yet.
fn number(
    connection: &Connection,
    known: &mut FxHashMap<Key, i64>,
    key: &Key,
) -> rusqlite::Result<i64> {
    const SQL: &str = "INSERT INTO series (model, provider, region, route, upstream, caller)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET model = model RETURNING id";
    if let Some(number) = known.get(key) {
        return Ok(*number);
    }
    let Key { model, provider, region, route, upstream, caller } = key;
    let names = [model, provider, region, route, upstream, caller].map(|name| &**name);
    let number = connection.prepare(SQL)?.query_row(names, |row| row.get(0))?;
    known.insert(key.clone(), number);
    Ok(number)
}

/// Makes the tables, unless another process has done so meanwhile. Before the file has a log: so its
/// header says whose it is from the first moment on.
fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        transaction.execute_batch(include_str!("schema.sql"))?;
        transaction.execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA};"
        ))?;
    }
    transaction.commit()
}

/// Whether there is a file of ours here. Goes by its header alone, so that nothing is done to a file
/// of somebody else's.
fn is_ours(path: &Path) -> Result<bool, Error> {
    let failed = |reason| Error { path: path.to_owned(), reason };
    let header = match header(path) {
        Ok(header) if header.is_empty() => return Ok(false),
        Ok(header) => header,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(Reason::Io(error.to_string()))),
    };
    let number = |at: usize| {
        let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_be_bytes)
    };
    // https://sqlite.org/fileformat2.html#the_database_header
    if !header.starts_with(b"SQLite format 3\0") || number(68) != Some(APPLICATION) {
        return Err(failed(Reason::Foreign));
    }
    match number(60) {
        Some(found) if found > SCHEMA => Err(failed(Reason::Newer { found })),
        _ => Ok(true),
    }
}

fn header(path: &Path) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    fs::File::open(path)?.take(100).read_to_end(&mut header)?;
    Ok(header)
}

/// What an error of SQLite's means for its file.
pub(crate) fn failed(path: &Path) -> impl Fn(rusqlite::Error) -> Error {
    move |error| {
        let reason = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Reason::Damaged(error.to_string())
            }
            _ if matches!(error, rusqlite::Error::FromSqlConversionFailure(..)) => {
                Reason::Damaged(error.to_string())
            }
            _ => Reason::Io(error.to_string()),
        };
        Error { path: path.to_owned(), reason }
    }
}

/// A file in memory that holds calls of these models and callers, with what they cost, by minute.
#[cfg(test)]
pub(crate) fn written(calls: &[(i64, String, String, f64)]) -> Connection {
    let mut connection = Connection::open_in_memory().expect("memory");
    create(&mut connection).expect("tables");
    columns::add_functions(&connection).expect("functions");
    let mut file = File {
        connection,
        path: PathBuf::new(),
        upsert: columns::upsert(),
        series: FxHashMap::default(),
    };
    let mut minutes = Minutes::new();
    for (minute, model, caller, cost_usd) in calls {
        let key = Key { model: (&**model).into(), caller: (&**caller).into(), ..Key::default() };
        let sums = Sums { calls: 1, cost_usd: *cost_usd, ..Sums::default() };
        minutes.entry(*minute).or_default().merge(key, &sums, usize::MAX);
    }
    file.add(&minutes).expect("it is written");
    file.connection
}
