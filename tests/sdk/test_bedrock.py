"""Amazon's own SDK, unchanged but for its endpoint: Bedrock, whole and as an event stream.

Keys are dummies: the signature goes through to the simulator, which takes any.
"""

import json

import boto3
import pytest

CLAUDE = "anthropic.claude-3-5-sonnet-20240620-v1:0"
PROMPT = "Why does the tide rise twice a day?"
CONVERSE = {
    "modelId": CLAUDE,
    "messages": [{"role": "user", "content": [{"text": PROMPT}]}],
}

# The operation, a body in each family's own form, and its word for a good end.
FAMILIES = {
    CLAUDE: (
        "chat",
        {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 50,
            "messages": [{"role": "user", "content": PROMPT}],
        },
        "end_turn",
    ),
    "us.amazon.nova-pro-v1:0": ("chat", {"messages": CONVERSE["messages"]}, "end_turn"),
    "amazon.titan-text-express-v1": ("text_completion", {"inputText": PROMPT}, "FINISH"),
    "meta.llama3-8b-instruct-v1:0": ("chat", {"prompt": PROMPT}, "stop"),
}


@pytest.fixture
def client(sidecar):
    return boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=sidecar.url,
        aws_access_key_id="test",
        aws_secret_access_key="tidecanary",
    )


def completed(sidecar, operation, model, finish, **expected):
    place = {"provider": "aws.bedrock", "finish": [finish]}
    record = sidecar.completed(operation, model, **place, **expected)
    assert record["cloud.region"] == "us-east-1"


def test_converse(client, sidecar):
    answer = client.converse(**CONVERSE)

    assert answer["output"]["message"]["content"][0]["text"]
    tokens = (answer["usage"]["inputTokens"], answer["usage"]["outputTokens"])
    completed(sidecar, "chat", CLAUDE, answer["stopReason"], tokens=tokens)


def test_converse_streamed(client, sidecar):
    events = list(client.converse_stream(**CONVERSE)["stream"])

    usage = events[-1]["metadata"]["usage"]
    tokens = (usage["inputTokens"], usage["outputTokens"])
    completed(sidecar, "chat", CLAUDE, "end_turn", streamed=True, tokens=tokens)


@pytest.mark.parametrize("model", FAMILIES)
def test_invoke(client, sidecar, model):
    operation, body, finish = FAMILIES[model]
    answer = client.invoke_model(modelId=model, body=json.dumps(body))

    assert json.loads(answer["body"].read())
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    counts = ("x-amzn-bedrock-input-token-count", "x-amzn-bedrock-output-token-count")
    completed(sidecar, operation, model, finish, tokens=tuple(int(headers[name]) for name in counts))


@pytest.mark.parametrize("model", FAMILIES)
def test_invoke_streamed(client, sidecar, model):
    operation, body, finish = FAMILIES[model]
    answer = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
    chunks = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]

    metrics = chunks[-1]["amazon-bedrock-invocationMetrics"]
    tokens = (metrics["inputTokenCount"], metrics["outputTokenCount"])
    completed(sidecar, operation, model, finish, streamed=True, tokens=tokens)


def test_embeddings(client, sidecar):
    model = "amazon.titan-embed-text-v2:0"
    answer = client.invoke_model(modelId=model, body=json.dumps({"inputText": PROMPT}))

    answer = json.loads(answer["body"].read())
    assert answer["embedding"]
    tokens = (answer["inputTextTokenCount"], None)
    sidecar.completed("embeddings", model, provider="aws.bedrock", tokens=tokens)


def test_a_count_of_tokens_is_no_usage(client, sidecar):
    counted = {"converse": {"messages": CONVERSE["messages"]}}
    answer = client.count_tokens(modelId=CLAUDE, input=counted)

    record = sidecar.completed("count_tokens", CLAUDE, provider="aws.bedrock")
    assert record["tidegate.counted_tokens"] == answer["inputTokens"]


def wishing(client, **wishes):
    """The client, whose calls ask the simulator for more."""

    def add(request, **_):
        for name, value in wishes.items():
            request.headers[f"x-sim-{name}"] = value

    client.meta.events.register("before-sign", add)
    return client


def test_thoughts_and_a_call_of_a_tool_streamed(client, sidecar):
    schema = {"json": {"type": "object"}}
    tools = {"tools": [{"toolSpec": {"name": "measure", "inputSchema": schema}}]}
    client = wishing(client, tools="1", **{"reasoning-tokens": "8"})
    events = list(client.converse_stream(**CONVERSE, toolConfig=tools)["stream"])

    starts = [event["contentBlockStart"] for event in events if "contentBlockStart" in event]
    assert starts[0]["start"]["toolUse"]["name"] == "measure"
    usage = events[-1]["metadata"]["usage"]
    tokens = (usage["inputTokens"], usage["outputTokens"])
    completed(sidecar, "chat", CLAUDE, "tool_use", streamed=True, tokens=tokens)
