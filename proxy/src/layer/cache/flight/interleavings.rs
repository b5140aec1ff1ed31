//! Whoever follows gets the answer in its order or hears that there is none, and nobody waits for ever,
//! in whatever order threads meet.
//!
//! Run by `tests/run --long`, for these locks are not the standard library's.

use std::future::poll_fn;

use shuttle::{future, thread};

use super::*;
use crate::head::Fields;

/// Schedules that are tried.
const SCHEDULES: usize = 5_000;
const PIECES: [&str; 3] = ["one", "two", "three"];

fn enter(flights: &Arc<Flights>, most: u64) -> Entry {
    flights.enter(&Key { id: [1; 32], check: [1; 32] }, most, |_| true)
}

/// How a leader ends.
#[derive(Clone, Copy)]
enum End {
    Good,
    Broken,
    /// Without a word, before its answer or amid it.
    Unsaid,
    Silent,
}

/// Leads to this end; where its caller leaves, only as long as others wait.
fn lead(lead: &Lead, end: End, leaves: bool) {
    let head = ResponseHead { status: 200, reason: Bytes::new(), fields: Fields::default() };
    if leaves && !lead.others().wait(false) || matches!(end, End::Unsaid) {
        return;
    }
    lead.answer(Answer::new(&head, ToldBy::default()));
    for piece in PIECES {
        thread::yield_now();
        lead.piece(&piece.into());
    }
    match end {
        End::Good => lead.end(false),
        End::Broken => lead.break_off("upstream_closed".into()),
        End::Unsaid | End::Silent => {}
    }
}

/// Reads to the end, so that it is in order; or leaves after its first piece.
fn follow(follower: &Follower, is_patient: bool) {
    let Some(_) = future::block_on(poll_fn(|cx| follower.poll_answer(cx))) else { return };
    let mut got = Vec::new();
    loop {
        match future::block_on(poll_fn(|cx| follower.poll_piece(cx))) {
            Piece::Data(piece) => {
                assert_eq!(piece, PIECES[got.len()]);
                got.push(piece);
            }
            Piece::End => return assert_eq!(got.len(), PIECES.len()),
            Piece::Broken(_) => return,
        }
        if !is_patient {
            return;
        }
    }
}

/// Three callers at once; whoever waits for ever is a deadlock, which the scheduler tells.
fn meet(most: u64, end: End, leaves: bool) {
    let meeting = move || {
        let flights = Arc::new(Flights::new(8));
        let callers = [true, true, false].map(|is_patient| {
            let flights = flights.clone();
            thread::spawn(move || match enter(&flights, most) {
                Entry::Lead(own) => {
                    let kept = own.kept();
                    lead(&own, end, leaves);
                    drop(own);
                    if let Ok(pieces) = kept.pieces() {
                        assert_eq!(pieces.len(), PIECES.len());
                    }
                }
                Entry::Follow(follower) => follow(&follower, is_patient),
            })
        });
        callers.into_iter().for_each(|caller| caller.join().expect("no thread panics"));
        assert_eq!(flights.size(), (0, 0));
    };
    shuttle::check_random(meeting, SCHEDULES);
    shuttle::check_pct(meeting, SCHEDULES, 3);
}

#[test]
fn all_get_all_of_it() {
    meet(100, End::Good, false);
    meet(100, End::Good, true);
}

#[test]
fn what_breaks_off_does_so_for_all() {
    meet(100, End::Broken, false);
    meet(100, End::Unsaid, false);
    meet(100, End::Silent, true);
}

#[test]
fn what_is_too_large_is_given_back() {
    meet(5, End::Good, false);
    meet(5, End::Silent, false);
}

#[test]
fn a_leader_whose_caller_has_left_hears_when_the_last_who_followed_has_too() {
    let meeting = || {
        let flights = Arc::new(Flights::new(100));
        let Entry::Lead(lead) = enter(&flights, 100) else { panic!("nobody else has asked") };
        let callers = [(); 3].map(|()| {
            let flights = flights.clone();
            thread::spawn(move || {
                let entry = enter(&flights, 100);
                thread::yield_now();
                drop(entry);
            })
        });
        if lead.others().wait(false) {
            future::block_on(poll_fn(|cx| lead.poll_forsaken(cx)));
        }
        callers.into_iter().for_each(|caller| caller.join().expect("no thread panics"));
        drop(lead);
        assert_eq!(flights.size(), (0, 0));
    };
    shuttle::check_random(meeting, SCHEDULES);
    shuttle::check_pct(meeting, SCHEDULES, 3);
}
