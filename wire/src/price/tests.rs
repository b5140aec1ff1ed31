//! What is charged, and what is not.

use serde_json::{Value, json};

use super::*;
use std::time::Duration;

use crate::{Ending, HeadView, Observer, Shape, UsageSource};

fn prices(entries: Value) -> Prices {
    serde_json::from_value(json!({ "version": "v1", "prices": entries })).expect("a table")
}

/// A call that used so many tokens: input in all, read from and written to a cache, and output.
fn call(model: &str, [input, cached, cache_write, output]: [u64; 4]) -> Record {
    Record {
        time: "2026-11-21T10:00:00Z".parse().expect("a time"),
        operation: Some("chat".into()),
        provider: Some("openai".into()),
        request_model: Some(model.to_owned()),
        input_tokens: Some(input),
        cache_read_tokens: Some(cached),
        cache_creation_tokens: Some(cache_write),
        output_tokens: Some(output),
        usage_source: Some(UsageSource::Reported),
        ..Record::default()
    }
}

const UNPRICED: Cost = Cost { usd: None, unpriced: true };
const NOTHING: Cost = Cost { usd: None, unpriced: false };

fn dollars(usd: f64) -> Cost {
    Cost { usd: Some(usd), unpriced: false }
}

#[test]
fn every_part_of_the_tokens_has_its_own_price_and_none_counts_twice() {
    let prices = prices(json!([
        { "models": ["m"], "input": 3, "cached": 0.3, "cache_write": 3.75, "output": 15 },
    ]));
    let cost = prices.cost(&call("m", [1000, 600, 300, 10]));
    assert_eq!(cost, dollars((100.0 * 3.0 + 600.0 * 0.3 + 300.0 * 3.75 + 10.0 * 15.0) / 1e6));
    // A provider that states more cached than there is input is not owed anything.
    assert_eq!(prices.cost(&call("m", [10, 100, 0, 0])), dollars(100.0 * 0.3 / 1e6));
}

#[test]
fn what_has_no_price_makes_the_call_unpriced_and_never_free() {
    let prices = prices(json!([{ "models": ["m"], "input": 3, "output": 15 }]));
    assert_eq!(prices.cost(&call("other", [1, 0, 0, 1])), UNPRICED);
    assert_eq!(prices.cost(&call("m", [10, 5, 0, 1])), UNPRICED, "no price for what was cached");
    assert_eq!(prices.cost(&call("m", [10, 0, 5, 1])), UNPRICED, "nor for what was written");
    assert_eq!(prices.cost(&call("m", [10, 0, 0, 1])), dollars(45e-6));
    let flex = Record { service_tier: Some("flex".to_owned()), ..call("m", [10, 0, 0, 1]) };
    assert_eq!(prices.cost(&flex), UNPRICED, "another service has another price");
    let standard = Record { service_tier: Some("default".to_owned()), ..flex };
    assert_eq!(prices.cost(&standard), dollars(45e-6));

    let mut record = call("other", [1, 0, 0, 1]);
    prices.apply(&mut record);
    assert_eq!((record.cost_usd, record.unpriced, record.price_version), (None, Some(true), None));
    let mut record = call("m", [10, 0, 0, 1]);
    prices.apply(&mut record);
    assert_eq!((record.cost_usd, record.unpriced), (Some(45e-6), None));
    assert_eq!(record.price_version.as_deref(), Some("v1"));
}

#[test]
fn who_only_speaks_like_a_provider_is_not_priced_as_that_one() {
    let own = json!([{ "models": ["m"], "provider": "openai", "input": 3, "output": 15 }]);
    let anybody = json!([{ "models": ["m"], "input": 1, "output": 1 }]);
    let assumed = || Record { is_provider_assumed: true, ..call("m", [10, 0, 0, 1]) };
    assert_eq!(prices(own.clone()).cost(&call("m", [10, 0, 0, 1])), dollars(45e-6));
    assert_eq!(prices(own).cost(&assumed()), UNPRICED);
    assert_eq!(prices(anybody).cost(&assumed()), dollars(11e-6));
}

#[test]
fn a_call_that_ended_before_its_last_count_is_unpriced_and_not_cheap() {
    let prices = prices(json!([{ "models": ["m"], "input": 3, "output": 15 }]));
    let partial = UsageSource::Partial;
    let cut = Record { usage_source: Some(partial), ..call("m", [1000, 0, 0, 1]) };
    assert_eq!(prices.cost(&cut), UNPRICED);
}

