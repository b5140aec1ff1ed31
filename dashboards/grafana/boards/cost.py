"""What do calls use, and what does it cost? Tokens are those that providers state; dollars are by the table of prices."""

from .panels import ACT, LOOK, build, lines, now, number, q, quantiles, runbook, table

COST = "tidegate_cost_usd_total"
TOKENS = "tidegate_tokens_total"


def spent(by, window="$__range"):
    return f"sum by ({by}) (increase({COST}{{@models}}[{window}]))"


SPENT = [
    number("Spent", "US dollars in the time that is shown.", "currencyUSD", now(f"sum(increase({COST}{{@models}}[$__range]))"), decimals=2, width=4),
    number("Now", "US dollars per hour.", "currencyUSD", q(f"3600 * sum(rate({COST}{{@models}}[$__rate_interval]))"), decimals=2, width=4),
    number("30 days at this rate", "US dollars, by the mean of the time that is shown.", "currencyUSD",
           now(f"30 * 86400 * sum(rate({COST}{{@models}}[$__range]))"), decimals=0, width=4),
    number("Saved by caches", "US dollars in the time that is shown that equal calls did not cost again.", "currencyUSD",
           now("sum(increase(tidegate_cache_saved_cost_usd_total{@models}[$__range]))"), decimals=2, width=4),
    number("Calls without a price", "Share of the calls that ask a model; their cost is missing above.", "percentunit",
           now("sum(increase(tidegate_unpriced_calls_total{@models}[$__range])) / (sum(increase(tidegate_calls_total{@models, operation!=\"\"}[$__range])) > 0)"),
           steps=[(0.01, LOOK), (0.1, ACT)], width=4),
    number("Calls without usage", "Completed calls whose answers state no tokens, in the time that is shown.", "none",
           now("sum(increase(tidegate_usage_absent_total{@models}[$__range]))"), steps=[(1, LOOK)], decimals=0, width=4),
    lines("Cost by model", "US dollars per hour.", "currencyUSD", q(f"3600 * sum by (model) (rate({COST}{{@models}}[$__rate_interval]))", "{{model}}"), stack=True),
    lines("Cost by route and upstream", "US dollars per hour.", "currencyUSD",
          q(f"3600 * sum by (route, upstream) (rate({COST}{{@models}}[$__rate_interval]))", "{{route}} to {{upstream}}"), stack=True),
    lines("Cost of an hour and what is ordinary", "Of all models together, and beyond what it is out of the ordinary by this time of the last days. No limit without a history of days.", "currencyUSD",
          q("sum by (namespace, job) (job:tidegate_cost_usd:increase1h{@fleet})", "{{namespace}} {{job}}"),
          q("sum by (namespace, job) (job:tidegate_cost_usd:increase1h_limit_same_time{@fleet})", "{{namespace}} {{job}}: limit"),
          links=[runbook("TidegateCostUnlikeSameTime")]),
    table("What it went to", "In the time that is shown.", ["provider", "route", "upstream", "model"],
          [
              ("USD", "currencyUSD", spent("provider, route, upstream, model"), None),
              ("Input tokens", "short", f'sum by (provider, route, upstream, model) (increase({TOKENS}{{@models, type="input"}}[$__range]))', None),
              ("Output tokens", "short", f'sum by (provider, route, upstream, model) (increase({TOKENS}{{@models, type="output"}}[$__range]))', None),
              ("Read from the provider's cache", "short", f'sum by (provider, route, upstream, model) (increase({TOKENS}{{@models, type="cache_read"}}[$__range]))', None),
              ("Calls", "short", "sum by (provider, route, upstream, model) (increase(tidegate_calls_total{@models}[$__range]))", None),
          ]),
]

USED = [
    lines("Tokens by type", "Per second. Input includes cached ones, output includes reasoning.", "none",
          q(f"sum by (type) (rate({TOKENS}{{@models}}[$__rate_interval]))", "{{type}}")),
    lines("Output tokens by model", "Per second.", "none", q(f'sum by (model) (rate({TOKENS}{{@models, type="output"}}[$__rate_interval]))', "{{model}}"), stack=True),
    lines("Input tokens by model", "Per second.", "none", q(f'sum by (model) (rate({TOKENS}{{@models, type="input"}}[$__rate_interval]))', "{{model}}"), stack=True),
    lines("Tokens of a call", "What providers state of it, in and out; drawn between powers of four.", "none",
          *(query for kind in ("input", "output")
            for query in quantiles("gen_ai_client_token_usage", "gen_ai_token_type",
                                   f'cluster=~"$cluster", namespace=~"$namespace", pod=~"$pod", gen_ai_request_model=~"$model", gen_ai_token_type="{kind}"',
                                   (0.5, 0.9), "{{gen_ai_token_type}}"))),
    lines("Read from providers' caches", "Share of the input tokens.", "percentunit",
          q(f'sum by (model) (rate({TOKENS}{{@models, type="cache_read"}}[$__rate_interval])) / (sum by (model) (rate({TOKENS}{{@models, type="input"}}[$__rate_interval])) > 0)', "{{model}}"), high=1),
    lines("Wasted", "Output tokens per second that were read on after their callers had left, and paid for.", "none",
          q("sum by (upstream, model, source) (rate(tidegate_tokens_wasted_total{@models}[$__rate_interval]))", "{{upstream}} {{model}}: {{source}}")),
    lines("Images, recordings, videos and documents", "In requests, per minute.", "none",
          q("60 * sum by (kind) (rate(tidegate_input_media_total{@models}[$__rate_interval]))", "{{kind}}")),
    lines("Video made", "Seconds of video per minute, as asked for by jobs that succeeded.", "s",
          q("60 * sum by (model) (rate(tidegate_video_seconds_total{@models}[$__rate_interval]))", "{{model}}")),
    lines("Without a price", "Calls and tokens per minute: by these the cost is too low.", "none",
          q("60 * sum by (provider, model) (rate(tidegate_unpriced_calls_total{@models}[$__rate_interval]))", "{{provider}} {{model}}: calls"),
          q("60 * sum by (provider, model) (rate(tidegate_unpriced_tokens_total{@models}[$__rate_interval]))", "{{provider}} {{model}}: tokens"),
          links=[runbook("TidegateCallsUnpriced")]),
]

BOARD = build("tidegate-cost", "Tokens and cost", __doc__, ["cluster", "namespace", "pod", "model"], [("What does it cost?", SPENT), ("What is used?", USED)])
