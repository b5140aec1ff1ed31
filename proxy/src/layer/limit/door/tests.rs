use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::time::{sleep, timeout};

use super::super::config::AdaptiveConfig;
use super::*;
use crate::config::Span;

fn door(concurrency: u32, queue: u32) -> Arc<Door> {
    let concurrency = NonZeroU32::new(concurrency);
    Arc::new(Door::new(&LimitConfig { concurrency, queue, ..LimitConfig::default() }))
}

fn enter(door: &Arc<Door>, priority: Priority) -> Result<Entry, Shed> {
    door.enter(priority, Instant::now())
}

/// A place at once, as a test expects it.
fn permit(door: &Arc<Door>) -> Permit {
    match enter(door, Priority::Normal) {
        Ok(Entry::Permit(permit)) => permit,
        other => panic!("there is room: {other:?}"),
    }
}

/// A place in the queue, as a test expects it.
fn waiter(door: &Arc<Door>, priority: Priority) -> Waiter {
    match enter(door, priority) {
        Ok(Entry::Waiter(waiter)) => waiter,
        other => panic!("there is a queue: {other:?}"),
    }
}

/// What became of a waiter so far.
async fn look(waiter: &mut Waiter) -> Option<Result<Permit, Shed>> {
    timeout(Duration::ZERO, waiter).await.ok()
}

#[tokio::test(start_paused = true)]
async fn a_place_that_comes_free_goes_to_the_next_and_to_no_newcomer() {
    let door = door(1, 8);
    let inside = permit(&door);
    let mut low = waiter(&door, Priority::Low);
    let mut high = waiter(&door, Priority::High);
    assert!(look(&mut high).await.is_none() && look(&mut low).await.is_none());

    drop(inside);
    let _newcomer = waiter(&door, Priority::High);
    assert!(look(&mut low).await.is_none());
    let inside = look(&mut high).await.expect("it is next").expect("it is let in");
    assert_eq!(door.state(), DoorState { limit: 1, in_use: 1, queue: 2 });
    drop(inside);
}

#[tokio::test]
async fn a_place_that_was_given_to_one_who_leaves_goes_on_to_the_next() {
    let door = door(1, 8);
    let inside = permit(&door);
    let (first, mut second) = (waiter(&door, Priority::Normal), waiter(&door, Priority::Normal));
    drop(inside);
    drop(first);
    assert!(matches!(look(&mut second).await, Some(Ok(_))));
}

#[tokio::test]
async fn one_who_leaves_the_queue_frees_its_place_in_it() {
    let door = door(1, 1);
    let _inside = permit(&door);
    let waiting = waiter(&door, Priority::Normal);
    assert!(enter(&door, Priority::Normal).is_err());
    drop(waiting);
    let _waiting = waiter(&door, Priority::Normal);
}

#[tokio::test]
async fn one_who_makes_room_for_a_more_urgent_one_hears_of_it() {
    let door = door(1, 1);
    let _inside = permit(&door);
    let mut low = waiter(&door, Priority::Low);
    let waiting = tokio::spawn(async move { (&mut low).await.map(drop) });
    tokio::task::yield_now().await;
    let _high = waiter(&door, Priority::High);
    let shed = waiting.await.expect("no panic").expect_err("it had to go");
    assert_eq!(shed.reason, Reason::QueueFull);
}

#[tokio::test]
async fn one_who_gives_up_when_it_was_let_in_is_in() {
    let door = door(1, 2);
    let inside = permit(&door);
    let (first, second) = (waiter(&door, Priority::Normal), waiter(&door, Priority::Normal));
    drop(inside);
    let inside = first.give_up(Instant::now()).expect("it was let in");
    let shed = second.give_up(Instant::now()).expect_err("it was not");
    assert_eq!(shed.reason, Reason::QueueTimeout);
    drop(inside);
    assert_eq!(door.state(), DoorState { limit: 1, in_use: 0, queue: 0 });
}

#[tokio::test(start_paused = true)]
async fn who_is_sent_away_is_told_when_there_will_be_room() {
    let door = door(4, 6);
    let shed = |door: &Arc<Door>| enter(door, Priority::Normal).expect_err("all is full");
    let held: Vec<_> = (0..4).map(|_| permit(&door)).collect();
    let _waiting: Vec<_> = (0..6).map(|_| waiter(&door, Priority::Normal)).collect();
    assert_eq!(shed(&door).retry_after, Duration::from_secs(1), "nothing is known yet");

    // Four places of eight seconds each come free every two seconds, and six wait before it.
    sleep(Duration::from_secs(8)).await;
    drop(held);
    let _next = [waiter(&door, Priority::Normal), waiter(&door, Priority::Normal)];
    let _last = [waiter(&door, Priority::Normal), waiter(&door, Priority::Normal)];
    assert_eq!(shed(&door).retry_after, Duration::from_secs(14));
    // Where none comes free for long, the past says little.
    sleep(Duration::from_secs(4)).await;
    assert_eq!(shed(&door).retry_after, Duration::from_secs(28));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(shed(&door).retry_after, Duration::from_secs(60));
}

