"""SDKs that try again by themselves: each try is a record, which says how many came before it."""

import json
import os

import anthropic
import boto3
import openai
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from google import genai
from google.genai import errors, types

from conftest import TIDEGATE
from processes import Sidecar, running

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


@pytest.fixture
def retrying(simulator, tmp_path):
    """A sidecar that makes calls again itself."""
    records, config = tmp_path / "records.jsonl", tmp_path / "tidegate.yaml"
    route = {"upstream": "a", "retry": {"wait": "1ms"}}
    config.write_text(json.dumps({"upstreams": {"a": {"url": simulator}}, "routes": [route]}))
    command = [TIDEGATE, "proxy", "--config", config, "--records", records]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1"]
    with running(command, dict(os.environ)) as process:
        started = Sidecar(process, records)
        yield started
        started.ends()


def eager_openai(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="sk-tidecanary", max_retries=5)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="m", messages=MESSAGES, extra_headers=FAULT)


def eager_anthropic(url):
    client = anthropic.Anthropic(base_url=url, api_key="sk-tidecanary", max_retries=5)
    asked = {"model": "m", "max_tokens": 5, "messages": MESSAGES}
    with pytest.raises(anthropic.InternalServerError):
        client.messages.create(**asked, extra_headers=FAULT)


def eager_genai(url):
    retry = types.HttpRetryOptions(attempts=5, initial_delay=0.001, max_delay=0.002)
    options = types.HttpOptions(base_url=url, headers=FAULT, retry_options=retry)
    client = genai.Client(api_key="tidecanary", http_options=options)
    with pytest.raises(errors.ServerError):
        client.models.generate_content(model="m", contents="Why?")


# F57. OpenAI's and Anthropic's SDKs leave it at what the sidecar has tried; Google's has no word for that: five times two.
@pytest.mark.parametrize("sdk, calls, attempts", [(eager_openai, 1, 2), (eager_anthropic, 1, 2), (eager_genai, 5, 10)])
def test_retries_of_an_sdk_do_not_multiply_with_those_of_the_sidecar(sdk, calls, attempts, retrying):
    sdk(retrying.url)

    records = retrying.records(calls)
    assert len(records) == calls
    assert sum(record["tidegate.attempts"] for record in records) == attempts
