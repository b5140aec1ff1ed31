"""Traffic in which everything happens that a board can show: good calls of all kinds, and every trouble there is, over and over."""

import http.client
import itertools
import json
import signal
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

from clouds import reply
from processes import PATIENCE_S

# A sidecar with every policy, before model servers (SIMULATOR, and SPARE), one that answers oddly (ODD), Google's token
# service as it is (GOOD) and as it fails (BAD). Whatever is behind `.invalid` and port 9 is not there.
CONFIGURATION = """
upstreams:
  openai:
    url: SIMULATOR
    provider: openai
    region: eu
    breaker: { consecutive: 3, open: 500ms, open_max: 1s }
    timeouts: { idle: 1500ms }
  spare: { url: SPARE, provider: openai, breaker: {} }
  small:
    url: SPARE
    limit: { concurrency: 1, queue: 1, queue_timeout: 100ms }
    on_disconnect: { drain: { time: 10s } }
  pool:
    addresses: [SPARE, "http://127.0.0.1:9"]
    balance: { health: { interval: 200ms, path: /-/served }, steer: { interval: 200ms } }
  flaky: { addresses: [SPARE, ODD], balance: { eject: { failures: 1, time: 1s } } }
  nowhere:
    addresses: ["http://127.0.0.1:9", "http://localhost:9"]
    balance: { eject: { failures: 1, time: 1s }, health: { interval: 200ms } }
  unnamed: { addresses: ["http://nobody.invalid:80", SPARE], balance: { dns: { interval: 200ms } } }
  odd: { url: ODD, provider: openai }
  strict: { url: ODD, credential: { bearer: { env: OPENAI_API_KEY } } }
  google: { url: SPARE, credential: { google: { file: GOOD } } }
  aws: { url: SPARE, credential: { aws: { region: us-east-1 } } }
  refused: { url: SPARE, credential: { google: { file: BAD } } }
routes:
  - { match: { path: "/small/*" }, strip_prefix: /small, upstream: small, include_usage: add }
  - { match: { path: "/pool/*" }, strip_prefix: /pool, upstream: pool }
  - { match: { path: "/flaky/*" }, strip_prefix: /flaky, upstream: flaky, retry: { budget: 0%, floor: 0 } }
  - { match: { path: "/nowhere/*" }, strip_prefix: /nowhere, upstream: nowhere }
  - { match: { path: "/unnamed/*" }, strip_prefix: /unnamed, upstream: unnamed }
  - { match: { path: "/odd/*" }, strip_prefix: /odd, upstream: odd }
  - { match: { path: "/strict/*" }, strip_prefix: /strict, upstream: strict }
  - { match: { path: "/google/*" }, strip_prefix: /google, upstream: google }
  - { match: { path: "/aws/*" }, strip_prefix: /aws, upstream: aws }
  - { match: { path: "/refused/*" }, strip_prefix: /refused, upstream: refused }
  - { match: { path: "/cached/*" }, strip_prefix: /cached, upstream: spare, cache: { ttl: 2s, entry: 4KiB } }
  - match: { path: "/split/*" }
    name: split
    strip_prefix: /split
    split: [{ upstream: openai, weight: 1 }, { upstream: spare, model: gpt-4o, weight: 1 }]
    shadow: { upstream: spare, share: 100%, body: 1KiB, time: 5s }
  - name: main
    upstream: openai
    include_usage: add
    retry: { wait: 20ms, longest_wait: 50ms }
    fallback: [{ upstream: spare }]
quotas:
  long: { window: 2h, requests: 20000, tokens: 100000000 }
  short: { per: model, window: 10s, requests: 3 }
cache: { memory: 64KiB }
intercept: { listen: "127.0.0.1:0", local: true }
ca: { folder: ca }
limits: { jobs: 2 }
otlp: { endpoint: "http://127.0.0.1:9", traces: { enabled: false } }
scrape: [{ url: SPARE/metrics, every: 1s }]
NUMBER
"""

CHAT = "/v1/chat/completions"
MODEL = "gpt-4o-mini"


def chat(**more):
    return {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}]} | more


class Odd:
    """A server whose answers are not as they should be, by what the model is called."""

    def answer(self, handler, body):
        model = json.loads(body or b"{}").get("model")
        choice = {"index": 0, "message": {"role": "assistant", "content": "So."}, "finish_reason": "stop"}
        answer = {"id": "a", "object": "chat.completion", "model": model, "choices": [choice]}
        cached = {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102, "prompt_tokens_details": {"cached_tokens": 64}}
        if model == "garbled":
            reply(handler, json.dumps(answer).replace(":", "=", 1))
        elif model == "silent":
            reply(handler, answer)
        elif model == MODEL:
            left = [("x-ratelimit-limit-requests", "100"), ("x-ratelimit-remaining-requests", "40")]
            reply(handler, answer | {"usage": cached}, headers=left)
        elif model == "forbidden":
            reply(handler, {"error": {"message": "who are you?", "type": "authentication_error"}}, 401)
        else:
            reply(handler, {"error": {"message": "no", "type": "server_error"}}, 500)


