"""The static program in a root with nothing else in it, as in its image: `unshare -nm empty_root.py PROGRAM FOLDER`.

A network of its own, with a name server that knows one service by the name that clusters give it. The program runs as nobody's user,
may write to one folder, and has names, roots of public authorities and its configuration, all where an image has them.
"""

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

USER = 65532
ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")
SERVICE = b"\x0dgemma-service\x07default\x03svc\x07cluster\x05local\x00"
CONFIG = """
upstreams: { gemma: { url: "http://gemma-service:8000", model: gemma-3-12b, provider: vllm } }
routes: [{ match: { path: "/generate" }, upstream: gemma }]
intercept: {}
"""


def names(server):
    """Answers with this machine for the service's whole name, and that there is none for all others."""
    while True:
        question, peer = server.recvfrom(512)
        end = question.index(b"\0", 12) + 1
        asks_for, kind = question[12:end], question[end : end + 2]
        found = asks_for.lower() == SERVICE
        is_address = found and kind == b"\0\1"
        flags = b"\x81\x80" if found else b"\x81\x83"
        head = question[:2] + flags + b"\0\1" + (b"\0\1" if is_address else b"\0\0") + b"\0\0\0\0"
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4" + socket.inet_aton("127.0.0.1") if is_address else b""
        server.sendto(head + question[12 : end + 4] + answer, peer)


class Model(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        text = b'{"text": ["So."]}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def empty(folder, program):
    """A root as the image's, with what a pod mounts into it."""
    for below in ("etc/ssl/certs", "etc/tidegate", "var/lib/tidegate"):
        (folder / below).mkdir(parents=True)
    shutil.copy(program, folder / "tidegate")
    shutil.copy(ROOTS, folder / "etc/ssl/certs")
    (folder / "etc/resolv.conf").write_text("nameserver 127.0.0.1\nsearch default.svc.cluster.local svc.cluster.local\noptions ndots:5\n")
    (folder / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (folder / "etc/tidegate/tidegate.yaml").write_text(CONFIG)
    # As an emptyDir is: root's, and everybody may write to it.
    (folder / "var/lib/tidegate").chmod(0o777)
    # What every runtime of containers brings.
    for name in ("proc", "dev"):
        (folder / name).mkdir()
    subprocess.run(["mount", "-t", "proc", "proc", folder / "proc"], check=True)
    for name in ("null", "random", "urandom"):
        (folder / "dev" / name).touch()
        subprocess.run(["mount", "--bind", Path("/dev") / name, folder / "dev" / name], check=True)


def inside(folder, *command, **more):
    env = {"TIDEGATE_CONFIG": "/etc/tidegate/tidegate.yaml", "TIDEGATE_CA": "/var/lib/tidegate", "TIDEGATE_WORKERS": "1"}
    whole = ["chroot", f"--userspec={USER}:{USER}", folder, "/tidegate", *command]
    return subprocess.Popen(whole, env=env | {"PATH": os.environ["PATH"]}, **more)


def ask(path, body=None):
    with urllib.request.urlopen(f"http://127.0.0.1:{path}", body, timeout=5) as answer:
        return answer.read().decode()


def is_ready():
    try:
        return ask("4101/readyz").startswith("ok")
    except OSError:
        return False


def main(program, folder):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    threading.Thread(target=names, args=(server,), daemon=True).start()
    model = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Model)
    threading.Thread(target=model.serve_forever, daemon=True).start()
    empty(folder, program)

    began = time.monotonic()
    sidecar = inside(folder, "proxy")
    try:
        while not is_ready():
            assert sidecar.poll() is None and time.monotonic() < began + 20, "it does not become ready"
            time.sleep(0.001)
        ready_ms = (time.monotonic() - began) * 1000

        assert json.loads(ask("4100/generate", b'{"prompt": "So?"}')) == {"text": ["So."]}
        assert 'tidegate_calls_total{model="gemma-3-12b"' in ask("4101/metrics")
        assert inside(folder, "health").wait(5) == 0, "what a probe would run"
        kib = next(line.split()[1] for line in Path(f"/proc/{sidecar.pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
        # The roots of the image are in what applications are given to trust.
        bundle = (folder / "var/lib/tidegate/bundle.pem").read_text()
        assert bundle.count("BEGIN CERTIFICATE") > 50
        assert (folder / "var/lib/tidegate/ca-key.pem").stat().st_mode & 0o777 == 0o600

        sidecar.send_signal(signal.SIGTERM)
        assert sidecar.wait(20) == 0
    finally:
        sidecar.kill()
    size = program.stat().st_size / 2**20
    print(f"EMPTY ROOT: {size:.1f} MiB of program, ready after {ready_ms:.0f} ms, {int(kib) / 1024:.1f} MiB of memory after a call")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
