"""Documents that were parsed and found valid, cached by their text."""

from typing import Any, NamedTuple

from graphql import DocumentNode, OperationDefinitionNode

from graph.caching.lru import LRU

MAX_CHARACTERS = 50_000
"""Bound of the cache; a character can take 200 bytes, as nodes and tokens."""


class Document(NamedTuple):
    """A valid document."""

    node: DocumentNode
    operations: dict[str | None, OperationDefinitionNode]
    """Its operations by name; the only operation of a document is under None too."""
    plans: dict[str | None, Any]
    """The plans of each operation by its name, cached as long as the document."""


class Documents:
    """A cache of valid documents by their text, bounded in characters."""

    def __init__(self, max_characters: int = MAX_CHARACTERS) -> None:
        self._entries: LRU[str, Document] = LRU(lambda text, _: len(text), max_bytes=max_characters)

    def get(self, text: str | None) -> Document | None:
        """Return the document of a text, or None."""
        document = self._entries.get(text or "")
        if document is not None:
            self._entries.move_to_end(text or "")
        return document

    def store(self, text: str, node: DocumentNode) -> None:
        """Cache the document of a text."""
        if text in self._entries:
            return
        found = [each for each in node.definitions if isinstance(each, OperationDefinitionNode)]
        operations: dict[str | None, OperationDefinitionNode] = {each.name.value: each for each in found if each.name}
        if len(found) == 1:
            operations[None] = found[0]
        self._entries.store(text, Document(node, operations, {}))
