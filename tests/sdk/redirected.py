"""An application whose connections the system redirects, in a network of its own: `unshare -n redirected.py FOLDER`.

The sidecar and all servers are root's, whom the rules leave alone; the application is somebody else.
"""

import subprocess
import sys
from pathlib import Path

from conftest import TIDEGATE
from processes import PATIENCE_S, Sidecar, running

RULES = Path(__file__).parents[2] / "config" / "redirect" / "redirect.sh"
SOMEBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
# Nobody's addresses (RFC 5737): those of the providers lead nowhere, at that of the stranger somebody listens.
PROVIDER, SERVICE, STRANGER = "203.0.113.7", "203.0.113.8", "203.0.113.9"
CALL = ["--header", "content-type: application/json", "--data", '{"model":"m-1","messages":[]}']


def system(*command, env=None):
    subprocess.run(command, check=True, env=env)


def curl(*arguments):
    ran = subprocess.run([*SOMEBODY, "curl", "-sS", "--max-time", str(PATIENCE_S), "--noproxy", "*", *arguments], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def main(folder):
    system("ip", "link", "set", "lo", "up")
    system("ip", "route", "add", "default", "dev", "lo")
    system("ip", "address", "add", f"{STRANGER}/32", "dev", "lo")
    sim = [TIDEGATE, "sim", "--ttft", "5ms", "--tpot", "1ms", "--output-tokens", "4", "--listen"]
    proxy = [TIDEGATE, "proxy", "--admin", "127.0.0.1:0", "--workers", "1"]
    tls = folder / "provider.yaml"
    tls.write_text(f"tls: {{ certificate: '{folder}/provider.pem', key: '{folder}/provider.key' }}\n")
    env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/nowhere"}
    with running([*sim, f"{STRANGER}:9999"], env) as stranger, running([*sim, "127.0.0.1:8001"], env) as server:
        for process in (stranger, server):
            process.says(r"listening on (\S+)")
        with running([*proxy, "--config", tls, "--upstream", "http://127.0.0.1:8001", "--listen", "127.0.0.1:8443"], env) as provider:
            provider.says(r"admin on (\S+)")
            redirected(folder, [*proxy, "--listen", "127.0.0.1:0"], env)


def redirected(folder, proxy, env):
    configuration = folder / "tidegate.yaml"
    configuration.write_text(
        "intercept: { listen: '127.0.0.1:0', redirect: '127.0.0.1:4105', hosts: [providers, gemma-service] }\n"
        f"ca: {{ folder: '{folder}/ca' }}\n"
        "upstreams:\n"
        "  openai: { url: 'https://api.openai.com', address: '127.0.0.1:8443' }\n"
        "  gemma: { url: 'http://gemma-service:8000', address: '127.0.0.1:8001' }\n"
        "routes:\n  - { match: { host: api.openai.com }, upstream: openai }\n  - { match: { host: gemma-service }, upstream: gemma }\n"
    )
    records = folder / "records.jsonl"
    trusting = env | {"SSL_CERT_FILE": str(folder / "roots.pem")}
    with running([*proxy, "--config", configuration, "--records", records], trusting) as process:
        sidecar = Sidecar(process, records)
        rules = env | {"TIDEGATE_UID": "0", "TIDEGATE_PORTS": "443,8000,9999"}
        system("sh", RULES, env=rules)

        url = "https://api.openai.com/v1/chat/completions"
        curl("--resolve", f"api.openai.com:443:{PROVIDER}", "--cacert", f"{folder}/ca/ca.pem", *CALL, url)
        url = "http://gemma-service:8000/v1/chat/completions"
        curl("--resolve", f"gemma-service:8000:{SERVICE}", *CALL, url)
        # Nothing is seen of what is not listed, and it arrives.
        assert "calls" in curl(f"http://{STRANGER}:9999/-/served")

        made = {record["server.address"]: record for record in sidecar.records(2)}
        for host in ("api.openai.com", "gemma-service"):
            assert made[host]["tidegate.outcome"] == "completed", made[host]
            assert made[host]["gen_ai.request.model"] == "m-1"
        assert f'tidegate_intercept_passed_by_total{{host="{STRANGER}"}} 1' in sidecar.told()
        system("sh", RULES, "--remove", env=rules)
        sidecar.ends()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
