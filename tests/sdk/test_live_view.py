"""The view of a load test on a terminal: a terminal that is none but the mind of one (pyte) says what a user would see."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import pyte
import pytest

from conftest import TIDEGATE

PATIENCE_S = 60
MIX = """
- { call: openai/chat, model: gpt-4o, stream: true, output_tokens: 8, weight: 3 }
- { call: bedrock/converse, model: nova, output_tokens: 8 }
"""
SLO = "objectives: [{ metric: error_ratio, below: 50% }]\n"


class Terminal:
    """A program on a terminal of so many columns and rows, as it looks after each thing that it wrote."""

    def __init__(self, command, columns=100, rows=40, **variables):
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._stream = pyte.ByteStream(self.screen)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        env = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
        env |= {"TERM": "xterm-256color"} | variables
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=theirs, stdin=theirs)
        os.close(theirs)
        self.written = b""

    def looks(self):
        """Each state of the terminal, to the end of the program."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if not select.select([self._ours], [], [], 1)[0]:
                continue
            try:
                piece = os.read(self._ours, 1 << 16)
            except OSError:
                piece = b""
            if not piece:
                break
            self.written += piece
            self._stream.feed(piece)
            yield self.shown()
        self.process.wait(PATIENCE_S)
        os.close(self._ours)

    def shown(self):
        """What stands there, what has scrolled out of sight included."""
        above = ["".join(line[x].data for x in range(self.screen.columns)) for line in self.screen.history.top]
        return [line.rstrip() for line in above + list(self.screen.display) if line.strip()]


@pytest.fixture
def load(simulator, tmp_path):
    """The command of a load test of a second or so."""

    def command(*more, duration="2s", users=("--users", "4")):
        (tmp_path / "mix.yaml").write_text(MIX)
        (tmp_path / "slo.yaml").write_text(SLO)
        own = ["--target", simulator, "--mix", tmp_path / "mix.yaml", "--slo", tmp_path / "slo.yaml"]
        return [TIDEGATE, "load", *own, *users, "--duration", duration, *more]

    return command


def begun(view):
    """The lines of the last view in what a terminal shows; none where there is none."""
    starts = [place for place, line in enumerate(view) if line.startswith("load on ")]
    assert len(starts) <= 1, ("one view at a time", view)
    return view[starts[0] :] if starts else []


def test_a_view_is_drawn_and_gone_at_the_end(load, simulator):
    terminal = Terminal(load("--scrape", f"{simulator}/metrics", duration="3s"))
    views = [begun(look) for look in terminal.looks()]
    assert terminal.process.returncode in (0, 3), terminal.shown()
    assert terminal.shown() == [], "nothing is left of it"
    whole = max(views, key=len)
    text = "\n".join(whole)
    assert whole[0] == f"load on {simulator}  running"
    for words in ("of 0:03", "4 users", "calls/s", "first token", "TTFT", "gpt-4o", "nova", "all ", "error_ratio below 50%"):
        assert words in text, (words, whole)
    assert re.search(r"the other side: .*running, cache .*GPU", text), whole
    assert len(views) >= 4, "it is drawn again and again"
    assert b"\x1b[32m" in terminal.written


def test_what_is_said_meanwhile_stands_above_the_view(load, simulator, tmp_path):
    # Metrics that are no longer there once they were read for the first time.
    script = tmp_path / "metrics.py"
    script.write_text(
        "import http.server\n"
        "class Once(http.server.BaseHTTPRequestHandler):\n"
        "    times = 0\n"
        "    def do_GET(self):\n"
        "        Once.times += 1\n"
        "        self.send_response(200 if Once.times == 1 else 500)\n"
        "        self.end_headers()\n"
        "        self.wfile.write(b'vllm:num_requests_waiting 1\\n')\n"
        "    def log_message(self, *_): pass\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), Once)\n"
        "print(server.server_port, flush=True)\n"
        "server.serve_forever()\n"
    )
    server = subprocess.Popen(["python3", script], stdout=subprocess.PIPE, text=True)
    try:
        port = server.stdout.readline().strip()
        terminal = Terminal(load("--scrape", f"http://127.0.0.1:{port}/metrics", duration="4s"), columns=220)
        warned = [look for look in terminal.looks() if any("are missing" in line for line in look)]
    finally:
        server.kill()
        server.wait()
    drawn = [look for look in warned if begun(look)]
    assert drawn, terminal.shown()
    for look in drawn:
        view = begun(look)
        assert sum("are missing" in line for line in look) == 1, look
        assert "are missing" in look[0] and "in flight" in "\n".join(view), look
    left = terminal.shown()
    assert len(left) == 1 and "are missing" in left[0], left


@pytest.mark.parametrize("columns, rows", [(40, 40), (100, 6), (20, 4)])
def test_a_small_terminal_is_not_overflowed(load, columns, rows):
    terminal = Terminal(load(), columns=columns, rows=rows)
    views = [begun(look) for look in terminal.looks()]
    assert max(map(len, views)) in range(3, rows), views
    assert not terminal.screen.history.top, "nothing scrolled"
    assert terminal.shown() == []


def test_ctrl_c_leaves_a_clean_screen(load):
    terminal = Terminal(load(duration="60s"))
    for look in terminal.looks():
        if any("TTFT" in line for line in begun(look)):
            terminal.process.send_signal(2)
            break
    for _ in terminal.looks():
        pass
    assert terminal.shown() == []


def test_a_search_says_which_step_it_is_in_and_what_is_known(load):
    more = ["--search", "users", "--search-to", "4", "--search-pause", "0s", "--warm-up", "100ms"]
    terminal = Terminal(load(*more, users=()))
    steps = {line for look in terminal.looks() for line in begun(look) if line.startswith("step ")}
    assert "step 1 of 60 at most, 1 user: nothing is known yet" in steps, terminal.shown()
    assert "step 2 of 60 at most, 2 users: 1 user held" in steps, steps
    said = [line.split(",")[0] for line in terminal.shown()]
    assert said == ["1 user held", "2 users held", "4 users held"]


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"CI": "true"}])
def test_where_nobody_could_see_it_there_are_lines(load, variables):
    terminal = Terminal(load(duration="7s"), columns=200, **variables)
    for _ in terminal.looks():
        pass
    assert b"\x1b" not in terminal.written
    assert terminal.written.count(b"in flight") == 1 and b"[####" in terminal.written


def test_no_colours_where_none_are_wanted(load):
    terminal = Terminal(load(), NO_COLOR="1")
    views = [begun(look) for look in terminal.looks()]
    assert max(map(len, views)) > 5
    assert not re.search(rb"\x1b\[[0-9;]*m", terminal.written)
