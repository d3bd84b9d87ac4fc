"""How the server does."""

from datetime import datetime
from importlib.metadata import version

import strawberry

from graph.api.nodes import UNIVERSES
from graph.caching.data_cache import CacheStats
from graph.caching.generations import ListenerMode
from graph.execution.operation import Info
from graph.prices.closes import PRICES

strawberry.enum(ListenerMode)


@strawberry.type
class ListenerStatus:
    """How changes of the database become known."""

    mode: ListenerMode
    """NOTIFY: by notification, and polled beside it; POLL: polled alone; OFF: not, and nothing is kept in memory."""
    confirmed_at: datetime | None
    """When the generation was last confirmed, by the database's clock."""
    reconnects: int
    """How often the listening connection was made again."""


@strawberry.type
class MemoStatus:
    """How a memory does, since the server's start."""

    entries: int
    """How many it holds; where a Redis does, how many of them this process put there."""
    bytes: int | None
    """What they take, by estimate; null where a Redis holds them."""
    hits: int
    """Requests answered by it."""
    misses: int
    """Requests that had to ask the database."""
    evictions: int
    """Entries put out for want of room."""

    @classmethod
    def of(cls, stats: CacheStats) -> "MemoStatus":
        """Take a memo's figures."""
        return cls(**stats._asdict())


@strawberry.type
class Status:
    """How the server does."""

    generation: str
    """The state of the database that this was read from: it grows with each change; `untracked` where nobody counts."""
    database_time: datetime
    """The database's clock."""
    listener: ListenerStatus
    """How changes become known."""
    universes: MemoStatus
    """The memory of universes."""
    prices: MemoStatus
    """The memory of closes: an entry is those of a year and the two before it."""
    columns: MemoStatus
    """The memory of what was read of groups and stocks: an entry is a field of a query's root with all below it."""
    answers: MemoStatus
    """The memory of whole answers."""
    version: str
    """Of the server."""


@strawberry.type
class StatusQuery:
    """The query of the status."""

    @strawberry.field
    async def status(self, info: Info) -> Status:
        """How the server does."""
        info.context.volatile = True
        runtime = info.context.runtime
        (row,) = await info.context.fetch("tracking")
        groups, prices = row.get("groups_generation"), row.get("prices_generation")
        return Status(
            generation="untracked" if groups is None else str(groups + prices),
            database_time=row["database_time"],
            listener=ListenerStatus(
                mode=runtime.generations.mode,
                confirmed_at=runtime.generations.confirmed_at,
                reconnects=max(0, runtime.generations.reconnects),
            ),
            universes=MemoStatus.of(runtime.stats(UNIVERSES)),
            prices=MemoStatus.of(runtime.stats(PRICES)),
            columns=MemoStatus.of(runtime.column_cache.stats()),
            answers=MemoStatus.of(runtime.response_cache.stats()),
            version=version("stockgraph"),
        )
