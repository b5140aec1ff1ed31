"""What a cluster is told: charts and kustomizations as they are rendered, and whether a cluster would take them."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import yaml
from helm_python import Chart, _native

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "config" / "helm" / "tidegate"
APPLICATION = Path(__file__).with_name("kubernetes") / "application"
# Where tests/run has put the packages, which Node looks for beside a script.
PACKAGES = Path(os.environ.get("TIDEGATE_JS", "target/js")).absolute()
VERSIONS = [f"1.{minor}" for minor in range(25, 38)]
# Before it there are no init containers that go on, and no `sleep` for a preStop.
NATIVE_SINCE = VERSIONS.index("1.29")


class Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is a mistake."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice: {keys}{node.start_mark}"
        return super().construct_mapping(node, deep)


def documents(text):
    return [document for document in yaml.load_all(text, Loader) if document]


def rendered(chart, values, version=None):
    """The documents that a chart makes of these values, for a version of Kubernetes or for Helm's own."""
    release = {"name": "demo", "namespace": "models"} | ({"kube_version": f"v{version}.0"} if version else {})
    with Chart.load(chart) as loaded:
        # The library knows the version, its `render` does not.
        texts = json.loads(_native.call_string("helm_render", loaded._raw(), json.dumps(values), json.dumps(release)))
    kept = {path: text for path, text in texts.items() if path.endswith(".yaml")}
    return [document for path in sorted(kept) for document in documents(kept[path])]


def application_chart(folder):
    """The chart of an application, with ours among its dependencies."""
    chart = folder / "application"
    shutil.copytree(APPLICATION, chart)
    shutil.copytree(CHART, chart / "charts" / "tidegate")
    return chart


def kustomized(folder):
    """The documents that a kustomization makes."""
    made = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return documents(made.stdout)


def has_kustomize():
    """Whether there is a kubectl whose kustomize knows components: since 1.21."""
    if not shutil.which("kubectl"):
        return False
    told = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True)
    minor = json.loads(told.stdout or "{}").get("clientVersion", {}).get("minor", "0")
    return int(minor.rstrip("+")) >= 21


# === Pods ===


def pods(document):
    """The pods' own specifications that a document has."""
    spec = document.get("spec") or {}
    match document["kind"]:
        case "Pod":
            return [spec]
        case "CronJob":
            return [spec["jobTemplate"]["spec"]["template"]["spec"]]
        case "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicaSet":
            return [spec["template"]["spec"]]
        case _:
            return []


def containers(pod):
    return [*(pod.get("initContainers") or []), *pod["containers"]]


def is_native(document):
    """Whether it asks for what clusters have since 1.29."""
    for pod in pods(document):
        for container in containers(pod):
            sleeps = "sleep" in container.get("lifecycle", {}).get("preStop", {})
            if container.get("restartPolicy") == "Always" or sleeps:
                return True
    return False


def restricted(pod):
    """What the restricted Pod Security Standard has against a pod, and what we ask beyond it."""
    faults = []
    whole = pod.get("securityContext") or {}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            faults.append(key)
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    for volume in pod.get("volumes") or []:
        if not set(volume) - {"name"} <= allowed:
            faults.append(f"volume {volume['name']}")
    for container in containers(pod):
        own = container.get("securityContext") or {}
        say = lambda fault: faults.append(f"{container['name']}: {fault}")
        effective = lambda key: own.get(key, whole.get(key))
        if effective("runAsNonRoot") is not True or effective("runAsUser") == 0:
            say("may run as root")
        if own.get("readOnlyRootFilesystem") is not True:
            say("its root can be written to")
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            say("may gain privileges")
        capabilities = own.get("capabilities") or {}
        if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            say("has capabilities")
        if (effective("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
            say("has no seccomp profile")
        if any("hostPort" in port for port in container.get("ports", [])):
            say("takes a port of its node")
        if own.get("procMount", "Default") != "Default":
            say("sees more of /proc")
    return faults


# === Whether a cluster would take it ===


def taken_by(documents_):
    """Fails where a version of Kubernetes would not take a document; gives kinds and versions that did."""
    pairs = []
    for document in documents_:
        group = document["apiVersion"].split("/")[0]
        if group in ("monitoring.coreos.com", "keda.sh"):
            continue
        for version in VERSIONS[NATIVE_SINCE if is_native(document) else 0 :]:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise AssertionError(f"{version}: {name_of(document)}: {error.message}") from error
            pairs.append((document["kind"], version))
    return pairs


def taken_by_operators(documents_):
    """Fails where the operator of a custom resource would not take it; gives the kinds that it did."""
    foreign = [doc for doc in documents_ if doc["apiVersion"].split("/")[0] in ("monitoring.coreos.com", "keda.sh")]
    if foreign:
        script = PACKAGES / "resources.mjs"
        shutil.copy(Path(__file__).with_name("js") / "resources.mjs", script)
        told = subprocess.run(["node", script], input=json.dumps(foreign), capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
    return [document["kind"] for document in foreign]


def name_of(document):
    return f"{document['kind']} {document['metadata'].get('name')}"
