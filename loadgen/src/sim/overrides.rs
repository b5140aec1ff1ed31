//! What a request may ask of the simulator itself, by header.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

/// Headers of one request that go before the simulator's options.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// `x-sim-ttft`: as `--ttft`.
    pub(super) ttft: Option<Duration>,
    /// `x-sim-tpot`: as `--tpot`.
    pub(super) tpot: Option<Duration>,
    /// `x-sim-output-tokens`: as `--output-tokens`.
    pub(super) output_tokens: Option<u64>,
    /// `x-sim-reasoning-tokens`: tokens of reasoning before the others.
    pub(super) reasoning_tokens: Option<u64>,
    /// `x-sim-tools: 1`: a request that brings tools is answered by a call of the first.
    pub(super) tools: bool,
    /// `x-sim-polls`: how often a job that begins now is asked for before it is done.
    pub(super) polls: Option<u64>,
    /// `x-sim-fault`: how this call goes wrong.
    pub(super) fault: Option<Fault>,
    /// When to come back, in seconds, where it fails with a status; no header asks for it.
    pub(super) retry_after: Option<u32>,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is answered with this status.
    Status(StatusCode),
    /// It goes wrong once it has begun.
    Midway(Break),
}

/// How an answer goes wrong that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// The connection is broken off.
    Cut,
    /// Nothing more is sent.
    Stall,
    /// An error is told in band, in the dialect's form.
    ErrorEvent,
    /// The same, before the first token.
    Overload,
}

impl Break {
    /// The token, of so many, in whose place it happens.
    pub(super) fn at(self, tokens: u64) -> u64 {
        match self {
            Self::Overload => 0,
            Self::Cut | Self::Stall | Self::ErrorEvent => tokens / 2,
        }
    }
}

impl Overrides {
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, String> {
        Ok(Self {
            ttft: value(headers, "x-sim-ttft", duration)?,
            tpot: value(headers, "x-sim-tpot", duration)?,
            output_tokens: value(headers, "x-sim-output-tokens", number)?,
            reasoning_tokens: value(headers, "x-sim-reasoning-tokens", number)?,
            tools: value(headers, "x-sim-tools", number)? == Some(1),
            polls: value(headers, "x-sim-polls", number)?,
            fault: value(headers, "x-sim-fault", fault)?,
            retry_after: None,
        })
    }

    /// The fault that an answer meets on its way.
    pub(super) fn midway(&self) -> Option<Break> {
        match self.fault {
            Some(Fault::Midway(fault)) => Some(fault),
            _ => None,
        }
    }
}

fn value<T>(
    headers: &HeaderMap,
    name: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, String> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str().ok().and_then(read) {
        Some(value) => Ok(Some(value)),
        None => Err(format!("header {name} cannot be read: {value:?}")),
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

pub(super) fn duration(text: &str) -> Option<Duration> {
    text.parse::<jiff::SignedDuration>().ok()?.try_into().ok()
}

pub(super) fn fault(text: &str) -> Option<Fault> {
    match text {
        "cut" => Some(Fault::Midway(Break::Cut)),
        "stall" => Some(Fault::Midway(Break::Stall)),
        "overload" => Some(Fault::Midway(Break::Overload)),
        "error-event" => Some(Fault::Midway(Break::ErrorEvent)),
        status => {
            let status = status.parse().ok().filter(|status: &StatusCode| status.as_u16() >= 400);
            status.map(Fault::Status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_statuses_or_words() {
        assert_eq!(fault("503"), Some(Fault::Status(StatusCode::SERVICE_UNAVAILABLE)));
        assert_eq!(fault("cut"), Some(Fault::Midway(Break::Cut)));
        assert_eq!(fault("200"), None);
        assert_eq!(fault("explode"), None);
    }
}
