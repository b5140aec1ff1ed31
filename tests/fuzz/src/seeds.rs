//! Where fuzzing starts: inputs made of the fixtures, which stand nowhere else.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidegate_wire::Ending;

use crate::encoded::{self, CODINGS};
use crate::observer::{self, CONTENT_TYPES, ENDINGS, Kind, STATUSES};
use crate::{content, frames, request};

mod made;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures");

/// Seeds of a target, each with a name.
pub fn of(target: &str) -> Vec<(String, Vec<u8>)> {
    let cases = cases();
    let per_case = |seed: fn(&Case) -> Option<Vec<u8>>| -> Vec<_> {
        cases.iter().filter_map(|case| Some((case.name.clone(), seed(case)?))).collect()
    };
    let calls = |kind: &Kind| -> Vec<_> {
        let cases = cases.iter().filter(|case| kind.has(&case.line()));
        cases.map(|case| (case.name.clone(), case.call(case.reply.clone()))).collect()
    };
    match target {
        "sse" => per_case(Case::sse),
        "event_stream" => per_case(Case::event_stream),
        "json" => [per_case(Case::json), vec![("every-path".to_owned(), every_path())]].concat(),
        "json_array" => per_case(Case::lines),
        "encoded" => per_case(Case::encoded),
        "shape" => per_case(|case| Some(case.shape())),
        "openai_chat" => calls(&observer::OPENAI_CHAT),
        "openai_responses" => calls(&observer::OPENAI_RESPONSES),
        "anthropic" => calls(&observer::ANTHROPIC),
        "gemini" => calls(&observer::GEMINI),
        "vertex" => calls(&observer::VERTEX),
        "bedrock_converse" => calls(&observer::BEDROCK_CONVERSE),
        "bedrock_invoke" => calls(&observer::BEDROCK_INVOKE),
        "generate" => calls(&observer::GENERATE),
        "ollama" => calls(&observer::OLLAMA),
        "cohere" => calls(&observer::COHERE),
        "protobuf" => made::protobuf(),
        "grpc" => made::grpc(),
        "request" => per_case(Case::request),
        "picture" => made::pictures(),
        "hints" => [per_case(Case::hints), made::hints()].concat(),
        "content" => per_case(Case::content),
        "request_head" => per_case(|case| Some(case.request_head())),
        "reply_head" => per_case(|case| Some(case.reply_head())),
        "chunked" => per_case(|case| Some(case.chunked())),
        "scrape" => made::pages(),
        "usage_question" => per_case(Case::usage_question),
        "usage_filter" => per_case(Case::usage_filter),
        _ => Vec::new(),
    }
}

/// A call under `tests/fixtures`.
struct Case {
    name: String,
    case: Value,
    /// The reply; an event stream as the text of its frames.
    reply: Vec<u8>,
    /// The name of its file.
    file: &'static str,
}

