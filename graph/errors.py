"""The errors a person may read: one class for each thing that can be acted on.

A message is one line that says what was wrong, where, and what to do. Whatever is not one of
these classes is masked before it reaches a client.
"""

from typing import Any, ClassVar


class StockgraphError(Exception):
    """Something a person did or must know; the command line prints it and exits with 1."""


class EmbeddedServerError(StockgraphError):
    """The embedded PostgreSQL could not be made, started or shared."""


class InputFileError(StockgraphError):
    """A file of holdings or prices that cannot be read as it stands: which one, which line, and why."""


class GraphError(StockgraphError):
    """An error of the API: `code` is what a program reads, the message what a person reads."""

    code: ClassVar[str]

    def __init__(self, message: str, **details: Any) -> None:
        """Keep `details` (JSON values) beside the code in the `extensions` of the answer's error."""
        super().__init__(message)
        self.extensions = {"code": self.code, **details}


class UnknownGroup(GraphError):
    """A part of a universe key names no group."""

    code = "UNKNOWN_GROUP"


class AmbiguousGroup(GraphError):
    """A name fits more than one group."""

    code = "AMBIGUOUS_GROUP"


class InvalidKey(GraphError):
    """A universe key that breaks the grammar of keys."""

    code = "INVALID_KEY"


class InvalidArgument(GraphError):
    """An argument outside what its field accepts."""

    code = "INVALID_ARGUMENT"


class BadCursor(GraphError):
    """A cursor that this server did not make for this list."""

    code = "BAD_CURSOR"


class NoHistory(GraphError):
    """A day before the first that is known of a group, or a database that keeps no history."""

    code = "NO_HISTORY"


class LimitExceeded(GraphError):
    """A request larger than the server answers."""

    code = "LIMIT_EXCEEDED"


class DatabaseUnavailable(GraphError):
    """The database does not answer, or cannot vouch for what is in memory."""

    code = "DATABASE_UNAVAILABLE"
