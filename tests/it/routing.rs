//! Which call goes where, and what a user is told of a configuration.

use std::fs;
use std::process::Output;

use crate::support::*;

/// An upstream that says its name.
fn named(name: &str) -> Upstream {
    Upstream::answering(answer(&format!("\"{name}\"")))
}

#[test]
fn the_first_route_that_matches_takes_the_call() {
    let (bedrock, pool, gemma, rest) =
        (named("bedrock"), named("pool"), named("gemma"), named("rest"));
    let config = format!(
        r#"
upstreams:
  bedrock: {{ url: "{}" }}
  pool: {{ addresses: ["{}/base"] }}
  gemma: {{ url: "{}", model: gemma-3-12b }}
  rest: {{ url: "{}" }}
routes:
  - {{ match: {{ dialect: bedrock }}, upstream: bedrock }}
  - {{ match: {{ path: "/openai/*", header: {{ x-team: a }}, model: "gpt-*" }}, strip_prefix: /openai, upstream: pool }}
  - {{ match: {{ path: "/generate" }}, upstream: gemma }}
  - {{ name: other, match: {{ host: "*.example" }}, upstream: rest }}
"#,
        bedrock.url(),
        pool.url(),
        gemma.url(),
        rest.url()
    );
    let sidecar = Launch::new().config(&config).start();
    let large = "x".repeat(5 << 20);
    let team = |request: String| request.replacen("\r\n", "\r\nX-Team: a\r\n", 1);
    let chat = |body: &str| team(post("/openai/v1/chat/completions", body));
    let late = format!(r#"{{"messages":[{{"content":"{large}"}}],"model":"gpt-4o"}}"#);
    for (request, to) in [
        (post("/model/amazon.nova-pro-v1:0/converse", "{}"), "bedrock"),
        (chat(r#"{"model":"gpt-4o"}"#), "pool"),
        (chat(&late), "pool"),
        (chat(r#"{"model":"o3"}"#), "rest"),
        (post("/openai/v1/chat/completions", r#"{"model":"gpt-4o"}"#), "rest"),
        (post("/generate", r#"{"inputs":"hi"}"#), "gemma"),
        (call(), "rest"),
    ] {
        let reply = sidecar.call(&request);
        assert_eq!(reply.json(), to, "{}", &request[..request.len().min(300)]);
    }
    let paths: Vec<_> = pool.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(paths, ["/base/v1/chat/completions"; 2]);
    assert!(pool.requests()[1].text() == late, "what was read ahead is sent");

    let records = sidecar.finish();
    assert_eq!(records.len(), 7);
    let of =
        |path: &str| records.iter().find(|record| record["url.path"] == path).expect("its record");
    assert_eq!(of("/generate")["gen_ai.request.model"], "gemma-3-12b");
    assert_eq!(of("/v1/chat/completions")["tidegate.route"], "other");
    assert_eq!(of("/v1/chat/completions")["tidegate.upstream"], "rest");
    records.iter().for_each(|record| assert_outcome(record, "completed", None));
}

#[test]
fn a_location_of_the_path_is_one_that_is_configured() {
    let upstream = named("vertex");
    let config = format!(
        "upstreams: {{ v: {{ url: 'http://{{location}}-x.example', address: '{}', locations: [us-central1] }} }}\nroutes: [{{ upstream: v }}]",
        upstream.address
    );
    let sidecar = Launch::new().config(&config).start();
    let path = |location: &str| {
        post(
            &format!(
                "/v1/projects/p/locations/{location}/publishers/google/models/g:generateContent"
            ),
            "{}",
        )
    };
    assert_eq!(sidecar.call(path("us-central1")).status(), 200);
    assert_eq!(upstream.request().header("host"), Some("us-central1-x.example"));
    let refused = sidecar.call(path("evil.example%2f"));
    assert_eq!(refused.status(), 404);
    let records = sidecar.finish();
    let refused = records.iter().find(|record| record["http.response.status_code"] == 404);
    assert_outcome(refused.expect("its record"), "refused", Some("client"));
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_dead_address_is_passed_over_unnoticed() {
    let (first, second) = (named("first"), named("second"));
    let config = format!(
        "workers: 1\nupstreams: {{ a: {{ addresses: ['{}', 'http://{}', '{}'] }} }}\nroutes: [{{ upstream: a }}]",
        first.url(),
        nowhere(),
        second.url()
    );
    let sidecar = Launch::new().config(&config).start();
    for _ in 0..9 {
        assert_eq!(sidecar.call(call()).status(), 200);
    }
    assert!(!first.requests().is_empty() && !second.requests().is_empty());
    let records = sidecar.finish();
    assert_eq!(records.len(), 9);
    assert!(records.iter().any(|record| record["tidegate.attempts"] == 2));
}

#[test]
fn a_flag_counts_more_than_its_variable_and_that_more_than_the_file() {
    let (flag, variable, file) = (named("flag"), named("variable"), named("file"));
    let config =
        format!("upstreams: {{ a: {{ url: '{}' }} }}\nroutes: [{{ upstream: a }}]", file.url());
    let launch = || Launch::new().config(&config);
    let by_variable = || launch().env("TIDEGATE_UPSTREAM", variable.url());
    let by_flag = by_variable().arg("--upstream").arg(&flag.url());
    for (launch, expected) in [(launch(), "file"), (by_variable(), "variable"), (by_flag, "flag")] {
        assert_eq!(launch.start().call(call()).json(), expected);
    }
}

/// Runs the program to its end.
fn run(arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } =
        tidegate(arguments.iter().copied()).output().expect("the program is built");
    let text = [stdout, stderr].concat();
    (status.code().expect("no signal"), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_wrong_configuration_is_told_with_file_line_and_the_nearest_key() {
    let folder = Folder::new();
    let path = folder.file("tidegate.yaml");
    let name = path.to_str().expect("a plain name");
    for (text, code, parts) in [
        ("", 0, vec!["good"]),
        ("listen: 127.0.0.1:1\nupstream: {}\n", 2, vec!["line 2", "upstream", "`upstreams`"]),
        ("timeouts:\n  idel: 1s\n", 2, vec!["line 2", "idel", "`idle`"]),
        ("timeouts: { idle: 300 }\n", 2, vec!["is not a duration"]),
        ("routes: [{ upstream: nobody }]\n", 2, vec!["routes[0].upstream", "nobody"]),
        ("listen: [\n", 2, vec!["line"]),
    ] {
        fs::write(&path, text).expect("a folder to write to");
        let (found, said) = run(&["check", name]);
        assert_eq!(found, code, "{text:?}: {said}");
        for part in parts.into_iter().chain([name]) {
            assert!(said.contains(part), "{text:?}: no {part:?} in {said}");
        }
    }
    assert_eq!(run(&["check", "/nowhere/tidegate.yaml"]).0, 2);
}

#[test]
fn an_address_that_is_taken_is_told() {
    let sidecar = Sidecar::to(&named("a"));
    for (flag, address) in [("--listen", sidecar.address), ("--admin", sidecar.admin)] {
        let address = address.to_string();
        let other = if flag == "--listen" { "--admin" } else { "--listen" };
        let arguments = ["proxy", "--upstream", "http://a", flag, &address, other, "127.0.0.1:0"];
        let (code, said) = run(&arguments);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(&address) && said.contains("another process"), "{said}");
    }
}

#[test]
fn health_says_by_its_exit_code_whether_a_sidecar_is_ready() {
    let sidecar = Sidecar::to(&named("a"));
    let admin = sidecar.admin.to_string();
    assert_eq!(run(&["health", "--admin", &admin]).0, 0);
    assert_eq!(run(&["health", "--admin", &admin, "--live"]).0, 0);
    sidecar.signal("TERM");
    wait_until("it is no longer ready", || run(&["health", "--admin", &admin]).0 == 1);
    assert_eq!(run(&["health", "--admin", &admin, "--live"]).0, 0);
    assert_eq!(run(&["health", "--admin", &nowhere().to_string()]).0, 1);
    assert_eq!(run(&["health", "--admin", "nonsense"]).0, 2);
}

#[test]
fn every_command_explains_itself() {
    let (code, said) = run(&["--help"]);
    assert_eq!(code, 0, "{said}");
    let commands = said.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let names: Vec<_> = commands
        .map_while(|line| line.strip_prefix("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.contains(&"proxy") && names.contains(&"check"), "{said}");
    for name in names.into_iter().filter(|name| *name != "help") {
        let (code, said) = run(&[name, "--help"]);
        assert!(code == 0 && said.contains("Usage:"), "{name}: {said}");
    }
    assert_eq!(run(&["proxy"]).0, 2, "there is nowhere to send calls to");
    assert_eq!(run(&["nonsense"]).0, 2);
}
