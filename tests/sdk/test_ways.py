"""The real SDKs, unchanged, by each way in, as the pages in `config/clients` say."""

import datetime
import ipaddress
import os
import re
import shutil
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.cloud.aiplatform_v1.types import GenerateContentRequest, GenerateContentResponse

from clouds import Upstream, serving, signed_with
from conftest import TIDEGATE
from processes import PATIENCE_S, Sidecar, has_network_of_its_own, running

PAGES = Path(__file__).parents[2] / "config" / "clients"
APPLICATION = Path(__file__).with_name("application.py")

# The host that each SDK means, and what a record says of its call.
HOSTS = {
    "openai": ("api.openai.com", "openai", "chat"),
    "anthropic": ("api.anthropic.com", "anthropic", "chat"),
    "anthropic-vertex": ("us-east5-aiplatform.googleapis.com", "gcp.vertex_ai", "chat"),
    "anthropic-bedrock": ("bedrock-runtime.us-east-1.amazonaws.com", "aws.bedrock", "chat"),
    "boto3": ("bedrock-runtime.us-east-1.amazonaws.com", "aws.bedrock", "chat"),
    "google-genai": ("us-central1-aiplatform.googleapis.com", "gcp.vertex_ai", "generate_content"),
    "gemini": ("generativelanguage.googleapis.com", "gcp.gemini", "generate_content"),
}
# A server by gRPC, as far as it is asked.
REQUEST, RESPONSE = GenerateContentRequest.pb(), GenerateContentResponse.pb()
ANSWER = RESPONSE(
    candidates=[{"content": {"role": "model", "parts": [{"text": "So."}]}, "finish_reason": 1}],
    usage_metadata={"prompt_token_count": 3, "candidates_token_count": 2, "total_token_count": 5},
)
SIGNED = ("anthropic-bedrock", "boto3")
STREAMS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
CLIENTS = pytest.mark.parametrize("client", HOSTS)


