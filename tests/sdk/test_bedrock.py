"""Amazon's own SDK, unchanged but for its endpoint: Bedrock's Converse, whole and as an event stream."""

import boto3
import pytest

MODEL = "anthropic.claude-3-5-sonnet-20240620-v1:0"
ASKED = {
    "modelId": MODEL,
    "messages": [{"role": "user", "content": [{"text": "Why does the tide rise twice a day?"}]}],
}


@pytest.fixture
def client(sidecar):
    return boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=sidecar.url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def test_converse(client, sidecar):
    answer = client.converse(**ASKED)

    assert answer["output"]["message"]["content"][0]["text"]
    tokens = (answer["usage"]["inputTokens"], answer["usage"]["outputTokens"])
    sidecar.completed("chat", MODEL, tokens=tokens)


def test_converse_streamed(client, sidecar):
    events = list(client.converse_stream(**ASKED)["stream"])

    usage = events[-1]["metadata"]["usage"]
    tokens = (usage["inputTokens"], usage["outputTokens"])
    sidecar.completed("chat", MODEL, streamed=True, tokens=tokens)
