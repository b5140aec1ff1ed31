"""Who signs: keys from every source, by the SDKs' own clients, checked by botocore's own signer."""

import base64
import hashlib
import json
import os
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager

import anthropic
import boto3
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google import genai

from clouds import Aws, Google, Upstream, jwt_claims, serving, signed_with
from conftest import TIDEGATE
from processes import Sidecar, eventually, running

CLAUDE = "anthropic.claude-3-5-sonnet-20240620-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123def456"
MESSAGES = [{"role": "user", "content": [{"text": "Why does the tide rise twice a day?"}]}]
ENV = {"AWS_ACCESS_KEY_ID": "AKIDENV", "AWS_SECRET_ACCESS_KEY": "secret-ENV/+"}
ENV_KEYS = {"AKIDENV": ("secret-ENV/+", None)}
# What no log, metric or record may show: the beginnings of all that is given out here.
SECRETS = (
    "secret-", "session-", "session/", "token-of-", "token-by-", "refresh-me", "projected-token", "pod-token",
    "web-token", "sso-token", "imds-token", "callers-own", "Signature=", "PRIVATE KEY", "eyJ",
)  # fmt: skip
AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/a"


@pytest.fixture
def upstream(simulator):
    seen = Upstream(simulator)
    with serving(seen.answer) as seen.url:
        yield seen


@pytest.fixture
def signing(upstream, tmp_path):
    """Starts a sidecar whose upstream has this credential, in nothing but this environment."""

    @contextmanager
    def start(credential, **variables):
        records, config = tmp_path / "records.jsonl", tmp_path / "tidegate.yaml"
        where = {"upstreams": {"a": {"url": upstream.url, "credential": credential}}}
        config.write_text(json.dumps(where | {"routes": [{"upstream": "a"}]}))
        command = [TIDEGATE, "proxy", "--config", config, "--records", records]
        command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "1"]
        home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TIDEGATE_LOG": "trace"}
        with running(command, home | {name: str(value) for name, value in variables.items()}) as process:
            sidecar = Sidecar(process, records)
            yield sidecar
            shown = get_metrics(sidecar)
            process.stop()
            shown += process.said + records.read_text()
            for secret in SECRETS:
                assert secret not in shown, shown

    return start


@contextmanager
def cloud(kind, **options):
    made = kind(**options)
    with serving(made.answer) as made.url:
        yield made


def bedrock(sidecar):
    return boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=sidecar.url,
        aws_access_key_id="test",
        aws_secret_access_key="tidecanary",
        aws_session_token="callers-own",
    )


