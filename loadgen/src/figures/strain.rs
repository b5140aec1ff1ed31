//! How hard the other side has it, in words that are the same for all servers: what waits, what runs, how
//! full the cache is, how busy the GPUs are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Watched;

/// One of the things that say how hard a server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strain {
    /// Calls in queues: of the model servers, and of the sidecar before them.
    Waiting,
    /// Calls that model servers work on.
    Running,
    /// The share of the cache of keys and values that is in use.
    Cache,
    /// The share of time in which GPUs are busy.
    Gpu,
}

/// What was read of it for a while: of all servers together, calls are added up; of shares `mean` is the
/// mean of all servers, `most` that of the one which has it hardest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Strained {
    /// On average.
    pub mean: f64,
    /// At its highest; where calls of several servers are added up, no more than this.
    pub most: f64,
}

/// Which metrics say it, by their names, and what one is worth there.
const SAYING: [(&str, Strain, f64); 10] = [
    ("vllm:num_requests_waiting", Strain::Waiting, 1.0),
    ("sglang:num_queue_reqs", Strain::Waiting, 1.0),
    ("tgi_queue_size", Strain::Waiting, 1.0),
    ("tidegate_limit_queue", Strain::Waiting, 1.0),
    ("vllm:num_requests_running", Strain::Running, 1.0),
    ("sglang:num_running_reqs", Strain::Running, 1.0),
    ("tgi_batch_current_size", Strain::Running, 1.0),
    ("vllm:kv_cache_usage_perc", Strain::Cache, 1.0),
    ("sglang:token_usage", Strain::Cache, 1.0),
    ("DCGM_FI_DEV_GPU_UTIL", Strain::Gpu, 0.01),
];
/// The same, where none of those is there: older versions of vLLM, and parts of a GPU.
const SAYING_INSTEAD: [(&str, Strain, f64); 2] = [
    ("vllm:gpu_cache_usage_perc", Strain::Cache, 1.0),
    ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", Strain::Gpu, 1.0),
];

// === impl Strain ===

impl Strain {
    /// All of them, in the order in which reports have them.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Running, Self::Cache, Self::Gpu];

    /// The word for it, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Cache => "cache",
            Self::Gpu => "GPU",
        }
    }

    /// Whether it is a share of a whole, and no number of calls.
    pub fn is_share(self) -> bool {
        matches!(self, Self::Cache | Self::Gpu)
    }

    /// Whether a metric says any of it.
    pub(crate) fn is_said_by(name: &str) -> bool {
        SAYING.iter().chain(&SAYING_INSTEAD).any(|(known, ..)| *known == name)
    }

    /// The metrics that say any of it.
    #[cfg(test)]
    pub(crate) fn metrics() -> impl Iterator<Item = &'static str> {
        SAYING.iter().chain(&SAYING_INSTEAD).map(|(name, ..)| *name)
    }

    /// A number of it, as people read it.
    pub(crate) fn text(self, value: f64) -> String {
        match self.is_share() {
            true => format!("{:.0}%", value * 100.0),
            false if value.fract() == 0.0 || value >= 100.0 => format!("{value:.0}"),
            false => format!("{value:.1}"),
        }
    }
}

/// What several series say together: each with the name of its metric.
pub(crate) fn together<'a>(
    said: impl Iterator<Item = (&'a str, Strained)> + Clone,
) -> BTreeMap<Strain, Strained> {
    let mut all = BTreeMap::new();
    for saying in [&SAYING[..], &SAYING_INSTEAD] {
        for strain in Strain::ALL {
            let of_it = said.clone().filter_map(|(name, said)| {
                let (.., worth) =
                    saying.iter().find(|(known, of, _)| *known == name && *of == strain)?;
                Some(Strained { mean: said.mean * worth, most: said.most * worth })
            });
            let of_it: Vec<_> = of_it.collect();
            if !of_it.is_empty() {
                all.entry(strain).or_insert_with(|| strain.of_all(&of_it));
            }
        }
    }
    all
}

impl Strain {
    fn of_all(self, servers: &[Strained]) -> Strained {
        let sum = |of: fn(&Strained) -> f64| servers.iter().map(of).sum::<f64>();
        let most = servers.iter().map(|one| one.most).fold(f64::MIN, f64::max);
        match self.is_share() {
            true => Strained { mean: sum(|one| one.mean) / servers.len() as f64, most },
            false => Strained { mean: sum(|one| one.mean), most: sum(|one| one.most) },
        }
    }
}

// === impl Watched ===

impl Watched {
    /// How hard the other side had it before this moment, counted from the start.
    pub(crate) fn strain(&self, until: Duration) -> BTreeMap<Strain, Strained> {
        let series = self.series();
        let said: Vec<_> = series
            .iter()
            .filter_map(|one| {
                let level = one.before(until);
                Some((&*one.id.name, Strained { mean: level.mean()?, most: level.most()? }))
            })
            .collect();
        together(said.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{SeriesId, Shows};

    fn record(watched: &mut Watched, name: &str, labels: &str, values: &[(u64, f64)]) {
        let (name, labels, source) = (name.into(), labels.into(), "there".into());
        let id = SeriesId { name, shows: Shows::Value, source, labels };
        for (second, value) in values {
            watched.record(&id, Duration::from_secs(*second), *value);
        }
    }

    #[test]
    fn calls_of_servers_add_up_and_shares_have_a_mean() {
        let mut watched = Watched::default();
        record(&mut watched, "vllm:num_requests_waiting", "a", &[(1, 2.0), (2, 6.0)]);
        record(&mut watched, "vllm:num_requests_waiting", "b", &[(1, 1.0), (2, 1.0)]);
        record(&mut watched, "tidegate_limit_queue", "", &[(1, 10.0)]);
        record(&mut watched, "DCGM_FI_DEV_GPU_UTIL", "0", &[(1, 100.0), (2, 50.0)]);
        record(&mut watched, "DCGM_FI_DEV_GPU_UTIL", "1", &[(1, 25.0)]);
        record(&mut watched, "process_resident_memory_bytes", "", &[(1, 7.0)]);
        let strain = watched.strain(Duration::from_secs(10));
        let expected = [
            (Strain::Waiting, Strained { mean: 15.0, most: 17.0 }),
            (Strain::Gpu, Strained { mean: 0.5, most: 1.0 }),
        ];
        assert_eq!(strain, expected.into());
        assert_eq!(Strain::Gpu.text(0.5) + &Strain::Waiting.text(2.25), "50%2.2");
    }

    #[test]
    fn what_was_said_once_calls_no_longer_counted_is_left_out() {
        let mut watched = Watched::default();
        record(&mut watched, "tgi_queue_size", "", &[(1, 2.0), (9, 4.0), (10, 90.0), (40, 99.0)]);
        let waiting = watched.strain(Duration::from_secs(10))[&Strain::Waiting];
        assert_eq!((waiting.mean, waiting.most), (3.0, 4.0));
    }

    #[test]
    fn a_metric_that_stands_in_for_another_is_not_counted_beside_it() {
        let mut watched = Watched::default();
        record(&mut watched, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "0", &[(1, 0.25)]);
        assert_eq!(watched.strain(Duration::MAX)[&Strain::Gpu].mean, 0.25);
        record(&mut watched, "DCGM_FI_DEV_GPU_UTIL", "0", &[(1, 75.0)]);
        assert_eq!(watched.strain(Duration::MAX)[&Strain::Gpu].mean, 0.75);
    }
}
