use std::task::Wake;

use super::*;
use crate::head::Fields;

fn answer() -> Answer {
    let head = ResponseHead { status: 200, reason: Bytes::new(), fields: Fields::default() };
    Answer::new(&head, ToldBy::default())
}

fn key(number: u8) -> Key {
    Key { id: [number; 32], check: [number; 32] }
}

/// Enters a flight of which up to ten bytes are kept.
fn enter(flights: &Arc<Flights>) -> Entry {
    flights.enter(&key(1), 10, |_| true)
}

fn lead(flights: &Arc<Flights>) -> Lead {
    match enter(flights) {
        Entry::Lead(lead) => lead,
        Entry::Follow(_) => panic!("nobody else has asked"),
    }
}

fn follow(flights: &Arc<Flights>) -> Follower {
    match enter(flights) {
        Entry::Follow(follower) => follower,
        Entry::Lead(_) => panic!("another has asked already"),
    }
}

fn next(follower: &Follower) -> Poll<Piece> {
    follower.poll_piece(&mut Context::from_waker(Waker::noop()))
}

fn data(text: &'static str) -> Poll<Piece> {
    Poll::Ready(Piece::Data(text.into()))
}

fn has_answer(follower: &Follower) -> Poll<bool> {
    follower.poll_answer(&mut Context::from_waker(Waker::noop())).map(|answer| answer.is_some())
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn who_comes_late_gets_all_of_it_and_then_what_comes() {
    let flights = Arc::new(Flights::new(100));
    let leader = lead(&flights);
    let early = follow(&flights);
    assert_eq!(has_answer(&early), Poll::Pending);
    leader.answer(answer());
    leader.piece(&"one".into());
    let late = follow(&flights);
    for follower in [&early, &late] {
        assert_eq!(has_answer(follower), Poll::Ready(true));
        assert_eq!((next(follower), next(follower)), (data("one"), Poll::Pending));
    }
    leader.piece(&"two".into());
    leader.end(false);
    let kept = leader.kept();
    drop(leader);
    for follower in [&early, &late] {
        assert_eq!((next(follower), next(follower)), (data("two"), Poll::Ready(Piece::End)));
    }
    assert_eq!(kept.pieces().expect("it is whole").len(), 2);
    assert_eq!(flights.size(), (0, 6), "nobody joins what has ended");
    drop((early, late, kept));
    assert_eq!(flights.size(), (0, 0));
}

#[test]
fn other_calls_find_no_flight_that_is_not_theirs() {
    let flights = Arc::new(Flights::new(100));
    let _leader = lead(&flights);
    let half = Key { check: [2; 32], ..key(1) };
    for (key, is_taken) in [(key(2), true), (half, true), (key(1), false)] {
        let found = flights.enter(&key, 10, |_| is_taken);
        assert!(matches!(found, Entry::Lead(_)), "{is_taken}");
    }
}

#[test]
fn what_is_too_large_to_be_kept_goes_on_to_who_keeps_up_with_it() {
    let flights = Arc::new(Flights::new(100));
    let leader = lead(&flights);
    let (quick, slow) = (follow(&flights), follow(&flights));
    leader.answer(answer());
    leader.piece(&"12345678".into());
    assert_eq!(next(&quick), data("12345678"));
    leader.piece(&"abcdefgh".into());
    assert_eq!(flights.size(), (0, 8), "nobody joins, and nothing is here but what is to be read");
    assert_eq!(next(&slow), Poll::Ready(Piece::Broken(TOO_SLOW.into())));
    assert_eq!((next(&quick), next(&quick)), (data("abcdefgh"), Poll::Pending));
    assert_eq!(flights.size(), (0, 0));
    leader.piece(&"ABCDEFGHIJK".into());
    assert_eq!(
        next(&quick),
        Poll::Ready(Piece::Broken(TOO_SLOW.into())),
        "no piece may be so large"
    );
    assert_eq!(leader.kept().pieces(), Err(Reason::AnswerTooLarge));
    assert_eq!(flights.size(), (0, 0));
}

#[test]
fn all_of_them_together_have_a_bound() {
    let flights = Arc::new(Flights::new(12));
    let (one, other) = (lead(&flights), flights.alone(10));
    let follower = follow(&flights);
    for leader in [&one, &other] {
        leader.answer(answer());
        leader.piece(&"12345678".into());
    }
    assert_eq!(flights.size(), (1, 8));
    assert_eq!(other.kept().pieces(), Err(Reason::Busy));
    assert_eq!(next(&follower), data("12345678"), "others' answers take nothing from it");
    drop((one, follower));
    assert_eq!(flights.size(), (0, 0));
}

#[test]
fn those_who_follow_ask_for_themselves_where_the_leader_got_nothing() {
    let flights = Arc::new(Flights::new(100));
    let leader = lead(&flights);
    let follower = follow(&flights);
    drop(leader);
    assert_eq!(has_answer(&follower), Poll::Ready(false));
    let leader = lead(&flights);
    let (follower, unaware) = (follow(&flights), follow(&flights));
    leader.answer(answer());
    assert_eq!(has_answer(&follower), Poll::Ready(true));
    leader.break_off("upstream_closed".into());
    assert_eq!(next(&follower), Poll::Ready(Piece::Broken("upstream_closed".into())));
    assert_eq!(has_answer(&unaware), Poll::Ready(false), "it has told its caller nothing yet");
    assert_eq!(flights.size(), (0, 0));
    drop(leader);
    let leader = lead(&flights);
    leader.answer(answer());
    let follower = follow(&flights);
    drop(leader);
    assert_eq!(next(&follower), Poll::Ready(Piece::Broken(LEADER_ENDED.into())));
}

#[test]
fn a_leader_without_its_caller_goes_on_until_nobody_follows() {
    let flights = Arc::new(Flights::new(100));
    let leader = lead(&flights);
    let (one, other) = (follow(&flights), follow(&flights));
    assert!(leader.others().wait(false));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    assert_eq!(leader.poll_forsaken(&mut cx), Poll::Pending);
    drop(one);
    let another = follow(&flights);
    drop(other);
    assert_eq!((leader.poll_forsaken(&mut cx), woken.0.load(Relaxed)), (Poll::Pending, 0));
    drop(another);
    assert_eq!((leader.poll_forsaken(&mut cx), woken.0.load(Relaxed)), (Poll::Ready(()), 1));
    assert!(matches!(enter(&flights), Entry::Lead(_)), "nobody joins what is given up");

    let alone = lead(&flights);
    assert!(!alone.others().wait(true), "nobody follows");
    assert_eq!(alone.poll_forsaken(&mut cx), Poll::Pending, "it goes on in any case");
}
