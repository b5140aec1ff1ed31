"""The collector's configurations are whole, and about metrics and labels that exist. (No collector of that kind can be had to run them.)"""

import re
from pathlib import Path

import pytest
import yaml

from test_rules import ROOT

FORMS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "dashboards" / "collector").glob("*.yaml"))}

# Kinds of components that the collector's contrib distribution has.
KINDS = {
    "receivers": {"otlp"},
    "processors": {"batch", "cumulativetodelta", "filter", "memory_limiter", "metricstransform", "resourcedetection", "transform"},
    "exporters": {"awsemf", "awsxray", "debug", "googlecloud", "googlemanagedprometheus", "prometheusremotewrite"},
}


def families():
    """The labels of each metric, by its name in OTLP, as the catalog has them."""
    catalog = ROOT / "proxy" / "src" / "export" / "catalog"
    text = "".join(path.read_text() for path in sorted(catalog.rglob("*.rs")))
    lists = dict(re.findall(r"^const (\w+): &\[&Label\] =\s*&\[(.*?)\];", text, re.M | re.S))
    names = dict(re.findall(r'static (\w+): Label\s*=\s*Label::same\(\s*"(\w+)"', text))
    for name, labels in re.findall(r'Family = Family \{\s*name: "([^"]+)",.*?labels: &?\[?(.*?)\]?,\s*read', text, re.S):
        words = re.findall(r"[A-Z_]+", lists.get(labels.strip(), labels))
        yield name, {names.get(word) for word in words}


FAMILIES = dict(families())


def labels_of(pattern):
    """The labels that all metrics have which this pattern matches; there must be one."""
    found = [labels for name, labels in FAMILIES.items() if re.search(pattern, name)]
    assert found, f"no metric is called {pattern}"
    return set.intersection(*found)


@pytest.mark.parametrize("name", FORMS)
def test_every_pipeline_has_what_it_names_and_nothing_is_named_in_vain(name):
    form = FORMS[name]
    pipelines = form["service"]["pipelines"].values()
    for part, kinds in KINDS.items():
        declared = set(form.get(part, {}))
        assert {component.split("/")[0] for component in declared} <= kinds
        assert declared == {component for pipeline in pipelines for component in pipeline.get(part, [])}
    for pipeline in pipelines:
        order = [component.split("/")[0] for component in pipeline.get("processors", [])]
        # Memory is looked after first, and what is sent together is put together last.
        assert not order or (order[0], order[-1]) == ("memory_limiter", "batch")


@pytest.mark.parametrize("name", FORMS)
def test_a_configuration_says_how_it_is_run_and_takes_secrets_from_nowhere_but_the_environment(name):
    text = (ROOT / "dashboards" / "collector" / f"{name}.yaml").read_text()
    assert re.search(rf"^#.*--config dashboards/collector/{name}.yaml$", text, re.M)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=" in text
    assert all(re.fullmatch(r"\$\{env:[A-Z_]+\}", word) for word in re.findall(r"\$\{[^}]*\}?", text))


def test_google_cloud_gets_latency_calls_and_tokens_by_model_region_and_status():
    form = FORMS["googlecloud"]
    made = {}
    for transform in form["processors"]["metricstransform/vertexai"]["transforms"]:
        [operation] = transform["operations"]
        assert set(operation["label_set"]) <= labels_of(f"^{re.escape(transform['include'])}$")
        made[transform["new_name"]] = set(operation["label_set"])
        # It is not filtered away before.
        [kept] = re.findall(r'"(.*)"', form["processors"]["filter/vertexai"]["metrics"]["metric"][0])
        assert re.search(kept, transform["include"])
    assert {"model", "region"} <= made["vertexai/latency"]
    assert {"model", "region", "status"} <= made["vertexai/calls"]
    assert {"model", "region", "type"} <= made["vertexai/tokens"]
    assert form["exporters"]["googlecloud"]["metric"]["prefix"] == "custom.googleapis.com"


def test_cloudwatch_is_told_of_metrics_and_dimensions_that_exist():
    for declaration in FORMS["aws"]["exporters"]["awsemf"]["metric_declarations"]:
        for pattern in declaration["metric_name_selectors"]:
            for dimensions in declaration["dimensions"]:
                assert set(dimensions) <= labels_of(pattern), pattern
    fields = (ROOT / "wire" / "src" / "record.rs").read_text()
    for attribute in FORMS["aws"]["exporters"]["awsxray"]["indexed_attributes"]:
        assert f'"{attribute}"' in fields
