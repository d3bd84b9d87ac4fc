"""Search over stocks and groups."""

from typing import Annotated

import strawberry

from graph.api.nodes import Group, Stock
from graph.api.pagination import MAX_PAGE
from graph.errors import InvalidArgument
from graph.execution.operation import Info
from graph.model import Environment

SearchHit = Annotated[Stock | Group, strawberry.union("SearchHit", description="A stock or a group that a text fits.")]


@strawberry.type
class SearchQuery:
    """The query of search."""

    @strawberry.field
    async def search(
        self, info: Info, text: str, first: int | None = 20, environment: Environment | None = None
    ) -> list[SearchHit]:
        """Stocks and groups that a text fits, best first: a symbol or name that equals it, begins with it, holds it.

        Args:
            text: Part of a symbol or name, whatever the case; an empty one fits nothing.
            first: How many at most.
            environment: Whose groups are meant; the server's setting unless given.

        """
        limit = 20 if first is None else first
        if not 0 <= limit <= MAX_PAGE:
            raise InvalidArgument(f"first: {limit} is not between 0 and {MAX_PAGE:,}.")
        if not text.strip():
            return []
        named = environment or info.context.environment
        rows = await info.context.fetch("search_hits", text.strip(), named, limit)
        return [Stock.of(row, named, None) if row["kind"] == 0 else Group.of(row, None) for row in rows]
