//! Which of several ways a call of a route goes: each gets its share of them.
//!
//! The arm is drawn as soon as a call has its route, and all that follows goes by it: each arm has a
//! stack of its own, so that nothing kept for the one is given to the callers of another. This is
//! where calls go and no policy, so to bypass policies changes nothing.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::callers::is_name;
use crate::config::{RouteConfig, TargetConfig};
use crate::export::metrics::Registry;
use crate::head::RequestHead;

/// What a draw by header hashes first, so that it says nothing of draws elsewhere.
const FORM: &[u8] = b"tidegate split 1";

/// One of the ways that calls of a route may go.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArmConfig {
    /// Its name in records, metrics and answers; the upstream's where absent.
    #[serde(default)]
    pub name: Option<String>,
    /// Its share of the calls, as part of the sum of all weights; 0 gives it none.
    pub weight: u32,
    /// The name of an upstream; the route's own where absent.
    #[serde(default)]
    pub upstream: Option<String>,
    /// The model to ask, in place of the one that was asked for.
    #[serde(default)]
    pub model: Option<String>,
    /// The location to name in the path, for Vertex AI.
    #[serde(default)]
    pub location: Option<String>,
    /// The project to name in the path, for Vertex AI.
    #[serde(default)]
    pub project: Option<String>,
    /// Taken off the front of the path.
    #[serde(default)]
    pub strip_prefix: Option<String>,
    /// Where calls go that its upstream cannot take, in order; as the route says where absent.
    #[serde(default)]
    pub fallback: Option<Vec<TargetConfig>>,
}

/// Which calls always go the same way.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyConfig {
    /// The header whose value decides; calls without it are drawn each for itself.
    pub header: String,
}

/// One way that calls of a route go: the route as it is, or an arm of its split.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// Absent where the route has no split.
    pub(crate) name: Option<String>,
    pub(crate) weight: u32,
    /// What a call gets to go to its upstream.
    pub(crate) names: TargetConfig,
    /// The route that it makes: without a split.
    pub(crate) route: RouteConfig,
    /// The upstreams to which the route leads by any of its ways: whose calls go to one of them may go
    /// to all.
    pub(crate) siblings: Vec<String>,
}

/// Draws arms.
#[derive(Debug)]
pub(crate) struct Draw {
    sticky: Option<String>,
    arms: Vec<Arm>,
}

/// What a draw knows of one arm.
#[derive(Debug)]
struct Arm {
    name: String,
    weight: f64,
    /// Whether something of a call is changed for it.
    renames: bool,
    /// Whether calls are signed there, after that.
    signs: bool,
}

// === impl RouteConfig ===

impl RouteConfig {
    /// The ways that its calls may go.
    pub(crate) fn ways(&self) -> Vec<Way> {
        let plain = RouteConfig { split: Vec::new(), sticky: None, ..self.clone() };
        if self.split.is_empty() {
            let (names, siblings) = (TargetConfig::default(), vec![plain.upstream().to_owned()]);
            return vec![Way { name: None, weight: 1, names, route: plain, siblings }];
        }
        let mut ways: Vec<_> = self.split.iter().map(|arm| arm.way(&plain)).collect();
        let siblings: Vec<_> = ways.iter().map(|way| way.route.upstream().to_owned()).collect();
        ways.iter_mut().for_each(|way| way.siblings.clone_from(&siblings));
        ways
    }

