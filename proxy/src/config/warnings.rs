//! What a configuration says in vain. It is good for all that.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tidegate_wire::glob;

use super::{Config, ConfigError, MatchConfig, Others};
use crate::upstream::Spec;

/// All of it, in the order of the routes and then of the upstreams' names.
pub(super) fn of(config: &Config) -> Vec<ConfigError> {
    let in_vain = routes_in_vain(config).chain(unused_upstreams(config));
    let in_vain = in_vain.chain(quotas_in_vain(config)).chain(callers_in_vain(config));
    let in_vain = in_vain.chain(shadows_in_vain(config)).chain(store_in_vain(config));
    in_vain.chain(open_doors(config)).chain(history_in_vain(config)).collect()
}

/// Addresses that others than this machine may reach, and at which nobody is asked who they are.
fn open_doors(config: &Config) -> impl Iterator<Item = ConfigError> {
    let has_keys = config.callers.known.values().any(|caller| !caller.keys.is_empty());
    let asks_for_keys = has_keys && config.callers.others == Others::Refuse;
    let asks_for_certificates = config.tls.as_ref().is_some_and(|tls| tls.callers.is_some());
    let calls = (!asks_for_keys && !asks_for_certificates).then_some((
        &["listen"][..],
        config.listen,
        "whoever reaches this address may call, with the credentials of the upstreams: have callers \
         show keys (`callers`, with `others: refuse`) or certificates (`tls.callers`), or listen on \
         127.0.0.1",
    ));
    let proxy = config.intercept.as_ref().map(|intercept| {
        (
            &["intercept", "listen"][..],
            intercept.listen,
            "whoever reaches this address may go anywhere by it: listen on 127.0.0.1",
        )
    });
    let is_open = |(_, address, _): &(_, SocketAddr, _)| !address.ip().is_loopback();
    let warning = |(key, _, message): (&[&str], _, &str)| ConfigError::at(key, message.to_owned());
    calls.into_iter().chain(proxy).filter(is_open).map(warning)
}

/// Routes whose calls an earlier one takes, all of them.
fn routes_in_vain(config: &Config) -> impl Iterator<Item = ConfigError> {
    config.routes.iter().enumerate().filter_map(|(at, route)| {
        let earlier = &config.routes[..at];
        let first = earlier.iter().position(|other| covers(&other.matches, &route.matches))?;
        let message = format!("takes no call: routes[{first}] takes all that it could");
        Some(ConfigError::at(&["routes".to_owned(), format!("[{at}]")], message))
    })
}

fn unused_upstreams(config: &Config) -> impl Iterator<Item = ConfigError> {
    let used = used_upstreams(config);
    config
        .upstreams
        .keys()
        .filter(move |name| !used.contains(name.as_str()))
        .map(|name| ConfigError::at(&["upstreams", name], "no route leads to it"))
}

/// Quotas that are about no call.
fn quotas_in_vain(config: &Config) -> impl Iterator<Item = ConfigError> {
    config.quotas.iter().filter_map(|(name, quota)| {
        let pattern = quota.matches.upstream.as_ref()?;
        let mut names = config.upstreams.keys();
        let is_about_none = !names.any(|upstream| glob(pattern, upstream));
        is_about_none.then(|| {
            let key = ["quotas", name, "match", "upstream"];
            ConfigError::at(&key, format!("charges no call: there is no upstream `{pattern}`"))
        })
    })
}

/// A store that nothing is shared by.
fn store_in_vain(config: &Config) -> Option<ConfigError> {
    let is_shared = config.cache.shared || config.quotas.values().any(|quota| quota.shared);
    let is_in_vain = config.store.is_some() && !is_shared;
    let message = "is of no use: neither `cache` nor a quota says `shared: true`";
    is_in_vain.then(|| ConfigError::at(&["store"], message))
}

/// Months and days that a history is too short for.
fn history_in_vain(config: &Config) -> impl Iterator<Item = ConfigError> {
    let told = config.history.in_vain().into_iter();
    told.map(|(key, message)| ConfigError::at(&[&["history"], &key[..]].concat(), message))
}

