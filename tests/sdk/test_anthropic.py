"""Anthropic's own SDK, unchanged but for its base URL."""

import anthropic
import pytest

MODEL = "claude-opus-4-6"
ASKED = {
    "model": MODEL,
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Why does the tide rise twice a day?"}],
}


@pytest.fixture
def client(sidecar):
    return anthropic.Anthropic(base_url=sidecar.url, api_key="sk-test", max_retries=0)


def test_messages(client, sidecar):
    answer = client.messages.create(**ASKED)

    assert answer.content[0].text
    tokens = (answer.usage.input_tokens, answer.usage.output_tokens)
    sidecar.completed("chat", MODEL, tokens=tokens)


def test_messages_streamed(client, sidecar):
    with client.messages.stream(**ASKED) as stream:
        assert "".join(stream.text_stream)
        usage = stream.get_final_message().usage

    tokens = (usage.input_tokens, usage.output_tokens)
    sidecar.completed("chat", MODEL, streamed=True, tokens=tokens)
