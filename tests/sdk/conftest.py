"""A simulated model server for all tests, and for each a sidecar of its own in front of it."""

import os
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import pytest

from processes import Sidecar, running

TIDEGATE = Path(os.environ.get("TIDEGATE", "target/debug/tidegate")).absolute()


@pytest.fixture(scope="session")
def simulator():
    """The address of a simulator that answers fast."""
    command = [TIDEGATE, "sim", "--listen", "127.0.0.1:0", "--ttft", "20ms", "--tpot", "1ms"]
    with running(command + ["--output-tokens", "24"]) as process:
        yield "http://" + process.says(r"listening on (127\.0\.0\.1:\d+)")


@pytest.fixture
def sidecar_with(simulator, tmp_path):
    """Starts a sidecar with these environment variables besides the usual ones."""

    @contextmanager
    def start(**variables):
        records = tmp_path / "records.jsonl"
        command = [TIDEGATE, "proxy", "--upstream", simulator, "--records", records]
        command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1"]
        with running(command, os.environ | variables) as process:
            started = Sidecar(process, records)
            yield started
            started.ends()

    return start


@pytest.fixture
def sidecar(sidecar_with):
    with sidecar_with() as started:
        yield started


def pytest_terminal_summary(terminalreporter):
    """Sums up which SDK came by which way, here and in a file beside the program under test."""
    cells = defaultdict(dict)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, (client, way, stream) in (pair for pair in getattr(report, "user_properties", []) if pair[0] == "cell"):
                cells[client].setdefault(way, {})[stream] = outcome
    if not cells:
        return
    ways = list(dict.fromkeys(way for row in cells.values() for way in row))
    marks = {"passed": "yes", "skipped": "skipped", None: "-"}
    shown = lambda found, stream: marks.get(found.get(stream), "NO")
    lines = [f"| SDK (whole, streamed) | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
    for client, row in cells.items():
        said = [f"{shown(row[way], False)}, {shown(row[way], True)}" if way in row else "" for way in ways]
        lines.append(f"| {client} | {' | '.join(said)} |")
    found = [outcome for row in cells.values() for cell in row.values() for outcome in cell.values()]
    lines.append(f"\npassed {found.count('passed')} of {len(found)}, skipped {found.count('skipped')}")
    terminalreporter.write_line("\n".join(lines))
    (TIDEGATE.parent.parent / "ways.md").write_text("\n".join(lines) + "\n")
