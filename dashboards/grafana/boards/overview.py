"""Is all well, and if not, for whom? Drawn from what the rules have recorded, so that it is quick over weeks and many pods."""

from .panels import ACT, FAILED, LOOK, SLOW, board, build, lines, now, number, q, runbook, table

ERRORS = [(0.01, LOOK), (0.05, ACT)]
LATENCY = [(2, LOOK), (3, ACT)]

RATIO = "sum by (namespace, model) (model:tidegate_calls_bad:rate5m{@fleet_models}) / (sum by (namespace, model) (model:tidegate_calls_accountable:rate5m{@fleet_models}) > 0)"


def p(quantile):
    return f'max by (namespace, model) (model:tidegate_latency_seconds:quantile_rate5m{{@fleet_models, quantile="{quantile}"}})'


def burn(window):
    """How many times faster than it may the budget of errors is used up."""
    return f"max by (namespace, model) (model:tidegate_call_errors:ratio_rate{window}{{@fleet_models}}) / scalar(1 - max(tidegate:availability_objective:ratio))"


def latency_burn(window):
    return f"max by (namespace, model) (model:tidegate_latency_over_2s:ratio_rate{window}{{@fleet_models}}) / scalar(1 - max(tidegate:latency_objective:ratio))"


TO_MODEL = board("Latency of this model", "tidegate-latency", "var-model=${__value.text}")

NOW = [
    number("Calls", "Calls per second that count: all but those that were abandoned, malformed, or failed by their caller.", "cps",
           q("sum(model:tidegate_calls_accountable:rate5m{@fleet_models})")),
    number("Errors", "Share of the calls of five minutes that the upstream, the sidecar or a quota failed, or that broke off.", "percentunit",
           q("sum(model:tidegate_calls_bad:rate5m{@fleet_models}) / (sum(model:tidegate_calls_accountable:rate5m{@fleet_models}) > 0)"),
           steps=ERRORS, decimals=2),
    number("P99, slowest model", "What all but one of a hundred calls wait at the most: to the first token of streams, to the end of others.", "s",
           q('max(model:tidegate_latency_seconds:quantile_rate5m{@fleet_models, quantile="0.99"})'), steps=LATENCY),
    number("Open calls", "Calls that have begun and not ended.", "none", q("sum(tidegate_calls_in_flight{@models})")),
    number("Tokens", "Input and output tokens per second, as providers state them.", "none",
           q('sum(model:tidegate_tokens:rate5m{@fleet_models, type=~"input|output"})'), decimals=0),
    number("Cost", "US dollars per hour by the table of prices; calls without a price are left out.", "currencyUSD",
           q("3600 * sum(model:tidegate_cost_usd:rate5m{@fleet_models})"), decimals=2),
    number("Sidecars", "That tell of themselves.", "none", now("count(tidegate_build_info{@pods})")),
    number("Alerts", "Of Tidegate that are firing.", "none", now('count(ALERTS{alertstate="firing", alertname=~"Tidegate.*"})'), steps=[(1, LOOK)]),
]

