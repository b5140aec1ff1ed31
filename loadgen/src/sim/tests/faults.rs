//! Calls that go wrong until further notice.

use super::*;

async fn set(sim: &Running, wish: Value) {
    let answer = sim.post("/-/fault", &wish).send().await.expect("it answers");
    assert_eq!(answer.status(), 200, "{wish}");
}

fn chat(sim: &Running) -> RequestBuilder {
    sim.post("/v1/chat/completions", &json!({"messages": []}))
}

#[tokio::test]
async fn a_fault_strikes_its_part_of_the_calls_until_it_is_healed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let sim = Running::start(quick()).await;
        set(&sim, json!({"kind": "429", "ratio": 0.5, "retry_after": 7})).await;
        let mut statuses = Vec::new();
        for _ in 0..40 {
            let answer = chat(&sim).send().await.expect("it answers");
            if answer.status() == 429 {
                assert_eq!(answer.headers()["retry-after"], "7");
            }
            statuses.push(answer.status().as_u16());
        }
        set(&sim, json!({"kind": "none"})).await;
        for _ in 0..10 {
            assert_eq!(chat(&sim).send().await.expect("it answers").status(), 200);
        }
        let struck = statuses.iter().filter(|status| **status == 429).count();
        assert!((10..=30).contains(&struck), "{struck} of 40");
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1], "one seed, one fate");
}

#[tokio::test]
async fn first_tokens_come_late_where_that_is_the_fault() {
    let sim = Running::start(quick()).await;
    set(&sim, json!({"kind": "slow", "ttft": "1h"})).await;
    assert!(timeout(Duration::from_millis(50), chat(&sim).send()).await.is_err(), "it is slow");
    let quick = chat(&sim).header("x-sim-ttft", "1ms").send().await.expect("it answers");
    assert_eq!(quick.status(), 200);
}

#[tokio::test]
async fn an_overload_stands_in_the_place_of_the_first_token() {
    let sim = Running::start(quick()).await;
    set(&sim, json!({"kind": "overload"})).await;
    for case in cases().into_iter().filter(|case| !matches!(case.framing, Framing::One)) {
        let answer = sim.post(&case.path, &case.body).send().await.expect("it answers");
        assert_eq!(answer.status(), 200, "{}", case.path);
        let bytes = answer.bytes().await.expect("it ends well");
        let objects = case.framing.cut(&bytes);
        let mut texts = objects.iter().filter_map(|object| object.pointer(case.text)?.as_str());
        assert!(texts.all(str::is_empty), "{}", case.path);
        let last = objects.last().expect("the error is an object").to_string();
        assert!(last.contains("error") || last.contains("failed"), "{}: {last}", case.path);
    }
    let whole = chat(&sim).send().await.expect("it answers");
    assert!(whole.status().as_u16() >= 429, "{}", whole.status());
}

#[tokio::test]
async fn a_fault_that_does_not_exist_is_refused() {
    let sim = Running::start(quick()).await;
    let answer = sim.post("/-/fault", &json!({"kind": "explode"})).send().await;
    let answer = answer.expect("it answers");
    assert_eq!(answer.status(), 400);
    assert_eq!(body(answer).await["error"]["message"], "there is no fault `explode`");
    assert_eq!(chat(&sim).send().await.expect("it answers").status(), 200);
}
