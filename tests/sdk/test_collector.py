"""A real OTLP collector receives what the records say, and its end harms no call."""

import re
from pathlib import Path

import openai
import pytest
import rotel

from processes import eventually, free_port, running

AGENT = Path(rotel.__file__).parent / "rotel-agent"
CALLS = 7


@pytest.fixture
def collector():
    """rotel, which says each metric that it receives; its addresses for HTTP and gRPC."""
    http, grpc = free_port(), free_port()
    command = [AGENT, "start", "--exporter", "blackhole"]
    command += ["--debug-log", "metrics", "--debug-log-verbosity", "detailed"]
    command += ["--otlp-http-endpoint", f"127.0.0.1:{http}"]
    command += ["--otlp-grpc-endpoint", f"127.0.0.1:{grpc}"]
    with running(command) as process:
        process.says(r"(Starting Rotel)")
        process.http, process.grpc = f"http://127.0.0.1:{http}", f"http://127.0.0.1:{grpc}"
        yield process


def total(said, name):
    """The sum over all label values of the newest report of a cumulative counter."""
    end_of_metric = r"(?=^Metric #|^ResourceMetrics|\Z)"
    reports = re.findall(rf"Name: {re.escape(name)}\n.*?{end_of_metric}", said, re.M | re.S)
    values = re.findall(r"^Value: (\d+)", reports[-1], re.M) if reports else []
    return sum(map(int, values))


def call(sidecar, count):
    client = openai.OpenAI(base_url=f"{sidecar.url}/v1", api_key="sk-test", max_retries=0)
    for _ in range(count):
        client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Why?"}]
        )


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_collector_receives_what_the_records_say(sidecar_with, collector, protocol):
    endpoint = collector.grpc if protocol == "grpc" else collector.http
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    with sidecar_with(**variables, OTEL_METRIC_EXPORT_INTERVAL="200") as sidecar:
        call(sidecar, CALLS)
        records = sidecar.records(CALLS)
        tokens = sum(
            record["gen_ai.usage.input_tokens"] + record["gen_ai.usage.output_tokens"]
            for record in records
        )
        eventually(lambda: total(collector.said, "tidegate.calls") == CALLS, "the calls by OTLP")
        assert total(collector.said, "tidegate.tokens") == tokens


def test_a_collector_that_ends_harms_no_call(sidecar_with, collector):
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.http, "OTEL_METRIC_EXPORT_INTERVAL": "100"}
    with sidecar_with(**variables, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf") as sidecar:
        call(sidecar, 1)
        eventually(lambda: total(collector.said, "tidegate.calls") == 1, "the first call")
        collector.stop(kill=True)
        call(sidecar, CALLS)

        outcomes = [record["tidegate.outcome"] for record in sidecar.records(1 + CALLS)]
        assert outcomes == ["completed"] * (1 + CALLS)