MODELS = [
    table(
        "Models", "How each model does now. A click on a name leads to its latency.", ["namespace", "model"],
        [
            ("Calls/s", "cps", "sum by (namespace, model) (model:tidegate_calls_accountable:rate5m{@fleet_models})", None),
            ("Errors", "percentunit", RATIO, ERRORS),
            ("P50", "s", p("0.5"), None),
            ("P90", "s", p("0.9"), None),
            ("P99", "s", p("0.99"), LATENCY),
            ("Input tokens/s", "none", 'sum by (namespace, model) (model:tidegate_tokens:rate5m{@fleet_models, type="input"})', None),
            ("Output tokens/s", "none", 'sum by (namespace, model) (model:tidegate_tokens:rate5m{@fleet_models, type="output"})', None),
            ("USD/hour", "currencyUSD", "3600 * sum by (namespace, model) (model:tidegate_cost_usd:rate5m{@fleet_models})", None),
        ],
        links=[TO_MODEL],
    ),
    lines("Calls", "Calls per second that count, by model.", "cps",
          q("sum by (model) (model:tidegate_calls_accountable:rate5m{@fleet_models})", "{{model}}"), stack=True),
    lines("Errors", "Share of the calls of five minutes. Over 5 %, TidegateErrorRatioHigh fires.", "percentunit",
          q(RATIO, "{{model}}"), steps=[(0.05, ACT)], links=[FAILED, runbook("TidegateErrorRatioHigh")]),
    lines("P99", "Exact at 2 s and 3 s, where the alerts are; drawn between buckets elsewhere.", "s",
          q(p("0.99"), "{{model}}"), steps=LATENCY, links=[SLOW, runbook("TidegateP99Over3s"), runbook("TidegateP99Over2s")]),
    lines("P90 and what is ordinary", "The P90 of each model, and beyond what it is out of the ordinary: by this time of the last days, and by the last 24 hours. No limit without a history of days.", "s",
          q(p("0.9"), "{{model}}"),
          q("max by (model) (model:tidegate_latency_seconds:p90_limit_same_time{@fleet_models})", "{{model}}: limit by time of day"),
          q("max by (model) (model:tidegate_latency_seconds:p90_limit_last_day{@fleet_models})", "{{model}}: limit by the last day"),
          links=[runbook("TidegateLatencyUnlikeSameTime"), runbook("TidegateLatencyUnlikeLastDay")]),
    lines("Outcomes", "How calls ended.", "cps", q("sum by (outcome) (rate(tidegate_calls_total{@models}[$__rate_interval]))", "{{outcome}}"), stack=True),
    lines("Status codes", "Of all calls; none is a call that had no answer.", "cps",
          q("sum by (status) (rate(tidegate_calls_total{@models}[$__rate_interval]))", "{{status}}"), stack=True),
]

BUDGET = [
    number("Budget left", "Of the errors that 30 days may have by the objective, the share that is left, for the model that has least.", "percentunit",
           now("1 - max(model:tidegate_call_errors:ratio_rate30d{@fleet_models}) / scalar(1 - max(tidegate:availability_objective:ratio))"), width=4),
    number("Latency budget left", "Of the calls that may take longer than 2 s by the objective, likewise.", "percentunit",
           now("1 - max(model:tidegate_latency_over_2s:ratio_rate30d{@fleet_models}) / scalar(1 - max(tidegate:latency_objective:ratio))"), width=4),
    lines("Errors: burn rate", "1 uses the budget of 30 days up in 30 days. A page comes at 14.4 (an hour) and 6 (six hours).", "none",
          q(burn("1h"), "{{model}}: 1 h"), q(burn("6h"), "{{model}}: 6 h"), steps=[(6, LOOK), (14.4, ACT)],
          links=[runbook("TidegateAvailabilityBurnsFast"), runbook("TidegateAvailabilityBurnsSlowly")]),
    lines("Latency: burn rate", "The same for calls over 2 s.", "none",
          q(latency_burn("1h"), "{{model}}: 1 h"), q(latency_burn("6h"), "{{model}}: 6 h"), steps=[(6, LOOK), (14.4, ACT)],
          links=[runbook("TidegateLatencyBurnsFast"), runbook("TidegateLatencyBurnsSlowly")]),
]

PODS = [
    lines("Calls by pod", "One that gets far more or far fewer than the others.", "cps",
          q("topk(20, sum by (pod) (rate(tidegate_calls_total{@models}[$__rate_interval])))", "{{pod}}")),
    lines("Failed calls by pod", "By the upstream, the sidecar or a quota, or broken off.", "cps",
          q('topk(20, sum by (pod) (rate(tidegate_calls_total{@models, outcome=~"failed|truncated", error_origin!="client"}[$__rate_interval])))', "{{pod}}"),
          links=[FAILED]),
    lines("P99 of the first token by pod", "One that is far slower than the others has a trouble of its own: its node, its network, its limits.", "s",
          q("topk(20, histogram_quantile(0.99, sum by (pod, le) (rate(tidegate_time_to_first_token_seconds_bucket{@models}[$__rate_interval]))))", "{{pod}}")),
]

BOARD = build(
    "tidegate-overview", "Overview", __doc__, ["cluster", "namespace", "pod", "model"],
    [("Is all well?", NOW), ("For which model?", MODELS), ("Will it do for the month?", BUDGET), ("Is it one pod?", PODS)],
)
