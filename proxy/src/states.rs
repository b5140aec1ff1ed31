//! The state of every policy, as the admin address shows it: a JSON object by policy, then by what
//! the policy is about, mostly an upstream.
//!
//! There are two ways in. What all workers share says its state when asked, from any thread: it is
//! registered with [`States::show`] where its generation is made, and goes with it. What a worker
//! has of its own is asked of each worker, on its own thread, and the answers are added up
//! ([`Ask`], `Routes::state`). Nothing is kept for this on the way of a call.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

/// Questions to one worker that may wait.
const QUESTIONS: usize = 8;
/// How long a worker may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Says its state when asked.
type Show = Box<dyn Fn() -> Value + Send + Sync>;

/// What the workers of one generation share, and can be asked for its state.
#[derive(Default)]
pub(crate) struct States(BTreeMap<&'static str, BTreeMap<String, Show>>);

/// Asks one worker for the state of what is its own.
#[derive(Clone, Debug)]
pub(crate) struct Ask(mpsc::Sender<oneshot::Sender<Value>>);

/// The questions that come to one worker.
#[derive(Debug)]
pub(crate) struct Questions(mpsc::Receiver<oneshot::Sender<Value>>);

// === impl States ===

impl States {
    /// Shows this state of a policy, as it is whenever somebody asks: `breaker`, `openai`.
    pub(crate) fn show(
        &mut self,
        policy: &'static str,
        about: &str,
        state: impl Fn() -> Value + Send + Sync + 'static,
    ) {
        self.0.entry(policy).or_default().insert(about.to_owned(), Box::new(state));
    }

    /// All states by now.
    pub(crate) fn state(&self) -> Value {
        let of_policy = |shown: &BTreeMap<String, Show>| {
            shown.iter().map(|(about, state)| (about.clone(), state())).collect::<Map<_, _>>()
        };
        self.0.iter().map(|(policy, shown)| ((*policy).to_owned(), of_policy(shown))).collect()
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

// === impl Ask ===

impl Ask {
    /// A way to ask a worker, and its other end.
    pub(crate) fn new() -> (Self, Questions) {
        let (sender, receiver) = mpsc::channel(QUESTIONS);
        (Self(sender), Questions(receiver))
    }

    /// What the worker says; nothing where it is too busy to answer.
    async fn state(&self) -> Option<Value> {
        let (sender, answer) = oneshot::channel();
        self.0.try_send(sender).ok()?;
        tokio::time::timeout(ANSWER, answer).await.ok()?.ok()
    }
}

impl Questions {
    /// Answers for as long as somebody may ask.
    pub(crate) async fn answer(mut self, state: impl Fn() -> Value) {
        while let Some(answer) = self.0.recv().await {
            // Who has not waited needs no answer.
            _ = answer.send(state());
        }
    }
}

/// What these workers say, added to what they share.
pub(crate) async fn state(shared: &States, workers: &[Ask]) -> Value {
    let mut all = shared.state();
    for worker in workers {
        if let Some(state) = worker.state().await {
            add(&mut all, state);
        }
    }
    all
}

/// Adds numbers; of other values that differ, all are shown.
fn add(sum: &mut Value, more: Value) {
    match (sum, more) {
        (Value::Object(sum), Value::Object(more)) => {
            for (key, value) in more {
                match sum.get_mut(&key) {
                    Some(known) => add(known, value),
                    None => _ = sum.insert(key, value),
                }
            }
        }
        (Value::Number(sum), Value::Number(more)) => {
            if let (Some(one), Some(other)) = (sum.as_u64(), more.as_u64()) {
                *sum = one.saturating_add(other).into();
            }
        }
        (Value::Array(sum), Value::Array(more)) => sum.extend(more),
        (Value::Array(sum), more) => sum.push(more),
        (sum, more) if *sum != more => *sum = Value::Array(vec![sum.take(), more]),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_workers_say_is_added_to_what_they_share() {
        let mut shared = States::default();
        shared.show("quota", "team", || json!({ "left": 7 }));
        let (ask, questions) = Ask::new();
        let (other, other_questions) = Ask::new();
        let (gone, _) = Ask::new();
        let open = |idle: u32, state: &str| json!({ "connections": { "a": { "idle": idle, "is": state } } });
        let asks = [ask, other, gone];
        let all = tokio::select! {
            all = state(&shared, &asks) => all,
            () = questions.answer(|| open(1, "up")) => unreachable!("it answers for ever"),
            () = other_questions.answer(|| open(2, "down")) => unreachable!("it answers for ever"),
        };
        let connections = json!({ "a": { "idle": 3, "is": ["up", "down"] } });
        assert_eq!(all, json!({ "quota": { "team": { "left": 7 } }, "connections": connections }));
    }
}
