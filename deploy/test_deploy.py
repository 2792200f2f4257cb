"""Checks the files of deploy/ with their linters: `make deploy-check`.

Linters that are not on PyPI (helm, systemd-analyze) are skipped if they are not installed, and the summary
reports what was not checked.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import promql_parser
import pytest
import render
import yaml

DEPLOY = Path(__file__).parent
MANIFESTS = [render.MANIFESTS / name for name in sorted(render.RENDERED)]
# The oldest Kubernetes that the chart supports, and the newest whose schemas the linter has.
KUBERNETES = ("1.30", "1.37")
# Custom resources, with the required fields of their specs.
CUSTOM = {
    "monitoring.coreos.com/v1/ServiceMonitor": {"selector", "endpoints"},
    "keda.sh/v1alpha1/ScaledObject": {"scaleTargetRef", "triggers"},
    "serving.kserve.io/v1alpha1/ServingRuntime": {"containers", "supportedModelFormats"},
}

HELM = shutil.which("helm")
needs_helm = pytest.mark.skipif(
    HELM is None,
    reason="helm is not installed: only what was rendered from the chart is checked, not the chart",
)

VARIANTS = [
    pytest.param(
        [
            *render.CLAIM,
            "image.tag=0.1.0-gpu,serve.device=cuda,runtimeClassName=nvidia",
            r"resources.limits.nvidia\.com/gpu=1",
        ],
        "1.30",
        id="gpu",
    ),
    pytest.param(["models.image=models:1"], "1.33", id="image-volume"),
    pytest.param(
        ["models.fetch.image=fetcher:1", "models.fetch.args={sync,/models}"], "1.30", id="init-container"
    ),
    pytest.param(
        [*render.CLAIM, "sharedMemory=1Gi", "sidecars[0].name=a,sidecars[0].image=b"], "1.30", id="shm"
    ),
    pytest.param(
        [
            *render.CLAIM,
            "tls.secret=t,tls.mutual=true",
            "networkPolicy.enabled=true",
            "service.headless=false",
        ],
        "1.30",
        id="mutual-tls",
    ),
    pytest.param(
        [
            *render.CLAIM,
            "serve.strict-readiness=true,serve.access-log=false,serve.load-model={a,b},serve.rate-limit=0.5",
            "preStopSeconds=7,serve.drain-timeout=12.5",
        ],
        "1.30",
        id="options",
    ),
]


def linter(name: str) -> str:
    """Return the path of a linter of requirements/deploy.txt."""
    found = shutil.which(name)
    assert found, f"{name} is not installed; `make deploy-check` brings it"
    return found


def documents(text: str) -> Iterator[dict[str, Any]]:
    return (each for each in yaml.safe_load_all(text) if each)


def check(document: dict[str, Any], version: str) -> None:
    """Raise unless an object and all of its fields match the schema of its kind."""
    kind = f"{document['apiVersion']}/{document['kind']}"
    if kind in CUSTOM:
        assert document["spec"].keys() >= CUSTOM[kind]
        if pod := {
            key: document["spec"][key] for key in ("containers", "volumes") if key in document["spec"]
        }:
            metadata = {"name": "of-the-runtime"}
            check({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}, version)
    else:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_dockerfile_passes_hadolint() -> None:
    subprocess.run(
        [linter("hadolint"), "--failure-threshold", "style", str(DEPLOY / "Dockerfile")], check=True
    )


def test_every_yaml_file_passes_yamllint() -> None:
    subprocess.run([linter("yamllint"), "--strict", "-c", str(DEPLOY / ".yamllint"), str(DEPLOY)], check=True)


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.name)
def test_a_manifest_fits_kubernetes_schemas(file: Path, version: str) -> None:
    found = list(documents(file.read_text()))
    assert found
    for each in found:
        check(each, version)


def test_the_schemas_refuse_a_field_that_does_not_exist() -> None:
    document = next(documents((render.MANIFESTS / "kerve.yaml").read_text()))
    document["spec"]["nonsense"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        check(document, KUBERNETES[0])


def test_every_pod_is_given_the_time_that_its_drain_may_take() -> None:
    for each in documents((render.MANIFESTS / "kerve.yaml").read_text()):
        if each["kind"] == "Deployment":
            pod = each["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            drain = next(
                int(arg.split("=")[1]) for arg in container["args"] if arg.startswith("--drain-timeout=")
            )
            pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pod["terminationGracePeriodSeconds"] > drain + pause
            assert pod["enableServiceLinks"] is False
            return
    pytest.fail("there is no Deployment")


@needs_helm
def test_the_chart_passes_helm_lint() -> None:
    values = [part for value in render.CLAIM for part in ("--set", value)]
    subprocess.run([str(HELM), "lint", "--strict", str(render.CHART), *values], check=True)


@needs_helm
def test_the_manifests_are_what_the_chart_gives() -> None:
    assert sorted(render.MANIFESTS.iterdir()) == MANIFESTS
    for name, (values, templates) in render.RENDERED.items():
        made = render.render(str(HELM), values, templates)
        assert (render.MANIFESTS / name).read_text() == made, f"{name} is old: run `make manifests`"


@needs_helm
@pytest.mark.parametrize(("values", "version"), VARIANTS)
def test_a_variant_of_the_chart_fits_kubernetes_schemas(values: list[str], version: str) -> None:
    for each in documents(render.render(str(HELM), values)):
        check(each, version)


@needs_helm
def test_options_of_the_server_are_handed_on() -> None:
    text = render.render(str(HELM), VARIANTS[-1].values[0])  # type: ignore[arg-type]  # of a ParameterSet
    (pod,) = [each["spec"]["template"]["spec"] for each in documents(text) if each["kind"] == "Deployment"]
    expected = {
        "--strict-readiness",
        "--no-access-log",
        "--load-model=a",
        "--load-model=b",
        "--rate-limit=0.5",
    }
    assert expected <= set(pod["containers"][0]["args"])
    assert pod["terminationGracePeriodSeconds"] == 7 + 13 + 10


@needs_helm
def test_a_large_number_of_a_file_is_written_out(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(
        "servingRuntime: {enabled: true}\nserve: {max-message-bytes: 67108864, rate-limit: 0.5}\n"
    )
    command = [str(HELM), "template", "kerve", str(render.CHART), "--values", str(file)]
    command += ["--kube-version", render.KUBERNETES]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "--max-message-bytes=67108864" in text
    assert "--rate-limit=0.5" in text


@needs_helm
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("models.claim=", "expected one of claim, image and fetch"),
        ("models.image=x", "expected one of claim, image and fetch"),
        ("replica=2", "replica"),
        ("autoscaling.kind=some", "kind"),
        ("serve.grpc-port=1", "grpc-port"),
        ("sharedMemory=much", "sharedMemory"),
    ],
)
def test_values_that_cannot_work_are_refused(value: str, message: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        render.render(str(HELM), [*render.CLAIM, value])
    assert message in caught.value.stderr


def test_alerts_charts_and_the_autoscaler_speak_promql() -> None:
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "kerve.rules.yaml").read_text())["groups"]
    for rule in group["rules"]:
        promql_parser.parse(rule["expr"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "action"}
    dashboard = json.loads((DEPLOY / "grafana" / "kerve.json").read_text())
    for target in (target for panel in dashboard["panels"] for target in panel["targets"]):
        promql_parser.parse(target["expr"].replace("$__rate_interval", "5m"))
    (keda,) = documents((render.MANIFESTS / "autoscaler-keda.yaml").read_text())
    promql_parser.parse(keda["spec"]["triggers"][0]["metadata"]["query"])


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed: its unit is not checked"
)
def test_the_unit_passes_systemd_analyze(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / "kerve.service").read_text()
    unit = tmp_path / "kerve.service"
    # systemd-analyze checks that the program exists.
    unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
