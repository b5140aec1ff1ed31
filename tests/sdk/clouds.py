"""What gives credentials out and what asks for them, on loopback, from their published shapes."""

import base64
import http.client
import json
import re
import threading
import time
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


@contextmanager
def serving(answer, tls=None):
    """Serves requests by `answer(handler, body)`, by TLS where a context is given; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _any(self):
            length = int(self.headers.get("content-length", 0))
            answer(self, self.rfile.read(length))

        do_GET = do_POST = do_PUT = _any

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def reply(handler, body, status=200, kind="application/json", headers=()):
    body = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    handler.send_response(status)
    handler.send_header("content-type", kind)
    handler.send_header("content-length", str(len(body)))
    for name, value in headers:
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


class Upstream:
    """Passes requests on to the simulator, and keeps what came."""

    def __init__(self, simulator):
        self._simulator = urllib.parse.urlsplit(simulator).netloc
        self.requests = []

    def answer(self, handler, body):
        self.requests.append((handler.command, handler.path, dict(handler.headers.items()), body))
        connection = http.client.HTTPConnection(self._simulator, timeout=20)
        headers = {"content-type": handler.headers.get("content-type", "application/json")}
        connection.request(handler.command, handler.path, body, headers)
        answer = connection.getresponse()
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                handler.send_header(name, value)
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        while piece := answer.read1(65536):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")
        connection.close()

    @property
    def last(self):
        return self.requests[-1]


def signed_with(request, keys, service="bedrock", region="us-east-1"):
    """The access key of a request, whose signature botocore's own signer finds the same.

    `keys` are the secret and the session token of each access key.
    """
    method, path, headers, body = request
    fields = {name.lower(): value for name, value in headers.items()}
    form = r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?SignedHeaders=([^,]+), ?Signature=(\w+)"
    key, day, in_region, of_service, names, signature = re.fullmatch(form, fields["authorization"]).groups()
    assert (in_region, of_service) == (region, service)
    assert fields["x-amz-date"].startswith(day)
    names = names.split(";")
    host = ":authority" if ":authority" in names else "host"
    must = {host, "x-amz-date"} | {name for name in fields if name.startswith("x-amz-")}
    assert must | ({"content-type"} & fields.keys()) <= set(names), names
    secret, token = keys[key]
    assert fields.get("x-amz-security-token") == token
    again = AWSRequest(
        method=method,
        url=f"http://{fields['host']}{path}",
        headers={name: fields[name] for name in names if name != ":authority"},
        data=body,
    )
    again.context["timestamp"] = fields["x-amz-date"]
    signer = SigV4Auth(Credentials(key, secret, token), service, region)
    canonical = signer.canonical_request(again)
    if ":authority" in names:
        canonical = by_http2(canonical)
    text = signer.string_to_sign(again, canonical)
    assert signer.signature(text, again) == signature, text
    age = time.time() - time.mktime(time.strptime(fields["x-amz-date"], "%Y%m%dT%H%M%SZ")) + time.timezone
    assert abs(age) < 120, "the signature is of now"
    return key


def by_http2(canonical):
    """The same for a request that was signed for HTTP/2, where the host is `:authority`."""
    method, path, query, *headers, empty, names, digest = canonical.split("\n")
    headers = sorted(re.sub("^host:", ":authority:", header) for header in headers)
    names = ";".join(sorted({":authority", *names.split(";")} - {"host"}))
    return "\n".join([method, path, query, *headers, empty, names, digest])


class Aws:
    """STS, IMDS, Pod Identity and SSO. Each gives keys of its own."""

    SOURCES = ("IMDS", "PODIDENTITY", "WEBIDENTITY", "ASSUMED", "SSO")

    def __init__(self, life_s=3600):
        self.keys = {f"AKID{name}": (f"secret-{name}/+", f"session-{name}/+=") for name in self.SOURCES}
        self.life_s = life_s
        self.is_down = False
        self.asked = []

    def _expires(self):
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.life_s))

    def _document(self, name):
        secret, token = self.keys[f"AKID{name}"]
        return {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": f"AKID{name}",
            "SecretAccessKey": secret,
            "Token": token,
            "Expiration": self._expires(),
        }

    def _sts(self, action, name):
        secret, token = self.keys[f"AKID{name}"]
        return (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>'
            f"<Credentials><AccessKeyId>AKID{name}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>"
            f"<SessionToken>{token}</SessionToken><Expiration>{self._expires()}</Expiration></Credentials>"
            "<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn><AssumedRoleId>A:s</AssumedRoleId>"
            f"</AssumedRoleUser></{action}Result></{action}Response>"
        )

    def answer(self, handler, body):
        path, text = handler.path, body.decode()
        self.asked.append((handler.command, path, dict(handler.headers.items()), text))
        if self.is_down:
            reply(handler, "down", 500, "text/plain")
        elif path == "/latest/api/token":
            life = handler.headers["x-aws-ec2-metadata-token-ttl-seconds"]
            reply(handler, "imds-token", headers=[("x-aws-ec2-metadata-token-ttl-seconds", life)])
        elif path.rstrip("/") == "/latest/meta-data/iam/security-credentials":
            reply(handler, "role", kind="text/plain")
        elif path == "/latest/meta-data/iam/security-credentials/role":
            is_known = handler.headers["x-aws-ec2-metadata-token"] == "imds-token"
            reply(handler, self._document("IMDS"), 200 if is_known else 401)
        elif path == "/v1/credentials":
            is_known = handler.headers["authorization"] == "pod-token"
            reply(handler, self._document("PODIDENTITY"), 200 if is_known else 401)
        elif path.startswith("/federation/credentials"):
            secret, token = self.keys["AKIDSSO"]
            assert handler.headers["x-amz-sso_bearer_token"] == "sso-token"
            keys = {"accessKeyId": "AKIDSSO", "secretAccessKey": secret, "sessionToken": token}
            keys["expiration"] = int((time.time() + self.life_s) * 1000)
            reply(handler, {"roleCredentials": keys})
        elif "Action=AssumeRoleWithWebIdentity" in text:
            assert "WebIdentityToken=web-token" in text
            reply(handler, self._sts("AssumeRoleWithWebIdentity", "WEBIDENTITY"), kind="text/xml")
        elif "Action=AssumeRole" in text:
            reply(handler, self._sts("AssumeRole", "ASSUMED"), kind="text/xml")
        else:
            reply(handler, "nothing is here", 404, "text/plain")


class Google:
    """Token service, metadata server and IAM credentials. Each gives tokens of its own."""

    def __init__(self, life_s=3600):
        self.life_s = life_s
        self.is_down = False
        self.asked = []

    def answer(self, handler, body):
        path, text = handler.path, body.decode()
        self.asked.append((handler.command, path, dict(handler.headers.items()), text))
        token = {"expires_in": self.life_s, "token_type": "Bearer", "scope": "s"}
        if self.is_down:
            reply(handler, {"error": "unavailable"}, 503)
        elif path == "/token":
            form = urllib.parse.parse_qs(text) if "=" in text and not text.startswith("{") else json.loads(text)
            said = {key: value[0] if isinstance(value, list) else value for key, value in form.items()}
            assert (said["grant_type"], said["refresh_token"]) == ("refresh_token", "refresh-me")
            reply(handler, token | {"access_token": "token-of-a-user"})
        elif path.startswith("/computeMetadata/v1/instance/service-accounts/default/token"):
            assert handler.headers["metadata-flavor"] == "Google"
            reply(handler, token | {"access_token": "token-of-the-node"})
        elif path.startswith("/computeMetadata"):
            reply(handler, "x", kind="text/plain")
        elif path == "/sts":
            said = {key: value[0] for key, value in urllib.parse.parse_qs(text).items()}
            subject = said["subject_token"]
            kind = said["subject_token_type"].rsplit(":", 1)[1]
            if kind == "aws4_request":
                self._check_identity(json.loads(urllib.parse.unquote(subject)), said["audience"])
            else:
                assert subject == "projected-token"
            issued = "urn:ietf:params:oauth:token-type:access_token"
            reply(handler, token | {"access_token": f"token-by-{kind}", "issued_token_type": issued})
        elif path == "/v1/projects/-/serviceAccounts/m@p.iam.gserviceaccount.com:generateAccessToken":
            source = handler.headers["authorization"].removeprefix("Bearer ")
            expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.life_s))
            reply(handler, {"accessToken": f"impersonated-{source}", "expireTime": expires})
        elif path == "/subject":
            reply(handler, "projected-token", kind="text/plain")
        else:
            reply(handler, {"error": "nothing is here"}, 404)

    # What Google has AWS check: botocore's own signer finds the same signature.
    keys = {}

    def _check_identity(self, request, audience):
        headers = {field["key"].lower(): field["value"] for field in request["headers"]}
        assert headers["x-goog-cloud-target-resource"] == audience
        parts = urllib.parse.urlsplit(request["url"])
        path = f"{parts.path or '/'}?{parts.query}"
        sent = (request["method"], path, headers, b"")
        signed_with(sent, self.keys, "sts", "us-east-1")


def jwt_claims(token):
    """Header and claims of a JWT, whose signature is the caller's to check."""
    return [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]
