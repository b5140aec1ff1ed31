"""How long do calls take, and where does the time go: on the way, at the model, in the stream, or in the sidecar?"""

from .panels import ACT, LOOK, SLOW, build, heat, lines, mean, number, now, q, quantiles, runbook

TTFT = "tidegate_time_to_first_token_seconds"
DURATION = "tidegate_call_duration_seconds"
LIMITS = [(2, LOOK), (3, ACT)]
STREAMS = '@models, stream="true", outcome="completed"'
PER_CALL = "(sum(rate(tidegate_overhead_seconds_count{@pods}[$__rate_interval])) > 0)"


def rate(histogram, part, matchers):
    return f"sum(rate({histogram}_{part}{{{matchers}}}[$__rate_interval]))"


def average(histogram, matchers):
    return f"{rate(histogram, 'sum', matchers)} / ({rate(histogram, 'count', matchers)} > 0)"


CALLERS = [
    lines("First token", "From the request's head to the first token of streams, reasoning included.", "s",
          *quantiles(TTFT), steps=LIMITS, links=[SLOW, runbook("TidegateP99Over3s")]),
    lines("Duration of calls that do not stream", "From the request's head to the last byte of completed calls.", "s",
          *quantiles(DURATION, matchers='@models, stream!="true", outcome="completed"'), steps=LIMITS, links=[SLOW]),
    lines("Duration of streams", "To the last byte: as long as the answer is.", "s", *quantiles(DURATION, matchers=STREAMS), links=[SLOW]),
    heat("First tokens", "How many took how long.", "s", TTFT),
    heat("Durations", "Of completed calls.", "s", DURATION, matchers='@models, outcome="completed"'),
    lines("Time per output token", "From the first token to the last, by the tokens after the first.", "s", *quantiles("tidegate_time_per_output_token_seconds")),
]

WHERE = [
    lines("A stream's time, on average", "Completed streams: what the sidecar did, what they waited for on the way, what the model took to its first token, and the rest. The first two are means over all calls.", "s",
          q(f"{rate('tidegate_overhead_seconds', 'sum', '@pods')} / {PER_CALL}", "sidecar"),
          q(f"{rate('tidegate_wait_seconds', 'sum', '@pods')} / {PER_CALL}", "on the way"),
          q(f"{average(TTFT, STREAMS)} - (({rate('tidegate_wait_seconds', 'sum', '@pods')} + {rate('tidegate_overhead_seconds', 'sum', '@pods')}) / {PER_CALL})", "model, to the first token"),
          q(f"{average(DURATION, STREAMS)} - {average(TTFT, STREAMS)}", "stream, from the first token on"),
          stack=True, width=12),
    lines("On the way, by what was waited for", "Mean per call: for a connection (pool), a name (dns), TCP (connect), TLS, a place in the queue of a limit, or to be made again.", "s",
          q("sum by (wait) (rate(tidegate_wait_seconds_sum{@pods}[$__rate_interval])) / on () group_left () " + PER_CALL, "{{wait}}"), stack=True, width=12),
    lines("Sidecar", "What Tidegate itself adds, by route.", "s", *quantiles("tidegate_overhead_seconds", "route", "@pods", (0.5, 0.99), "{{route}}")),
    lines("Longest waits", "P99 by upstream and what was waited for.", "s", *quantiles("tidegate_wait_seconds", "upstream, wait", "@pods", (0.99,), "{{upstream}}: {{wait}}")),
    lines("Silence within streams", "Of each stream, the longest time between two tokens.", "s", *quantiles("tidegate_longest_gap_seconds")),
    lines("Stalls", "Silences over 1 s, per second.", "none",
          q("sum by (model, upstream) (rate(tidegate_stalls_total{@models}[$__rate_interval]))", "{{model}} {{upstream}}")),
]

WHAT = [
    lines("First token by model", "P99.", "s", *quantiles(TTFT, "model", "@models", (0.99,), "{{model}}"), links=[SLOW]),
    lines("First token by upstream and region", "P99: one region or one upstream that is slower than the others.", "s",
          *quantiles(TTFT, "upstream, region", "@models", (0.99,), "{{upstream}} {{region}}"), links=[SLOW]),
    lines("First token by route", "P99.", "s", *quantiles(TTFT, "route", "@models", (0.99,), "{{route}}"), links=[SLOW]),
    lines("First token by size of the prompt", "P90, by input tokens as providers state them.", "s",
          *quantiles("tidegate_time_to_first_token_by_input_seconds", "input_size", "@models", (0.9,), "{{input_size}}")),
    lines("Duration by size of the answer", "P90 of completed calls, by output tokens.", "s",
          *quantiles("tidegate_call_duration_by_output_seconds", "output_size", "@models", (0.9,), "{{output_size}}")),
    lines("Means by provider", "Of the first token.", "s", mean(TTFT, "provider", legend="{{provider}}")),
]

JOBS = [
    number("Open jobs", "Submitted, and not seen to be done.", "none", now("sum(tidegate_jobs_open{@models})"), width=4),
    number("Polls", "Calls per second that ask how jobs are getting on.", "cps", q("sum(rate(tidegate_job_polls_total{@models}[$__rate_interval]))"), width=4),
    lines("Jobs", "That ended, per minute, by how.", "none", q("60 * sum by (outcome) (rate(tidegate_jobs_total{@models}[$__rate_interval]))", "{{outcome}}")),
    lines("Duration of jobs", "From the submit to the poll that saw the end.", "s", *quantiles("tidegate_job_duration_seconds", which=(0.5, 0.9))),
]

BOARD = build(
    "tidegate-latency", "Latency", __doc__, ["cluster", "namespace", "pod", "model"],
    [("What do callers wait?", CALLERS), ("Where does the time go?", WHERE), ("Which calls are slow?", WHAT), ("Long-running jobs", JOBS)],
)