/// Routes and quotas that are about callers that there cannot be.
fn callers_in_vain(config: &Config) -> impl Iterator<Item = ConfigError> {
    let routes = config.routes.iter().enumerate().map(|(at, route)| {
        let key = vec!["routes".to_owned(), format!("[{at}]"), "match".to_owned()];
        (key, &route.matches.caller)
    });
    let quotas = config.quotas.iter().map(|(name, quota)| {
        (vec!["quotas".to_owned(), name.clone(), "match".to_owned()], &quota.matches.caller)
    });
    routes.chain(quotas).filter_map(|(mut key, pattern)| {
        let pattern = pattern.as_ref()?;
        let callers = &config.callers;
        // In a header others may give themselves any name.
        let may_be_any = callers.header.is_some() && callers.others == Others::Pass;
        let is_there = may_be_any || callers.known.keys().any(|name| glob(pattern, name));
        key.push("caller".to_owned());
        (!is_there).then(|| {
            ConfigError::at(&key, format!("takes no call: `callers` knows no `{pattern}`"))
        })
    })
}

/// Shadows that get no copy of a call that brings its caller's credential.
fn shadows_in_vain(config: &Config) -> impl Iterator<Item = ConfigError> {
    config.routes.iter().enumerate().filter_map(|(at, route)| {
        let name = &route.shadow.as_ref()?.upstream;
        let spec = |name: &str| Spec::new(name, config.upstreams.get(name)?).ok();
        let shadow = spec(name)?;
        let has_same_host = |own: &str| spec(own).is_some_and(|own| shadow.has_hosts_of(&own));
        let ways = route.ways();
        let is_trusted = config.upstreams.get(name)?.credential.is_some()
            || ways.iter().all(|way| has_same_host(way.route.upstream()));
        (!is_trusted).then(|| {
            let message = format!(
                "copies no call that brings its caller's credential: `{name}` is at another host, \
                 and has no `credential` of its own"
            );
            ConfigError::at(&["routes".to_owned(), format!("[{at}]"), "shadow".to_owned()], message)
        })
    })
}

/// The upstreams that some call may go to.
fn used_upstreams(config: &Config) -> BTreeSet<&str> {
    config.routes.iter().flat_map(|route| route.upstreams()).collect()
}

