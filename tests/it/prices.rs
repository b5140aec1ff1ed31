//! What calls cost, in records and metrics alike, and what a user is told of a table.

use std::fs;

use crate::support::*;

/// A table whose prices are easy to reckon with.
const TABLE: &str =
    "version: mine\nprices:\n  - { models: [\"gpt-4*\"], input: 1000, output: 2000 }\n";

/// A sidecar with this table beside its configuration.
fn priced(upstream: &Upstream, table: &str) -> Sidecar {
    let folder = Folder::new();
    fs::write(folder.file("prices.yaml"), table).expect("a folder to write to");
    fs::write(folder.file("tidegate.yaml"), "prices: prices.yaml\n").expect("a folder");
    let config = folder.file("tidegate.yaml");
    let launch = Launch::new().arg("--upstream").arg(&upstream.url());
    let sidecar = launch.arg("--config").arg(config.to_str().expect("text")).start();
    drop(folder);
    sidecar
}

#[test]
fn a_call_costs_what_the_table_says_and_one_without_a_price_is_counted() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = priced(&upstream, TABLE);
    for _ in 0..3 {
        sidecar.call(call());
    }
    sidecar.wait_records(3);
    // 3 tokens at 1,000 dollars a million, and one at 2,000.
    assert_eq!(sidecar.metric("tidegate_cost_usd_total"), 0.015);
    assert_eq!(sidecar.metric("tidegate_unpriced_calls_total"), 0.0);
    for record in sidecar.finish() {
        assert_eq!(record["tidegate.cost_usd"], 0.005);
        assert_eq!(record["tidegate.cost.prices"], "mine");
        assert!(record["tidegate.cost.unpriced"].is_null());
    }

    let sidecar = priced(&upstream, &TABLE.replace("gpt-4*", "other"));
    sidecar.call(call());
    sidecar.wait_records(1);
    assert_eq!(sidecar.metric("tidegate_cost_usd_total"), 0.0);
    assert_eq!(sidecar.metric("tidegate_unpriced_calls_total"), 1.0);
    assert_eq!(sidecar.metric("tidegate_unpriced_tokens_total"), 4.0);
    let record = sidecar.finish_with_one();
    assert!(record["tidegate.cost_usd"].is_null(), "{record:#}");
    assert_eq!(record["tidegate.cost.unpriced"], true);
}

#[test]
fn without_a_table_of_the_user_the_built_in_one_holds() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let config = format!(
        "upstreams: {{ a: {{ url: \"{}\", provider: openai }} }}\nroutes: [{{ upstream: a }}]\n",
        upstream.url()
    );
    let sidecar = Launch::new().config(&config).start();
    sidecar.call(call());
    let record = sidecar.finish_with_one();
    assert_eq!(record["tidegate.cost_usd"], (3.0 * 2.5 + 10.0) / 1e6);
}

#[test]
fn a_server_of_ones_own_is_not_priced_as_the_provider_whose_interface_it_speaks() {
    let upstream = Upstream::answering(answer(COMPLETION));
    let sidecar = Sidecar::to(&upstream);
    sidecar.call(call());
    let record = sidecar.finish_with_one();
    assert_eq!(record["gen_ai.provider.name"], "openai");
    assert!(record["tidegate.cost_usd"].is_null(), "{record:#}");
    assert_eq!(record["tidegate.cost.unpriced"], true);
}

#[test]
fn an_answer_that_states_no_tokens_costs_nothing_and_is_not_unpriced() {
    let stream = [TOKEN, FINISH, DONE].concat();
    let upstream = Upstream::answering(format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(&stream)));
    let sidecar = Sidecar::to(&upstream);
    sidecar.call(stream_call());
    sidecar.wait_records(1);
    assert_eq!(sidecar.metric("tidegate_usage_absent_total"), 1.0);
    let record = sidecar.finish_with_one();
    assert!(record["tidegate.cost_usd"].is_null(), "{record:#}");
    assert!(record["tidegate.cost.unpriced"].is_null(), "{record:#}");
}

#[test]
fn a_mistake_in_the_table_is_told_with_file_line_and_key() {
    let folder = Folder::new();
    fs::write(folder.file("tidegate.yaml"), "prices: prices.yaml\n").expect("a folder");
    for (table, told) in [
        (
            "version: a\nprices:\n  - { models: [m], inptu: 1 }\n",
            ["did you mean `input`", "line 3"],
        ),
        ("version: a\nprices:\n  - { models: [m], input: -1 }\n", ["no price", "line 3"]),
        ("version: a\nprices:\n  - { models: [m], from: soon }\n", ["no day", "line 3"]),
        ("version: a\nprice: []\n", ["did you mean `prices`", "line 2"]),
        ("", ["unexpected end", "line 1"]),
    ] {
        fs::write(folder.file("prices.yaml"), table).expect("a folder to write to");
        let config = folder.file("tidegate.yaml");
        let config = config.to_str().expect("text");
        for command in
            [vec!["check", config], vec!["proxy", "--upstream", "http://a", "--config", config]]
        {
            let output = tidegate(command).output().expect("the program is built");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains("prices.yaml"), "{said}");
            told.iter().for_each(|word| assert!(said.contains(word), "`{word}` in: {said}"));
        }
    }
    fs::remove_file(folder.file("prices.yaml")).expect("it was there");
    let output = tidegate(["check", folder.file("tidegate.yaml").to_str().expect("text")]).output();
    assert_eq!(output.expect("the program is built").status.code(), Some(2));
}
