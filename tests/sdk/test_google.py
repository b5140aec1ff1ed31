"""Google's own SDK, unchanged but for its base URL."""

import pytest
from google import genai
from google.genai import types

MODEL = "gemini-2.5-flash"
ASKED = {"model": MODEL, "contents": "Why does the tide rise twice a day?"}


@pytest.fixture
def client(sidecar):
    return genai.Client(api_key="test", http_options=types.HttpOptions(base_url=sidecar.url))


def test_generate_content(client, sidecar):
    answer = client.models.generate_content(**ASKED)

    assert answer.text
    usage = answer.usage_metadata
    tokens = (usage.prompt_token_count, usage.candidates_token_count)
    sidecar.completed("generate_content", MODEL, tokens=tokens)


def test_generate_content_streamed(client, sidecar):
    chunks = list(client.models.generate_content_stream(**ASKED))

    assert "".join(chunk.text or "" for chunk in chunks)
    usage = chunks[-1].usage_metadata
    tokens = (usage.prompt_token_count, usage.candidates_token_count)
    sidecar.completed("generate_content", MODEL, streamed=True, tokens=tokens)
