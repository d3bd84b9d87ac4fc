"""Pages of a list: cursors, their bounds, and what a page says of its neighbours."""

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
"""Items of a page, and of a list that is asked for without `first`."""

Item = TypeVar("Item")
Position = list[Any]
"""The values that a list is ordered by, of one of its items."""


@strawberry.type
class PageInfo:
    """Where a page lies in its list."""

    has_next_page: bool
    """Whether the list goes on after this page."""
    has_previous_page: bool
    """Whether the page was asked for after something."""
    start_cursor: str | None
    """Of its first item; null where it is empty."""
    end_cursor: str | None
    """Of its last item, for `after`; null where it is empty."""


@strawberry.type(name="Edge")
class Edge(Generic[Item]):
    """An item of a list, with the cursor after which the list goes on."""

    cursor: str
    """For `after`."""
    node: Item
    """The item."""


@strawberry.type(name="Connection")
class Connection(Generic[Item]):
    """A page of a list."""

    nodes: list[Item]
    """The page's items."""
    is_first: strawberry.Private[bool]  # it was asked for after nothing
    goes_on: strawberry.Private[bool]
    cursors: strawberry.Private[Callable[[Sequence[int]], list[str]]]  # of the items at some places
    count: strawberry.Private[Callable[[Info], Awaitable[int]]]

    @strawberry.field
    def page_info(self) -> PageInfo:
        """Where the page lies in the list."""
        start, end = self.cursors((0, len(self.nodes) - 1)) if self.nodes else (None, None)
        return PageInfo(
            has_next_page=self.goes_on, has_previous_page=not self.is_first, start_cursor=start, end_cursor=end
        )

    @strawberry.field
    def edges(self) -> list[Edge[Item]]:
        """The page's items, each with its cursor."""
        cursors = self.cursors(range(len(self.nodes)))
        return [Edge(cursor=cursor, node=node) for cursor, node in zip(cursors, self.nodes, strict=True)]

    @strawberry.field
    async def total_count(self, info: Info) -> int:
        """How many items the whole list has; counted only when asked for."""
        return await self.count(info)


@dataclass(frozen=True, slots=True)
class Page:
    """What was asked of a list: how many, after what."""

    limit: int
    after: Position | None
    of: tuple[object, ...]
    """The list: a cursor is good for the list it came from, with the same filters and order."""

    @property
    def rows(self) -> int:
        """How many rows to read: one more than the page holds tells whether there is a next."""
        return self.limit + 1

    def connection(
        self, items: Sequence[Item], order: Sequence[Sequence[Any]], count: Callable[[Info], Awaitable[int]]
    ) -> "Connection[Item]":
        """Make the answer of what was read for this page, and of the values that it is ordered by, column by column."""
        goes_on = len(items) > self.limit
        nodes: Any = items[: self.limit] if goes_on else items

        def cursors(places: Sequence[int]) -> list[str]:
            mark = _mark(self.of)
            return [_write(mark, [values[place] for values in order]) for place in places]

        return Connection(
            nodes=nodes,
            is_first=self.after is None,
            goes_on=goes_on,
            cursors=cursors,
            count=count,
        )


def page(first: int | None, after: str | None, shape: Sequence[type | tuple[type, ...]], *of: object) -> Page:
    """Check the arguments of a page of the list that `of` tells from every other.

    `shape` gives the types of a position's values. Raises InvalidArgument or BadCursor.
    """
    if first is not None and not 0 <= first <= MAX_PAGE:
        raise InvalidArgument(f"first: {first} is not between 0 and {MAX_PAGE:,}; page with `after` for more.")
    return Page(MAX_PAGE if first is None else first, None if after is None else _read(_mark(of), after, shape), of)


def _mark(of: tuple[object, ...]) -> str:
    digest = hashlib.blake2b(repr(of).encode("utf-8", "surrogatepass"), digest_size=9).digest()
    return base64.urlsafe_b64encode(digest).decode()


def _write(mark: str, position: Position) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([mark, *position])).decode()


def _read(mark: str, cursor: str, shape: Sequence[type | tuple[type, ...]]) -> Position:
    try:
        found, *position = orjson.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError, TypeError, ValueError) as error:
        raise BadCursor("This is no cursor of this server; take `endCursor` from an answer as it is.") from error
    if found != mark or len(position) != len(shape) or not all(map(_fits, position, shape)):
        raise BadCursor(
            "This cursor belongs to another list; use it with the same parent, filters and order that it came from."
        )
    return list(position)


def _fits(value: object, kind: type | tuple[type, ...]) -> bool:
    if isinstance(value, int) and (isinstance(value, bool) or not 0 <= value < 2**31):
        return False  # an id or a count of the database's
    return isinstance(value, kind) and not (isinstance(value, str) and "\0" in value)
