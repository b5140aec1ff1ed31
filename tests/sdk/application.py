"""An application: one call by the SDK that is named, with nothing said of where it goes.

Run as a program of its own, for SDKs read their variables once: `application.py CLIENT [--stream] [--code FILE]`. Where its page
tells a user to write code, that is the file.
"""

import os
import sys

PROMPT = "Why does the tide rise twice a day?"
MESSAGES = [{"role": "user", "content": PROMPT}]
REGION = "us-east-1"


def openai(stream):
    import openai

    client = openai.OpenAI(api_key="sk-tidecanary", max_retries=0)
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=stream)
    return [part.choices[0].delta.content for part in answer if part.choices] if stream else answer.choices[0].message.content


def azure_openai(stream):
    import openai

    os.environ.setdefault("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com")
    client = openai.AzureOpenAI(api_key="tidecanary", api_version="2024-10-21", max_retries=0)
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=stream)
    return [part.choices[0].delta.content for part in answer if part.choices] if stream else answer.choices[0].message.content


def anthropic_messages(client, model, stream):
    call = {"model": model, "max_tokens": 64, "messages": MESSAGES}
    if stream:
        with client.messages.stream(**call) as answer:
            return list(answer.text_stream)
    return client.messages.create(**call).content[0].text


def anthropic(stream):
    import anthropic

    client = anthropic.Anthropic(api_key="sk-tidecanary", max_retries=0)
    return anthropic_messages(client, "claude-opus-4-6", stream)


def anthropic_vertex(stream):
    import anthropic

    client = anthropic.AnthropicVertex(
        region="us-east5", project_id="tides", access_token="tidecanary", max_retries=0
    )
    return anthropic_messages(client, "claude-sonnet-4@20250514", stream)


def anthropic_bedrock(stream):
    import anthropic

    client = anthropic.AnthropicBedrock(
        aws_region=REGION, aws_access_key="AKID", aws_secret_key="tidecanary", max_retries=0
    )
    return anthropic_messages(client, "us.anthropic.claude-sonnet-4-20250514-v1:0", stream)


def boto3(stream):
    import boto3
    from botocore.config import Config

    keys = {"aws_access_key_id": "AKID", "aws_secret_access_key": "tidecanary"}
    config = Config(region_name=REGION, retries={"total_max_attempts": 1})
    client = boto3.client("bedrock-runtime", config=config, **keys)
    call = {
        "modelId": "us.amazon.nova-lite-v1:0",
        "messages": [{"role": "user", "content": [{"text": PROMPT}]}],
    }
    if stream:
        return [part for part in client.converse_stream(**call)["stream"]]
    return client.converse(**call)["output"]["message"]["content"]


def generated(client, stream):
    call = {"model": "gemini-2.5-flash", "contents": PROMPT}
    if stream:
        return [part.text for part in client.models.generate_content_stream(**call)]
    return client.models.generate_content(**call).text


def google_genai(stream):
    from google import genai
    from google.oauth2.credentials import Credentials

    token = Credentials(token="tidecanary")
    client = genai.Client(vertexai=True, project="tides", location="us-central1", credentials=token)
    return generated(client, stream)


def gemini(stream):
    from google import genai

    return generated(genai.Client(api_key="tidecanary"), stream)


def google_cloud_aiplatform(stream):
    """By gRPC."""
    from google.api_core.client_options import ClientOptions
    from google.cloud.aiplatform_v1 import PredictionServiceClient
    from google.oauth2.credentials import Credentials

    place = ClientOptions(api_endpoint="us-west1-aiplatform.googleapis.com")
    client = code().get("client") or PredictionServiceClient(credentials=Credentials(token="tidecanary"), client_options=place)
    model = "projects/tides/locations/us-west1/publishers/google/models/gemini-2.5-flash"
    call = {"model": model, "contents": [{"role": "user", "parts": [{"text": PROMPT}]}]}
    if stream:
        return list(client.stream_generate_content(request=call, timeout=20))
    return client.generate_content(request=call, timeout=20)


def chained(model, stream):
    """By LangChain, which calls all of them alike."""
    return [part.text for part in model.stream(PROMPT)] if stream else model.invoke(PROMPT).text


def langchain_openai(stream):
    from langchain_openai import ChatOpenAI

    return chained(ChatOpenAI(model="gpt-4o-mini", api_key="sk-tidecanary", max_retries=0), stream)


def langchain_anthropic(stream):
    from langchain_anthropic import ChatAnthropic

    return chained(ChatAnthropic(model="claude-opus-4-6", api_key="sk-tidecanary", max_retries=0), stream)


def langchain_google_genai(stream):
    from langchain_google_genai import ChatGoogleGenerativeAI

    return chained(ChatGoogleGenerativeAI(model="gemini-2.5-flash", api_key="tidecanary", max_retries=0), stream)


def langchain_google_genai_vertex(stream):
    from google.oauth2.credentials import Credentials
    from langchain_google_genai import ChatGoogleGenerativeAI

    place = {"project": "tides", "location": "us-central1", "credentials": Credentials(token="tidecanary")}
    return chained(ChatGoogleGenerativeAI(model="gemini-2.5-flash", vertexai=True, max_retries=0, **place), stream)


def langchain_aws(stream):
    from langchain_aws import ChatBedrockConverse

    keys = {"aws_access_key_id": "AKID", "aws_secret_access_key": "tidecanary"}
    return chained(ChatBedrockConverse(model="us.amazon.nova-lite-v1:0", region_name=REGION, **keys), stream)


def requests(stream, url="https://api.openai.com/v1/chat/completions", model="gpt-4o-mini"):
    """A program that has never heard of a sidecar."""
    import requests

    call = {"model": model, "messages": MESSAGES, "stream": stream}
    answer = code().get("answer") or requests.post(url, json=call, timeout=20, stream=stream)
    answer.raise_for_status()
    return list(answer.iter_lines()) if stream else answer.json()["choices"]


def service(stream):
    """The same, to a service of its cluster."""
    return requests(stream, "http://gemma-service:8000/v1/chat/completions", "gemma")


def code():
    """What the code of a page has left, where there is any."""
    names = {}
    if "--code" in sys.argv:
        with open(sys.argv[sys.argv.index("--code") + 1]) as page:
            exec(page.read(), names)
    return names


if __name__ == "__main__":
    said = globals()[sys.argv[1].replace("-", "_")]("--stream" in sys.argv)
    assert said, "no answer"
    print(said)
