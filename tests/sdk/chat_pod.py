"""The pod of config/examples/kubernetes/gke-chat, its variables to the letter, in a network of its own: `unshare -nm chat_pod.py FOLDER`.

The chat calls Gemma by the URL in its code, and Vertex AI by google-genai with project and location from variables, which by another
base URL would lose their path. Neither is told anything but what the manifest says.
"""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from conftest import TIDEGATE
from manifests import ROOT, documents, pods
from processes import Sidecar, running

MANIFEST = ROOT / "config" / "examples" / "kubernetes" / "gke-chat" / "chat.yaml"
# Nobody's addresses (RFC 5737).
VERTEX, GEMMA = "203.0.113.7", "203.0.113.8"
CHAT = """
import requests
from google import genai
from google.oauth2.credentials import Credentials

answer = requests.post("http://gemma-service:8000/generate", json={"prompt": "Why is the sea salt?", "max_tokens": 8}, timeout=20)
answer.raise_for_status()
client = genai.Client(credentials=Credentials("tidecanary"))
print(client.models.generate_content(model="gemini-2.5-flash", contents="Why is the sea salt?").text)
"""


def system(*command):
    subprocess.run(command, check=True)


def variables(container, folder):
    """What the manifest says, with folders of ours in the place of mounted ones."""
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    return {name: value.replace("/etc/tidegate", f"{folder}/config").replace("/var/lib/tidegate", f"{folder}/state") for name, value in env.items()}


def main(folder):
    system("ip", "link", "set", "lo", "up")
    for address in (VERTEX, GEMMA):
        system("ip", "address", "add", f"{address}/32", "dev", "lo")
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{GEMMA} gemma-service\n{VERTEX} us-central1-aiplatform.googleapis.com\n")
    system("mount", "--bind", folder / "hosts", "/etc/hosts")

    text = MANIFEST.read_text()
    (pod,) = (pod for document in documents(text) for pod in pods(document))
    (data,) = (document["data"] for document in documents(text) if document["kind"] == "ConfigMap")
    for name in ("config", "state"):
        (folder / name).mkdir()
    (folder / "config" / "tidegate.yaml").write_text(data["tidegate.yaml"])

    plain = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    sim = [TIDEGATE, "sim", "--ttft", "5ms", "--tpot", "1ms", "--output-tokens", "4", "--listen"]
    tls = folder / "provider.yaml"
    tls.write_text(yaml.safe_dump({"tls": {"certificate": f"{folder}/provider.pem", "key": f"{folder}/provider.key"}}))
    provider = [TIDEGATE, "proxy", "--config", tls, "--listen", f"{VERTEX}:443", "--admin", "127.0.0.1:0", "--upstream", f"http://{GEMMA}:8000"]
    with running([*sim, f"{GEMMA}:8000"], plain) as model, running(provider, plain) as vertex:
        model.says(r"listening on (\S+)")
        vertex.says(r"admin on (\S+)")
        (ours,), (theirs,) = pod["initContainers"], pod["containers"]
        records = folder / "records.jsonl"
        more = {"SSL_CERT_FILE": f"{folder}/roots.pem", "TIDEGATE_RECORDS": str(records)}
        with running([TIDEGATE, *ours["args"]], plain | variables(ours, folder) | more) as process:
            sidecar = Sidecar(process, records)
            chat = subprocess.run([sys.executable, "-c", CHAT], env=plain | variables(theirs, folder), capture_output=True, text=True)
            assert chat.returncode == 0, chat.stderr + process.said
            gemma, gemini = sidecar.records(2)
            for record, model_, upstream in ((gemma, "gemma-3-12b-it", "gemma"), (gemini, "gemini-2.5-flash", "direct")):
                assert record["tidegate.outcome"] == "completed", record
                assert record["gen_ai.request.model"] == model_ and record["tidegate.upstream"] == upstream, record
            assert gemini["gen_ai.usage.output_tokens"] == 4
            assert gemini["gen_ai.provider.name"] == "gcp.vertex_ai" and gemini["cloud.region"] == "us-central1"
            sidecar.ends()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
