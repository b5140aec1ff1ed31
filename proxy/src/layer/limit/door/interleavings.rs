//! No place is lost and none is given twice, in whatever order threads meet.
//!
//! Run by `tests/run --long`, for these locks are not the standard library's.

use std::num::NonZeroU32;
use std::task::Waker;

use shuttle::sync::atomic::{AtomicU32, Ordering::SeqCst};
use shuttle::{future, thread};

use super::*;

/// Schedules that are tried.
const SCHEDULES: usize = 5_000;
const LIMIT: u32 = 2;

fn door(queue: u32) -> Arc<Door> {
    let concurrency = NonZeroU32::new(LIMIT);
    Arc::new(Door::new(&LimitConfig { concurrency, queue, ..LimitConfig::default() }))
}

/// Counts who is inside.
fn stay(inside: &AtomicU32, permit: Permit) {
    assert!(inside.fetch_add(1, SeqCst) < LIMIT, "more are inside than may be");
    thread::yield_now();
    inside.fetch_sub(1, SeqCst);
    drop(permit);
}

/// One that waits for its turn.
fn patient(door: &Arc<Door>, inside: &AtomicU32, priority: Priority) {
    match door.enter(priority, Instant::now()) {
        Ok(Entry::Permit(permit)) => stay(inside, permit),
        Ok(Entry::Waiter(waiter)) => {
            if let Ok(permit) = future::block_on(waiter) {
                stay(inside, permit);
            }
        }
        Err(_) => {}
    }
}

/// One that looks once, and leaves.
fn impatient(door: &Arc<Door>, inside: &AtomicU32, gives_up: bool) {
    let mut waiter = match door.enter(Priority::Normal, Instant::now()) {
        Ok(Entry::Waiter(waiter)) => waiter,
        Ok(Entry::Permit(permit)) => return stay(inside, permit),
        Err(_) => return,
    };
    let looked = Pin::new(&mut waiter).poll(&mut Context::from_waker(Waker::noop()));
    match looked {
        Poll::Ready(result) => {
            let _ = result.map(|permit| stay(inside, permit));
        }
        // At this moment another thread may just be letting it in.
        Poll::Pending if gives_up => {
            let _ = waiter.give_up(Instant::now()).map(|permit| stay(inside, permit));
        }
        Poll::Pending => drop(waiter),
    }
}

/// One that is let in whatever the limit, and so is not counted with the others.
fn let_in(door: &Arc<Door>, inside: &AtomicU32) {
    match door.enter(Priority::Normal, Instant::now()) {
        Ok(Entry::Waiter(waiter)) => {
            let permit = waiter.let_in(Instant::now());
            thread::yield_now();
            drop(permit);
        }
        Ok(Entry::Permit(permit)) => stay(inside, permit),
        Err(_) => {}
    }
}

/// Runs all at once; who waits for ever is a deadlock, which the scheduler tells.
fn meet(queue: u32, callers: Vec<fn(&Arc<Door>, &AtomicU32)>) {
    let meeting = move || {
        let (door, inside) = (door(queue), Arc::new(AtomicU32::new(0)));
        let threads = callers.iter().map(|&caller| {
            let (door, inside) = (door.clone(), inside.clone());
            thread::spawn(move || caller(&door, &inside))
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
        assert_eq!(door.state(), DoorState { limit: LIMIT, in_use: 0, queue: 0 });
        assert!(door.lock().queue.is_forgotten(), "somebody's fate was never heard");
    };
    shuttle::check_random(meeting.clone(), SCHEDULES);
    shuttle::check_pct(meeting, SCHEDULES, 3);
}

#[test]
fn a_place_given_to_one_who_leaves_at_that_moment_is_not_lost() {
    let patient = |door: &_, inside: &_| patient(door, inside, Priority::Normal);
    let leaves = |door: &_, inside: &_| impatient(door, inside, false);
    meet(8, vec![patient, patient, patient, leaves, leaves, patient]);
}

#[test]
fn a_place_given_to_one_whose_time_is_up_at_that_moment_is_not_lost() {
    let patient = |door: &_, inside: &_| patient(door, inside, Priority::Normal);
    let gives_up = |door: &_, inside: &_| impatient(door, inside, true);
    meet(8, vec![patient, patient, gives_up, gives_up, patient, patient]);
}

#[test]
fn one_that_is_displaced_when_it_leaves_or_is_let_in_takes_no_place_with_it() {
    let low = |door: &_, inside: &_| patient(door, inside, Priority::Low);
    let high = |door: &_, inside: &_| patient(door, inside, Priority::High);
    let leaves = |door: &_, inside: &_| impatient(door, inside, false);
    meet(1, vec![low, low, high, leaves, low, high]);
}

#[test]
fn who_is_let_in_at_the_moment_when_a_place_is_given_to_it_has_one_place() {
    let patient = |door: &_, inside: &_| patient(door, inside, Priority::Normal);
    meet(8, vec![patient, patient, let_in, let_in, patient, let_in]);
}
