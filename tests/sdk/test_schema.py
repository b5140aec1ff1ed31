"""What editors are told of the configuration: its JSON Schema, asked by a validator that knows nothing of us."""

import json
import pathlib
import subprocess

import jsonschema
import pytest
import yaml

from conftest import TIDEGATE

FOLDER = pathlib.Path(__file__).parents[2] / "config"
SCHEMA = FOLDER / "tidegate.schema.json"


def uncommented(text):
    """The reference with its examples: prose has one blank behind its mark, an example none or several."""
    lines = text.splitlines()
    is_example = lambda line: line.startswith("#") and (line[1:2] != " " or line[1:3] == "  ")
    return "\n".join(line[1:] if is_example(line) else line for line in lines)


def validator_of(path):
    schema = json.loads(path.read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.fixture(scope="module")
def validator():
    return validator_of(SCHEMA)


def test_the_schema_is_the_one_that_the_program_prints():
    printed = subprocess.run([TIDEGATE, "check", "--schema"], capture_output=True, check=True)
    assert printed.stdout.decode() == SCHEMA.read_text()


def test_the_reference_keeps_to_the_schema_with_all_its_examples(validator):
    text = (FOLDER / "tidegate.yaml").read_text()
    for text in (text, uncommented(text)):
        errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(yaml.safe_load(text))]
        assert errors == []


def test_every_example_keeps_to_the_schema_that_it_names():
    files = list((FOLDER / "examples").glob("*.yaml"))
    assert len(files) >= 3
    for file in files:
        text = file.read_text()
        mark, schema = text.splitlines()[0].split("$schema=")
        assert mark == "# yaml-language-server: ", file.name
        errors = [error.message for error in validator_of(file.parent / schema).iter_errors(yaml.safe_load(text))]
        assert errors == [], file.name


@pytest.mark.parametrize(
    "text",
    [
        "upstream: {}",
        "timeouts: { idel: 3s }",
        "timeouts: { idle: 3 }",
        "timeouts: { idle: soon }",
        "limits: { held_body: much }",
        "listen: localhost",
        "workers: 0",
        "upstreams: { a: { ulr: 'http://a' } }",
        "upstreams: { a: { url: 'ftp://a' } }",
        "upstreams: { a: { url: 'http://a', credential: {} } }",
        "upstreams: { a: { url: 'http://a', credential: { aws: {}, google: {} } } }",
        "upstreams: { a: { url: 'http://a', credential: { bearer: { env: A, file: b } } } }",
        "upstreams: { a: { url: 'http://a', credential: { header: { env: A } } } }",
        "routes: [{ match: {} }]",
        "routes: [{ upstream: a, match: { dialect: opnai } }]",
        "otlp: { traces: { sampler: sometimes } }",
    ],
)
def test_a_mistake_is_seen(validator, text):
    assert list(validator.iter_errors(yaml.safe_load(text))), text
