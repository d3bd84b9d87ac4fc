"""The executor: queries are executed column by column from the root down, and the rest by graphql-core.

graphql-core completes an answer field by field and row by row, at about ten microseconds a value, with a coroutine for
each field that waits. Here a plan (plans.py) says what is selected. The columns that it names are loaded, each after
the one whose objects it belongs to: an attribute is read from all objects of a set, a batch field is called once for
all of them, any other resolver once for each. Their values are checked (completion.py) and at last made into rows
(assembly.py).

Whatever is not that simple leaves the whole root field to graphql-core, so that its errors are always the standard
ones: introspection, an error of a resolver, a null where the type has none, a value that its type does not take.
LIMIT_EXCEEDED alone ends the root field at once.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from graphql import GraphQLError, GraphQLField, GraphQLObjectType
from graphql.execution.collect_fields import FieldDetails
from graphql.pyutils import AwaitableOrValue, Path, gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from graph.errors import LimitExceeded
from graph.execution.lane import Work
from graph.execution.plan_execution import PlanResult, execute_plan
from graph.execution.plans import Plan, Plans, make_plan

SHORT_DOCUMENT = 2_000
"""Characters of a document that is parsed, validated and planned on the event loop, in some 10 ms."""
ITEMS_AT_A_TIME = 15
"""Items of a list that graphql-core completes without a turn of others."""
LEFT_VALUE_BYTES = 40
"""Bytes of one of them as JSON with its name, about."""


class _RolledBack(Exception):
    """A field of a mutation had errors, so that its transaction is not committed."""


class ColumnExecutor(StrawberryGraphQLCoreExecutionContext):
    """graphql-core's executor, with queries executed by columns: `Schema(execution_context_class=ColumnExecutor)`."""

    def __init__(self, *args: Any, plans: Plans | None = None, result: PlanResult | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._plans = plans
        self._result = result
        self._in_lane = False
        self._left_values = 0

    def execute_collected_root_fields(
        self,
        root_type: GraphQLObjectType,
        root_value: Any,
        grouped_field_set: dict[str, list[FieldDetails]],
        serially: bool,  # noqa: FBT001 - as the base has it
        new_defer_usages: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        """Execute the fields of the root."""
        standard = super().execute_collected_root_fields
        if serially:
            return self._execute_mutation(root_type, root_value, grouped_field_set)
        if new_defer_usages or (self.middleware_manager and self.middleware_manager.middlewares):
            return standard(root_type, root_value, grouped_field_set, serially, new_defer_usages)

        def refuse(errors: dict[str, LimitExceeded]) -> None:
            for name, error in errors.items():
                details = grouped_field_set[name]
                of = cast("GraphQLField", self.schema.get_field(root_type, details[0].node.name.value)).type
                self.handle_field_error(error, of, details, Path(None, name, root_type.name))

        async def execute() -> dict[str, Any]:
            done, over_limit, _ = self._result or await self._execute_planned(root_type, root_value, grouped_field_set)
            refuse(over_limit)
            done |= dict.fromkeys(over_limit)
            rest = {name: details for name, details in grouped_field_set.items() if name not in done}
            introspection = {name: each for name, each in rest.items() if each[0].node.name.value.startswith("__")}
            if introspection:
                # it awaits nothing, and takes some 0.1 s
                self._in_lane = True
                done |= await self.context_value.run_in_lane(
                    standard, root_type, root_value, introspection, serially, new_defer_usages, work=Work.DOCUMENTS
                )
                self._in_lane = False
            if rest := {name: each for name, each in rest.items() if name not in introspection}:
                completed: Any = standard(root_type, root_value, rest, serially, new_defer_usages)
                done |= await completed if self.is_awaitable(completed) else completed
                self.context_value.answer_bytes += LEFT_VALUE_BYTES * self._left_values
            return {name: done[name] for name in grouped_field_set if name in done}

        return execute()

    async def _execute_planned(
        self, root_type: GraphQLObjectType, root_value: Any, grouped_field_set: dict[str, list[FieldDetails]]
    ) -> PlanResult:
        """Plan the root fields, store the plan, and execute it."""
        if self.operation.loc and len(self.operation.loc.source.body) > SHORT_DOCUMENT:
            plan = await self.context_value.run_in_lane(
                make_plan, self, root_type, grouped_field_set, work=Work.DOCUMENTS
            )
        else:
            plan = make_plan(self, root_type, grouped_field_set)
        if self._plans:
            self._plans.store(self.variable_values, plan)
        return await self.execute_plan(plan, root_value)

    def complete_leaf_value(self, return_type: Any, result: Any) -> Any:  # type: ignore[override] # static in the base
        """Complete a scalar or an enum value, and count it."""
        self._left_values += 1
        return super().complete_leaf_value(return_type, result)

    def complete_iterable_value(
        self, item_type: Any, field_details_list: Any, info: Any, path: Path, items: Any, position_context: Any
    ) -> AwaitableOrValue[list[Any]]:
        """Complete a list as graphql-core does, but with turns of others between parts of a long one."""
        if self._in_lane or not isinstance(items, Sequence) or len(items) <= ITEMS_AT_A_TIME:
            return super().complete_iterable_value(item_type, field_details_list, info, path, items, position_context)
        completed: list[Any] = []

        async def complete() -> list[Any]:
            waiting = []
            for index in range(len(items)):
                if index % ITEMS_AT_A_TIME == 0:
                    await asyncio.sleep(0)
                place = path.add_key(index, None)
                if self.complete_list_item_value(
                    items[index], completed, item_type, field_details_list, info, place, position_context
                ):
                    waiting.append(index)
            values = await gather_with_cancel(*(completed[index] for index in waiting))
            for index, value in zip(waiting, values, strict=True):
                completed[index] = value
            return completed

        return complete()

    async def execute_plan(self, plan: Plan, root_value: Any) -> PlanResult:
        """Execute the root fields of a plan."""
        return await execute_plan(plan, self.context_value, self.variable_values, root_value)

    async def _execute_mutation(
        self, root_type: GraphQLObjectType, root_value: Any, grouped_field_set: dict[str, list[FieldDetails]]
    ) -> dict[str, Any]:
        """Execute the fields of a mutation one after another, each in a transaction of its own."""
        data: dict[str, Any] = {}
        for name, details in grouped_field_set.items():
            try:
                with suppress(_RolledBack):
                    async with self.context_value.transaction():
                        data |= await self._execute_mutation_field(root_type, root_value, {name: details})
            except GraphQLError:
                raise
            except Exception as error:  # noqa: BLE001 - the transaction could not be committed
                of = cast("GraphQLField", self.schema.get_field(root_type, details[0].node.name.value)).type
                self.handle_field_error(error, of, details, Path(None, name, root_type.name))
                data[name] = None
            data.setdefault(name, None)
        return data

    async def _execute_mutation_field(
        self, root_type: GraphQLObjectType, root_value: Any, field: dict[str, list[FieldDetails]]
    ) -> dict[str, Any]:
        """Execute one field of a mutation; raise _RolledBack if it had errors, which are collected already."""
        errors = self.collected_errors.errors
        before = len(errors)
        completed: Any = super().execute_collected_root_fields(
            root_type, root_value, field, serially=True, new_defer_usages=[]
        )
        data: dict[str, Any] = await completed if self.is_awaitable(completed) else completed
        if len(errors) > before:
            raise _RolledBack
        return data
