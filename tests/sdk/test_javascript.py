"""The SDKs of JavaScript, unchanged but for their base URL; js/run.mjs makes the calls."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "js"
# Where tests/run has put the packages, which Node looks for beside a script.
PACKAGES = Path(os.environ.get("TIDEGATE_JS", "target/js")).absolute()
PATIENCE_S = 60

CLAUDE = "anthropic.claude-3-5-sonnet-20240620-v1:0"
OPENAI = ("gpt-4o-mini", "openai")
AZURE = ("gpt-4o-mini", "azure.ai.openai")
ANTHROPIC = ("claude-opus-4-6", "anthropic")
GEMINI = ("gemini-2.5-flash", "gcp.gemini")
VERTEX = ("gemini-2.5-flash", "gcp.vertex_ai")
BEDROCK = (CLAUDE, "aws.bedrock")

# SDK and call; each is also made as a stream. The operation, whose model, the word for a good end.
CALLS = {
    "openai chat": ("chat", OPENAI, "stop"),
    "openai azure": ("chat", AZURE, "stop"),
    "openai responses": ("chat", OPENAI, "completed"),
    "anthropic messages": ("chat", ANTHROPIC, "end_turn"),
    "google gemini": ("generate_content", GEMINI, "STOP"),
    "google vertex": ("generate_content", VERTEX, "STOP"),
    "bedrock converse": ("chat", BEDROCK, "end_turn"),
    "bedrock invoke": ("chat", BEDROCK, "end_turn"),
}

# The oldest that these SDKs run on: Debian 12's.
OLDEST_NODE = 18


def node_version():
    """The major version of Node, 0 where there is none."""
    if not shutil.which("node"):
        return 0
    said = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
    return int(said.removeprefix("v").split(".")[0])


pytestmark = [
    pytest.mark.skipif(
        node_version() < OLDEST_NODE, reason=f"node is not installed, or older than {OLDEST_NODE}"
    ),
    pytest.mark.skipif(
        not (PACKAGES / "node_modules").is_dir(), reason="the packages of npm are not installed"
    ),
]


@pytest.fixture(scope="session", autouse=True)
def scripts():
    """Puts the scripts where their packages are."""
    for script in SCRIPTS.glob("*.mjs"):
        shutil.copy(script, PACKAGES)


def called(sdk, case, url):
    """What the SDK was told."""
    command = ["node", PACKAGES / "run.mjs", sdk, case, url]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("call", CALLS)
def test_call(call, streamed, sidecar):
    operation, (model, provider), finish = CALLS[call]
    sdk, case = call.split()
    told = called(sdk, case + "_streamed" * streamed, sidecar.url)

    assert told["text"]
    tokens = tuple(told["tokens"])
    place = {"provider": provider, "finish": [finish]}
    sidecar.completed(operation, model, **place, streamed=streamed, tokens=tokens)


def test_embeddings(sidecar):
    told = called("openai", "embeddings", sidecar.url)

    assert told["text"]
    model, provider = OPENAI
    sidecar.completed("embeddings", model, provider=provider, tokens=tuple(told["tokens"]))


@pytest.mark.parametrize("sdk", ["openai", "bedrock"])
def test_the_record_of_a_second_try_says_so(sdk, sidecar):
    assert called(sdk, "tries_again", sidecar.url) == 503

    records = sidecar.records(2)
    assert [record["tidegate.outcome"] for record in records] == ["failed", "failed"]
    assert [record["tidegate.client_retries"] for record in records] == [0, 1]
