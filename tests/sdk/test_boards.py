"""Grafana's boards hold what they promise: every expression has an answer from a real Prometheus, and all is explained."""

import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import canary
from clouds import Aws, Google, reply, serving
from conftest import TIDEGATE
from processes import Sidecar, eventually, free_port, get, running
from test_rules import ALERTS, known
from traffic import CONFIGURATION, Caller, Odd, TRAFFIC, bypasses, going_on, reloads, tunnels

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "dashboards"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((DASHBOARDS / "grafana").glob("*.json"))}

POD = {"cluster": "main", "namespace": "prod", "pod": "app-1"}
# What Grafana puts in, here for a scrape each second; variables stand for all, as on a board that was just opened.
MACROS = {"$__rate_interval": "30s", "$__range": "1m", "$__interval": "1s"}


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def variables(board, kind):
    return [variable for variable in board["templating"]["list"] if variable["type"] == kind]


def expressions(board):
    """Each expression of a board, by where it stands."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in board["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"]


ALL = [(name, where, text) for name, board in BOARDS.items() for where, text in expressions(board)]


def as_asked(text):
    for name, value in MACROS.items():
        text = text.replace(name, value)
    return re.sub(r"\$\w+", ".*", text)


# === What stands in the files ===


def test_the_boards_are_as_they_are_generated(monkeypatch):
    path = DASHBOARDS / "grafana" / "generate"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(path.parent)
    loader = importlib.machinery.SourceFileLoader("generate_boards", str(path))
    generate = importlib.util.module_from_spec(importlib.util.spec_from_loader("generate_boards", loader))
    loader.exec_module(generate)
    for form, text in generate.forms().items():
        assert form.read_text() == text, f"run dashboards/grafana/generate: {form.name} is out of date"
    maps = list(yaml.safe_load_all((DASHBOARDS / "kubernetes" / "grafana-boards.yaml").read_text()))
    boards = [json.loads(text) for form in maps for text in form["data"].values()]
    assert sorted(board["uid"] for board in boards) == sorted(board["uid"] for board in BOARDS.values())
    # What `kubectl apply` can keep beside an object.
    assert all(len(json.dumps(form)) < 262_144 for form in maps)


@pytest.mark.parametrize("name", BOARDS)
def test_grafana_takes_a_board_for_what_it_is(name):
    board = BOARDS[name]
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(board)))
    assert [panel["title"] for panel in read["panels"]] == [panel["title"] for panel in board["panels"]]
    for mine, theirs in zip(board["panels"], read["panels"], strict=True):
        assert set(mine) - set(theirs) == set(), mine["title"]
        assert len(mine.get("targets", [])) == len(theirs.get("targets", []))


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_asks_one_source_by_variables_that_it_uses(name):
    board = BOARDS[name]
    assert board["uid"] == f"tidegate-{name}"
    text = json.dumps([board["panels"], board["annotations"]])
    for variable in board["templating"]["list"]:
        assert f"${variable['name']}" in text or f"${{{variable['name']}}}" in text, variable["name"]
    used = set(re.findall(r"\$\{?([a-z]\w+)", text)) - {variable["name"] for variable in board["templating"]["list"]}
    assert used == set(), "variables that the board does not have"
    for panel in panels(board):
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


@pytest.mark.parametrize("name", BOARDS)
def test_a_panel_is_explained_has_a_unit_and_lies_beside_the_others(name):
    board, taken = BOARDS[name], set()
    for panel in panels(board):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        x, y, w, h = (panel["gridPos"][key] for key in "xywh")
        assert x + w <= 24
        cells = {(x + dx, y + dy) for dx in range(w) for dy in range(h)}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_every_metric_on_a_board_is_served_or_recorded():
    for _, _, text in ALL:
        known(text)


def test_links_lead_to_boards_and_runbooks_that_exist():
    text = json.dumps(list(BOARDS.values()))
    pages = set(re.findall(r"/runbooks/(\w+)\.md", text))
    assert pages <= set(ALERTS) and len(pages) > 15
    assert set(re.findall(r"/d/([\w-]+)", text)) <= {board["uid"] for board in BOARDS.values()}


# === What Prometheus says ===


def history(path, seconds=1_000_000):
    """The recorded series by which the rules tell what is ordinary: ten days, a little slower each day."""
    latency, cost = [], []
    now = int(time.time()) // 60 * 60
    for at in range(now - seconds, now - 600, 240):
        labels = f'cluster="main",namespace="prod",job="tidegate"'
        latency.append(f'model:tidegate_latency_seconds:quantile_rate5m{{{labels},model="gpt-4o-mini",quantile="0.9"}} 0.{at % 7 + 1} {at}')
        cost.append(f"job:tidegate_cost_usd:increase1h{{{labels}}} 1.{at % 5} {at}")
    path.write_text("\n".join([*latency, *cost, "# EOF", ""]))


def rules_at_once(folder):
    """The rules, evaluated every second and alarmed at once."""
    for path in (DASHBOARDS / "prometheus").glob("*.rules.yaml"):
        text = re.sub(r"^( +)for: .*", r"\1for: 0s", path.read_text(), flags=re.M)
        (folder / path.name).write_text(re.sub(r"^ +interval: .*\n", "", text, flags=re.M))


@contextmanager
def sidecar_with_everything(folder):
    """A sidecar with every policy, and its configuration as a template."""
    with ExitStack() as stack:
        sims = []
        for _ in range(2):
            command = [TIDEGATE, "sim", "--listen", "127.0.0.1:0", "--ttft", "20ms", "--tpot", "5ms", "--output-tokens", "24"]
            sims.append("http://" + stack.enter_context(running(command)).says(r"listening on (127\.0\.0\.1:\d+)"))
        text = CONFIGURATION.replace("SIMULATOR", sims[0]).replace("SPARE", sims[1])
        text = text.replace("ODD", stack.enter_context(serving(Odd().answer)))
        for word, google in (("GOOD", Google(life_s=200)), ("BAD", Google())):
            google.is_down = word == "BAD"
            url = stack.enter_context(serving(google.answer))
            user = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "refresh-me", "token_uri": f"{url}/token"}
            (folder / f"{word}.json").write_text(json.dumps(user))
            text = text.replace(word, f"{word}.json")
        configuration = folder / "tidegate.yaml"
        configuration.write_text(text.replace("NUMBER", ""))
        command = [TIDEGATE, "proxy", "--config", configuration, "--records", folder / "records.jsonl"]
        command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1", "--history", folder / "history.db"]
        aws = stack.enter_context(serving(Aws(life_s=200).answer))
        variables = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{aws}/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "pod-token"}
        process = stack.enter_context(running(command, os.environ | variables | {"TIDEGATE_ADMIN_TOKEN": canary.KEY}))
        yield Sidecar(process, folder / "records.jsonl"), sims, partial(reloads, process, configuration, text)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Prometheus with the rules and a history, which watches a sidecar and its model servers; and how to ask it."""
    folder = tmp_path_factory.mktemp("boards")
    rules_at_once(folder)
    history(folder / "history.om")
    subprocess.run(["promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "history.om", folder / "data"], check=True, capture_output=True)
    heard = []

    def hear(handler, body):
        heard.extend(json.loads(body)["alerts"])
        reply(handler, {})

    with ExitStack() as stack:
        sidecar, sims, reloading = stack.enter_context(sidecar_with_everything(folder))
        hook = stack.enter_context(serving(hear))
        manager = stack.enter_context(alertmanager(folder, hook))
        targets = [(sidecar.admin, POD | {"job": "tidegate"}), *((sim, POD | {"job": "vllm", "pod": f"gpu-{at}"}) for at, sim in enumerate(sims))]
        scrapes = [
            {"job_name": labels["job"] + labels["pod"], "static_configs": [{"targets": [url.removeprefix("http://")], "labels": labels}]}
            for url, labels in targets
        ]
        (folder / "prometheus.yaml").write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["*.rules.yaml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [manager]}]}]},
            "scrape_configs": scrapes,
        }))
        port = free_port()
        command = ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
        prometheus = stack.enter_context(running([*command, f"--web.listen-address=127.0.0.1:{port}"]))
        prometheus.says(r"(Server is ready to receive web requests)")
        caller = Caller(sidecar.url)
        proxy = sidecar.process.says(r"HTTP_PROXY\) on (127\.0\.0\.1:\d+)")
        works = [partial(work, caller) for work in TRAFFIC]
        stack.enter_context(going_on(*works, reloading(), bypasses(Caller(sidecar.admin), canary.KEY), tunnels(proxy, sims[1].removeprefix("http://"))))

        def ask(path, **parameters):
            try:
                return json.loads(get(f"http://127.0.0.1:{port}/api/v1/{path}?{urlencode(parameters)}"))["data"]
            except HTTPError as error:
                raise AssertionError(f"{parameters}: {error.read().decode()}") from error

        yield ask, heard