#[test]
fn what_is_cached_for_an_hour_is_not_priced_as_what_is_cached_for_minutes() {
    let prices =
        prices(json!([{ "models": ["m"], "input": 3, "cache_write": 3.75, "output": 15 }]));
    let written = |hour: u64| {
        let headers = http::HeaderMap::new();
        let path = "/v1/messages";
        let head = HeadView { method: "POST", host: None, path, query: None, headers: &headers };
        let mut observer = Observer::new(Shape::read(&head));
        observer.head(200, &headers, Duration::ZERO);
        let usage = json!({
            "input_tokens": 10,
            "output_tokens": 1,
            "cache_creation_input_tokens": 100,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 100 - hour,
                "ephemeral_1h_input_tokens": hour,
            },
        });
        let answer = json!({ "model": "m", "stop_reason": "end_turn", "usage": usage });
        observer.chunk(answer.to_string().as_bytes(), Duration::ZERO);
        let mut record = Record::default();
        observer.finish(Ending::Clean, Duration::ZERO, &mut record);
        prices.cost(&record)
    };
    assert_eq!(written(0), dollars((10.0 * 3.0 + 100.0 * 3.75 + 15.0) / 1e6));
    assert_eq!(written(1), UNPRICED);
}

#[test]
fn no_count_is_too_large_to_be_reckoned_with() {
    let prices = prices(json!([
        { "models": ["m"], "input": 1e6, "cached": 1e6, "cache_write": 1e6, "output": 1e6,
          "image": 1e6, "video_second": 1e6 },
    ]));
    let media =
        Media { images_made: Some(u64::MAX), video_seconds: Some(f64::MAX), ..Media::default() };
    let all = Record { media: Some(Box::new(media)), ..call("m", [u64::MAX; 4]) };
    assert!(prices.cost(&all).usd.is_some_and(f64::is_finite));
}

#[test]
fn what_used_nothing_costs_nothing() {
    let prices = prices(json!([{ "models": ["m"], "input": 3, "output": 15, "image": 1 }]));
    let silent = Record { usage_source: None, ..call("m", [0, 0, 0, 0]) };
    assert_eq!(prices.cost(&silent), NOTHING);
    let counting = Record { counted_tokens: Some(7), ..call("m", [7, 0, 0, 0]) };
    assert_eq!(prices.cost(&counting), NOTHING);
    let no_call = Record { operation: None, ..call("m", [7, 0, 0, 0]) };
    assert_eq!(prices.cost(&no_call), NOTHING);
}

#[test]
fn a_price_of_zero_is_a_price() {
    let prices = prices(json!([{ "models": ["gemma-*"], "input": 0, "output": 0 }]));
    assert_eq!(prices.cost(&call("gemma-3-12b", [7, 0, 0, 7])), dollars(0.0));
}

#[test]
fn the_first_entry_that_fits_holds() {
    let prices = prices(json!([
        { "models": ["m"], "provider": "openai", "input": 5, "from": "2027-01-01" },
        { "models": ["m"], "provider": "openai", "input": 4, "from": "2026-11-21" },
        { "models": ["m"], "provider": "openai", "input": 3 },
        { "models": ["m"], "provider": "aws.*", "regions": ["us-east-*", "eu-1"], "input": 2 },
        { "models": ["m"], "provider": "openai", "service_tier": "flex", "input": 1 },
        { "models": ["*m"], "input": 9 },
    ]));
    let at = |time: &str| Record {
        time: time.parse().expect("a time"),
        ..call("m", [1_000_000, 0, 0, 0])
    };
    assert_eq!(prices.cost(&at("2026-11-20T23:59:59Z")), dollars(3.0));
    assert_eq!(prices.cost(&at("2026-11-21T00:00:00Z")), dollars(4.0));
    assert_eq!(prices.cost(&at("2027-06-01T00:00:00Z")), dollars(5.0));

    let now = || at("2026-11-21T00:00:00Z");
    let aws = |region: &str| Record {
        provider: Some("aws.bedrock".into()),
        region: Some(region.into()),
        ..now()
    };
    assert_eq!(prices.cost(&aws("us-east-2")), dollars(2.0));
    assert_eq!(prices.cost(&aws("eu-1")), dollars(2.0));
    assert_eq!(prices.cost(&aws("us-gov-east-1")), dollars(9.0));
    let flex = Record { service_tier: Some("Flex".into()), ..now() };
    assert_eq!(prices.cost(&flex), dollars(1.0));
    assert_eq!(prices.cost(&Record { provider: None, ..now() }), dollars(9.0));
}

