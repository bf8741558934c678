"""Requests that cannot be served, as OpenAI reports them."""

from __future__ import annotations

from typing import Any


class BadRequest(Exception):
    """A request that cannot be served, as OpenAI reports it."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None):
        super().__init__(message)
        self.status = status
        self.body = error_body(message, param, code)


def error_body(
    message: str, param: str | None = None, code: str | None = None, kind: str = "invalid_request_error"
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
