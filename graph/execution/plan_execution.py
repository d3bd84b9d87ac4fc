"""Plan execution: the columns of a plan are loaded, each after the one whose objects it belongs to, and assembled."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, NoReturn, Protocol, Self, cast

from graphql.execution.values import VariableValues
from graphql.pyutils import gather_with_cancel

from graph.errors import LimitExceeded
from graph.execution.assembly import assemble, column_content
from graph.execution.columns import (
    Column,
    ColumnCacheRoot,
    Content,
    Dependencies,
    Key,
    ListColumn,
    ObjectColumn,
    ObjectSet,
)
from graph.execution.completion import complete
from graph.execution.plans import Fallback, Field, Plan, Resolver, failure_of, key_of
from graph.model import Caller

_NO_DEPENDENCIES = Dependencies()
INLINE_BYTES = 500_000
"""Bytes of an answer that are assembled on the event loop, in some 5 ms."""
MAX_ANSWER = 16 * 2**20
"""Bytes that an answer may have; exports have no such bound."""
MAX_LEFT_VALUES = 100_000
"""Scalars that graphql-core completes of what is left to it, which takes a second of turns."""
MAX_KEY = 2_000
"""Characters of a field with its arguments; columns of a longer one are not shared with other operations."""


class Context(Protocol):
    """The part of an operation's context that the executor uses."""

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Run a block in one transaction, rolled back if the block raises."""

    def fork(self) -> Self:
        """Return a context to load one column with, which has its own dependencies and cost."""

    @property
    def dependencies(self) -> Dependencies:
        """Everything that was read and charged with this context."""

    def merge(self, dependencies: Dependencies, objects: int | None = None) -> None:
        """Add the dependencies of a column, and its cost, or another cost where one is given."""

    @property
    def root(self) -> ColumnCacheRoot | None:
        """The root of the column cache; None where columns must not be shared with other operations."""

    @property
    def caller(self) -> Caller:
        """The caller that the answer is for."""

    def admit(self, resolver: Callable[..., Any], objects: int) -> Awaitable[None] | None:
        """Return the wait for a place in the lane if resolving so many objects makes the operation a dear one."""

    def learn(self, resolver: Callable[..., Any], objects: int, cost: int) -> None:
        """Note what resolving so many objects has cost."""

    async def run_in_lane(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function gives in the lane's thread."""

    objects: int
    costs: tuple[int, ...]
    answer_bytes: int


class _Info(NamedTuple):
    """The part of Strawberry's `Info` that resolvers of this schema use."""

    context: Any


class PlanResult(NamedTuple):
    """The planned root fields, each in one of three parts by its name in the answer."""

    done: dict[str, Any]
    """The values of the fields that were executed."""
    over_limit: dict[str, LimitExceeded]
    """The errors of the fields that exceeded the budget."""
    left: dict[str, str]
    """The reasons why fields are left to graphql-core."""


class _Long(Exception):
    """An answer is too long to be assembled on the event loop."""


def execute_from_cache(plan: Plan, context: Context, variables: VariableValues) -> dict[str, Any] | None:
    """Return the data of a plan whose columns are all cached; None if one has to be loaded, or something is wrong."""
    return PlanExecution(context, variables).execute_from_cache(plan) if plan.complete else None


async def execute_plan(plan: Plan, context: Context, variables: VariableValues, root_value: Any = None) -> PlanResult:
    """Execute the root fields of a plan."""
    return await PlanExecution(context, variables).execute(plan, root_value)


