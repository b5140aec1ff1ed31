"""The real SDKs, unchanged, by each way in, as the pages in `config/clients` say."""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import matrix
from conftest import TIDEGATE
from matrix import BASE_URL, HOSTS, NODE, OLD_NODE, PACKAGES, PROXY, REDIRECT, ROWS
from pages import PAGES, lines, ways
from processes import has_network_of_its_own

STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
CLIENTS = pytest.mark.parametrize("client", ROWS)
# Those that a Node.js calls without HTTP/2.
OLD_CLIENTS = pytest.mark.parametrize("client", [client for client, row in ROWS.items() if row.js and not row.signs])


def can_run(client, node=NODE):
    """Skips a client of JavaScript where there is nothing to run it by."""
    if not ROWS[client].js:
        return
    if not (PACKAGES / "node_modules").is_dir():
        pytest.skip("the packages of npm are not installed")
    if not shutil.which("node", path=node):
        pytest.skip("node is not installed")
    matrix.put_scripts()


class Authority:
    """Signs for the provider's hosts, as a public authority would."""

    def __init__(self, folder):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A public authority")])
        own = self._of(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        self._folder = folder
        self.roots = folder / "roots.pem"
        self.roots.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _of(self, subject, key):
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def files(self, hosts, folder=None):
        """A certificate for these hosts, and its key."""
        folder = folder or self._folder
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A provider")])
        certificate = self._of(subject, key).add_extension(names, False).sign(self._key, hashes.SHA256())
        (folder / "provider.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / "provider.key").write_bytes(key.private_bytes(*form))
        return folder / "provider.pem", folder / "provider.key"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def opened(simulator, authority, tmp_path_factory):
    """One sidecar for all applications."""
    certificate, key = authority.files(HOSTS)
    with matrix.opened(simulator, certificate, key, authority.roots, tmp_path_factory.mktemp("ways")) as all_ways:
        yield all_ways


@pytest.fixture
def cell(record_property):
    """Notes which cell of the matrix this is; conftest.py sums them up."""
    return lambda client, way, stream: record_property("cell", (client, way, stream))


@CLIENTS
@STREAMS
@pytest.mark.parametrize("way", [BASE_URL, PROXY])
def test_by(way, client, stream, opened, cell):
    """By its base URL in the clear or by TLS, as its page says: some SDKs send keys by nothing else than TLS, which `tls: {}` offers."""
    cell(client, way, stream)
    can_run(client)
    opened.call(client, way, stream)


@OLD_CLIENTS
@STREAMS
def test_by_an_old_node(client, stream, opened, cell):
    cell(client, OLD_NODE, stream)
    can_run(client, None)
    said = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    version = tuple(map(int, said.removeprefix("v").split(".")))
    if not (18, 19) <= version < (22, 21):
        pytest.skip(f"the node of this system, {said}, is no old one, or too old to be told what to load")
    opened.call(client, OLD_NODE, stream)


def has_rules_of_its_own(*tools):
    """Whether a test may redirect what goes out, in a network of its own."""
    if not has_network_of_its_own("iptables", *tools):
        return False
    return subprocess.run(["unshare", "-n", "iptables", "-t", "nat", "-L"], capture_output=True).returncode == 0


NO_RULES = "iptables in a network of its own is not to be had here (root, unshare -nm)"


@pytest.fixture(scope="module")
def redirected(authority, tmp_path_factory):
    """What came of each application that the system redirects."""
    if not has_rules_of_its_own():
        pytest.skip(NO_RULES)
    folder = tmp_path_factory.mktemp("redirected")
    authority.files(HOSTS, folder)
    shutil.copy(authority.roots, folder)
    matrix.put_scripts()
    program = Path(__file__).with_name("redirected_sdks.py")
    ran = subprocess.run(["unshare", "-nm", sys.executable, program, folder], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads((folder / "cells.json").read_text())


@CLIENTS
@STREAMS
def test_redirected(client, stream, redirected, cell):
    cell(client, REDIRECT, stream)
    can_run(client)
    assert redirected[f"{client} {stream}"] is None, redirected[f"{client} {stream}"]


def test_a_name_that_leads_to_metadata_leads_nowhere(redirected):
    assert redirected["rebound"] == {
        "http://rebound.example/v1/models": "000 403",
        "https://rebound.example/v1/models": "403 000",
        "http://api.mistral.ai/v1/models": "000 403",
        "https://api.mistral.ai/v1/models": "200 403",
    }


def test_the_newest_node_calls_bedrock_past_its_proxy(opened):
    """Why the page of that client says that variables alone do not do: it calls by HTTP/2, which knows no proxy."""
    can_run("bedrock-js")
    env = {"PATH": f"{NODE}:{TIDEGATE.parent}:{os.environ['PATH']}", "HOME": "/nowhere"} | matrix.KEYS | opened.variables
    script = f"{lines('bedrock-js', PROXY)}\nexec node {PACKAGES}/run.mjs bedrock converse"
    seen = opened.sidecar.written()
    ran = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode != 0 and opened.sidecar.written() == seen, "it takes the proxy now: let its page say so"
    told = subprocess.run([TIDEGATE, "env", "--way", "proxy", "--for", "bedrock-js"], env=env, capture_output=True, text=True)
    assert "requestHandler" in told.stdout, told


@STREAMS
def test_a_service_that_is_written_into_the_code(opened, stream, tmp_path):
    sidecar = opened.sidecar
    seen = len(sidecar.written().splitlines())
    env = {"PATH": f"{TIDEGATE.parent}:{os.environ['PATH']}", "HOME": "/nowhere"} | opened.variables
    program = f"{sys.executable} {Path(__file__).with_name('application.py')} service" + " --stream" * stream
    ran = subprocess.run(["bash", "-ec", f"{lines('requests', PROXY)}\n{program}"], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    record = sidecar.records(seen + 1)[-1]
    assert (record["tidegate.outcome"], record["tidegate.upstream"]) == ("completed", "gemma")
    assert record["gen_ai.request.model"] == "gemma"


@pytest.mark.skipif(not has_rules_of_its_own("setpriv", "curl"), reason=NO_RULES)
def test_what_the_system_redirects(authority, tmp_path):
    authority.files(["api.openai.com"], tmp_path)
    shutil.copy(authority.roots, tmp_path)
    # Somebody else reads the certificate that it trusts.
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    program = Path(__file__).with_name("redirected.py")
    ran = subprocess.run(["unshare", "-n", sys.executable, program, tmp_path], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.skipif(not has_network_of_its_own(), reason="a network of its own is not to be had here (root, unshare -nm)")
def test_the_chat_of_an_example_calls_both_its_models_by_variables_alone(authority, tmp_path):
    authority.files(["us-central1-aiplatform.googleapis.com"], tmp_path)
    shutil.copy(authority.roots, tmp_path)
    program = Path(__file__).with_name("chat_pod.py")
    ran = subprocess.run(["unshare", "-nm", sys.executable, program, tmp_path], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_client_has_its_page():
    pages = {page.stem for page in PAGES.glob("*.md")} - {"README"}
    told = subprocess.run([TIDEGATE, "env", "--help"], capture_output=True, text=True).stdout
    known = set(re.findall(r"^ +- ([a-z0-9-]+):", told, re.MULTILINE)) - {"base-url", "proxy", "redirect"}
    assert pages == known
    # What no test runs an SDK by is at least known here.
    assert pages - {matrix.page_of(client) for client in ROWS} == {"ollama"}


@pytest.mark.parametrize("page", sorted(page.stem for page in PAGES.glob("*.md") if page.stem != "README"))
def test_the_lines_of_a_page_set_something(page):
    """Of SDKs that are not at hand, too."""
    assert [BASE_URL, PROXY, REDIRECT] == [way for way in ways(page) if way != OLD_NODE]
    for way in ways(page):
        if "tidegate env" not in lines(page, way):
            assert way == BASE_URL and "127.0.0.1:4100" in lines(page, way, "sh|python"), page
            continue
        env = {"PATH": f"{TIDEGATE.parent}:{os.environ['PATH']}", "HOME": "/nowhere"}
        script = f"set -euo pipefail\n{lines(page, way)}\nenv"
        told = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True).stdout
        assert ("/nowhere/.local/state/tidegate/bundle.pem" if way == REDIRECT else "http://127.0.0.1:410") in told, told
