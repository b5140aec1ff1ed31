//! What is told of jobs, and how they are counted.

use tidegate_wire::Media;

use super::*;
use crate::export::metrics::Registry;

const HOUR: u64 = 3_600;

struct Test {
    registry: Registry,
    start: Instant,
}

impl Test {
    fn new() -> Self {
        Self::with(JobLimits::default())
    }

    fn with(limits: JobLimits) -> Self {
        let registry = Registry::new([], []).with_job_limits(limits);
        Self { registry, start: Instant::now() }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn see(&self, mut record: Record, seconds: u64) -> Record {
        self.registry.jobs().see(&mut record, self.at(seconds));
        record
    }

    fn sweep(&self, seconds: u64) {
        self.registry.jobs().sweep(self.at(seconds));
    }

    /// A number by its name and the value of its last label, empty where there is no such series.
    fn value(&self, name: &str, last: &str) -> Option<f64> {
        let snapshot = self.registry.snapshot();
        let (_, points) = snapshot.families().find(|(family, _)| family.prometheus == name)?;
        let mut points = points.into_iter();
        let point =
            points.find(|point| point.labels.last().is_none_or(|label| **label == *last))?;
        Some(match point.value {
            Value::Counter(count) => count as f64,
            Value::Amount(amount) => amount.units(),
            Value::Gauge(value) => value as f64,
            Value::Measure(measure) => measure,
            Value::Histogram(counted) => counted.sum(),
        })
    }
}

fn call(operation: &str, job: Job) -> Record {
    Record {
        operation: Some(operation.into()),
        provider: Some("gcp.vertex_ai".into()),
        request_model: Some("veo".into()),
        region: Some("eu".into()),
        status: Some(200),
        outcome: Some(Outcome::Completed),
        duration_s: Some(2.0),
        job: Some(Box::new(job)),
        ..Record::default()
    }
}

fn submit(name: &str) -> Record {
    let job = Job {
        name: name.into(),
        done: Some(false),
        video_length_s: Some(6.0),
        video_count: Some(4),
        ..Job::default()
    };
    call("predict_long_running", job)
}

fn poll(name: &str, outcome: Option<JobOutcome>) -> Record {
    let done = Some(outcome.is_some());
    call("fetch_predict_operation", Job { name: name.into(), done, outcome, ..Job::default() })
}

fn done(name: &str) -> Record {
    poll(name, Some(JobOutcome::Succeeded))
}

fn job(record: &Record) -> &Job {
    record.job.as_deref().expect("it is a call of a job")
}

fn video_seconds(record: &Record) -> Option<f64> {
    record.media.as_ref().and_then(|media| media.video_seconds)
}

#[test]
fn a_job_takes_from_the_start_of_its_submit_to_the_first_look_at_its_end() {
    let test = Test::new();
    let submitted = test.see(submit("a"), 2);
    assert_eq!((job(&submitted).polls, job(&submitted).duration_s), (None, None));
    assert_eq!(test.value("tidegate_jobs_open", "eu"), Some(1.0));
    assert_eq!(job(&test.see(poll("a", None), 10)).polls, Some(1));
    let ended = test.see(done("a"), 60);
    assert_eq!((job(&ended).polls, job(&ended).duration_s), (Some(2), Some(60.0)));

    assert_eq!(test.value("tidegate_jobs_open", "eu"), Some(0.0));
    assert_eq!(test.value("tidegate_jobs_total", "succeeded"), Some(1.0));
    assert_eq!(test.value("tidegate_job_duration_seconds", "succeeded"), Some(60.0));
    assert_eq!(test.value("tidegate_job_polls_total", "eu"), Some(2.0));
}

#[test]
fn what_the_operation_states_is_believed_before_the_clock() {
    let test = Test::new();
    test.see(submit("a"), 2);
    let mut record = done("a");
    record.job.as_mut().expect("a job").duration_s = Some(41.5);
    assert_eq!(job(&test.see(record, 60)).duration_s, Some(41.5));
    assert_eq!(test.value("tidegate_job_duration_seconds", "succeeded"), Some(41.5));
}

#[test]
fn seconds_of_video_are_the_length_asked_for_times_the_videos_made() {
    let test = Test::new();
    test.see(submit("a"), 0);
    let media = Media { videos_made: Some(3), ..Media::default() };
    let ended = test.see(Record { media: Some(Box::new(media)), ..done("a") }, 60);
    assert_eq!(video_seconds(&ended), Some(18.0));

    test.see(submit("b"), 0);
    assert_eq!(video_seconds(&test.see(done("b"), 60)), Some(24.0), "as many as were asked for");
    let mut one = submit("c");
    one.job.as_mut().expect("a job").video_count = None;
    test.see(one, 0);
    assert_eq!(video_seconds(&test.see(done("c"), 60)), Some(6.0), "one, where nobody says");
    assert_eq!(test.value("tidegate_video_seconds_total", "eu"), Some(48.0));
}

#[test]
fn no_seconds_are_made_up_for_a_job_that_failed_or_whose_submit_went_elsewhere() {
    let test = Test::new();
    test.see(submit("a"), 0);
    let failed = test.see(poll("a", Some(JobOutcome::Failed)), 60);
    assert_eq!((video_seconds(&failed), job(&failed).duration_s), (None, Some(62.0)));
    test.see(submit("b"), 0);
    assert_eq!(video_seconds(&test.see(poll("b", Some(JobOutcome::Filtered)), 60)), None);

    let elsewhere = test.see(done("c"), 60);
    assert_eq!((video_seconds(&elsewhere), job(&elsewhere).duration_s), (None, None));
    assert_eq!(job(&elsewhere).polls, Some(1));
    for outcome in ["succeeded", "failed", "filtered"] {
        assert_eq!(test.value("tidegate_jobs_total", outcome), Some(1.0), "{outcome}");
    }
    assert_eq!(test.value("tidegate_video_seconds_total", "eu"), None);
}

#[test]
fn a_length_that_the_poll_states_is_good_where_the_submit_went_elsewhere() {
    let test = Test::new();
    let mut record = done("a");
    record.job.as_mut().expect("a job").video_length_s = Some(12.0);
    assert_eq!(video_seconds(&test.see(record, 60)), Some(12.0));
}

#[test]
fn a_second_look_at_the_end_counts_no_second_job() {
    let test = Test::new();
    test.see(submit("a"), 2);
    test.see(done("a"), 60);
    let again = test.see(done("a"), 90);
    assert_eq!((job(&again).duration_s, job(&again).polls), (Some(60.0), Some(2)));
    assert_eq!(video_seconds(&again), None);
    test.sweep(90 + HOUR);
    assert_eq!(test.value("tidegate_jobs_total", "succeeded"), Some(1.0));
    assert_eq!(test.value("tidegate_jobs_total", "abandoned"), None);
}

#[test]
fn a_look_at_a_job_that_was_forgotten_after_its_end_charges_its_video_no_second_time() {
    let test = Test::new();
    let at = |time: &str| time.parse().expect("a time");
    let look = |time| {
        let mut record = Record { time: at(time), ..done("a") };
        let job = record.job.as_mut().expect("a job");
        (job.video_length_s, job.ended) = (Some(12.0), Some(at("2026-11-26T10:00:00Z")));
        record
    };
    assert_eq!(video_seconds(&test.see(look("2026-11-26T10:00:05Z"), 5)), Some(12.0));
    test.sweep(6 + HOUR);
    assert_eq!(video_seconds(&test.see(look("2026-11-26T11:00:07Z"), 7 + HOUR)), None);
    assert_eq!(test.value("tidegate_jobs_total", "succeeded"), Some(1.0));
    assert_eq!(test.value("tidegate_video_seconds_total", "eu"), Some(12.0));
}

#[test]
fn a_job_that_nobody_asks_for_is_abandoned_after_an_hour() {
    let test = Test::new();
    test.see(submit("a"), 0);
    test.see(poll("a", None), 100);
    test.sweep(99 + HOUR);
    assert_eq!(test.value("tidegate_jobs_total", "abandoned"), None);
    test.sweep(100 + HOUR);
    test.sweep(200 + HOUR);
    assert_eq!(test.value("tidegate_jobs_total", "abandoned"), Some(1.0));
    assert_eq!(test.value("tidegate_jobs_open", "eu"), None);
    assert_eq!(test.value("tidegate_job_duration_seconds", "abandoned"), None);
}

#[test]
fn the_job_that_was_not_seen_for_longest_makes_room() {
    let test = Test::with(JobLimits { jobs: 2, ..JobLimits::default() });
    test.see(submit("a"), 2);
    test.see(submit("b"), 3);
    test.see(poll("a", None), 4);
    test.see(submit("c"), 5);
    assert_eq!(test.value("tidegate_jobs_forgotten_total", ""), Some(1.0));
    assert_eq!(job(&test.see(done("a"), 10)).duration_s, Some(10.0), "it was seen since");
    assert_eq!(job(&test.see(done("b"), 20)).duration_s, None, "its submit was forgotten");
    assert_eq!(test.value("tidegate_jobs_forgotten_total", ""), Some(1.0), "a was done");
}

#[test]
fn a_poll_that_found_no_job_leaves_nothing_to_wait_for() {
    let test = Test::new();
    let job = Job { name: "made up".into(), ..Job::default() };
    let lost = Record { status: Some(404), outcome: Some(Outcome::Failed), ..Record::default() };
    test.see(Record { job: Some(Box::new(job)), ..lost }, 0);
    let refused = Record { outcome: Some(Outcome::Refused), ..submit("b") };
    test.see(refused, 0);
    test.sweep(HOUR);
    assert_eq!(test.value("tidegate_jobs_total", "abandoned"), None);
}

#[test]
fn labels_stay_bounded_whatever_callers_ask_for() {
    let test = Test::new();
    for number in 0..MAX_SERIES * 2 {
        let provider = Some(number.to_string().as_str().into());
        test.see(Record { provider, ..submit(&number.to_string()) }, 0);
        let provider = Some(number.to_string().as_str().into());
        test.see(Record { provider, ..done(&number.to_string()) }, 1);
    }
    let snapshot = test.registry.snapshot();
    let (_, points) = snapshot
        .families()
        .find(|(family, _)| family.prometheus == "tidegate_jobs_total")
        .expect("jobs were counted");
    assert!(points.len() <= MAX_SERIES + 1, "{} series", points.len());
}
