"""The page: results of all versions side by side, then the outputs of each version."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from kerve.runtime.datatypes import Array
from kerve.runtime.evaluation.client import Difference, Evaluated
from kerve.runtime.evaluation.targets import LABELS
from kerve.runtime.report.observed import Observed
from kerve.runtime.report.plot import figure, number, scrolled
from kerve.runtime.signature import Signature

__all__ = ["Report"]

LATENCIES = ("mean", "p50", "p90", "p99", "max")


class Report:
    """The report of a running evaluation; its memory does not grow with the rows."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._observed: dict[str, dict[str, Observed]] = {}

    def add(self, version: str, first: int, sent: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Add a version's outputs for a batch; `sent`: its inputs and labels, by name."""
        inputs = {spec.name: sent[spec.name] for spec in self._signature.inputs if spec.name in sent}
        observed = self._observed.setdefault(version, {})
        for spec in self._signature.outputs:
            labels = sent.get(spec.name, sent.get(LABELS))
            if spec.name in outputs and labels is not None:
                observed.setdefault(spec.name, Observed(spec)).add(first, outputs[spec.name], labels, inputs)

    def html(self, results: Sequence[Evaluated], differences: Sequence[Difference] = ()) -> str:
        """Return the page."""
        model = escape(results[0].model)
        style = (files("kerve.runtime.report") / "page.css").read_text(encoding="utf-8")
        versions = "".join(self._version(each) for each in results)
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{model}: evaluation</title><style>{style}</style></head><body>"
            f"<header><h1>{model}</h1><p>{results[0].rows:,} labelled rows, evaluated on the "
            "server. Numbers use the evaluation's sample weights; in the figures every row counts once.</p>"
            "</header>"
            f"<main>{overview(results, differences)}{versions}</main></body></html>"
        )

    def _version(self, result: Evaluated) -> str:
        outputs = self._observed.get(result.version, {})
        parts = [f"<h2>Version {escape(result.version)}</h2>"]
        for observed in outputs.values():
            name = f"<h3>Output {escape(observed.name)}</h3>" if len(outputs) > 1 else ""
            parts.append(name + observed.html())
        return "".join(parts)


def overview(results: Sequence[Evaluated], differences: Sequence[Difference]) -> str:
    """Return metrics and latencies, with a column for each version; and the differences of versions."""
    heads = tuple(f"version {each.version}" for each in results)
    names = dict.fromkeys(name for each in results for name in each.results)
    metrics = [(name, *(value(each.results.get(name)) for each in results)) for name in names]
    times = [
        (f"batch {name}, ms", *(number(each.latency[name] * 1e3) for each in results)) for name in LATENCIES
    ]
    times.append(("rows/s", *(f"{each.rows_per_second:,.0f}" for each in results)))
    return (
        "<h2>Results</h2><div class=figures>"
        + figure("Loss and metrics", scrolled(("", *heads), metrics))
        + figure("Latency of the model", scrolled(("", *heads), times), "of a batch, without the network")
        + "".join(map(comparison, differences))
        + "</div>"
    )


def comparison(difference: Difference) -> str:
    """Return the differences between a version and the first one."""
    rows = [(f"agreement of {name}", f"{share:.2%}", "") for name, share in difference.agreement.items()]
    rows += [
        (each.metric, f"{each.difference:+.3g}", f"{each.low:+.2g} to {each.high:+.2g}")
        for each in difference.intervals
    ]
    shown = ", ".join(map(str, difference.disagreeing_rows[:30])) or "none"
    title = f"Version {difference.version} vs. version {difference.baseline}"
    drawing = scrolled(("", "difference", "95 %"), rows)
    return figure(title, drawing, f"first rows that differ: {shown}")


def value(result: float | Array | None) -> str:
    """Format a metric."""
    if result is None:
        return ""
    return (
        number(result) if isinstance(result, float) else ", ".join(map(number, result.ravel()[:6].tolist()))
    )
