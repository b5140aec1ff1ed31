//! Nothing is lost and nothing is counted twice, in whatever order threads meet.
//!
//! Run by `tests/run --long`, for this lock is not the standard library's.

use jiff::Timestamp;
use shuttle::thread;

use super::*;
use crate::layer::quota::config::QuotaConfig;
use crate::layer::quota::rule::Subject;

/// Schedules that are tried.
const SCHEDULES: usize = 5_000;
/// What there is of each quota.
const REQUESTS: u64 = 2;
/// What a call holds, and what it uses.
const HELD: u64 = 10;
const USED: u64 = 7;

const NOW: Now = Now { steady: 1_000, wall: Timestamp::UNIX_EPOCH };

fn rule(id: u64, text: &str) -> Arc<Rule> {
    let config: QuotaConfig = crate::config::parse_yaml(text).expect("a good quota");
    let mut rule = Rule::new("quota", &config);
    rule.id = id;
    Arc::new(rule)
}

/// One quota that all share, and one for each caller.
fn rules() -> [Arc<Rule>; 2] {
    let text = format!("{{ window: 1m, requests: {REQUESTS}, mode: enforce }}");
    [rule(0, &text), rule(1, "{ window: 1m, tokens: 1000, per: caller, mode: enforce }")]
}

fn claims(rules: &[Arc<Rule>], caller: usize) -> Vec<Claim> {
    let subject = Subject {
        caller: Some(caller.to_string().into()),
        model: None,
        upstream: "upstream".into(),
    };
    let claim = |rule: &Arc<Rule>| Claim {
        rule: rule.clone(),
        key: rule.key(&subject).expect("it is about all calls"),
        label: "".into(),
        holds: Amounts::of_request(0, HELD, 0),
        most: Amounts::of_request(0, HELD, 0),
    };
    rules.iter().map(claim).collect()
}

/// Calls once, and says whether it was let in. One that gives up used nothing.
fn call(budgets: &Budgets, rules: &[Arc<Rule>], caller: usize, gives_up: bool) -> bool {
    let Ok(admitted) = budgets.admit(claims(rules, caller), true, &NOW) else { return false };
    thread::yield_now();
    let used = match gives_up {
        true => Amounts::default(),
        false => Amounts::of_request(0, USED, 0),
    };
    admitted.holdings.iter().for_each(|holding| budgets.settle(holding, &used, &NOW));
    true
}

/// What is used and held of all budgets of a quota.
fn total(budgets: &Budgets, rule: &Arc<Rule>) -> (Amounts, Amounts) {
    let mut sum = (Amounts::default(), Amounts::default());
    for shown in budgets.standings(std::slice::from_ref(rule), &NOW) {
        sum.0.add(&shown.standing.used);
        sum.1.add(&shown.standing.open);
    }
    sum
}

/// Runs all at once, with room for so many budgets.
fn meet(room: usize, callers: Vec<bool>) {
    // Made here: to read YAML takes more of a stack than these threads have.
    let rules = rules();
    let meeting = move || {
        let budgets = Arc::new(Budgets::new(room));
        let threads = callers.iter().enumerate().map(|(caller, &gives_up)| {
            let (budgets, rules) = (budgets.clone(), rules.clone());
            thread::spawn(move || call(&budgets, &rules, caller, gives_up))
        });
        let threads: Vec<_> = threads.collect();
        let entered = threads.into_iter().map(|thread| thread.join().expect("no thread panics"));
        let used = entered.zip(&callers).filter(|(entered, gives_up)| *entered && !**gives_up);
        let used = used.count() as u64;

        assert!(used <= REQUESTS, "{used} were let in");
        if !callers.contains(&true) {
            assert_eq!(used, REQUESTS.min(callers.len() as u64));
        }
        for rule in &rules {
            let (spent, open) = total(&budgets, rule);
            assert_eq!(spent[Kind::Requests], used, "each is counted once by each quota");
            assert_eq!(spent[Kind::Tokens], used * USED);
            assert_eq!(open, Amounts::default(), "nothing is held by nobody");
        }
    };
    let meeting = Arc::new(meeting);
    let again = meeting.clone();
    shuttle::check_random(move || again(), SCHEDULES);
    shuttle::check_pct(move || meeting(), SCHEDULES, 3);
}

#[test]
fn no_more_are_let_in_than_there_is_and_each_is_charged_once() {
    meet(100, vec![false; 5]);
}

#[test]
fn what_who_gives_up_has_held_is_there_for_others() {
    meet(100, vec![false, true, false, true, false]);
}

#[test]
fn who_finds_no_room_is_charged_all_the_same() {
    meet(1, vec![false, true, false, false]);
}
