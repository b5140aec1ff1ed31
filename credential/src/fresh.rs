//! A value that is fetched anew before it goes stale: once for all, in the background.
//!
//! The last good value serves until it expires, whatever the source says meanwhile. Those who ask
//! before the first one has come wait for it, for a time; those who ask after a failure do not.
//! A value that was refused before its end is fetched anew at once, but not again and again: one
//! that is revoked for good would have every call ask for another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::Error;

/// How long one fetch may take.
const FETCH_LIMIT: Duration = Duration::from_secs(30);
/// Between two tries after a failure: grows from the first to the second.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// Between two fetches of what was refused.
const RENEWAL: Duration = Duration::from_secs(60);

/// Where a value comes from.
pub(crate) trait Source: Send + 'static {
    /// What it gives.
    type Value: Send + Sync + 'static;

    /// What the source is, in few words, for messages and metrics.
    fn name(&self) -> &'static str;

    /// Fetches the value. An error is told to users: it must not hold a secret.
    fn fetch(&mut self) -> impl Future<Output = Result<Fetched<Self::Value>, String>> + Send;

    /// Fetches another value than the last one, which was refused; what is kept between here and its
    /// origin does not count. Where that fails, all is as it was before.
    fn renew(&mut self) -> impl Future<Output = Result<Fetched<Self::Value>, String>> + Send {
        self.fetch()
    }

    /// Whether the last value still serves where a fetch fails before it expires.
    fn keeps_until_expiry(&self) -> bool {
        true
    }
}

/// What a source gave.
#[derive(Debug)]
pub(crate) struct Fetched<T> {
    /// The value; absent where it is the same as before.
    pub(crate) value: Option<T>,
    /// From when on it is of no use.
    pub(crate) expires: Option<Instant>,
    /// When to fetch again.
    pub(crate) again_in: Duration,
}

/// A value that is kept fresh for as long as this, or a clone of it, is held.
#[derive(Debug)]
pub(crate) struct Fresh<T> {
    name: &'static str,
    state: watch::Receiver<State<T>>,
    renewals: Arc<Renewals>,
}

/// A value, and which one it is.
#[derive(Debug)]
pub(crate) struct Known<T> {
    pub(crate) value: Arc<T>,
    /// Counts the values that there were, from 1.
    pub(crate) version: u64,
}

/// Fetches of what was refused.
#[derive(Debug, Default)]
struct Renewals {
    begun: Mutex<Begun>,
    asked: Notify,
}

/// How many were begun, and when the last one was.
#[derive(Debug, Default)]
struct Begun {
    count: u64,
    last: Option<Instant>,
}

/// What is known of the value.
#[derive(Debug)]
pub(crate) struct State<T> {
    value: Option<Arc<T>>,
    version: u64,
    /// Fetches of what was refused that are over.
    renewed: u64,
    expires: Option<Instant>,
    fetched: Option<Instant>,
    /// Fetches that failed, in all.
    failures: u64,
    /// What the last fetch said, where it failed.
    failed: Option<String>,
}

/// How fresh a credential is, for metrics and the admin address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Freshness {
    /// Since the value in use was fetched; absent where there is none.
    pub age: Option<Duration>,
    /// Until it expires; absent where it does not, or there is none.
    pub expires_in: Option<Duration>,
    /// Fetches that failed, in all.
    pub failures: u64,
}

// === impl Fresh ===

