use jiff::Timestamp;

use super::*;
use crate::layer::quota::config::QuotaConfig;
use crate::layer::quota::rule::Subject;

fn rule(id: u64, name: &str, text: &str) -> Arc<Rule> {
    let config: QuotaConfig = crate::config::parse_yaml(text).expect("a good quota");
    let mut rule = Rule::new(name, &config);
    rule.id = id;
    Arc::new(rule)
}

fn at(seconds: i64) -> Now {
    Now { steady: seconds * 1_000, wall: Timestamp::from_second(seconds).expect("a time") }
}

fn subject(caller: &str, model: &str) -> Subject {
    let name = |name: &str| (!name.is_empty()).then(|| name.into());
    Subject { caller: name(caller), model: name(model), upstream: "upstream".into() }
}

/// What a call would take of all quotas that are about it.
fn claims(rules: &[Arc<Rule>], subject: &Subject, holds: Amounts) -> Vec<Claim> {
    let claim = |rule: &Arc<Rule>| {
        let key = rule.key(subject)?;
        let nothing = Amounts::default();
        Some(Claim { rule: rule.clone(), key, label: "".into(), holds, most: nothing })
    };
    rules.iter().filter_map(claim).collect()
}

fn used(budgets: &Budgets, rule: &Arc<Rule>, kind: Kind, now: &Now) -> u64 {
    let shown = budgets.standings(std::slice::from_ref(rule), now);
    shown.iter().map(|shown| shown.standing.used[kind] + shown.standing.held[kind]).sum()
}

const REQUEST: fn(u64) -> Amounts = |tokens| Amounts::of_request(tokens, 0, 0);

#[test]
fn each_caller_has_a_budget_of_its_own_where_the_quota_says_so() {
    let budgets = Budgets::new(100);
    let rules = [rule(0, "own", "{ window: 1m, requests: 1, per: caller, mode: enforce }")];
    let call = |caller: &str| {
        budgets.admit(claims(&rules, &subject(caller, "m"), REQUEST(0)), true, &at(1)).map(drop)
    };
    call("a").expect("the first of a");
    call("b").expect("the first of b");
    call("").expect("the first of nobody");
    assert_eq!(call("a").expect_err("its second").key.caller.as_deref(), Some("a"));
}

#[test]
fn a_call_that_one_budget_refuses_takes_nothing_of_the_others() {
    let budgets = Budgets::new(100);
    let rules = [
        rule(0, "wide", "{ window: 1m, requests: 10, mode: enforce }"),
        rule(1, "narrow", "{ window: 1m, tokens: 5, mode: enforce }"),
    ];
    let claims = || claims(&rules, &subject("a", "m"), REQUEST(5));
    budgets.admit(claims(), true, &at(1)).expect("there is room for one");
    let refused = budgets.admit(claims(), true, &at(1)).expect_err("and for no other");
    assert_eq!((&*refused.rule.name, refused.kind), ("narrow", Kind::Tokens));
    assert_eq!(used(&budgets, &rules[0], Kind::Requests, &at(1)), 1);
}

#[test]
fn of_several_that_refuse_the_one_that_does_so_longest_is_told() {
    let budgets = Budgets::new(100);
    let rules = [
        rule(0, "minute", "{ window: 1m, requests: 1, mode: enforce }"),
        rule(1, "hour", "{ window: 1h, requests: 1, mode: enforce }"),
        rule(2, "second", "{ window: 10s, requests: 1, mode: enforce }"),
    ];
    let claims = || claims(&rules, &subject("a", "m"), REQUEST(0));
    budgets.admit(claims(), true, &at(0)).expect("the first");
    let refused = budgets.admit(claims(), true, &at(0)).expect_err("the second");
    assert_eq!((&*refused.rule.name, refused.wait), ("hour", Some(Duration::from_secs(3_780))));
}

#[test]
fn a_quota_that_observes_tells_and_lets_in() {
    let budgets = Budgets::new(100);
    let rules = [rule(0, "seen", "{ window: 1m, requests: 1 }")];
    let claims = || claims(&rules, &subject("a", "m"), REQUEST(0));
    let told = |admitted: Result<Admitted, _>| {
        let admitted: Admitted =
            admitted.map_err(|refused: Box<Refused>| refused.kind).expect("in");
        admitted.would_refuse
    };
    assert_eq!(told(budgets.admit(claims(), true, &at(1))), None);
    assert_eq!(told(budgets.admit(claims(), true, &at(1))).as_deref(), Some("seen"));
    assert_eq!(used(&budgets, &rules[0], Kind::Requests, &at(1)), 2, "what is used is used");
    let (_, tally, _) = &budgets.tallies(&rules)[0];
    assert_eq!(tally.refusals[""][Mode::Observe as usize][Kind::Requests as usize], 1);
}

