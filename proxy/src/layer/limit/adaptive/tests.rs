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
use super::super::gate::{Entry, Gate, Permit};
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

async fn enter(gate: &Arc<Gate>) -> Permit {
    match gate.enter(Priority::Normal, Instant::now()).expect("there is room to wait") {
        Entry::Permit(permit) => permit,
        Entry::Waiter(waiter) => waiter.await.expect("nobody is sent away"),
    }
}

fn adaptive_gate() -> Arc<Gate> {
    let config = LimitConfig {
        adaptive: Some(AdaptiveConfig::default()),
        queue: 10_000,
        ..LimitConfig::default()
    };
    Arc::new(Gate::new(&config))
}

/// Calls a server without pause; the limit once a second.
struct Run {
    gate: Arc<Gate>,
    server: Rc<Server>,
}

impl Run {
    fn start(scene: Scene) -> Self {
        let server = Rc::new(Server { scene, slots: Semaphore::new(scene.sequences) });
        let gate = adaptive_gate();
        for seed in 0..scene.callers {
            let (gate, server) = (gate.clone(), server.clone());
            let mut random = SmallRng::seed_from_u64(seed as u64);
            spawn_local(async move {
                loop {
                    let permit = enter(&gate).await;
                    server.serve(permit, &mut random).await;
                }
            });
        }
        Self { gate, server }
    }

    /// The limit, second by second.
    async fn watch(&self, seconds: usize) -> Vec<f64> {
        let mut limits = Vec::new();
        for _ in 0..seconds {
            sleep(Duration::from_secs(1)).await;
            limits.push(f64::from(self.gate.state().limit));
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

/// The first second from which on the mean over ten seconds stays within a fifth of what it should.
fn settled(limits: &[f64], sequences: usize) -> Option<usize> {
    let good = |window: &[f64]| (mean(window) / sequences as f64 - 1.0).abs() <= 0.2;
    let windows: Vec<_> = limits.windows(10).map(good).collect();
    let last_bad = windows.iter().rposition(|good| !good);
    let first = last_bad.map_or(0, |at| at + 1);
    (first < windows.len()).then_some(first)
}

const SCENES: [Scene; 5] = {
    const fn scene(sequences: usize, prefill_ms: u64, decode_ms: u64) -> Scene {
        Scene {
            sequences,
            prefill: Duration::from_millis(prefill_ms),
            decode: Duration::from_millis(decode_ms),
            callers: sequences * 4,
        }
    }
    [
        scene(8, 100, 4_000),
        scene(32, 100, 4_000),
        scene(32, 50, 1_000),
        scene(128, 200, 10_000),
        scene(64, 400, 2_000),
    ]
};

#[tokio::test(start_paused = true)]
async fn the_limit_finds_what_a_server_can_do_and_finds_it_again_when_half_of_it_is_lost() {
    for scene in SCENES {
        LocalSet::new()
            .run_until(async {
                let run = Run::start(scene);
                let whole = run.watch(600).await;
                run.lose(scene.sequences / 2).await;
                let half = run.watch(600).await;
                println!(
                    "{scene:?}: settled after {:?} s, mean {:.1}; halved: after {:?} s, mean {:.1}",
                    settled(&whole, scene.sequences),
                    mean(&whole[300..]),
                    settled(&half, scene.sequences / 2),
                    mean(&half[300..]),
                );
                println!("{:?}", &whole[..100]);
                println!("{:?}", &half[..100]);
            })
            .await;
    }
}
