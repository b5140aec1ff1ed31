//! Which address gets how many calls, in virtual time.

use std::collections::BinaryHeap;

use super::*;
use crate::config::UpstreamConfig;

/// A balancer of so many addresses, at a moment from which all times are reckoned.
struct Pool {
    balancer: Arc<Balancer>,
    group: Arc<Group>,
    start: Instant,
    turn: usize,
    random: u64,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn good(first_token: Option<Duration>) -> Verdict {
    Verdict::good(first_token)
}

impl Pool {
    fn of(count: usize) -> Self {
        Self::with(count, BalanceConfig::default())
    }

    fn with(count: usize, balance: BalanceConfig) -> Self {
        let addresses = (1..=count).map(|host| format!("http://10.0.0.{host}:8000")).collect();
        let config = UpstreamConfig { addresses, balance, ..UpstreamConfig::default() };
        let spec = Spec::new("pool", &config).expect("a good upstream");
        let start = Instant::now();
        let balancer = Balancer::new(spec.into(), &config.balance, start).expect("it has a choice");
        let group = balancer.group("");
        Self { balancer, group, start, turn: 0, random: 7 }
    }

    fn at(&self, time: Duration) -> Instant {
        self.start + time
    }

    fn address(&self, number: usize) -> Arc<Address> {
        self.group.addresses().0[number].clone()
    }

    /// Begins a call; says where.
    fn call(&mut self, time: Duration) -> (usize, Serving) {
        self.call_but(&[], time)
    }

    /// Begins a call that has been tried elsewhere.
    fn call_but(&mut self, tried: &[u32], time: Duration) -> (usize, Serving) {
        self.turn += 1;
        let random = &mut self.random;
        let draw = |below: usize| {
            *random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (*random >> 33) as usize % below
        };
        let (addresses, _) = self.group.addresses();
        let now = self.start + time;
        let chosen = self.group.pick(&addresses, self.turn, tried, draw, now);
        (chosen, self.group.serve(&addresses[chosen], now))
    }

    /// A call at this address that fails at once.
    fn fail(&self, number: usize, time: Duration) {
        let mut serving = self.group.serve(&self.address(number), self.at(time));
        serving.judged(&Verdict::broken(), self.at(time));
    }

    /// Makes an address fail until it is out.
    fn eject(&self, number: usize, time: Duration) {
        (0..5).for_each(|_| self.fail(number, time));
        assert!(self.is_out(number, time));
    }

    fn is_out(&self, number: usize, time: Duration) -> bool {
        self.state(number, time) == "ejected"
    }

    fn state(&self, number: usize, time: Duration) -> &'static str {
        self.balancer.snapshot(self.at(time)).addresses[number].state
    }

    /// Calls at such a rate for so long, each address with its time to first token; answers go on
    /// for a second after it. How many went where, and when each began.
    fn run(&mut self, each: Duration, lasts: Duration, times: &[Duration]) -> Vec<Vec<Duration>> {
        let mut went = vec![Vec::new(); times.len()];
        // The soonest has the greatest first part.
        let mut events: BinaryHeap<(i64, usize, Option<Duration>)> = BinaryHeap::new();
        let mut open: Vec<Option<Serving>> = Vec::new();
        let mut now = Duration::ZERO;
        while now < lasts {
            while events.peek().is_some_and(|(due, _, _)| -*due <= now.as_millis() as i64) {
                let Some((due, call, first_token)) = events.pop() else { break };
                let due = self.at(ms(-due as u64));
                match first_token {
                    Some(time) => {
                        let serving = open[call].as_mut().expect("it is open");
                        Watch::judged(serving, &good(Some(time)), due);
                    }
                    None => open[call] = None,
                }
            }
            let (chosen, serving) = self.call(now);
            went[chosen].push(now);
            open.push(Some(serving));
            let first = now + times[chosen];
            events.push((-(first.as_millis() as i64), open.len() - 1, Some(times[chosen])));
            events.push((-((first + ms(1000)).as_millis() as i64), open.len() - 1, None));
            now += each;
        }
        went
    }
}

#[test]
fn equals_have_equal_shares() {
    for each in [ms(2000), ms(100), ms(5)] {
        let went = Pool::of(4).run(each, each * 2000, &[ms(200); 4]);
        for calls in went {
            assert!((450..=550).contains(&calls.len()), "{each:?}: {}", calls.len());
        }
    }
}

