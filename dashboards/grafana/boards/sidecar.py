"""Does the sidecar itself do its work: what it adds, what it loses, what it cannot read, its configuration, its credentials?"""

from .panels import ACT, LOOK, build, lines, now, number, q, quantiles, runbook, table

WORK = [
    number("Sidecars", "That tell of themselves.", "none", now("count(tidegate_build_info{@pods})"), width=4),
    number("Overhead, P99", "What Tidegate adds to a call.", "s", now("histogram_quantile(0.99, sum by (le) (rate(tidegate_overhead_seconds_bucket{@pods}[$__rate_interval])))"),
           steps=[(0.005, LOOK), (0.05, ACT)], width=4),
    number("Lost records", "In the time that is shown, by all exporters.", "none", now("sum(increase(tidegate_records_dropped_total{@pods}[$__range]))"), steps=[(1, LOOK)], decimals=0, width=4),
    number("Not understood", "Share of the calls whose bodies could not be read; they were forwarded as they are.", "percentunit",
           now("max(job:tidegate_not_understood:ratio_rate30m{@fleet})"), steps=[(0.01, LOOK)], width=4),
    number("Bad configurations", "Sidecars that could not take up the last one, and work by the one before.", "none",
           now("count(tidegate_config_last_reload_good{@pods} == 0)"), steps=[(1, ACT)], width=4),
    number("Credentials that end soon", "Within five minutes.", "none", now("count(tidegate_credential_expires_in_seconds{@pods} < 300)"), steps=[(1, LOOK)], width=4),
    lines("Overhead by route", "What Tidegate adds to a call: reading the head, choosing, signing, writing; not what it waits for.", "s",
          *quantiles("tidegate_overhead_seconds", "route", "@pods", (0.5, 0.99), "{{route}}")),
    lines("Overhead by pod", "P99: one that is far slower has too little CPU.", "s",
          q("topk(20, histogram_quantile(0.99, sum by (pod, le) (rate(tidegate_overhead_seconds_bucket{@pods}[$__rate_interval]))))", "{{pod}}")),
    lines("Open calls by pod", "Each takes memory: about 12 KiB for a stream.", "none", q("topk(20, sum by (pod) (tidegate_calls_in_flight{@pods}))", "{{pod}}")),
]

LOST = [
    lines("Lost on the way to exporters", "Records and spans per minute. Metrics lose nothing.", "none",
          q("60 * sum by (exporter) (rate(tidegate_records_dropped_total{@pods}[$__rate_interval]))", "{{exporter}}"), links=[runbook("TidegateRecordsDropped")]),
    lines("Not understood", "Calls per minute, by why: their tokens, first token and cost are missing.", "none",
          q("60 * sum by (reason) (rate(tidegate_not_understood_total{@pods}[$__rate_interval]))", "{{reason}}"), links=[runbook("TidegateNotUnderstoodGrows")]),
    lines("Warnings", "What records say of calls that went well and yet not quite, per minute.", "none",
          q("60 * sum by (warning) (rate(tidegate_warnings_total{@pods}[$__rate_interval]))", "{{warning}}")),
    lines("Jobs forgotten", "Per minute: more were open at a time than are remembered.", "none",
          q("60 * sum by (pod) (rate(tidegate_jobs_forgotten_total{@pods}[$__rate_interval]))", "{{pod}}")),
    lines("Figures of others", "Servers whose figures are read on behalf of their pods, and those of them that show them.", "none",
          q("count(tidegate_scrape_up{@pods})", "are asked"), q("sum(tidegate_scrape_up{@pods})", "answer")),
    lines("Figures of others: how long", "The last reading, by server; the slowest of all pods.", "s",
          q("topk(20, max by (pod, target) (tidegate_scrape_duration_seconds{@pods}))", "{{pod}} {{target}}")),
    lines("Figures of others: lost", "Per minute: samples that were not kept, by why, and pages that could not be read.", "none",
          q('60 * sum by (result) (rate(tidegate_scrape_samples_total{@pods,result!~"kept|not_allowed"}[$__rate_interval]))', "{{result}}"),
          q("60 * sum by (reason) (rate(tidegate_scrape_failures_total{@pods}[$__rate_interval]))", "page: {{reason}}")),
    lines("Scrapes", "How long Prometheus takes to read a sidecar's metrics.", "s", q("max by (pod) (scrape_duration_seconds{@pods} and on (instance) tidegate_build_info)", "{{pod}}")),
    lines("Series", "That a scrape reads, by pod: bounded, whatever callers send.", "none",
          q("max by (pod) (scrape_samples_scraped{@pods} and on (instance) tidegate_build_info)", "{{pod}}")),
]

SET = [
    table("Sidecars", "What runs where, and how old its configuration is.", ["namespace", "pod", "version", "revision"],
          [("Configuration's age", "s", "time() - max by (namespace, pod, version, revision) (tidegate_config_loaded_timestamp_seconds{@pods} * on (instance) group_left (version, revision) tidegate_build_info)", None)],
          width=12),
    lines("Configurations read", "Per minute, by whether they were good.", "none",
          q("60 * sum by (result) (rate(tidegate_config_reloads_total{@pods}[$__rate_interval]))", "{{result}}"), width=12, links=[runbook("TidegateConfigurationRejected")]),
    lines("Credentials: left", "Until the one in use ends, by upstream; the least of all pods.", "s",
          q("min by (upstream) (tidegate_credential_expires_in_seconds{@pods})", "{{upstream}}"), links=[runbook("TidegateCredentialEndsSoon")]),
    lines("Credentials: age", "Since the one in use was fetched.", "s", q("max by (upstream) (tidegate_credential_age_seconds{@pods})", "{{upstream}}")),
    lines("Credentials: failures", "Per minute.", "none",
          q("60 * sum by (upstream) (rate(tidegate_credential_failures_total{@pods}[$__rate_interval]))", "{{upstream}}: could not be fetched"),
          q("60 * sum by (upstream) (rate(tidegate_credential_refused_total{@pods}[$__rate_interval]))", "{{upstream}}: refused by it"),
          links=[runbook("TidegateCredentialFails"), runbook("TidegateCredentialRefused")]),
]

WAYS = [
    lines("Connections as a proxy", "Per minute, by what became of them: `untrusted` are applications that do not trust the sidecar's certificates.", "none",
          q("60 * sum by (end) (rate(tidegate_intercept_connections_total{@pods}[$__rate_interval]))", "{{end}}")),
    lines("Passed by", "Connections per minute that nothing is seen of, by host: a model server among them belongs into `intercept.hosts`.", "none",
          q("topk(20, 60 * sum by (host) (rate(tidegate_intercept_passed_by_total{@pods}[$__rate_interval])))", "{{host}}")),
]

KEPT = [
    lines("History is written", "Sidecars that keep one, and those of them whose file can be used; the log of the others says what is wrong with it.", "none",
          q("count(tidegate_history_up{@pods})", "keep one"), q("sum(tidegate_history_up{@pods})", "can write it"), width=12),
    lines("History's size", "What the file takes on the disk, by pod: bounded by `history.size`.", "bytes", q("topk(20, max by (pod) (tidegate_history_size_bytes{@pods}))", "{{pod}}"), width=12),
]

BOARD = build("tidegate-sidecar", "Sidecar", __doc__, ["cluster", "namespace", "pod"], [("Does it do its work?", WORK), ("What is lost?", LOST), ("How is it set?", SET), ("What is kept?", KEPT), ("What comes by it as a proxy?", WAYS)])
