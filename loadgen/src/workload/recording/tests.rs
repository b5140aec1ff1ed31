//! Files of calls as others publish them, and as a sidecar writes them.

use std::path::{Path, PathBuf};

use tidegate_seal::{Recipient, Recipients};
use tidegate_wire::capture::{Captured, Writer, write_sealed};
use tidegate_wire::content::Budget;
use tidegate_wire::{Id, Record, UsageSource};

use super::*;
use crate::workload::Mix;

/// A file of its own for each test.
pub(super) fn file(name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let number = rand::random::<u64>();
    let path = std::env::temp_dir().join(format!("tidegate-{name}-{number:x}"));
    std::fs::write(&path, text).expect("a folder to write to");
    path
}

/// Opens what a text would be, and forgets the file.
fn open(text: impl AsRef<[u8]>, format: Option<Format>) -> Result<(Recording, Vec<Row>), String> {
    let path = file("recording", text);
    let read =
        Recording::open(&path, format, Identities::default()).map_err(|error| error.to_string());
    let rows = read.map(|recording| {
        let rows = recording.replay().map(|row| row.expect("it was read before")).collect();
        (recording, rows)
    });
    std::fs::remove_file(&path).expect("it was written");
    let name = path.display().to_string();
    rows.map_err(|error| error.replace(&name, "FILE"))
}

fn rows(text: impl AsRef<[u8]>, format: Format) -> (Recording, Vec<Row>) {
    let (recording, rows) = open(text, None).expect("a good file");
    assert_eq!(recording.format(), format);
    (recording, rows)
}

fn offsets(recording: &Recording, rows: &[Row]) -> Vec<u64> {
    let offset = |row: &Row| recording.offset(row.at.expect("it has times")).as_nanos() as u64;
    rows.iter().map(offset).collect()
}

fn lengths(row: &Row) -> (u32, u32) {
    match &row.asked {
        Asked::Lengths(lengths) => (lengths.input, lengths.output),
        other => panic!("{other:?}"),
    }
}

