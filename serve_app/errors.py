"""The error tree, drawn once, and its one mapping to HTTP: OpenAI's error JSON."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

CLOSE = {"connection": "close"}
"""For answers to a body that was not read to its end: the connection cannot be used again."""

OF_TENSORS = ("/v2/models/", "/v2/health/")
"""Where the Open Inference Protocol's paths begin. `/v2/rerank` is none of them."""


class ApiError(Exception):
    """Base of everything that a client may be told. `message` is for the client: no internals."""

    status: ClassVar[int]
    type: ClassVar[str]
    code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = dict(headers or {})


class RequestError(ApiError):
    """The client can mend it."""

    type = "invalid_request_error"


class BadRequest(RequestError):
    status = 400


class Malformed(RequestError):
    """It is not HTTP, or may be read in more than one way."""

    status = 400
    code = "malformed_request"


class Unauthorized(RequestError):
    status = 401
    code = "invalid_api_key"

    def __init__(self, message: str):
        super().__init__(message, headers={"www-authenticate": "Bearer"})


class NotPermitted(RequestError):
    """The key is known, and may not do this."""

    status = 403
    code = "not_permitted"


class NotAllowedHere(RequestError):
    """No site or hosted target may have the request, by where it lies or whom it serves."""

    status = 403
    code = "no_allowed_site"


class ModelNotFound(RequestError):
    status = 404
    code = "model_not_found"

    def __init__(self, model: str, known: Iterable[str]):
        super().__init__(f"The model {model!r} does not exist; there are {', '.join(known)}.", param="model")


class RouteNotFound(RequestError):
    status = 404
    code = "unknown_url"


class MethodNotAllowed(RequestError):
    status = 405
    code = "method_not_allowed"


class HeadTooSlow(RequestError):
    status = 408
    code = "request_timeout"

    def __init__(self, deadline_s: float):
        super().__init__(f"The request's headers did not arrive within {deadline_s:g} s.")


class BodyTooSlow(RequestError):
    status = 408
    code = "request_timeout"

    def __init__(self, deadline_s: float):
        super().__init__(f"The request body did not arrive within {deadline_s:g} s.", headers=CLOSE)


class BodyTooLarge(RequestError):
    status = 413
    code = "request_too_large"

    def __init__(self, limit: int):
        super().__init__(f"The request body is larger than {limit} bytes.", headers=CLOSE)


class TargetTooLong(RequestError):
    status = 414
    code = "url_too_long"

    def __init__(self, limit: int):
        super().__init__(f"The URL is longer than {limit} bytes.")


class ExpectationFailed(RequestError):
    status = 417
    code = "unknown_expectation"


class HeadTooLarge(RequestError):
    status = 431
    code = "headers_too_large"


class NotImplementedHere(RequestError):
    """Valid HTTP that this server does not speak."""

    status = 501
    code = "not_implemented"


class VersionUnknown(RequestError):
    status = 505
    code = "http_version_not_supported"

    def __init__(self) -> None:
        super().__init__("This port speaks HTTP/1.1 and HTTP/1.0.")


class Busy(RequestError):
    status = 429
    type = "rate_limit_error"
    code = "fleet_busy"


class FleetError(ApiError):
    """The client did nothing wrong, and may try again."""

    type = "server_error"


class Internal(FleetError):
    """Something unforeseen: the log has it, the client gets the request id."""

    status = 500
    code = "internal_error"

    def __init__(self) -> None:
        super().__init__("The server had an error while processing your request.")


class UpstreamFailed(FleetError):
    status = 502
    code = "upstream_failed"


class NoSite(FleetError):
    status = 503
    code = "no_site"


class TooManyConnections(FleetError):
    status = 503
    code = "too_many_connections"

    def __init__(self, limit: int):
        super().__init__(f"There are {limit} connections already.", headers={"retry-after": "1"})


class UpstreamTimeout(FleetError):
    status = 504
    code = "upstream_timeout"


ErrorBody = Callable[[ApiError], bytes]


def error_body(error: ApiError) -> bytes:
    """OpenAI's shape."""
    body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return json.dumps({"error": body}).encode()


def tensor_error_body(error: ApiError) -> bytes:
    """The Open Inference Protocol's shape."""
    return json.dumps({"error": error.message}).encode()


def body_for(path: str) -> ErrorBody:
    """As the API that the path belongs to has it."""
    return tensor_error_body if path == "/v2" or path.startswith(OF_TENSORS) else error_body


def error_event(route: str, error: ApiError) -> bytes:
    """The server-sent event that ends a stream which cannot be ended well, as the route's own API has it."""
    told: dict[str, Any]
    if route == "/v1/messages":
        told = {"type": "error", "error": {"type": "api_error", "message": error.message}}
        return b"event: error\ndata: %b\n\n" % json.dumps(told).encode()
    if route == "/v1/responses":
        told = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return b"event: error\ndata: %b\n\n" % json.dumps(told).encode()
    return b"data: %b\n\n" % error_body(error)


def install(app: Starlette, body: ErrorBody | None = None) -> None:
    """Answer every error of `app` by `body`, or else as the API has it that the path belongs to."""

    async def respond(request: Request, error: Exception) -> Response:
        told = _translate(request, error)
        content = (body or body_for(request.url.path))(told)
        return Response(content, told.status, told.headers, media_type="application/json")

    for kind in (ApiError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, respond)


def _translate(request: Request, error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case HTTPException(status_code=404):
            return RouteNotFound(f"Unknown URL: {request.method} {request.url.path}")
        case HTTPException(status_code=405):
            return MethodNotAllowed(f"{request.method} is not allowed for {request.url.path}.", headers=error.headers)
        case HTTPException():
            return BadRequest(error.detail)
        case RequestValidationError():
            first = error.errors()[0]
            return BadRequest(first["msg"], param=".".join(str(part) for part in first["loc"][1:]) or None)
    # Starlette raises it again after this answer, so that the server logs it with its traceback.
    return Internal()
