//! What came to pass in the last hour, as JSON: `/recent` for programs, `/calls` for whoever looks for
//! one that went wrong, and `/live` for the page.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Inside, Shown, json as answer_json, text};
use crate::export::recent::{
    Alert, By, Figures, MINUTES, Notable, QUANTILE_ERROR, Quantiles, Recent, total,
};
use crate::export::rollup::{Key, Rollup, Sums};
use crate::export::tail::Wanted;
use crate::query::Query;

/// Models that have a line of their own in each minute.
const LINES: usize = 6;

/// Answers one of the three.
pub(super) fn answer(inside: &Inside, uri: &Uri) -> Response<Full<Bytes>> {
    let Some(recent) = &inside.recent else { return none() };
    let query = Query::of(uri.query());
    let now = Timestamp::now();
    let shown = match uri.path() {
        "/recent" => recently(recent, &query, now),
        "/calls" => Ok(calls(recent)),
        _ => live(inside, recent, &query, now),
    };
    match shown {
        Ok(shown) => answer_json(&shown),
        Err(advice) => text(StatusCode::BAD_REQUEST, format!("{advice}\n")),
    }
}

/// Answers `/tail`: calls as they end, as JSON lines, until the caller leaves.
pub(super) fn tail(inside: &Inside, uri: &Uri) -> Response<Shown> {
    let refused = |status, advice: String| text(status, advice).map(BodyExt::boxed_unsync);
    let Some(recent) = &inside.recent else { return none().map(BodyExt::boxed_unsync) };
    let wanted = match Wanted::parse(&Query::of(uri.query())) {
        Ok(wanted) => wanted,
        Err(advice) => return refused(StatusCode::BAD_REQUEST, format!("{advice}\n")),
    };
    let Some(followed) = recent.tail().follow(wanted) else {
        let advice = "too many follow already: four may at a time\n";
        return refused(StatusCode::SERVICE_UNAVAILABLE, advice.to_owned());
    };
    let mut answer = Response::new(followed.boxed_unsync());
    let content_type = HeaderValue::from_static("application/x-ndjson");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn none() -> Response<Full<Bytes>> {
    let advice = "the last hour is not kept: `recent: false` is in the configuration\n";
    text(StatusCode::NOT_FOUND, advice)
}

/// The minutes of a window: `5m` where nothing is said.
fn minutes(query: &Query) -> Result<i64, String> {
    let text = query.value("window").unwrap_or("5m");
    let number = |unit| text.strip_suffix(unit).and_then(|number| number.parse::<i64>().ok());
    let minutes = number("m").or_else(|| number("h").and_then(|hours| hours.checked_mul(60)));
    minutes
        .filter(|minutes| (1..=MINUTES).contains(minutes))
        .ok_or_else(|| format!("window is from 1m to {MINUTES}m, whole minutes; not `{text}`"))
}

fn parts(query: &Query) -> Result<Vec<By>, String> {
    By::list(query.value("by").unwrap_or("model")).map_err(|word| {
        let known = By::ALL.map(By::as_str).join(", ");
        format!("by is a list of {known}; not `{word}`")
    })
}

fn recently(recent: &Recent, query: &Query, now: Timestamp) -> Result<Value, String> {
    let by = parts(query)?;
    let window = recent.window(minutes(query)?, now);
    let seconds = window.seconds();
    Ok(json!({
        "from": window.from,
        "to": window.to,
        "covers_s": seconds,
        "quantile_error": QUANTILE_ERROR,
        "total": Figures::of(&window.total(), seconds),
        "by": by.iter().map(|by| by.as_str()).collect::<Vec<_>>(),
        "rows": rows(&window.by(&by), &by, seconds),
    }))
}

fn rows(groups: &[(Key, Sums)], by: &[By], seconds: f64) -> Vec<Value> {
    let row = |(key, sums): &(Key, Sums)| {
        let mut row = Map::new();
        for by in by {
            row.insert(by.as_str().to_owned(), by.part(key).to_string().into());
        }
        let figures = serde_json::to_value(Figures::of(sums, seconds)).unwrap_or_default();
        row.extend(figures.as_object().cloned().unwrap_or_default());
        row.into()
    };
    groups.iter().map(row).collect()
}

fn calls(recent: &Recent) -> Value {
    let (failed, slow) = recent.notable(|notable: &Notable| (notable.failed(), notable.slow()));
    json!({ "failed": failed, "slow": slow })
}

fn live(inside: &Inside, recent: &Recent, query: &Query, now: Timestamp) -> Result<Value, String> {
    let hour = recent.window(MINUTES, now);
    let models = hour.by(&[By::Model]);
    let lines: Vec<_> = models.iter().take(LINES).map(|(key, _)| &*key.model).collect();
    let generation = inside.generations.borrow().clone();
    let mut shown = recently(recent, query, now)?;
    let window = recent.window(minutes(query)?, now);
    shown["routes"] = rows(&window.by(&ROUTES), &ROUTES, window.seconds()).into();
    shown["hour"] = json!({
        "from": hour.from,
        "total": Figures::of(&hour.total(), hour.seconds()),
        "minutes": recent.each_minute(now, minute).into_iter().map(of_minute).collect::<Vec<_>>(),
        "models": lines.iter().map(|model| line(recent, model, now)).collect::<Vec<_>>(),
    });
    shown["in_flight"] = inside
        .registry
        .in_flight()
        .into_iter()
        .map(|((model, upstream), calls)| json!({ "model": model, "upstream": upstream, "calls": calls }))
        .collect();
    shown["alerts"] = serde_json::to_value(Alert::all(recent, now)).unwrap_or_default();
    shown["calls"] = calls(recent);
    shown["bypass"] = generation.switch().is_on().into();
    // Of the minute that goes on and the one before it.
    let now_on = recent.window(1, now);
    let load_test = now_on.total().load_test;
    if load_test > 0 {
        let rate = load_test as f64 / now_on.seconds();
        shown["load_test"] = json!({ "calls": load_test, "calls_per_second": rate });
    }
    shown["version"] = env!("CARGO_PKG_VERSION").into();
    Ok(shown)
}

/// Routes are shown with the upstreams that served their calls.
const ROUTES: [By; 2] = [By::Route, By::Upstream];

/// What is drawn of a minute.
struct Minute {
    calls: u64,
    errors: u64,
    cost_usd: f64,
    input_tokens: u64,
    output_tokens: u64,
    latency: Option<Quantiles>,
    first_token: Option<Quantiles>,
}

fn minute(rollup: &Rollup) -> Minute {
    Minute::of(&total(rollup))
}

impl Minute {
    fn of(sums: &Sums) -> Self {
        Self {
            calls: sums.calls,
            errors: sums.errors,
            cost_usd: sums.cost_usd,
            input_tokens: sums.tokens.input,
            output_tokens: sums.tokens.output,
            latency: Quantiles::of(&sums.latency()),
            first_token: Quantiles::of(&sums.first_token),
        }
    }
}

fn of_minute((time, minute): (Timestamp, Option<Minute>)) -> Value {
    let Some(minute) = minute else { return json!({ "time": time.as_second(), "calls": 0 }) };
    let Minute { calls, errors, cost_usd, input_tokens, output_tokens, latency, first_token } =
        minute;
    json!({
        "time": time.as_second(),
        "calls": calls,
        "errors": errors,
        "cost_usd": cost_usd,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "latency_s": latency,
        "time_to_first_token_s": first_token,
    })
}

/// The 99th percentile of a model's latency in each minute.
fn line(recent: &Recent, model: &str, now: Timestamp) -> Value {
    let p99 = |rollup: &Rollup| {
        let mut sums = Sums::default();
        let own = rollup.iter().filter(|(key, _)| &*key.model == model);
        own.for_each(|(_, own)| sums.merge(own));
        (sums.calls, Quantiles::of(&sums.latency()).map(|latency| latency.p99))
    };
    let minutes = recent.each_minute(now, p99);
    let (calls, p99): (Vec<_>, Vec<_>) =
        minutes.into_iter().map(|(_, minute)| minute.unwrap_or((0, None))).unzip();
    json!({ "model": model, "calls": calls, "latency_p99_s": p99 })
}
