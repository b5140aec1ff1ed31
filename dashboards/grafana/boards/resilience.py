"""What do the policies do: breakers, retries, fallback, limits, balancing, quotas, caches, splits? Whatever they do not do here, nobody configured."""

from .panels import ACT, GOOD, LOOK, build, lines, now, number, q, quantiles, runbook, states

BREAKERS = [("closed", GOOD), ("half-open", LOOK), ("open", ACT)]


def share(part, whole, by):
    """Of the calls per second of `whole`, those of `part`."""
    return f"sum by ({by}) (rate({part}[$__rate_interval])) / (sum by ({by}) (rate({whole}[$__rate_interval])) > 0)"


HEALTH = [
    number("Open breakers", "Of all regions and models of all upstreams, in all pods.", "none", now("count(tidegate_breaker_state{@models} > 0)"), steps=[(1, ACT)], width=4),
    number("Closed rate gates", "Upstreams that said 429 and named a time.", "none", now("sum(tidegate_rate_gate_closed{@models})"), steps=[(1, LOOK)], width=4),
    number("Addresses out", "Ejected or unhealthy, of all upstreams with several.", "none",
           now('sum(tidegate_upstream_addresses{@pods, state=~"ejected|unhealthy"})'), steps=[(1, LOOK)], width=4),
    number("Waiting in queues", "Calls that wait for a place.", "none", now("sum(tidegate_limit_queue{@models})"), steps=[(1, LOOK)], width=4),
    number("Bypassed sidecars", "Whose policies look on only.", "none", now("sum(tidegate_bypass{@pods})"), steps=[(1, LOOK)], width=4),
    number("Calls answered by Tidegate", "That no upstream was asked for, per second.", "cps", now('sum(rate(tidegate_calls_total{@models, outcome="refused"}[$__rate_interval]))'), width=4),
    states("Breakers", "The worst of all pods, by upstream, region and model.", BREAKERS,
           q("max by (upstream, region, model) (tidegate_breaker_state{@models})", "{{upstream}} {{region}} {{model}}")),
    lines("Refused by breakers and rate gates", "Calls per second that were not even tried.", "cps",
          q("sum by (upstream, by) (rate(tidegate_breaker_refusals_total{@models}[$__rate_interval]))", "{{upstream}}: {{by}}"),
          width=12, links=[runbook("TidegateBreakerOpen")]),
    lines("Failures by origin", "Whose fault it was, per second: caller, sidecar, upstream, or a quota.", "cps",
          q('sum by (error_origin) (rate(tidegate_calls_total{@models, outcome=~"failed|truncated"}[$__rate_interval]))', "{{error_origin}}"), stack=True, width=12),
    lines("Failures by status and upstream", "Per second.", "cps",
          q('sum by (upstream, status, outcome) (rate(tidegate_calls_total{@models, outcome=~"failed|truncated|refused"}[$__rate_interval]))', "{{upstream}} {{status}} {{outcome}}"), width=12),
]

AGAIN = [
    lines("Made again", "Attempts beyond the first, per second, by why.", "cps",
          q("sum by (upstream, reason) (rate(tidegate_retries_total{@pods}[$__rate_interval]))", "{{upstream}}: {{reason}}"), width=12),
    lines("Not made again", "Calls per second that would have been, by what forbade it.", "cps",
          q("sum by (upstream, reason) (rate(tidegate_retries_denied_total{@pods}[$__rate_interval]))", "{{upstream}}: {{reason}}"),
          width=12, links=[runbook("TidegateRetryBudgetSpent")]),
    lines("Fallback, by upstream that was fallen back to", "Calls per second.", "cps",
          q("sum by (upstream) (rate(tidegate_fallbacks_total{@pods}[$__rate_interval]))", "{{upstream}}"), width=12),
    lines("Share of fallback", "Of the calls that an upstream got, those that another could not take. Over 10 %, TidegateFallbackShareHigh fires.", "percentunit",
          q("max by (namespace, upstream) (upstream:tidegate_fallbacks:ratio_rate5m{@fleet})", "{{namespace}} {{upstream}}"),
          steps=[(0.1, LOOK)], width=12, links=[runbook("TidegateFallbackShareHigh")]),
]

