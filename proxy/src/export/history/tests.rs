use std::path::PathBuf;
use std::time::Instant;

use tidegate_wire::Outcome;

use super::super::metrics::Registry;
use super::*;

/// Where a test gives up.
const STOP: Duration = Duration::from_secs(20);

/// A folder of a test's own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path =
            std::env::temp_dir().join(format!("tidegate-history-{:x}", rand::random::<u64>()));
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("history.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn keys() -> Keys {
    Keys::new(Arc::new(Registry::new(["gemma".into(), "claude".into()], [])))
}

fn call(model: &str, second: i64) -> Record {
    Record {
        time: Timestamp::from_second(second).expect("a time"),
        request_model: Some(model.to_owned()),
        outcome: Some(Outcome::Completed),
        status: Some(200),
        duration_s: Some(1.5),
        input_tokens: Some(10),
        cost_usd: Some(0.25),
        ..Record::default()
    }
}

fn start(path: &Path) -> (History, Keeper) {
    History::start(path, &HistoryConfig::default(), keys())
}

fn minutes(records: &[Record]) -> Minutes {
    let mut minutes = Minutes::new();
    for record in records {
        minutes.entry(minute(record)).or_default().add(record, &keys(), KEYS);
    }
    minutes
}

fn number(path: &Path, sql: &str) -> i64 {
    let connection = open_to_read(path).expect("a history");
    connection.query_row(sql, [], |row| row.get(0)).expect("a number")
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

#[test]
fn what_ends_whole_has_lost_nothing_and_a_minute_that_goes_on_is_added_to() {
    let folder = Folder::new();
    for _ in 0..2 {
        let (_, mut keeper) = start(&folder.file());
        assert_eq!(keeper.export(&[call("gemma", now() / 60 * 60), call("claude", now() - 60)]), 0);
        drop(keeper);
    }
    assert_eq!(number(&folder.file(), "SELECT sum(calls) FROM minutes"), 4);
    let seen = number(
        &folder.file(),
        "SELECT length(duration_of_others) FROM usage WHERE model = 'claude' ORDER BY minute LIMIT 1",
    );
    assert!(seen > 0, "a distribution is there");
}

#[test]
fn several_processes_add_to_one_file() {
    let folder = Folder::new();
    let mut files = [0, 1].map(|_| File::open(&folder.file()).expect("a file"));
    for file in &mut files {
        file.add(&minutes(&[call("gemma", 600), call("gemma", 601)])).expect("it is written");
    }
    let sql = "SELECT calls * 1000 + json_extract(statuses, '$.200') FROM minutes";
    assert_eq!(number(&folder.file(), sql), 4004);
    assert_eq!(number(&folder.file(), "SELECT count(*) FROM series"), 1);
}

#[test]
fn a_file_of_somebody_else_is_left_as_it_is() {
    let folder = Folder::new();
    let foreign = folder.0.join("foreign.db");
    let other = rusqlite::Connection::open(&foreign).expect("a database");
    other.execute_batch("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)").expect("a table");
    drop(other);
    let text = folder.0.join("notes.txt");
    std::fs::write(&text, "not a database at all, but long enough to be one\n".repeat(9))
        .expect("it");
    for path in [foreign, text] {
        let before = std::fs::read(&path).expect("it is there");
        let error = File::open(&path).expect_err("it is not ours");
        assert!(matches!(error.reason, Reason::Foreign), "{error}");
        assert!(error.to_string().contains("name another file"), "{error}");
        let (history, mut keeper) = start(&path);
        assert_eq!(keeper.export(&[call("gemma", 600)]), 1, "what is lost is counted");
        assert!(!history.is_well());
        drop(keeper);
        assert_eq!(std::fs::read(&path).expect("it is there"), before);
    }
}

#[test]
fn a_file_of_a_newer_version_is_left_as_it_is() {
    let folder = Folder::new();
    drop(File::open(&folder.file()).expect("a file"));
    let raw = rusqlite::Connection::open(folder.file()).expect("a database");
    raw.execute_batch("PRAGMA user_version = 9; PRAGMA journal_mode = DELETE").expect("it is set");
    drop(raw);
    let error = File::open(&folder.file()).expect_err("it is newer");
    assert!(matches!(error.reason, Reason::Newer { found: 9 }), "{error}");
}

#[test]
fn a_damaged_file_ends_the_history_and_stays() {
    let folder = Folder::new();
    let mut file = File::open(&folder.file()).expect("a file");
    let many: Vec<_> = (0..4_000).map(|number| call("gemma", number * 60)).collect();
    file.add(&minutes(&many)).expect("it is written");
    drop(file);
    let mut bytes = std::fs::read(folder.file()).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xa5);
    std::fs::write(folder.file(), &bytes).expect("it is damaged");

    let (history, mut keeper) = start(&folder.file());
    let start = Instant::now();
    while !lock(&history.shared.pending).is_given_up {
        assert!(start.elapsed() < STOP, "waited in vain for it to be given up");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(!history.is_well());
    assert_eq!(keeper.export(&[call("gemma", now())]), 1, "what is lost is counted");
    drop(keeper);
    let after = std::fs::read(folder.file()).expect("it is there");
    assert_eq!(after[middle..middle + 8192], bytes[middle..middle + 8192]);
}

#[test]
fn what_is_too_old_goes() {
    let folder = Folder::new();
    let mut file = File::open(&folder.file()).expect("a file");
    file.add(&minutes(&(0..300).map(|at| call("gemma", at * 60)).collect::<Vec<_>>())).expect("ok");
    let extent = file.prune(250, 1 << 30).expect("it is looked through");
    assert_eq!(extent.oldest, Some(250));
    assert_eq!(number(&folder.file(), "SELECT count(*) FROM minutes"), 50);
}

#[test]
fn the_oldest_make_room_where_there_are_too_many_bytes() {
    let folder = Folder::new();
    let mut file = File::open(&folder.file()).expect("a file");
    let size = 1 << 20;
    for part in 0..20_i64 {
        let part = part * 2_000;
        let calls: Vec<_> = (part..part + 2_000).map(|at| call("gemma", at * 60)).collect();
        file.add(&minutes(&calls)).expect("it is written");
    }
    let extent = file.prune(0, LOG + size).expect("it is looked through");
    assert!(extent.bytes <= size, "{extent:?}");
    assert!(extent.oldest > Some(0), "{extent:?}");
    assert_eq!(number(&folder.file(), "SELECT max(minute) FROM minutes"), 39_999);
    let all = std::fs::read_dir(&folder.0).expect("a folder");
    let bytes: u64 = all.map(|file| file.expect("it").metadata().expect("it").len()).sum();
    assert!(bytes <= LOG + size + (64 << 10), "{bytes} bytes, log included");
}

const LOG: u64 = file::LOG_BYTES;

#[test]
fn what_cannot_be_written_for_long_is_counted_as_lost() {
    let mut pending = Pending::default();
    let rollup = |minute: i64| {
        let mut rollup = Rollup::default();
        for number in 0..KEYS {
            let key = Key { route: number.to_string().into(), ..Key::default() };
            rollup.merge(key, &Sums { calls: 2, ..Sums::default() }, KEYS);
        }
        (minute, rollup)
    };
    pending.put_back((0..6).map(rollup).collect());
    assert_eq!(pending.minutes.len(), 5, "there is room for five such minutes");
    assert_eq!((pending.minutes.keys().next(), pending.lost), (Some(&1), 2 * KEYS as u64));
}

/// The documentation. A build without tests needs none, so it is read as they run.
fn documentation() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/history.md");
    std::fs::read_to_string(file).expect("it is there")
}

