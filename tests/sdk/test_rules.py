"""Prometheus' rules hold what they promise: tested to fire and to be silent, explained, and about metrics that exist."""

import importlib.machinery
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "dashboards"
RULE_FILES = sorted((DASHBOARDS / "prometheus").glob("*.rules.yaml"))
# What `tidegate rules` puts behind rules of its own, which record what these are about.
SLO_FILE = DASHBOARDS / "prometheus" / "slo.alerts.yaml"
SLO_SERIES = {"slo:tidegate_calls:rate5m", "slo:tidegate_calls_bad:rate5m", "slo:tidegate_calls_allowed:ratio"}
TEST_FILES = sorted((DASHBOARDS / "prometheus" / "tests").glob("*.test.yaml"))
RUNBOOKS = sorted((DASHBOARDS / "runbooks").glob("*.md"))

# Metrics of others: Prometheus itself, vLLM and the DCGM exporter. The latter two are served by the simulator too.
FOREIGN = re.compile(r"(up|ALERTS|vllm:\w+|DCGM_FI_DEV_\w+)$")


def rules(kind):
    groups = (group for path in [*RULE_FILES, SLO_FILE] for group in yaml.safe_load(path.read_text())["groups"])
    return [rule for group in groups for rule in group["rules"] if kind in rule]


ALERTS = {rule["alert"]: rule for rule in rules("alert")}
RECORDED = {rule["record"] for rule in rules("record")} | SLO_SERIES


def served():
    """The names of all samples that a sidecar serves, by its catalog."""
    catalog = ROOT / "proxy" / "src" / "export" / "catalog"
    text = "".join(path.read_text() for path in sorted(catalog.rglob("*.rs")))
    families = re.findall(r'prometheus: "(\w+)",\s+unit: "[^"]*",\s+help: "[^"]*",\s+kind: Kind::(\w+)', text)
    assert len(families) > 40
    for name, kind in families:
        yield from ([f"{name}_{part}" for part in ("bucket", "count", "sum")] if kind == "Histogram" else [name])


def metrics_in(expression):
    """The names in an expression that can only be metrics."""
    bare = re.sub(r'"(\\.|[^"])*"', '""', re.sub(r"#.*", "", expression))
    bare = re.sub(r"\{[^}]*\}", "{}", bare)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    words = re.findall(r"(?<![\w:$])[a-zA-Z_][\w:]*(?![\w:]*\s*\()", bare)
    return {word for word in words if re.match(r"tidegate_|gen_ai_|DCGM|up$|ALERTS$|[a-z_]+:[a-z]", word)}


def known(expression, recorded=RECORDED):
    """Fails where an expression names a metric that nobody serves or records."""
    for name in metrics_in(expression):
        assert name in set(served()) | recorded or FOREIGN.match(name), f"nobody serves {name}"


def test_every_metric_in_a_rule_is_served_or_recorded():
    for rule in rules("expr"):
        known(rule["expr"])


def test_recorded_series_are_named_by_level_metric_and_operation():
    for name in RECORDED:
        assert re.fullmatch(r"[a-z_]+:[a-z0-9_]+:[a-z0-9_]+", name), name


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_it_is_explained(name):
    labels, annotations = ALERTS[name]["labels"], ALERTS[name]["annotations"]
    assert labels["severity"] in ("critical", "warning", "info")
    assert annotations["runbook_url"].endswith(f"/runbooks/{name}.md")
    assert annotations["summary"] and annotations["description"]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_to_fire_and_to_be_silent(name):
    tests = [test for path in TEST_FILES for test in yaml.safe_load(path.read_text())["tests"]]
    cases = [case for test in tests for case in test.get("alert_rule_test", []) if case["alertname"] == name]
    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}


def test_each_alert_has_its_page_and_each_page_its_alert():
    assert {path.stem for path in RUNBOOKS} == set(ALERTS)


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_page_is_short_and_asks_for_what_exists(page):
    text = page.read_text()
    assert text.startswith(f"# {page.stem}\n")
    assert re.findall(r"^## (.*)$", text, re.M) == ["Look at", "Do"]
    assert len(text.splitlines()) < 40
    for code in re.findall(r"`([^`]*)`", text):
        known(code)
    for other in re.findall(r"\]\(([^)]*)\)", text):
        assert (page.parent / other).exists(), other
    source = ROOT / "wire" / "src"
    fields = "".join(path.read_text() for path in [source / "record.rs", *source.glob("record/*.rs")])
    for field in re.findall(r'(?<!["\w])"?(tidegate\.[a-z_]+(?:\.[a-z_]+)?)\b', text):
        assert f'"{field}' in fields, f"no record has {field}"


def test_the_forms_for_a_cluster_are_up_to_date():
    path = str(DASHBOARDS / "kubernetes" / "generate")
    loader = importlib.machinery.SourceFileLoader("generate", path)
    generate = importlib.util.module_from_spec(importlib.util.spec_from_loader("generate", loader))
    loader.exec_module(generate)
    for form, text in generate.forms().items():
        assert form.read_text() == text, f"run dashboards/kubernetes/generate: {form.name} is out of date"

    rule = yaml.safe_load((DASHBOARDS / "kubernetes" / "prometheusrule.yaml").read_text())
    groups = [group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"]]
    assert rule["spec"]["groups"] == groups


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.name)
def test_promtool_finds_the_rules_to_do_what_they_are_meant_to(path):
    promtool("test", "rules", path)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_finds_no_fault_in_the_rules_and_the_configuration(tmp_path):
    promtool("check", "rules", *RULE_FILES, SLO_FILE)
    text = (DASHBOARDS / "prometheus" / "prometheus.yaml").read_text()
    # Debian builds its Prometheus without Kubernetes.
    text, replaced = re.subn(r"kubernetes_sd_configs: .*", "static_configs: []", text)
    assert replaced == 1
    (tmp_path / "prometheus.yaml").write_text(text)
    promtool("check", "config", tmp_path / "prometheus.yaml")


def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
