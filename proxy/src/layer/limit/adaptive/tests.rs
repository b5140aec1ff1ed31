//! Against a model server in virtual time: so many sequences at once, and a queue that nobody sees.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use super::super::config::LimitConfig;
use super::super::door::{Door, Entry, Permit};
use super::super::queue::Priority;
use super::*;

/// A model server, and how it is called.
#[derive(Clone, Copy, Debug)]
struct Scene {
    sequences: usize,
    /// First token of the smallest request.
    prefill: Duration,
    /// From first token to end, on average; drawn from an exponential distribution.
    decode: Duration,
    callers: usize,
}

struct Server {
    scene: Scene,
    slots: Semaphore,
}

impl Server {
    async fn serve(&self, mut permit: Permit, random: &mut SmallRng) {
        let start = Instant::now();
        let _slot = self.slots.acquire().await.expect("the server runs");
        // Requests of 1, 8 and 64 KiB, which take one, two and four times as long, more or less;
        // one of a hundred takes ten times as long.
        let size = random.random_range(0..3_u32);
        let slow = if random.random_range(0..100) == 0 { 10.0 } else { 1.0 };
        let factor = f64::from(1 << size) * random.random_range(0.7..1.3) * slow;
        sleep(self.scene.prefill.mul_f64(factor)).await;
        let signal = Signal::FirstToken {
            after: start.elapsed(),
            request_bytes: 1024 * 8_u64.pow(size) - 1,
        };
        permit.tell(signal, Instant::now());
        let share = -random.random_range(0.001_f64..1.0).ln();
        sleep(self.scene.decode.mul_f64(share)).await;
    }
}

async fn enter(door: &Arc<Door>) -> Permit {
    match door.enter(Priority::Normal, Instant::now()).expect("there is room to wait") {
        Entry::Permit(permit) => permit,
        Entry::Waiter(waiter) => waiter.await.expect("nobody is sent away"),
    }
}

fn adaptive_door() -> Arc<Door> {
    let config = LimitConfig {
        adaptive: Some(AdaptiveConfig::default()),
        queue: 10_000,
        ..LimitConfig::default()
    };
    Arc::new(Door::new(&config))
}

/// Calls a server without pause; the limit once a second.
struct Run {
    door: Arc<Door>,
    server: Rc<Server>,
}

impl Run {
    fn start(scene: Scene) -> Self {
        let server = Rc::new(Server { scene, slots: Semaphore::new(scene.sequences) });
        let door = adaptive_door();
        for seed in 0..scene.callers {
            let (door, server) = (door.clone(), server.clone());
            let mut random = SmallRng::seed_from_u64(seed as u64);
            spawn_local(async move {
                loop {
                    let permit = enter(&door).await;
                    server.serve(permit, &mut random).await;
                }
            });
        }
        Self { door, server }
    }

    /// The limit, second by second.
    async fn watch(&self, seconds: usize) -> Vec<f64> {
        let mut limits = Vec::new();
        for _ in 0..seconds {
            sleep(Duration::from_secs(1)).await;
            limits.push(f64::from(self.door.state().limit));
        }
        limits
    }

