"""Limits on GraphQL documents, checked in linear time before graphql-core's own rules, some of which are quadratic.

`Limits` takes a document through parsing and validation and gives each error found there a code:
GRAPHQL_PARSE_FAILED, GRAPHQL_VALIDATION_FAILED, OPERATION_RESOLUTION_FAILURE or LIMIT_EXCEEDED.
`code_errors` gives codes to mistakes of a client that show only in execution.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValueNode,
    parse,
    specified_rules,
    validate,
)
from graphql.validation.validate import ValidationAbortedError
from strawberry.exceptions import StrawberryInputCoercionError
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.types.execution import ParseOptions

from graph.errors import ErrorCode, LimitExceeded
from graph.execution.documents import Documents

# Strawberry's rule for @oneOf inputs fails on variables in fragments; such inputs are checked again when executed.
RULES = (*specified_rules, MaybeNullValidationRule)


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """Limits on one document. With the defaults none takes more than about 0.1 s before its execution."""

    characters: int = 50_000
    lines: int = 2_000
    """Lines of text; graphql-core counts them from the top for each error."""
    tokens: int = 2_000
    """Tokens, each of which takes about 30 microseconds to parse and validate."""
    operations: int = 20
    """Operations; rules on variables go through all fragments for each."""
    fragments: int = 50
    """Fragments, of which graphql-core compares every pair."""
    depth: int = 20
    """Levels of fields; the introspection query of the usual tools has 15."""
    selections: int = 2_000
    """Selected fields and fragments, counted wherever a fragment brings them in."""
    aliases: int = 100
    repeats: int = 20
    """Selections of one field in one place, of which graphql-core compares every pair."""
    introspections: int = 3
    """Fields `__schema` and `__type`; each may take 0.1 s to execute."""
    errors: int = 10
    """Errors that validation reports before it stops."""


class Limits(SchemaExtension):
    """Parses within the limits, refuses what exceeds them, and validates the rest: `Schema(extensions=[Limits])`.

    For other limits than the defaults: `extensions=[partial(Limits, DocumentLimits(depth=5))]`.
    """

    def __init__(self, limits: DocumentLimits = DocumentLimits(), documents: Documents | None = None) -> None:
        self.limits = limits
        self.documents = documents

    def on_parse(self) -> Iterator[None]:
        """Have Strawberry parse within the limits, and give codes to its errors."""
        context, limits = self.execution_context, self.limits
        if self.documents and (known := self.documents.get(context.query)):
            context.graphql_document = known.node
            yield
            return
        # which names only the option that these replaced
        context.parse_options = cast("ParseOptions", _parse_options(limits))
        yield
        for error in context.pre_execution_errors or ():
            _code_syntax_error(error)

    def on_validate(self) -> Iterator[None]:
        """Report the errors that `check` finds, or that an operation has to be named."""
        context = self.execution_context
        document, text = cast("DocumentNode", context.graphql_document), cast("str", context.query)
        errors: list[GraphQLError] = []
        known = self.documents and self.documents.get(text)
        if not known or known.node is not document:
            schema = context.schema._schema  # noqa: SLF001 - Strawberry has no public name for it
            errors = check(schema, text, document, self.limits)
            if self.documents and not errors:
                self.documents.store(text, document)
        name = context._provided_operation_name  # noqa: SLF001 - the public one falls back on the first operation
        operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        if not errors and name is None and len(operations) > 1:
            names = ", ".join(node.name.value for node in operations if node.name)
            message = f"The document holds {len(operations)} operations; name one of them as operationName: {names}."
            errors = [_code(GraphQLError(message), ErrorCode.OPERATION_RESOLUTION_FAILURE)]
        context.pre_execution_errors = errors
        yield


def read_document(
    schema: GraphQLSchema, text: str, limits: DocumentLimits = DocumentLimits()
) -> DocumentNode | list[GraphQLError]:
    """Return the document of a text, or the errors that `Limits` would report."""
    try:
        document = parse(text, **cast("Any", _parse_options(limits)))
    except GraphQLError as error:
        return [_code_syntax_error(error)]
    return check(schema, text, document, limits) or document


def check(schema: GraphQLSchema, text: str, document: DocumentNode, limits: DocumentLimits) -> list[GraphQLError]:
    """Return the errors of a document with their codes: the limit that it exceeds, or those of validation."""
    try:
        _check_size(text, document, limits)
        _check_selections(document, limits)
    except LimitExceeded as exceeded:
        return [GraphQLError(str(exceeded), original_error=exceeded)]
    errors = validate(schema, document, RULES, max_errors=limits.errors)
    for error in errors:
        aborted = isinstance(error, ValidationAbortedError)
        _code(error, ErrorCode.LIMIT_EXCEEDED if aborted else ErrorCode.GRAPHQL_VALIDATION_FAILED)
        if error.message == "Validation aborted.":
            error.message = "Fragments are nested too deeply within one another; use fewer."
    return errors


def code_errors(errors: Iterable[GraphQLError]) -> None:
    """Give INVALID_ARGUMENT to the errors of an execution that a variable or an argument of the request caused.

    An error without a code after this is no mistake of the client.
    """
    for error in errors:
        cause = error.original_error
        of_variables = error.path is None and (cause is None or isinstance(cause, GraphQLError))
        of_arguments = isinstance(cause, StrawberryInputCoercionError) or (
            isinstance(cause, GraphQLError) and any(isinstance(node, ValueNode) for node in cause.nodes or ())
        )
        if (of_variables or of_arguments) and "code" not in (error.extensions or {}):
            _code(error, ErrorCode.INVALID_ARGUMENT)


def _parse_options(limits: DocumentLimits) -> dict[str, int]:
    return {
        "max_source_length": limits.characters,
        "max_lexical_tokens": limits.tokens,
        "max_comments": limits.lines,
    }


def _code_syntax_error(error: GraphQLError) -> GraphQLError:
    if not error.message.endswith("Parsing aborted."):
        return _code(error, ErrorCode.GRAPHQL_PARSE_FAILED)
    reason = error.message.removeprefix("Syntax Error: ").removesuffix("Parsing aborted.")
    error.message = f"{reason}Ask for less, or split it into several requests."
    return _code(error, ErrorCode.LIMIT_EXCEEDED)


def _code(error: GraphQLError, code: ErrorCode) -> GraphQLError:
    error.extensions = {"code": code.value}
    return error


def _check_size(text: str, document: DocumentNode, limits: DocumentLimits) -> None:
    kinds = [type(node) for node in document.definitions]
    for found, what, limit in (
        (text.count("\n") + text.count("\r") + 1, "lines", limits.lines),
        (kinds.count(OperationDefinitionNode), "operations", limits.operations),
        (kinds.count(FragmentDefinitionNode), "fragments", limits.fragments),
    ):
        if found > limit:
            raise LimitExceeded(f"The document has {found} {what}, and {limit} are allowed; split it.")


def _check_selections(document: DocumentNode, limits: DocumentLimits) -> None:
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    fragments = [node for node in document.definitions if isinstance(node, FragmentDefinitionNode)]
    walk = _Walk({node.name.value: node for node in fragments}, limits)
    for operation in operations:
        walk.descend([(operation.selection_set, ())])
    for fragment in fragments:
        if not walk.reached(fragment):
            walk.descend([(fragment.selection_set, (fragment.name.value,))])


# A selection set, and the fragments within which it stands.
_Part = tuple[SelectionSetNode, tuple[str, ...]]


class _Walk:
    """A walk through selections as execution merges them, which raises LimitExceeded at the first limit exceeded.

    Linear, because the number of selections is one of the limits. Fragments that are unknown, or spread within
    themselves, are passed over: validation reports them.
    """

    def __init__(self, fragments: dict[str, FragmentDefinitionNode], limits: DocumentLimits) -> None:
        self._fragments = fragments
        self._limits = limits
        self._spread: set[str] = set()
        self._selections = self._aliases = self._introspections = 0

    def reached(self, fragment: FragmentDefinitionNode) -> bool:
        """Tell if a fragment was spread; of several with one name only the last can be."""
        name = fragment.name.value
        return name in self._spread and self._fragments[name] is fragment

    def descend(self, parts: list[_Part], depth: int = 1, *, introspecting: bool = False) -> None:
        """Check the merged fields of some selection sets, and then the selections below each field."""
        limits = self._limits
        if depth > limits.depth:
            raise LimitExceeded(
                f"Fields are nested more than {limits.depth} levels deep; ask for the deeper ones in another request."
            )
        for key, found in self._merge(parts).items():
            field = found[0][0]
            if len(found) > limits.repeats:
                raise LimitExceeded(
                    f"The field {key!r} is selected {len(found)} times in one place, and {limits.repeats} are allowed; "
                    "select it once."
                )
            if field.alias:
                self._aliases += 1
                if self._aliases > limits.aliases:
                    raise LimitExceeded(
                        f"The document has more than {limits.aliases} aliases, counted wherever a fragment brings "
                        "them; split it into several requests."
                    )
                if introspecting:
                    raise LimitExceeded(f"Within __schema and __type there are no aliases; leave out {key!r}.")
            enters = field.name.value in ("__schema", "__type")
            if enters:
                self._introspections += 1
                if self._introspections > limits.introspections:
                    raise LimitExceeded(
                        f"The document has more than {limits.introspections} fields __schema and __type; split it "
                        "into several requests."
                    )
            below = [(node.selection_set, within) for node, within in found if node.selection_set]
            if below:
                self.descend(below, depth + 1, introspecting=introspecting or enters)

    def _merge(self, parts: list[_Part]) -> dict[str, list[tuple[FieldNode, tuple[str, ...]]]]:
        """Return the fields by their names in the answer, each with the fragments that it stands in."""
        fields: dict[str, list[tuple[FieldNode, tuple[str, ...]]]] = {}
        spread: set[str] = set()
        parts = list(parts)
        for selection_set, within in parts:  # which grows meanwhile
            self._selections += len(selection_set.selections)
            if self._selections > self._limits.selections:
                raise LimitExceeded(
                    f"The document selects more than {self._limits.selections} fields, counted wherever a fragment "
                    "brings them; split it into several requests."
                )
            for node in selection_set.selections:
                if isinstance(node, FieldNode):
                    fields.setdefault((node.alias or node.name).value, []).append((node, within))
                elif isinstance(node, InlineFragmentNode):
                    parts.append((node.selection_set, within))
                elif isinstance(node, FragmentSpreadNode):
                    name = node.name.value
                    if name in self._fragments and name not in spread and name not in within:
                        spread.add(name)
                        parts.append((self._fragments[name].selection_set, (*within, name)))
        self._spread |= spread
        return fields
