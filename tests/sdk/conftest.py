"""A simulated model server for all tests, and for each a sidecar of its own in front of it."""

import os
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