#[test]
fn callers_of_many_threads_are_never_more_than_the_limit_and_all_get_their_turn() {
    let door = door(8, 1000);
    let (inside, most, served) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let call = async || {
        for _ in 0..20 {
            let permit = match enter(&door, Priority::Normal).expect("there is room to wait") {
                Entry::Permit(permit) => permit,
                Entry::Waiter(waiter) => waiter.await.expect("nobody is sent away"),
            };
            most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, SeqCst);
            drop(permit);
            served.fetch_add(1, SeqCst);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("good");
                runtime.block_on(futures(25, &call));
            });
        }
    });
    assert_eq!(served.load(SeqCst), 4 * 25 * 20);
    assert!(most.load(SeqCst) <= 8, "{most:?} were inside");
    assert_eq!(door.state(), DoorState { limit: 8, in_use: 0, queue: 0 });
}

/// So many at once, in one task.
async fn futures(count: usize, make: &impl AsyncFn()) {
    let mut futures: Vec<_> = (0..count).map(|_| Some(Box::pin(make()))).collect();
    std::future::poll_fn(|cx| {
        for future in &mut futures {
            if future.as_mut().is_some_and(|future| future.as_mut().poll(cx).is_ready()) {
                *future = None;
            }
        }
        if futures.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn a_limit_that_grows_lets_those_in_who_wait() {
    let adaptive = AdaptiveConfig { min: NonZeroU32::MIN, ..AdaptiveConfig::default() };
    let config = LimitConfig { adaptive: Some(adaptive), ..LimitConfig::default() };
    let door = Arc::new(Door::new(&config));
    let mut inside = permit(&door);
    let mut waiting = waiter(&door, Priority::Normal);
    for _ in 0..3 {
        let signal = Signal::FirstToken { after: Duration::from_millis(10), request_bytes: 1 };
        inside.tell(signal, Instant::now());
    }
    assert_eq!(door.state().limit, 2);
    assert!(matches!(look(&mut waiting).await, Some(Ok(_))));
}

#[test]
fn ageing_is_as_configured() {
    let config = LimitConfig {
        concurrency: NonZeroU32::new(1),
        priority_ageing: Span(Duration::from_millis(1)),
        ..LimitConfig::default()
    };
    let (door, start) = (Arc::new(Door::new(&config)), Instant::now());
    let inside = door.enter(Priority::Normal, start).expect("there is room");
    let low = door.enter(Priority::Low, start).expect("there is a queue");
    let late = start + Duration::from_millis(3);
    let high = door.enter(Priority::High, late).expect("there is a queue");
    drop(inside);
    let (Entry::Waiter(low), Entry::Waiter(high)) = (low, high) else { panic!("both wait") };
    assert!(high.give_up(late).is_err() && low.give_up(late).is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_looks_on_lets_all_in_and_counts_them() {
    let door = door(1, 8);
    let (first, had_none) = door.look_on(Instant::now());
    assert!(!had_none);
    let (second, had_none) = door.look_on(Instant::now());
    assert!(had_none);
    assert_eq!(door.state(), DoorState { limit: 1, in_use: 2, queue: 0 });

    // When it acts again, nobody comes in before there is a place.
    let mut waiting = waiter(&door, Priority::Normal);
    drop(first);
    assert!(look(&mut waiting).await.is_none());
    drop(second);
    assert!(matches!(look(&mut waiting).await, Some(Ok(_))));
}

#[tokio::test(start_paused = true)]
async fn who_waits_may_be_let_in_whether_there_is_a_place_or_not() {
    let door = door(1, 8);
    let inside = permit(&door);
    let (first, second) = (waiter(&door, Priority::Normal), waiter(&door, Priority::Normal));
    let first = first.let_in(Instant::now());
    assert_eq!(door.state(), DoorState { limit: 1, in_use: 2, queue: 1 });
    drop((inside, first));
    // The place was its own by then.
    let second = second.let_in(Instant::now());
    assert_eq!(door.state(), DoorState { limit: 1, in_use: 1, queue: 0 });
    drop(second);
    assert_eq!(door.state(), DoorState { limit: 1, in_use: 0, queue: 0 });
}
