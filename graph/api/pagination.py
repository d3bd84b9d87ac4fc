"""Pagination: connections over lists, with opaque keyset cursors."""

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson
import strawberry

from graph.errors import BadCursor, InvalidArgument
from graph.execution.operation import Info

MAX_PAGE = 5_000
"""Maximum number of items of a page, and the number of items without `first`."""

Item = TypeVar("Item")
Position = list[Any]
"""Values of the columns that a list is ordered by, of one item."""


@strawberry.type
class PageInfo:
    """The position of a page in its list."""

    has_next_page: bool
    """True if the list continues after this page."""
    has_previous_page: bool
    """True if the page was requested with `after`."""
    start_cursor: str | None
    """The cursor of the first item; null if the page is empty."""
    end_cursor: str | None
    """The cursor of the last item, to be passed as `after` for the next page; null if the page is empty."""


@strawberry.type(name="Edge")
class Edge(Generic[Item]):
    """An item of a list with its cursor."""

    cursor: str
    """The cursor of the item, to be passed as `after` for the items that follow."""
    node: Item
    """The item."""


@strawberry.type(name="Connection")
class Connection(Generic[Item]):
    """A page of a list."""

    nodes: list[Item]
    """The items of the page."""
    has_previous: strawberry.Private[bool]
    has_next: strawberry.Private[bool]
    cursors: strawberry.Private[Callable[[Sequence[int]], list[str]]]  # of the items at some indices
    count: strawberry.Private[Callable[[Info], Awaitable[int]]]

    @strawberry.field
    def page_info(self) -> PageInfo:
        """The position of the page in the list."""
        start, end = self.cursors((0, len(self.nodes) - 1)) if self.nodes else (None, None)
        return PageInfo(
            has_next_page=self.has_next, has_previous_page=self.has_previous, start_cursor=start, end_cursor=end
        )

    @strawberry.field
    def edges(self) -> list[Edge[Item]]:
        """The items of the page, each with its cursor."""
        cursors = self.cursors(range(len(self.nodes)))
        return [Edge(cursor=cursor, node=node) for cursor, node in zip(cursors, self.nodes, strict=True)]

    @strawberry.field
    async def total_count(self, info: Info) -> int:
        """The number of items of the whole list, counted only if requested."""
        return await self.count(info)


@dataclass(frozen=True, slots=True)
class Page:
    """A request for a page of a list."""

    limit: int
    after: Position | None
    """Position of the last item before the page; None for the first page."""
    list_key: tuple[object, ...]
    """Identity of the list with its filters and order; a cursor is valid only for the list it came from."""

    @property
    def rows(self) -> int:
        """Number of rows to read, one more than the page holds, to detect a next page."""
        return self.limit + 1

    def connection(
        self, items: Sequence[Item], order: Sequence[Sequence[Any]], count: Callable[[Info], Awaitable[int]]
    ) -> "Connection[Item]":
        """Build the connection from the items read for this page and the columns they are ordered by."""
        has_next = len(items) > self.limit
        nodes: Any = items[: self.limit] if has_next else items

        def cursors(indices: Sequence[int]) -> list[str]:
            digest = _digest(self.list_key)
            return [_encode_cursor(digest, [column[index] for column in order]) for index in indices]

        return Connection(
            nodes=nodes,
            has_previous=self.after is not None,
            has_next=has_next,
            cursors=cursors,
            count=count,
        )


def page(first: int | None, after: str | None, types: Sequence[type | tuple[type, ...]], *list_key: object) -> Page:
    """Check the arguments of a page and decode its cursor.

    `types` are those of a position's values, and `list_key` identifies the list with its filters and order. Raises
    InvalidArgument or BadCursor.
    """
    if first is not None and not 0 <= first <= MAX_PAGE:
        raise InvalidArgument(f"first: {first} is not between 0 and {MAX_PAGE:,}; page with `after` for more.")
    position = None if after is None else _decode_cursor(_digest(list_key), after, types)
    return Page(MAX_PAGE if first is None else first, position, list_key)


def _digest(list_key: tuple[object, ...]) -> str:
    digest = hashlib.blake2b(repr(list_key).encode("utf-8", "surrogatepass"), digest_size=9).digest()
    return base64.urlsafe_b64encode(digest).decode()


def _encode_cursor(digest: str, position: Position) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([digest, *position])).decode()


def _decode_cursor(digest: str, cursor: str, types: Sequence[type | tuple[type, ...]]) -> Position:
    try:
        found, *position = orjson.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError, TypeError, ValueError) as error:
        raise BadCursor("This is no cursor of this server; take `endCursor` from an answer as it is.") from error
    if found != digest or len(position) != len(types) or not all(map(_is_valid, position, types)):
        raise BadCursor(
            "This cursor belongs to another list; use it with the same parent, filters and order that it came from."
        )
    return list(position)


def _is_valid(value: object, types: type | tuple[type, ...]) -> bool:
    """Return whether a value of a cursor has one of the types, in a form that PostgreSQL accepts."""
    if isinstance(value, int) and (isinstance(value, bool) or not 0 <= value < 2**31):
        return False  # ids and counts are non-negative 32-bit integers
    return isinstance(value, types) and not (isinstance(value, str) and "\0" in value)
