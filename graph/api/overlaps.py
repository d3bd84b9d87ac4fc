"""Overlaps of groups: the members that two groups share."""

from itertools import combinations

import strawberry

from graph.api.group_names import find_groups
from graph.api.nodes import Group
from graph.api.universe_keys import Name, leaves, parse
from graph.errors import InvalidArgument
from graph.execution.operation import Info
from graph.model import Environment

MAX_GROUPS = 50
"""Maximum number of groups in one query, each compared with each."""


@strawberry.type
class GroupOverlap:
    """The members that two groups share."""

    a: Group
    """The group named first."""
    b: Group
    """The group named second."""
    shared_count: int
    """The number of shared members."""
    shared_weight: float | None
    """The sum of each shared member's smaller weight, a fraction; null if no member has both weights."""
    jaccard: float
    """The number of shared members over that of all members of the two groups, a fraction; 0 if both are empty."""


@strawberry.type
class OverlapQuery:
    """Root field of overlaps."""

    @strawberry.field
    async def overlap(
        self, info: Info, groups: list[str], environment: Environment | None = None
    ) -> list[GroupOverlap] | None:
        """Overlaps of every two of the named groups, in the order named.

        Args:
            groups: The names of the groups, written as in a universe key: `SPY`, or `SECTOR/energy`.
            environment: The environment of the groups; defaults to the server's setting.

        """
        if len(groups) > MAX_GROUPS:
            raise InvalidArgument(f"groups: {len(groups)} are more than {MAX_GROUPS}; compare fewer at a time.")
        operation = info.context
        environment = environment or operation.environment
        names = [_parse_name(group) for group in groups]
        refs = await find_groups(operation, names, environment)
        ids = list(dict.fromkeys(refs[name].group_id for name in names))
        rows = await operation.load_rows_many("groups_by_id", [(group_id, environment) for group_id in ids])
        counts = await operation.load_rows_many("member_counts", [(group_id,) for group_id in ids])
        shared = {(row["a"], row["b"]): row for row in await operation.fetch("overlaps", tuple(ids))}
        counted = {
            group_id: (Group.of(row, None), count["total"])
            for group_id, (row,), (count,) in zip(ids, rows, counts, strict=True)
        }
        answer = []
        for first, second in combinations(ids, 2):
            (a, a_count), (b, b_count) = counted[first], counted[second]
            row = shared.get((min(first, second), max(first, second)))
            shared_count = row["total"] if row else 0
            all_count = a_count + b_count - shared_count
            answer.append(
                GroupOverlap(
                    a=a,
                    b=b,
                    shared_count=shared_count,
                    shared_weight=row["weight"] if row else None,
                    jaccard=shared_count / all_count if all_count else 0.0,
                )
            )
        return answer


def _parse_name(text: str) -> Name:
    """Parse the name of a single group; raises InvalidArgument for any other key."""
    match list(leaves(parse(text))):
        case [Name() as name]:
            return name
        case _:
            raise InvalidArgument(f"groups: {text!r} is not the name of one group; double quotes go around signs.")
