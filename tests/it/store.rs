//! What several sidecars share by a Redis, and how they do without.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use crate::support::*;

const CHAT: &str = "/v1/chat/completions";
const SAME: &str =
    r#"{"model":"gpt-4o","temperature":0,"messages":[{"role":"user","content":"sesame"}]}"#;
const SEAL_KEY: &str = "a key that only these sidecars know, and no other";

/// A sidecar before this upstream with a store at this URL, and more that is configured of the store.
fn launch(upstream: &Upstream, url: &str, store: &str, rest: &str) -> Launch {
    let to = upstream.url();
    // A busy machine may take long to answer.
    let deadline = if store.contains("deadline") { "" } else { "deadline: 2s, " };
    let launch = Launch::new().config(&format!(
        "upstreams: {{ a: {{ url: '{to}', provider: openai }} }}\n\
         store: {{ url: '{url}', {deadline}seal_key: seal.key, {store} }}\n{rest}"
    ));
    std::fs::write(launch.file("seal.key"), SEAL_KEY).expect("a folder to write to");
    launch
}

/// One whose only route has a cache that is shared.
fn caching(upstream: &Upstream, url: &str, store: &str) -> Sidecar {
    let rest = "routes: [{ upstream: a, cache: {} }]\ncache: { shared: true }";
    launch(upstream, url, store, rest).start()
}

/// One with this quota, which is shared.
fn rationing(upstream: &Upstream, url: &str, store: &str, quota: &str) -> Sidecar {
    let rest = format!(
        "routes: [{{ upstream: a }}]\nquotas: {{ all: {{ {quota}, mode: enforce, shared: true }} }}"
    );
    launch(upstream, url, store, &rest).start()
}

fn same() -> String {
    bare_post(CHAT, SAME)
}

fn said(reply: &Message) -> Option<&str> {
    reply.header("x-tidegate-cache").map(|said| said.split(';').next().expect("a word"))
}

/// Waits until the store is what this word says.
fn wait_state(sidecar: &Sidecar, state: &str) {
    wait_until(&format!("the store is {state}"), || {
        sidecar.ask("/policies").json()["store"]["redis"]["state"] == state
    });
}

/// How often this operation came to this.
fn count(sidecar: &Sidecar, operation: &str, result: &str) -> u64 {
    let name =
        format!(r#"tidegate_store_operations_total{{operation="{operation}",result="{result}"}} "#);
    let text = sidecar.ask("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().expect("a number"))
}

/// How many of so many calls get in, at each of these in turn.
fn entering(sidecars: &[&Sidecar], calls: usize) -> usize {
    let entered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..calls {
            let (sidecar, entered) = (sidecars[number % sidecars.len()], &entered);
            scope.spawn(move || match sidecar.call(call()).status() {
                200 => _ = entered.fetch_add(1, SeqCst),
                status => assert_eq!(status, 429),
            });
        }
    });
    entered.into_inner()
}

/// Waits until all that calls came to was told to others.
fn wait_settled(redis: &Redis, used: u64) {
    wait_until("all is told", || spent(redis) == used);
}

/// Requests that all sidecars have spent, as the store has it.
fn spent(redis: &Redis) -> u64 {
    let of = |key: &String| redis.ask(&["HGET", key, "requests"]).parse::<u64>().unwrap_or(0);
    redis.keys("tidegate:quota:").iter().map(of).sum()
}