def ask(sidecar, path="/model/a/converse", body=b'{"messages":[]}', method="POST"):
    """The status of a call, and our own word for what went wrong."""
    request = urllib.request.Request(sidecar.url + path, body, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        return error.code, error.headers["x-tidegate-error"]


# === Bedrock ===


@pytest.mark.parametrize("token", [None, "session/+=="])
@pytest.mark.parametrize("model", [CLAUDE, "us.amazon.nova-pro-v1:0", ARN])
def test_boto3_is_signed_anew(signing, upstream, model, token):
    session = {"AWS_SESSION_TOKEN": token} if token else {}
    keys = {"AKIDENV": (ENV_KEYS["AKIDENV"][0], token)}
    with signing({"aws": {"region": "us-east-1"}}, **ENV, **session) as sidecar:
        client = bedrock(sidecar)
        answer = client.converse(modelId=model, messages=MESSAGES)
        assert answer["output"]["message"]["content"][0]["text"]
        events = list(client.converse_stream(modelId=model, messages=MESSAGES)["stream"])
        assert "metadata" in events[-1]
        assert len(upstream.requests) == 2
        for request in upstream.requests:
            assert "callers-own" not in str(request)
            assert signed_with(request, keys) == "AKIDENV"
        if model == ARN:
            assert "%3A" in upstream.last[1] and "%2F" in upstream.last[1]
        first, second = sidecar.records(2)
        assert first["tidegate.outcome"] == second["tidegate.outcome"] == "completed"
        assert second["gen_ai.usage.output_tokens"] == events[-1]["metadata"]["usage"]["outputTokens"]


def test_the_anthropic_client_is_signed_anew(signing, upstream):
    with signing({"aws": {"region": "us-east-1"}}, **ENV) as sidecar:
        client = anthropic.AnthropicBedrock(
            aws_access_key="test", aws_secret_key="tidecanary", aws_region="us-east-1", base_url=sidecar.url
        )
        asked = {"model": CLAUDE, "max_tokens": 50, "messages": [{"role": "user", "content": "Why?"}]}
        assert client.messages.create(**asked).content
        with client.messages.stream(**asked) as stream:
            assert "".join(stream.text_stream)
        for request in upstream.requests:
            assert signed_with(request, ENV_KEYS) == "AKIDENV"


@pytest.mark.parametrize("path", [
    "/model/a:0/converse", "/model/a%3A0/converse", "/a//b/c/", "/x%20y/%C3%A9?b=2&a=1&a=%2Fc&d=",
    "/model/arn%3Aaws%3Abedrock%3A%3A1%3Ainference-profile%2Fx/converse", "/!'()*,;=@~._-/",
])  # fmt: skip
@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_any_path_and_body_is_signed_as_it_is_sent(signing, upstream, path, size):
    with signing({"aws": {"region": "us-east-1"}}, **ENV) as sidecar:
        ask(sidecar, path, b"x" * size or None, "POST" if size else "GET")
        assert upstream.last[1] == path
        assert len(upstream.last[3]) == size
        assert signed_with(upstream.last, ENV_KEYS) == "AKIDENV"


@pytest.mark.parametrize("source", [
    "environment", "profile", "named profile", "process", "assume-role", "profile's role",
    "web identity", "pod identity", "imds", "sso",
])  # fmt: skip
def test_keys_come_from_every_source_of_aws(signing, upstream, tmp_path, source):
    credentials, config = tmp_path / "credentials", tmp_path / "config"
    files = {"AWS_SHARED_CREDENTIALS_FILE": credentials, "AWS_CONFIG_FILE": config}
    files["AWS_EC2_METADATA_DISABLED"] = "true"
    own = "aws_access_key_id = AKIDENV\naws_secret_access_key = secret-ENV/+\n"
    role, aws_config = "arn:aws:iam::123456789012:role/r", {"region": "us-east-1"}
    with cloud(Aws) as aws:
        aws.keys |= ENV_KEYS
        variables, expected = dict(files), "AKIDENV"
        match source:
            case "environment":
                variables |= ENV
            case "profile":
                credentials.write_text(f"[default]\n{own}")
            case "named profile":
                credentials.write_text(f"[other]\n{own}")
                aws_config["profile"] = "other"
            case "process":
                told = {"Version": 1, "AccessKeyId": "AKIDENV", "SecretAccessKey": "secret-ENV/+"}
                (tmp_path / "told.json").write_text(json.dumps(told))
                config.write_text(f"[default]\ncredential_process = cat {tmp_path}/told.json\n")
            case "assume-role":
                variables |= ENV | {"AWS_ENDPOINT_URL_STS": aws.url}
                aws_config["assume_role"] = {"arn": role, "external_id": "x1"}
                expected = "AKIDASSUMED"
            case "profile's role":
                credentials.write_text(f"[base]\n{own}")
                config.write_text(f"[default]\nrole_arn = {role}\nsource_profile = base\n")
                variables |= {"AWS_ENDPOINT_URL_STS": aws.url}
                expected = "AKIDASSUMED"
            case "web identity":
                (tmp_path / "token").write_text("web-token")
                variables |= {"AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": tmp_path / "token"}
                variables |= {"AWS_ENDPOINT_URL_STS": aws.url}
                expected = "AKIDWEBIDENTITY"
            case "pod identity":
                (tmp_path / "token").write_text("pod-token")
                variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{aws.url}/v1/credentials"
                variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = tmp_path / "token"
                expected = "AKIDPODIDENTITY"
            case "imds":
                del variables["AWS_EC2_METADATA_DISABLED"]
                variables["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = aws.url
                expected = "AKIDIMDS"
            case "sso":
                cache = tmp_path / ".aws/sso/cache"
                cache.mkdir(parents=True)
                start = "https://start.example/start"
                config.write_text(
                    f"[default]\nsso_start_url = {start}\nsso_region = us-east-1\n"
                    "sso_account_id = 123456789012\nsso_role_name = r\n"
                )
                token = {"accessToken": "sso-token", "expiresAt": "2099-01-01T00:00:00Z", "startUrl": start}
                token["region"] = "us-east-1"
                name = hashlib.sha1(start.encode()).hexdigest()
                (cache / f"{name}.json").write_text(json.dumps(token))
                variables["AWS_ENDPOINT_URL_SSO"] = aws.url
                expected = "AKIDSSO"
        with signing({"aws": aws_config}, **variables) as sidecar:
            assert ask(sidecar) == (200, None), sidecar.process.said
            assert signed_with(upstream.last, aws.keys) == expected


def test_the_last_good_keys_serve_until_they_expire(signing, upstream, tmp_path):
    (tmp_path / "token").write_text("pod-token")
    with cloud(Aws, life_s=8) as aws:
        where = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{aws.url}/v1/credentials"}
        where["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = tmp_path / "token"
        with signing({"aws": {"region": "us-east-1"}}, **where) as sidecar:
            assert ask(sidecar) == (200, None)
            outage_and_back(sidecar, aws)
            assert signed_with(upstream.last, aws.keys) == "AKIDPODIDENTITY"


def outage_and_back(sidecar, cloud):
    """While the source is away calls go well until the credential expires, then fail clean, then go well."""
    cloud.is_down = True
    failures = lambda: "tidegate_credential_failures_total{upstream=\"a\"} 0" not in get_metrics(sidecar)
    eventually(failures, "a failure is counted")
    assert ask(sidecar) == (200, None), "the last good one serves"
    expired = eventually(lambda: (said := ask(sidecar)) != (200, None) and said, "it expires")
    assert expired == (502, "credential_unavailable")
    cloud.is_down = False
    eventually(lambda: ask(sidecar) == (200, None), "it is back")


def get_metrics(sidecar):
    with urllib.request.urlopen(f"{sidecar.admin}/metrics", timeout=20) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("path", ["", "/a%20prefix"])
def test_a_load_test_is_signed_as_a_sidecar_would(upstream, tmp_path, path):
    (tmp_path / "credential.yaml").write_text("aws: { region: us-east-1 }")
    (tmp_path / "mix.yaml").write_text("[{ call: bedrock/converse, model: 'us.amazon.nova-pro-v1:0' }]")
    report = tmp_path / "report.json"
    command = [TIDEGATE, "load", "--target", upstream.url + path, "--users", "3", "--duration", "1s"]
    command += ["--credential", tmp_path / "credential.yaml", "--mix", tmp_path / "mix.yaml", "--json", report]
    with running(command, ENV | {"AWS_SESSION_TOKEN": "session-ENV/+="}) as process:
        process.wait()
        for secret in SECRETS:
            assert secret not in process.said + report.read_text()
    assert len(upstream.requests) > 3
    for request in upstream.requests:
        assert request[1].startswith(path + "/model/")
        assert signed_with(request, {"AKIDENV": ("secret-ENV/+", "session-ENV/+=")}) == "AKIDENV"


# === Google ===


def bearer(upstream):
    fields = {name.lower(): value for name, value in upstream.last[2].items()}
    assert "x-goog-api-key" not in fields
    return fields["authorization"].removeprefix("Bearer ")


def external(google, source, **more):
    return {
        "type": "external_account",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{google.url}/sts",
        "credential_source": source,
    } | more


GOOGLE_SOURCES = [
    "authorized user", "default credentials", "metadata server", "federation from a file", "federation from a url",
    "federation, impersonated", "impersonated", "aws, environment", "aws, pod identity", "aws, irsa",
    "aws, impersonated",
]  # fmt: skip


@pytest.mark.parametrize("source", GOOGLE_SOURCES)
def test_tokens_come_from_every_source_of_google(signing, upstream, tmp_path, source):
    with ExitStack() as stack:
        google, aws = stack.enter_context(cloud(Google)), stack.enter_context(cloud(Aws))
        google.keys = aws.keys | ENV_KEYS
        (tmp_path / "subject").write_text("projected-token")
        from_file = external(google, {"file": str(tmp_path / "subject")})
        user = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "refresh-me"}
        user["token_uri"] = f"{google.url}/token"
        from_aws = external(google, {
            "environment_id": "aws1",
            "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
        }, subject_token_type="urn:ietf:params:aws:token-type:aws4_request")  # fmt: skip
        impersonation = {"service_account_impersonation_url": f"{google.url}/v1/projects/-/serviceAccounts/m@p.iam.gserviceaccount.com:generateAccessToken"}
        variables = {"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        is_default = False
        match source:
            case "authorized user":
                document, expected = user, "token-of-a-user"
            case "default credentials":
                document, expected, is_default = user, "token-of-a-user", True
            case "metadata server":
                document, expected = None, "token-of-the-node"
                variables["GCE_METADATA_HOST"] = google.url.removeprefix("http://")
            case "federation from a file":
                document, expected = from_file, "token-by-jwt"
            case "federation from a url":
                document, expected = external(google, {"url": f"{google.url}/subject"}), "token-by-jwt"
            case "federation, impersonated":
                document, expected = from_file | impersonation, "impersonated-token-by-jwt"
            case "impersonated":
                document = {"type": "impersonated_service_account", "source_credentials": user} | impersonation
                expected = "impersonated-token-of-a-user"
            case "aws, environment":
                document, expected = from_aws, "token-by-aws4_request"
                variables |= ENV
            case "aws, pod identity" | "aws, impersonated":
                document, expected = from_aws, "token-by-aws4_request"
                (tmp_path / "token").write_text("pod-token")
                variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{aws.url}/v1/credentials"
                variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = tmp_path / "token"
                if source == "aws, impersonated":
                    document, expected = from_aws | impersonation, "impersonated-token-by-aws4_request"
            case "aws, irsa":
                document, expected = from_aws, "token-by-aws4_request"
                (tmp_path / "token").write_text("web-token")
                variables |= {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_ENDPOINT_URL_STS": aws.url}
                variables["AWS_WEB_IDENTITY_TOKEN_FILE"] = tmp_path / "token"
        credential = {}
        if document:
            (tmp_path / "google.json").write_text(json.dumps(document))
            if is_default:
                variables["GOOGLE_APPLICATION_CREDENTIALS"] = tmp_path / "google.json"
            else:
                credential["file"] = "google.json"
        with signing({"google": credential}, **variables) as sidecar:
            client = genai.Client(
                vertexai=True, api_key="callers-own", http_options={"base_url": sidecar.url}
            )
            assert client.models.generate_content(model="gemini-2.5-pro", contents="Why?").text, sidecar.process.said
            assert bearer(upstream) == expected
            assert "callers-own" not in str(upstream.requests)


def test_a_service_account_signs_its_own_tokens(signing, upstream, tmp_path):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {"type": "service_account", "client_email": "a@p.iam.gserviceaccount.com", "private_key_id": "k1"}
    (tmp_path / "google.json").write_text(json.dumps(account | {"private_key": pem, "project_id": "p"}))
    with signing({"google": {"file": "google.json", "quota_project": "q"}}) as sidecar:
        client = anthropic.AnthropicVertex(
            region="us-central1", project_id="p", access_token="callers-own", base_url=f"{sidecar.url}/v1"
        )
        asked = {"model": "claude-sonnet-4@20250514", "max_tokens": 50}
        with client.messages.stream(**asked, messages=[{"role": "user", "content": "Why?"}]) as stream:
            assert "".join(stream.text_stream)
        token = bearer(upstream)
        head, claims = jwt_claims(token)
        assert (head["kid"], claims["iss"]) == ("k1", account["client_email"])
        assert "cloud-platform" in claims["scope"] and claims["exp"] > time.time()
        signed, signature = token.rsplit(".", 1)
        signature = base64.urlsafe_b64decode(signature + "==")
        key.public_key().verify(signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        assert {name.lower(): value for name, value in upstream.last[2].items()}["x-goog-user-project"] == "q"
        assert "callers-own" not in str(upstream.requests)


def test_the_last_good_token_serves_until_it_expires(signing, upstream, tmp_path):
    with cloud(Google, life_s=8) as google:
        user = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "refresh-me"}
        (tmp_path / "google.json").write_text(json.dumps(user | {"token_uri": f"{google.url}/token"}))
        with signing({"google": {"file": "google.json"}}) as sidecar:
            assert ask(sidecar) == (200, None)
            google.is_down = True
            assert ask(sidecar) == (200, None), "the last good one serves"
            expired = eventually(lambda: (said := ask(sidecar)) != (200, None) and said, "it expires")
            assert expired[0] == 502 and expired[1].startswith("credential_"), expired
            google.is_down = False
            eventually(lambda: ask(sidecar) == (200, None), "it is back")