/// The SQL that it shows.
fn documented(text: &str) -> Vec<&str> {
    let blocks = text.split("```sql\n").skip(1);
    blocks.map(|block| block.split("```").next().expect("there is one")).collect()
}

#[test]
fn the_questions_of_the_documentation_have_answers() {
    let folder = Folder::new();
    let mut file = File::open(&folder.file()).expect("a file");
    let cached = tidegate_wire::Cached { saved_cost_usd: Some(0.5), ..Default::default() };
    let source = Some(tidegate_wire::CacheSource::ALL[0]);
    let cached = tidegate_wire::Cached { source, ..cached };
    let calls = [
        call("gemma", now()),
        call("gemma", now()),
        call("claude", now() - 600),
        Record { cached: Some(Box::new(cached)), ..call("gemma", now()) },
    ];
    file.add(&minutes(&calls)).expect("it is written");
    let connection = open_to_read(&folder.file()).expect("a history");
    let documentation = documentation();
    let documented = documented(&documentation);
    assert!(documented.len() >= 6, "{}", documented.len());
    for sql in documented {
        let mut statement = connection.prepare(sql).expect(sql);
        let mut rows = statement.query([]).expect(sql);
        assert!(rows.next().expect(sql).is_some(), "no answer: {sql}");
    }
    let cost: f64 = connection
        .query_row(documented_one(&documentation, "Cost by"), [], |row| row.get("cost_usd"))
        .expect("a cost");
    assert_eq!(cost, 1.0);
}

