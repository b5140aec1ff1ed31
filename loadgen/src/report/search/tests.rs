//! What follows of how a search ended.

use super::*;
use crate::plan::Plan;
use crate::workload::{Mix, Workload};

/// The report of a search for a rate that ended so, with these bounds.
fn report(found: Found, bounds: Option<(f64, f64)>, needed: Option<f64>) -> SearchReport {
    let target = "http://127.0.0.1:1".parse().expect("an address is a target");
    let plan = Plan::new(target, Workload::Mix(Mix::default()));
    let search = Search {
        what: Load::Rate,
        from: 1.0,
        most: 100.0,
        precision: 0.05,
        steps: 60,
        step: None,
        warm_up: None,
        pause: std::time::Duration::ZERO,
        most_users: 100,
        needed,
    };
    let capacity = bounds.map(|(at_least, at_most)| {
        let load = (at_least + at_most) / 2.0;
        Capacity { load, at_least, at_most, confidence: 0.95 }
    });
    let held = (found != Found::NoneHolds).then_some(40.0);
    SearchReport::new(&plan, &search, Timestamp::UNIX_EPOCH, found, capacity, held, Vec::new())
}

#[test]
fn a_search_decides_by_what_it_found_and_by_what_is_needed() {
    let known = Some((57.0, 63.0));
    for (found, bounds, needed, decision) in [
        (Found::Found, known, None, Decision::Pass),
        (Found::Found, known, Some(50.0), Decision::Pass),
        (Found::Found, known, Some(70.0), Decision::Fail),
        (Found::Found, known, Some(60.0), Decision::Inconclusive),
        (Found::Spent, known, None, Decision::Inconclusive),
        (Found::Spent, known, Some(50.0), Decision::Pass),
        (Found::Spent, None, Some(50.0), Decision::Inconclusive),
        (Found::AllHold, None, None, Decision::Inconclusive),
        (Found::AllHold, None, Some(40.0), Decision::Pass),
        (Found::AllHold, None, Some(41.0), Decision::Inconclusive),
        (Found::NoneHolds, None, None, Decision::Fail),
        (Found::NoneHolds, None, Some(1.0), Decision::Fail),
        (Found::Invalid, known, None, Decision::Invalid),
        (Found::Invalid, known, Some(50.0), Decision::Invalid),
        (Found::Interrupted, None, None, Decision::Inconclusive),
        (Found::Capped, known, None, Decision::Inconclusive),
    ] {
        let told = report(found, bounds, needed).decision();
        assert_eq!(told, decision, "{found:?} {bounds:?} {needed:?}");
    }
    let short = SearchReport { is_short: true, ..report(Found::Found, known, Some(50.0)) };
    assert_eq!(short.decision(), Decision::Inconclusive, "too few calls decide nothing");
}

#[test]
fn what_it_came_to_is_said_with_its_interval() {
    let said = report(Found::Found, Some((57.0, 63.04)), None).sentence;
    assert_eq!(said, "The capacity is 60.0 calls/s, between 57 and 63.0 (95% sure).");
    let said = report(Found::Interrupted, None, None).sentence;
    assert_eq!(said, "Interrupted; 40 calls/s held.");
    let said = report(Found::AllHold, None, None).sentence;
    assert!(said.starts_with("The capacity is more than 40 calls/s"), "{said}");
    assert_eq!(
        (load_text(1.0, Load::Users), load_text(7.4, Load::Users)),
        ("1 user".into(), "7 users".into())
    );
}

fn step(load: f64, said: &[(Strain, f64)]) -> Step {
    let call = crate::figures::tests::call(1.0, tidegate_wire::Outcome::Completed);
    let mut tally = Tally::default();
    tally.record(&call);
    let said =
        said.iter().map(|(strain, mean)| (*strain, Strained { mean: *mean, most: 2.0 * mean }));
    Step {
        load,
        is_near: true,
        held: Held::Held,
        why: Vec::new(),
        began: Timestamp::UNIX_EPOCH,
        warm_up_s: 0.0,
        duration_s: 10.0,
        users: 1,
        ended: Ended::Complete,
        in_flight: 1.0,
        growth: 0.0,
        is_short: false,
        objectives: Vec::new(),
        other_side: said.collect(),
        summary: Summary::of(&tally, std::time::Duration::from_secs(10)),
        lacked_users: false,
        invalid: None,
        shares: Vec::new(),
        tally,
    }
}

#[test]
fn steps_of_about_the_same_load_say_together_how_hard_the_other_side_had_it() {
    let steps = vec![
        step(10.0, &[(Strain::Waiting, 1.0)]),
        step(10.1, &[(Strain::Waiting, 3.0), (Strain::Gpu, 0.5)]),
        step(20.0, &[]),
    ];
    let curve = curve(&steps);
    let said: Vec<_> = curve.iter().map(|place| &place.other_side).collect();
    let waiting = (Strain::Waiting, Strained { mean: 2.0, most: 6.0 });
    let gpu = (Strain::Gpu, Strained { mean: 0.5, most: 1.0 });
    assert_eq!(said, [&[waiting, gpu].into(), &BTreeMap::new()]);

    let report = SearchReport { curve, ..report(Found::Found, None, None) };
    assert_eq!(report.strains(), [Strain::Waiting, Strain::Gpu]);
    let table = report.table().to_string();
    let cells: Vec<Vec<_>> =
        table.lines().take(4).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(cells[0][3..], ["duration", "waiting", "GPU"]);
    assert_eq!((&cells[2][13..], &cells[3][13..]), (&["2", "50%"][..], &["-", "-"][..]), "{table}");
    let markdown = report.markdown();
    assert!(markdown.contains("| duration p50 | p99 | waiting | GPU |\n"), "{markdown}");
    assert!(markdown.contains(" 2 | 50% |\n"), "{markdown}");
    let html = report.html();
    assert!(html.contains("Calls that wait at the other side, over load"));
    assert!(html.contains("GPU in use, over load") && !html.contains("Cache in use"));
}