ROOM = [
    lines("Places taken", "Share of the places that limits have, by upstream and model.", "percentunit",
          q("sum by (upstream, model) (tidegate_limit_in_use{@models}) / (sum by (upstream, model) (tidegate_limit{@models}) > 0)", "{{upstream}} {{model}}"), high=1),
    lines("Limits", "Places; adaptive limits move.", "none", q("sum by (upstream, model) (tidegate_limit{@models})", "{{upstream}} {{model}}")),
    lines("Queues", "Calls that wait for a place.", "none", q("sum by (upstream, model) (tidegate_limit_queue{@models})", "{{upstream}} {{model}}")),
    lines("Sent away", "Calls per second that found the queue full, or waited in it for too long.", "cps",
          q("sum by (upstream, reason) (rate(tidegate_limit_shed_total{@pods}[$__rate_interval]))", "{{upstream}}: {{reason}}"), links=[runbook("TidegateCallsShed")]),
    lines("Addresses", "By what they are fit for, over all pods; and upstreams of which no address is fit, so that all are used.", "none",
          q("sum by (upstream, state) (tidegate_upstream_addresses{@pods})", "{{upstream}}: {{state}}"),
          q("sum by (upstream) (tidegate_upstream_uses_all{@pods}) > 0", "{{upstream}}: uses all"), links=[runbook("TidegateUpstreamUsesAll")]),
    lines("No connection", "Attempts per minute that got none, by why.", "none",
          q("60 * sum by (upstream, reason) (rate(tidegate_connect_failures_total{@pods}[$__rate_interval]))", "{{upstream}}: {{reason}}"), links=[runbook("TidegateConnectFails")]),
    lines("Trouble with addresses", "Per minute: ejections, and those that were spared; failed checks, look-ups and looks at load; calls to an upstream of which no address is fit.", "none",
          *(q(f"60 * sum by (upstream) (rate(tidegate_upstream_{what}_total{{@pods}}[$__rate_interval]))", f"{{{{upstream}}}}: {what.replace('_', ' ')}")
            for what in ("ejections", "ejections_spared", "check_failures", "lookup_failures", "steering_failures", "forced_calls"))),
]

QUOTAS = [
    lines("Used of quotas", "Share, with what open calls hold, by whose budget it is.", "percentunit",
          q("max by (quota, caller, model, upstream, type) (tidegate_quota_used_ratio{@pods})", "{{quota}} {{caller}} {{model}} {{upstream}}: {{type}}"),
          steps=[(0.8, LOOK), (1, ACT)]),
    lines("Spent in", "At the present pace. No line where a budget lasts until its window begins anew.", "s",
          q("min by (quota, caller, model, upstream, type) (tidegate_quota_exhausted_in_seconds{@pods})", "{{quota}} {{caller}} {{model}} {{upstream}}: {{type}}")),
    lines("Too little left", "Calls per minute that a quota refused (enforce), or would have (observe).", "none",
          q("60 * sum by (quota, caller, type, mode) (rate(tidegate_quota_refusals_total{@pods}[$__rate_interval]))", "{{quota}} {{caller}} {{type}}: {{mode}}")),
    lines("Charged", "Calls per second, by whether it was as the provider stated it, or estimated, or had no price.", "cps",
          q("sum by (quota, by) (rate(tidegate_quota_charged_calls_total{@pods}[$__rate_interval]))", "{{quota}}: {{by}}")),
    lines("Left at the provider", "Share of its own limit, as its last answer says.", "percentunit",
          q("min by (upstream, model, dimension) (tidegate_ratelimit_remaining{@models} / (tidegate_ratelimit_limit{@models} > 0))", "{{upstream}} {{model}}: {{dimension}}"), high=1),
    lines("Budgets", "That are kept, by pod; and calls per minute that found no room for one of their own.", "none",
          q("sum by (pod, quota) (tidegate_quota_budgets{@pods})", "{{pod}} {{quota}}"),
          q("60 * sum by (quota) (rate(tidegate_quota_without_room_total{@pods}[$__rate_interval]))", "{{quota}}: no room")),
]

CACHES = [
    lines("Answered from the cache", "Share of the calls that may be.", "percentunit",
          q(share('tidegate_cache_calls_total{@models, cache!~"miss|bypass"}', "tidegate_cache_calls_total{@models}", "route"), "{{route}}"), high=1),
    lines("What the cache did", "Calls per second.", "cps", q("sum by (cache) (rate(tidegate_cache_calls_total{@models}[$__rate_interval]))", "{{cache}}"), stack=True),
    lines("Tokens saved", "Per second.", "none", q("sum by (type) (rate(tidegate_cache_saved_tokens_total{@models}[$__rate_interval]))", "{{type}}")),
    lines("Memory", "That answers take, by pod.", "bytes", q("sum by (pod) (tidegate_cache_memory_bytes{@pods})", "{{pod}}")),
    lines("Answers kept", "By pod.", "none", q("sum by (pod) (tidegate_cache_entries{@pods})", "{{pod}}")),
    lines("Not kept, or no longer", "Per minute, by why.", "none",
          q("60 * sum by (reason) (rate(tidegate_cache_not_stored_total{@pods}[$__rate_interval]))", "not kept: {{reason}}"),
          q("60 * sum by (reason) (rate(tidegate_cache_evictions_total{@pods}[$__rate_interval]))", "gone: {{reason}}")),
]