/// The question under this sentence.
fn documented_one<'a>(text: &'a str, sentence: &str) -> &'a str {
    let (_, after) = text.split_once(&format!("\n{sentence}")).expect("it is there");
    let (_, sql) = after.split_once("```sql\n").expect("it has one");
    sql.split("```").next().expect("there is one")
}

#[test]
fn usage_adds_up_by_what_is_asked() {
    use crate::usage::{By, Period, Usage};

    let folder = Folder::new();
    let mut file = File::open(&folder.file()).expect("a file");
    let slow = Record { duration_s: Some(30.0), stream: Some(true), ..call("gemma", 3_600) };
    let failed = Record { outcome: Some(Outcome::Failed), status: Some(503), ..call("claude", 0) };
    file.add(&minutes(&[call("gemma", 0), slow, failed])).expect("it is written");
    let at = |second| Timestamp::from_second(second).expect("a time");
    let read = |by: &[By], since, until| {
        let period = Period::new(at(since), at(until)).expect("a period");
        let usage = Usage::read(&folder.file(), by, period).expect("it is read");
        serde_json::to_value(usage).expect("JSON")
    };
    let all = read(&[By::Model], 0, 7_200);
    assert_eq!(all["rows"][0]["model"], "gemma", "the dearest first: {all:#}");
    assert_eq!(all["rows"][0]["duration_p99_s"], 30.079, "over streams and others alike");
    assert_eq!(all["rows"][1]["error_ratio"], 1.0);
    assert_eq!(all["total"]["calls"], 3);
    assert_eq!(all["total"]["statuses"]["503"], 1);
    let hours = read(&[By::Hour, By::Caller], 0, 7_200);
    let hours: Vec<_> = (0..2).map(|at| &hours["rows"][at]["hour"]).collect();
    assert_eq!(hours, ["1970-01-01 00:00", "1970-01-01 01:00"]);
    assert_eq!(read(&[By::Model], 0, 60)["total"]["calls"], 2, "the last minute is left out");
    assert_eq!(read(&[], 0, 7_200)["rows"].as_array().expect("rows").len(), 1);
    assert!(read(&[], 90_000, 90_060)["rows"].as_array().expect("rows").is_empty());
}

#[test]
fn it_is_read_where_only_reading_is_allowed() {
    let folder = Folder::new();
    let mut file = File::open(&folder.file()).expect("a file");
    file.add(&minutes(&[call("gemma", 600)])).expect("it is written");
    drop(file);
    let mut mode = std::fs::metadata(&folder.0).expect("a folder").permissions();
    mode.set_readonly(true);
    std::fs::set_permissions(&folder.0, mode.clone()).expect("it is ours");
    assert_eq!(number(&folder.file(), "SELECT sum(calls) FROM minutes"), 1);
    #[allow(clippy::permissions_set_readonly_false)]
    mode.set_readonly(false);
    std::fs::set_permissions(&folder.0, mode).expect("it is ours");
}

#[test]
fn counts_that_are_nonsense_spoil_no_sum() {
    use crate::usage::{By, Period, Usage};

    let folder = Folder::new();
    let mut file = File::open(&folder.file()).expect("a file");
    let nonsense = Record { input_tokens: Some(u64::MAX), ..call("gemma", 0) };
    for _ in 0..3 {
        file.add(&minutes(std::slice::from_ref(&nonsense))).expect("it is written");
    }
    file.add(&minutes(&[Record { input_tokens: Some(u64::MAX), ..call("gemma", 3_600) }]))
        .expect("it is written");
    let period = Period::between(0, 120);
    let usage = Usage::read(&folder.file(), &[By::Model], period).expect("it is read");
    let usage = serde_json::to_value(usage).expect("JSON");
    assert_eq!(
        (&usage["total"]["calls"], &usage["total"]["output_tokens"]),
        (&4.into(), &0.into())
    );
}

#[test]
fn usage_of_many_rows_is_read_by_who_has_room_for_them() {
    use crate::usage::{By, Period, Usage};

    let folder = Folder::new();
    let mut file = File::open(&folder.file()).expect("a file");
    let records: Vec<_> = (0..30).map(|minute| call("gemma", minute * 60)).collect();
    file.add(&minutes(&records)).expect("it is written");
    let some = |by, most| {
        let period = Period::between(0, 60);
        let usage = Usage::read_some(&folder.file(), &[by], period, most).expect("it is read");
        usage.map(|usage| serde_json::to_value(usage).expect("JSON")["total"]["calls"].clone())
    };
    assert_eq!(some(By::Minute, 29), None);
    assert_eq!(some(By::Minute, 30), Some(30.into()));
    assert_eq!(some(By::Hour, 1), Some(30.into()));
}