class Caller:
    """One who makes a call at a time, and does not mind how it ends."""

    def __init__(self, url):
        self._address = urlsplit(url).netloc

    def call(self, path, body=None, leaves_after=None, **headers):
        """The answer's body; nothing where there is none. Leaves after so many bytes of it, if that is given."""
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE_S)
        fields = {"content-type": "application/json", "authorization": "Bearer sk-tidecanary"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request("POST" if body else "GET", path, text if body else None, fields)
            return connection.getresponse().read(leaves_after)
        except (OSError, http.client.HTTPException):
            return b""
        finally:
            connection.close()


# What happens, each over and over at the same time as all others.


def good_calls(caller, number):
    caller.call(CHAT, chat(stream=bool(number % 2)))
    caller.call("/v1/embeddings", {"model": "text-embedding-3-small", "input": f"text {number}"})


def calls_of_many_kinds(caller, number):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    caller.call(CHAT, chat(messages=[{"role": "user", "content": [image]}]))
    caller.call(CHAT, chat(model="nobody-has-a-price-for-this"))
    caller.call("/pool" + CHAT, chat(stream=True))
    caller.call("/unnamed" + CHAT, chat())
    caller.call("/google" + CHAT, chat())
    caller.call("/aws" + CHAT, chat())
    caller.call("/odd" + CHAT, chat())


def odd_answers(caller, number):
    caller.call("/odd" + CHAT, chat(model="garbled"))
    caller.call("/odd" + CHAT, chat(model="silent"))
    caller.call("/flaky" + CHAT, chat(model="broken"))


def bad_calls(caller, number):
    caller.call(CHAT, b'{"model": "')
    caller.call("/v1/models/veo-3:predictLongRunning", b"{}")
    caller.call(CHAT, chat(stream=True), x_sim_fault="cut")
    caller.call("/refused" + CHAT, chat())
    caller.call("/strict" + CHAT, chat(model="forbidden"))
    caller.call("/nowhere" + CHAT, chat())


def stalls(caller, number):
    caller.call(CHAT, chat(stream=True), x_sim_tpot="1100ms", x_sim_output_tokens="3")


def cached_calls(caller, number):
    for question in range(3):
        caller.call("/cached" + CHAT, chat(temperature=0, seed=question))
    caller.call("/cached" + CHAT, chat(temperature=0), cache_control="no-store")
    caller.call("/cached" + CHAT, chat(temperature=0, seed=number), x_sim_output_tokens="2000", x_sim_tpot="0ms")


def split_calls(caller, number):
    for stream in (True, False, True, False):
        caller.call("/split" + CHAT, chat(stream=stream))
    caller.call("/split" + CHAT, chat(stream=True), x_sim_fault="500")
    caller.call("/split" + CHAT, chat(messages=[{"role": "user", "content": "Why? " * 1000}]))


def failures(caller, number):
    """A breaker opens and closes, and calls are made again and elsewhere."""
    for _ in range(4):
        caller.call(CHAT, chat(model="gpt-4o", stream=True), x_sim_fault="500")
    caller.call(CHAT, chat(model="gpt-4o", stream=True), x_sim_fault="429")


def heals(caller, number):
    caller.call(CHAT, chat(model="gpt-4o"))
    time.sleep(0.3)


def crowds(caller, number):
    together = [threading.Thread(target=caller.call, args=("/small" + CHAT, chat(stream=True))) for _ in range(4)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()


def leaves(caller, number):
    caller.call("/small" + CHAT, chat(stream=True), leaves_after=200)


def jobs(caller, number):
    """Submits films and asks for one until it is made; more are open than are remembered."""
    film = {"instances": [{"prompt": "A tide."}], "parameters": {"durationSeconds": 12}}
    submitted = [caller.call("/v1beta/models/veo-3.0-generate-001:predictLongRunning", film) for _ in range(3)]
    name = json.loads(submitted[-1] or b"{}").get("name")
    for _ in range(20 if name else 0):
        if json.loads(caller.call(f"/v1beta/{name}") or b"{}").get("done"):
            return


def bypasses(admin, token):
    """Has the policies of the sidecar with this admin address look on only for a while."""

    def work(number):
        admin.call("/bypass", b"on=true" if number % 2 else b"on=false", authorization=f"Bearer {token}")
        time.sleep(1)

    return work


def tunnels(proxy, address):
    """Goes to this address through the proxy, blind, again and again."""

    def work(number):
        connection = http.client.HTTPConnection(proxy, timeout=PATIENCE_S)
        connection.set_tunnel(address)
        try:
            connection.request("GET", "/-/served")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()

    return work


TRAFFIC = [good_calls, calls_of_many_kinds, odd_answers, bad_calls, stalls, cached_calls, split_calls, failures, heals, crowds, leaves, jobs]


@contextmanager
def going_on(*works):
    """Does all of these over and over, each in a thread of its own, until the end of the `with`."""
    ended = threading.Event()

    def repeat(work):
        for number in itertools.count():
            if ended.is_set():
                return
            work(number)
            ended.wait(0.05)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def reloads(process, configuration, text):
    """Has the sidecar read a good and a bad configuration, by turns."""

    def work(number):
        configuration.write_text(text.replace("NUMBER", f"# {number}" if number % 2 else "this: is wrong"))
        process.signal(signal.SIGHUP)
        time.sleep(2)

    return work