impl<T: Send + Sync + 'static> Fresh<T> {
    /// Fetches from `source` in the background, from now on.
    pub(crate) fn keep(source: impl Source<Value = T>, background: &Handle) -> Self {
        let (sender, state) = watch::channel(State::new());
        let (name, renewals) = (source.name(), Arc::<Renewals>::default());
        background.spawn(keep(source, sender, renewals.clone()));
        Self { name, state, renewals }
    }

    /// Whether there is another value than this one, which was refused. If not, one is fetched,
    /// unless that was tried lately: once for all who ask, and they wait for it, at most `limit`.
    pub(crate) async fn renew(&self, refused: u64, limit: Duration) -> bool {
        let mut state = self.state.clone();
        if state.borrow().version != refused {
            return true;
        }
        let begun = self.renewals.begin(Instant::now());
        let is_over = |state: &State<T>| state.version != refused || state.renewed >= begun;
        let waited = timeout(limit, state.wait_for(is_over)).await;
        waited.is_ok_and(|state| state.is_ok_and(|state| state.version != refused))
    }

    /// The value, if there is one that serves, else the reason. Waits at most `limit`.
    pub(crate) async fn get(&self, limit: Duration) -> Result<Known<T>, Error> {
        if let Some(known) = self.state.borrow().known(self.name, Instant::now()) {
            return known;
        }
        let mut state = self.state.clone();
        let wait = async {
            loop {
                if state.changed().await.is_err() {
                    return Err(Error::Unavailable {
                        from: self.name,
                        reason: "it has stopped".to_owned(),
                    });
                }
                if let Some(known) = state.borrow().known(self.name, Instant::now()) {
                    return known;
                }
            }
        };
        timeout(limit, wait)
            .await
            .unwrap_or_else(|_| Err(Error::Late { from: self.name, limit_s: limit.as_secs() }))
    }

    pub(crate) fn freshness(&self) -> Freshness {
        let state = self.state.borrow();
        let now = Instant::now();
        Freshness {
            age: state.fetched.map(|fetched| now - fetched),
            expires_in: state.expires.map(|expires| expires.saturating_duration_since(now)),
            failures: state.failures,
        }
    }
}

impl<T> Clone for Fresh<T> {
    fn clone(&self) -> Self {
        Self { name: self.name, state: self.state.clone(), renewals: self.renewals.clone() }
    }
}

// === impl Renewals ===

impl Renewals {
    /// Has one begun, if none was lately; how many were begun by now.
    fn begin(&self, now: Instant) -> u64 {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.last.is_none_or(|last| now >= last + RENEWAL) {
            (begun.count, begun.last) = (begun.count + 1, Some(now));
            self.asked.notify_one();
        }
        begun.count
    }
}

// === impl State ===

impl<T> State<T> {
    fn new() -> Self {
        let (version, renewed, failures) = (0, 0, 0);
        Self { value: None, version, renewed, expires: None, fetched: None, failures, failed: None }
    }

    /// The value or the failure; nothing where a first fetch is still under way.
    fn known(&self, name: &'static str, now: Instant) -> Option<Result<Known<T>, Error>> {
        let serves = self.expires.is_none_or(|expires| now < expires);
        if let Some(value) = self.value.as_ref().filter(|_| serves) {
            return Some(Ok(Known { value: value.clone(), version: self.version }));
        }
        let reason = self.failed.clone()?;
        Some(Err(Error::Unavailable { from: name, reason }))
    }

    fn succeeded(&mut self, value: Option<T>, expires: Option<Instant>) {
        if let Some(value) = value {
            self.value = Some(Arc::new(value));
            self.version += 1;
            self.fetched = Some(Instant::now());
        }
        self.expires = expires;
        self.failed = None;
    }

    fn failed(&mut self, reason: String, keeps: bool) {
        self.failures += 1;
        self.failed = Some(reason);
        if !keeps {
            self.value = None;
        }
    }
}

