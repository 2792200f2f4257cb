"""The status page on `/`, and the JSON that its charts are drawn from."""

import time
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from kerve.runtime.http.wsgi import Request, Response, Route, json_response
from kerve.runtime.lifecycle.manager import ModelManager
from kerve.runtime.lifecycle.served import ServedVersion
from kerve.runtime.security.permissions import Permission

__all__ = ["StatusPage"]

# The page is self-contained: it may only connect to this server.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "connect-src 'self'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "script-src 'unsafe-inline'",
    )
)


class StatusPage:
    """Shows models, versions, states and statistics."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager
        self._begin = time.monotonic()

    def routes(self) -> list[Route]:
        """Return the routes; the page contains no data and needs no permission, so it can ask for a token."""
        return [Route("GET", "/", self.page), Route("GET", "/status.json", self.status, Permission.READ)]

    def page(self, request: Request) -> Response:
        """Return the page to browsers, and liveness to clients of KServe's V1 protocol."""
        if "text/html" not in request.headers.get("accept", "text/html"):
            return json_response({"status": "alive"}, Vary="Accept")
        text = files("kerve.runtime.http").joinpath("status.html").read_bytes()
        return Response(
            text,
            content_type="text/html; charset=utf-8",
            headers={"Content-Security-Policy": POLICY, "Vary": "Accept"},
        )

    def status(self, _: Request) -> Response:
        """Return the current status; counters start when a version is loaded."""
        served = {(each.name, each.version): each for each in self._manager.served()}
        models = []
        for line in self._manager.index():
            model: dict[str, Any] = {
                "name": line.name,
                "version": line.version or None,
                "state": line.state.value,
                "reason": line.reason or line.remark,
                "labels": [
                    label
                    for label, number in self._manager.labels(line.name).items()
                    if number == line.version
                ],
            }
            if (found := served.get((line.name, line.version))) is not None:
                model["statistics"] = statistics(found)
            models.append(model)
        return json_response(
            {
                "version": version("kerve"),
                "uptime": time.monotonic() - self._begin,
                "time": time.time(),
                "models": models,
            }
        )


def statistics(served: ServedVersion) -> dict[str, Any]:
    """Return the statistics of a version."""
    computed = served.statistics.read()
    return {
        **served.queue.statistics(),
        "instances": len(served.executors),
        "batch_sizes": {str(rows): took.count for rows, took in computed.batches.items()},
    }