def lines(client, way):
    """The lines of shell that a page names for a way."""
    page = (PAGES / f"{client}.md").read_text()
    section = page.split(f"## {way}\n", 1)[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    assert blocks, f"{client}: nothing to run for {way!r}"
    return "".join(blocks)


def run(client, way, stream, **variables):
    """An application, after the lines of its page, and no other variable that could lead it anywhere."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "PYTHONDONTWRITEBYTECODE") if name in os.environ}
    path = f"{TIDEGATE.parent}:{os.environ['PATH']}"
    program = [sys.executable, APPLICATION, client] + (["--stream"] if stream else [])
    script = f"set -euo pipefail\n{lines(client, way)}\nexec " + " ".join(map(str, program))
    env = kept | {"PATH": path, "AWS_EC2_METADATA_DISABLED": "true"} | variables
    ran = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr + ran.stdout


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
def provider(simulator, authority):
    """All providers: a server by TLS that shows their names, with the simulator behind it, and what it was asked."""
    certificate, key = authority.files({host for host, _, _ in HOSTS.values()})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    upstream = Upstream(simulator)
    with serving(upstream.answer, context) as url:
        yield url.removeprefix("http://"), upstream


@pytest.fixture
def started(provider, authority, simulator, tmp_path):
    """Starts a sidecar that takes calls in by every way; gives it and the variables that say where it is."""

    @contextmanager
    def start(**more):
        places = {host: provider[0] for host, _, _ in HOSTS.values()} | more
        upstreams = "".join(f"  {host}: {{ url: 'https://{host}', address: '{at}' }}\n" for host, at in places.items())
        routes = "".join(f"  - {{ match: {{ host: {host} }}, upstream: {host} }}\n" for host in places)
        configuration = tmp_path / "tidegate.yaml"
        configuration.write_text(
            "intercept: { listen: '127.0.0.1:0', hosts: [providers, gemma-service] }\n"
            f"tls: {{}}\nca: {{ folder: '{tmp_path}/ca' }}\nupstreams:\n{upstreams}"
            f"  everything: {{ url: '{simulator}' }}\n"
            f"  gemma: {{ url: 'http://gemma-service:8000', address: '{simulator.removeprefix('http://')}' }}\n"
            f"routes:\n{routes}"
            "  - { match: { host: gemma-service }, upstream: gemma }\n"
            "  - { upstream: everything }\n"
        )
        records = tmp_path / "records.jsonl"
        command = [TIDEGATE, "proxy", "--config", configuration, "--records", records, "--workers", "1"]
        command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        env = dict(os.environ) | {"SSL_CERT_FILE": str(authority.roots)}
        with running(command, env) as process:
            sidecar = Sidecar(process, records)
            proxy = process.says(r"proxy \(HTTPS_PROXY, HTTP_PROXY\) on (127\.0\.0\.1:\d+)")
            variables = {
                "TIDEGATE_CONFIG": str(configuration),
                "TIDEGATE_LISTEN": sidecar.url.removeprefix("http://"),
                "TIDEGATE_INTERCEPT": proxy,
            }
            yield sidecar, variables
            sidecar.ends()

    return start


def check(record, client, stream):
    _, provider, operation = HOSTS[client]
    assert record["tidegate.outcome"] == "completed", record
    assert (record["gen_ai.provider.name"], record["gen_ai.operation.name"]) == (provider, operation)
    assert record.get("gen_ai.request.stream", False) == stream
    assert record["gen_ai.request.model"]


@CLIENTS
@STREAMS
def test_as_its_proxy(started, provider, client, stream):
    with started() as (sidecar, variables):
        run(client, "As its proxy", stream, **variables)
        record = sidecar.record()
        check(record, client, stream)
        assert record["server.address"] == HOSTS[client][0]
        if client in SIGNED:
            # What the application has signed is what the provider can verify.
            keys = {"AKID": ("tidecanary", None)}
            assert signed_with(provider[1].last, keys) == "AKID"


@CLIENTS
@STREAMS
def test_by_a_base_url(started, client, stream):
    """By TLS, which the sidecar offers here: some SDKs send keys by nothing else."""
    with started() as (sidecar, variables):
        run(client, "By its base URL", stream, **variables)
        check(sidecar.record(), client, stream)


@STREAMS
def test_a_service_that_is_written_into_the_code(started, stream):
    with started() as (sidecar, variables):
        run("requests", "As its proxy", stream, **variables)
        record = sidecar.record()
        assert (record["tidegate.outcome"], record["tidegate.upstream"]) == ("completed", "gemma")
        assert record["gen_ai.request.model"] == "gemma"


@STREAMS
def test_grpc_as_its_proxy(started, authority, stream):
    host = "us-west1-aiplatform.googleapis.com"
    certificate, key = authority.files([host])
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    handlers = {"GenerateContent": grpc.unary_unary_rpc_method_handler(lambda *_: ANSWER, REQUEST.FromString, RESPONSE.SerializeToString)}
    handlers["StreamGenerateContent"] = grpc.unary_stream_rpc_method_handler(lambda *_: iter([ANSWER]), REQUEST.FromString, RESPONSE.SerializeToString)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("google.cloud.aiplatform.v1.PredictionService", handlers)])
    server.start()
    try:
        with started(**{host: f"127.0.0.1:{port}"}) as (sidecar, variables):
            run("google-cloud-aiplatform", "As its proxy", stream, **variables)
            record = sidecar.record()
            assert (record["tidegate.outcome"], record["server.address"]) == ("completed", host)
            assert record["gen_ai.usage.output_tokens"] == 2
    finally:
        server.stop(None)


def test_curl(started):
    body = '{"model":"gpt-4o-mini","messages":[]}'
    call = f"curl -sSf https://api.openai.com/v1/chat/completions -H 'content-type: application/json' -d '{body}'"
    with started() as (sidecar, variables):
        script = f"{lines('openai', 'As its proxy')}\n{call}"
        env = os.environ | variables | {"PATH": f"{TIDEGATE.parent}:{os.environ['PATH']}"}
        ran = subprocess.run(["bash", "-ec", script], env=env, capture_output=True, text=True, timeout=PATIENCE_S)
        assert ran.returncode == 0, ran.stderr
        assert sidecar.record()["tidegate.outcome"] == "completed"


def has_a_network_of_its_own():
    tools = all(map(shutil.which, ("unshare", "ip", "iptables", "setpriv", "curl")))
    return tools and subprocess.run(["unshare", "-n", "iptables", "-t", "nat", "-L"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_a_network_of_its_own(), reason="iptables in a network of its own is not to be had here (root, unshare -n)")
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
    known = set(re.findall(r"^ +- ([a-z0-9-]+):", told, re.MULTILINE)) - {"base-url", "proxy"}
    assert pages - {"requests"} == known


@pytest.mark.parametrize("page", sorted(page.stem for page in PAGES.glob("*.md") if page.stem != "README"))
def test_the_lines_of_a_page_set_something(page):
    """Of SDKs that are not at hand, too."""
    ways = re.findall(r"^## (.*)\n", (PAGES / f"{page}.md").read_text(), re.MULTILINE)
    for way in ways:
        if page == "google-cloud-aiplatform" and way == "By its base URL":
            continue
        env = {"PATH": f"{TIDEGATE.parent}:{os.environ['PATH']}", "HOME": "/nowhere"}
        script = f"set -euo pipefail\n{lines(page, way)}\nenv"
        told = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True).stdout
        assert "http://127.0.0.1:410" in told, told
