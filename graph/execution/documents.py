"""Documents that were parsed and found valid, cached by their text."""

from typing import Any

from graphql import (
    DocumentNode,
    GraphQLArgument,
    GraphQLEnumValue,
    GraphQLField,
    GraphQLNamedType,
    GraphQLSchema,
    GraphQLWrappingType,
    OperationDefinitionNode,
)
from strawberry import Schema
from strawberry.types.field import StrawberryField

from graph.caching.data_cache import CacheStats
from graph.caching.lru import LRU
from graph.caching.sizes import Sizer

DOCUMENT_BYTES = 1_000
"""Bytes of an entry besides its text and nodes: its operations, the holders of their plans, and its slot."""

_schema_parts = (
    Schema,
    StrawberryField,
    GraphQLSchema,
    GraphQLNamedType,
    GraphQLWrappingType,
    GraphQLField,
    GraphQLArgument,
    GraphQLEnumValue,
)
_size_of_nodes = Sizer()
size_of_plan = Sizer(DocumentNode.__base__, *_schema_parts)  # type: ignore[arg-type]
"""Measures a plan, without the nodes of its document and the parts of the schema that it refers to."""


class Document:
    """A valid document."""

    __slots__ = ("node", "operations", "plans", "size")

    def __init__(self, text: str, node: DocumentNode) -> None:
        self.node = node
        found = [each for each in node.definitions if isinstance(each, OperationDefinitionNode)]
        self.operations: dict[str | None, OperationDefinitionNode] = {
            each.name.value: each for each in found if each.name
        }
        """Its operations by name; the only operation of a document is under None too."""
        if len(found) == 1:
            self.operations[None] = found[0]
        self.plans: dict[str | None, Any] = {}
        """The plans of each operation by its name, cached as long as the document."""
        self.size = DOCUMENT_BYTES * (1 + len(found)) + _size_of_nodes(text, node)
        """Bytes of the document with its plans."""


class Documents:
    """A cache of valid documents by their text, bounded in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._entries: LRU[str, Document] = LRU(lambda _, document: document.size, max_bytes=max_bytes)
        self._hits = self._misses = 0

    def get(self, text: str | None) -> Document | None:
        """Return the document of a text, or None."""
        document = self._entries.get(text or "")
        if document is not None:
            self._entries.move_to_end(text or "")
            self._hits += 1
        return document

    def store(self, text: str, node: DocumentNode) -> None:
        """Cache the document of a text."""
        if text in self._entries:
            return
        self._misses += 1
        _unlink_tokens(node)
        self._entries.store(text, Document(text, node))

    def grow(self, text: str, document: Document, size: int) -> None:
        """Count the bytes of a plan that a document got."""
        if self._entries.get(text) is document:
            document.size += size
            self._entries.grow(size)

    def stats(self) -> CacheStats:
        """Return the number and size of the documents, and the hits, misses and evictions since the start."""
        return CacheStats(len(self._entries), self._entries.bytes, self._hits, self._misses, self._entries.evictions)


def _unlink_tokens(node: DocumentNode) -> None:
    """Cut the chain of tokens, which refer to each other, so that a document is freed when it is evicted."""
    token = node.loc and node.loc.start_token
    while token:
        following, token.prev, token.next = token.next, None, None
        token = following