#[test]
fn a_slow_address_of_three_gets_clearly_fewer_calls() {
    for each in [ms(3000), ms(100), ms(10)] {
        let went = Pool::of(3).run(each, each * 1200, &[ms(200), ms(200), ms(1200)]);
        let [fast, other, slow] = [went[0].len(), went[1].len(), went[2].len()];
        assert!(slow * 2 < fast && slow * 2 < other, "{each:?}: {fast}, {other}, {slow}");
        assert!(slow > 0, "it gets another chance");
    }
}

#[test]
fn an_address_that_was_slow_gets_another_chance() {
    let mut pool = Pool::of(2);
    pool.address(0).learn(ms(20_000), ms(10_000), 0);
    pool.address(1).learn(ms(200), ms(10_000), 0);
    let went = pool.run(ms(1500), ms(60_000), &[ms(200); 2]);
    let late = went[0].iter().filter(|at| **at > ms(40_000)).count();
    assert!(went[0].iter().all(|at| *at > ms(20_000)), "first it is left alone");
    assert!(late >= 4, "{late}");
}

#[test]
fn a_new_address_gets_its_share_and_no_herd() {
    let mut pool = Pool::of(10);
    (0..9).for_each(|number| pool.address(number).learn(ms(300), ms(10_000), 0));
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(pool.call(ms(1)));
    }
    let new = held.iter().filter(|(chosen, _)| *chosen == 9).count();
    assert!((15..=25).contains(&new), "{new}");
}

#[test]
fn an_address_whose_calls_fail_is_out_for_a_while_and_longer_each_time() {
    let mut pool = Pool::of(3);
    (0..4).for_each(|_| pool.fail(1, ms(100)));
    assert!(!pool.is_out(1, ms(100)), "it takes five in a row");
    pool.fail(1, ms(100));
    for now in (101..8000).step_by(10) {
        assert_ne!(pool.call(ms(now)).0, 1);
    }
    assert!(!pool.is_out(1, ms(12_101)), "10 s, a fifth more or less");

    pool.fail(1, ms(13_000));
    assert!(pool.is_out(1, ms(13_000 + 15_900)), "one failure is enough by now, for 20 s");
    assert!(!pool.is_out(1, ms(13_000 + 24_100)));
    let mut now = 40_000;
    for _ in 0..8 {
        pool.fail(1, ms(now));
        now += 400_000;
    }
    assert!(!pool.is_out(1, ms(now)));
    pool.eject(1, ms(now));
    assert!(!pool.is_out(1, ms(now + 12_100)), "it had done well for long enough to begin anew");
}

#[test]
fn an_ejection_has_a_longest_time() {
    let pool = Pool::of(3);
    let mut now = 1;
    pool.eject(1, ms(now));
    for _ in 0..12 {
        let out = pool.address(1).out_for(now).expect("it is out");
        assert!(out <= ms(360_000), "{out:?}");
        now += out.as_millis() as u64 + 1;
        pool.fail(1, ms(now));
    }
    assert!(pool.address(1).out_for(now).expect("it is out") >= ms(240_000));
}

#[test]
fn what_comes_back_gets_more_and_more_of_its_share() {
    let mut pool = Pool::of(2);
    pool.eject(0, ms(0));
    let back = pool.address(0).out_for(0).expect("it is out");
    let mut share = |after: u64| {
        let mut held = Vec::new();
        for _ in 0..100 {
            held.push(pool.call(back + ms(after)));
        }
        held.iter().filter(|(chosen, _)| *chosen == 0).count()
    };
    let shares = [share(500), share(5000), share(20_000)];
    assert!(shares[0] > 0 && shares[0] < 15, "{shares:?}");
    assert!((25..45).contains(&shares[1]), "{shares:?}");
    assert!((45..=55).contains(&shares[2]), "{shares:?}");
}

#[test]
fn calls_from_before_say_nothing_of_what_came_back() {
    let pool = Pool::of(2);
    let mut old: Vec<_> =
        (0..10).map(|_| pool.group.serve(&pool.address(0), pool.at(ms(1)))).collect();
    pool.eject(0, ms(10));
    let back = pool.address(0).out_for(10).expect("it is out") + ms(11);
    old.iter_mut().for_each(|call| call.judged(&Verdict::broken(), pool.at(back)));
    assert!(!pool.is_out(0, back));
    pool.fail(0, back);
    assert!(pool.is_out(0, back), "but a new one does");
}

