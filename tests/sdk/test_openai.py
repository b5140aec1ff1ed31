"""OpenAI's own SDK, unchanged but for its base URL: it is answered, and the record says the same."""

import openai
import pytest

MESSAGES = [{"role": "user", "content": "Why does the tide rise twice a day?"}]
MODEL = "gpt-4o-mini"
OPENAI = {"provider": "openai", "finish": ["stop"]}
RESPONSES = {"provider": "openai", "finish": ["completed"]}


@pytest.fixture
def client(sidecar):
    # One try only: a call made again would be a second record.
    return openai.OpenAI(base_url=f"{sidecar.url}/v1", api_key="sk-tidecanary", max_retries=0)


def test_chat(client, sidecar):
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)

    assert answer.choices[0].message.content
    usage = answer.usage
    tokens = (usage.prompt_tokens, usage.completion_tokens)
    sidecar.completed("chat", MODEL, **OPENAI, tokens=tokens)


def test_chat_streamed_with_usage(client, sidecar):
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    usage = chunks[-1].usage
    tokens = (usage.prompt_tokens, usage.completion_tokens)
    sidecar.completed("chat", MODEL, **OPENAI, streamed=True, tokens=tokens)


def test_chat_streamed_without_usage_records_no_tokens(client, sidecar):
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert all(chunk.usage is None for chunk in chunks)
    sidecar.completed("chat", MODEL, **OPENAI, streamed=True)


def test_completions(client, sidecar):
    answer = client.completions.create(model=MODEL, prompt="The tide")

    assert answer.choices[0].text
    tokens = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    sidecar.completed("text_completion", MODEL, **OPENAI, tokens=tokens)


def test_embeddings(client, sidecar):
    answer = client.embeddings.create(model=MODEL, input="The tide")

    assert answer.data[0].embedding
    tokens = (answer.usage.prompt_tokens, None)
    sidecar.completed("embeddings", MODEL, provider="openai", tokens=tokens)


def test_responses(client, sidecar):
    answer = client.responses.create(model=MODEL, input="Why does the tide rise?")

    assert answer.output_text
    usage = answer.usage
    tokens = (usage.input_tokens, usage.output_tokens)
    sidecar.completed("chat", MODEL, **RESPONSES, tokens=tokens)


def test_responses_streamed(client, sidecar):
    events = list(client.responses.create(model=MODEL, input="Why?", stream=True))

    assert "".join(event.delta for event in events if event.type == "response.output_text.delta")
    usage = events[-1].response.usage
    tokens = (usage.input_tokens, usage.output_tokens)
    sidecar.completed("chat", MODEL, **RESPONSES, streamed=True, tokens=tokens)


@pytest.fixture(params=["azure", "vertex"])
def elsewhere(request, sidecar):
    """The same SDK against others who speak like OpenAI: client, model and provider."""
    if request.param == "azure":
        place = {"azure_endpoint": sidecar.url, "api_version": "2024-10-21"}
        client = openai.AzureOpenAI(**place, api_key="tidecanary", max_retries=0)
        return client, MODEL, "azure.ai.openai"
    base = f"{sidecar.url}/v1/projects/tides/locations/us-central1/endpoints/openapi"
    client = openai.OpenAI(base_url=base, api_key="tidecanary", max_retries=0)
    return client, "google/gemini-2.5-flash", "gcp.vertex_ai"


def test_chat_elsewhere(elsewhere, sidecar):
    client, model, provider = elsewhere
    answer = client.chat.completions.create(model=model, messages=MESSAGES)

    assert answer.choices[0].message.content
    tokens = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    sidecar.completed("chat", model, provider=provider, finish=["stop"], tokens=tokens)


def test_chat_elsewhere_streamed(elsewhere, sidecar):
    client, model, provider = elsewhere
    wished = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model=model, messages=MESSAGES, **wished))

    tokens = (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)
    expected = {"provider": provider, "finish": ["stop"], "tokens": tokens}
    sidecar.completed("chat", model, **expected, streamed=True)


def test_an_error_reaches_the_caller(client, sidecar):
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, extra_headers={"x-sim-fault": "429"}
        )

    record = sidecar.record()
    assert record["tidegate.outcome"] == "failed"
    assert record["http.response.status_code"] == 429


def test_a_stream_that_breaks_off_breaks_off_for_the_caller(client, sidecar):
    with pytest.raises(openai.APIConnectionError):
        list(
            client.chat.completions.create(
                model=MODEL, messages=MESSAGES, stream=True, extra_headers={"x-sim-fault": "cut"}
            )
        )

    assert sidecar.record()["tidegate.outcome"] == "truncated"


def test_a_caller_that_leaves_is_recorded_once(client, sidecar):
    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    next(iter(stream))
    stream.close()

    assert sidecar.record()["tidegate.outcome"] == "abandoned"


def test_many_calls_are_as_many_records(client, sidecar):
    answers = [client.chat.completions.create(model=MODEL, messages=MESSAGES) for _ in range(20)]

    records = sidecar.records(20)
    assert len({record["gen_ai.response.id"] for record in records}) == 20
    recorded = sum(record["gen_ai.usage.output_tokens"] for record in records)
    assert recorded == sum(answer.usage.completion_tokens for answer in answers)


TOOLS = [{"type": "function", "function": {"name": "measure", "parameters": {"type": "object"}}}]


def test_a_call_of_a_tool(client, sidecar):
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, tools=TOOLS, extra_headers={"x-sim-tools": "1"}
    )

    assert answer.choices[0].message.tool_calls[0].function.name == "measure"
    tokens = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    expected = {"provider": "openai", "finish": ["tool_calls"], "tokens": tokens}
    sidecar.completed("chat", MODEL, **expected)


def test_a_call_of_a_tool_streamed(client, sidecar):
    wished = {"stream": True, "stream_options": {"include_usage": True}, "tools": TOOLS}
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, **wished, extra_headers={"x-sim-tools": "1"}
        )
    )

    usage = chunks[-1].usage
    tokens = (usage.prompt_tokens, usage.completion_tokens)
    expected = {"provider": "openai", "finish": ["tool_calls"], "tokens": tokens}
    sidecar.completed("chat", MODEL, **expected, streamed=True)


def test_reasoning_is_recorded_and_told_from_what_is_visible(client, sidecar):
    events = list(
        client.responses.create(
            model=MODEL, input="Why?", stream=True, extra_headers={"x-sim-reasoning-tokens": "8"}
        )
    )

    usage = events[-1].response.usage
    tokens = (usage.input_tokens, usage.output_tokens)
    record = sidecar.completed("chat", MODEL, **RESPONSES, streamed=True, tokens=tokens)
    reasoning = usage.output_tokens_details.reasoning_tokens
    assert record["gen_ai.usage.reasoning.output_tokens"] == reasoning == 8
    first, visible = (
        record[f"tidegate.time_to_first_{which}_s"] for which in ("token", "visible_token")
    )
    assert first < visible


def test_several_choices_each_say_how_they_end(client, sidecar):
    wished = {"stream": True, "stream_options": {"include_usage": True}, "n": 3}
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, **wished))

    tokens = (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)
    expected = {"provider": "openai", "finish": ["stop"] * 3, "tokens": tokens}
    sidecar.completed("chat", MODEL, **expected, streamed=True)


def test_images(client, sidecar):
    answer = client.images.generate(model="gpt-image-1", prompt="The tide", n=2)

    assert len(answer.data) == 2
    record = sidecar.record()
    assert record["tidegate.outcome"] == "completed"
    assert record["http.response.status_code"] == 200
