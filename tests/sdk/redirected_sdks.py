"""Each SDK, redirected by the system's rules, in a network of its own: `unshare -nm redirected_sdks.py FOLDER`.

Writes what came of each to FOLDER/cells.json: nothing, or why it failed. All providers have an address that leads nowhere; what is
dialled there comes by the rules to the sidecar, whose own connections go to this machine and are left alone.
"""

import json
import subprocess
import sys
import traceback
from pathlib import Path

import matrix
from conftest import TIDEGATE
from processes import running

RULES = Path(__file__).parents[2] / "config" / "redirect" / "redirect.sh"
# An address that leads nowhere (RFC 5737), this machine's own, and a user who runs nothing here.
NOWHERE, HERE, NOBODY = "203.0.113.7", "203.0.113.9", "65532"
# Names that lead to where no application may be led: one that is passed on, and one that is taken in.
METADATA, REBOUND = "169.254.169.254", ("rebound.example", "api.mistral.ai")


def system(*command, env=None):
    subprocess.run(command, check=True, env=env)


def main(folder):
    system("ip", "link", "set", "lo", "up")
    system("ip", "address", "add", f"{HERE}/32", "dev", "lo")
    system("ip", "route", "add", "default", "dev", "lo")
    (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{NOWHERE} {host}\n" for host in matrix.HOSTS) + f"{METADATA} {' '.join(REBOUND)}\n")
    # Nobody answers for other names, and says so at once.
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    for name in ("hosts", "resolv.conf"):
        system("mount", "--bind", folder / name, f"/etc/{name}")
    sim = [TIDEGATE, "sim", "--listen", "127.0.0.1:0", "--ttft", "20ms", "--tpot", "1ms", "--output-tokens", "24"]
    with running(sim) as process:
        simulator = "http://" + process.says(r"listening on (127\.0\.0\.1:\d+)")
        files = (folder / name for name in ("provider.pem", "provider.key", "roots.pem"))
        with matrix.opened(simulator, *files, folder, "127.0.0.1:4105") as ways:
            system("sh", RULES, env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "TIDEGATE_UID": NOBODY})
            cells = {f"{client} {stream}": outcome(ways, client, stream) for client in matrix.ROWS for stream in (False, True)}
            cells["rebound"] = rebound(ways, folder)
            (folder / "cells.json").write_text(json.dumps(cells))


def outcome(ways, client, stream):
    try:
        ways.call(client, matrix.REDIRECT, stream)
    except (AssertionError, ValueError, subprocess.SubprocessError):
        return traceback.format_exc()


def rebound(ways, folder):
    """What the proxy says of names that lead to metadata, by each way to ask it."""
    said = {}
    seen = len(ways.sidecar.written().splitlines())
    for url in (f"{scheme}://{name}/v1/models" for name in REBOUND for scheme in ("http", "https")):
        form = ["--output", "/dev/null", "--write-out", "%{http_connect} %{http_code}", "--cacert", f"{folder}/ca/ca.pem"]
        proxy = ["--proxy", f"http://{ways.variables['TIDEGATE_INTERCEPT']}"]
        said[url] = subprocess.run(["curl", "-s", *form, *proxy, url], capture_output=True, text=True).stdout
    # All but the tunnel that was refused were calls.
    ways.sidecar.records(seen + 3)
    return said


if __name__ == "__main__":
    main(Path(sys.argv[1]))
