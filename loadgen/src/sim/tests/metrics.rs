//! What the simulator says of itself at `/metrics`.

use serde_json::json;

use super::*;

#[tokio::test]
async fn metrics_tell_what_runs_what_waits_and_how_full_it_is() {
    let options = Options { capacity: 2, queue: 8, ..quick() };
    let sim = Running::start(options).await;
    // 2,044 tokens of a prompt fill the cache of two sequences with 1,024 each to all but 4.
    let long = json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(4 * 2044)}], "stream": true});
    let short =
        json!({"model": "m", "messages": [{"role": "user", "content": "xxxx"}], "stream": true});
    let slow = |body| sim.post("/v1/chat/completions", body).header("x-sim-ttft", "1h").send();
    let _running = [slow(&long).await, slow(&short).await].map(|answer| answer.expect("a head"));
    let _waiting = [sim.client.clone(), sim.client.clone()].map(|client| {
        let url = format!("http://{}/v1/chat/completions", sim.address);
        let call = client.post(url).body(short.to_string()).send();
        tokio::spawn(async move { call.await.map(drop) })
    });

    sim.tells("vllm:num_requests_waiting", 2.0).await;
    sim.tells("vllm:num_requests_running", 2.0).await;
    sim.tells("vllm:kv_cache_usage_perc", 2045.0 / 2048.0).await;
    sim.tells("DCGM_FI_DEV_GPU_UTIL", 100.0).await;
}

#[tokio::test]
async fn metrics_count_what_was_served_and_how_it_ended() {
    let sim = Running::start(quick()).await;
    let body = |limit: Option<u64>, stream| json!({"model": "m", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": limit, "stream": stream});
    for body in [body(None, true), body(None, false), body(Some(1), true)] {
        let answer = sim.post("/v1/chat/completions", &body).send().await.expect("it answers");
        answer.bytes().await.expect("it ends well");
    }
    let cut = sim.post("/v1/chat/completions", &body(None, true)).header("x-sim-fault", "cut");
    assert!(cut.send().await.expect("a head").bytes().await.is_err());

    sim.tells(r#"finished_reason="stop""#, 2.0).await;
    sim.tells(r#"finished_reason="length""#, 1.0).await;
    sim.tells(r#"finished_reason="abort""#, 1.0).await;
    sim.tells("vllm:prompt_tokens_total", 4.0 * INPUT as f64).await;
    sim.tells("vllm:generation_tokens_total", (2 * OUTPUT + 1 + OUTPUT / 2) as f64).await;
    sim.tells("vllm:time_to_first_token_seconds_count", 4.0).await;
    sim.tells(
        r#"vllm:time_to_first_token_seconds_bucket{model_name="sim",engine="0",le="+Inf"}"#,
        4.0,
    )
    .await;
    sim.tells("vllm:e2e_request_latency_seconds_count", 3.0).await;
    sim.tells("vllm:kv_cache_usage_perc", 0.0).await;
}

impl Running {
    /// Waits until the line of the metrics that holds this text has this value.
    async fn tells(&self, series: &str, value: f64) {
        let told = async {
            loop {
                let page = self.client.get(format!("http://{}/metrics", self.address)).send().await;
                let page = page.expect("it answers").text().await.expect("it is text");
                let line =
                    page.lines().find(|line| !line.starts_with('#') && line.contains(series));
                let (_, told) = line.and_then(|line| line.rsplit_once(' ')).expect("it is there");
                if told.parse() == Ok(value) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), told).await.unwrap_or_else(|_| panic!("{series} {value}"));
    }
}
