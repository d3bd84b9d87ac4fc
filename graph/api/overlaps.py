"""What groups have in common."""

from itertools import combinations

import strawberry

from graph.api.nodes import Group
from graph.api.universe_keys import Name, leaves, parse
from graph.api.universes import find_groups
from graph.errors import InvalidArgument
from graph.execution.operation import Info
from graph.model import Environment

MAX_GROUPS = 50
"""Groups compared in one query, each with each."""


@strawberry.type
class GroupOverlap:
    """What two groups have in common."""

    a: Group
    """The one named first."""
    b: Group
    """The one named second."""
    shared_count: int
    """How many members they share."""
    shared_weight: float | None
    """The sum of the smaller of the two weights of each shared member, a fraction; null where none has both."""
    jaccard: float
    """Shared members over all members of the two together, a fraction; 0 where both are empty."""


@strawberry.type
class OverlapQuery:
    """The query of overlaps."""

    @strawberry.field
    async def overlap(
        self, info: Info, groups: list[str], environment: Environment | None = None
    ) -> list[GroupOverlap]:
        """What every two of the named groups have in common, in the order named.

        Args:
            groups: Names, as a part of a universe key writes them: `SPY`, or `SECTOR/energy`.
            environment: Whose groups are meant; the server's setting unless given.

        """
        if len(groups) > MAX_GROUPS:
            raise InvalidArgument(f"groups: {len(groups)} are more than {MAX_GROUPS}; compare fewer at a time.")
        operation = info.context
        named = environment or operation.environment
        parts = [_part(group) for group in groups]
        found = await find_groups(operation, parts, named)
        ids = list(dict.fromkeys(found[part].group for part in parts))
        rows = await operation.load_rows_many("groups_by_id", [(number, named) for number in ids])
        counts = await operation.load_rows_many("member_counts", [(number,) for number in ids])
        shared = {(row["a"], row["b"]): row for row in await operation.fetch("overlaps", tuple(ids))}
        known = {
            number: (Group.of(row, None), count["total"])
            for number, (row,), (count,) in zip(ids, rows, counts, strict=True)
        }
        answer = []
        for first, second in combinations(ids, 2):
            (a, a_count), (b, b_count) = known[first], known[second]
            row = shared.get((min(first, second), max(first, second)))
            total = row["total"] if row else 0
            together = a_count + b_count - total
            answer.append(
                GroupOverlap(
                    a=a,
                    b=b,
                    shared_count=total,
                    shared_weight=row["weight"] if row else None,
                    jaccard=total / together if together else 0.0,
                )
            )
        return answer


def _part(text: str) -> Name:
    match list(leaves(parse(text))):
        case [Name() as part]:
            return part
        case _:
            raise InvalidArgument(f"groups: {text!r} is not the name of one group; double quotes go around signs.")
