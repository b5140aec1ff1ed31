//! What a run is to do.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidegate_credential::CredentialConfig;
use tidegate_settings::{Abort, Objective, Objectives};
use tidegate_wire::Prices;

use crate::budget::Caps;
use crate::client::Target;
use crate::other_side::Watch;
use crate::resume::Resume;
use crate::schedule::{STAGE, Schedule, Shard, Stages, entrance};
use crate::workload::Workload;

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the calls go.
    pub target: Target,
    /// How many users there are; in an open loop, how many calls there may be at once.
    pub users: NonZeroUsize,
    /// For how long calls are made that count.
    pub duration: Duration,
    /// For how long calls are made before, which do not.
    pub warm_up: Duration,
    /// When calls are due.
    pub schedule: Schedule,
    /// How the load rises and falls: the rate where the schedule is `Staged`, else the users.
    pub stages: Option<Arc<Stages>>,
    /// What is asked.
    pub workload: Workload,
    /// Which part of the load this is; `users` are those of this part, a rate is that of all parts.
    pub shard: Shard,
    /// When calls begin to be made; as soon as all users are there where absent.
    pub start: Option<Timestamp>,
    /// From what requests and chance are drawn.
    pub seed: u64,
    /// Where to write a record of every call.
    pub records: Option<PathBuf>,
    /// What calls cost.
    pub prices: Arc<Prices>,
    /// Who signs the calls; nobody where absent.
    pub credential: Option<CredentialConfig>,
    /// What the run is judged by.
    pub objectives: Option<Objectives>,
    /// What it may use.
    pub caps: Caps,
    /// What ends it as soon as it is surely lost, in place of the objectives.
    pub lost_by: Option<Objectives>,
    /// Who else says what the run does to it.
    pub watch: Watch,
    /// Where to save from time to time how far the run has come.
    pub save: Option<PathBuf>,
    /// Where the run goes on, if it was stopped before.
    pub resume: Option<Arc<Resume>>,
    /// Of a search, which step of it this is and what is known so far, in words.
    pub(crate) step: Option<String>,
}

// === impl Plan ===

impl Plan {
    /// A closed loop that makes these calls of this target for half a minute, and no more than that.
    pub fn new(target: Target, workload: Workload) -> Self {
        Self {
            target,
            users: NonZeroUsize::new(200).expect("it is not zero"),
            duration: Duration::from_secs(30),
            warm_up: Duration::ZERO,
            schedule: Schedule::Closed,
            stages: None,
            workload,
            shard: Shard::default(),
            start: None,
            seed: 1,
            records: None,
            prices: Arc::default(),
            credential: None,
            objectives: None,
            caps: Caps::default(),
            lost_by: None,
            watch: Watch::default(),
            save: None,
            resume: None,
            step: None,
        }
    }

    /// For how long calls are made, those that do not count included.
    pub(crate) fn whole(&self) -> Duration {
        self.warm_up + self.duration
    }

    /// How much of it is over already.
    pub(crate) fn done(&self) -> Duration {
        self.resume.as_ref().map_or(Duration::ZERO, |resume| resume.done)
    }

    /// From what a user draws its requests: from something else once the run goes on, or all of the
    /// first part would be asked again.
    pub(crate) fn seed_of_users(&self) -> u64 {
        let parts = self.resume.as_ref().map_or(0, |resume| resume.ids.len() as u64);
        self.seed ^ parts.wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }

    /// By what the run ends early, if it may. A stage may be lost by its own calls alone, and nobody knows
    /// how many there are still to come.
    pub(crate) fn hopes(&self) -> Option<Objectives> {
        let own = self.objectives.as_ref().filter(|all| all.abort == Abort::Early);
        let mut hopes = self.lost_by.as_ref().or(own)?.clone();
        hopes.objectives.retain(|one| self.stages.is_none() || one.stage.is_none());
        Some(hopes)
    }

    /// The load so far and the load to come: in seconds, or as the stages add it up.
    pub(crate) fn so_far(&self, elapsed: Duration) -> (f64, f64) {
        let (elapsed, all) = (elapsed.min(self.duration), self.duration);
        match &self.stages {
            None => (elapsed.as_secs_f64(), (all - elapsed).as_secs_f64()),
            Some(stages) => {
                let so_far = stages.sum_to(elapsed);
                (so_far, stages.sum_to(all) - so_far)
            }
        }
    }

    /// The stage in which a call is due.
    pub(crate) fn stage_at(&self, due: Duration) -> Arc<str> {
        self.stages.as_ref().map_or_else(|| STAGE.into(), |stages| stages.name_at(due))
    }

    fn stage_names(&self) -> Vec<Arc<str>> {
        let names =
            |stages: &Arc<Stages>| stages.all().iter().map(|one| one.name.clone()).collect();
        self.stages.as_ref().map_or_else(|| vec![STAGE.into()], names)
    }

    /// When a user of a closed loop makes its first call.
    pub(crate) fn enters(&self, user: usize) -> Option<Duration> {
        match &self.stages {
            None => {
                let left = self.duration.saturating_sub(self.done());
                Some(self.done() + entrance(user, self.users.get(), left))
            }
            Some(_) => self.is_there(user, self.done()),
        }
    }

    /// From this time on, when a user of a closed loop is there first.
    pub(crate) fn is_there(&self, user: usize, from: Duration) -> Option<Duration> {
        let number = self.shard.of_all(user as u64);
        self.stages.as_ref().map_or(Some(from), |stages| stages.comes_in(number, from))
    }

    /// Objectives that apply to no call of the load, and so cannot be met.
    pub fn objectives_in_vain(&self) -> Vec<&Objective> {
        let keys: Vec<_> =
            self.stage_names().iter().flat_map(|stage| self.workload.keys(stage)).collect();
        let all = self.objectives.iter().flat_map(|all| &all.objectives);
        all.filter(|one| !keys.iter().any(|key| key.is_of(one))).collect()
    }
}
