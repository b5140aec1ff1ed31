"""The doctor: credentials examined source by source, by the real clients, and no secret told."""

import json
import os
import subprocess
from contextlib import contextmanager

import pytest

from clouds import Aws, Google, Upstream, serving, signed_with
from conftest import TIDEGATE
from test_credentials import AUDIENCE, ENV, ENV_KEYS, SECRETS


@pytest.fixture
def upstream(simulator):
    seen = Upstream(simulator)
    with serving(seen.answer) as seen.url:
        yield seen


@contextmanager
def cloud(kind, **options):
    made = kind(**options)
    with serving(made.answer) as made.url:
        yield made


@pytest.fixture
def examine(upstream, tmp_path):
    """Examines an upstream with this credential, in nothing but this environment."""

    def run(credential, **variables):
        config = tmp_path / "tidegate.yaml"
        config.write_text(json.dumps({"upstreams": {"a": {"url": upstream.url, "credential": credential}}}))
        home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TIDEGATE_LOG": "trace"}
        env = home | {name: str(value) for name, value in variables.items()}
        shown = ""
        for more in ([], ["--json"]):
            command = [TIDEGATE, "doctor", "--config", config, "--timeout", "5s", *more]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
            shown += done.stdout + done.stderr
        for secret in SECRETS:
            assert secret not in shown, shown
        hops = json.loads(done.stdout)["upstreams"][0]["hops"]
        return done.returncode, hops, shown

    return run


def credentials(hops):
    return {hop["of"]: (hop["status"], hop["finding"]) for hop in hops if hop["hop"] == "credential"}


def test_keys_of_the_environment_are_named_by_their_ends(examine, upstream):
    key = "AKIAIOSFODNN7EXAMPLE"
    code, hops, shown = examine({"aws": {"region": "us-east-1"}}, **(ENV | {"AWS_ACCESS_KEY_ID": key}))
    assert code == 0, shown
    found = credentials(hops)
    assert found["environment"] == ("ok", "access key AKIA…MPLE, a long-term key")
    assert found["profile"][0] == "skipped"
    assert key not in shown
    assert hops[-1]["finding"].endswith("200, tokens counted by anthropic.claude-sonnet-4-20250514-v1:0")
    assert signed_with(upstream.last, {key: ENV_KEYS["AKIDENV"]}) == key


