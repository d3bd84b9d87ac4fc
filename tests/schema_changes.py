"""Changes of the schema since the last tag; `python tests/schema_changes.py` fails on one that clients were not told of.

What clients use may be removed, or changed so that a query fails, only if the last tag has it `@deprecated`.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from graphql import GraphQLSchema, build_schema
from graphql.utilities import BreakingChange, SchemaChange, find_schema_changes

SCHEMA = Path(__file__).parents[1] / "schema.graphql"


def deprecated(schema: GraphQLSchema) -> Iterator[str]:
    """Yield the coordinates of deprecated fields, arguments and enum values, and of types that have no others."""
    for name, kind in schema.type_map.items():
        members = getattr(kind, "fields", None) or getattr(kind, "values", {})
        gone = [member for member, each in members.items() if each.deprecation_reason is not None]
        yield from (f"{name}.{member}" for member in gone)
        if members and len(gone) == len(members):
            yield name
        for member, each in members.items():
            for argument, of in getattr(each, "args", {}).items():
                if of.deprecation_reason is not None:
                    yield f"{name}.{member}({argument}:)"


def unannounced(before: GraphQLSchema, changes: list[SchemaChange]) -> list[SchemaChange]:
    """Return the breaking changes of what was not deprecated before."""
    announced = set(deprecated(before))
    return [
        change
        for change in changes
        if isinstance(change, BreakingChange)
        and not announced & set(re.findall(r"[\w.]+(?:\(\w+:\))?", change.description))
    ]


def main() -> int:
    """Print the changes since the last tag, and return the exit code."""

    def git(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["git", *arguments], cwd=SCHEMA.parent, capture_output=True, text=True, check=False)

    tag = git("describe", "--tags", "--abbrev=0").stdout.strip()
    if not tag:
        print("There is no tag yet whose schema this could be compared with.")
        return 0
    before = build_schema(git("show", f"{tag}:{SCHEMA.name}").stdout)
    changes = find_schema_changes(before, build_schema(SCHEMA.read_text()))
    print(f"{len(changes)} changes of the schema since {tag}")
    wrong = unannounced(before, changes)
    for change in changes:
        kind = type(change).__name__.removesuffix("Change").lower()
        print(f"  {kind}: {change.description}{'  NOT ANNOUNCED' if change in wrong else ''}")
    if wrong:
        print(f"{len(wrong)} of them may break clients of what {tag} did not have @deprecated (CONTRIBUTING.md).")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
