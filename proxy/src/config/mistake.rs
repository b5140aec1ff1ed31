//! Tests that whatever is wrong with a configuration is told with its place.

use super::Config;

/// A configuration, and what is said of it: where, which key, and what is wrong.
const MISTAKES: &[(&str, &str)] = &[
    // Unknown keys, at every depth.
    ("upstream: {}", "line 1 column 1: upstream: unknown field `upstream`, … `upstreams`?"),
    ("timeouts:\n  idel: 3s", "line 2 column 3: timeouts.idel: unknown field … `idle`?"),
    ("limits: { job: 3 }", "line 1 column 11: limits.job: unknown field … `jobs`?"),
    ("otlp:\n  traces:\n    sampel: x", "line 3 column 5: otlp.traces.sampel: … `sampler`?"),
    ("upstreams:\n  a.b:\n    ulr: x", "line 3 column 5: upstreams.a.b.ulr: unknown … `url`?"),
    (
        "routes:\n- upstream: a\n- upstream: a\n  match: { headers: {} }",
        "line 4 column 12: routes[1].match.headers: unknown field … `header`?",
    ),
    (
        "upstreams: { a: { credential: { bearr: {} } } }",
        "line 1 column 33: upstreams.a.credential.bearr: … `bearer`?",
    ),
    (
        "upstreams: { a: { credential: { bearer: { fil: x } } } }",
        "upstreams.a.credential.bearer.fil: … `file`?",
    ),
    (
        "upstreams: { a: { credential: { aws: { assume_role: { arm: x } } } } }",
        "upstreams.a.credential.aws.assume_role.arm: … `arn`?",
    ),
    ("qqqqqqqq: 1", "line 1 column 1: qqqqqqqq: unknown field `qqqqqqqq`, expected one of listen"),
    // Unknown words.
    (
        "routes: [{ upstream: a, match: { dialect: opnai } }]",
        "line 1 column 43: routes[0].match.dialect: unknown variant `opnai`, … `openai`?",
    ),
    (
        "routes: [{ upstream: a, include_usage: ad }]",
        "routes[0].include_usage: unknown variant `ad`, … `add`?",
    ),
    ("semantic_conventions: lates", "semantic_conventions: unknown variant … `latest`?"),
    (
        "otlp: { traces: { sampler: alwayson } }",
        "otlp.traces.sampler: unknown variant … `always_on`?",
    ),
    ("otlp: { protocol: grcp }", "otlp.protocol: unknown variant … `grpc`?"),
    // Values of another kind.
    ("listen: 4100", "line 1 column 9: listen: this is not an address; … 127.0.0.1:4100"),
    ("health: localhost:4100", "line 1 column 9: health: this is not an address;"),
    ("workers: many", "line 1 column 10: workers: expected a whole number"),
    ("workers: 0", "workers: invalid value: integer `0`, expected a nonzero u16"),
    ("listen: 127.0.0.1:1\nworkers: 0", "line 2 column 1: workers: invalid value"),
    ("timeouts: { idle: 3 }", "line 1 column 19: timeouts.idle: `3` is not a duration … 1.5s"),
    ("otlp: { interval: 5 }", "line 1 column 19: otlp.interval: this is not a duration; … 1.5s"),
    (
        "limits: { held_body: 3 apples }",
        "line 1 column 22: limits.held_body: `3 apples` is not a size; … 8MiB",
    ),
    ("capture_content: maybe", "line 1 column 18: capture_content: expected true or false"),
    ("routes: a", "line 1 column 9: routes: expected a list"),
    ("timeouts:\n", "timeouts: expected keys with their values"),
    ("timeouts: 3s", "line 1 column 11: timeouts: expected keys with their values"),
    ("listen: [1]", "line 1 column 9: listen: expected one word or text"),
    ("upstreams: { a: { locations: x } }", "upstreams.a.locations: expected a list"),
    ("just text", "line 1 column 1: expected keys with their values"),
    ("- x", "line 1 column 1: expected keys with their values"),
    // What is missing, and what is too much.
    (
        "routes:\n- match: {}",
        "line 2 column 3: routes[0]: leads nowhere: give it an `upstream` or a `split`",
    ),
    (
        "upstreams: { a: { credential: { header: { env: X } } } }",
        "upstreams.a.credential.header.name: missing field `name`",
    ),
    ("upstreams:\n  a: {}", "line 2 column 3: upstreams.a: needs `url` or `addresses`"),
    (
        "listen: 127.0.0.1:1\nlisten: 127.0.0.1:2",
        "line 2 column 1: listen: this key stands here a second time",
    ),
    (
        "upstreams:\n  a: { url: 'http://x' }\n  a: { url: 'http://y' }",
        "line 3 column 3: upstreams.a: this key stands here a second time",
    ),
    (
        "upstreams: { a: { url: 'http://x', credential: {} } }",
        "upstreams.a.credential: a credential is one of",
    ),
    (
        "upstreams: { a: { credential: { bearer: { env: A, file: b } } } }",
        "upstreams.a.credential.bearer: has `file` and `env`",
    ),
    // What is no YAML.
    ("timeouts:\n\tidle: 3s", "line 2 column 2: … tabs … use blanks"),
    ("listen: [1", "line 1 column "),
    ("upstreams: {", "line 1 column "),
    ("listen: 'a", "line 1 column "),
    ("a: b: c", "line 1 column "),
    // What only shows with all of it.
    (
        "upstreams:\n  x: { url: 'http://x' }\n  a:\n    url: ftp://x",
        "line 3 column 3: upstreams.a: `ftp://x` does not begin with http",
    ),
    (
        "upstreams: { gemma: { url: 'http://x' } }\nroutes:\n- upstream: gema",
        "line 3 column 3: routes[0].upstream: there is no upstream `gema`; did you mean `gemma`?",
    ),
    (
        "otlp:\n  traces:\n    ratio: 10",
        "line 3 column 5: otlp.traces.ratio: 10 is not between 0 and 1",
    ),
    ("otlp:\n  endpoint: 'x y'", "line 2 column 3: otlp.endpoint: "),
];

#[test]
fn every_mistake_is_told_with_its_place_and_key_and_what_was_meant() {
    let mut wrong = Vec::new();
    for (text, expected) in MISTAKES {
        let told = Config::parse(text).map_or_else(|error| error.to_string(), |_| "good".into());
        let mut parts = expected.split('…').map(str::trim);
        let what = told.splitn(4, ' ').last().and_then(|rest| rest.split_once(": "));
        let told_from = match expected.starts_with("line ") {
            true => told.as_str(),
            false => what.map_or("", |(_, what)| what),
        };
        let begins = told_from.starts_with(parts.next().unwrap_or_default());
        if !begins || !parts.all(|part| told.contains(part)) || told.contains('\n') {
            wrong.push(format!("{text:?}\n  is: {told}\n not: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_mistake_shows_no_line_beside_it() {
    let text = "otlp:\n  headers: { authorization: canary }\n  intervall: 3s\n";
    let told = Config::parse(text).expect_err("a mistake").to_string();
    assert!(!told.contains("canary"), "{told}");
}