/// Whether whatever matches `other` matches `wide`. Where that cannot be told, it does not.
fn covers(wide: &MatchConfig, other: &MatchConfig) -> bool {
    let MatchConfig { dialect, caller, host, path, header, model } = wide;
    let pattern = |wide: &Option<String>, other: &Option<String>| {
        wide.as_ref().is_none_or(|wide| other.as_ref().is_some_and(|other| takes(wide, other)))
    };
    let lower = |host: &Option<String>| host.as_ref().map(|host| host.to_ascii_lowercase());
    let of_other = |name: &str| {
        let mut fields = other.header.iter();
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    (dialect.is_none() || *dialect == other.dialect)
        && pattern(caller, &other.caller)
        && pattern(&lower(host), &lower(&other.host))
        && pattern(path, &other.path)
        && pattern(model, &other.model)
        && header.iter().all(|(name, wide)| of_other(name).is_some_and(|other| takes(wide, other)))
}

/// Whether a pattern takes all that another takes: a `*` of the other can only stand where there is
/// one in the pattern, which takes anything in its place.
fn takes(wide: &str, other: &str) -> bool {
    glob(wide, other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(routes: &str) -> Vec<String> {
        let text = format!("upstreams: {{ a: {{ url: 'http://a' }} }}\nroutes: [{routes}]");
        let config = Config::parse(&text).expect("a good configuration");
        of(&config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_route_whose_calls_an_earlier_one_takes_is_told() {
        for (first, second) in [
            ("", "match: { path: /x }"),
            ("match: { path: '/v1/*' }", "match: { path: '/v1/chat/*', model: gpt-4o }"),
            ("match: { host: '*.A' }", "match: { host: x.a }"),
            ("match: { header: { X-Team: '*' } }", "match: { header: { x-team: a, x-b: c } }"),
            ("match: { dialect: openai }", "match: { dialect: openai }"),
        ] {
            let comma = if first.is_empty() { "" } else { ", " };
            let routes = format!("{{ {first}{comma}upstream: a }}, {{ {second}, upstream: a }}");
            let told = ["routes[1]: takes no call: routes[0] takes all that it could"];
            assert_eq!(warnings(&routes), told, "{routes}");
        }
    }

    #[test]
    fn a_route_that_may_take_a_call_is_not() {
        for (first, second) in [
            ("path: '/v1/*'", "path: '/v*'"),
            ("path: '/v1/*'", "host: a"),
            ("header: { x-team: a }", "header: { x-team: '*' }"),
            ("dialect: openai", "dialect: vertex"),
            ("model: 'gpt-*'", "path: /x"),
        ] {
            let routes = format!(
                "{{ match: {{ {first} }}, upstream: a }}, {{ match: {{ {second} }}, upstream: a }}"
            );
            assert_eq!(warnings(&routes), [""; 0], "{routes}");
        }
    }

    #[test]
    fn a_history_that_is_too_short_is_told() {
        let told = |history: &str| {
            let text = format!("history: {{ path: h.db, {history} }}");
            let warnings = of(&Config::parse(&text).expect("a good configuration"));
            warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let month = told("days: 14, budget: { callers: { a: 5 } }");
        assert!(month.len() == 1 && month[0].starts_with("history.days: no month"), "{month:?}");
        assert_eq!(told("days: 31, budget: { total: 1 }"), [""; 0]);
        let back = told("days: 5");
        assert!(back.len() == 1 && back[0].starts_with("history.baseline.days: looks"), "{back:?}");
        for history in ["days: 7", "days: 5, baseline: { by: last_day }"] {
            assert_eq!(told(history), [""; 0], "{history}");
        }
    }

    #[test]
    fn a_baseline_of_fewer_days_than_must_be_known_is_refused() {
        let refused = |baseline: &str| {
            let text = format!("history: {{ baseline: {{ {baseline} }} }}");
            Config::parse(&text).err().map(|error| error.to_string())
        };
        let error = refused("days: 2").expect("it would tell nothing");
        assert!(error.contains("history.baseline.days") && error.contains("last_day"), "{error}");
        for baseline in ["days: 3", "days: 1, by: last_day", "days: 1, by: off"] {
            assert_eq!(refused(baseline), None, "{baseline}");
        }
    }

    #[test]
    fn a_quota_for_no_upstream_is_told() {
        let quota = |upstream: &str| {
            let quota = format!(
                "quotas: {{ q: {{ window: day, requests: 1, match: {{ upstream: {upstream} }} }} }}"
            );
            let text = format!(
                "upstreams: {{ a: {{ url: 'http://a' }} }}\nroutes: [{{ upstream: a }}]\n{quota}"
            );
            let config = Config::parse(&text).expect("a good configuration");
            of(&config).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(quota("a*"), [""; 0]);
        let told = ["quotas.q.match.upstream: charges no call: there is no upstream `b*`"];
        assert_eq!(quota("'b*'"), told);
    }

    #[test]
    fn an_upstream_that_no_route_leads_to_is_told() {
        assert_eq!(warnings(""), ["upstreams.a: no route leads to it"]);
    }

    #[test]
    fn a_door_at_which_nobody_is_asked_who_they_are_is_told() {
        let told = |text: &str| {
            let config = Config::parse(text).expect("a good configuration");
            of(&config).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let keys = "callers: { others: refuse, known: { a: { keys: ['KEY'] } } }"
            .replace("KEY", &format!("sha256:{}", "0".repeat(64)));
        let mutual = "tls: { callers: /roots.pem }".to_owned();
        for listen in ["0.0.0.0:1", "'[::]:1'", "10.0.0.1:1"] {
            let open = told(&format!("listen: {listen}"));
            assert!(open.len() == 1 && open[0].starts_with("listen: whoever"), "{open:?}");
            for asked in [&keys, &mutual] {
                assert_eq!(told(&format!("listen: {listen}\n{asked}")), [""; 0]);
            }
            let proxy = told(&format!("intercept: {{ listen: {listen} }}"));
            assert!(proxy.len() == 1 && proxy[0].starts_with("intercept.listen: who"), "{proxy:?}");
        }
        assert_eq!(told("intercept: {}"), [""; 0]);
    }
}
