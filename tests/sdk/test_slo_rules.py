"""`tidegate rules` makes of objectives what Prometheus takes, and what fires when they are missed."""

import json
import shutil
import subprocess

import pytest
import yaml

from conftest import TIDEGATE
from test_rules import ROOT, known, promtool

EXAMPLE = ROOT / "config" / "examples" / "slo.yaml"
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def rules(*arguments):
    return subprocess.run([TIDEGATE, "rules", *map(str, arguments)], capture_output=True, text=True)


def test_the_operator_gets_the_same_groups_as_prometheus():
    plain, resource = (yaml.safe_load(rules("--slo", EXAMPLE, "--form", form).stdout) for form in ("prometheus", "operator"))
    assert resource["kind"] == "PrometheusRule"
    assert resource["spec"]["groups"] == plain["groups"]


def test_every_metric_in_them_is_served_or_recorded():
    groups = yaml.safe_load(rules("--slo", EXAMPLE).stdout)["groups"]
    every = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in every if "record" in rule}
    for rule in every:
        known(rule["expr"], recorded)


def test_what_is_left_out_is_said_and_what_is_wrong_is_named(tmp_path):
    told = rules("--slo", EXAMPLE)
    assert (told.returncode, "left out: `users are well served`" in told.stderr) == (0, True)
    (tmp_path / "slo.yaml").write_text("objectives: [{ metric: goodput, above: 95% }]\n")
    nothing = rules("--slo", tmp_path / "slo.yaml")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    (tmp_path / "slo.yaml").write_text("objectives:\n  - { metric: durations, below: 1s }\n")
    wrong = rules("--slo", tmp_path / "slo.yaml")
    assert wrong.returncode == 2
    assert "slo.yaml" in wrong.stderr and "line 2" in wrong.stderr and "did you mean `duration`?" in wrong.stderr


# 10 calls a second for 20 minutes; so many of a hundred within each bound that is looked at.
def series(name, within, **labels):
    text = ", ".join(f'{label}="{value}"' for label, value in labels.items())
    yield {"series": f"{name}_count{{{text}}}", "values": "0+600x20"}
    for bound, percent in within.items():
        yield {"series": f'{name}_bucket{{{text}, le="{bound}"}}', "values": f"0+{6 * percent}x20"}


@needs_promtool
def test_they_fire_where_an_objective_is_missed_and_nowhere_else(tmp_path):
    (tmp_path / "slo.yaml").write_text(
        """
        objectives:
          - { name: first word, metric: time_to_first_token, quantile: 0.99, below: 3s, model: "gemini-*", stream: true }
          - { name: drawn, metric: duration, quantile: 0.9, below: 1.1s }
          - { metric: error_ratio, below: 1%, route: main }
        """
    )
    (tmp_path / "slo.rules.yaml").write_text(rules("--slo", tmp_path / "slo.yaml").stdout)
    stream = {"job": "a", "outcome": "completed", "stream": "true"}
    whole = {"job": "a", "outcome": "completed", "stream": "false"}
    inputs = [
        *series("tidegate_time_to_first_token_seconds", {"3": 98}, model="gemini-a", **stream),
        *series("tidegate_time_to_first_token_seconds", {"3": 99.5}, model="gemini-b", **stream),
        *series("tidegate_time_to_first_token_seconds", {"3": 0}, model="another", **stream),
        # 80 within 1 s and 100 within 1.5 s: about 84 within 1.1 s. Of the other, 96.
        *series("tidegate_call_duration_seconds", {"1": 80, "1.5": 100}, model="c", **whole),
        *series("tidegate_call_duration_seconds", {"1": 95, "1.5": 100}, model="d", **whole),
        {"series": 'tidegate_calls_total{job="a", route="main", model="e", outcome="completed"}', "values": "0+98x20"},
        {"series": 'tidegate_calls_total{job="a", route="main", model="e", outcome="failed", error_origin="quota"}', "values": "0+2x20"},
        {"series": 'tidegate_calls_total{job="a", route="main", model="f", outcome="completed"}', "values": "0+100x20"},
        {"series": 'tidegate_calls_total{job="a", route="main", model="f", outcome="failed", error_origin="client"}', "values": "0+9x20"},
        {"series": 'tidegate_calls_total{job="a", route="other", model="g", outcome="truncated"}', "values": "0+100x20"},
    ]
    groups = yaml.safe_load((tmp_path / "slo.rules.yaml").read_text())["groups"]
    errors = next(title for rule in groups[0]["rules"] if "error_ratio" in (title := rule["labels"]["objective"]))
    missed = [("first word", "gemini-a", 0.02), ("drawn", "c", 0.16), (errors, "e", 0.02)]
    samples = [
        {"labels": f'{{job="a", model="{model}", objective={json.dumps(title)}}}', "value": share} for title, model, share in missed
    ]
    test = {
        "rule_files": ["slo.rules.yaml"],
        "evaluation_interval": "1m",
        "group_eval_order": ["tidegate-slo", "tidegate-slo-burn", "tidegate-slo-alerts"],
        "tests": [{
            "interval": "1m",
            "input_series": inputs,
            "promql_expr_test": [
                {"expr": 'round(slo:tidegate_calls_bad:ratio_rate5m{model=~"c|e|gemini-a"}, 0.0001)', "eval_time": "15m", "exp_samples": samples},
                {
                    "expr": 'count by (model) (ALERTS{alertname="TidegateSloMissed", alertstate="firing"})',
                    "eval_time": "15m",
                    "exp_samples": [{"labels": f'{{model="{model}"}}', "value": 1} for _, model, _ in missed],
                },
            ],
        }],
    }
    (tmp_path / "slo.test.yaml").write_text(yaml.safe_dump(test))
    promtool("check", "rules", tmp_path / "slo.rules.yaml")
    promtool("test", "rules", tmp_path / "slo.test.yaml")
