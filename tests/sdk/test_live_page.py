"""The live page at the admin address, looked at with a browser: what it shows is what the API says."""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import TIDEGATE
from processes import Sidecar, eventually, get, running

PACKAGES = Path(os.environ.get("TIDEGATE_JS", "target/js")).absolute()
SCRIPT = Path(__file__).parent / "js" / "live.mjs"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_S = 180
# Names that would be markup, that are written from right to left, and that are longer than their place.
HOSTILE = ["<script>alert(1)</script>", "<img src=http://127.0.0.1:1/x>", "\u202enoitcerid", "m" * 120]
MODELS = HOSTILE + [f"model-{number}" for number in range(196)]
LOST = 12

CONFIG = """\
upstreams:
  sim: {{ url: '{simulator}', breaker: {{}}, limit: {{ concurrency: 50 }} }}
  gone: {{ url: 'http://127.0.0.1:1' }}
routes:
  - {{ name: lost, match: {{ path: '/gone/*' }}, upstream: gone }}
  - {{ name: chat, upstream: sim, cache: {{}} }}
history: {{ path: '{history}', budget: {{ total: 50 }} }}
quotas: {{ all: {{ window: 1m, requests: 100000 }} }}
"""

needs_a_browser = pytest.mark.skipif(
    not CHROMIUM or not (PACKAGES / "node_modules" / "playwright-core").is_dir(),
    reason="chromium or the packages of npm are not installed",
)


@pytest.fixture(scope="module")
def admin(simulator, tmp_path_factory):
    """The admin address of a sidecar that has had calls for many models, some of which failed."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "tidegate.yaml").write_text(CONFIG.format(simulator=simulator, history=folder / "history.db"))
    command = [TIDEGATE, "proxy", "--config", folder / "tidegate.yaml", "--workers", "1"]
    command += ["--records", folder / "records.jsonl"]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with running(command) as process:
        sidecar = Sidecar(process, folder / "records.jsonl")
        with ThreadPoolExecutor(8) as callers:
            calls = [(f"{sidecar.url}/v1/chat/completions", model) for model in MODELS]
            calls += [(f"{sidecar.url}/gone/v1/chat/completions", "model-1")] * LOST
            list(callers.map(lambda call: ask(*call), calls))
        total = len(MODELS) + LOST
        eventually(lambda: recent(sidecar.admin)["total"]["calls"] == total, f"{total} calls")
        yield sidecar.admin


def ask(url, model):
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        error.read()


def named(models):
    """Without the one of calls whose upstream was gone before their body had been read."""
    return set(models) - {"unknown"}


def recent(admin, query="window=60m&by=model"):
    return json.loads(get(f"{admin}/recent?{query}"))


def test_recent_says_what_calls_came_to(admin):
    said = recent(admin)
    assert said["total"]["statuses"] == {"200": len(MODELS), "502": LOST}
    assert said["total"]["error_ratio"] == pytest.approx(LOST / (len(MODELS) + LOST))
    assert named(row["model"] for row in said["rows"]) == set(MODELS)
    first = said["total"]["time_to_first_token_s"]
    assert 0.02 <= first["p50"] <= first["p90"] <= first["p99"] and first["count"] == len(MODELS)
    by_route = recent(admin, "window=60m&by=route,upstream")["rows"]
    assert [(row["route"], row["upstream"]) for row in by_route] == [("chat", "sim"), ("lost", "gone")]


@pytest.mark.parametrize("query", ["window=61m", "window=0m", "window=5", "by=modell"])
def test_recent_says_what_it_would_understand(admin, query):
    with pytest.raises(urllib.error.HTTPError) as refused:
        recent(admin, query)
    said = refused.value.read().decode()
    assert refused.value.code == 400 and query.split("=")[1] in said, said


def test_the_calls_to_look_at_are_told_without_what_was_said_in_them(admin):
    said = json.loads(get(f"{admin}/calls"))
    assert len(said["failed"]) == LOST and len(said["slow"]) == 100
    assert {call["error.type"] for call in said["failed"]} == {"upstream_unreachable"}
    assert all("time_to_first_token" in str(call) for call in said["slow"])


def test_who_is_no_browser_gets_the_list(admin):
    assert get(f"{admin}/").startswith("tidegate\n")


def seconds(value):
    """As the page writes times below 100 s."""
    if value is None:
        return "–"
    return f"{round(value * 1000)} ms" if value < 1 else f"{value:#.3g} s"


@needs_a_browser
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_what_the_api_says_and_all_can_use_it(admin, tmp_path, width, scheme):
    picture = Path(os.environ.get("TIDEGATE_PICTURES", tmp_path)) / f"live-{scheme}-{width}.png"
    shutil.copy(SCRIPT, PACKAGES)
    command = ["node", PACKAGES / SCRIPT.name, admin + "/", str(width), scheme, CHROMIUM, picture]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)

    assert seen["outside"] == [] and seen["errors"] == [] and seen["images"] == 0
    assert seen["faults"] == [], "axe finds nothing"
    assert seen["scrolls"] <= seen["width"] == width, f"over the edge: {seen['wide']}"
    assert seen["theme"] == scheme
    assert len(seen["charts"]) == 4 and all(chart["drawn"] for chart in seen["charts"])

    said = seen["answer"]
    shown = {row[0]: row for row in seen["models"]}
    assert named(shown) == set(MODELS), "a name is a text"
    for row in said["rows"]:
        latency, first = row.get("latency_s", {}), row.get("time_to_first_token_s", {})
        model, calls, _, _, p50, p90, p99, first_p99, *_, codes = shown[row["model"]]
        assert calls == str(row["calls"])
        times = [latency.get("p50"), latency.get("p90"), latency.get("p99"), first.get("p99")]
        assert [p50, p90, p99.removeprefix("▲ "), first_p99] == [seconds(time) for time in times]
        assert codes == "".join(f"{code} × {count}" for code, count in row["statuses"].items())
    assert [row[0] for row in seen["routes"]] == ["chat → sim", "lost → gone"]
    cards = {card[0]: card[1:] for card in seen["cards"]}
    assert cards["Calls"][1] == f"{said['total']['calls']} in all"
    assert cards["Latency P99"][0] == seconds(said["total"]["latency_s"]["p99"])
    assert len(seen["alerts"]) == len(said["alerts"])
    assert (seen["calls"], seen["slow"]) == (LOST, 100)
    assert {"breakers: sim", "limits: sim", "quotas: all"} <= set(seen["policies"])

    assert "in all" in seen["spend"] and "of $50.00" in seen["spend"]
    assert "by what was before" in seen["baseline"]

    assert "No model has this in its name" in seen["filtered"]
    assert seen["sorted"] == sorted(shown), "by name"
    for control in ["window", "pause", "theme", "filter", "Model", "Calls"]:
        assert control in seen["reached"], f"the tabulator leads to {control}"