@contextmanager
def alertmanager(folder, hook):
    """Alertmanager, which tells this address of alerts; gives its own."""
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump({
        "route": {"receiver": "hook", "group_wait": "1s", "group_interval": "1s", "group_by": ["alertname"]},
        "receivers": [{"name": "hook", "webhook_configs": [{"url": hook}]}],
    }))
    port = free_port()
    command = ["prometheus-alertmanager", f"--config.file={folder}/alertmanager.yaml", f"--storage.path={folder}/alertmanager"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    with running(command) as process:
        process.says(r"(Listening on|msg=Listening)")
        yield f"127.0.0.1:{port}"


installed = all(map(shutil.which, ("prometheus", "promtool", "prometheus-alertmanager")))
needs_prometheus = pytest.mark.skipif(not installed, reason="prometheus or its alertmanager is not installed")


@needs_prometheus
@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_of_a_board_has_data(watched, name):
    ask, _ = watched
    missing = [(where, as_asked(text)) for where, text in expressions(BOARDS[name])]

    def have_all():
        missing[:] = [(where, text) for where, text in missing if not ask("query", query=text)["result"]]
        return not missing

    eventually(have_all, missing)


@needs_prometheus
@pytest.mark.parametrize("name", BOARDS)
def test_every_variable_of_a_board_has_values(watched, name):
    ask, _ = watched
    for variable in variables(BOARDS[name], "query"):
        series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()
        assert ask(f"label/{label}/values", **{"match[]": as_asked(series)}), variable["name"]


@needs_prometheus
def test_an_alert_that_fires_reaches_whoever_is_to_know(watched):
    _, heard = watched
    alert = eventually(lambda: next((alert for alert in heard if alert["labels"]["alertname"] == "TidegateErrorRatioHigh"), None), "an alert")
    assert alert["status"] == "firing"
    assert alert["labels"]["namespace"] == "prod"
    assert alert["annotations"]["runbook_url"].endswith("/TidegateErrorRatioHigh.md")
    assert "calls of" in alert["annotations"]["summary"]