class PlanExecution:
    """One execution of a plan."""

    def __init__(self, context: Context, variables: VariableValues) -> None:
        self._context = context
        self.charge = context.merge
        self._variables = variables
        self._root = context.root
        self._caller = context.caller.key
        """Callers share no columns of the root, and so none below them."""
        self._converted: dict[int, tuple[Key, dict[str, Any]]] = {}
        """Key and arguments of the fields that depend on variables, by the ids of the fields."""
        self._columns: dict[tuple[int, Key], tuple[ObjectSet, Column | Exception]] = {}
        """Columns in use, which may be evicted meanwhile, and errors of loads, by the ids of object sets."""
        self.written = 0
        self.most = INLINE_BYTES
        self._in_lane = False
        """True in another thread, which stores nothing that operations share."""

    def execute_from_cache(self, plan: Plan) -> dict[str, Any] | None:
        """Return the data of a plan whose columns are all cached, or None."""
        if self._root is None:
            return None
        try:
            data = {
                name: self._assemble(plan, field, self._root)
                for name, field in zip(plan.names, plan.fields, strict=True)
            }
        except (Fallback, LimitExceeded, _Long):
            return None
        counts = self._root.counts
        counts.hits += len(data)
        if counts.observer:
            counts.observer.cache("columns", "hit", len(data))
        return data

    async def execute(self, plan: Plan, value: Any) -> PlanResult:
        """Load the columns of a plan and assemble the root fields."""
        root: ObjectSet = ObjectSet([value]) if self._root is None else self._root
        if self._root:
            keys = [field and field.key for field in plan.fields]
            if self._caller:
                keys = [key and (self._caller, key) for key in keys]
            hits = sum(key in root.columns for key in keys)
            counts = self._root.counts
            counts.hits += hits
            if counts.observer and hits:
                counts.observer.cache("columns", "hit", hits)
        await self._load([(plan, root)])
        result = PlanResult({}, {}, {})
        for name, field in zip(plan.names, plan.fields, strict=True):
            before = self._context.objects, self.written
            try:
                try:
                    result.done[name] = self._assemble(plan, field, root)
                except _Long:
                    self._context.objects, self.written = before
                    self.most, self._in_lane = MAX_ANSWER, True
                    result.done[name] = await self._context.run_in_lane(self._assemble, plan, field, root)
            except Fallback as reason:
                self._context.objects, self.written = before
                self._in_lane = True
                if field and await self._context.run_in_lane(self._values_below, field, root, 1) > MAX_LEFT_VALUES:
                    # without the reason, which may tell the inside
                    result.over_limit[name] = LimitExceeded(
                        f"Around an error {MAX_LEFT_VALUES:,} values can be answered; ask for less, or without what is"
                        " wrong."
                    )
                else:
                    result.left[name] = str(reason)
            except LimitExceeded as error:
                self._context.objects, self.written = before
                result.over_limit[name] = error
            finally:
                self.most, self._in_lane = INLINE_BYTES, False
        self._context.answer_bytes = self.written
        return result

    def refuse(self) -> NoReturn:
        """Raise the error of an answer that has too many bytes, or too many for the event loop."""
        if self.written <= MAX_ANSWER:
            raise _Long
        raise LimitExceeded(
            f"The answer would have more than {MAX_ANSWER // 2**20} MB; ask for fewer fields, or for fewer at a time"
            " with `first`."
        )

    def _values_below(self, field: Field, objects: ObjectSet, count: int) -> int:
        """Return how many scalars of a field are known to be in the answer; `count` says how often its objects are."""
        if field.output_type.leaf:
            return count
        try:
            column = self.find(objects, field, self._key_in(objects, field))
        except (Fallback, LimitExceeded):
            column = None
        content = column and column.content
        while isinstance(content, ListColumn):
            count = _end(content) * count // (len(content.offsets) or 1)
            content = content.items
        if not isinstance(content, ObjectColumn):
            return count
        total = sum(map(len, content.parts.values())) or 1
        return sum(
            self._values_below(below, of, count * len(of) // total)
            for name, of in content.parts.items()
            for below in field.plans[name].fields
            if below
        )

    def _assemble(self, plan: Plan, field: Field | None, root: ObjectSet) -> Any:
        if field is None:
            return plan.type
        key = self._key_in(root, field)
        if self._root is root and not self._in_lane:
            self._root.touch(key)
        return assemble(self, field, column_content(self, root, field, key, None), None, 1)[0]

    async def _load(self, selected: list[tuple[Plan, ObjectSet]]) -> None:
        """Load the columns that are missing, each followed by those below it, all at the same time."""
        loads: dict[tuple[int, Key], tuple[ObjectSet, Key, list[Field]]] = {}
        for plan, objects in selected:  # which grows meanwhile
            for field in plan.async_fields:
                try:
                    key = self._key_in(objects, field)
                    column = self.find(objects, field, key)
                except (Fallback, LimitExceeded):
                    continue  # it is raised again when rows are assembled
                if column is None:
                    loads.setdefault((id(objects), key), (objects, key, []))[2].append(field)
                else:
                    selected += _below(field, column.content)
        if len(loads) == 1:
            (only,) = loads.values()
            await self._load_column(*only)
        elif loads:
            await gather_with_cancel(*(self._load_column(*load) for load in loads.values()))

    async def _load_column(self, objects: ObjectSet, key: Key, fields: list[Field]) -> None:
        """Load a column that some fields share, and then the columns that each of them selects below it."""
        # before the load, since others may wait for that
        if wait := self._context.admit(cast("Resolver", fields[0].resolver).call, len(objects)):
            await wait
        make = self._make if objects.entry is None else self._make_once
        column = await make(objects, fields[0], key)
        if isinstance(column, Column):
            await self._load([below for field in fields for below in _below(field, column.content)])

    async def _make_once(self, objects: ObjectSet, field: Field, key: Key) -> Column | Exception:
        """Make a column, or wait for another operation that is making it."""
        while flight := objects.loading.get(key):
            await asyncio.wait([flight])
            if stored := objects.columns.get(key):
                self._columns[id(objects), key] = objects, stored
                return stored
            if not flight.result():
                # it failed or must not be shared, so waiting for yet another operation is of no use
                return await self._make(objects, field, key)
        flight = objects.loading[key] = asyncio.get_running_loop().create_future()
        cancelled = True
        try:
            column = await self._make(objects, field, key)
            cancelled = False
        finally:
            del objects.loading[key]
            flight.set_result(cancelled)
        return column

    async def _make(self, objects: ObjectSet, field: Field, key: Key) -> Column | Exception:
        fork = self._context.fork()
        column: Column | Exception
        try:
            values = await self._resolve(objects, field, fork)
            dependencies = fork.dependencies
            self._context.learn(cast("Resolver", field.resolver).call, len(objects), dependencies.objects)
            entry = objects.entry_for(key, dependencies) if objects.entry and len(repr(key)) <= MAX_KEY else None
            column = Column(complete(field.output_type, values, entry), dependencies)
            if len(values) != len(objects):
                column = Fallback(f"{len(values)} values for {len(objects)} objects")
            elif objects.entry is None or entry:
                column = objects.store(key, column, entry)
        except Exception as error:  # noqa: BLE001 - graphql-core meets it again and reports it
            column = error
        self._columns[id(objects), key] = objects, column
        return column

    async def _resolve(self, objects: ObjectSet, field: Field, fork: Context) -> Sequence[Any]:
        """Call the resolver of a field, once for all objects if it is a batch field, else once for each."""
        resolver, arguments = field.resolver, self._arguments(field)
        assert resolver  # noqa: S101 - only what has one is loaded
        if resolver.batch:
            return await resolver.batch(objects, fork, **arguments)

        def call(of: Any, context: Context) -> Awaitable[Any]:
            info = {resolver.info: _Info(context)} if resolver.info else {}
            called: Awaitable[Any] = resolver.call(of, **arguments, **info)
            return called

        if len(objects) == 1:
            return [await call(objects[0], fork)]
        forks = [fork.fork() for _ in objects]
        values: list[Any] = await gather_with_cancel(*map(call, objects, forks))
        for each in forks:
            fork.merge(each.dependencies)
        fork.costs = tuple(each.objects for each in forks)
        return values

    def key(self, field: Field) -> Key:
        """Return the key of a field's columns; raise Fallback for arguments that are not of their types."""
        return field.key if field.key is not None else self._convert(field)[0]

    def _key_in(self, objects: ObjectSet, field: Field) -> Key:
        """Return the key of a field's column for some objects."""
        return (self._caller, self.key(field)) if self._caller and objects is self._root else self.key(field)

    def _arguments(self, field: Field) -> dict[str, Any]:
        return field.arguments if field.arguments is not None else self._convert(field)[1]

    def _convert(self, field: Field) -> tuple[Key, dict[str, Any]]:
        converted = self._converted.get(id(field))
        if converted is None:
            try:
                arguments = cast("Resolver", field.resolver).arguments(self._variables)
                converted = key_of(field.attribute, arguments), arguments
            except Exception as error:
                raise failure_of(field, error) from error
            self._converted[id(field)] = converted
        return converted

    def find(self, objects: ObjectSet, field: Field, key: Key) -> Column | None:
        """Return a column, derived now if that takes no waiting; None if it has to be loaded."""
        if field.resolver is None and not self._in_lane:
            return objects.columns.get(key) or self._derive(objects, field, key)
        found = self._columns.get((id(objects), key))
        if found is None:
            column = objects.columns.get(key)
            if column is None and not (field.resolver and field.resolver.waits):
                column = self._derive(objects, field, key)
            if column:
                self._columns[id(objects), key] = objects, column
            return column
        if isinstance(found[1], LimitExceeded):
            raise found[1]
        if isinstance(found[1], Exception):
            raise failure_of(field, found[1])
        return found[1]

    def _derive(self, objects: ObjectSet, field: Field, key: Key) -> Column:
        """Make a column of attributes, or of a resolver that does not wait."""
        resolver = field.resolver
        # a loaded column of a root has a cache entry of its own, a derived one none
        entry = None if objects is self._root else objects.entry
        try:
            if resolver is None:
                values = objects.values(field.attribute)
            else:
                arguments = self._arguments(field)
                if resolver.info:
                    arguments = {**arguments, resolver.info: _Info(self._context)}
                values = [resolver.call(each, **arguments) for each in objects]
            column = Column(complete(field.output_type, values, entry), _NO_DEPENDENCIES)
        except Exception as error:
            raise failure_of(field, error) from error
        return column if objects is self._root or self._in_lane else objects.store(key, column, entry)


def _end(content: ListColumn) -> int:
    """Return the number of items of all lists."""
    return next((span[1] for span in reversed(content.offsets) if span), 0)


def _below(field: Field, content: Content) -> Iterator[tuple[Plan, ObjectSet]]:
    """Yield the plans of the objects in a column that still have something to load."""
    while isinstance(content, ListColumn):
        content = content.items
    if isinstance(content, ObjectColumn):
        for name, objects in content.parts.items():
            if (plan := field.plans[name]).async_fields:
                yield plan, objects
