"""The schema: its root, and the execution of operations so that each answer is of one moment of the database."""

import logging
import secrets
from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime
from functools import partial
from inspect import isawaitable
from typing import Any, cast

import strawberry
from graphql import GraphQLError, OperationType
from graphql.execution.values import VariableValues
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.exceptions import InvalidOperationTypeError
from strawberry.types import ExecutionContext, ExecutionResult
from strawberry.types.graphql import OperationType as OperationKind

from graph.api.breadth import BreadthQuery
from graph.api.descriptions import describe
from graph.api.nodes import Group, NodesQuery, Stock
from graph.api.overlaps import OverlapQuery
from graph.api.rotation import RotationQuery
from graph.api.search import SearchQuery
from graph.api.status import StatusQuery
from graph.api.universes import UniverseQuery
from graph.caching.memory import share_of
from graph.errors import DatabaseUnavailable, ErrorCode, GraphError, Overloaded
from graph.execution.documents import Document, Documents
from graph.execution.executor import SHORT_DOCUMENT, ColumnExecutor
from graph.execution.lane import Work
from graph.execution.limits import Limits, code_errors, read_document
from graph.execution.operation import Operation
from graph.execution.plan_execution import execute_from_cache, execute_plan
from graph.execution.plans import Plan, Plans
from graph.settings import Settings

log = logging.getLogger(__name__)


@strawberry.type
class Query(NodesQuery, UniverseQuery, RotationQuery, BreadthQuery, SearchQuery, OverlapQuery, StatusQuery):
    """Stocks, the groups that hold them, and the universes that groups make."""