#[test]
fn what_one_sidecar_was_told_another_gives_again_and_nobody_reads_it_on_the_way() {
    let Some(redis) = Redis::start(&[]) else { return };
    let upstream = Upstream::answering(answer(COMPLETION));
    let [one, other] = [(); 2].map(|()| caching(&upstream, &redis.url(), ""));
    assert_eq!(said(&one.call(same())), None);
    wait_until("it is kept", || redis.keys("tidegate:answer:").len() == 1);
    let again = other.call(same());
    assert_eq!((said(&again), again.text().as_str()), (Some("hit"), COMPLETION));
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(said(&other.call(same())), Some("hit"), "now from its own memory");
    assert_eq!((count(&other, "cache_get", "ok"), count(&one, "cache_put", "ok")), (1, 1));
    let records = other.wait_records(2);
    assert_eq!(records[0]["tidegate.saved.input_tokens"], 3);

    let key = redis.keys("tidegate:answer:").remove(0);
    let kept = redis.ask(&["GET", &key]);
    for text in ["sesame", "gpt-4o", "json", "\"hi\"", "stop"] {
        assert!(!kept.contains(text), "{text} can be read: {kept}");
    }
    assert!(redis.ask(&["PTTL", &key]).parse::<u64>().expect("it ends") <= 3_600_000);
}

#[test]
fn what_was_changed_or_put_in_the_place_of_another_is_no_answer() {
    let Some(redis) = Redis::start(&[]) else { return };
    let upstream = Upstream::answering(answer(COMPLETION));
    let one = caching(&upstream, &redis.url(), "");
    let other_call = bare_post(CHAT, &SAME.replace("sesame", "poppy"));
    one.call(same());
    wait_until("it is kept", || redis.keys("tidegate:answer:").len() == 1);
    let key = redis.keys("tidegate:answer:").remove(0);
    one.call(&other_call);
    wait_until("both are kept", || redis.keys("tidegate:answer:").len() == 2);
    let keys = redis.keys("tidegate:answer:");
    let other_key = keys.iter().find(|found| **found != key).expect("another");
    assert_eq!(redis.ask(&["COPY", other_key, &key, "REPLACE"]), "1");
    redis.ask(&["SETRANGE", other_key, "60", "x"]);
    let reader = caching(&upstream, &redis.url(), "");
    for request in [&same(), &other_call] {
        assert_eq!(said(&reader.call(request)), None);
    }
    redis.ask(&["SET", &key, "anything"]);
    redis.ask(&["DEL", other_key]);
    redis.ask(&["LPUSH", other_key, "what is no text"]);
    let reader = caching(&upstream, &redis.url(), "");
    for request in [&same(), &other_call] {
        assert_eq!(said(&reader.call(request)), None);
    }
    // Whoever has another key is nobody here.
    let stranger = launch(
        &upstream,
        &redis.url(),
        "",
        "routes: [{ upstream: a, cache: {} }]\ncache: { shared: true }",
    );
    std::fs::write(stranger.file("seal.key"), "another key, which is as long as it must be")
        .expect("a folder");
    assert_eq!(said(&stranger.start().call(same())), None);
}

#[test]
fn of_the_callers_of_two_sidecars_exactly_so_many_get_in_as_there_is_left_for_all() {
    let Some(redis) = Redis::start(&[]) else { return };
    let upstream = Upstream::answering(answer(COMPLETION));
    for window in ["window: 1h", "window: month"] {
        redis.ask(&["FLUSHALL"]);
        let quota = format!("{window}, requests: 40");
        let [one, other] = [(); 2].map(|()| rationing(&upstream, &redis.url(), "", &quota));
        assert_eq!(entering(&[&one, &other], 100), 40, "{window}");
        assert_eq!(count(&one, "quota_admit", "ok"), 50);
        wait_settled(&redis, 40);
        let refused = one.call(call());
        assert_eq!(
            (refused.status(), refused.header("x-tidegate-error")),
            (429, Some("quota_spent"))
        );
        assert!(refused.header("retry-after").is_some());
        // Each knows what all have spent.
        for sidecar in [&one, &other] {
            wait_until("it knows", || sidecar.metric("tidegate_quota_used") == 40.0);
        }
    }
}