#[test]
fn the_model_that_answered_counts_more_than_the_one_that_was_asked() {
    let prices = prices(json!([
        { "models": ["large", "us.anthropic.large-v1:0"], "input": 2 },
        { "models": ["large-2"], "input": 3 },
    ]));
    let answered = |asked: &str, by: Option<&str>| Record {
        response_model: by.map(str::to_owned),
        ..call(asked, [1_000_000, 0, 0, 0])
    };
    assert_eq!(prices.cost(&answered("large", Some("large-2"))), dollars(3.0));
    assert_eq!(prices.cost(&answered("large", Some("something"))), dollars(2.0));
    assert_eq!(prices.cost(&answered("deployment", Some("large-2"))), dollars(3.0));
    for long in [
        "models/large",
        "publishers/google/models/large",
        "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.large-v1:0",
    ] {
        assert_eq!(prices.cost(&answered(long, None)), dollars(2.0), "{long}");
    }
    assert_eq!(prices.cost(&answered("resold/large", None)), UNPRICED);
}

#[test]
fn a_long_input_is_charged_higher_as_a_whole() {
    let above = json!({ "input_tokens": 100, "input": 2, "cached": 0.2, "output": 20 });
    let prices = prices(json!([
        { "models": ["m"], "input": 1, "cached": 0.1, "cache_write": 1, "output": 10, "above": above },
    ]));
    assert_eq!(prices.cost(&call("m", [100, 50, 0, 1])), dollars(65e-6));
    assert_eq!(prices.cost(&call("m", [101, 50, 0, 1])), dollars(132e-6));
    assert_eq!(prices.cost(&call("m", [101, 0, 50, 1])), UNPRICED, "no price up there");
}

#[test]
fn images_and_seconds_are_charged_each() {
    let prices = prices(json!([{ "models": ["m"], "image": 0.04, "video_second": 0.35 }]));
    let made = |media| Record {
        media: Some(Box::new(media)),
        usage_source: None,
        ..call("m", [0, 0, 0, 0])
    };
    let images = made(Media { images_made: Some(3), ..Media::default() });
    assert_eq!(prices.cost(&images), dollars(0.12));
    let video = made(Media { video_seconds: Some(8.5), ..Media::default() });
    assert_eq!(prices.cost(&video), dollars(2.975));
    let unknown = Record { request_model: Some("n".into()), ..images };
    assert_eq!(prices.cost(&unknown), UNPRICED);
}

#[test]
fn audio_is_charged_as_text_only_where_the_table_says_so() {
    let prices = prices(json!([
        { "models": ["text"], "input": 1 },
        { "models": ["any"], "input": 1, "audio_as_input": true },
    ]));
    let spoken = |model| Record {
        media: Some(Box::new(Media { audios: Some(1), ..Media::default() })),
        ..call(model, [1_000_000, 0, 0, 0])
    };
    assert_eq!(prices.cost(&spoken("text")), UNPRICED);
    assert_eq!(prices.cost(&spoken("any")), dollars(1.0));
}

#[test]
fn no_number_that_a_provider_states_overflows() {
    let prices = prices(json!([
        { "models": ["m"], "input": 1e6, "cached": 1e6, "cache_write": 1e6, "output": 1e6,
          "video_second": 1e6 },
    ]));
    let cost = prices.cost(&call("m", [u64::MAX; 4]));
    assert!(cost.usd.is_some_and(|usd| usd > 1e18 && usd.is_finite()), "{cost:?}");
    let media = Media { video_seconds: Some(f64::INFINITY), ..Media::default() };
    let endless = Record { media: Some(Box::new(media)), ..call("m", [0; 4]) };
    assert!(prices.cost(&endless).usd.is_some_and(f64::is_finite));
    let audios = Media { audios: Some(u64::MAX), videos: Some(u64::MAX), ..Media::default() };
    let loud = Record { media: Some(Box::new(audios)), ..call("m", [1; 4]) };
    assert_eq!(prices.cost(&loud), UNPRICED);
}

#[test]
fn a_table_that_cannot_be_meant_is_refused() {
    for (entry, word) in [
        (json!({ "models": ["m"], "input": -1 }), "no price"),
        (json!({ "models": ["m"], "input": 1e7 }), "no price"),
        (json!({ "models": ["m"], "inptu": 1 }), "inptu"),
        (json!({ "models": [] }), "at least one model"),
        (json!({ "models": [""] }), "at least one model"),
        (json!({ "input": 1 }), "models"),
        (json!({ "models": ["m"], "from": "soon" }), "no day"),
        (json!({ "models": ["m"], "above": { "input": 1 } }), "input_tokens"),
    ] {
        let table = json!({ "version": "v1", "prices": [entry] });
        let error = serde_json::from_value::<Prices>(table).expect_err("it is refused").to_string();
        assert!(error.contains(word), "{error}");
    }
}
