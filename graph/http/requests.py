"""GraphQL requests: their parameters, parsed from a JSON body or a query string and checked."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

import orjson
from strawberry.types.graphql import OperationType

from graph.errors import ErrorCode
from graph.model import Caller

METHODS = {
    "GET": {OperationType.QUERY},
    "HEAD": {OperationType.QUERY},
    "POST": {OperationType.QUERY, OperationType.MUTATION},
}
"""The types of operations that each HTTP method may run."""

_OPTIONAL = (("operationName", str, "a string"), ("variables", dict, "an object"), ("extensions", dict, "an object"))
"""Optional parameters, their types, and the words for these in an error message."""


MAX_VALUES = 10_000
"""Values in the variables of an operation; coercing so many takes some 7 ms."""


class RequestError(Exception):
    """A request without a valid GraphQL operation, or with one that its HTTP method may not run."""

    def __init__(
        self,
        status: int,
        message: str,
        code: ErrorCode = ErrorCode.BAD_REQUEST,
        *,
        allow: str = "",
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = [(b"allow", allow.encode())] if allow else []
        if close:
            self.headers.append((b"connection", b"close"))


class RequestHead(NamedTuple):
    """The head of a request, over HTTP or a socket: it decides who the caller is and whether the request is refused."""

    method: str
    headers: Mapping[bytes, bytes]
    """Values by names in lower case, those of one name joined by commas."""
    client: str | None
    """The address that the connection comes from; None if the server does not know it."""


RequestCheck: TypeAlias = Callable[[RequestHead, Caller], None]
"""A function that raises RequestError for a request that is to be refused."""

RequestCount: TypeAlias = Callable[[RequestHead, Caller], Awaitable[list[tuple[bytes, bytes]]]]
"""A function that counts a request and returns headers of its response; RequestError if it is one too many."""


class GraphQLRequest(NamedTuple):
    """The parameters of one operation."""

    query: str
    operation_name: str | None
    variables: dict[str, Any] | None
    extensions: dict[str, Any] | None = None


def parse_request(text: bytes, method: str) -> GraphQLRequest:
    """Parse the body of a POST, or the query string of another method; RequestError if it is malformed."""
    if method == "POST":
        return _check_parameters(_parse_json(text, "body"), len(text))
    try:
        parameters: dict[str, object] = dict(parse_qsl(text.decode(), keep_blank_values=True, errors="strict"))
    except UnicodeDecodeError as error:
        raise RequestError(400, "The query string is not UTF-8.") from error
    for name in ("variables", "extensions"):
        if value := parameters.pop(name, ""):
            parameters[name] = _parse_json(str(value), name)
    return _check_parameters(parameters, len(text))


def _parse_json(text: bytes | str, source: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"The {source} is not JSON: {error}.") from error


def _count_values(variables: object) -> int:
    """Count the values in variables, up to a few more than MAX_VALUES."""
    count, inside = 0, [variables]
    for each in inside:  # which grows meanwhile
        values = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        count += len(values)
        if count > MAX_VALUES:
            break
        inside += [value for value in values if isinstance(value, list | dict)]
    return count


def _check_parameters(parameters: object, length: int) -> GraphQLRequest:
    if isinstance(parameters, list):
        raise RequestError(400, "Batches are not answered; send each operation in a request of its own.")
    if not isinstance(parameters, dict):
        raise RequestError(400, "The body must be a JSON object that has the document as its `query`.")
    query = parameters.get("query")
    if not isinstance(query, str) or not query:
        raise RequestError(400, "The parameter `query` must be the text of a GraphQL document.")
    for name, kind, noun in _OPTIONAL:
        if not isinstance(parameters.get(name), kind | None):
            raise RequestError(400, f"The parameter `{name}` must be {noun} or null.")
    variables = parameters.get("variables")
    if length > 2 * MAX_VALUES and _count_values(variables) > MAX_VALUES:
        raise RequestError(
            400,
            f"The variables hold more than {MAX_VALUES:,} values; send them in several requests.",
            ErrorCode.LIMIT_EXCEEDED,
        )
    try:
        orjson.dumps(variables)
    except TypeError as error:  # orjson reads 1024 levels and writes 254
        raise RequestError(
            400, "The variables are nested more than 250 levels deep.", ErrorCode.LIMIT_EXCEEDED
        ) from error
    # an empty operationName in a query string means none
    return GraphQLRequest(query, parameters.get("operationName") or None, variables, parameters.get("extensions"))