    /// What is wrong with its split, and at which key.
    pub(crate) fn check_split(&self) -> Result<(), (Vec<String>, String)> {
        let wrong = |key: &[&str], message: &str| {
            Err((key.iter().map(ToString::to_string).collect(), message.to_owned()))
        };
        if self.split.is_empty() {
            return match (&self.upstream, &self.sticky) {
                (None, _) => wrong(&[], "leads nowhere: give it an `upstream` or a `split`"),
                (_, Some(_)) => wrong(&["sticky"], "there is no `split` to keep to"),
                _ => Ok(()),
            };
        }
        if let Some(StickyConfig { header }) = &self.sticky
            && http::HeaderName::from_bytes(header.as_bytes()).is_err()
        {
            return wrong(&["sticky", "header"], &format!("`{header}` is no name of a header"));
        }
        if self.split.iter().all(|arm| arm.weight == 0) {
            return wrong(&["split"], "every weight is 0: no call could go anywhere");
        }
        if self.upstream.is_some() && self.split.iter().all(|arm| arm.upstream.is_some()) {
            return wrong(
                &["upstream"],
                "no call goes there: each arm of the `split` names its own",
            );
        }
        let mut names = BTreeSet::new();
        for (at, arm) in self.split.iter().enumerate() {
            let at = format!("[{at}]");
            let Some(name) = arm.name(self) else {
                return wrong(
                    &["split", &at],
                    "leads nowhere: give it, or the route, an `upstream`",
                );
            };
            if !is_name(name) {
                let message = "the name of an arm is 1 to 64 printable characters without spaces";
                return wrong(&["split", &at, "name"], message);
            }
            if !names.insert(name) {
                let message = format!("another arm is called `{name}`; give each a `name`");
                return wrong(&["split", &at], &message);
            }
        }
        Ok(())
    }
}

// === impl ArmConfig ===

impl ArmConfig {
    fn name<'a>(&'a self, route: &'a RouteConfig) -> Option<&'a str> {
        let upstream = self.upstream.as_deref().or(route.upstream.as_deref());
        self.name.as_deref().or(upstream).filter(|_| upstream.is_some())
    }

    /// Its way, on the route that has no split any more.
    fn way(&self, route: &RouteConfig) -> Way {
        let Self { model, location, project, strip_prefix, .. } = self.clone();
        let upstream = self.upstream.clone().or_else(|| route.upstream.clone());
        let fallback = self.fallback.clone().unwrap_or_else(|| route.fallback.clone());
        Way {
            name: self.name(route).map(str::to_owned),
            weight: self.weight,
            names: TargetConfig { upstream: None, model, location, project, strip_prefix },
            route: RouteConfig { upstream, fallback, ..route.clone() },
            siblings: Vec::new(),
        }
    }
}

// === impl Draw ===

impl Draw {
    /// Draws among these ways; `signs` tells whether a way's upstream has a credential of its own.
    pub(crate) fn new(route: &RouteConfig, signs: impl Fn(&str) -> bool) -> Self {
        let arm = |way: Way| Arm {
            weight: f64::from(way.weight),
            renames: way.names != TargetConfig::default(),
            signs: signs(way.route.upstream()),
            name: way.name.unwrap_or_default(),
        };
        let sticky = route.sticky.as_ref().map(|sticky| sticky.header.clone());
        Self { sticky, arms: route.ways().into_iter().map(arm).collect() }
    }

    /// The place of the arm that this call goes to. Where no name of it may change, it goes to one of
    /// those that take it as it is.
    pub(crate) fn draw(&self, head: &RequestHead, is_grpc: bool) -> usize {
        if self.arms.len() == 1 {
            return 0;
        }
        let sticky = self.sticky.as_ref().and_then(|name| head.fields.get(name));
        let point = |arm: &Arm| match sticky.filter(|value| !value.is_empty()) {
            Some(value) => hashed(&arm.name, value),
            None => rand::random(),
        };
        let is_fixed = is_grpc || head.is_signed();
        let may_take = |arm: &Arm| !arm.renames || !is_fixed || (arm.signs && !is_grpc);
        self.first(point, may_take).or_else(|| self.first(point, |_| true)).unwrap_or_default()
    }

    /// The arm that comes first in a race whose times are drawn by weight. Where weights change, only
    /// those calls change their arm that must.
    fn first(&self, point: impl Fn(&Arm) -> u64, is_in: impl Fn(&Arm) -> bool) -> Option<usize> {
        let runners = self.arms.iter().enumerate();
        let runners = runners.filter(|(_, arm)| arm.weight > 0.0 && is_in(arm));
        let time = |(at, arm): (usize, &Arm)| (at, -unit(point(arm)).ln() / arm.weight);
        runners.map(time).min_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(at, _)| at)
    }
}

