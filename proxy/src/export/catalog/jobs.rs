//! What is counted of long-running jobs.

use super::labels::{MODEL, OUTCOME, PROVIDER, REGION};
use super::{Family, Kind, Label};

const JOB: &[&Label] = &[&MODEL, &PROVIDER, &REGION];
const JOB_ENDED: &[&Label] = &[&MODEL, &PROVIDER, &REGION, &OUTCOME];

/// Long-running jobs that have ended.
pub static JOBS: Family = Family {
    name: "tidegate.jobs",
    prometheus: "tidegate_jobs_total",
    unit: "{job}",
    help: "Long-running jobs that were seen done (succeeded, failed, filtered) or are no longer polled (abandoned).",
    kind: Kind::Counter,
    labels: JOB_ENDED,
    read: |_, _, _| {},
};

/// How long jobs took.
pub static JOB_DURATION: Family = Family {
    name: "tidegate.job.duration",
    prometheus: "tidegate_job_duration_seconds",
    unit: "s",
    help: "Time from the submit of a job to its end, as it states it, else as seen here.",
    kind: Kind::Histogram,
    labels: JOB_ENDED,
    read: |_, _, _| {},
};

/// Looks at jobs.
pub static JOB_POLLS: Family = Family {
    name: "tidegate.job.polls",
    prometheus: "tidegate_job_polls_total",
    unit: "{call}",
    help: "Polls of long-running jobs.",
    kind: Kind::Counter,
    labels: JOB,
    read: |_, _, _| {},
};

/// Jobs whose end has not been seen.
pub static JOBS_OPEN: Family = Family {
    name: "tidegate.jobs.open",
    prometheus: "tidegate_jobs_open",
    unit: "{job}",
    help: "Long-running jobs that were seen here and not yet seen done.",
    kind: Kind::Gauge,
    labels: JOB,
    read: |_, _, _| {},
};

/// Jobs that had to make room.
pub static JOBS_FORGOTTEN: Family = Family {
    name: "tidegate.jobs.forgotten",
    prometheus: "tidegate_jobs_forgotten_total",
    unit: "{job}",
    help: "Open jobs that are no longer kept in mind, for there were too many.",
    kind: Kind::Counter,
    labels: &[],
    read: |_, _, _| {},
};

/// What was made.
pub static VIDEO_SECONDS: Family = Family {
    name: "tidegate.video",
    prometheus: "tidegate_video_seconds_total",
    unit: "s",
    help: "Length of the videos that jobs have made, as asked for.",
    kind: Kind::Counter,
    labels: JOB,
    read: |_, _, _| {},
};
