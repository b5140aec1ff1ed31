"""The programs under test and beside it, each a process that is gone with its `with`."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import canary

# Longer than anything here takes, on a machine that does something else besides.
PATIENCE_S = 20


def eventually(ask, what):
    """What `ask` gives, once it gives something."""
    end = time.monotonic() + PATIENCE_S
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.05)


def get(url):
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        return answer.read().decode()


def free_port():
    """A port that was free a moment ago, for programs that cannot choose one themselves."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def has_network_of_its_own(*tools):
    """Whether a test may run in a network of its own, with ports that nobody else has, and these tools besides."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip", *tools))):
        return False
    return subprocess.run(["unshare", "-nm", "true"], capture_output=True).returncode == 0


class Process:
    """A running program and what it has said so far."""

    def __init__(self, command, env):
        self._process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines = []
        # What its `Sidecar` is, where it is one.
        self.sidecar = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self._lines.append(re.sub(r"\x1b\[[0-9;]*m", "", line))

    @property
    def said(self):
        return "".join(self._lines)

    def says(self, pattern):
        """The first group of `pattern`, once the program has said it."""

        def look():
            found = re.search(pattern, self.said)
            if not found and self._process.poll() is not None:
                raise AssertionError(f"ended with {self._process.returncode}:\n{self.said}")
            return found

        return eventually(look, f"{pattern!r} in:\n{self.said}").group(1)

    def signal(self, number):
        self._process.send_signal(number)

    def wait(self):
        """Waits until the program has ended by itself, and well."""
        assert self._process.wait(PATIENCE_S) == 0, self.said
        self._reader.join()

    def stop(self, kill=False):
        """Ends the program and waits until everything it said is here."""
        if self._process.poll() is None:
            self._process.kill() if kill else self._process.send_signal(2)
        try:
            self._process.wait(PATIENCE_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()


@contextmanager
def running(command, env=None):
    """A program until the end of the `with`; then all that it has said and written is searched for secrets."""
    command = [str(part) for part in command]
    name = Path(command[0]).name
    if name == "tidegate":
        env = canary.ENVIRONMENT | dict(os.environ if env is None else env)
    process = Process(command, env)
    try:
        yield process
        if process.sidecar:
            canary.search("the admin address of a sidecar", process.sidecar.told())
    finally:
        process.stop(kill=True)
    canary.search(f"what {name} said", process.said)
    if name == "tidegate":
        canary.search("the command line of tidegate", " ".join(command))
    if process.sidecar:
        canary.search("the records of a sidecar", process.sidecar.written())


class Sidecar:
    """`tidegate proxy`, and the records that it has written."""

    def __init__(self, process, records):
        self.process = process
        self.url = "http://" + process.says(r"(?<!admin )listening on (127\.0\.0\.1:\d+)")
        self.admin = "http://" + process.says(r"admin on (127\.0\.0\.1:\d+)")
        self._records = records
        self._expected = 0
        process.sidecar = self

    def told(self):
        """All that its admin address says, if it still runs."""
        said = []
        for path in ("/metrics", "/", "/readyz", "/config"):
            try:
                said.append(get(self.admin + path))
            except OSError as error:
                said.append(str(error))
        return "".join(said)

    def written(self):
        """The records as they stand in their file."""
        return self._records.read_text() if self._records.exists() else ""

    def records(self, count):
        """The records, once there are so many; more are an error."""
        self._expected = count

        def written():
            lines = self._records.read_text().splitlines() if self._records.exists() else []
            return lines if len(lines) >= count else None

        lines = eventually(written, f"{count} records")
        assert len(lines) == count, lines
        return [json.loads(line) for line in lines]

    def record(self):
        """The one record that there is."""
        return self.records(1)[0]

    def completed(self, operation, model, *, provider, finish=(), streamed=False, tokens=(None, None)):
        """Checks that the one record is of a call that went well, and gives it.

        `finish` are the provider's words for why it ended, `tokens` are those in and out.
        """
        record = self.record()
        assert record["tidegate.outcome"] == "completed", record
        assert record["http.response.status_code"] == 200
        assert record["gen_ai.operation.name"] == operation
        assert record["gen_ai.provider.name"] == provider
        assert record["gen_ai.request.model"] == model
        assert record.get("gen_ai.request.stream", False) == streamed
        assert record.get("gen_ai.response.finish_reasons", []) == list(finish)
        recorded = tuple(record.get(f"gen_ai.usage.{way}_tokens") for way in ("input", "output"))
        assert recorded == tokens
        assert ("tidegate.time_to_first_token_s" in record) == streamed
        return record

    def expects(self, count):
        """So many records there are by now, and no more when it ends."""
        self._expected = count

    def ends(self):
        """Ends the sidecar, which writes what it still holds: no call may be recorded twice."""
        self.process.stop()
        lines = self._records.read_text().splitlines() if self._records.exists() else []
        assert len(lines) == self._expected, lines
