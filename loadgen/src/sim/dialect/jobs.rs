//! Work that goes on after its call: begun by one request, asked for by others until it is done.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Jobs that are remembered; the oldest makes room.
const KEPT: usize = 4096;

/// All jobs that were begun.
#[derive(Debug, Default)]
pub(in crate::sim) struct Jobs(Mutex<VecDeque<Job>>);

#[derive(Debug)]
struct Job {
    id: String,
    /// How often it is still asked for in vain.
    polls: u64,
    samples: usize,
}

// === impl Jobs ===

impl Jobs {
    pub(super) fn begin(&self, id: String, polls: u64, samples: usize) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.truncate(KEPT - 1);
        jobs.push_front(Job { id, polls, samples });
    }

    /// Nothing for a job that nobody knows; nothing within for one that goes on; else how many
    /// samples it has made.
    pub(super) fn ask(&self, id: &str) -> Option<Option<usize>> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let job = jobs.iter_mut().find(|job| job.id == id)?;
        if job.polls > 0 {
            job.polls -= 1;
            return Some(None);
        }
        Some(Some(job.samples))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_done_once_it_was_asked_for_often_enough_and_stays_so() {
        let jobs = Jobs::default();
        jobs.begin("a".into(), 2, 3);
        let asked: Vec<_> = (0..4).map(|_| jobs.ask("a")).collect();
        assert_eq!(asked, [Some(None), Some(None), Some(Some(3)), Some(Some(3))]);
        assert_eq!(jobs.ask("b"), None);
    }

    #[test]
    fn the_oldest_job_is_forgotten_first() {
        let jobs = Jobs::default();
        for number in 0..=KEPT {
            jobs.begin(number.to_string(), 0, 1);
        }
        assert_eq!(jobs.ask("0"), None);
        assert_eq!(jobs.ask("1"), Some(Some(1)));
    }
}