/// How the arms of a route's split compare: what each has of all weights, and what was counted of it.
pub(crate) fn glance(route: &RouteConfig, registry: &Registry) -> Value {
    let mut counted = registry.arms(route.name());
    let ways = route.ways();
    let all: f64 = ways.iter().map(|way| f64::from(way.weight)).sum();
    let arm = |way: &Way| {
        let name = way.name.clone().unwrap_or_default();
        let share = f64::from(way.weight) / all;
        let counted = counted.remove(&*name).unwrap_or_default();
        let arm = json!({ "upstream": way.route.upstream(), "share": share, "counted": counted });
        (name, arm)
    };
    let arms: Map<_, _> = ways.iter().map(arm).collect();
    json!({ "sticky": route.sticky.as_ref().map(|sticky| &sticky.header), "arms": arms })
}

/// A point for this arm and this value, the same wherever it is reckoned.
fn hashed(arm: &str, value: &[u8]) -> u64 {
    let mut hash = blake3::Hasher::new();
    hash.update(FORM)
        .update(&(arm.len() as u64).to_le_bytes())
        .update(arm.as_bytes())
        .update(value);
    let hash = hash.finalize();
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("it has 32 bytes"))
}

/// The point as a number above 0 and below 1.
fn unit(point: u64) -> f64 {
    ((point >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::config::Config;
    use crate::http1::parse::{self, Parsed};

    fn draw(split: &str, sticky: &str) -> Draw {
        let text = format!(
            "upstreams: {{ a: {{ url: 'http://a' }}, b: {{ url: 'http://b' }}, c: {{ url: 'http://c' }} }}\n\
             routes: [{{ split: [{split}]{sticky} }}]"
        );
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{split}: {error}"));
        Draw::new(&config.routes[0], |upstream| upstream == "c")
    }

    fn head(fields: &str) -> RequestHead {
        let block = Bytes::from(format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"));
        let Parsed { head, .. } = parse::request(block).expect("it is legal");
        head
    }

    fn of_user(user: usize) -> RequestHead {
        head(&format!("x-user: user-{user}\r\n"))
    }

    const STICKY: &str = ", sticky: { header: x-user }";
    const CALLS: usize = 10_000;

    #[test]
    fn each_arm_gets_its_share_of_calls_and_of_users() {
        let split =
            "{ upstream: a, weight: 70 }, { upstream: b, weight: 20 }, { upstream: c, weight: 10 }";
        for sticky in ["", STICKY] {
            let draw = draw(split, sticky);
            let mut counts = [0_usize; 3];
            (0..CALLS).for_each(|user| counts[draw.draw(&of_user(user), false)] += 1);
            println!("{counts:?}");
            for (count, weight) in counts.into_iter().zip([0.7, 0.2, 0.1]) {
                // Five standard deviations.
                let mean = CALLS as f64 * weight;
                let bound = 5.0 * (mean * (1.0 - weight)).sqrt();
                assert!((count as f64 - mean).abs() < bound, "{counts:?} {sticky}");
            }
        }
    }

    #[test]
    fn who_has_an_arm_keeps_it_and_leaves_it_only_for_one_that_gained_weight() {
        let before = draw("{ upstream: a, weight: 90 }, { upstream: b, weight: 10 }", STICKY);
        let after = draw(
            "{ upstream: b, weight: 30 }, { upstream: c, weight: 0 }, { upstream: a, weight: 70 }",
            STICKY,
        );
        let mut moved = 0;
        for user in 0..CALLS {
            let (old, new) =
                (before.draw(&of_user(user), false), after.draw(&of_user(user), false));
            assert_eq!(old, before.draw(&of_user(user), false));
            // `a` is 0 before and 2 after, `b` 1 and 0.
            match (old, new) {
                (0, 2) | (1, 0) => {}
                (0, 0) => moved += 1,
                other => panic!("user {user} went from {other:?}"),
            }
        }
        assert!((1_700..2_300).contains(&moved), "{moved}");
    }

    #[test]
    fn the_arm_of_a_user_is_the_same_in_every_build() {
        let draw = draw("{ upstream: a, weight: 1 }, { upstream: b, weight: 1 }", STICKY);
        let arms: Vec<_> = (0..16).map(|user| draw.draw(&of_user(user), false)).collect();
        assert_eq!(arms, EXPECTED);
    }

    /// As they were drawn when this was written.
    const EXPECTED: [usize; 16] = [0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 1, 1, 0, 1, 0];

    #[test]
    fn a_call_whose_names_may_not_change_goes_where_it_is_taken_as_it_is() {
        let signed = "authorization: AWS4-HMAC-SHA256 Credential=x\r\n";
        let split = "{ upstream: a, weight: 1 }, { upstream: b, model: m, weight: 1000000 }, { upstream: c, model: m, weight: 1000000 }";
        let draw = draw(split, "");
        for _ in 0..100 {
            // `c` signs anew, and has no say in what is changed before.
            assert_ne!(draw.draw(&head(signed), false), 1);
            assert_eq!(draw.draw(&head(""), true), 0);
        }
        let only = super::tests::draw(
            "{ upstream: b, model: m, weight: 1 }, { upstream: a, weight: 0 }",
            "",
        );
        assert_eq!(only.draw(&head(signed), false), 0, "there is no other");
    }

    #[test]
    fn what_cannot_be_meant_is_told_with_its_key() {
        let upstreams = "upstreams: { a: { url: 'http://a' }, b: { url: 'http://b' }, v: { url: 'https://us-central1-aiplatform.googleapis.com' }, r: { url: 'https://bedrock-runtime.us-east-1.amazonaws.com' } }";
        for (route, part) in [
            ("{}", "routes[0]: leads nowhere"),
            ("{ upstream: a, sticky: { header: x } }", "routes[0].sticky: there is no `split`"),
            ("{ split: [{ weight: 1 }] }", "routes[0].split[0]: leads nowhere"),
            ("{ split: [{ upstream: a }] }", "missing field `weight`"),
            ("{ split: [{ upstream: a, weight: 0 }] }", "routes[0].split: every weight is 0"),
            ("{ split: [{ upstream: a, weight: -1 }] }", "weight"),
            ("{ split: [{ upstream: c, weight: 1 }] }", "there is no upstream `c`"),
            (
                "{ split: [{ upstream: a, weight: 1 }, { upstream: a, model: m, weight: 1 }] }",
                "routes[0].split[1]: another arm is called `a`",
            ),
            (
                "{ split: [{ upstream: a, name: 'a b', weight: 1 }] }",
                "routes[0].split[0].name: the name of an arm",
            ),
            (
                "{ upstream: b, split: [{ upstream: a, weight: 1 }] }",
                "routes[0].upstream: no call goes there",
            ),
            (
                "{ split: [{ upstream: a, weight: 1 }], sticky: { header: 'x y' } }",
                "`x y` is no name of a header",
            ),
            (
                "{ split: [{ upstream: v, weight: 1 }, { upstream: r, weight: 1 }] }",
                "routes[0].split[1]: `r` speaks Bedrock, but the calls of this route Vertex",
            ),
            (
                "{ split: [{ upstream: v, weight: 1, fallback: [{ upstream: r }] }] }",
                "routes[0].split[0].fallback[0]: `r` speaks Bedrock",
            ),
            (
                "{ split: [{ upstream: a, weight: 1, fallback: [{ upstream: c }] }] }",
                "routes[0].split[0].fallback[0].upstream: there is no upstream `c`",
            ),
        ] {
            let text = format!("{upstreams}\nroutes: [{route}]");
            let error = Config::parse(&text).expect_err(route).to_string();
            assert!(error.contains(part), "{route}: {error}");
        }
    }
}