fn turns(row: &Row) -> (Vec<&str>, Option<u32>) {
    match &row.asked {
        Asked::Turns { turns, output, .. } => {
            (turns.iter().map(|turn| &*turn.text).collect(), output.map(NonZeroU32::get))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn azures_traces_of_both_years_read_to_the_nanosecond_and_in_order() {
    let of_2023 = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
                   2023-11-16 18:17:03.9799600,4808,10\r\n\
                   2023-11-16 18:17:04.0319569,3180,8";
    let (recording, read) = rows(of_2023, Format::Azure);
    assert_eq!(offsets(&recording, &read), [0, 51_996_900]);
    assert_eq!(read.iter().map(lengths).collect::<Vec<_>>(), [(4808, 10), (3180, 8)]);

    let of_2024 = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                   2024-05-10 00:00:00.009930+00:00,2162,5\n\
                   2024-05-10 00:00:00+00:00,2399,6\n\
                   2024-05-10 00:00:00.017335+00:00,76,15\n";
    let (recording, read) = rows(of_2024, Format::Azure);
    assert_eq!(offsets(&recording, &read), [0, 9_930_000, 17_335_000]);
    assert_eq!(read.iter().map(lengths).collect::<Vec<_>>(), [(2399, 6), (2162, 5), (76, 15)]);

    let of_2025 = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2025-01-01 00:00:00,1,9,2\n";
    assert_eq!(lengths(&rows(of_2025, Format::Azure).1[0]), (9, 2));
}

#[test]
fn burstgpt_reads_with_and_without_sessions() {
    for text in [
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
         5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,0,1087,API log\n",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
         5.0,s,1.5,ChatGPT,472,18,490,Conversation log\n45.0,,0,GPT-4,1087,0,1087,API log\n",
    ] {
        let (recording, read) = rows(text, Format::BurstGpt);
        assert_eq!(offsets(&recording, &read), [0, 40_000_000_000]);
        assert_eq!(read.iter().map(lengths).collect::<Vec<_>>(), [(472, 18), (1087, 0)]);
    }
}

#[test]
fn hashes_of_mooncake_and_bailian_are_shared_beginnings() {
    let mooncake = r#"{"timestamp": 27482, "input_length": 1100, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 30535, "input_length": 1300, "output_length": 5, "hash_ids": [46, 47, 49]}"#;
    let bailian = r#"{"chat_id": 1, "parent_chat_id": -1, "timestamp": 61.5, "input_length": 40, "output_length": 7, "type": "text", "turn": 1, "hash_ids": [1, 2, 3]}
{"chat_id": 2, "parent_chat_id": 1, "timestamp": 62, "input_length": 48, "output_length": 7, "type": "text", "turn": 2, "hash_ids": [1, 2, 18446744073709551615]}"#;
    for (text, format, gap_ns, shared) in [
        (mooncake, Format::Mooncake, 3_053_000_000, 1024),
        (bailian, Format::Bailian, 500_000_000, 32),
    ] {
        let (recording, read) = rows(text, format);
        assert_eq!(offsets(&recording, &read), [0, gap_ns]);
        let mix = Mix::of_model("m");
        let words = |row: &Row, number| -> Vec<String> {
            let request = row.asked.clone().request(&mix.entries()[0], 1, number);
            let body: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
            assert_eq!(body["max_tokens"], lengths(row).1);
            assert_eq!(body["stream_options"]["include_usage"], true);
            let text = body["messages"][0]["content"].as_str().expect("a text");
            text.split(' ').map(str::to_owned).collect()
        };
        let (one, other) = (words(&read[0], 0), words(&read[1], 1));
        assert_eq!(
            (one.len(), other.len()),
            (lengths(&read[0]).0 as usize, lengths(&read[1]).0 as usize)
        );
        assert_eq!(one[..shared], other[..shared]);
        assert_ne!(one[shared..shared + 8], other[shared..shared + 8]);
    }
}

#[test]
fn a_conversation_has_its_first_question_asked_again() {
    let array = r#"[{"id":"a","conversations":[{"from":"human","value":"what?"},{"from":"gpt","value":"this and that"}]},
{"id":"b","conversations":[{"from":"gpt","value":"alone"}]},
{"id":"c","conversations":[{"from":"system","value":"be kind"},{"from":"human","value":"who?"},{"from":"gpt","value":"me"},{"from":"human","value":"and?"}]}]"#;
    let lines = array.trim_matches(['[', ']']).replace("},\n", "}\n");
    for text in [array, &lines] {
        let (recording, read) = rows(text, Format::ShareGpt);
        assert_eq!(
            read.iter().map(turns).collect::<Vec<_>>(),
            [(vec!["what?"], Some(3)), (vec!["be kind", "who?"], Some(1)),]
        );
        assert!(!recording.has_times());
        assert_eq!(recording.survey().left_out.values().sum::<u64>(), 1);
    }
}

#[test]
fn prompts_stand_on_lines_or_in_json() {
    let (recording, read) = rows("first\r\n\n second \n", Format::Prompts);
    assert_eq!(
        read.iter().map(turns).collect::<Vec<_>>(),
        [(vec!["first"], None), (vec![" second "], None)]
    );
    assert!(!recording.has_times());

    let json = r#"{"prompt": "one", "max_tokens": 5}
{"messages": [{"role": "system", "content": "brief"}, {"role": "user", "content": [{"type": "text", "text": "two"}]}]}"#;
    let (_, read) = rows(json, Format::Prompts);
    assert_eq!(
        read.iter().map(turns).collect::<Vec<_>>(),
        [(vec!["one"], Some(5)), (vec!["brief", "two"], None),]
    );
}

#[test]
fn a_mistake_is_told_with_file_and_line() {
    const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,2\n";
    const MOONCAKE: &str = "{\"timestamp\":1,\"input_length\":1,\"output_length\":1}\n";
    for (text, told) in [
        (format!("{AZURE}then,1,2"), "FILE:3: `then` is no moment"),
        (format!("{AZURE}2023-11-16 18:17:03,x,2"), "FILE:3: `x` is no number of ContextTokens"),
        (format!("{AZURE}2023-11-16 18:17:03"), "FILE:3: it has 1 fields, fewer than the header"),
        (
            format!("{MOONCAKE}{{\"timestamp\":\"x\",\"input_length\":1,\"output_length\":1}}"),
            "FILE:2: timestamp",
        ),
        (format!("{MOONCAKE}{{\"timestamp\":1}}"), "FILE:2: missing field `input_length`"),
        (
            format!("{MOONCAKE}{{\"timestamp\":1,\"input_length\":99999999,\"output_length\":1}}"),
            "FILE:2: input_length: 99999999 tokens",
        ),
        ("{\"prompt\":\"a\"}\n{}".to_owned(), "FILE:2: it needs either `prompt` or `messages`"),
        (
            "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}".to_owned(),
            "FILE:1: the last of `messages`",
        ),
        ("{\"something\":\"else\"}".to_owned(), "its first line is of no format that is known"),
        ("\n\n".to_owned(), "there is no call in it"),
        (
            "[{\"conversations\":[]}]".to_owned(),
            "there is no call in it that can be made; 1 left out: no question in it",
        ),
        ("[{\"conversations\":[}".to_owned(), "FILE:1: the file ends in the middle of this"),
    ] {
        let said = open(&text, None).expect_err(&text);
        assert!(said.contains(told), "{text}: {said}");
    }
    let said = open("a,b\n1,2", Some(Format::Azure)).expect_err("no such columns");
    assert!(said.contains("FILE:1: the first line has no column `TIMESTAMP`"), "{said}");
    let missing = Recording::open(Path::new("/nowhere"), None, Identities::default())
        .expect_err("it is not there");
    assert!(missing.to_string().contains("cannot read /nowhere"));
    let folder = Recording::open(&std::env::temp_dir(), None, Identities::default())
        .expect_err("it is a folder");
    assert!(folder.to_string().contains("no regular file"), "{folder}");
}

// === Captures ===

const BODY: &str = r#"{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"what Ada said to Grace"}]}"#;

/// A call that came so many milliseconds after others began to.
fn record(milliseconds: i64) -> Record {
    let start: jiff::Timestamp = "2026-11-21T10:00:00Z".parse().expect("a time");
    Record {
        time: start + jiff::SignedDuration::from_millis(milliseconds),
        trace_id: Id(rand::random()),
        method: Some("POST".into()),
        request_model: Some("gpt-4o".to_owned()),
        operation: Some("chat".into()),
        stream: Some(true),
        input_tokens: Some(12),
        output_tokens: Some(34),
        usage_source: Some(UsageSource::Reported),
        ..Record::default()
    }
}

fn line(writer: &Writer, record: &Record, body: &str, limit: usize) -> Vec<u8> {
    let mut head = http::HeaderMap::new();
    head.insert("content-type", "application/json".parse().expect("a value"));
    head.insert("authorization", "Bearer s3cret".parse().expect("a value"));
    let budget = Budget::new(1 << 20);
    let target = "/v1/chat/completions?tag=a".to_owned();
    let mut captured = Captured::new(target, &head, &[], limit, &budget);
    captured.body(body.as_bytes());
    let mut out = Vec::new();
    writer.write(record, &captured, &mut out);
    out
}

fn capture(mode: Mode, milliseconds: &[i64]) -> Vec<u8> {
    let writer = Writer::new(mode, &[3; 32]);
    milliseconds.iter().flat_map(|at| line(&writer, &record(*at), BODY, 1 << 16)).collect()
}

fn requests(rows: Vec<Row>) -> Vec<Request> {
    let mix = Mix::default();
    rows.into_iter().map(|row| row.asked.request(&mix.entries()[0], 1, 0)).collect()
}

#[test]
fn a_capture_is_made_again_as_it_was_in_the_order_in_which_it_came() {
    // As each ends: the longest last.
    let (recording, read) = rows(capture(Mode::Full, &[500, 20, 700, 0, 701]), Format::Capture);
    assert_eq!(offsets(&recording, &read), [0, 20, 500, 700, 701].map(|ms| ms * 1_000_000));
    let request = requests(read).remove(0);
    assert_eq!(request.body, BODY);
    assert_eq!((&*request.path, request.method.as_str()), ("/v1/chat/completions?tag=a", "POST"));
    assert_eq!((&*request.label, &*request.route, request.stream), ("gpt-4o", "chat", true));
    assert_eq!(request.headers.len(), 1, "{:?}", request.headers);
    assert_eq!(recording.survey().span(), Some(std::time::Duration::from_millis(701)));
    assert_eq!(request.tokens(), (12, 34), "as it was");
}

#[test]
fn what_was_redacted_or_kept_as_a_shape_is_as_long_as_it_was() {
    let (_, read) = rows(capture(Mode::Redacted, &[0]), Format::Capture);
    let body = requests(read).remove(0).body;
    assert_eq!(body.len(), BODY.len());
    assert!(!body.windows(3).any(|word| word == b"Ada"));

    let (long, other) =
        (format!("{} one", "same ".repeat(900)), format!("{} two", "same ".repeat(900)));
    let writer = Writer::new(Mode::Shape, &[3; 32]);
    let mut captured = Vec::new();
    for (at, text) in [(0, &long), (1, &other)] {
        let body = BODY.replace("what Ada said to Grace", text);
        let record = Record { input_tokens: Some(1000), ..record(at) };
        captured.extend(line(&writer, &record, &body, 1 << 16));
    }
    let (_, read) = rows(captured, Format::Capture);
    let bodies: Vec<serde_json::Value> = requests(read)
        .iter()
        .map(|request| serde_json::from_slice(&request.body).expect("JSON"))
        .collect();
    let texts: Vec<_> = bodies
        .iter()
        .map(|body| body["messages"][0]["content"].as_str().expect("a text"))
        .collect();
    assert_eq!(
        (bodies[0]["max_tokens"].as_u64(), bodies[0]["stream"].as_bool()),
        (Some(34), Some(true))
    );
    // The words of form beside the text are counted with it.
    assert_eq!(texts[0].len(), long.len() + "gpt-4o".len() + "user".len());
    assert_eq!(texts[0][..4096], texts[1][..4096]);
    assert_ne!(texts[0][4096..], texts[1][4096..]);
}

#[test]
fn a_torn_end_is_cut_off_and_said_and_damage_before_it_is_refused() {
    let whole = capture(Mode::Full, &[0, 1, 2]);
    let second = whole.iter().position(|byte| *byte == b'\n').expect("three lines") + 1;
    for end in [second + 1, second + 9, second + 40, second + 300] {
        let (recording, read) = rows(&whole[..end], Format::Capture);
        assert_eq!(read.len(), 1, "cut at {end}");
        assert_eq!(recording.survey().torn_bytes, (end - second) as u64);
        assert!(recording.sentence().contains("its end was torn"), "{}", recording.sentence());
    }
    let zeros = [&whole[..], &[0; 5000]].concat();
    assert_eq!(rows(&zeros, Format::Capture).0.survey().torn_bytes, 5000);

    let mut damaged = whole.clone();
    damaged[second + 60] ^= 1;
    let said = open(&damaged, None).expect_err("its second line is damaged");
    assert!(said.contains("FILE:2: the checksum does not match"), "{said}");
}

#[test]
fn what_cannot_be_made_again_is_counted_by_its_reason() {
    let writer = Writer::new(Mode::Full, &[3; 32]).sampling(0.25);
    let upgraded = Record { upgrade: Some("websocket".into()), ..record(1) };
    let lines = [
        line(&writer, &record(0), BODY, 1 << 16),
        line(&writer, &upgraded, "", 1 << 16),
        line(&writer, &record(2), BODY, 10),
    ];
    let (recording, read) = rows(lines.concat(), Format::Capture);
    assert_eq!(read.len(), 1);
    let said = recording.sentence();
    assert!(said.contains("a sample of 25%") && said.contains("WebSocket"), "{said}");
    assert!(said.contains("1 left out: its body was too large"), "{said}");
}

#[test]
fn pieces_are_read_in_the_order_in_which_they_were_written() {
    let folder = file("pieces", "");
    std::fs::remove_file(&folder).expect("it was written");
    std::fs::create_dir(&folder).expect("a folder can be made");
    let path = folder.join("capture.jsonl");
    for (name, at) in [
        ("capture.jsonl", 30),
        ("capture.jsonl.1", 20),
        ("capture.jsonl.10", 0),
        ("capture.jsonl.2", 10),
    ] {
        std::fs::write(folder.join(name), capture(Mode::Full, &[at])).expect("it writes");
    }
    std::fs::write(folder.join("capture.jsonl.bak"), "not this").expect("it writes");
    let recording = Recording::open(&path, None, Identities::default()).expect("a good capture");
    let read: Vec<_> = recording.replay().map(|row| row.expect("it was read before")).collect();
    assert_eq!(offsets(&recording, &read), [0, 10, 20, 30].map(|ms| ms * 1_000_000));
    assert_eq!((recording.pieces(), recording.survey().disorder), (4, 0));
    std::fs::remove_dir_all(&folder).expect("it goes");
}

/// A key pair that anybody may know.
pub(super) const IDENTITY: &str =
    "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

/// These lines, sealed together.
pub(super) fn sealed(lines: &[u8]) -> Vec<u8> {
    let recipient = Recipient::try_from(RECIPIENT.to_owned()).expect("a public key");
    let message = Recipients::of(vec![recipient]).expect("one").seal(lines).expect("it seals");
    let mut line = Vec::new();
    write_sealed(&message, &mut line);
    line
}

#[test]
fn sealed_calls_are_put_in_order_within_and_across_their_lines() {
    let text = [
        sealed(&capture(Mode::Full, &[20, 0, 50])),
        capture(Mode::Full, &[10]),
        sealed(&capture(Mode::Full, &[])),
        sealed(&capture(Mode::Full, &[60, 40, 30])),
    ];
    let (path, key) = (file("sealed", text.concat()), file("key", IDENTITY));
    let identities = Identities::read(&[&key]).expect("one");
    let recording = Recording::open(&path, None, identities).expect("it opens");
    let read: Vec<_> = recording.replay().map(|row| row.expect("it was read before")).collect();
    assert_eq!(
        offsets(&recording, &read),
        [0, 10, 20, 30, 40, 50, 60].map(|ms| ms * 1_000_000),
        "as they were made"
    );
    assert!(requests(read).iter().all(|request| request.body == BODY));
    let entries = recording.entries().expect("it is a capture");
    let entries = entries.map(|entry| entry.expect("it was read before").record.time);
    let written = [20, 0, 50, 10, 60, 40, 30].map(|at| record(at).time);
    assert_eq!(entries.collect::<Vec<_>>(), written, "as they were written");
    [path, key].iter().for_each(|path| std::fs::remove_file(path).expect("it was written"));
}

#[test]
fn names_without_end_take_no_room_without_end() {
    let writer = Writer::new(Mode::Full, &[3; 32]);
    let named = |number: i64| Record { request_model: Some(number.to_string()), ..record(number) };
    let text: Vec<u8> = (0..300).flat_map(|n| line(&writer, &named(n), BODY, 1 << 16)).collect();
    let (recording, read) = rows(text, Format::Capture);
    assert_eq!(recording.survey().keys.len(), 200);
    let others = requests(read).iter().filter(|request| &*request.label == "other").count();
    assert_eq!(others, 100);
}
