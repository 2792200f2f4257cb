"""Renders deploy/kubernetes/ from the chart, the only source of manifests: `python deploy/render.py HELM`."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
CHART = HERE / "helm" / "kerve"
MANIFESTS = HERE / "kubernetes"

# The Kubernetes version to render for: without a cluster, helm's default depends on its own version.
KUBERNETES = "1.34"

CLAIM = ("models.claim=kerve-models",)
# For each manifest, the values of the chart and the templates to render; none: all.
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
    """Render the chart; raises subprocess.CalledProcessError, with helm's message, if that fails."""
    command = [helm, "template", "kerve", str(CHART), "--namespace", "default", "--kube-version", KUBERNETES]
    command += [part for value in values for part in ("--set", value)]
    command += [part for name in templates for part in ("--show-only", f"templates/{name}.yaml")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Write the manifests."""
    for name, (values, templates) in RENDERED.items():
        (MANIFESTS / name).write_text(render(sys.argv[1], values, templates))


if __name__ == "__main__":
    main()