#[test]
fn what_a_call_did_not_use_is_there_for_the_callers_of_others() {
    let Some(redis) = Redis::start(&[]) else { return };
    let upstream = Upstream::answering(answer(COMPLETION));
    let quota = "window: 1h, output_tokens: 100, reserve: most";
    let [one, other] = [(); 2].map(|()| rationing(&upstream, &redis.url(), "", quota));
    let asking = |tokens: u64| {
        post(CHAT, &format!(r#"{{"model":"gpt-4o","messages":[],"max_tokens":{tokens}}}"#))
    };
    // It holds ninety, and uses one.
    assert_eq!(one.call(asking(90)).status(), 200);
    wait_until("others may have the rest", || other.call(asking(90)).status() == 200);
    assert_eq!(one.call(asking(101)).header("x-tidegate-error"), Some("over_quota"));
}

#[test]
fn without_its_store_a_sidecar_starts_and_serves_and_tells_what_came_to_pass_once_it_is_there() {
    let port = free_port();
    let upstream = Upstream::answering(answer(COMPLETION));
    let url = format!("redis://127.0.0.1:{port}");
    let sidecar = rationing(&upstream, &url, "", "window: 1h, requests: 3");
    wait_state(&sidecar, "unwell");
    assert_eq!(sidecar.ask("/readyz").text(), "ok, without the store\n");
    assert_eq!(sidecar.metric("tidegate_store_up"), 0.0);
    assert_eq!(entering(&[&sidecar], 5), 3, "it goes by what it knows");
    assert_eq!(count(&sidecar, "quota_admit", "skipped"), 5);
    assert_eq!(
        sidecar.ask("/policies").json()["store"]["redis"]["last_trouble"]["kind"],
        "connection"
    );
    let cache = caching(&upstream, &url, "");
    assert_eq!(said(&cache.call(same())), None);
    wait_until("it is in memory", || cache.metric("tidegate_cache_entries") == 1.0);
    assert_eq!(said(&cache.call(same())), Some("hit"));

    let Some(mut redis) = Redis::start(&[]) else { return };
    redis.kill();
    redis.port = port;
    redis.restart();
    wait_state(&sidecar, "well");
    assert_eq!(sidecar.ask("/readyz").text(), "ok\n");
    wait_settled(&redis, 3);
    let other = rationing(&upstream, &url, "", "window: 1h, requests: 3");
    assert_eq!(entering(&[&other], 2), 0);
}

#[test]
fn a_store_that_stands_still_holds_nobody_up_for_longer_than_its_deadline_and_then_not_at_all() {
    let Some(redis) = Redis::start(&[]) else { return };
    let upstream = Upstream::answering(answer(COMPLETION));
    let quota = "window: 1h, requests: 1000";
    let sidecar = rationing(&upstream, &redis.url(), "deadline: 200ms", quota);
    assert_eq!(sidecar.call(call()).status(), 200);
    redis.pause();
    // Three in a row, and each is served.
    for _ in 0..3 {
        assert_eq!(sidecar.call(call()).status(), 200);
    }
    wait_state(&sidecar, "unwell");
    let timeouts = count(&sidecar, "quota_admit", "timeout");
    assert_eq!(entering(&[&sidecar], 20), 20);
    assert_eq!(count(&sidecar, "quota_admit", "timeout"), timeouts, "nobody waits any more");
    assert!(count(&sidecar, "quota_admit", "skipped") >= 20);
    redis.go_on();
    wait_state(&sidecar, "well");
    // Those that nobody waited for were let in after all, which shows with the next ones.
    assert_eq!((entering(&[&sidecar], 1), entering(&[&sidecar], 1)), (1, 1));
    wait_settled(&redis, 26);
}

#[test]
fn what_a_store_has_lost_it_is_told_anew() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let upstream = Upstream::answering(answer(COMPLETION));
    let quota = "window: month, requests: 40";
    let [one, other] = [(); 2].map(|()| rationing(&upstream, &redis.url(), "", quota));
    assert_eq!(entering(&[&one], 10) + entering(&[&other], 10), 20);
    wait_settled(&redis, 20);
    redis.ask(&["SCRIPT", "FLUSH"]);
    redis.ask(&["FLUSHALL"]);
    // With its next word each says all that it has spent.
    assert_eq!((entering(&[&one], 1), entering(&[&other], 1)), (1, 1));
    wait_settled(&redis, 22);
    redis.kill();
    assert_eq!(entering(&[&one], 1), 1);
    redis.restart();
    for sidecar in [&one, &other] {
        wait_until("it is asked again", || {
            assert_eq!(sidecar.call(call()).status(), 200);
            spent(&redis) > 0
        });
    }
    wait_until("all is told", || spent(&redis) as usize == upstream.requests().len());
    let left = 40 - upstream.requests().len();
    assert_eq!(entering(&[&one, &other], 40), left, "no more than there is");
}

#[test]
fn a_sidecar_that_is_cut_off_goes_on_by_what_it_knew_and_no_more_than_that_is_spent_too_much() {
    let Some(redis) = Redis::start(&[]) else { return };
    let upstream = Upstream::answering(answer(COMPLETION));
    let way = Way::to(redis.port);
    let quota = "window: month, requests: 40";
    let one = rationing(&upstream, &redis.url(), "", quota);
    let other = rationing(&upstream, &format!("redis://{}", way.address), "", quota);
    assert_eq!(entering(&[&one], 19), 19);
    assert_eq!(entering(&[&other], 1), 1);
    wait_until("it knows of the others", || other.metric("tidegate_quota_used") == 20.0);
    way.cut();
    wait_until("it is cut off", || {
        let _ = other.call(call());
        other.metric("tidegate_store_up") == 0.0
    });
    let before = upstream.requests().len();
    let more = entering(&[&one], 40) + entering(&[&other], 40);
    let all = before + more;
    // Each may spend all that was left as it last knew.
    assert!((40..=60).contains(&all), "{all}");
    way.mend();
    wait_state(&other, "well");
    wait_settled(&redis, all as u64);
    assert_eq!(entering(&[&one, &other], 10), 0);
}

#[test]
fn who_is_not_known_to_the_store_is_told_so_and_serves_without() {
    let Some(redis) = Redis::start(&["--requirepass", "hush-hush"]) else { return };
    let upstream = Upstream::answering(answer(COMPLETION));
    let quota = "window: 1h, requests: 3";
    let store = "password: { env: STORE_PASSWORD }";
    let with = |password: &str, store: &str| {
        let rest = format!(
            "routes: [{{ upstream: a }}]\nquotas: {{ all: {{ {quota}, mode: enforce, shared: true }} }}"
        );
        launch(&upstream, &redis.url(), store, &rest).env("STORE_PASSWORD", password).start()
    };
    for (password, store) in [("wrong", store), ("", "")] {
        let password = if password.is_empty() { "unused" } else { password };
        let sidecar = with(password, store);
        wait_state(&sidecar, "unwell");
        let trouble = &sidecar.ask("/policies").json()["store"]["redis"]["last_trouble"]["kind"];
        assert_eq!(trouble, "denied");
        assert_eq!(entering(&[&sidecar], 5), 3);
        let log = sidecar.log();
        assert!(log.contains("store is not well") && !log.contains(password), "{log}");
    }
    let sidecar = with("hush-hush", store);
    assert_eq!(entering(&[&sidecar], 5), 3);
    assert_eq!(count(&sidecar, "quota_admit", "ok"), 5);
    // One who may do no more than it must.
    let own =
        |words: &[&str]| redis.ask(&[&["-a", "hush-hush", "--no-auth-warning"], words].concat());
    let rights = [
        "ACL",
        "SETUSER",
        "gate",
        "on",
        ">secret-of-gate",
        "~tidegate:*",
        "+evalsha",
        "+script",
        "+hmget",
        "+hget",
        "+hset",
        "+hincrby",
        "+pexpireat",
        "+set",
        "+getrange",
        "+ping",
    ];
    assert_eq!(own(&rights), "OK");
    let user = with("secret-of-gate", "username: gate, password: { env: STORE_PASSWORD }");
    wait_state(&user, "well");
    own(&["FLUSHALL"]);
    assert_eq!(entering(&[&user], 2), 2);
    assert_eq!(count(&user, "quota_admit", "ok"), 2);
}

#[test]
fn a_store_that_is_full_is_read_and_calls_go_on() {
    let Some(redis) = Redis::start(&["--maxmemory-policy", "noeviction"]) else { return };
    let upstream = Upstream::answering(answer(COMPLETION));
    let one = caching(&upstream, &redis.url(), "");
    one.call(same());
    wait_until("it is kept", || redis.keys("tidegate:answer:").len() == 1);
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let other = caching(&upstream, &redis.url(), "");
    assert_eq!(said(&other.call(same())), Some("hit"), "what is there can be read");
    assert_eq!(said(&other.call(bare_post(CHAT, &SAME.replace("sesame", "poppy")))), None);
    wait_until("it is told", || count(&other, "cache_put", "full") == 1);
    let quota = rationing(&upstream, &redis.url(), "", "window: 1h, requests: 3");
    assert_eq!(entering(&[&quota], 5), 3, "it goes by what it knows");
    assert_eq!(count(&quota, "quota_admit", "full"), 5);
    assert_eq!(quota.metric("tidegate_store_up"), 1.0);
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    wait_settled(&redis, 3);
}

#[test]
fn a_store_with_tls_is_spoken_to_by_those_who_trust_it() {
    let certificate = Certificate::new();
    let Some(redis) = Redis::with_tls(&certificate) else { return };
    let upstream = Upstream::answering(answer(COMPLETION));
    let quota = "routes: [{ upstream: a }]\nquotas: { all: { window: 1h, requests: 3, mode: enforce, shared: true } }";
    let trusting = launch(&upstream, &redis.url(), "tls: { roots: ca.pem }", quota);
    std::fs::write(trusting.file("ca.pem"), certificate.pem()).expect("a folder to write to");
    let trusting = trusting.start();
    assert_eq!(entering(&[&trusting], 5), 3);
    assert_eq!(count(&trusting, "quota_admit", "ok"), 5);
    let doubting = launch(&upstream, &redis.url(), "", quota).start();
    wait_state(&doubting, "unwell");
    let trouble = &doubting.ask("/policies").json()["store"]["redis"]["last_trouble"]["kind"];
    assert_eq!(trouble, "tls");
    assert_eq!(entering(&[&doubting], 5), 3);
}

#[test]
fn a_call_whose_caller_leaves_while_the_store_is_asked_spends_nothing() {
    let Some(redis) = Redis::start(&[]) else { return };
    let upstream = Upstream::answering(answer(COMPLETION));
    // One worker asks on one connection, where no question overtakes another: of several, the next
    // could be answered before the store hears of the one that nobody waits for.
    let quota = "window: 1h, requests: 1000, mode: enforce, shared: true";
    let rest = format!("routes: [{{ upstream: a }}]\nquotas: {{ all: {{ {quota} }} }}");
    let sidecar = launch(&upstream, &redis.url(), "deadline: 5s", &rest).workers(1).start();
    assert_eq!(sidecar.call(call()).status(), 200);
    wait_settled(&redis, 1);
    redis.pause();
    let mut caller = sidecar.connect();
    caller.send(call());
    wait_until("it is under way", || sidecar.metric("tidegate_calls_in_flight") == 1.0);
    drop(caller);
    assert_outcome(&sidecar.wait_records(2)[1], "abandoned", None);
    redis.go_on();
    // With the next it is known that nobody spends what was let in.
    assert_eq!(sidecar.call(call()).status(), 200);
    assert_eq!(upstream.requests().len(), 2);
    wait_settled(&redis, 2);
}