    /// Takes sequences away from the server.
    async fn lose(&self, sequences: usize) {
        let lost = self.server.slots.acquire_many(sequences as u32).await;
        lost.expect("the server runs").forget();
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The first second from which on the mean over half a minute stays within a fifth of what it should.
fn settled(limits: &[f64], sequences: usize) -> Option<usize> {
    let good = |window: &[f64]| (mean(window) / sequences as f64 - 1.0).abs() <= 0.2;
    let windows: Vec<_> = limits.windows(30).map(good).collect();
    let last_bad = windows.iter().rposition(|good| !good);
    let first = last_bad.map_or(0, |at| at + 1);
    (first < windows.len()).then_some(first)
}

const fn scene(sequences: usize, prefill_ms: u64, decode_ms: u64) -> Scene {
    Scene {
        sequences,
        prefill: Duration::from_millis(prefill_ms),
        decode: Duration::from_millis(decode_ms),
        callers: sequences * 4,
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_finds_what_a_server_can_do_and_finds_it_again_when_half_of_it_is_lost() {
    let scenes = [
        scene(8, 100, 4_000),
        scene(32, 100, 4_000),
        scene(32, 50, 1_000),
        scene(64, 400, 2_000),
        scene(128, 200, 10_000),
    ];
    for scene in scenes {
        let story = async {
            let run = Run::start(scene);
            let whole = run.watch(600).await;
            run.lose(scene.sequences / 2).await;
            (whole, run.watch(600).await)
        };
        let (whole, half) = LocalSet::new().run_until(story).await;
        for (limits, sequences) in [(whole, scene.sequences), (half, scene.sequences / 2)] {
            let (after, mean) = (settled(&limits, sequences), mean(&limits[300..]));
            println!("{scene:?}: {sequences} found after {after:?} s, mean {mean:.1}");
            assert!(after.is_some_and(|seconds| seconds <= 60), "{limits:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_does_not_drift_away_in_hours_of_full_load() {
    let scene = scene(32, 100, 4_000);
    let story = async { Run::start(scene).watch(4 * 3600).await };
    let limits = LocalSet::new().run_until(story).await;
    let hours: Vec<_> = limits.chunks(3600).map(mean).collect();
    println!("mean by the hour: {hours:.1?}");
    assert!(hours.iter().all(|hour| (hour / 32.0 - 1.0).abs() < 0.2), "{hours:?}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_grows_when_the_server_does() {
    let scene = scene(16, 100, 2_000);
    let story = async {
        let run = Run::start(Scene { callers: 200, ..scene });
        run.watch(120).await;
        run.server.slots.add_permits(48);
        run.watch(300).await
    };
    let limits = LocalSet::new().run_until(story).await;
    let after = settled(&limits, 64);
    println!("64 in place of 16 found after {after:?} s");
    assert!(after.is_some_and(|seconds| seconds <= 120), "{limits:?}");
}

// === without a server ===

fn adaptive(min: u32, max: u32) -> Adaptive {
    let bound = |bound| NonZeroU32::new(bound).expect("above zero");
    Adaptive::new(&AdaptiveConfig { min: bound(min), max: bound(max), tolerance: 1.5 })
}

/// Tells of so many calls, all of them of now.
fn tell(adaptive: &mut Adaptive, signal: Signal, times: usize) {
    for _ in 0..times {
        adaptive.reached();
        let epoch = adaptive.epoch();
        adaptive.tell(signal, epoch, Instant::now());
    }
}

fn first_token(milliseconds: u64) -> Signal {
    Signal::FirstToken { after: Duration::from_millis(milliseconds), request_bytes: 100 }
}

/// One that has found a limit well above its least.
fn at_work() -> Adaptive {
    let mut adaptive = adaptive(1, 1000);
    tell(&mut adaptive, first_token(100), 100);
    adaptive.streamed(Duration::from_secs(2));
    tell(&mut adaptive, first_token(2000), 200);
    tell(&mut adaptive, first_token(100), 100);
    adaptive
}

#[test]
fn a_limit_stays_within_its_bounds() {
    let mut adaptive = adaptive(4, 40);
    tell(&mut adaptive, first_token(100), 1000);
    assert_eq!(adaptive.limit(), 40);
    tell(&mut adaptive, Signal::Overloaded, 1000);
    assert_eq!(adaptive.limit(), 4);
}

#[test]
fn one_late_token_and_one_overloaded_answer_change_nothing() {
    let mut adaptive = at_work();
    let before = adaptive.limit();
    for outlier in [first_token(600_000), Signal::Overloaded] {
        tell(&mut adaptive, outlier, 1);
        tell(&mut adaptive, first_token(100), 200);
        assert!(adaptive.limit() >= before, "{before} became {}", adaptive.limit());
    }
}

#[test]
fn a_limit_that_is_not_used_does_not_grow() {
    let mut adaptive = at_work();
    adaptive.was_full = false;
    let (before, epoch) = (adaptive.limit(), adaptive.epoch());
    (0..1000).for_each(|_| adaptive.tell(first_token(100), epoch, Instant::now()));
    assert_eq!(adaptive.limit(), before);
}

#[test]
fn calls_from_before_a_change_do_not_change_it_again() {
    let mut adaptive = at_work();
    let old = adaptive.epoch();
    tell(&mut adaptive, Signal::Overloaded, FEW);
    let after = adaptive.limit();
    for signal in [Signal::Overloaded, first_token(100_000), Signal::Answered] {
        (0..1000).for_each(|_| adaptive.tell(signal, old, Instant::now()));
    }
    assert_eq!(adaptive.limit(), after);
}

#[test]
fn after_an_outage_the_limit_is_soon_where_it_was() {
    let mut adaptive = at_work();
    let before = adaptive.limit();
    tell(&mut adaptive, Signal::Overloaded, 1000);
    assert_eq!(adaptive.limit(), 1);
    tell(&mut adaptive, first_token(100), 3 * before as usize);
    assert!(adaptive.limit() >= before / 2, "{before} became {}", adaptive.limit());
}

#[test]
fn an_upstream_that_has_become_slow_at_any_load_is_not_held_at_the_least_for_ever() {
    let mut adaptive = at_work();
    tell(&mut adaptive, first_token(5_000), 2000);
    assert!(adaptive.limit() > 50, "{}", adaptive.limit());
}

#[test]
fn where_nothing_streams_overloaded_answers_alone_hold_the_limit_down() {
    let mut adaptive = adaptive(4, 512);
    // A server of 40 that refuses what it has no room for.
    let mut seen = Vec::new();
    for _ in 0..400 {
        let (limit, epoch) = (adaptive.limit(), adaptive.epoch());
        for call in 0..limit {
            let signal = if call < 40 { Signal::Answered } else { Signal::Overloaded };
            adaptive.reached();
            adaptive.tell(signal, epoch, Instant::now());
        }
        seen.push(f64::from(limit));
    }
    let found = mean(&seen[200..]);
    assert!((found / 40.0 - 1.0).abs() < 0.2, "{found}: {seen:?}");
}

#[test]
fn sizes_are_told_apart_by_factors_of_four() {
    let sizes = [0, 1023, 1024, 4095, 4096, 16_384, 1 << 20, u64::MAX].map(size);
    assert_eq!(sizes, [0, 0, 1, 1, 2, 3, 6, 7]);
}