@pytest.mark.parametrize("source", ["imds", "pod identity", "irsa", "assumed role"])
def test_keys_come_with_their_source_and_end(examine, upstream, tmp_path, source):
    with cloud(Aws) as aws:
        config, variables = {"region": "us-east-1"}, {"AWS_EC2_METADATA_DISABLED": "true"}
        (tmp_path / "token").write_text("web-token" if source == "irsa" else "pod-token")
        match source:
            case "imds":
                variables = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": aws.url}
                name, key = "instance metadata (IMDS)", "AKIDIMDS"
            case "pod identity":
                variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{aws.url}/v1/credentials"
                variables["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = tmp_path / "token"
                name, key = "Pod Identity or ECS", "AKIDPODIDENTITY"
            case "irsa":
                variables |= {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_ENDPOINT_URL_STS": aws.url}
                variables["AWS_WEB_IDENTITY_TOKEN_FILE"] = tmp_path / "token"
                name, key = "web identity (IRSA)", "AKIDWEBIDENTITY"
            case "assumed role":
                variables |= ENV | {"AWS_ENDPOINT_URL_STS": aws.url}
                config["assume_role"] = {"arn": "arn:aws:iam::1:role/r"}
                name, key = "assumed role", "AKIDASSUMED"
        code, hops, shown = examine({"aws": config}, **variables)
        assert code == 0, shown
        assert credentials(hops)[name][0] == "ok"
        assert [hop for hop in hops if hop.get("of") == name][0]["expires_in_s"] > 3000
        assert signed_with(upstream.last, aws.keys) == key


def test_without_keys_each_source_says_why_and_nothing_is_called(examine, upstream):
    code, hops, shown = examine({"aws": {"region": "us-east-1"}}, AWS_EC2_METADATA_DISABLED="true")
    assert code == 1, shown
    found = credentials(hops)
    assert {status for of, (status, _) in found.items() if of != "AWS SDK"} == {"absent"}
    assert found["environment"][1] == "AWS_ACCESS_KEY_ID is not set"
    assert found["AWS SDK"] == ("failed", "no source has keys")
    assert "Pod Identity association" in shown
    assert (hops[-1]["hop"], hops[-1]["status"]) == ("call", "skipped")
    assert not upstream.requests


def test_a_source_that_fails_is_told_with_advice(examine, tmp_path):
    with cloud(Aws) as aws:
        aws.is_down = True
        (tmp_path / "token").write_text("web-token")
        variables = {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_ENDPOINT_URL_STS": aws.url}
        variables["AWS_WEB_IDENTITY_TOKEN_FILE"] = tmp_path / "token"
        code, hops, shown = examine({"aws": {"region": "us-east-1"}}, **variables)
        assert code == 1, shown
        found = credentials(hops)
        assert found["web identity (IRSA)"][0] == "failed"
        assert "arn:aws:iam::1:role/r" in found["web identity (IRSA)"][1]
        assert found["instance metadata (IMDS)"][0] == "skipped"
        assert "AWS_WEB_IDENTITY_TOKEN_FILE" in shown


GOOGLE = ["authorized user", "metadata server", "federation", "aws"]


def document(source, google, tmp_path):
    (tmp_path / "subject").write_text("projected-token")
    outside = {"type": "external_account", "audience": AUDIENCE, "token_url": f"{google.url}/sts"}
    outside["subject_token_type"] = "urn:ietf:params:oauth:token-type:jwt"
    acting = f"{google.url}/v1/projects/-/serviceAccounts/m@p.iam.gserviceaccount.com:generateAccessToken"
    match source:
        case "authorized user":
            user = {"type": "authorized_user", "client_id": "c", "client_secret": "s"}
            return user | {"refresh_token": "refresh-me", "token_uri": f"{google.url}/token"}
        case "federation":
            source = {"file": str(tmp_path / "subject")}
            return outside | {"credential_source": source, "service_account_impersonation_url": acting}
        case "aws":
            return outside | {
                "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
                "credential_source": {"environment_id": "aws1"},
            }


@pytest.mark.parametrize("is_down", [False, True])
@pytest.mark.parametrize("source", GOOGLE)
def test_sources_of_google_are_told_step_by_step(examine, upstream, tmp_path, source, is_down):
    with cloud(Google) as google:
        google.keys, google.is_down = ENV_KEYS, is_down
        variables = {"GOOGLE_CLOUD_PROJECT": "my-project", "AWS_REGION": "us-east-1"}
        if made := document(source, google, tmp_path):
            (tmp_path / "google.json").write_text(json.dumps(made))
            variables["GOOGLE_APPLICATION_CREDENTIALS"] = tmp_path / "google.json"
        else:
            variables["GCE_METADATA_HOST"] = google.url.removeprefix("http://")
        if source == "aws":
            variables |= ENV
        code, hops, shown = examine({"google": {}}, **variables)
        found = credentials(hops)
        if is_down:
            assert code == 1, shown
            failed = "metadata server" if source == "metadata server" else "access token"
            assert found[failed][0] == "failed"
            assert not upstream.requests
            return
        assert code == 0, shown
        assert found["access token"][0] == "ok"
        assert "my-project/locations/global/publishers/google/models" in hops[-1]["finding"]
        if source == "federation":
            assert AUDIENCE in found["GOOGLE_APPLICATION_CREDENTIALS"][1]
            assert found["impersonation"] == ("ok", "acts as m@p.iam.gserviceaccount.com")
        if source == "aws":
            assert found["environment"][0] == "ok"


def test_without_a_project_the_call_says_what_it_lacks(examine, tmp_path):
    with cloud(Google) as google:
        (tmp_path / "google.json").write_text(json.dumps(document("authorized user", google, tmp_path)))
        code, hops, shown = examine({"google": {"file": "google.json"}})
        assert code == 0, shown
        assert hops[-1]["status"] == "skipped" and "GOOGLE_CLOUD_PROJECT" in hops[-1]["finding"]


@pytest.mark.parametrize("text, part", [("{", "is no JSON"), ("{}", "no `type`"), ('{"type":"x"}', "unknown type `x`")])
def test_a_file_that_holds_no_credentials_is_told(examine, tmp_path, text, part):
    (tmp_path / "google.json").write_text(text)
    code, hops, shown = examine({"google": {"file": "google.json"}})
    assert code == 1, shown
    assert credentials(hops)["file"][0] == "failed" and part in shown