#[test]
fn while_policies_are_bypassed_a_quota_that_enforces_only_tells() {
    let budgets = Budgets::new(100);
    let rules = [rule(0, "all", "{ window: 1m, requests: 1, mode: enforce }")];
    let claims = || claims(&rules, &subject("a", "m"), REQUEST(0));
    let told = [(); 2].map(|()| {
        let Admitted { would_refuse, is_bypassed, .. } =
            budgets.admit(claims(), false, &at(1)).expect("all are let in");
        (would_refuse.is_some(), is_bypassed)
    });
    assert_eq!(told, [(false, false), (true, true)]);
    let refused = budgets.admit(claims(), true, &at(1)).expect_err("it acts again");
    assert_eq!(refused.spent, 2, "what is used is used");
}

#[test]
fn names_without_number_make_no_budgets_without_number_and_open_no_door() {
    const MOST: usize = 16;
    let budgets = Budgets::new(MOST);
    let rules = [rule(0, "own", "{ window: 1m, requests: 20, per: model, mode: enforce }")];
    let call = |model: &str, now: i64| {
        let admitted =
            budgets.admit(claims(&rules, &subject("", model), REQUEST(0)), true, &at(now))?;
        let settle = |holding: &Holding| budgets.settle(holding, &REQUEST(0), &at(now));
        admitted.holdings.iter().for_each(settle);
        Ok::<_, Box<Refused>>(())
    };
    for _ in 0..20 {
        call("spent", 1).expect("there is room");
    }
    let entered = (0..10_000).filter(|number| call(&format!("junk{number}"), 1).is_ok()).count();
    assert_eq!(entered, MOST - 1 + 20, "the others share one budget");
    call("spent", 1).expect_err("what is spent is not forgotten");
    let (_, tally, own) = &budgets.tallies(&rules)[0];
    assert_eq!((tally.overflowed, *own), (10_000 - MOST as u64 + 1, MOST + 1));

    // A minute later they are as good as new, and make room.
    call("fresh", 70).expect("there is room again");
    let names: Vec<_> =
        budgets.standings(&rules, &at(70)).into_iter().map(|shown| shown.key.model).collect();
    assert_eq!(names, [Some("fresh".into())]);
}

#[test]
fn a_name_that_is_too_long_has_no_budget_of_its_own() {
    let budgets = Budgets::new(100);
    let rules = [rule(0, "own", "{ window: 1m, requests: 1, per: model, mode: enforce }")];
    let call = |model: &str| {
        budgets.admit(claims(&rules, &subject("", model), REQUEST(0)), true, &at(1)).map(drop)
    };
    call(&"a".repeat(NAME_BYTES + 1)).expect("the first of all such");
    call(&"b".repeat(NAME_BYTES + 1)).expect_err("the second");
}

#[test]
fn a_quota_that_is_gone_leaves_nothing_and_its_calls_end_in_peace() {
    let budgets = Budgets::new(100);
    let rules = [
        rule(0, "old", "{ window: 1m, requests: 1, mode: enforce }"),
        rule(1, "kept", "{ window: 1m, requests: 2, mode: enforce }"),
    ];
    let claims = |rules: &[Arc<Rule>]| claims(rules, &subject("a", "m"), REQUEST(3));
    let open = budgets.admit(claims(&rules), true, &at(1)).expect("the first");
    budgets.keep(&rules[1..], 100);
    open.holdings.iter().for_each(|holding| budgets.settle(holding, &REQUEST(2), &at(2)));
    assert_eq!(budgets.standings(&rules[..1], &at(2)).len(), 0);
    assert_eq!(used(&budgets, &rules[1], Kind::Tokens, &at(2)), 2);
}

#[test]
fn a_call_that_ended_elsewhere_is_charged_there() {
    let budgets = Budgets::new(100);
    let rule = rule(0, "own", "{ window: 1m, tokens: 10, per: upstream, mode: enforce }");
    let key = rule.key(&subject("a", "m")).expect("it is about all calls");
    budgets.charge(&rule, &key, &REQUEST(25), &at(1));
    let refused = budgets
        .admit(claims(std::slice::from_ref(&rule), &subject("a", "m"), REQUEST(1)), true, &at(1))
        .expect_err("more is spent than there was");
    assert_eq!((refused.spent, refused.limit), (25, 10));
}
