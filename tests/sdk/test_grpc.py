"""Google's own `aiplatform` clients by gRPC, unchanged but for their channel, before a real gRPC server."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.api import httpbody_pb2
from google.api_core import exceptions
from google.cloud import aiplatform_v1, aiplatform_v1beta1
from google.cloud.aiplatform_v1.services.prediction_service.transports import (
    PredictionServiceGrpcAsyncIOTransport,
)
from google.protobuf import duration_pb2, json_format, struct_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from conftest import TIDEGATE
from processes import PATIENCE_S, Sidecar, running

MODEL = "gemini-2.5-flash"
PLACE = "projects/reef/locations/europe-west4"
RESOURCE = f"{PLACE}/publishers/google/models/{MODEL}"
QUESTION = [{"role": "user", "parts": [{"text": "Why does the tide rise twice a day?"}]}]
USAGE = {
    "prompt_token_count": 11,
    "candidates_token_count": 5,
    "thoughts_token_count": 3,
    "cached_content_token_count": 4,
    "total_token_count": 19,
}
# What the record says of it: thoughts are output too.
VERTEX = {"provider": "gcp.vertex_ai"}
TOKENS = (11, 8)

VERSIONS = pytest.mark.parametrize("version", [aiplatform_v1, aiplatform_v1beta1])


def answer(version, text, **more):
    """A chunk of a stream with one part."""
    part = {"text": text, "thought": more.pop("thought", False)}
    candidate = {"content": {"role": "model", "parts": [part]}} | more.pop("candidate", {})
    response = {"model_version": f"{MODEL}-001", "response_id": "r-1", "candidates": [candidate]}
    return version.GenerateContentResponse(**response, **more)


class Servicer:
    """Vertex AI, as far as these tests ask. What the question says decides what comes of it."""

    def __init__(self, version):
        self.version = version
        self.cancelled = threading.Event()

    def generate_content(self, request, context):
        asked = request.contents[0].parts[0].text
        if asked == "quota":
            self.refuse(context)
        if asked == "blocked":
            feedback = {"block_reason": "PROHIBITED_CONTENT"}
            return self.version.GenerateContentResponse(prompt_feedback=feedback)
        end = {"finish_reason": "MAX_TOKENS"}
        return answer(self.version, "The Moon.", candidate=end, usage_metadata=USAGE)

    def refuse(self, context):
        """As Google does: with details, among them when to try again."""
        status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="Quota exceeded.")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason="RATE_LIMIT_EXCEEDED"))
        wait = duration_pb2.Duration(seconds=12, nanos=500_000_000)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=wait))
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded.")

    def stream_generate_content(self, request, context):
        asked = request.contents[0].parts[0].text
        # Before the first answer: a call that is over by the second is not carried on with. Where it
        # is over already, nobody will call.
        if asked == "forever" and not context.add_callback(self.cancelled.set):
            self.cancelled.set()
        if asked == "compressed":
            context.set_compression(grpc.Compression.Gzip)
        yield answer(self.version, "Hm. " * 100, thought=True)
        yield answer(self.version, "The ")
        if asked == "break":
            context.abort(grpc.StatusCode.UNAVAILABLE, "The model is overloaded.")
        if asked == "forever":
            self.cancelled.wait(PATIENCE_S)
            return
        end = {"finish_reason": "STOP"}
        yield answer(self.version, "Moon.", candidate=end, usage_metadata=USAGE)

    def predict(self, request, context):
        response = self.version.PredictResponse()
        for at, _ in enumerate(request.instances):
            statistics = {"token_count": 4 + at, "truncated": False}
            embeddings = {"statistics": statistics, "values": [0.25] * 768}
            value = json_format.ParseDict({"embeddings": embeddings}, struct_pb2.Value())
            response._pb.predictions.append(value)
        return response

    def embed_content(self, request, context):
        usage = {"prompt_token_count": 9}
        embedding = {"values": [0.25] * 768}
        return self.version.EmbedContentResponse(embedding=embedding, usage_metadata=usage)

    def count_tokens(self, request, context):
        return self.version.CountTokensResponse(total_tokens=31)

    def stream_raw_predict(self, request, context):
        start = '{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":5}}}'
        stop = '{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}'
        for event in [
            f"event: message_start\ndata: {start}\n\n",
            f'event: message_delta\ndata: {{"type":"message_delta","delta":{stop}\n\n',
            'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        ]:
            yield httpbody_pb2.HttpBody(content_type="text/event-stream", data=event.encode())

    def handlers(self):
        v, unary, streamed = (
            self.version,
            grpc.unary_unary_rpc_method_handler,
            grpc.unary_stream_rpc_method_handler,
        )

        def handler(kind, method, request, response):
            return kind(method, request.deserialize, response.serialize)

        package = f"google.cloud.aiplatform.{v.__name__.rsplit('_', 1)[1]}"
        counting = handler(
            unary, self.count_tokens, v.CountTokensRequest, v.CountTokensResponse
        )
        generate = (v.GenerateContentRequest, v.GenerateContentResponse)
        methods = {
            "GenerateContent": handler(unary, self.generate_content, *generate),
            "StreamGenerateContent": handler(streamed, self.stream_generate_content, *generate),
            "Predict": handler(unary, self.predict, v.PredictRequest, v.PredictResponse),
            "EmbedContent": handler(
                unary, self.embed_content, v.EmbedContentRequest, v.EmbedContentResponse
            ),
            "CountTokens": counting,
            "StreamRawPredict": streamed(
                self.stream_raw_predict,
                v.StreamRawPredictRequest.deserialize,
                httpbody_pb2.HttpBody.SerializeToString,
            ),
        }
        for name, methods in [
            ("PredictionService", methods),
            ("LlmUtilityService", {"CountTokens": counting}),
        ]:
            yield grpc.method_handlers_generic_handler(f"{package}.{name}", methods)


@pytest.fixture
def server():
    """Servicers of both versions, by version, and their address."""
    server = grpc.server(ThreadPoolExecutor(8))
    servicers = {version: Servicer(version) for version in (aiplatform_v1, aiplatform_v1beta1)}
    for servicer in servicers.values():
        server.add_generic_rpc_handlers(tuple(servicer.handlers()))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicers, f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def sidecar(server, tmp_path):
    records = tmp_path / "records.jsonl"
    command = [TIDEGATE, "proxy", "--upstream", f"http://{server[1]}", "--records", records]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1"]
    with running(command) as process:
        yield Sidecar(process, records)


@pytest.fixture
def channel(sidecar):
    with grpc.insecure_channel(sidecar.url.removeprefix("http://")) as channel:
        yield channel


def prediction(version, channel):
    transport = version.PredictionServiceClient.get_transport_class("grpc")(channel=channel)
    return version.PredictionServiceClient(transport=transport)


def once(question):
    """A request, and no second try: that would be a second record."""
    contents = [{"role": "user", "parts": [{"text": question}]}]
    return {"request": {"model": RESOURCE, "contents": contents}, "retry": None, "timeout": PATIENCE_S}


def of_vertex(record):
    assert record["gen_ai.provider.name"] == "gcp.vertex_ai"
    assert record["cloud.region"] == "europe-west4"
    assert record["gcp.project_id"] == "reef"


@VERSIONS
def test_generate_content(version, channel, sidecar):
    said = prediction(version, channel).generate_content(model=RESOURCE, contents=QUESTION)

    assert said.candidates[0].content.parts[0].text == "The Moon."
    record = sidecar.completed("generate_content", MODEL, **VERTEX, finish=["MAX_TOKENS"], tokens=TOKENS)
    of_vertex(record)
    assert record["rpc.grpc.status_code"] == 0
    assert record["gen_ai.response.model"] == f"{MODEL}-001"
    assert record["gen_ai.response.id"] == "r-1"
    assert record["gen_ai.usage.cache_read.input_tokens"] == 4
    assert record["gen_ai.usage.reasoning.output_tokens"] == 3


@VERSIONS
def test_generate_content_streamed_with_usage_in_the_last_chunk(version, channel, sidecar):
    client = prediction(version, channel)
    chunks = list(client.stream_generate_content(model=RESOURCE, contents=QUESTION))

    assert "".join(chunk.candidates[0].content.parts[0].text for chunk in chunks[1:]) == "The Moon."
    sidecar.completed("generate_content", MODEL, **VERTEX, finish=["STOP"], streamed=True, tokens=TOKENS)
    record = sidecar.record()
    of_vertex(record)
    assert record["gen_ai.response.finish_reasons"] == ["STOP"]
    assert record["tidegate.usage.source"] == "reported"
    first, visible = (
        record[f"tidegate.time_to_first_{what}_s"] for what in ("token", "visible_token")
    )
    assert first <= visible <= record["tidegate.duration_s"]


def test_a_compressed_stream(channel, sidecar):
    chunks = list(prediction(aiplatform_v1, channel).stream_generate_content(**once("compressed")))

    assert len(chunks) == 3
    sidecar.completed("generate_content", MODEL, **VERTEX, finish=["STOP"], streamed=True, tokens=TOKENS)
    assert "tidegate.not_understood" not in sidecar.record()


def test_an_async_client(sidecar):
    async def ask():
        target = sidecar.url.removeprefix("http://")
        async with grpc.aio.insecure_channel(target) as channel:
            transport = PredictionServiceGrpcAsyncIOTransport(channel=channel)
            client = aiplatform_v1.PredictionServiceAsyncClient(transport=transport)
            stream = await client.stream_generate_content(model=RESOURCE, contents=QUESTION)
            return [chunk async for chunk in stream]

    assert len(asyncio.run(ask())) == 3
    sidecar.completed("generate_content", MODEL, **VERTEX, finish=["STOP"], streamed=True, tokens=TOKENS)


@VERSIONS
def test_embeddings_by_predict(version, channel, sidecar):
    instances = [
        json_format.ParseDict({"content": text}, struct_pb2.Value()) for text in ("ebb", "flow")
    ]
    endpoint = f"{PLACE}/publishers/google/models/text-embedding-005"
    said = prediction(version, channel).predict(endpoint=endpoint, instances=instances)

    assert len(said.predictions) == 2
    sidecar.completed("embeddings", "text-embedding-005", **VERTEX, tokens=(4 + 5, None))


@VERSIONS
def test_embed_content(version, channel, sidecar):
    model = f"{PLACE}/publishers/google/models/gemini-embedding-2"
    prediction(version, channel).embed_content(model=model, content=QUESTION[0])

    sidecar.completed("embeddings", "gemini-embedding-2", **VERTEX, tokens=(9, None))


def test_count_tokens(channel, sidecar):
    client = aiplatform_v1.LlmUtilityServiceClient
    client = client(transport=client.get_transport_class("grpc")(channel=channel))
    request = {"endpoint": RESOURCE, "contents": QUESTION}
    assert client.count_tokens(request=request).total_tokens == 31

    sidecar.completed("count_tokens", MODEL, **VERTEX)
    assert sidecar.record()["tidegate.counted_tokens"] == 31


def test_claude_by_stream_raw_predict(channel, sidecar):
    endpoint = f"{PLACE}/publishers/anthropic/models/claude-sonnet-5"
    body = httpbody_pb2.HttpBody(data=b'{"messages":[],"stream":true}')
    client = prediction(aiplatform_v1, channel)
    assert len(list(client.stream_raw_predict(endpoint=endpoint, http_body=body))) == 3

    record = sidecar.record()
    assert record["tidegate.outcome"] == "completed"
    assert record["gen_ai.request.model"] == "claude-sonnet-5"
    assert record["gen_ai.response.finish_reasons"] == ["end_turn"]
    assert record["gen_ai.usage.input_tokens"] == 5
    assert record["gen_ai.usage.output_tokens"] == 3


def test_a_blocked_prompt(channel, sidecar):
    prediction(aiplatform_v1, channel).generate_content(**once("blocked"))

    assert sidecar.record()["tidegate.block_reason"] == "PROHIBITED_CONTENT"


def test_a_spent_quota(channel, sidecar):
    with pytest.raises(exceptions.ResourceExhausted) as refused:
        prediction(aiplatform_v1, channel).generate_content(**once("quota"))

    assert refused.value.reason == "RATE_LIMIT_EXCEEDED"
    record = sidecar.record()
    of_vertex(record)
    assert record["tidegate.outcome"] == "failed"
    assert record["rpc.grpc.status_code"] == 8
    assert record["error.type"] == "RESOURCE_EXHAUSTED"
    assert record["tidegate.error.code"] == "8"
    assert record["tidegate.error.origin"] == "quota"
    assert record["tidegate.retry_after_s"] == 12.5
    assert record["gen_ai.request.model"] == MODEL


def test_an_error_in_the_middle_of_a_stream(channel, sidecar):
    chunks = prediction(aiplatform_v1, channel).stream_generate_content(**once("break"))
    with pytest.raises(exceptions.ServiceUnavailable):
        list(chunks)

    record = sidecar.record()
    assert record["tidegate.outcome"] == "failed"
    assert record["error.type"] == "UNAVAILABLE"
    assert record["tidegate.error.origin"] == "upstream"
    assert "tidegate.time_to_first_token_s" in record


def test_a_caller_that_cancels(channel, server, sidecar):
    stream = prediction(aiplatform_v1, channel).stream_generate_content(**once("forever"))
    next(iter(stream))
    stream.cancel()

    record = sidecar.record()
    assert record["tidegate.outcome"] == "abandoned"
    assert "rpc.grpc.status_code" not in record
    assert server[0][aiplatform_v1].cancelled.wait(PATIENCE_S), "the server was told"


def test_a_caller_whose_deadline_passes(channel, server, sidecar):
    request = once("forever") | {"timeout": 0.5}
    stream = prediction(aiplatform_v1, channel).stream_generate_content(**request)
    with pytest.raises(exceptions.DeadlineExceeded):
        list(stream)

    assert sidecar.record()["tidegate.outcome"] in ("abandoned", "failed")
    assert server[0][aiplatform_v1].cancelled.wait(PATIENCE_S), "the server was told"


def test_a_method_that_the_server_lacks(channel, sidecar):
    method = channel.unary_unary("/acme.v1.Reef/Look", request_serializer=None)
    with pytest.raises(grpc.RpcError) as refused:
        method(b"any bytes", timeout=PATIENCE_S)

    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    record = sidecar.record()
    assert record["tidegate.outcome"] == "failed"
    assert record["rpc.grpc.status_code"] == 12
    assert record["error.type"] == "UNIMPLEMENTED"
    assert "gen_ai.operation.name" not in record


def test_an_upstream_that_is_not_there(tmp_path):
    records = tmp_path / "records.jsonl"
    # Port 1 is nobody's on a machine that runs tests.
    command = [TIDEGATE, "proxy", "--upstream", "http://127.0.0.1:1", "--records", records]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1"]
    with running(command) as process:
        sidecar = Sidecar(process, records)
        with grpc.insecure_channel(sidecar.url.removeprefix("http://")) as channel:
            with pytest.raises(exceptions.ServiceUnavailable, match="tidegate: upstream"):
                prediction(aiplatform_v1, channel).generate_content(**once("anything"))
        record = sidecar.record()
    assert record["tidegate.outcome"] == "failed"
    assert record["error.type"] == "upstream_unreachable"
    assert record["rpc.grpc.status_code"] == 14
