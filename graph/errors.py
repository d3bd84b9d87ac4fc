"""Errors with messages for people, and the codes and HTTP statuses of those that the API returns.

A message is one line that says what was wrong, where, and what to do. Other exceptions are logged and masked before a
client sees them.
"""

from enum import StrEnum
from typing import Any, ClassVar, Self


class ErrorCode(StrEnum):
    """Error codes of the API: the `extensions.code` of an error in a response."""

    status: int
    """The HTTP status of a response without data, unless the failure is one of HTTP itself, such as a 405.

    A client's error has 200 instead if the media type of the response is `application/json`.
    """
    meaning: str

    def __new__(cls, code: str, status: int, meaning: str) -> Self:
        """Make a member whose value is the code."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.status = status
        member.meaning = meaning
        return member

    UNKNOWN_GROUP = "UNKNOWN_GROUP", 400, "A name in a universe key matches no group."
    AMBIGUOUS_GROUP = "AMBIGUOUS_GROUP", 400, "A name in a universe key matches several groups."
    INVALID_KEY = "INVALID_KEY", 400, "A universe key breaks the grammar of keys."
    INVALID_ARGUMENT = "INVALID_ARGUMENT", 400, "A variable or an argument has a value that the field does not accept."
    BAD_CURSOR = "BAD_CURSOR", 400, "A cursor was not made by this server for this list."
    NO_HISTORY = "NO_HISTORY", 400, "The day is before a group's history, or the database keeps no history."
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED", 400, "The request exceeds a limit of size, depth or time."
    RATE_LIMITED = "RATE_LIMITED", 429, "More requests a minute came from the caller or its address than are allowed."
    DATABASE_UNAVAILABLE = (
        "DATABASE_UNAVAILABLE",
        503,
        "The database does not answer, lacks tables, or cannot confirm cached data.",
    )
    OVERLOADED = "OVERLOADED", 503, "Too many requests or dear queries wait; ask again after `retryAfter` seconds."
    INTERNAL = "INTERNAL", 500, "The server failed; its log has the reason under the error's `id`."
    GRAPHQL_PARSE_FAILED = "GRAPHQL_PARSE_FAILED", 400, "The document is not GraphQL."
    GRAPHQL_VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED", 400, "The document does not fit the schema."
    OPERATION_RESOLUTION_FAILURE = (
        "OPERATION_RESOLUTION_FAILURE",
        400,
        "The document does not have exactly the operation that is to be run.",
    )
    BAD_REQUEST = "BAD_REQUEST", 400, "The HTTP request holds no GraphQL operation."


class StockgraphError(Exception):
    """An error with messages for people, a line each; the command line prints them and exits with 1."""


class EmbeddedServerError(StockgraphError):
    """The embedded PostgreSQL could not be made, started or shared."""


class InputFileError(StockgraphError):
    """A file of holdings or prices is malformed; the message names file, line and reason."""


class GraphError(StockgraphError):
    """An error of the API, with a code for programs and a message for people."""

    code: ClassVar[ErrorCode]

    def __init__(self, message: str, **details: Any) -> None:
        """Store `details` (JSON values) beside the code in the `extensions` of the error in the response."""
        super().__init__(message)
        self.extensions = {"code": self.code.value, **details}


class UnknownGroup(GraphError):
    """A name in a universe key matches no group."""

    code = ErrorCode.UNKNOWN_GROUP


class AmbiguousGroup(GraphError):
    """A name in a universe key matches several groups."""

    code = ErrorCode.AMBIGUOUS_GROUP


class InvalidKey(GraphError):
    """A universe key breaks the grammar of keys."""

    code = ErrorCode.INVALID_KEY


class InvalidArgument(GraphError):
    """An argument has a value that its field does not accept."""

    code = ErrorCode.INVALID_ARGUMENT


class BadCursor(GraphError):
    """A cursor was not made by this server for this list."""

    code = ErrorCode.BAD_CURSOR


class NoHistory(GraphError):
    """The day is before a group's history, or the database keeps no history."""

    code = ErrorCode.NO_HISTORY


class LimitExceeded(GraphError):
    """The request exceeds a limit of size, depth or time."""

    code = ErrorCode.LIMIT_EXCEEDED


class Overloaded(GraphError):
    """Too many dear operations wait already."""

    code = ErrorCode.OVERLOADED


class DatabaseUnavailable(GraphError):
    """The database does not answer, lacks tables, or cannot confirm that cached data are current."""

    code = ErrorCode.DATABASE_UNAVAILABLE
