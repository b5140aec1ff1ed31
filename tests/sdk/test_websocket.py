"""Realtime sessions by real clients of WebSocket: what they say passes, and each leaves one record."""

import asyncio
import json
import os
import threading
from contextlib import contextmanager

import openai
import pytest
from google import genai
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

from conftest import TIDEGATE
from processes import Sidecar, running

PATH = "/v1/realtime?model=gpt-realtime"


def answer(session):
    """What the fake provider does with a session: it does as it is told, and else sends all back."""
    if "openai" in session.request.headers.get("user-agent", "").lower():
        session.send(json.dumps({"type": "session.created", "event_id": "e", "session": {}}))
    for message in session:
        if message == "close":
            session.close(1000, "as you wish")
        elif message == "fail":
            session.close(1011, "internal error")
        elif message == "break":
            session.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: reset
            session.socket.close()
            return
        elif isinstance(message, str) and message.startswith('{"setup"'):
            session.send(b'{"setupComplete": {}}')
        else:
            session.send(message)


def admit(session, request):
    """The fake provider admits those who bring a key."""
    if request.headers.get("authorization") == "Bearer wrong":
        return session.respond(401, "no such key\n")


@pytest.fixture(scope="module")
def provider():
    with serve(answer, "127.0.0.1", 0, process_request=admit, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "http://127.0.0.1:%d" % server.socket.getsockname()[1]
        server.shutdown()


@pytest.fixture
def live(provider, tmp_path):
    """A sidecar in front of the provider."""
    records = tmp_path / "records.jsonl"
    command = [TIDEGATE, "proxy", "--upstream", provider, "--records", records]
    command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1"]
    with running(command, os.environ) as process:
        yield Sidecar(process, records)


@contextmanager
def session(live, **options):
    url = live.url.replace("http://", "ws://") + PATH
    with connect(url, max_size=None, **options) as opened:
        yield opened


def check(record, outcome="completed", model="gpt-realtime"):
    assert record["tidegate.outcome"] == outcome, record
    assert record["tidegate.upgrade"] == "websocket"
    assert record["gen_ai.operation.name"] == "realtime"
    assert record.get("gen_ai.request.model") == model
    assert record["http.response.status_code"] == 101
    assert "tidegate.not_understood" not in record
    assert "?" not in record["url.path"]


def test_messages_of_all_sizes_come_back(live):
    messages = ["hi", b"", "ü" * 1000, os.urandom(70_000), os.urandom(8 << 20)]
    with session(live) as opened:
        for message in messages:
            opened.send(message)
            assert opened.recv() == message

    record = live.record()
    check(record)
    for way in ("request", "response"):
        assert record[f"tidegate.{way}.bytes"] > 8 << 20


def test_bytes_are_counted_as_they_pass(live):
    with session(live, compression=None) as opened:
        for _ in range(3):
            opened.send(b"x" * 100)
            opened.recv()

    record = live.record()
    check(record)
    # A frame of 100 bytes has a head of 2, and a mask of 4 where the client sends it; the last one
    # closes, with a code of 2.
    assert record["tidegate.request.bytes"] == 3 * (2 + 4 + 100) + 2 + 4 + 2
    assert record["tidegate.response.bytes"] == 3 * (2 + 100) + 2 + 2


def test_a_server_that_closes(live):
    with session(live) as opened:
        opened.send("close")
        with pytest.raises(ConnectionClosedOK) as closed:
            opened.recv()
    assert closed.value.rcvd.reason == "as you wish"
    check(live.record())


def test_a_server_that_says_it_failed(live):
    # What a close says stands in a frame, which is not read: the connection itself ends in order.
    with session(live) as opened:
        opened.send("fail")
        with pytest.raises(ConnectionClosedError) as closed:
            opened.recv()
    assert closed.value.rcvd.code == 1011
    check(live.record())


def test_a_server_that_breaks_off(live):
    with session(live) as opened:
        opened.send("break")
        with pytest.raises(ConnectionClosedError) as closed:
            opened.recv()
    assert closed.value.rcvd is None
    check(live.record(), outcome="truncated")


def test_a_server_that_does_not_admit(live):
    with pytest.raises(InvalidStatus) as refused:
        with session(live, additional_headers={"authorization": "Bearer wrong"}):
            pass
    assert refused.value.response.status_code == 401
    assert refused.value.response.body == b"no such key\n"

    record = live.record()
    assert record["tidegate.outcome"] == "failed"
    assert record["http.response.status_code"] == 401
    assert "tidegate.upgrade" not in record


def test_many_sessions_at_once(live):
    def talk(number):
        with session(live) as opened:
            for turn in range(20):
                opened.send(f"{number}:{turn}")
                assert opened.recv() == f"{number}:{turn}"

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for record in live.records(20):
        check(record)


def test_openai_realtime(live):
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="sk-tidecanary", max_retries=0)
    with client.realtime.connect(model="gpt-realtime") as connection:
        assert connection.recv().type == "session.created"

    record = live.record()
    check(record)
    assert record["gen_ai.provider.name"] == "openai"


def test_gemini_live(live):
    client = genai.Client(api_key="AIza-secret")
    # This SDK makes every base URL one of TLS, which the sidecar does not end here.
    client._api_client._websocket_base_url = lambda *_: live.url.replace("http://", "ws://")
    client._api_client._websocket_ssl_ctx = {}

    async def talk():
        async with client.aio.live.connect(model="gemini-live", config={}):
            pass

    asyncio.run(talk())
    record = live.record()
    # The model stands in the first message, which is not read.
    check(record, model=None)
    assert record["gen_ai.provider.name"] == "gcp.gemini"
    assert record["url.path"].endswith(".GenerativeService.BidiGenerateContent")
    assert "AIza-secret" not in json.dumps(record)