async fn keep<S: Source>(
    mut source: S,
    state: watch::Sender<State<S::Value>>,
    renewals: Arc<Renewals>,
) {
    let name = source.name();
    let mut retry = RETRY[0];
    let mut is_refused = false;
    loop {
        let fetched = match is_refused {
            false => timeout(FETCH_LIMIT, source.fetch()).await,
            true => timeout(FETCH_LIMIT, source.renew()).await,
        };
        let fetched = fetched
            .unwrap_or_else(|_| Err(format!("no answer within {} s", FETCH_LIMIT.as_secs())));
        let pause = match fetched {
            Ok(Fetched { value, expires, again_in }) => {
                state.send_modify(|state| {
                    state.succeeded(value, expires);
                    state.renewed += u64::from(is_refused);
                });
                retry = RETRY[0];
                again_in
            }
            Err(reason) => {
                tracing::warn!(source = name, %reason, "credential could not be fetched");
                let keeps = is_refused || source.keeps_until_expiry();
                state.send_modify(|state| {
                    state.failed(reason, keeps);
                    state.renewed += u64::from(is_refused);
                });
                let pause = retry;
                retry = (retry * 2).min(RETRY[1]);
                pause
            }
        };
        is_refused = tokio::select! {
            () = sleep(pause) => false,
            () = renewals.asked.notified() => true,
            () = state.closed() => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Gives what it is told to, in turn; the last one for ever.
    struct Script(VecDeque<Result<(u32, u64), &'static str>>);

    impl Source for Script {
        type Value = u32;

        fn name(&self) -> &'static str {
            "a script"
        }

        async fn fetch(&mut self) -> Result<Fetched<u32>, String> {
            let next = if self.0.len() > 1 { self.0.pop_front() } else { self.0.front().copied() };
            let (value, seconds) = next.expect("a script has a last line")?;
            let life = Duration::from_secs(seconds);
            Ok(Fetched {
                value: Some(value),
                expires: Some(Instant::now() + life),
                again_in: life / 2,
            })
        }
    }

    fn keep(script: &[Result<(u32, u64), &'static str>]) -> Fresh<u32> {
        Fresh::keep(Script(script.iter().copied().collect()), &Handle::current())
    }

    async fn value(fresh: &Fresh<u32>) -> Result<u32, String> {
        let got = fresh.get(Duration::from_secs(5)).await;
        got.map(|known| *known.value).map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_fetched_anew_before_it_expires() {
        let fresh = keep(&[Ok((1, 100)), Ok((2, 100))]);
        assert_eq!(value(&fresh).await, Ok(1));
        sleep(Duration::from_secs(51)).await;
        assert_eq!(value(&fresh).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_value_serves_until_it_expires() {
        let fresh = keep(&[Ok((1, 100)), Err("away")]);
        assert_eq!(value(&fresh).await, Ok(1));
        sleep(Duration::from_secs(99)).await;
        assert_eq!(value(&fresh).await, Ok(1));
        assert!(fresh.freshness().failures > 1);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(value(&fresh).await, Err("no credential from a script: away".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_comes_back_is_taken_up_again() {
        let fresh = keep(&[Err("away"), Err("away"), Ok((1, 100))]);
        assert_eq!(value(&fresh).await, Err("no credential from a script: away".to_owned()));
        sleep(Duration::from_secs(4)).await;
        assert_eq!(value(&fresh).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_silent_hangs_nobody() {
        struct Silent;
        impl Source for Silent {
            type Value = u32;
            fn name(&self) -> &'static str {
                "silence"
            }
            async fn fetch(&mut self) -> Result<Fetched<u32>, String> {
                std::future::pending().await
            }
        }
        let fresh = Fresh::keep(Silent, &Handle::current());
        let error = fresh.get(Duration::from_secs(5)).await.expect_err("nothing came");
        assert_eq!(error.kind(), "credential_timeout");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_fetched_anew_once_for_all_who_ask() {
        let fresh = keep(&[Ok((1, 1000)), Ok((2, 1000)), Ok((3, 1000))]);
        let refused = fresh.get(RENEWAL).await.expect("it is there").version;
        let (one, other) =
            tokio::join!(fresh.renew(refused, RENEWAL), fresh.renew(refused, RENEWAL));
        assert!(one && other);
        assert_eq!(value(&fresh).await, Ok(2));
        assert!(fresh.renew(refused, RENEWAL).await, "there is another already");
        assert_eq!(value(&fresh).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_again_and_again_is_fetched_no_more_than_once_a_minute() {
        let fresh = keep(&[Ok((1, 1000)), Ok((2, 1000)), Ok((3, 1000))]);
        let current = async || {
            let known = fresh.get(RENEWAL).await.expect("it is there");
            (*known.value, known.version)
        };
        let (_, first) = current().await;
        assert!(fresh.renew(first, RENEWAL).await);
        let (value, second) = current().await;
        assert_eq!(value, 2);
        let start = Instant::now();
        for _ in 0..100 {
            assert!(!fresh.renew(second, RENEWAL).await);
        }
        assert_eq!(start.elapsed(), Duration::ZERO, "nobody waits for what does not come");
        sleep(RENEWAL).await;
        assert!(fresh.renew(second, RENEWAL).await);
        assert_eq!(current().await.0, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_serves_on_where_there_is_no_other() {
        let fresh = keep(&[Ok((1, 1000)), Err("away")]);
        let refused = fresh.get(RENEWAL).await.expect("it is there").version;
        assert!(!fresh.renew(refused, RENEWAL).await);
        assert_eq!(value(&fresh).await, Ok(1));
    }
}
