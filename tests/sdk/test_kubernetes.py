"""What we give to clusters: each version of Kubernetes takes it, the strictest policies let it run, and all forms of it agree.

`TIDEGATE_GOLDEN=write pytest tests/sdk/test_kubernetes.py` writes anew what the chart is expected to make.
"""

import copy
import gzip
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import botocore.session
import jsonschema
import kubernetes_validate
import pytest
import yaml
from botocore.validate import ParamValidator
from helm_python import Chart, lint
from helm_python.errors import HelmError

import manifests
from conftest import TIDEGATE
from manifests import CHART, ROOT, VERSIONS, documents, pods, rendered
from test_rules import known

CASES = Path(__file__).with_name("kubernetes") / "cases"
CASE_NAMES = sorted(path.name.removesuffix(".values.yaml") for path in CASES.glob("*.values.yaml"))
KUBERNETES = ROOT / "config" / "kubernetes"
BOARDS = ROOT / "dashboards" / "grafana"
# A kustomization is no resource of a cluster, and a patch no whole one.
PATCHES = {"sidecar.yaml", "intercept.yaml", "application.yaml", "kustomization.yaml", "tidegate.yaml"}

needs_kustomize = pytest.mark.skipif(not manifests.has_kustomize(), reason="no kubectl since 1.21, whose kustomize knows components; that of Debian 12 is older")
has_operators = (manifests.PACKAGES / "node_modules" / "@kubernetes-models").exists()
needs_operators = pytest.mark.skipif(not has_operators, reason="the definitions of operators (npm) are not installed")


def plain_files():
    """Every file that `kubectl apply` is to take as it stands."""
    folders = [ROOT / "config" / "examples", KUBERNETES, ROOT / "dashboards" / "kubernetes"]
    files = [path for folder in folders for path in sorted(folder.rglob("*.yaml"))]
    kept = [path for path in files if path.name not in PATCHES]
    return [path for path in kept if re.search(r"^apiVersion: ", path.read_text(), re.M)]