#[test]
fn the_last_address_is_never_ejected() {
    let mut pool = Pool::of(2);
    pool.eject(0, ms(1));
    (0..100).for_each(|_| pool.fail(1, ms(2)));
    assert!(!pool.is_out(1, ms(2)));
    assert_eq!(pool.call(ms(3)).0, 1);
    assert_eq!(pool.group.core.counts.spared.load(Relaxed), 96);

    let one = Pool::with(
        1,
        BalanceConfig { health: Some(HealthConfig::default()), ..Default::default() },
    );
    (0..100).for_each(|_| one.fail(0, ms(1)));
    assert!(!one.is_out(0, ms(1)));
}

#[test]
fn no_more_than_a_share_is_out() {
    let pool = Pool::of(10);
    for number in 0..10 {
        (0..10).for_each(|_| pool.fail(number, ms(1)));
    }
    let out = (0..10).filter(|number| pool.is_out(*number, ms(1))).count();
    assert_eq!(out, 5);
}

#[test]
fn where_no_address_is_fit_all_are_used_and_that_is_told() {
    let health = Some(HealthConfig::default());
    let mut pool = Pool::with(2, BalanceConfig { health, ..Default::default() });
    pool.eject(0, ms(1));
    for _ in 0..3 {
        pool.group.checked(&pool.address(1), false, pool.at(ms(2)));
    }
    assert_eq!((pool.state(0, ms(2)), pool.state(1, ms(2))), ("ejected", "unhealthy"));
    assert!(pool.balancer.snapshot(pool.at(ms(2))).uses_all);
    let went: Vec<_> = (0..10).map(|_| pool.call(ms(3)).0).collect();
    assert!(went.contains(&0) && went.contains(&1), "{went:?}");
    assert_eq!(pool.group.core.counts.forced.load(Relaxed), 10);

    pool.group.checked(&pool.address(1), true, pool.at(ms(4)));
    assert!(!pool.balancer.snapshot(pool.at(ms(4))).uses_all);
    assert!((0..10).all(|_| pool.call(ms(5)).0 == 1));
    assert_eq!(pool.group.core.counts.forced.load(Relaxed), 10);
}

#[test]
fn a_call_that_is_made_again_goes_elsewhere() {
    let mut pool = Pool::of(3);
    let ids: Vec<_> = (0..3).map(|number| pool.address(number).id).collect();
    for _ in 0..20 {
        assert_eq!(pool.call_but(&[ids[0], ids[2]], ms(1)).0, 1);
    }
    pool.eject(1, ms(1));
    for _ in 0..20 {
        assert_ne!(pool.call_but(&[ids[0], ids[2]], ms(2)).0, 1, "once more, rather than there");
    }
}

#[test]
fn failures_count_against_an_address_before_it_is_out() {
    let mut pool = Pool::of(2);
    pool.fail(0, ms(1));
    assert!((0..10).all(|_| pool.call(ms(2)).0 == 1));
    let went: Vec<_> = (0..10).map(|_| pool.call(ms(12_000)).0).collect();
    assert!(went.contains(&0), "but not for ever");
}

#[test]
fn a_limit_that_is_reached_is_no_failure() {
    let pool = Pool::of(2);
    let limited = Verdict { health: Health::Limited, ..good(None) };
    for _ in 0..20 {
        pool.group.serve(&pool.address(0), pool.at(ms(1))).judged(&limited, pool.at(ms(2)));
    }
    assert!(!pool.is_out(0, ms(2)));
    assert_eq!(pool.address(0).first_token_s(2), None);
}

#[test]
fn who_leaves_after_a_long_wait_says_that_it_is_slow() {
    let mut pool = Pool::of(2);
    let [hung, other] = [pool.address(0), pool.address(1)];
    [&hung, &other].iter().for_each(|address| address.learn(ms(200), ms(10_000), 0));
    let mut call = pool.group.serve(&hung, pool.at(ms(0)));
    call.judged(&Verdict::unknown(), pool.at(ms(30_000)));
    drop(call);
    other.learn(ms(200), ms(10_000), 30_000);
    assert!((0..10).all(|_| pool.call(ms(30_001)).0 == 1));
    assert!(!pool.is_out(0, ms(30_001)));
}

