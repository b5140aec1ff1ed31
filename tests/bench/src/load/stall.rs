//! Whether a target that stood still for two seconds is seen: ours counts from when calls were due; the
//! users of a closed loop wait meanwhile, make no calls, and so hardly see it. (Of them wrk makes up what
//! it did not send: it fills in one time for each of its usual intervals, and so sees it as well.)

use std::fs;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tidegate_bench::mock;

use crate::Bench;
use crate::tool::{Call, Kind, Load};

const STALL: Duration = Duration::from_secs(2);
/// After users have come in, and well before the end.
const BEFORE: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(20);
const USERS: usize = 20;
const RATE: &str = "200";

pub(crate) fn ask(bench: &Bench) -> Result<Value> {
    let target = mock::start_for_anything()?;
    println!(
        "{RATE} calls/s due (tidegate), {USERS} users in a closed loop (others); {} s, of which the \
         target stands still for {}",
        WHOLE.as_secs(),
        STALL.as_secs()
    );
    let mut written = json!({});
    for kind in bench.tools.kinds() {
        let p99_s = match kind {
            Kind::Tidegate => by_tidegate(bench, target)?,
            _ => by_closed_loop(bench, target, *kind)?,
        };
        println!("{kind:<10} p99 {:>10.1} ms", p99_s * 1e3);
        written[kind.to_string()] = p99_s.into();
    }
    Ok(written)
}

fn by_tidegate(bench: &Bench, target: SocketAddr) -> Result<f64> {
    let mix = bench.tools.mix_of(Call::Whole);
    let mix = mix.to_str().context("a path that is UTF-8")?;
    let whole = format!("{}s", WHOLE.as_secs());
    let arguments = ["--mix", mix, "--rate", RATE, "--users", "1000", "--duration", &whole];
    let running = bench.tools.tidegate_load(bench.cores, target, &arguments)?;
    sleep(BEFORE);
    mock::stall(target, STALL)?;
    let said = running.ended(WHOLE)?;
    let report = fs::read_to_string(bench.tools.report()).context(said)?;
    let report: Value = serde_json::from_str(&report)?;
    report["total"]["duration_s"]["p99"].as_f64().context("no duration in the report")
}

fn by_closed_loop(bench: &Bench, target: SocketAddr, kind: Kind) -> Result<f64> {
    let load = Load { call: Call::Whole, users: USERS, long: WHOLE };
    let running = bench.tools.start(kind, bench.cores, target, load)?;
    sleep(BEFORE);
    mock::stall(target, STALL)?;
    let said = running.ended(WHOLE)?;
    match kind {
        Kind::Wrk => of_wrk(&said).with_context(|| format!("no latency in:\n{said}")),
        _ => {
            let mut file = bench.tools.locust_csv().into_os_string();
            file.push("_stats.csv");
            of_locust(&fs::read_to_string(file).context(said)?).context("no 99% in Locust's file")
        }
    }
}

/// The line `    99%    1.23ms` of wrk, in seconds.
fn of_wrk(said: &str) -> Option<f64> {
    let value = said.lines().find_map(|line| line.trim().strip_prefix("99%"))?.trim();
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    units
        .iter()
        .find_map(|(unit, factor)| Some(value.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

/// The column `99%` of the last row, which is of all calls, in seconds.
fn of_locust(csv: &str) -> Option<f64> {
    let mut lines = csv.lines();
    let column = lines.next()?.split(',').position(|name| name == "99%")?;
    Some(lines.last()?.split(',').nth(column)?.parse::<f64>().ok()? / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_read() {
        let near = |seen: Option<f64>, s: f64| (seen.expect("a figure") - s).abs() < 1e-9;
        assert!(near(
            of_wrk("  Latency Distribution\n     50%  700.00us\n     99%    1.23ms\n"),
            0.00123
        ));
        assert!(near(of_wrk("     99%    2.01s\n"), 2.01));
        let csv = "Type,Name,99%,100%\nPOST,/v1,3,9\n,Aggregated,4,9\n";
        assert!(near(of_locust(csv), 0.004));
    }
}
