"""The HTTP port: waitress with its own threads, and a table of routes. The transport may be its proxy."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from waitress.server import create_server

from kerve.runtime.catalog import Catalog
from kerve.runtime.errors import Code, ServingError, UnavailableError
from kerve.runtime.gateway import Gateway
from kerve.runtime.http.rest import Rest
from kerve.runtime.http.status import StatusPage
from kerve.runtime.http.tensorflow import TensorFlowRest
from kerve.runtime.http.threads import Threads, max_connections
from kerve.runtime.http.wsgi import Request, Response, Route, compress, find_route, refusal
from kerve.runtime.lifecycle.manager import ModelManager
from kerve.runtime.lifecycle.served import ServedVersion
from kerve.runtime.observation.observer import current
from kerve.runtime.security.permissions import Permission
from kerve.runtime.security.tokens import Authority
from kerve.runtime.transport.base import Transport

__all__ = ["HttpServer"]

log = logging.getLogger(__name__)

# Bodies up to this size are kept in memory.
IN_MEMORY = 64 << 20

# The transport connects through the UNIX socket, which waitress calls "localhost", and forwards the peer.
TRUST = {"trusted_proxy": "localhost", "trusted_proxy_headers": "forwarded"}

# HTTP statuses of gRPC's codes (google/rpc/code.proto).
STATUS = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


class HttpServer:
    """Serves HTTP from `start` to `close`."""

    def __init__(
        self,
        manager: ModelManager,
        catalog: Catalog[ServedVersion],
        gateway: Gateway,
        authority: Authority,
        transport: Transport,
        *,
        host: str,
        port: int,
        max_body: int,
        inference: bool = True,
    ) -> None:
        """Bind the port; raises UnavailableError if that fails.

        `inference`: False restricts the port to health, metrics and the status page.
        """
        self._manager = manager
        self._authority = authority
        self._observer = transport.observer
        self._max_body = max_body
        self._metrics: Any = None
        rest = [*Rest(catalog, gateway).routes(), *TensorFlowRest(manager, catalog, gateway).routes()]
        self._routes = [
            *(rest if inference else [route for route in rest if "/health/" in route.pattern]),
            Route("GET", "/metrics", self._scrape, Permission.READ),
            *StatusPage(manager).routes(),
        ]
        behind = gateway.folder / "http"
        try:
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            fronted = transport.add_http_port(address, behind, inference=inference)
            where: dict[str, Any] = (
                {"host": host, "port": port} if fronted is None else {"unix_socket": str(behind), **TRUST}
            )
            self._server: Any = create_server(
                self._application,
                **where,
                _dispatcher=Threads(),
                connection_limit=max_connections(),
                asyncore_use_poll=True,  # select() is limited to file descriptors below 1,024
                ident=None,
                # waitress also refuses bodies of exactly this size.
                max_request_body_size=max_body + 1,
                inbuf_overflow=IN_MEMORY,
                outbuf_overflow=IN_MEMORY,
                clear_untrusted_proxy_headers=True,
            )
        except (OSError, RuntimeError) as error:
            raise UnavailableError(
                f"cannot listen on {host}:{port}; choose another --http-port if it is taken, or 0 for none"
            ) from error
        self.port = int(self._server.effective_port) if fronted is None else fronted
        self._thread = threading.Thread(target=self._server.run, name="http", daemon=True)

    def start(self) -> None:
        """Start serving."""
        logging.getLogger("waitress").setLevel(logging.ERROR)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.task_dispatcher.shutdown(cancel_pending=True, timeout=1)
        self._server.close()

    def _application(
        self, environ: Mapping[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
    ) -> Iterable[bytes]:
        request = Request.read(environ)
        response = compress(self._observed(request), request.headers.get("accept-encoding", ""))
        status = response.status
        reason = HTTPStatus(status).phrase if status in iter(HTTPStatus) else "Client Closed Request"
        headers = {
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            "X-Content-Type-Options": "nosniff",
            **response.headers,
        }
        start_response(f"{int(status)} {reason}", list(headers.items()))
        return [] if request.method == "HEAD" else [response.body]

    def _observed(self, request: Request) -> Response:
        """Answer, and observe the request unless it is forwarded to a gRPC service, which observes it."""
        observation = self._observer.begin(f"{request.method} {request.path}", request.peer, request.headers)
        with self._observer.serving(observation):
            response = self._answer(request)
        if observation is not None and not observation.delegated:
            self._observer.end(observation, response.code)
        return response

    def _answer(self, request: Request) -> Response:
        try:
            found = find_route(self._routes, request)
            if isinstance(found, Response):
                return found
            route, arguments = found
            if (observation := current()) is not None:
                observation.model = arguments.get("name", "")
                observation.version = arguments.get("version") or arguments.get("label", "")
            if route.permission is not None:
                self._authority.check(Permission(route.permission), request.headers.get("authorization"))
            return route.handler(request.plain(self._max_body), **arguments)
        except ServingError as error:
            return failure(error)
        except Exception:  # the client receives INTERNAL, the log the traceback
            log.exception("%s %s failed", request.method, request.path)
            message = "internal error; see the server's log"
            return refusal(Code.INTERNAL, HTTPStatus.INTERNAL_SERVER_ERROR, message)

    def _scrape(self, _: Request) -> Response:
        if self._metrics is None:
            from kerve.runtime.http.metrics import (
                Metrics,
            )  # imported only if used, to save memory

            self._metrics = Metrics(self._manager)
        return Response(self._metrics.text(), content_type=self._metrics.content_type)


def failure(error: ServingError) -> Response:
    """Return the response for an error."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if error.code is Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    status: Any = STATUS.get(error.code, 500)
    return refusal(error.code, status, str(error), **headers)
