"""The guides are true: what they tell to run runs, what they name is there, and references say what the code says."""

import importlib.machinery
import importlib.util
import os
import re
import shlex
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from conftest import TIDEGATE
from manifests import CHART, ROOT, documents, rendered
from processes import has_network_of_its_own
from test_rules import served

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
# Every page that a reader may come by.
ALL = sorted([*DOCS.rglob("*.md"), *(ROOT / "config").rglob("*.md"), *(ROOT / "dashboards").rglob("README.md"), ROOT / "README.md"])
PATIENCE_S = 120

BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.M | re.S)


def blocks(page, language, kind=""):
    return [text for word, more, text in BLOCK.findall(page.read_text()) if (word, more.strip()) == (language, kind)]


@pytest.mark.skipif(not has_network_of_its_own("curl"), reason="a network of its own is not to be had here (root, unshare -n, curl)")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")], ids=lambda page: page.stem)
def test_what_a_guide_tells_to_run_runs(page, tmp_path):
    script = "set -euo pipefail\nip link set lo up\n" + "".join(blocks(page, "sh"))
    env = {"PATH": f"{TIDEGATE.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    # What it starts in the background goes on; it ends with its group.
    guide = subprocess.Popen(
        ["unshare", "-n", "bash", "-c", script],
        cwd=tmp_path,
        env=env,
        stdout=(tmp_path / "told").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        code = guide.wait(PATIENCE_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(guide.pid, signal.SIGKILL)
    told = (tmp_path / "told").read_text()
    # A verdict may be any on a machine that does something else besides; a mistake in a command is none.
    assert code == 0 and "exit code 2" not in told, told


def test_there_are_guides_with_commands():
    assert sum(len(blocks(page, "sh")) for page in PAGES) >= 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_guide_tells_a_cluster_is_there(page):
    for text in blocks(page, "sh", "cluster"):
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
        for path in re.findall(r"(?<![\w/~])((?:config|dashboards|tests)/[\w./-]+)", text):
            assert (ROOT / path).exists(), path
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            if words[:2] == ["helm", "upgrade"]:
                assert len(rendered(CHART, values_of(words))) >= 2, line


def values_of(words):
    """What `--set a.b=c` sets."""
    values = {}
    for option, setting in zip(words, words[1:]):
        if option == "--set":
            path, value = setting.split("=", 1)
            *above, last = path.split(".")
            place = values
            for key in above:
                place = place.setdefault(key, {})
            place[last] = yaml.safe_load(value)
    return values


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_guide_shows_is_yaml(page):
    for text in blocks(page, "yaml"):
        assert documents(text)


@pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text())):
        path, _, heading = link.partition("#")
        if path.startswith(("http:", "https:")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if heading:
            assert heading in headings(target), link


def headings(page):
    """The anchors of a page, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-") for line in lines}


# === References ===


def test_references_say_what_the_code_says():
    path = str(DOCS / "reference" / "generate")
    loader = importlib.machinery.SourceFileLoader("generate_references", path)
    generate = importlib.util.module_from_spec(importlib.util.spec_from_loader("generate_references", loader))
    loader.exec_module(generate)
    generate.TIDEGATE = TIDEGATE
    for form, text in generate.forms().items():
        assert form.read_text() == text, f"run docs/reference/generate: {form.name} is out of date"


def test_references_leave_nothing_out():
    metrics = (DOCS / "reference" / "metrics.md").read_text()
    known = set(re.findall(r"^\| `(\w+)` \|", metrics, re.M))
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in served()} <= known, "a metric is missing"
    records = (DOCS / "reference" / "records.md").read_text()
    source = ROOT / "wire" / "src"
    fields = "".join(path.read_text() for path in [source / "record.rs", *(source / "record").glob("*.rs")])
    keys = set(re.findall(r'rename = "([a-z_]+\.[a-z0-9_.]+)"', fields))
    assert len(keys) > 80
    assert [key for key in sorted(keys) if f"`{key}`" not in records] == []
    commands = (DOCS / "reference" / "commands.md").read_text()
    listed = subprocess.run([TIDEGATE, "help"], capture_output=True, text=True).stdout.split("Commands:\n")[1].split("\n\n")[0]
    for name in re.findall(r"^  (\w+)", listed, re.M):
        assert name == "help" or f"\n## tidegate {name}\n" in commands