#[test]
fn a_call_counts_until_it_is_over() {
    let pool = Pool::of(2);
    let address = pool.address(0);
    let mut call = pool.group.serve(&address, pool.at(ms(1)));
    let unjudged = pool.group.serve(&address, pool.at(ms(1)));
    assert_eq!(address.open(), 2);
    call.judged(&good(Some(ms(300))), pool.at(ms(301)));
    assert_eq!(address.open(), 2, "its answer still comes");
    drop((call, unjudged));
    assert_eq!(address.open(), 0);
    assert_eq!(address.first_token_s(301), Some(0.3));
}

#[test]
fn addresses_that_stay_keep_what_is_known_of_them() {
    let pool = Pool::of(2);
    let ip = |host| Some(SocketAddr::from(([10, 0, 0, host], 80)));
    pool.group.replace(0, &[ip(7), ip(8)]);
    let (before, version) = pool.group.addresses();
    assert_eq!(before.iter().map(|address| address.url).collect::<Vec<_>>(), [1, 0, 0]);
    let call = pool.group.serve(&before[1], pool.at(ms(1)));
    pool.group.replace(0, &[ip(8), ip(7)]);
    assert_eq!(pool.group.version(), version, "the same ones, in another order");

    pool.group.replace(0, &[ip(9), ip(8)]);
    let (after, next) = pool.group.addresses();
    assert!(next != version && after.len() == 3 && Arc::ptr_eq(&after[1], &before[2]));
    let drains = pool.balancer.snapshot(pool.at(ms(2))).addresses.pop().expect("it has a call");
    assert_eq!((drains.state, drains.ip, drains.open_calls), ("draining", ip(7), 1));
    pool.group.replace(0, &[ip(7)]);
    let back = pool.address(1);
    assert!(Arc::ptr_eq(&back, &before[1]), "it is back, with its call");
    drop(call);
    pool.group.replace(0, &[ip(8)]);
    assert_eq!(pool.balancer.snapshot(pool.at(ms(3))).addresses.len(), 2, "nothing is left of it");
}

#[test]
fn what_a_server_says_of_its_load_counts_while_it_is_fresh() {
    let mut pool = Pool::of(2);
    let load = Load { waiting: 4.0, running: 10.0, cache: 0.9 };
    pool.group.says(&pool.address(0), load, ms(6000), pool.at(ms(0)));
    let mut held: Vec<_> = (0..30).map(|_| pool.call(ms(1))).collect();
    assert!(held.iter().all(|(chosen, _)| *chosen == 1), "its queue and its cache are full");
    held.clear();
    let went: Vec<_> = (0..10).map(|_| pool.call(ms(6001)).0).collect();
    assert!(went.contains(&0), "what is stale is left out");
}

#[test]
fn health_changes_with_so_many_answers_in_a_row() {
    let health = Some(HealthConfig::default());
    let pool = Pool::with(2, BalanceConfig { health, ..Default::default() });
    let told = |answers: &[bool]| {
        for is_good in answers {
            pool.group.checked(&pool.address(0), *is_good, pool.at(ms(1)));
        }
        pool.state(0, ms(1))
    };
    assert_eq!(told(&[false, false, true, false, false]), "in_use");
    assert_eq!(told(&[false]), "unhealthy");
    assert_eq!(told(&[true]), "in_use");
}

#[test]
fn what_cannot_be_meant_is_told() {
    let error = |balance: &str, url: &str| {
        let text = format!("upstreams: {{ a: {{ url: '{url}', balance: {balance} }} }}");
        crate::Config::parse(&text).expect_err(balance).to_string()
    };
    let of = |balance: &str| error(balance, "http://a");
    assert!(of("{ eject: { max_share: 1.5 } }").contains("balance.eject.max_share: 1.5 is not"));
    assert!(
        of("{ health: { path: health } }").contains("balance.health.path: `health` is no path")
    );
    assert!(of("{ steer: { metrics: dcgm } }").contains("dcgm"));
    let templated = error("{ dns: {} }", "http://{location}-a.example");
    assert!(templated.contains("balance: cannot watch a url with {location}"), "{templated}");
}
