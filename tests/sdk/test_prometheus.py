"""A real Prometheus scrapes the sidecar and answers questions about it."""

import json
import shutil
import subprocess
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
