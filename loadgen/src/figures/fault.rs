//! What went wrong with calls, in the words of whoever said so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_wire::{Outcome, Record};

use super::Kind;

/// What went wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// What one would do about it.
    pub kind: Option<Kind>,
    /// The provider's word, or one of ours: `connect`, `timeout`, `no_answer`, `truncated`,
    /// `wrong_content`; or `credential_...`, where the call could not be signed and was not sent.
    #[serde(rename = "error.type")]
    pub error_type: String,
    /// The HTTP status, where an answer came.
    #[serde(rename = "http.response.status_code")]
    pub status: Option<u16>,
    /// How the call ended.
    #[serde(rename = "tidegate.outcome")]
    pub outcome: Outcome,
}

/// How often something went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultCount {
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
    /// How often.
    pub calls: u64,
}

/// All that went wrong, each thing with how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<FaultCount>", from = "Vec<FaultCount>")]
pub(crate) struct Faults(BTreeMap<Fault, u64>);

/// Different faults that are told apart. Providers' words are theirs, and may be any number.
const MOST: usize = 200;
/// The word for those beyond.
const OTHER: &str = "other";

// === impl Fault ===

impl Fault {
    fn of(record: &Record, kind: Option<Kind>) -> Option<Self> {
        let outcome = record.outcome?;
        let error_type = match (&record.error_type, record.status) {
            (Some(error_type), _) => error_type.clone(),
            (None, Some(status)) if status >= 400 => status.to_string(),
            (None, _) if kind == Some(Kind::WrongContent) => "wrong_content".to_owned(),
            (None, _) if outcome == Outcome::Completed => return None,
            (None, _) => outcome.as_str().to_owned(),
        };
        Some(Self { kind, error_type, status: record.status, outcome })
    }
}

// === impl Faults ===

impl Faults {
    /// Takes in what went wrong with a call, if anything did.
    pub(crate) fn record(&mut self, record: &Record, kind: Option<Kind>) {
        if let Some(fault) = Fault::of(record, kind) {
            self.count(fault, 1);
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        other.0.into_iter().for_each(|(fault, calls)| self.count(fault, calls));
    }

    /// Most frequent first.
    pub(crate) fn counts(&self) -> Vec<FaultCount> {
        let mut counts: Vec<_> = self.clone().into();
        counts.sort_by_key(|fault| std::cmp::Reverse(fault.calls));
        counts
    }

    fn count(&mut self, fault: Fault, calls: u64) {
        let is_known = self.0.contains_key(&fault) || self.0.len() < MOST;
        let fault = if is_known { fault } else { Fault { error_type: OTHER.to_owned(), ..fault } };
        *self.0.entry(fault).or_default() += calls;
    }
}

impl From<Faults> for Vec<FaultCount> {
    fn from(faults: Faults) -> Self {
        faults.0.into_iter().map(|(fault, calls)| FaultCount { fault, calls }).collect()
    }
}

impl From<Vec<FaultCount>> for Faults {
    fn from(counts: Vec<FaultCount>) -> Self {
        let mut faults = Self::default();
        counts.into_iter().for_each(|FaultCount { fault, calls }| faults.count(fault, calls));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(word: &str) -> Record {
        Record {
            outcome: Some(Outcome::Failed),
            status: Some(500),
            error_type: Some(word.to_owned()),
            ..Record::default()
        }
    }

    #[test]
    fn words_without_end_take_no_room_without_end() {
        let mut faults = Faults::default();
        for number in 0..10_000 {
            faults.record(&failed(&number.to_string()), Some(Kind::Server));
        }
        let counts = faults.counts();
        assert_eq!((&*counts[0].fault.error_type, counts[0].calls), (OTHER, 10_000 - MOST as u64));
        assert_eq!(counts.iter().map(|one| one.calls).sum::<u64>(), 10_000);
        let text = serde_json::to_string(&faults).expect("they are written");
        assert_eq!(serde_json::from_str::<Faults>(&text).expect("and read"), faults);
    }

    #[test]
    fn a_good_call_is_no_fault_and_an_empty_answer_is() {
        let mut faults = Faults::default();
        let good = Record { outcome: Some(Outcome::Completed), ..Record::default() };
        faults.record(&good, None);
        assert_eq!(faults.counts(), []);
        faults.record(&good, Some(Kind::WrongContent));
        assert_eq!(faults.counts()[0].fault.error_type, "wrong_content");
    }
}
