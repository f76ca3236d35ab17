"""Errors as OpenAI's clients read them: status, `{"error": {...}}`, and whether to ask again."""

from typing import Any

import msgspec

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """What a client is told instead of an answer.

    Args:
        status: HTTP status; clients pick their exception by it.
        code: Short and stable, for programs.
        message: For people.
        param: Field of the request that is at fault.
        retry_after_s: When asking again makes sense.
        should_retry: Sent as `x-should-retry`; None leaves it to the client. False after retries of our
            own, or one failure would become three times three calls.
        is_passable: Whether the fallback of a cascade may be asked instead.
        body: What an upstream said, to be passed on as it came.

    Routes fill in `arm`, `place` and `propensity` as they do for a reply, so that the record of a failure
    says whose it was. An instance belongs to one request.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        is_passable: bool = True,
        body: bytes | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after_s, self.should_retry, self.is_passable = retry_after_s, should_retry, is_passable
        self._body = body
        self.arm: str | None = None
        self.place = ""
        self.propensity: float | None = None
        self.took: Any = None
        """What parts of the request took that were answered before another failed."""

    @property
    def detail(self) -> dict[str, Any]:
        """The inside of `{"error": ...}`."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code}

    @property
    def body(self) -> bytes:
        """JSON for a plain reply."""
        return self._body if self._body is not None else msgspec.json.encode({"error": self.detail})

    @property
    def frame(self) -> bytes:
        """The event that ends a stream: clients raise it; a closed connection would pass for the end."""
        return b"data: " + msgspec.json.encode({"error": self.detail}) + b"\n\n"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """`retry-after` and `x-should-retry`, where they say something."""
        found = []
        if self.retry_after_s is not None:
            found.append((b"retry-after", str(max(1, round(self.retry_after_s + 0.499))).encode()))
            found.append((b"retry-after-ms", str(max(1, int(self.retry_after_s * 1000))).encode()))
        if self.should_retry is not None:
            found.append((b"x-should-retry", b"true" if self.should_retry else b"false"))
        return found


def bad_request(message: str, *, param: str | None = None, code: str = "invalid_request") -> ApiError:
    """A request that breaks a stated rule: 400, and no arm would take it."""
    return ApiError(400, code, message, param=param, is_passable=False, should_retry=False)


def cannot_answer(message: str, *, param: str | None = None) -> ApiError:
    """A request that is sound but that this model has no answer to; a fallback may."""
    return ApiError(400, "unsupported", message, param=param, should_retry=False)
