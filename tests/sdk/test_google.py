"""Google's own SDK, unchanged but for its base URL: the Gemini API and Vertex AI."""

import pytest
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials

MODEL = "gemini-2.5-flash"
PROMPT = "Why does the tide rise twice a day?"


def of_gemini(url):
    return genai.Client(api_key="test", http_options=types.HttpOptions(base_url=url))


def on_vertex(url):
    # A token is given, so that none is asked for anywhere.
    return genai.Client(
        vertexai=True,
        project="tides",
        location="us-central1",
        credentials=Credentials(token="test"),
        http_options=types.HttpOptions(base_url=url),
    )


# What the SDK is told, and what the record says of it.
PLACES = {
    "gemini": (of_gemini, "gcp.gemini", None, None),
    "vertex": (on_vertex, "gcp.vertex_ai", "us-central1", "tides"),
}


@pytest.fixture(params=PLACES.values(), ids=PLACES)
def place(request, sidecar):
    """A client, and a check of the one record."""
    connect, provider, region, project = request.param

    def completed(operation, model, **expected):
        record = sidecar.completed(operation, model, provider=provider, **expected)
        assert record.get("cloud.region") == region
        assert record.get("gcp.project_id") == project
        return record

    return connect(sidecar.url), completed


def counts(usage):
    return usage.prompt_token_count, usage.candidates_token_count


def test_generate_content(place):
    client, completed = place
    answer = client.models.generate_content(model=MODEL, contents=PROMPT)

    assert answer.text
    tokens = counts(answer.usage_metadata)
    completed("generate_content", MODEL, finish=["STOP"], tokens=tokens)


def test_generate_content_streamed(place):
    client, completed = place
    chunks = list(client.models.generate_content_stream(model=MODEL, contents=PROMPT))

    assert "".join(chunk.text or "" for chunk in chunks)
    tokens = counts(chunks[-1].usage_metadata)
    completed("generate_content", MODEL, finish=["STOP"], streamed=True, tokens=tokens)


def test_a_count_of_tokens_is_no_usage(place):
    client, completed = place
    answer = client.models.count_tokens(model=MODEL, contents=PROMPT)

    record = completed("count_tokens", MODEL)
    assert record["tidegate.counted_tokens"] == answer.total_tokens


@pytest.mark.parametrize("base", ["", "/vertex", "/vertex/"])
def test_a_lost_path_is_refused_with_the_way_out(base, sidecar, monkeypatch):
    # https://github.com/googleapis/python-genai/issues/2021: every call goes to the base URL itself.
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", sidecar.url + base)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "tides")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "us-central1")
    client = genai.Client(vertexai=True, credentials=Credentials(token="test"))

    with pytest.raises(errors.ClientError) as raised:
        client.models.generate_content(model=MODEL, contents=PROMPT)

    assert (raised.value.code, raised.value.status) == (400, "INVALID_ARGUMENT")
    assert "give `project` and `location`" in raised.value.message
    record = sidecar.record()
    assert record["tidegate.outcome"] == "refused"
    assert record["error.type"] == "sdk_lost_path"
    assert "tidegate.attempts" not in record


def test_with_an_api_key_the_path_is_kept(sidecar, monkeypatch):
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", f"{sidecar.url}/gemini")
    monkeypatch.setenv("GOOGLE_API_KEY", "test")
    client = genai.Client()
    answer = client.models.generate_content(model=MODEL, contents=PROMPT)

    assert answer.text
    assert sidecar.record()["tidegate.outcome"] == "completed"
