"""Group names: the names in keys are resolved to groups, and all that mean none or several are told at once."""

import difflib
from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

from graph.api.point_in_time import check_since
from graph.api.universe_keys import GroupRef, Name, matching, write_name
from graph.caching.data_cache import CacheSpec
from graph.errors import AmbiguousGroup, GraphError, InvalidKey, UnknownGroup
from graph.execution.dataloaders import Row
from graph.execution.operation import Operation
from graph.model import GroupName, GroupType

GROUP_NAMES: CacheSpec[tuple[GroupName, ...]] = CacheSpec(
    "group_names", deserialize=lambda rows: tuple(GroupName(*row) for row in rows)
)
"""The names of all groups of an environment, by the environment."""

MAX_SUGGESTIONS = 3
"""Maximum number of near matches suggested for an unknown name."""
MAX_TOLD = 3
"""Maximum number of wrong parts that a message tells; `parts` has all."""


class _WrongPart(NamedTuple):
    """A name in a key that means no group, or several."""

    name: Name
    error: type[GraphError]
    message: str
    choice: dict[str, list[str]]
    """Groups that it may mean: its `candidates`, or those that are `near`."""

    @property
    def details(self) -> dict[str, Any]:
        """The part as JSON."""
        name = self.name
        return {"position": name.position, "length": name.length, "group": _written(name), **self.choice}


async def group_names(operation: Operation, environment: str, day: date | None) -> tuple[GroupName, ...]:
    """Return the names of all groups of an environment, current or at the end of a UTC day."""
    return await operation.cached_rows(
        GROUP_NAMES, environment, _names_from_rows, "group_names", [(environment,)], as_of=day
    )


def _names_from_rows(answers: list[list[Row]]) -> tuple[GroupName, ...]:
    return tuple(GroupName(row["id"], row["name"], row["type"]) for row in answers[0])


async def find_groups(
    operation: Operation, names: Sequence[Name], environment: str, day: date | None = None
) -> dict[Name, GroupRef]:
    """Resolve the names in a key to groups, current or at the end of a UTC day.

    If some cannot be resolved, the error is that of the first and tells all: InvalidKey for a type that does not exist,
    UnknownGroup for a name that matches no group, AmbiguousGroup for one that matches several. NoHistory is raised if
    there is a group, but nothing is known of it as early as that day.
    """
    directory = await group_names(operation, environment, day)
    groups_by_name: dict[str, list[GroupName]] = {name.name.casefold(): [] for name in names}
    for group in directory:
        groups = groups_by_name.get(group.name.casefold())
        if groups is not None:
            groups.append(group)
    refs: dict[Name, GroupRef] = {}
    wrong: list[_WrongPart] = []
    for name in names:
        groups = groups_by_name[name.name.casefold()]
        found = matching(name, groups)
        if len(found) == 1:
            (group,) = found
            written = write_name(group.name)
            refs[name] = GroupRef(written if len(groups) == 1 else f"{group.type}/{written}", group.id)
        elif name.type and name.type not in GroupType.__members__:
            wrong.append(_unknown_type(name, groups))
        elif found:
            wrong.append(_ambiguous(name, found))
        else:
            wrong.append(_unknown(name, groups, directory, day))
    if wrong:
        if day:
            await check_known(operation, [part.name for part in wrong], environment, day)
        raise _error(wrong)
    return refs


def resolve_name(name: Name, groups: Sequence[GroupName]) -> GroupName | None:
    """Return the group that a name means among those whose names are equal but for case; None if there are none.

    Raises AmbiguousGroup if there are several.
    """
    found = matching(name, groups)
    if len(found) > 1:
        raise _error([_ambiguous(name, found)])
    return found[0] if found else None


async def check_known(operation: Operation, names: Sequence[Name], environment: str, day: date) -> None:
    """Raise NoHistory if a group of one of the names exists, but was not known yet on a day."""
    answers = await operation.load_rows_many("names_known_since", [(name.name, environment) for name in names])
    for name, rows in zip(names, answers, strict=True):
        since = min((row["since"] for row in rows if name.type in (None, row["type"])), default=None)
        check_since(name.name, since, day)


def _unknown_type(name: Name, groups: Sequence[GroupName]) -> _WrongPart:
    """Return the part of a name whose type does not exist; `groups` are those with the name."""
    assert name.type  # noqa: S101 - only of such
    types = difflib.get_close_matches(name.type, GroupType.__members__, MAX_SUGGESTIONS)
    near = _labels(groups) or [f"{each}/{write_name(name.name)}" for each in types]
    message = f"There is no type {name.type}; {_hint(near, 'there are ' + ', '.join(sorted(GroupType)) + '.')}"
    return _WrongPart(name, InvalidKey, message, {"near": near})


def _ambiguous(name: Name, groups: Sequence[GroupName]) -> _WrongPart:
    """Return the part of a name that means several groups."""
    candidates = _labels(groups)
    message = f"{name.name!r} may be {' or '.join(candidates)}; name one of them."
    return _WrongPart(name, AmbiguousGroup, message, {"candidates": candidates})


def _unknown(name: Name, groups: Sequence[GroupName], directory: Sequence[GroupName], day: date | None) -> _WrongPart:
    """Return the part of a name that means no group; `groups` are those of other types with the name."""
    spelled = {group.name.casefold(): group.name for group in directory if name.type in (None, group.type)}
    near = _labels(groups) or [
        write_name(spelled[close])
        for close in difflib.get_close_matches(name.name.casefold(), spelled, MAX_SUGGESTIONS)
    ]
    there = f"On {day} there was" if day else "There is"
    message = f"{there} no group {_written(name)}; {_hint(near, '`groups` lists those there are.')}"
    return _WrongPart(name, UnknownGroup, message, {"near": near})


def _written(name: Name) -> str:
    return write_name(name.name) if name.type is None else f"{name.type}/{write_name(name.name)}"


def _labels(groups: Sequence[GroupName]) -> list[str]:
    return sorted(f"{group.type}/{write_name(group.name)}" for group in groups)


def _hint(near: Sequence[str], otherwise: str) -> str:
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def _error(wrong: Sequence[_WrongPart]) -> GraphError:
    """Return the error of the first wrong part, which tells of the others too."""
    messages = list(dict.fromkeys(part.message for part in wrong))
    rest = len(messages) - MAX_TOLD
    more = [f"{rest} more {'part is' if rest == 1 else 'parts are'} wrong."] if rest > 0 else []
    return wrong[0].error(
        " ".join([*messages[:MAX_TOLD], *more]),
        **wrong[0].details,
        parts=[{"code": part.error.code.value, **part.details} for part in wrong],
    )
