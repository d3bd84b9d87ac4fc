"""Explanation: an operation is executed as if nothing were cached, and its plan noted with what each column loads."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import date
from typing import Any, NamedTuple, TypeVar, cast

from graphql.execution.values import VariableValues
from strawberry.utils.str_converters import to_camel_case

from graph.caching.data_cache import CacheSpec
from graph.execution.columns import Content, Dependencies, Key, ListColumn, ObjectColumn, ObjectSet, ValueColumn
from graph.execution.dataloaders import DataLoader, Read, Row
from graph.execution.executor import ColumnExecutor
from graph.execution.operation import Operation
from graph.execution.plan_execution import Context, PlanExecution, PlanResult
from graph.execution.plans import Field, OutputType, Plan
from graph.postgres.database import ReadResult

Value = TypeVar("Value")


class Load(NamedTuple):
    """A statement that a column was loaded with, and the number of its keys."""

    statement: str
    keys: int


class ExplainedField(NamedTuple):
    """A field that was executed, with its column."""

    name: str
    """The field with its arguments, after its name in the answer if that is another."""
    values: str
    """The number and type of its values, as in `503 Float`."""
    cost: int
    """Objects that were charged for it, each as often as it is in the answer."""
    loads: list[Load]
    uncached: list[str]
    """The reasons why no column cache holds it; empty if one can."""
    below: "list[ExplainedField]"


class Explanation(NamedTuple):
    """A plan as it was executed."""

    fields: list[ExplainedField]
    """The root fields that were executed by columns."""
    left: dict[str, str]
    """The reasons why others were left to graphql-core, or refused, by their names in the answer."""


class ExplainedOperation(Operation):
    """An operation that is explained: it notes what is loaded for each column."""

    explanation: Explanation | None = None
    """The explanation; None if no plan was executed, as for a mutation."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.loads: list[Load] = []
        """The loads of this context: those of one column, or those of graphql-core."""

    def fork(self) -> "ExplainedOperation":
        """Return a context to load one column with, whose own forks load for the same column."""
        fork = cast("ExplainedOperation", super().fork())
        fork.loads = self.loads if self._is_fork else []
        return fork

    async def load_many(self, loader: DataLoader, keys: list[Any]) -> list[Any]:
        """Load keys, and note the statement."""
        self.loads.append(Load(loader.statement, len(keys)))
        return await super().load_many(loader, keys)

    async def cached_rows(
        self,
        spec: CacheSpec[Value],
        name: str,
        shape: Callable[[list[list[Row]]], Value],
        statement: str,
        keys: list[Any],
        *,
        as_of: date | None = None,
    ) -> Value:
        """Load what a data cache would hold, and note the statement."""
        self.loads.append(Load(statement, len(keys)))
        return await super().cached_rows(spec, name, shape, statement, keys, as_of=as_of)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Read]:
        """Read from one snapshot, and note the statements."""
        async with super().snapshot() as read:

            def note(statement: str, *arguments: Any, **options: Any) -> Awaitable[ReadResult]:
                self.loads.append(Load(statement, 1))
                return read(statement, *arguments, **options)

            yield note


class ExplainingExecutor(ColumnExecutor):
    """An executor that gives its context, an ExplainedOperation, the explanation of the plan."""

    async def execute_plan(self, plan: Plan, root_value: Any) -> PlanResult:
        """Execute the root fields of a plan, and explain it."""
        execution = _ExplainedExecution(self.context_value, self.variable_values)
        result = await execution.execute(plan, root_value)
        over_limit = {name: f"refused: {error}" for name, error in result.over_limit.items()}
        self.context_value.explanation = Explanation(execution.explained, {**plan.left, **result.left, **over_limit})
        return result


class _ExplainedExecution(PlanExecution):
    """An execution of a plan that notes loads and costs by column."""

    def __init__(self, context: Context, variables: VariableValues) -> None:
        super().__init__(context, variables)
        self.charge = self._charge
        self.explained: list[ExplainedField] = []
        self._loads: dict[tuple[int, Key], list[Load]] = {}
        self._costs: Counter[tuple[int, Key]] = Counter()
        self._found: tuple[int, Key] = 0, None
        """The column that was found last, which is the one that is charged for."""

    async def _resolve(self, objects: ObjectSet, field: Field, fork: Context) -> Sequence[Any]:
        try:
            return await super()._resolve(objects, field, fork)
        finally:
            self._loads[id(objects), self.key(field)] = cast("ExplainedOperation", fork).loads

    def find(self, objects: ObjectSet, field: Field, key: Key) -> Any:
        """Return a column, as any execution does."""
        self._found = id(objects), key
        return super().find(objects, field, key)

    def _charge(self, dependencies: Dependencies, objects: int | None = None) -> None:
        self._costs[self._found] += dependencies.objects if objects is None else objects
        self._context.merge(dependencies, objects)

    def _assemble(self, plan: Plan, field: Field | None, root: ObjectSet) -> Any:
        value = super()._assemble(plan, field, root)
        if field:
            (name,) = (name for name, each in zip(plan.names, plan.fields, strict=True) if each is field)
            self.explained.append(self._explain(name, field, root))
        return value

    def _explain(self, name: str, field: Field, objects: ObjectSet) -> ExplainedField:
        key = self.key(field)
        column = self.find(objects, field, key)
        place = id(objects), key
        return ExplainedField(
            _label(name, key),
            _values(column.content, field.output_type),
            self._costs[place],
            self._loads.get(place, []),
            list(_uncached(column.dependencies)),
            [
                self._explain(below, each, of)
                for plan, of in _objects(field, column.content)
                for below, each in zip(plan.names, plan.fields, strict=True)
                if each
            ],
        )


def _objects(field: Field, content: Content) -> Iterator[tuple[Plan, ObjectSet]]:
    """Yield the sets of objects of a column, with their plans."""
    while isinstance(content, ListColumn):
        content = content.items
    if isinstance(content, ObjectColumn):
        for name, objects in content.parts.items():
            yield field.plans[name], objects


def _uncached(dependencies: Dependencies) -> Iterator[str]:
    if {family for family, _ in dependencies.generations} - {"groups"}:
        yield "reads prices"
    if dependencies.day:
        yield "holds for today alone"
    if dependencies.volatile:
        yield "shows what changes by itself"


def _values(content: Content, output_type: OutputType) -> str:
    match content:
        case ValueColumn(values, _):
            return f"{len(values):,} {output_type.leaf}"
        case ListColumn(items, offsets):
            assert output_type.items  # noqa: S101 - the type of a list
            below = _values(items, output_type.items)
            return below if len(offsets) == 1 else f"{len(offsets):,} lists, {below}"
        case ObjectColumn(parts, indices):
            objects = " and ".join(f"{len(objects):,} {name}" for name, objects in parts.items()) or "no object"
            return objects if indices is None else f"{len(indices):,} values, {objects}"


def _label(name: str, key: Key) -> str:
    attribute, *arguments = key if isinstance(key, tuple) else (key,)
    field = to_camel_case(attribute)
    given = ", ".join(f"{to_camel_case(each)}: {_written(value)}" for each, value in arguments if value is not None)
    return f"{'' if field == name else f'{name}: '}{field}{f'({given})' if given else ''}"


def _written(value: Any) -> str:
    """Return an argument as GraphQL writes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    if type(value) in (str, date):
        return json.dumps(str(value), ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value)
