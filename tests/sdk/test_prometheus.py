"""A real Prometheus scrapes the sidecar and answers questions about it."""

import json
import shutil
import subprocess
from contextlib import contextmanager
from urllib.parse import quote

import openai
import pytest

from processes import eventually, free_port, get, running

CALLS = 5


@pytest.fixture
def called(sidecar):
    """A sidecar that has passed on so many calls."""
    client = openai.OpenAI(base_url=f"{sidecar.url}/v1", api_key="sk-tidecanary", max_retries=0)
    for _ in range(CALLS):
        client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Why?"}]
        )
    assert len(sidecar.records(CALLS)) == CALLS
    return sidecar


@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")
def test_prometheus_counts_the_calls_that_are_recorded(called, tmp_path):
    configuration = tmp_path / "prometheus.yml"
    target = called.admin.removeprefix("http://")
    configuration.write_text(
        "global: { scrape_interval: 500ms, scrape_timeout: 500ms }\n"
        "scrape_configs:\n"
        "  - job_name: tidegate\n"
        f"    static_configs: [{{ targets: ['{target}'] }}]\n"
    )
    port = free_port()
    command = ["prometheus", f"--config.file={configuration}"]
    command += [f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with running(command) as prometheus:
        prometheus.says(r"(Server is ready to receive web requests)")

        def ask(question):
            answer = get(f"http://127.0.0.1:{port}/api/v1/query?query={quote(question)}")
            result = json.loads(answer)["data"]["result"]
            return float(result[0]["value"][1]) if result else None

        calls = eventually(lambda: ask("sum(tidegate_calls_total)"), "a scrape")
        assert calls == CALLS
        assert ask('sum(tidegate_calls_total{outcome="completed"})') == CALLS
        assert ask("sum(tidegate_call_duration_seconds_count)") == CALLS
        p99 = "histogram_quantile(0.99, sum by (le) (tidegate_call_duration_seconds_bucket))"
        assert 0 < ask(p99) < 5


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_finds_no_fault_in_the_metrics(called):
    metrics = get(f"{called.admin}/metrics")
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=metrics, text=True, capture_output=True
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


@contextmanager
def scraped(sidecar, folder, feature):
    """The port of a Prometheus with this feature that reads a sidecar's metrics twice a second."""
    configuration = folder / "prometheus.yml"
    configuration.write_text(
        "global: { scrape_interval: 500ms, scrape_timeout: 500ms }\n"
        "scrape_configs:\n"
        "  - job_name: tidegate\n"
        f"    static_configs: [{{ targets: ['{sidecar.admin.removeprefix('http://')}'] }}]\n"
    )
    port = free_port()
    command = ["prometheus", f"--config.file={configuration}", f"--enable-feature={feature}"]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with running(command) as prometheus:
        prometheus.says(r"(Server is ready to receive web requests)")
        yield port


@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")
def test_prometheus_leads_from_a_latency_to_a_trace(sidecar_with, tmp_path):
    traces = [f"4bf92f3577b34da6a3ce929d0e0e47{at:02x}" for at in range(CALLS)]
    # Spans are meant to go somewhere; whether they arrive is another matter.
    with sidecar_with(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_TRACES_SAMPLER="parentbased_always_on") as sidecar:
        client = openai.OpenAI(base_url=f"{sidecar.url}/v1", api_key="sk-tidecanary", max_retries=0)
        with scraped(sidecar, tmp_path, "exemplar-storage") as port:
            for at, trace in enumerate(traces):
                client.chat.completions.create(
                    model="gpt-4o-mini",
                    messages=[{"role": "user", "content": "Why?"}],
                    extra_headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-{'01' if at else '00'}"},
                )
            records = {record["trace_id"]: record for record in sidecar.records(CALLS)}
            time = f"start=0&end=9999999999&query={quote('tidegate_call_duration_seconds_bucket')}"

            def exemplars():
                found = json.loads(get(f"http://127.0.0.1:{port}/api/v1/query_exemplars?{time}"))["data"]
                return [exemplar for series in found for exemplar in series["exemplars"]]

            found = eventually(exemplars, "exemplars")
    for exemplar in found:
        record = records[exemplar["labels"]["trace_id"]]
        assert record["trace_id"] != traces[0], "it is not sampled"
        assert exemplar["labels"]["span_id"] == record["span_id"]
        assert float(exemplar["value"]) == pytest.approx(record["tidegate.duration_s"], abs=1e-5)


@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")
def test_prometheus_takes_native_histograms_where_they_are_kept(sidecar_with, tmp_path):
    with sidecar_with(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION="base2_exponential_bucket_histogram") as sidecar:
        client = openai.OpenAI(base_url=f"{sidecar.url}/v1", api_key="sk-tidecanary", max_retries=0)
        for _ in range(CALLS):
            client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Why?"}])
        times = sorted(record["tidegate.duration_s"] for record in sidecar.records(CALLS))
        with scraped(sidecar, tmp_path, "native-histograms") as port:

            def ask(question):
                answer = get(f"http://127.0.0.1:{port}/api/v1/query?query={quote(question)}")
                result = json.loads(answer)["data"]["result"]
                return float(result[0]["value"][1]) if result else None

            assert eventually(lambda: ask("histogram_count(sum(tidegate_call_duration_seconds))"), "a scrape") == CALLS
            assert ask("sum(tidegate_calls_total)") == CALLS
            assert ask("histogram_sum(sum(tidegate_call_duration_seconds))") == pytest.approx(sum(times), abs=1e-4)
            # Schema 8 is the finest: each bucket ends 0.27 % above where it begins.
            for share in (0.5, 1):
                told = ask(f"histogram_quantile({share}, sum(tidegate_call_duration_seconds))")
                exact = times[-1] if share == 1 else times[(CALLS - 1) // 2]
                assert told == pytest.approx(exact, rel=0.01), share
