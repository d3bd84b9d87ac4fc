"""The command `explain`: it runs a query and draws its plan, with statements, cost, and what falls back."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import orjson
from cyclopts import Parameter
from strawberry.schema.exceptions import InvalidOperationTypeError
from strawberry.types.graphql import OperationType

from graph.cli.output import print_lines
from graph.errors import StockgraphError
from graph.execution.explanation import ExplainedField, ExplainedOperation, ExplainingExecutor, Load
from graph.execution.operation import MAX_OBJECTS
from graph.execution.runtime import open_runtime
from graph.postgres.embedded import database_url
from graph.schema import make_schema
from graph.settings import Settings
from graph.telemetry import Observer


class _Run(NamedTuple):
    """A statement that was run."""

    statement: str
    seconds: float
    rows: int


class _StatementLog(Observer):
    """An observer that collects the statements that are run."""

    def __init__(self) -> None:
        self.runs: list[_Run] = []

    def statement(self, name: str, seconds: float, rows: int) -> None:
        """Collect a statement."""
        self.runs.append(_Run(name, seconds, rows))


def query_of(text: str) -> tuple[str, dict[str, Any]]:
    """Return a query, recognized by a brace, or that for a universe key, with its variables."""
    if "{" in text:
        return text, {}
    return "query ($key: String!) { universe(key: $key) { key size symbols } }", {"key": text}


def explain(
    text: str,
    /,
    *,
    variables: Annotated[str, Parameter(help="The variables of the query, as a JSON object.")] = "{}",
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> None:
    """Run a query as if nothing were cached, and draw its plan: columns, statements, cost, and what falls back.

        stockgraph explain '{ group(name: "SPY") { members(first: 3) { nodes { weight stock { symbol } } } } }'

    Each line is a field: the number of its values, which make a column, its cost in objects if it has any, and the
    statements that loaded it, with the number of keys. A root field that falls back is executed by graphql-core, which
    is slower; docs/execution.md tells more.

    Args:
        text: A universe key, or a GraphQL query, recognized by a brace.

    """
    query, given = query_of(text)
    try:
        given |= orjson.loads(variables)
    except (orjson.JSONDecodeError, TypeError) as error:
        raise StockgraphError(f'--variables: {variables!r} is no JSON object, such as {{"key": "SPY"}}.') from error
    log = _StatementLog()

    async def run(url: str) -> tuple[ExplainedOperation, list[str]]:
        async with open_runtime(replace(settings, database_url=url), listen=False, observer=log) as runtime:
            operation = ExplainedOperation(runtime)
            result = await make_schema(executor=ExplainingExecutor).execute(
                query, given, operation, allowed_operation_types=[OperationType.QUERY]
            )
        return operation, [error.message for error in result.errors or ()]

    with database_url(settings) as url:
        try:
            operation, errors = asyncio.run(run(url))
        except InvalidOperationTypeError as error:
            raise StockgraphError("Only queries are explained, since explaining runs them.") from error
    if lines := list(_plan_lines(operation)):
        print_lines(*lines)
    if log.runs:
        print_lines("", *_statement_lines(log.runs))
        print_lines("", f"cost: {operation.objects:,} of {MAX_OBJECTS:,} objects")
    if errors:
        raise StockgraphError(*errors)


def _plan_lines(operation: ExplainedOperation) -> Iterator[str]:
    explanation = operation.explanation
    rows = [row for field in explanation.fields for row in _rows(field, 0)] if explanation else []
    yield from _aligned(rows)
    for name, reason in explanation.left.items() if explanation else ():
        yield f"{name}  falls back: {reason}"
    if operation.loads:
        yield f"by graphql-core: {_loads(operation.loads)}"


def _rows(field: ExplainedField, depth: int) -> Iterator[tuple[str, ...]]:
    """Yield the line of a field, and those below it, each as columns of text."""
    notes = [_loads(field.loads)] if field.loads else []
    notes += [f"not cached: {' and '.join(field.uncached)}"] if field.uncached else []
    yield "  " * depth + field.name, field.values, f"cost {field.cost:,}" if field.cost else "", "; ".join(notes)
    for below in field.below:
        yield from _rows(below, depth + 1)


def _loads(loads: Sequence[Load]) -> str:
    keys: Counter[str] = Counter()
    for statement, count in loads:
        keys[statement] += count
    return ", ".join(f"{name} ({_counted(count, 'key')})" for name, count in keys.items())


def _statement_lines(runs: Sequence[_Run]) -> Iterator[str]:
    yield from _aligned([(run.statement, _counted(run.rows, "row"), f"{run.seconds * 1000:.1f} ms") for run in runs])


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a line of each row, its columns below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
