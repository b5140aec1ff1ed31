"""Google's own SDK, unchanged but for its base URL: the Gemini API and Vertex AI."""

import pytest
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials

MODEL = "gemini-2.5-flash"
PROMPT = "Why does the tide rise twice a day?"


def of_gemini(url):
    return genai.Client(api_key="tidecanary", http_options=types.HttpOptions(base_url=url))


def on_vertex(url):
    # A token is given, so that none is asked for anywhere.
    return genai.Client(
        vertexai=True,
        project="tides",
        location="us-central1",
        credentials=Credentials(token="tidecanary"),
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


def test_thoughts_are_counted_beside_what_is_visible(place):
    client, completed = place
    wishes = types.HttpOptions(headers={"x-sim-reasoning-tokens": "8"})
    config = types.GenerateContentConfig(http_options=wishes)
    asked = {"model": MODEL, "contents": PROMPT, "config": config}
    usage = list(client.models.generate_content_stream(**asked))[-1].usage_metadata

    assert usage.thoughts_token_count == 8
    tokens = (usage.prompt_token_count, usage.candidates_token_count + 8)
    expected = {"finish": ["STOP"], "streamed": True, "tokens": tokens}
    record = completed("generate_content", MODEL, **expected)
    assert record["gen_ai.usage.reasoning.output_tokens"] == 8


def test_a_call_of_a_function(place):
    client, completed = place
    function = types.FunctionDeclaration(name="measure", parameters={"type": "OBJECT"})
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[function])],
        http_options=types.HttpOptions(headers={"x-sim-tools": "1"}),
    )
    answer = client.models.generate_content(model=MODEL, contents=PROMPT, config=config)

    assert answer.function_calls[0].name == "measure"
    tokens = counts(answer.usage_metadata)
    completed("generate_content", MODEL, finish=["STOP"], tokens=tokens)


@pytest.mark.parametrize("model", ["text-embedding-005", "gemini-embedding-001"])
def test_embeddings(place, model):
    client, completed = place
    answer = client.models.embed_content(model=model, contents=[PROMPT])

    assert answer.embeddings[0].values
    # The Gemini API counts nothing.
    counted = answer.embeddings[0].statistics
    completed("embeddings", model, tokens=(counted and int(counted.token_count), None))


# For the Gemini API this SDK makes neither pictures nor films.
ONLY_VERTEX = pytest.mark.parametrize("place", [PLACES["vertex"]], ids=["vertex"], indirect=True)


@ONLY_VERTEX
@pytest.mark.filterwarnings("ignore:The generate_images method is deprecated")
def test_images(place):
    client, completed = place
    model = "imagen-4.0-generate-001"
    config = types.GenerateImagesConfig(number_of_images=2)
    answer = client.models.generate_images(model=model, prompt=PROMPT, config=config)

    assert len(answer.generated_images) == 2
    assert completed("generate_image", model)["tidegate.output.images"] == 2


@ONLY_VERTEX
def test_a_film_is_asked_for_until_it_is_done(place, sidecar):
    client, _ = place
    model = "veo-3.1-generate-001"
    source = types.GenerateVideosSource(prompt=PROMPT)
    operation = client.models.generate_videos(model=model, source=source)
    while not operation.done:
        operation = client.operations.get(operation)

    assert operation.response.generated_videos[0].video.uri
    records = sidecar.records(4)
    assert {record["tidegate.outcome"] for record in records} == {"completed"}
    assert {record["gen_ai.request.model"] for record in records} == {model}
    assert {record["tidegate.job.name"] for record in records} == {operation.name}
    begun, *polls = (record["gen_ai.operation.name"] for record in records)
    assert (begun, polls) == ("predict_long_running", ["fetch_predict_operation"] * 3)
    done = [record["tidegate.job.done"] for record in records]
    assert done == [False, False, False, True]


@pytest.mark.parametrize("base", ["", "/vertex", "/vertex/"])
def test_a_lost_path_is_refused_with_the_way_out(base, sidecar, monkeypatch):
    # https://github.com/googleapis/python-genai/issues/2021: every call goes to the base URL itself.
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", sidecar.url + base)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "tides")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "us-central1")
    client = genai.Client(vertexai=True, credentials=Credentials(token="tidecanary"))

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
    monkeypatch.setenv("GOOGLE_API_KEY", "tidecanary")
    client = genai.Client()
    answer = client.models.generate_content(model=MODEL, contents=PROMPT)

    assert answer.text
    assert sidecar.record()["tidegate.outcome"] == "completed"
