"""SDKs that try again by themselves: each try is a record, which says how many came before it."""

import anthropic
import boto3
import openai
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

MESSAGES = [{"role": "user", "content": "Why?"}]
FAULT = {"x-sim-fault": "503"}


def by_openai(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="sk-tidecanary", max_retries=1)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="m", messages=MESSAGES, extra_headers=FAULT)


def by_anthropic(url):
    client = anthropic.Anthropic(base_url=url, api_key="sk-tidecanary", max_retries=1)
    asked = {"model": "m", "max_tokens": 5, "messages": MESSAGES}
    with pytest.raises(anthropic.InternalServerError):
        client.messages.create(**asked, extra_headers=FAULT)


def by_boto3(url):
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="test",
        aws_secret_access_key="tidecanary",
        config=Config(retries={"mode": "standard", "total_max_attempts": 2}),
    )

    def fail(request, **_):
        request.headers["x-sim-fault"] = FAULT["x-sim-fault"]

    client.meta.events.register("before-sign", fail)
    with pytest.raises(ClientError):
        client.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "Why?"}]}])


@pytest.mark.parametrize("sdk", [by_openai, by_anthropic, by_boto3])
def test_the_record_of_a_second_try_says_so(sdk, sidecar):
    sdk(sidecar.url)

    records = sidecar.records(2)
    assert [record["tidegate.outcome"] for record in records] == ["failed", "failed"]
    assert [record["tidegate.client_retries"] for record in records] == [0, 1]
