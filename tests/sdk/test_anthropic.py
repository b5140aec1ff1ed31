"""Anthropic's own SDK, unchanged but for its base URL: of Anthropic, on Vertex AI, on Bedrock."""

import anthropic
import pytest

MESSAGES = [{"role": "user", "content": "Why does the tide rise twice a day?"}]


def of_anthropic(url):
    return anthropic.Anthropic(base_url=url, api_key="sk-tidecanary", max_retries=0)


def on_vertex(url):
    # A token is given, so that none is asked for anywhere.
    return anthropic.AnthropicVertex(
        base_url=f"{url}/v1",
        region="us-east5",
        project_id="tides",
        access_token="tidecanary",
        max_retries=0,
    )


def on_bedrock(url):
    return anthropic.AnthropicBedrock(
        base_url=url,
        aws_region="us-east-1",
        aws_access_key="test",
        aws_secret_key="tidecanary",
        max_retries=0,
    )


# What the SDK is told, and what the record says of it.
PLACES = {
    "anthropic": (of_anthropic, "claude-opus-4-6", "anthropic", None),
    "vertex": (on_vertex, "claude-sonnet-4@20250514", "gcp.vertex_ai", "us-east5"),
    "bedrock": (
        on_bedrock,
        "us.anthropic.claude-sonnet-4-20250514-v1:0",
        "aws.bedrock",
        "us-east-1",
    ),
}


@pytest.fixture(params=PLACES.values(), ids=PLACES)
def place(request, sidecar):
    connect, model, provider, region = request.param
    return connect(sidecar.url), model, provider, region


def test_messages(place, sidecar):
    client, model, provider, region = place
    answer = client.messages.create(model=model, max_tokens=50, messages=MESSAGES)

    assert answer.content[0].text
    tokens = (answer.usage.input_tokens, answer.usage.output_tokens)
    record = sidecar.completed("chat", model, provider=provider, finish=["end_turn"], tokens=tokens)
    assert record.get("cloud.region") == region
    assert record["gen_ai.response.id"] == answer.id


def test_messages_streamed(place, sidecar):
    client, model, provider, region = place
    with client.messages.stream(model=model, max_tokens=50, messages=MESSAGES) as stream:
        assert "".join(stream.text_stream)
        answer = stream.get_final_message()

    tokens = (answer.usage.input_tokens, answer.usage.output_tokens)
    record = sidecar.completed(
        "chat", model, provider=provider, finish=["end_turn"], streamed=True, tokens=tokens
    )
    assert record.get("cloud.region") == region
    assert record["gen_ai.response.id"] == answer.id


@pytest.mark.parametrize("where", ["anthropic", "vertex"])
def test_a_count_of_tokens_is_no_usage(where, sidecar):
    connect, model, provider, _ = PLACES[where]
    answer = connect(sidecar.url).messages.count_tokens(model=model, messages=MESSAGES)

    record = sidecar.completed("count_tokens", model, provider=provider)
    assert record["tidegate.counted_tokens"] == answer.input_tokens


TOOLS = [{"name": "measure", "input_schema": {"type": "object"}}]


def test_thoughts_and_a_call_of_a_tool_streamed(place, sidecar):
    client, model, provider, _ = place
    asked = {"model": model, "max_tokens": 50, "messages": MESSAGES, "tools": TOOLS}
    wishes = {"x-sim-tools": "1", "x-sim-reasoning-tokens": "8"}
    with client.messages.stream(**asked, extra_headers=wishes) as stream:
        answer = stream.get_final_message()

    assert [block.type for block in answer.content] == ["thinking", "tool_use"]
    assert answer.content[1].input["text"]
    tokens = (answer.usage.input_tokens, answer.usage.output_tokens)
    expected = {"provider": provider, "finish": ["tool_use"], "tokens": tokens}
    record = sidecar.completed("chat", model, **expected, streamed=True)
    first, visible = (
        record[f"tidegate.time_to_first_{which}_s"] for which in ("token", "visible_token")
    )
    assert first < visible
