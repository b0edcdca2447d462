"""Errors in the API's shape."""

import msgspec

ERROR_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status of an error that is known by its type."""


class Rejected(Exception):
    """The API would answer `status` with this text."""

    def __init__(self, message: str, status: int = 400) -> None:
        """Keep the HTTP status beside the text."""
        super().__init__(message)
        self.status = status


def error_type(status: int) -> str:
    """Give the type that goes with an HTTP status of 400 or more."""
    first_server_error = 500
    return ERROR_TYPES.get(status, "invalid_request_error" if status < first_server_error else "api_error")


def error_body(kind: str, message: str, request_id: str, error_code: str | None = None) -> bytes:
    """Encode an error; `error_code`, where there is one, stands in its `details`."""
    error: dict[str, object] = {"type": kind, "message": message}
    if error_code is not None:
        error["details"] = {"error_code": error_code}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})
