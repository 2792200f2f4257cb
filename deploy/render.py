"""Writes deploy/kubernetes/ from the chart, the one source of manifests: `python deploy/render.py HELM`."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
CHART = HERE / "helm" / "kerve"
MANIFESTS = HERE / "kubernetes"

# What the chart is told to be installed on: a helm without a cluster has its own ideas of it.
KUBERNETES = "1.34"

CLAIM = ("models.claim=kerve-models",)
# Values of the chart by the file that they give, and the templates in it; none: all.
RENDERED: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "kerve.yaml": (CLAIM, ()),
    "kerve-secured.yaml": (
        (
            *CLAIM,
            "tls.secret=kerve-tls",
            "tokens.secret=kerve-tokens",
            "networkPolicy.enabled=true",
        ),
        (),
    ),
    "autoscaler-hpa.yaml": ((*CLAIM, "autoscaling.kind=hpa"), ("autoscaler",)),
    "autoscaler-keda.yaml": ((*CLAIM, "autoscaling.kind=keda"), ("autoscaler",)),
    "servicemonitor.yaml": ((*CLAIM, "serviceMonitor.enabled=true"), ("servicemonitor",)),
    "servingruntime.yaml": (("servingRuntime.enabled=true",), ()),
}


def render(helm: str, values: Sequence[str], templates: Sequence[str] = ()) -> str:
    """Return what the chart gives; subprocess.CalledProcessError, with helm's words, where it does not."""
    command = [helm, "template", "kerve", str(CHART), "--namespace", "default", "--kube-version", KUBERNETES]
    command += [part for value in values for part in ("--set", value)]
    command += [part for name in templates for part in ("--show-only", f"templates/{name}.yaml")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Write the files."""
    for name, (values, templates) in RENDERED.items():
        (MANIFESTS / name).write_text(render(sys.argv[1], values, templates))


if __name__ == "__main__":
    main()
