"""What a load test leaves behind, read by those who will: a browser, an XML reader, a JSON reader."""

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from conftest import TIDEGATE

PACKAGES = Path(os.environ.get("TIDEGATE_JS", "target/js")).absolute()
SCRIPT = Path(__file__).parent / "js" / "page.mjs"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_S = 120

OBJECTIVES = """objectives:
  - { metric: time_to_first_token, quantile: 0.5, below: 10s, name: 'first <b>token</b>' }
  - { metric: error_ratio, below: 90% }
"""
# A model whose name would be markup, and one that nobody serves without a fault.
MIX = """
- { call: openai/chat, model: 'm<img src=http://127.0.0.1:1/x>', stream: true, weight: 3, output_tokens: 8 }
- { call: gemini/generate-content, model: gemini-2.5-flash, stream: true, output_tokens: 8 }
"""
FORMS = ["json", "report", "junit", "markdown", "hlog", "vllm-json", "k6-summary"]


@pytest.fixture(scope="module")
def reports(simulator, tmp_path_factory):
    """The folder in which a load test has left every form of its report."""
    folder = tmp_path_factory.mktemp("reports")
    (folder / "slo.yaml").write_text(OBJECTIVES)
    (folder / "mix.yaml").write_text(MIX)
    command = [TIDEGATE, "load", "--target", simulator, "--users", "8", "--duration", "3s"]
    command += ["--slo", folder / "slo.yaml", "--mix", folder / "mix.yaml"]
    command += ["--scrape", f"{simulator}/metrics"]
    for form in FORMS:
        command += [f"--{form}", folder / file_of(form)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return folder


def file_of(form):
    return {"report": "report.html", "junit": "junit.xml"}.get(form, form)


def test_junit_is_read_as_one_passed_case_for_each_objective(reports):
    root = ElementTree.parse(reports / "junit.xml").getroot()
    suite = root.find("testsuite")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [
        "the run is valid",
        "first <b>token</b>",
        "error_ratio below 90%",
    ]
    assert suite.get("tests") == "3" and suite.get("failures") == suite.get("errors") == "0"
    assert not suite.findall("testcase/failure") and not suite.findall("testcase/error")


def test_a_report_that_is_made_later_is_the_same(reports, tmp_path):
    command = [TIDEGATE, "report", "render", reports / "json"]
    for form in FORMS[1:]:
        command += [f"--{form}", tmp_path / file_of(form)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    for form in FORMS[1:]:
        later, first = ((at / file_of(form)).read_text() for at in (tmp_path, reports))
        # A histogram that has been a file may be packed otherwise, though it holds the same.
        pack = re.compile("HISTF.*")
        assert pack.sub("", later) == pack.sub("", first), form


def test_vllm_and_k6_have_the_calls_of_the_report(reports):
    report = json.loads((reports / "json").read_text())
    vllm = json.loads((reports / "vllm-json").read_text())
    k6 = json.loads((reports / "k6-summary").read_text())["metrics"]
    total = report["total"]
    assert vllm["completed"] == total["outcomes"]["completed"]
    assert vllm["total_output_tokens"] == total["tokens"]["output"]
    assert vllm["p99_ttft_ms"] == pytest.approx(
        total["service_time_to_first_token_s"]["p99"] * 1000
    )
    assert k6["http_reqs"]["count"] == total["calls"]
    assert k6["checks"] == {"passes": 2, "fails": 0, "value": 1.0}
    assert {"p(90)", "p(95)"} <= k6["http_req_waiting"].keys()


def test_the_interval_log_has_a_line_for_each_slice(reports):
    lines = (reports / "hlog").read_text().splitlines()
    assert lines[0] == "#[Histogram log format version 1.3]"
    intervals = [line for line in lines if not line.startswith("#")]
    form = r"Tag=[a-z_]+,\d+\.\d+,\d+\.\d+,\d+\.\d+,HISTF[A-Za-z0-9+/=]+"
    assert intervals and all(re.fullmatch(form, line) for line in intervals)


def test_markdown_says_the_verdict_first(reports):
    text = (reports / "markdown").read_text()
    assert text.startswith("## Load test: PASS\n")
    assert "<b>token" not in re.sub(r"`[^`]*`", "", text)


needs_a_browser = pytest.mark.skipif(
    not CHROMIUM or not (PACKAGES / "node_modules" / "playwright-core").is_dir(),
    reason="chromium or the packages of npm are not installed",
)


@pytest.fixture(scope="module")
def search(simulator, tmp_path_factory):
    """The page of a search, short of being sure."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "slo.yaml").write_text(OBJECTIVES)
    (folder / "mix.yaml").write_text(MIX)
    command = [TIDEGATE, "load", "--target", simulator, "--search", "users", "--search-to", "8"]
    command += ["--search-pause", "0s", "--duration", "3s", "--warm-up", "100ms"]
    command += ["--slo", folder / "slo.yaml", "--mix", folder / "mix.yaml", "--scrape", f"{simulator}/metrics"]
    command += ["--report", folder / "search.html", "--json", folder / "search.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 3, done.stderr
    return folder


def looked_at(page, width, scheme, picture):
    """What a browser shows of a page, which must be whole, legible and by itself."""
    shutil.copy(SCRIPT, PACKAGES)
    command = ["node", PACKAGES / SCRIPT.name, page, str(width), scheme, CHROMIUM, picture]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["requests"] == [] and seen["errors"] == []
    assert seen["scrolls"] <= seen["width"] == width, "nothing stands over the edge"
    assert seen["smallest"] >= 10, "letters of charts are legible"
    assert seen["contrast"] >= 4.5, "letters stand out from what is behind them"
    seen["drawn"] = {chart["title"]: chart["marks"] for chart in seen["charts"]}
    assert all(marks > 0 for marks in seen["drawn"].values()), seen["drawn"]
    return seen


@needs_a_browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_drawn_asks_nobody_and_fits(reports, tmp_path, width, scheme):
    picture = Path(os.environ.get("TIDEGATE_PICTURES", tmp_path)) / f"{scheme}-{width}.png"
    seen = looked_at(reports / "report.html", width, scheme, picture)
    own = {title for title in seen["drawn"] if not title.startswith(("vllm:", "DCGM_"))}
    assert len(own) == 8 and "vllm:num_requests_running" in seen["drawn"]
    assert seen["images"] == 0 and "m<img src=" in seen["text"], "a name is a text"


@needs_a_browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_search_has_the_curve_of_times_over_load(search, tmp_path, width, scheme):
    picture = Path(os.environ.get("TIDEGATE_PICTURES", tmp_path)) / f"search-{scheme}-{width}.png"
    seen = looked_at(search / "search.html", width, scheme, picture)
    titles = {"Time to first token", "Duration", "Answers", "Calls in flight", "Cache in use", "GPU in use"}
    titles |= {f"Calls that {what} at the other side" for what in ("wait", "run")}
    assert set(seen["drawn"]) == {f"{title}, over load" for title in titles}
    steps = json.loads((search / "search.json").read_text())["steps"]
    # A step in which this machine was too busy says nothing, and is made again.
    assert [step["load"] for step in steps if step["held"] != "invalid"] == [1, 2, 4, 8]
    assert "The capacity is more than 8 users" in seen["text"] and "knee" in seen["text"]


def test_the_examples_for_ci_are_yaml_and_use_flags_that_there_are():
    helps = ""
    for command in (["load"], ["report", "merge"]):
        helps += subprocess.run([TIDEGATE, *command, "--help"], capture_output=True, text=True).stdout
    flags = set(re.findall(r"--[a-z][a-z0-9-]+", helps))
    examples = list((Path(__file__).parents[2] / "config/examples/ci").glob("*.yaml"))
    assert len(examples) == 3
    for example in examples:
        text = example.read_text()
        assert isinstance(yaml.safe_load(text), dict), example.name
        used = set(re.findall(r"--[a-z][a-z0-9-]+", text))
        assert len(used) > 3 and used <= flags, (example.name, used - flags)
