"""Search over stocks and groups."""

from typing import Annotated

import strawberry

from graph.api.nodes import Group, Stock
from graph.api.pagination import MAX_PAGE
from graph.errors import InvalidArgument
from graph.execution.operation import Info
from graph.model import Environment

SearchHit = Annotated[
    Stock | Group, strawberry.union("SearchHit", description="A stock or group that matches a search text.")
]


@strawberry.type
class SearchQuery:
    """Root field of search."""

    @strawberry.field
    async def search(
        self, info: Info, text: str, first: int | None = 20, environment: Environment | None = None
    ) -> list[SearchHit] | None:
        """Stocks and groups whose symbol, name or description contains a text, best match first.

        Args:
            text: The text to search for, ignoring case; an empty text matches nothing.
            first: The maximum number of results, up to 5,000.
            environment: The environment of the groups; defaults to the server's setting.

        """
        limit = 20 if first is None else first
        if not 0 <= limit <= MAX_PAGE:
            raise InvalidArgument(f"first: {limit} is not between 0 and {MAX_PAGE:,}.")
        if not text.strip():
            return []
        environment = environment or info.context.environment
        rows = await info.context.fetch("search_hits", text.strip(), environment, limit)
        return [Stock.of(row, environment, None) if row["kind"] == 0 else Group.of(row, None) for row in rows]
