"""Group names: the names in keys are resolved to groups, and all that mean none or several are told at once."""

import difflib
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, NamedTuple

from graph.api.near_matches import NameIndex
from graph.api.point_in_time import check_since
from graph.api.universe_keys import GroupRef, Name, matching, write_name
from graph.caching.data_cache import CacheSpec
from graph.errors import AmbiguousGroup, GraphError, InvalidKey, UnknownGroup
from graph.execution.dataloaders import Row
from graph.execution.operation import Operation
from graph.model import GroupName, GroupType

MAX_SUGGESTIONS = 3
"""Maximum number of near matches suggested for an unknown name."""
NAMES_PER_CHARGE = 10
"""Names compared with a wrong one that count as one object of the answer in the budget."""
MAX_TOLD = 3
"""Maximum number of wrong parts that a message tells; `parts` has all."""


class GroupDirectory(tuple[GroupName, ...]):  # noqa: SLOT001 - it has what is found in it
    """The names of all groups of an environment, found by name in any case."""

    by_name: dict[str, list[GroupName]]
    _indexes: dict[str | None, NameIndex]

    @classmethod
    def of(cls, rows: Iterable[Sequence[Any]]) -> "GroupDirectory":
        """Build a directory from the id, name and type of each group."""
        directory = cls(GroupName(*row) for row in rows)
        directory.by_name, directory._indexes = {}, {}
        for group in directory:
            directory.by_name.setdefault(group.name.casefold(), []).append(group)
        return directory

    def near(self, names: Sequence[Name]) -> list[list[str]]:
        """Return the near matches of each name, among the groups of its type if it has one."""
        return [self._index(name.type).near(name.name, MAX_SUGGESTIONS) for name in names]

    def _index(self, group_type: str | None) -> NameIndex:
        if group_type not in self._indexes:
            spelled = {key: groups[0].name for key, groups in self.by_name.items()}
            if group_type:
                spelled = {group.name.casefold(): group.name for group in self if group.type == group_type}
            self._indexes[group_type] = NameIndex(list(spelled.values()))
        return self._indexes[group_type]


GROUP_NAMES: CacheSpec[GroupDirectory] = CacheSpec(
    "group_names", deserialize=lambda rows: GroupDirectory.of(map(GroupName.from_json, rows))
)
"""The names of all groups of an environment, by the environment."""


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


async def group_names(operation: Operation, environment: str, day: date | None) -> GroupDirectory:
    """Return the names of all groups of an environment, current or at the end of a UTC day."""
    return await operation.cached_rows(
        GROUP_NAMES, environment, _directory_from_rows, "group_names", [(environment,)], as_of=day
    )


def _directory_from_rows(answers: list[list[Row]]) -> GroupDirectory:
    return GroupDirectory.of((row["id"], row["name"], row["type"]) for row in answers[0])


async def find_groups(
    operation: Operation, names: Sequence[Name], environment: str, day: date | None = None
) -> dict[Name, GroupRef]:
    """Resolve the names in a key to groups, current or at the end of a UTC day.

    If some cannot be resolved, the error is that of the first and tells all: InvalidKey for a type that does not exist,
    UnknownGroup for a name that matches no group, AmbiguousGroup for one that matches several. NoHistory is raised if
    there is a group, but nothing is known of it as early as that day.
    """
    directory = await group_names(operation, environment, day)
    refs: dict[Name, GroupRef] = {}
    wrong: list[Name] = []
    for name in names:
        groups = directory.by_name.get(name.name.casefold(), [])
        found = matching(name, groups)
        if len(found) == 1:
            (group,) = found
            written = write_name(group.name)
            refs[name] = GroupRef(written if len(groups) == 1 else f"{group.type}/{written}", group.id)
        else:
            wrong.append(name)
    if wrong:
        if day:
            await check_known(operation, wrong, environment, day)
        raise _error(await _wrong_parts(operation, wrong, directory, day))
    return refs


async def _wrong_parts(
    operation: Operation, names: Sequence[Name], directory: GroupDirectory, day: date | None
) -> list[_WrongPart]:
    """Return the wrong parts of a key; `names` mean no group, or several."""
    groups = {name: directory.by_name.get(name.name.casefold(), []) for name in names}
    unknown = [name for name in groups if not groups[name] and name.type in (None, *GroupType.__members__)]
    operation.charge(len(unknown) * len(directory) // NAMES_PER_CHARGE)
    near = dict(zip(unknown, await operation.run_in_lane(directory.near, unknown), strict=True)) if unknown else {}
    return [_wrong_part(name, groups[name], near.get(name, []), day) for name in names]


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


def _wrong_part(name: Name, groups: Sequence[GroupName], near: list[str], day: date | None) -> _WrongPart:
    """Return the part of a name; `groups` are those with the name, of whatever types, `near` has other names."""
    if name.type and name.type not in GroupType.__members__:
        types = difflib.get_close_matches(name.type, GroupType.__members__, MAX_SUGGESTIONS)
        near = _labels(groups) or [f"{each}/{write_name(name.name)}" for each in types]
        hint = _hint(near, f"there are {', '.join(sorted(GroupType))}.")
        return _WrongPart(name, InvalidKey, f"There is no type {name.type}; {hint}", {"near": near})
    if found := matching(name, groups):
        return _ambiguous(name, found)
    near = _labels(groups) or list(map(write_name, near))
    there = f"On {day} there was" if day else "There is"
    message = f"{there} no group {_written(name)}; {_hint(near, '`groups` lists those there are.')}"
    return _WrongPart(name, UnknownGroup, message, {"near": near})


def _ambiguous(name: Name, groups: Sequence[GroupName]) -> _WrongPart:
    candidates = _labels(groups)
    message = f"{name.name!r} may be {' or '.join(candidates)}; name one of them."
    return _WrongPart(name, AmbiguousGroup, message, {"candidates": candidates})


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
