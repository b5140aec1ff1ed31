//! How far a call goes on without its caller, in stopped time.

use std::future::pending;
use std::rc::Rc;
use std::sync::mpsc;

use tidegate_wire::{Outcome, Record};
use tokio::task::LocalSet;

use super::*;
use crate::activity::Activity;
use crate::export::Exporter;
use crate::head::{Fields, RequestHead, ResponseHead, Target};
use crate::recorder::{Options, Recorders};
use crate::route::shape;

const TERMS: Terms = Terms { time: Duration::from_secs(60), bytes: 10 };

#[derive(Debug)]
struct Wanted {
    terms: Option<Terms>,
    places: Places,
}

impl Stay for Wanted {
    fn terms(&self) -> Option<Terms> {
        self.terms
    }

    fn places(&self) -> &Places {
        &self.places
    }
}

/// Hands records to a test.
struct Sink(mpsc::Sender<Record>);

impl Exporter for Sink {
    fn name(&self) -> &'static str {
        "sink"
    }

    fn export(&mut self, records: &[Record]) -> u64 {
        records.iter().for_each(|record| _ = self.0.send(record.clone()));
        0
    }
}

struct Test {
    recorders: Recorders,
    records: mpsc::Receiver<Record>,
    activity: Arc<Activity>,
    stay: Arc<Wanted>,
}

impl Test {
    fn new(terms: Option<Terms>, limit: usize) -> Self {
        let (sender, records) = mpsc::channel();
        let options = Options { exporters: vec![Box::new(Sink(sender))], ..Options::default() };
        let recorders = Recorders::start(options).expect("threads can be started");
        let all = AllPlaces::default();
        all.allow(limit);
        let stay = Arc::new(Wanted { terms, places: Places::among(&all) });
        Self { recorders, records, activity: Arc::default(), stay }
    }

    /// A call whose request was read, and sent.
    fn call(&self) -> Exchange {
        let head = RequestHead {
            method: http::Method::POST,
            target: Target::new("/v1/chat/completions".into()),
            authority: "a".into(),
            version: http::Version::HTTP_11,
            upgrades: false,
            is_absolute: false,
            meant: None,
            shown: None,
            fields: Fields::default(),
        };
        let recorder = self.recorders.worker();
        let exchange = Exchange::open(&head, shape(&head), recorder, self.activity.clone());
        exchange.notes().request_ended();
        exchange.notes().left.stay_for_attempt(Some(self.stay.clone()));
        exchange.notes().left.sent();
        exchange
    }

    fn record(&self) -> Record {
        self.records.recv_timeout(Duration::from_secs(20)).expect("a record")
    }

    fn assert_end(&self, end: DrainEnd) -> Record {
        let record = self.record();
        assert_eq!(record.outcome, Some(Outcome::Abandoned));
        assert_eq!(record.drain.as_ref().and_then(|drain| drain.end), Some(end));
        assert_eq!(self.activity.open(), 0);
        assert_eq!(self.stay.places.open(), 0);
        record
    }
}

fn answer(body: &'static str) -> Reply {
    let head = ResponseHead { status: 200, reason: "OK".into(), fields: Fields::default() };
    Reply { head, body: ReplyBody::Full(body.into()) }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_waited_for_and_read_to_its_end() {
    let test = Test::new(Some(TERMS), 1);
    let staying = Staying::of(test.call()).expect("it goes on");
    assert_eq!(test.stay.places.open(), 1);
    assert_eq!(test.activity.open(), 0, "nobody waits for it when the sidecar ends");
    staying
        .reply(async {
            tokio::time::sleep(Duration::from_secs(59)).await;
            Ok(answer("0123456789"))
        })
        .await;
    let drain = test.assert_end(DrainEnd::Whole).drain.expect("it went on");
    assert_eq!(drain.duration_s, Some(59.0));
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_no_longer_and_no_further_than_allowed() {
    let test = Test::new(Some(TERMS), 1);
    let start = Instant::now();
    Staying::of(test.call()).expect("it goes on").reply(pending()).await;
    assert_eq!(start.elapsed(), TERMS.time);
    test.assert_end(DrainEnd::Time);

    let staying = Staying::of(test.call()).expect("there is room again");
    staying.body(answer("01234567890").body).await;
    test.assert_end(DrainEnd::Bytes);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_is_a_broken_one_of_a_call_that_stays_abandoned() {
    let test = Test::new(Some(Terms { bytes: 100, ..TERMS }), 1);
    let call = test.call();
    let notes = call.notes().clone();
    let failing = async move {
        notes.failed(&Error::Closed { upstream: "a".into(), source: None });
        Ok(answer("an error of ours"))
    };
    Staying::of(call).expect("it goes on").reply(failing).await;
    let record = test.assert_end(DrainEnd::Broken);
    assert_eq!((record.error_type, record.error_origin, record.status), (None, None, None));
}

#[tokio::test(start_paused = true)]
async fn more_than_there_are_places_for_end_with_their_callers_and_say_why() {
    let test = Test::new(Some(TERMS), 1);
    let first = Staying::of(test.call()).expect("it goes on");
    let second = Staying::of(test.call()).expect_err("no place is free");
    assert_eq!(test.activity.open(), 1);
    drop(second);
    let record = test.record();
    assert_eq!(record.drain.and_then(|drain| drain.end), Some(DrainEnd::Full));
    drop(first);
    test.assert_end(DrainEnd::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_with_its_caller_where_nobody_wants_it_or_it_cannot_go_on() {
    let test = Test::new(None, 1);
    drop(Staying::of(test.call()).expect_err("nobody wants it"));
    assert_eq!(test.record().drain, None);

    let test = Test::new(Some(TERMS), 1);
    let unsent = test.call();
    unsent.notes().left.stay_for_attempt(Some(test.stay.clone()));
    drop(Staying::of(unsent).expect_err("nothing of it was sent"));
    assert_eq!(test.record().drain, None);

    let broken = test.call();
    broken.notes().broken("upstream_closed");
    drop(Staying::of(broken).expect_err("it is over"));
    assert_eq!(test.record().outcome, Some(Outcome::Truncated));

    let cut = test.call();
    test.activity.cut();
    drop(Staying::of(cut).expect_err("the sidecar ends"));
    assert_eq!(test.record().drain, None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_waited_for_goes_on_in_a_task_of_its_own() {
    let test = Rc::new(Test::new(Some(TERMS), 1));
    let local = LocalSet::new();
    let awaiting = test.clone();
    local
        .run_until(async move {
            let awaited = Awaited::new(
                awaiting.call(),
                Box::pin(async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Ok(answer("0123"))
                }),
            );
            let left = timeout(Duration::from_millis(10), awaited.reply()).await;
            assert!(left.is_err(), "it has come to nothing yet");
            assert_eq!(awaiting.stay.places.open(), 1);
        })
        .await;
    local.await;
    test.assert_end(DrainEnd::Whole);
}