class GraphSchema(strawberry.Schema):
    """A schema whose operations have an `Operation` as context; internal errors are masked."""

    documents: Documents
    """The cache of valid documents."""

    def execute_from_cache(
        self, query: str, variables: dict[str, Any] | None, name: str | None, operation: Operation
    ) -> dict[str, Any] | None:
        """Return the data of a query whose columns are all cached; None if it has to be executed."""
        if operation.root is None:
            return None
        plan, given = self._plan(self.documents.get(query), variables, name)
        return execute_from_cache(plan, operation, given) if plan and given else None

    def _plan(
        self, document: Document | None, variables: dict[str, Any] | None, name: str | None
    ) -> tuple[Plan | None, VariableValues | None]:
        """Return the cached plan of an operation and its coerced variables, or None for both."""
        plans = document and document.plans.get(name)
        if not isinstance(plans, Plans):
            return None, None
        given = plans.variables(self._schema, variables or {})
        return (None, None) if given is None else (plans.get(given), given)

    async def execute(
        self,
        query: str | None,
        variable_values: dict[str, Any] | None = None,
        context_value: Any = None,
        root_value: Any = None,
        operation_name: str | None = None,
        allowed_operation_types: Iterable[OperationKind] | None = None,
        operation_extensions: dict[str, Any] | None = None,
    ) -> ExecutionResult:
        """Execute a query until all of its reads are of one generation of the database, and a mutation once."""
        operation = context_value
        assert isinstance(operation, Operation)  # noqa: S101 - the server's own callers

        def execute(kind: OperationKind) -> Awaitable[ExecutionResult]:
            return super(GraphSchema, self).execute(
                query, variable_values, operation, root_value, operation_name, {kind}, operation_extensions
            )

        async def execute_query() -> ExecutionResult:
            known = await self._execute_known(query, variable_values, operation, operation_name)
            return known or await execute(OperationKind.QUERY)

        if query and len(query) > SHORT_DOCUMENT and not self.documents.get(query):
            read = await operation.run_in_lane(read_document, self._schema, query, work=Work.DOCUMENTS)
            if isinstance(read, list):
                return ExecutionResult(data=None, errors=read)
            self.documents.store(query, read)
        try:
            result = _refused_as_a_whole(await operation.until_consistent(execute_query))
        except InvalidOperationTypeError as error:
            # nothing was executed yet
            allowed = set(OperationKind) if allowed_operation_types is None else set(allowed_operation_types)
            if error.operation_type is not OperationKind.MUTATION or OperationKind.MUTATION not in allowed:
                raise
            result = await operation.once(lambda: execute(OperationKind.MUTATION))
        except Overloaded as error:
            result = _refusal(error)
        if result.errors:
            code_errors(result.errors)
            result.errors = [_readable(error) for error in result.errors]
        asked_for = operation_extensions or {}
        if operation.stale or asked_for.get("cost") is True:
            result.extensions = {**(result.extensions or {}), **_extensions(operation, asked_for)}
        return result

    async def _execute_known(
        self, query: str | None, variables: dict[str, Any] | None, operation: Operation, name: str | None
    ) -> ExecutionResult | None:
        """Execute a query whose document is cached, without parsing and validating it; return None for others."""
        planned = None
        document = self.documents.get(query)
        plan, given = self._plan(document, variables, name)
        if plan and given:
            planned = await execute_plan(plan, operation, given)
            if plan.complete and len(planned.done) == len(plan.names):
                return ExecutionResult(data=planned.done, errors=None)
        node = document and document.operations.get(name)
        if not document or not node or node.operation is not OperationType.QUERY:
            return None
        plans = document.plans.get(name)
        if plans is None:
            grow = partial(self.documents.grow, query or "", document)
            plans = document.plans[name] = Plans(document.node, node, len(query or "") // 2, grow)
        executor = ColumnExecutor.build(
            self._schema,
            document.node,
            context_value=operation,
            raw_variable_values=variables,
            operation_name=name,
            is_awaitable=cast("Any", optimized_is_awaitable),
            plans=None if planned else plans,
            result=planned,
        )
        if isinstance(executor, list):
            return ExecutionResult(data=None, errors=executor)
        result: Any = executor.execute_operation()
        if isawaitable(result):
            result = await result
        return ExecutionResult(data=result.data, errors=result.errors)

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log nothing here: clients are told of their mistakes, and internal errors are logged under an id."""


def _refused_as_a_whole(result: ExecutionResult) -> ExecutionResult:
    """Return a result, without data if one of its fields was refused for no fault of its own."""
    for error in result.errors or ():
        if isinstance(error.original_error, DatabaseUnavailable | Overloaded):
            return _refusal(error.original_error)
    return result


def _extensions(operation: Operation, asked_for: dict[str, Any]) -> dict[str, Any]:
    """Return the extensions of the response: its cost if that is asked for, and when stale data were confirmed last."""
    extensions: dict[str, Any] = {}
    if asked_for.get("cost") is True:
        extensions["cost"] = operation.cost
    if operation.stale:
        confirmed = operation.runtime.generations.confirmed_at
        extensions["stale"] = {"confirmedAt": None if confirmed is None else _write_time(confirmed)}
    return extensions


def _refusal(error: GraphError) -> ExecutionResult:
    return ExecutionResult(data=None, errors=[GraphQLError(str(error), original_error=error)])


def _readable(error: GraphQLError) -> GraphQLError:
    cause = error.original_error
    if isinstance(cause, GraphError) or "code" in (error.extensions or {}):
        return error
    number = secrets.token_hex(6)
    log.error("Internal error %s at %s", number, error.path, exc_info=cause)
    return GraphQLError(
        f"Something went wrong here; the server's log has it under {number}.",
        nodes=error.nodes,
        path=error.path,
        extensions={"code": ErrorCode.INTERNAL.value, "id": number},
    )


def _write_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


_DateTime = strawberry.scalar(
    name="DateTime",
    description="A moment in UTC, as in `2026-01-31T12:00:00Z`.",
    serialize=_write_time,
    parse_value=datetime.fromisoformat,
)


def make_schema(
    mutation: type | None = None, executor: type[ColumnExecutor] = ColumnExecutor, documents: Documents | None = None
) -> GraphSchema:
    """Make the schema, with the docstrings as descriptions, and with mutations where a type of them is given."""
    documents = documents or Documents(share_of(Settings().memory_bytes, "documents"))
    schema = GraphSchema(
        query=Query,
        mutation=mutation,
        types=[Stock, Group],
        config=StrawberryConfig(scalar_map={datetime: _DateTime}),
        extensions=[partial(Limits, documents=documents)],
        execution_context_class=executor,
    )
    schema.documents = documents
    describe(schema)
    return schema