fn cases() -> Vec<Case> {
    let mut folders: Vec<_> =
        folders(Path::new(FIXTURES)).iter().flat_map(|at| folders(at)).collect();
    folders.sort();
    folders.iter().filter_map(|folder| Case::read(folder)).collect()
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

impl Case {
    fn read(folder: &Path) -> Option<Self> {
        const FILES: [&str; 4] = ["reply.json", "reply.sse", "reply.txt", "reply.messages.json"];
        let case = serde_json::from_slice(&fs::read(folder.join("case.json")).ok()?).ok()?;
        let file = FILES.into_iter().find(|name| folder.join(name).exists())?;
        let mut reply = fs::read(folder.join(file)).ok()?;
        if file == "reply.messages.json" {
            reply = frames::text(&serde_json::from_slice::<Vec<Value>>(&reply).ok()?);
        }
        let name = folder.strip_prefix(FIXTURES).ok()?.display().to_string().replace('/', "-");
        Some(Self { name, case, reply, file })
    }

    fn text(&self, part: &str, key: &str) -> &str {
        self.case[part][key].as_str().unwrap_or_default()
    }

    fn body(&self) -> String {
        self.case["request"].get("body").map(Value::to_string).unwrap_or_default()
    }

    fn fields(&self, part: &str, separator: &str) -> String {
        let fields = self.case[part]["headers"].as_object().into_iter().flatten();
        let line = |(name, value): (&String, &Value)| {
            format!("{name}:{}{separator}", value.as_str().unwrap_or_default())
        };
        fields.map(line).collect()
    }

    /// The head of the request, in a line.
    fn line(&self) -> String {
        let text = |key| self.text("request", key);
        format!("{} {} {}", text("method"), text("host"), text("path"))
    }

    /// The whole call, with this reply.
    fn call(&self, reply: Vec<u8>) -> Vec<u8> {
        let ending = match self.case["ending"].as_str() {
            Some("broken") => Ending::Broken,
            Some("caller_left") => Ending::CallerLeft,
            Some("no_answer") => Ending::NoAnswer,
            Some("refused") => Ending::Refused,
            _ => Ending::Clean,
        };
        let kind = self.case["response"]["headers"]["content-type"].as_str().unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default();
        let status = self.case["response"]["status"].as_u64().unwrap_or_default();
        let has_counts = self.fields("response", "\n").contains("token-count");
        let body = self.body();
        let choices = [
            place(ENDINGS, |known| *known == ending),
            place(CONTENT_TYPES, |known| *known == kind),
            place(STATUSES, |known| u64::from(*known) == status),
            if has_counts { observer::COUNTS } else { 0 },
            0,
            7,
            (body.len() >> 8) as u8,
            body.len() as u8,
        ];
        [&choices, self.line().as_bytes(), b"\n", body.as_bytes(), &reply].concat()
    }

    fn sse(&self) -> Option<Vec<u8>> {
        matches!(self.file, "reply.sse" | "reply.txt").then(|| cut_as_usual(&self.reply))
    }

    fn json(&self) -> Option<Vec<u8>> {
        (self.file == "reply.json").then(|| cut_as_usual(&self.reply))
    }

    fn lines(&self) -> Option<Vec<u8>> {
        let text = String::from_utf8_lossy(&self.reply).into_owned();
        let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let whole = || Some(serde_json::from_str::<Value>(&text).ok()?.to_string());
        let lines = if lines.is_empty() { whole()? } else { lines.join("\n") };
        Some(cut_as_usual(lines.as_bytes()))
    }

    fn event_stream(&self) -> Option<Vec<u8>> {
        let text = [&[0, 7, 1], self.reply.as_slice()].concat();
        (self.file == "reply.messages.json").then_some(text)
    }

    fn encoded(&self) -> Option<Vec<u8>> {
        let kind = [&observer::OPENAI_CHAT, &observer::ANTHROPIC];
        let kind = kind.iter().position(|kind| kind.has(&self.line()))? as u8;
        // Some are compressed by the target, some come so.
        let coding = self.reply.len() / 2 % CODINGS.len();
        let (raw, reply) = match self.reply.len() % 2 {
            0 => (0, self.reply.clone()),
            _ => (encoded::RAW, (CODINGS[coding].1)(&self.reply, 6)),
        };
        Some([&[kind | raw | (coding as u8) << 3, 6], self.call(reply).as_slice()].concat())
    }

    fn shape(&self) -> Vec<u8> {
        let (head, fields) = (self.line().replace(' ', "\n"), self.fields("request", "\n"));
        format!("{head}\n\n{fields}").into_bytes()
    }

    fn request_head(&self) -> Vec<u8> {
        let text = |key| self.text("request", key);
        let line =
            format!("{} {} HTTP/1.1\r\nHost: {}\r\n", text("method"), text("path"), text("host"));
        let fields = self.fields("request", "\r\n");
        let body = match self.body().len() {
            length if length % 2 == 0 => format!("Content-Length: {length}\r\n"),
            _ => "Connection: keep-alive, x-a\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        };
        cut_as_usual(format!("{line}{fields}{body}\r\n").as_bytes())
    }

    fn reply_head(&self) -> Vec<u8> {
        let status = &self.case["response"]["status"];
        let fields = self.fields("response", "\r\n");
        let body = match self.reply.len() {
            length if length % 2 == 0 => format!("content-length: {length}\r\n"),
            _ => "transfer-encoding: chunked\r\n".to_owned(),
        };
        cut_as_usual(format!("HTTP/1.1 {status} Word\r\n{fields}{body}\r\n").as_bytes())
    }

    fn request(&self) -> Option<Vec<u8>> {
        let body = Some(self.body()).filter(|body| !body.is_empty())?;
        // The path whose last word is the same; each is read as another, too.
        let word = |path: &str| path.rsplit(['/', ':']).next().map(str::to_owned);
        let is_it = |path: &&str| word(path) == word(self.text("request", "path"));
        let path = place(request::PATHS, is_it);
        Some([&[path, 0, 7], body.as_bytes()].concat())
    }

    fn hints(&self) -> Option<Vec<u8>> {
        let fields = Some(self.fields("response", "\n")).filter(|fields| !fields.is_empty())?;
        let status = self.case["response"]["status"].as_u64().unwrap_or_default();
        let status = place(STATUSES, |known| u64::from(*known) == status);
        Some([&[status], fields.as_bytes()].concat())
    }

    fn content(&self) -> Option<Vec<u8>> {
        let path = self.text("request", "path");
        let word = |path: &str| path.rsplit(['/', ':']).next().map(str::to_owned);
        let known = content::PATHS.iter().position(|known| word(known) == word(path))?;
        let kind = self.case["response"]["headers"]["content-type"].as_str().unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default();
        let kind = place(content::CONTENT_TYPES, |known| *known == kind);
        let body = self.body();
        // Every other is compressed, and of some little is kept.
        let choices = self.reply.len() as u8 & 5;
        let [high, low] = (body.len() as u16).to_be_bytes();
        let front = [known as u8, kind, choices, 1, 7, high, low];
        Some([&front, body.as_bytes(), &self.reply].concat())
    }

    fn usage_question(&self) -> Option<Vec<u8>> {
        Some(self.body().into_bytes()).filter(|body| !body.is_empty())
    }

    fn usage_filter(&self) -> Option<Vec<u8>> {
        let is_stream = matches!(self.file, "reply.sse");
        is_stream.then(|| [&[0, 7, 0], self.reply.as_slice()].concat())
    }

    fn chunked(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for chunk in self.reply.chunks(300) {
            text.extend_from_slice(format!("{:x};a=b\r\n", chunk.len()).as_bytes());
            text.extend_from_slice(chunk);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"0\r\nx-sum: 1\r\n\r\nnext");
        cut_as_usual(&text)
    }
}

fn place<T>(list: &[T], is_it: impl Fn(&T) -> bool) -> u8 {
    list.iter().position(is_it).unwrap_or_default() as u8
}

/// Most targets begin with what chooses their cuts.
fn cut_as_usual(bytes: &[u8]) -> Vec<u8> {
    [&[0, 7], bytes].concat()
}

/// A document with something at each path of the JSON target.
fn every_path() -> Vec<u8> {
    cut_as_usual(
        br#"{"model":"m\u00e9\ud83d\ude00","usage":{"input":1.5e1,"details":{"cached":-0}},"choices":[{"index":0,
        "delta":{"content":"x"},"finish":null,"parts":[{"text":"a"},{"text":""}]},{"parts":[]}],"error":{"type":"t"},
        "bytes":"YQ\n==","n":18446744073709551615,"list":[1,{"a":"b"},["x"],"s",true]}"#,
    )
}