ARM = '@models, split!=""'
PER_CALL = f"(sum by (route, split) (rate(tidegate_calls_total{{{ARM}}}[$__rate_interval])) > 0)"

ARMS = [
    lines("Calls by arm", "Per second, of routes that split their calls.", "cps", q(f"sum by (route, split) (rate(tidegate_calls_total{{{ARM}}}[$__rate_interval]))", "{{route}}: {{split}}"), stack=True),
    lines("Errors by arm", "Share of the calls that failed or broke off, not by their callers' fault.", "percentunit",
          q(f'sum by (route, split) (rate(tidegate_calls_total{{{ARM}, outcome=~"failed|truncated", error_origin!="client"}}[$__rate_interval])) / '
            f'(sum by (route, split) (rate(tidegate_calls_total{{{ARM}, outcome!="abandoned", error_origin!="client"}}[$__rate_interval])) > 0)', "{{route}}: {{split}}")),
    lines("First token by arm", "Of streams.", "s", *quantiles("tidegate_time_to_first_token_seconds", "route, split", ARM, (0.5, 0.9), "{{route}}: {{split}}")),
    lines("Duration by arm", "To the end of the answer.", "s", *quantiles("tidegate_call_duration_seconds", "route, split", ARM, (0.5, 0.9), "{{route}}: {{split}}")),
    lines("Tokens by arm", "Of a call, on average, as providers state them.", "none",
          q(f'sum by (route, split, type) (rate(tidegate_tokens_total{{{ARM}, type=~"input|output"}}[$__rate_interval])) / on (route, split) group_left () {PER_CALL}', "{{route}}: {{split}} {{type}}")),
    lines("Cost by arm", "Of a call, on average; calls without a price count as nothing.", "currencyUSD",
          q(f"sum by (route, split) (rate(tidegate_cost_usd_total{{{ARM}}}[$__rate_interval])) / {PER_CALL}", "{{route}}: {{split}}")),
]

SHADOWS = [
    lines("Copies", "Calls per second that Tidegate made itself, by how they ended.", "cps",
          q("sum by (kind, route, upstream, outcome) (rate(tidegate_own_calls_total{@models}[$__rate_interval]))", "{{kind}} {{route}} {{upstream}}: {{outcome}}"), stack=True),
    lines("First token of copies", "Of streams.", "s", *quantiles("tidegate_own_time_to_first_token_seconds", "upstream", "@models", (0.5, 0.9), "{{upstream}}")),
    lines("Duration of copies", "To the end of the answer.", "s", *quantiles("tidegate_own_call_duration_seconds", "upstream", "@models", (0.5, 0.9), "{{upstream}}")),
    lines("Cost of copies", "US dollars an hour, in no other panel.", "currencyUSD", q("3600 * sum by (kind, upstream) (rate(tidegate_own_cost_usd_total{@models}[$__rate_interval]))", "{{kind}} {{upstream}}")),
    lines("Tokens of copies", "Per second.", "none", q("sum by (upstream, type) (rate(tidegate_own_tokens_total{@models}[$__rate_interval]))", "{{upstream}} {{type}}")),
    lines("Not copied", "Calls per minute that were drawn, by why; and copies that are under way.", "none",
          q("60 * sum by (route, reason) (rate(tidegate_shadow_not_sent_total{@pods}[$__rate_interval]))", "{{route}}: {{reason}}"),
          q("sum by (route) (tidegate_shadow_open{@pods})", "{{route}}: under way")),
]

OTHERS = [
    lines("Answers read on without their callers", "Per minute, by how that ended.", "none",
          q("60 * sum by (upstream, end) (rate(tidegate_drains_total{@pods}[$__rate_interval]))", "{{upstream}}: {{end}}"),
          q("sum by (upstream) (tidegate_drains_open{@pods})", "{{upstream}}: open now"), width=12),
    lines("What policies would have done", "Calls per second, while they look on only.", "cps",
          q("sum by (upstream, policy) (rate(tidegate_bypassed_total{@pods}[$__rate_interval]))", "{{upstream}}: {{policy}}"), width=12, links=[runbook("TidegateBypassOn")]),
]

BOARD = build(
    "tidegate-resilience", "Resilience", __doc__, ["cluster", "namespace", "pod", "model"],
    [("Who fails?", HEALTH), ("What is made again, and elsewhere?", AGAIN), ("Is there room?", ROOM), ("Who uses how much?", QUOTAS), ("What do caches save?", CACHES), ("Which arm is better?", ARMS), ("What goes on in the shadow?", SHADOWS), ("What else?", OTHERS)],
)