def kustomizations():
    files = [path for path in (ROOT / "config").rglob("kustomization.yaml")]
    return sorted(path.parent for path in files if "kind: Component" not in path.read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What each case of the charts makes, by its name."""
    application = manifests.application_chart(tmp_path_factory.mktemp("charts"))
    charts = {name: application if name.startswith("application") else CHART for name in CASE_NAMES}
    return {name: rendered(chart, values_of(name)) for name, chart in charts.items()}


def values_of(name):
    return yaml.safe_load((CASES / f"{name}.values.yaml").read_text())


@pytest.fixture(scope="module")
def everything(made):
    """All documents that there are, with where each is from."""
    all_of_it = [(f"case {name}", document) for name, case in made.items() for document in case]
    for path in plain_files():
        all_of_it += [(path.relative_to(ROOT), document) for document in documents(path.read_text())]
    if manifests.has_kustomize():
        for folder in kustomizations():
            all_of_it += [(folder.relative_to(ROOT), document) for document in manifests.kustomized(folder)]
    assert len(all_of_it) > 30
    return all_of_it


# === Of everything ===


def test_every_version_of_kubernetes_takes_it(everything, capsys):
    pairs = Counter()
    for where, document in everything:
        try:
            pairs.update(manifests.taken_by([document]))
        except AssertionError as error:
            pytest.fail(f"{where}: {error}")
    kinds, versions = {kind for kind, _ in pairs}, {version for _, version in pairs}
    with capsys.disabled():
        print(f"\n{len(everything)} documents: {len(kinds)} kinds x {len(versions)} versions, {pairs.total()} validations")
    assert versions == set(VERSIONS) and len(kinds) >= 8


def test_what_a_version_does_not_know_is_seen():
    deployment = documents((KUBERNETES / "example" / "deployment.yaml").read_text())
    deployment[0]["spec"]["template"]["spec"]["containers"][0]["restartPolice"] = "Always"
    with pytest.raises(AssertionError, match="restartPolice"):
        manifests.taken_by(deployment)


@needs_operators
def test_operators_take_what_is_theirs(everything):
    kinds = set(manifests.taken_by_operators([document for _, document in everything]))
    assert {"PodMonitor", "PrometheusRule"} <= kinds


@needs_operators
def test_what_an_operator_does_not_know_is_seen():
    monitor = documents((ROOT / "dashboards" / "kubernetes" / "podmonitor.yaml").read_text())[0]
    for spec in ({"selector": {}, "podMetricsEndpoints": [{"prot": "x"}]}, {"podMetricsEndpoints": []}):
        with pytest.raises(AssertionError, match="prot|selector"):
            manifests.taken_by_operators([monitor | {"spec": spec}])


def test_the_restricted_standard_has_nothing_against_our_container(everything):
    pods_seen = 0
    for where, document in everything:
        for pod in pods(document):
            faults = [fault for fault in manifests.restricted(pod) if fault.startswith("tidegate")]
            assert faults == [], f"{where}: {manifests.name_of(document)}"
            pods_seen += any(container["name"] == "tidegate" for container in manifests.containers(pod))
    assert pods_seen >= 6


def test_whole_pods_of_charts_and_components_meet_the_restricted_standard(made):
    own = [document for name in CASE_NAMES for document in made[name]]
    if manifests.has_kustomize():
        own += manifests.kustomized(KUBERNETES / "example")
    assert [fault for document in own for pod in pods(document) for fault in manifests.restricted(pod)] == []


@pytest.mark.parametrize(
    "change",
    [
        {"runAsNonRoot": False},
        {"readOnlyRootFilesystem": False},
        {"allowPrivilegeEscalation": True},
        {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}},
        {"seccompProfile": {"type": "Unconfined"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_standard_sees_what_is_looser(made, change):
    pod = copy.deepcopy(pods(next(doc for doc in made["gateway"] if doc["kind"] == "Deployment"))[0])
    pod["containers"][0]["securityContext"] |= change
    assert len(manifests.restricted(pod)) == 1


def test_every_configuration_in_a_config_map_is_checked_without_a_word(everything, tmp_path):
    seen = 0
    for where, document in everything:
        for name, text in (document.get("data") or {}).items() if document["kind"] == "ConfigMap" else ():
            if name == "tidegate.yaml":
                file = tmp_path / "tidegate.yaml"
                file.write_text(text)
                variables = {"OPENAI_API_KEY": "x", "VLLM_API_KEY": "x", "AWS_ACCESS_KEY_ID": "x"}
                told = subprocess.run([TIDEGATE, "check", file], capture_output=True, text=True, env=os.environ | variables)
                # A certificate that a Secret brings is not here.
                told_of = told.stderr.replace(str(file), "").strip()
                assert told.returncode == 0 and told_of == "", f"{where}: {told.stdout}{told.stderr}"
                seen += 1
    assert seen >= 4


def test_a_container_sees_the_folder_of_its_configuration_and_not_one_file(everything):
    for where, document in everything:
        for pod in pods(document):
            for container in manifests.containers(pod):
                for mount in container.get("volumeMounts") or []:
                    if mount["mountPath"].startswith("/etc/tidegate"):
                        assert "subPath" not in mount, f"{where}: a file mounted by subPath never changes"


# === Examples ===


def test_every_application_of_an_example_comes_by_a_sidecar_that_listens_there(everything):
    seen = 0
    for where, document in everything:
        for pod in pods(document):
            by_name = {container["name"]: container for container in manifests.containers(pod)}
            sidecar = by_name.pop("tidegate", None)
            told = {v["value"] for c in by_name.values() for v in c.get("env") or [] if "value" in v}
            asked = {port for value in told for port in re.findall(r"http://127\.0\.0\.1:(\d+)", value)}
            listens = {v["name"]: v["value"].split(":")[-1] for v in (sidecar or {}).get("env", []) if "value" in v}
            known = {listens.get(name) for name in ("TIDEGATE_LISTEN", "TIDEGATE_INTERCEPT")}
            assert asked <= known, f"{where}: {manifests.name_of(document)}"
            seen += bool(asked)
    assert seen >= 6


def test_an_application_behind_a_proxy_is_told_what_the_program_would_tell_it(everything):
    proxy = told_by_program("--way", "proxy", "--ca", "/var/lib/tidegate")
    seen = 0
    for where, document in everything:
        for pod in pods(document):
            for container in pod["containers"]:
                env = {variable["name"]: variable.get("value") for variable in container.get("env") or []}
                if "HTTPS_PROXY" in env:
                    for name in ("NO_PROXY", "no_proxy"):
                        assert env[name].startswith(proxy[name]), where
                        env[name] = proxy[name]
                    assert {name: env.get(name) for name in proxy} == proxy, where
                    seen += 1
    assert seen >= 3


def queries():
    """What autoscalers ask Prometheus."""
    folder = ROOT / "config" / "examples" / "kubernetes" / "autoscaling"
    for scaled in documents((folder / "keda.yaml").read_text()):
        yield from (trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"])
    adapter = yaml.safe_load((folder / "adapter-values.yaml").read_text())
    for rule in [*adapter["rules"]["custom"], *adapter["rules"]["external"]]:
        yield rule["seriesQuery"]
        yield rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="default"')
    yield from re.findall(r"\| `(sum\(.*?)` \|", (folder / "README.md").read_text())


def test_autoscalers_ask_for_what_is_measured(tmp_path):
    asked = list(queries())
    assert len(asked) >= 12
    for query in asked:
        known(query)
    if shutil.which("promtool"):
        rules = [{"record": f"a:b:c{number}", "expr": query} for number, query in enumerate(asked)]
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
        told = subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True)
        assert told.returncode == 0, told.stderr


def test_a_horizontal_autoscaler_asks_for_what_the_adapter_gives():
    folder = ROOT / "config" / "examples" / "kubernetes" / "autoscaling"
    adapter = yaml.safe_load((folder / "adapter-values.yaml").read_text())["rules"]
    given = {kind: {rule["name"]["as"] for rule in adapter[kind]} for kind in ("custom", "external")}
    asked = {"custom": set(), "external": set()}
    for scaler in documents((folder / "hpa.yaml").read_text()):
        for metric in scaler["spec"]["metrics"]:
            kind = "custom" if metric["type"] == "Pods" else "external"
            asked[kind].add(metric[metric["type"].lower()]["metric"]["name"])
    assert asked == given


def test_ecs_takes_the_task_and_the_program_its_configuration():
    folder = ROOT / "config" / "examples" / "ecs"
    task = json.loads((folder / "task-definition.json").read_text())
    service = botocore.session.get_session().get_service_model("ecs")
    shape = service.operation_model("RegisterTaskDefinition").input_shape
    report = ParamValidator().validate(task, shape)
    assert not report.has_errors(), report.generate_report()
    assert "Unknown parameter" in ParamValidator().validate(task | {"cpus": "1"}, shape).generate_report()

    sidecar, application = task["containerDefinitions"]
    assert sidecar["healthCheck"]["command"] == ["CMD", "/tidegate", "health"]
    assert {"containerName": sidecar["name"], "condition": "HEALTHY"} in application["dependsOn"]
    assert sidecar["stopTimeout"] <= 120, "Fargate allows no more"
    told = subprocess.run([TIDEGATE, "check", folder / "tidegate.yaml"], capture_output=True, text=True)
    assert told.returncode == 0 and told.stderr == "", told.stderr


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_a_pipeline_names_files_and_jobs_that_exist(name):
    folder = ROOT / "config" / "examples" / "kubernetes" / "load-test"
    text = (folder / f"{name}.yaml").read_text()
    yaml.safe_load(text)
    shards, verdict = folder.parent.parent / "ci" / "kubernetes-shards.yaml", folder / "verdict.yaml"
    assert set(re.findall(r"load/([\w-]+\.yaml)", text)) == {shards.name, verdict.name}
    jobs = {documents(path.read_text())[0]["metadata"]["name"] for path in (shards, verdict)}
    assert set(re.findall(r"job/([\w-]+)", text)) == jobs
    (began,) = re.findall(r"sed \"s/([^/]*)/", text)
    assert began in shards.read_text()
    (pod,) = pods(documents(verdict.read_text())[0])
    parts = [argument for argument in pod["containers"][0]["args"] if re.fullmatch(r"/reports/\d+\.json", argument)]
    assert len(parts) == documents(shards.read_text())[0]["spec"]["completions"]


# === The chart ===


def test_the_chart_makes_nothing_unless_it_is_told_to():
    assert rendered(CHART, {}) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_chart_gives_a_cluster_the_sidecar_that_it_knows(tmp_path, version):
    made_ = rendered(manifests.application_chart(tmp_path), {}, version)
    (pod,) = (pod for document in made_ for pod in pods(document))
    is_native = VERSIONS.index(version) >= manifests.NATIVE_SINCE
    assert [container["name"] for container in pod["initContainers"] or []] == (["tidegate"] if is_native else [])
    assert len(pod["containers"]) == (1 if is_native else 2)
    for document in made_:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("name", CASE_NAMES)
def test_the_chart_makes_what_is_expected(made, name):
    golden = CASES / f"{name}.golden.yaml"
    text = yaml.safe_dump_all([without_rules(document) for document in made[name]], sort_keys=False, width=120)
    if os.environ.get("TIDEGATE_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text(), f"{golden.name} says otherwise"


def without_rules(document):
    """Rules and boards stand elsewhere."""
    if document["kind"] == "PrometheusRule":
        return document | {"spec": {"groups": [group["name"] for group in document["spec"]["groups"]]}}
    if document["metadata"]["name"].startswith("tidegate-") and "data" in document:
        return document | {"data": sorted(document["data"])}
    return document


def test_the_chart_has_the_rules_and_boards_that_stand_in_dashboards(made):
    rule = next(document for document in made["monitoring"] if document["kind"] == "PrometheusRule")
    text = (ROOT / "dashboards" / "kubernetes" / "prometheusrule.yaml").read_text()
    expected = yaml.safe_load(text.replace("https://tidegate.example/runbooks", "https://wiki.example.org/tidegate"))
    assert rule["spec"] == expected["spec"]
    assert "https://wiki.example.org/tidegate/TidegateP99Over3s.md" in json.dumps(rule)

    data = [document["data"] for document in made["monitoring"] if document["kind"] == "ConfigMap"]
    boards = {name: json.loads(text) for one in data for name, text in one.items()}
    for path in BOARDS.glob("*.json"):
        text = path.read_text().replace("https://tidegate.example/runbooks", "https://wiki.example.org/tidegate")
        assert boards.pop(f"tidegate-{path.name}") == json.loads(text)
    assert boards == {}


def test_the_chart_scrapes_what_dashboards_scrape():
    monitor = rendered(CHART, {"podMonitor": {"enabled": True}})[0]
    expected = documents((ROOT / "dashboards" / "kubernetes" / "podmonitor.yaml").read_text())[0]
    assert monitor["spec"] == expected["spec"]


def test_helm_finds_no_fault_in_the_chart():
    told = lint(CHART, {"gateway": {"enabled": True}, "upstream": "http://a"}, strict=True)
    assert told["errors"] == []
    assert [message for message in told["messages"] if message["severity"] > 1] == []


def test_a_release_of_the_chart_fits_into_a_secret(tmp_path):
    with Chart.load(CHART) as chart:
        size = Path(chart.save(tmp_path)).stat().st_size
        texts = chart.render({"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}})
    # Helm keeps the chart and what it made of it, packed, and in base64 twice over.
    assert (size + len(gzip.compress("".join(texts.values()).encode()))) * 16 / 9 < 1024 * 1024


@pytest.mark.parametrize(
    "values",
    [
        {"gatway": {"enabled": True}},
        {"gateway": {"replica": 3}},
        {"image": {"pullPolicy": "Sometimes"}},
        {"image": {"digest": "sha256:12"}},
        {"ports": {"calls": 99999}},
        {"sidecar": {"native": "maybe"}},
        {"resources": {"request": {}}},
        {"podMonitor": {"interval": "30"}},
        {"env": [{"value": "x"}]},
        {"terminationGracePeriodSeconds": 3},
    ],
    ids=str,
)
def test_a_mistake_in_the_values_is_refused(values):
    with pytest.raises(HelmError):
        rendered(CHART, values | {"upstream": "http://a"})


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"gateway": {"enabled": True}}, "somewhere to send calls to"),
        ({"gateway": {"enabled": True, "autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": 0}}, "upstream": "http://a"}, "needs targetCPU"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(values, why):
    with pytest.raises(HelmError, match=why):
        rendered(CHART, values)


def test_every_value_has_a_default_and_is_known_to_the_schema():
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    values = yaml.safe_load(text)
    assert list(jsonschema.Draft7Validator(schema).iter_errors(values)) == []
    # A value without a default would be one that nobody finds.
    optional = {"global", "enabled", "claims", "matchNames", "successThreshold", "initialDelaySeconds"}
    for path, known in known_keys(schema):
        given = values
        for key in path:
            given = given[key]
        assert set(known) - optional <= set(given), path


def known_keys(schema, path=()):
    """The keys that the schema knows, for each of its objects."""
    yield path, schema["properties"]
    for key, inner in schema["properties"].items():
        if "properties" in inner:
            yield from known_keys(inner, (*path, key))


# === All forms of it agree ===


def our_container(documents_):
    found = [
        container
        for document in documents_
        for pod in pods(document)
        for container in manifests.containers(pod)
        if container["name"] == "tidegate"
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("component", "case"), [("sidecar", "application-native"), ("sidecar-plain", "application-beside")])
def test_chart_and_component_have_the_same_container(made, component, case):
    patch = yaml.safe_load((KUBERNETES / component / "sidecar.yaml").read_text())
    ours, theirs = our_container([patch | {"spec": with_containers(patch["spec"])}]), our_container(made[case])
    # The chart knows how long the pod may take to end, and says it.
    theirs["env"] = [variable for variable in theirs["env"] if variable["name"] != "TERMINATION_GRACE_PERIOD_SECONDS"]
    assert ours == theirs


def with_containers(spec):
    pod = spec["template"]["spec"]
    return spec | {"template": {"spec": {"containers": []} | pod}}


def test_the_chart_tells_an_application_what_the_program_would_tell_it(tmp_path):
    chart = manifests.application_chart(tmp_path)
    known = re.findall(r'^  "([a-z0-9-]+)" \(list', (CHART / "templates" / "_sidecar.tpl").read_text(), re.M)
    assert len(known) >= 9
    listed = re.search(r"`tidegate env --for` knows: ([^.]*)\.", re.sub(r"\n *# ", " ", (CHART / "values.yaml").read_text())).group(1)
    assert sorted(listed.split(", ")) == sorted(known)
    for client in known:
        assert told_to_application(chart, {"application": {"clients": [client]}}) == told_by_program("--for", client)

    proxy = {"intercept": {"enabled": True}, "application": {"way": "proxy"}}
    assert told_to_application(chart, proxy) == told_by_program("--way", "proxy", "--ca", "/var/lib/tidegate")
    patch = yaml.safe_load((KUBERNETES / "intercept" / "application.yaml").read_text())
    container = patch["spec"]["template"]["spec"]["containers"][0]
    assert {v["name"]: v["value"] for v in container["env"]} == told_to_application(chart, proxy)


def told_to_application(chart, values):
    (deployment,) = (doc for doc in rendered(chart, {"tidegate": values}) if doc["kind"] == "Deployment")
    (container,) = (one for one in pods(deployment)[0]["containers"] if one["name"] == "application")
    return {variable["name"]: variable["value"] for variable in container["env"] or []}


def told_by_program(*arguments):
    told = subprocess.run([TIDEGATE, "env", *arguments], capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"^export (\w+)='?([^'\n]*)'?$", told, re.M))


# === Kustomize ===


@needs_kustomize
def test_a_component_adds_the_sidecar_and_leaves_the_application_as_it_was():
    (before,) = documents((KUBERNETES / "example" / "deployment.yaml").read_text())
    after = next(doc for doc in manifests.kustomized(KUBERNETES / "example") if doc["kind"] == "Deployment")
    pod = pods(after)[0]
    assert [container["name"] for container in pod.pop("initContainers")] == ["tidegate"]
    assert [volume["name"] for volume in pod.pop("volumes")] == ["tidegate-config"]
    env = pod["containers"][0]["env"]
    env.remove({"name": "OPENAI_BASE_URL", "value": "http://127.0.0.1:4100/v1"})
    assert after == before


@needs_kustomize
@pytest.mark.parametrize("component", ["sidecar", "sidecar-plain"])
def test_a_component_takes_any_deployment_another_image_and_another_configuration(tmp_path, component):
    (deployment,) = documents((KUBERNETES / "example" / "deployment.yaml").read_text())
    second, third = copy.deepcopy(deployment), copy.deepcopy(deployment)
    second["metadata"]["name"] = "other"
    third["metadata"] = {"name": "without", "labels": {"tidegate": "off"}}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([deployment, second, third]))
    (tmp_path / "tidegate.yaml").write_text("upstreams: {}\n")
    relative = os.path.relpath(KUBERNETES / component, tmp_path)
    generator = {"name": "tidegate", "files": ["tidegate.yaml"], "options": {"disableNameSuffixHash": True}}
    image = {"name": "registry.example.com/tidegate", "newName": "mine/tidegate", "newTag": "7"}
    kustomization = {"resources": ["all.yaml"], "components": [relative], "images": [image]}
    kustomization |= {"configMapGenerator": [generator], "namePrefix": "eu-", "namespace": "models"}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    after = {document["metadata"]["name"]: document for document in manifests.kustomized(tmp_path)}
    assert set(after) == {"eu-assistant", "eu-other", "eu-without", "eu-tidegate"}
    assert after["eu-tidegate"]["data"] == {"tidegate.yaml": "upstreams: {}\n"}
    for name in ("eu-assistant", "eu-other"):
        assert our_container([after[name]])["image"] == "mine/tidegate:7"
        assert pods(after[name])[0]["volumes"][0]["configMap"]["name"] == "eu-tidegate"
    assert after["eu-without"]["spec"] == third["spec"]


@needs_kustomize
def test_the_intercepting_component_goes_with_the_sidecar(tmp_path):
    for folder in ("sidecar", "intercept", "example"):
        (tmp_path / folder).mkdir()
        for path in (KUBERNETES / folder).iterdir():
            (tmp_path / folder / path.name).write_text(path.read_text())
    application = (KUBERNETES / "intercept" / "application.yaml").read_text()
    (tmp_path / "example" / "patch.yaml").write_text(application.replace(": application\n", ": assistant\n"))
    kustomization = yaml.safe_load((KUBERNETES / "example" / "kustomization.yaml").read_text())
    kustomization |= {"components": ["../sidecar", "../intercept"], "patches": [{"path": "patch.yaml"}]}
    (tmp_path / "example" / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    after = manifests.kustomized(tmp_path / "example")
    manifests.taken_by(after)
    (pod,) = (pod for document in after for pod in pods(document))
    assert {volume["name"] for volume in pod["volumes"]} == {"tidegate-config", "tidegate-state"}
    mounted = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {"/var/lib/tidegate/bundle.pem", "/var/lib/tidegate/ca.pem"}, "not the authority's key"
    assert manifests.restricted(pod) == []
