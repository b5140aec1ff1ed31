"""How much is there room for: your own model servers and their GPUs beside what callers wait, under a load test or without one."""

from .panels import ACT, LOOK, build, lines, q, quantiles, runbook

# The model server's own names; it is the server, not the sidecar, that has them.
FLEET = 'cluster=~"$cluster", namespace=~"$namespace"'


def vllm(histogram, legend):
    return quantiles(f"vllm:{histogram}", "model_name", FLEET, (0.5, 0.99), legend)


DEMAND = [
    lines("Calls", "Per second, by model.", "cps", q("sum by (model) (rate(tidegate_calls_total{@models}[$__rate_interval]))", "{{model}}"), stack=True),
    lines("Open calls", "By model; with the calls per second, how long they take.", "none", q("sum by (model) (tidegate_calls_in_flight{@models})", "{{model}}"), stack=True),
    lines("First token", "As callers see it.", "s", *quantiles("tidegate_time_to_first_token_seconds"), steps=[(2, LOOK), (3, ACT)]),
    lines("Output tokens", "Per second, by model: as flat as it gets when a server is full.", "none",
          q('sum by (model) (rate(tidegate_tokens_total{@models, type="output"}[$__rate_interval]))', "{{model}}"), stack=True),
    lines("Time per output token", "Grows with the sequences that a server runs at once.", "s", *quantiles("tidegate_time_per_output_token_seconds")),
    lines("Refused and failed", "Per second, by status.", "cps",
          q('sum by (status) (rate(tidegate_calls_total{@models, outcome=~"failed|refused|truncated"}[$__rate_interval]))', "{{status}}"), stack=True),
]

SERVERS = [
    lines("Running and waiting", "Sequences of each server. As many wait as run: TidegateModelQueueLong fires.", "none",
          q("sum by (server, model_name) (server:vllm_requests_running:max{@fleet})", "{{server}} {{model_name}}: running"),
          q("sum by (server, model_name) (server:vllm_requests_waiting:max{@fleet})", "{{server}} {{model_name}}: waiting"), links=[runbook("TidegateModelQueueLong")]),
    lines("KV cache", "Share that is used. Full, new requests wait and running ones may be computed again.", "percentunit",
          q("max by (server, model_name) (server:vllm_kv_cache_usage:max{@fleet})", "{{server}} {{model_name}}"), high=1, steps=[(0.95, ACT)], links=[runbook("TidegateModelCacheFull")]),
    lines("GPU", "Share of the time in which it did something.", "percentunit",
          q('max by (gpu, UUID, modelName) (gpu:dcgm_gpu_utilization:max{cluster=~"$cluster"})', "GPU {{gpu}} {{modelName}}"), high=1, steps=[(0.95, LOOK)], links=[runbook("TidegateGpuBusy")]),
    lines("Queue", "How long sequences wait, by the server's own clock.", "s", *vllm("request_queue_time_seconds", "{{model_name}}")),
    lines("First token, by the server", "Beside what callers see, above: the rest is network, sidecar and queues before the server.", "s", *vllm("time_to_first_token_seconds", "{{model_name}}")),
    lines("Tokens, by the server", "Per second.", "none",
          q(f"sum by (model_name) (rate(vllm:prompt_tokens_total{{{FLEET}}}[$__rate_interval]))", "{{model_name}}: prompt"),
          q(f"sum by (model_name) (rate(vllm:generation_tokens_total{{{FLEET}}}[$__rate_interval]))", "{{model_name}}: generated")),
    lines("Found in the prefix cache", "Share of the prompts' tokens.", "percentunit",
          q(f"sum by (model_name) (rate(vllm:prefix_cache_hits_total{{{FLEET}}}[$__rate_interval])) / (sum by (model_name) (rate(vllm:prefix_cache_queries_total{{{FLEET}}}[$__rate_interval])) > 0)", "{{model_name}}"), high=1),
    lines("Preempted", "Sequences per minute that made room for others and are computed again.", "none",
          q(f"60 * sum by (model_name) (rate(vllm:num_preemptions_total{{{FLEET}}}[$__rate_interval]))", "{{model_name}}")),
    lines("Ended, by the server", "Sequences per second, by why.", "none",
          q(f"sum by (model_name, finished_reason) (rate(vllm:request_success_total{{{FLEET}}}[$__rate_interval]))", "{{model_name}}: {{finished_reason}}"), stack=True),
]

BOARD = build("tidegate-capacity", "Capacity", __doc__, ["cluster", "namespace", "pod", "model"], [("What is asked for?", DEMAND), ("What have the servers left?", SERVERS)])
