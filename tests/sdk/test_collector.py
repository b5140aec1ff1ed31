"""A real OTLP collector receives what the records say, and its end harms no call."""

import os
import re
from pathlib import Path

import openai
import pytest
import rotel

from clouds import reply, serving
from conftest import TIDEGATE
from processes import Sidecar, eventually, free_port, running

AGENT = Path(rotel.__file__).parent / "rotel-agent"
CALLS = 7


@pytest.fixture
def collector():
    """rotel, which says what it receives; its addresses for HTTP and gRPC."""
    http, grpc = free_port(), free_port()
    command = [AGENT, "start", "--exporter", "blackhole"]
    command += ["--debug-log", "metrics", "--debug-log", "traces"]
    command += ["--debug-log-verbosity", "detailed"]
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


def spans(said):
    """The spans that were received: ids, name, kind and attributes of each."""
    parts = re.split(r"^Span #\d+$", said, flags=re.M)[1:]
    return [
        dict(re.findall(r"^    (Trace ID|Parent ID|ID|Name|Kind) *: (.*)$", part, re.M))
        | dict(re.findall(r"^     -> ([a-z_.0-9]+): \w+\((.*)\)$", part, re.M))
        for part in parts
    ]


def call(sidecar, count, **more):
    client = openai.OpenAI(base_url=f"{sidecar.url}/v1", api_key="sk-tidecanary", max_retries=0)
    for _ in range(count):
        client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Why?"}], **more
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


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_collector_receives_a_span_for_each_record(sidecar_with, collector, protocol):
    endpoint = collector.grpc if protocol == "grpc" else collector.http
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    variables |= {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
    with sidecar_with(**variables) as sidecar:
        call(sidecar, CALLS)
        records = {record["span_id"]: record for record in sidecar.records(CALLS)}
        eventually(lambda: len(spans(collector.said)) == CALLS, "the spans")
        for span in spans(collector.said):
            record = records.pop(span["ID"])
            assert span["Trace ID"] == record["trace_id"]
            assert span["Name"] == "chat gpt-4o-mini"
            assert span["Kind"] == "SPAN_KIND_CLIENT"
            assert span["gen_ai.provider.name"] == record["gen_ai.provider.name"]
            assert int(span["gen_ai.usage.input_tokens"]) == record["gen_ai.usage.input_tokens"]
        assert not records


def test_a_caller_that_does_not_sample_its_trace_makes_no_span(sidecar_with, collector):
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    variables = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.http + "/v1/traces"}
    variables |= {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_SEMCONV_STABILITY_OPT_IN": "http"}
    with sidecar_with(**variables, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf") as sidecar:
        call(sidecar, 1, extra_headers={"traceparent": f"00-{trace}-{parent}-00"})
        call(sidecar, 1, extra_headers={"traceparent": f"00-{trace}-{parent}-01"})
        sidecar.records(2)
        [span] = eventually(lambda: spans(collector.said), "the sampled span")
        assert (span["Trace ID"], span["Parent ID"]) == (trace, parent)
        assert "gen_ai.provider.name" in span and "gen_ai.system" not in span


def test_a_collector_that_ends_harms_no_call(sidecar_with, collector):
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.http, "OTEL_METRIC_EXPORT_INTERVAL": "100"}
    with sidecar_with(**variables, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf") as sidecar:
        call(sidecar, 1)
        eventually(lambda: total(collector.said, "tidegate.calls") == 1, "the first call")
        collector.stop(kill=True)
        call(sidecar, CALLS)

        outcomes = [record["tidegate.outcome"] for record in sidecar.records(1 + CALLS)]
        assert outcomes == ["completed"] * (1 + CALLS)


def test_each_of_several_attempts_is_a_span_below_that_of_its_call(simulator, collector, tmp_path):
    failing = serving(lambda handler, body: reply(handler, {"error": {"message": "no", "type": "server_error"}}, 503))
    records, configuration = tmp_path / "records.jsonl", tmp_path / "tidegate.yaml"
    with failing as bad:
        configuration.write_text(
            f"upstreams: {{ bad: {{ url: '{bad}' }}, good: {{ url: '{simulator}', region: eu }} }}\n"
            "routes: [{ upstream: bad, retry: { per_target: 2, wait: 10ms }, fallback: [{ upstream: good }] }]\n"
        )
        command = [TIDEGATE, "proxy", "--config", configuration, "--records", records]
        command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1"]
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.http, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        variables |= {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_TRACES_SAMPLER": "always_on"}
        with running(command, os.environ | variables) as process:
            sidecar = Sidecar(process, records)
            call(sidecar, 1)
            record = sidecar.record()
            told = eventually(lambda: found if len(found := spans(collector.said)) == 4 else None, "four spans")
            sidecar.ends()
    whole = next(span for span in told if span["ID"] == record["span_id"])
    assert whole["Name"] == "chat gpt-4o-mini"
    attempts = [span for span in told if span is not whole]
    assert {span["Parent ID"] for span in attempts} == {record["span_id"]}
    assert len({span["ID"] for span in told}) == 4
    ended = [(span["tidegate.upstream"], span["http.response.status_code"], span.get("error.type")) for span in attempts]
    assert ended == [("bad", "503", "server_error")] * 2 + [("good", "200", None)]
    assert [span.get("http.request.resend_count") for span in attempts] == [None, "1", "2"]


def test_a_failure_is_a_span_whatever_the_sampler_says(collector, tmp_path, sidecar_with):
    variables = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.http + "/v1/traces", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    variables |= {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    with sidecar_with(**variables) as sidecar:
        call(sidecar, 2)
        with pytest.raises(openai.InternalServerError):
            call(sidecar, 1, extra_headers={"x-sim-fault": "500"})
        failed = sidecar.records(3)[-1]
        [span] = eventually(lambda: spans(collector.said), "the span of the failure")
        assert span["ID"] == failed["span_id"]
