"""HTTP requests, responses and a table of routes: all that the HTTP port needs of a web framework."""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from kerve.runtime.errors import Code, InvalidArgumentError

__all__ = ["Request", "Response", "Route", "compact", "find_route", "json_response", "refusal"]

# The methods that GET routes accept.
READING = ("GET", "HEAD")

# An escaped surrogate: half of a character beyond U+FFFF.
SURROGATE = re.compile(rb"\\u[dD][89abABcdefCDEF]")


@dataclass(frozen=True)
class Request:
    """An HTTP request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    # In gRPC's notation.
    peer: str = ""

    @classmethod
    def read(cls, environ: Mapping[str, Any]) -> "Request":
        """Return the request of a WSGI environment."""
        headers = {
            key.removeprefix("HTTP_").replace("_", "-").lower(): value
            for key, value in environ.items()
            if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
        }
        body = environ["wsgi.input"].read(int(headers.get("content-length") or 0))
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
        host = environ.get("REMOTE_ADDR", "")
        peer = f"ipv6:[{host}]" if ":" in host else f"ipv4:{host}"
        peer = f"{peer}:{environ.get('REMOTE_PORT', '')}"
        return cls(environ["REQUEST_METHOD"], path, headers, body, peer)

    def plain(self, most: int) -> "Request":
        """Return the request with its body decompressed.

        Raises InvalidArgumentError if that fails or gives more than `most` bytes. The body of a GET request
        has no meaning and is dropped (RFC 9110, section 9.3.1).
        """
        if self.method in READING:
            return replace(self, body=b"")
        encoding = self.headers.get("content-encoding", "identity")
        return replace(self, body=decompress(self.body, encoding, most))

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; an empty body is an empty object."""
        return parse_object(self.body)


@dataclass(frozen=True)
class Response:
    """An HTTP response."""

    body: bytes = b""
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    # Whether it may be compressed. Triton's asyncio client accepts compression in its headers, but only
    # decompresses inference responses; Triton compresses nothing else.
    compressible: bool = True
    # The outcome of the request, for observers.
    code: Code = Code.OK


@dataclass(frozen=True)
class Route:
    """A method, a path pattern, and its handler; named groups become arguments."""

    method: str
    pattern: str
    handler: Callable[..., Response]
    # The required permission; None: none. The gRPC services check their own.
    permission: str | None = None


def find_route(routes: Iterable[Route], request: Request) -> tuple[Route, dict[str, str]] | Response:
    """Return the route of a request and its arguments, or the error response if there is none.

    GET routes also accept HEAD (RFC 9110, section 9.1), which load balancers use for health checks.
    """
    others: list[str] = []
    for route in routes:
        if (match := re.fullmatch(route.pattern, request.path)) is not None:
            taken = READING if route.method == "GET" else (route.method,)
            if request.method in taken:
                return route, {key: value or "" for key, value in match.groupdict().items()}
            others += taken
    if not others:
        return refusal(Code.NOT_FOUND, HTTPStatus.NOT_FOUND, "not found")
    allow = ", ".join(sorted(others))
    return refusal(Code.UNIMPLEMENTED, HTTPStatus.METHOD_NOT_ALLOWED, "method not allowed", Allow=allow)


def json_response(value: object, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> Response:
    """Return a JSON response, which is not compressed."""
    return Response(compact(value), status, headers=headers, compressible=False)


def refusal(code: Code, status: HTTPStatus, message: str, **headers: str) -> Response:
    """Return the response for a failed request, in the form that OIP's clients expect."""
    return replace(json_response({"error": message}, status, **headers), code=code)


def compact(value: object) -> bytes:
    """Return JSON without spaces, as Triton writes it, for scripts that grep responses."""
    return json.dumps(value, separators=(",", ":")).encode()


def parse_object(text: bytes) -> dict[str, Any]:
    """Parse a JSON object; raises InvalidArgumentError for anything else."""
    if not text:
        return {}
    try:
        value = json.loads(text.decode("utf-8-sig"))
        if SURROGATE.search(text):  # a lone surrogate cannot be encoded
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"expected a JSON object as the body: {error}") from error
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"expected a JSON object as the body, got {type(value).__name__}")
    return value


def decompress(body: bytes, encoding: str, most: int) -> bytes:
    """Decompress a body; a result of more than `most` bytes is refused, as it may be a compression bomb."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise InvalidArgumentError(f"Content-Encoding: expected gzip, deflate or identity, got {encoding!r}")
    try:
        decoder = zlib.decompressobj(wbits=47)  # zlib's header or gzip's
        plain = decoder.decompress(body, most)
    except zlib.error as error:
        raise InvalidArgumentError(f"the body is not {encoding}: {error}") from error
    if decoder.unconsumed_tail or not decoder.eof:
        raise InvalidArgumentError(f"the body is incomplete, or larger than {most} bytes")
    return plain


def compress(response: Response, accepted: str) -> Response:
    """Compress the response if the client accepts it and the response is large enough."""
    encoders = {"gzip": lambda body: gzip.compress(body, 1), "deflate": lambda body: zlib.compress(body, 1)}
    encoding = next((name for name in encoders if name in accepted.replace(",", " ").split()), None)
    if encoding is None or not response.compressible or len(response.body) < 1024:
        return response
    headers = {**response.headers, "Content-Encoding": encoding}
    return Response(encoders[encoding](response.body), response.status, response.content_type, headers)
