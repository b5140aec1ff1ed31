//! What was found, for people and for programs.

use std::fmt::Write;
use std::io::IsTerminal;

use serde_json::json;
use tidegate_proxy::doctor::{Examination, Hop, Section, Status};

/// Where findings begin.
const INDENT: usize = 26;

/// One upstream: a line for each hop, and below it what to do about it.
pub(super) fn block(examination: &Examination) -> String {
    let mut text = String::new();
    if examination.hops.is_empty() {
        return text;
    }
    let name = painted(&examination.upstream, "1");
    _ = writeln!(text, "{}", format!("{name}  {}", examination.url).trim_end());
    for hop in &examination.hops {
        line(&mut text, hop);
    }
    text.push('\n');
    text
}

/// How all of it is, in one line.
pub(super) fn summary(all: &[Examination]) -> String {
    let count = |section, one: &str, many: &str| match in_section(all, section).count() {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {many}")),
    };
    let is_asked_for_clients = in_section(all, Section::Past).next().is_some();
    let clients = count(Section::Clients, "SDK", "SDKs")
        .or_else(|| is_asked_for_clients.then(|| "0 SDKs".to_owned()));
    let upstreams = count(Section::Upstreams, "upstream", "upstreams");
    let examined: Vec<_> = clients.into_iter().chain(upstreams).collect();
    let examined = examined.join(" and ");
    let failed: Vec<_> = all.iter().filter(|examination| !examination.ok).map(faults).collect();
    match failed.is_empty() {
        true => format!("{examined} examined, nothing failed\n"),
        false => format!("{examined} examined, failed: {}\n", failed.join("; ")),
    }
}

fn in_section(all: &[Examination], section: Section) -> impl Iterator<Item = &Examination> {
    all.iter().filter(move |examination| examination.section == section)
}

/// `bedrock (credential, call)`
fn faults(examination: &Examination) -> String {
    if examination.section == Section::Environment {
        return examination.upstream.clone();
    }
    let mut hops: Vec<_> =
        examination.hops.iter().filter(|hop| is_failed(hop)).map(|h| h.hop).collect();
    hops.dedup();
    format!("{} ({})", examination.upstream, hops.join(", "))
}

/// All of it as one document.
pub(super) fn document(all: &[Examination]) -> anyhow::Result<String> {
    let hops = |section| in_section(all, section).flat_map(|found| &found.hops).collect::<Vec<_>>();
    let upstreams: Vec<_> = in_section(all, Section::Upstreams).collect();
    let faults = all.iter().flat_map(|examination| &examination.hops);
    let mut document = json!({
        "ok": all.iter().all(|examination| examination.ok),
        "faults": faults.filter(|hop| is_failed(hop)).count(),
        "environment": hops(Section::Environment),
        "upstreams": upstreams,
    });
    if in_section(all, Section::Past).next().is_some() {
        let client = |found: &Examination| json!({ "client": found.upstream, "found": found.url, "ok": found.ok, "hops": found.hops });
        document["clients"] = in_section(all, Section::Clients).map(client).collect();
        document["past"] = json!(hops(Section::Past));
    }
    Ok(format!("{}\n", serde_json::to_string_pretty(&document)?))
}

fn is_failed(hop: &Hop) -> bool {
    hop.status == Status::Failed
}

fn line(text: &mut String, hop: &Hop) {
    let mark = match hop.status {
        Status::Ok => painted("✓", "32"),
        Status::Warning => painted("!", "33"),
        Status::Failed => painted("✗", "31"),
        Status::Absent => painted("–", "2"),
        Status::Skipped => painted("·", "2"),
    };
    let took = hop.took_s.map_or_else(String::new, time);
    let of = hop.of.as_ref().map_or_else(String::new, |of| format!("{of}: "));
    let expires = match hop.expires_in_s {
        Some(left) if hop.hop == "credential" => format!(", expires in {}", rough(left)),
        _ => String::new(),
    };
    let width = INDENT - 16;
    _ = writeln!(
        text,
        "  {mark} {:<12}{took:>width$}  {of}{}{expires}",
        hop.hop,
        hop.finding,
        width = width - 2
    );
    if let Some(advice) = &hop.advice {
        _ = writeln!(text, "{:INDENT$}{} {advice}", "", painted("→", "36"));
    }
}

/// `0.4 ms`, `12 ms`, `1.2 s`
fn time(seconds: f64) -> String {
    match seconds {
        0.0..0.01 => format!("{:.1} ms", seconds * 1e3),
        0.0..1.0 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{seconds:.1} s"),
    }
}

/// `50 s`, `59 min`, `12 h`, `83 days`
fn rough(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// In colour, where somebody looks who wants it.
fn painted(text: &str, colour: &str) -> String {
    let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match is_wanted && std::io::stdout().is_terminal() {
        true => format!("\x1b[{colour}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}
