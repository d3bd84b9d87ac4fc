"""Universe keys: `SPY:QQQ`, `SPY&QQQ`, `SPY-QQQ`, `(SPY:QQQ)-dow30`, `SECTOR/energy`, `"a name: with signs"`.

`:` is union, `&` intersection, `-` difference; `&` and `-` have one precedence, associate to the left and bind tighter
than `:`. Since a chain such as `a&b-c&d` is what is in all of a, b, d and not in c, in whatever order it is written,
every key has a form in which order, repetition and needless parentheses are gone: the canonical one.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from graph.errors import AmbiguousGroup, InvalidKey, LimitExceeded
from graph.model import GroupName

MAX_LENGTH = 4_000
"""Characters in a key."""
MAX_PARTS = 100
"""Groups named in a key."""
MAX_DEPTH = 20
"""Parentheses within parentheses."""

TYPES = ("CUSTOM", "ETF", "SECTOR", "SEGMENT", "THEME", "UNIVERSE")

_TOKEN = re.compile(r'\s*(?:(?P<sign>[:&()/-])|"(?P<quoted>(?:[^"]|"")+)"|(?P<bare>[^\s:&\-()/"]+))')
_BARE = re.compile(r'[^\s:&\-()/"]+')


class Name(NamedTuple):
    """A group as a key names it."""

    type: str | None
    name: str


@dataclass(frozen=True, slots=True)
class GroupRef:
    """A group that was found: how the canonical form writes it, and its id."""

    label: str
    group: int


@dataclass(frozen=True, slots=True)
class Intersection:
    """What is in all of `included` and in none of `excluded`."""

    included: "tuple[Expression, ...]"
    excluded: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Union:
    """What is in any of `terms`."""

    terms: "tuple[Expression, ...]"


Expression = Name | GroupRef | Intersection | Union


def write_name(name: str) -> str:
    """Write a group's name as a key must: bare where it can be, else in double quotes."""
    return name if _BARE.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def parse(key: str) -> Expression:
    """Read a key into an expression over `Part`s; InvalidKey says at which character (from 1) it breaks the grammar."""
    if len(key) > MAX_LENGTH:
        raise LimitExceeded(f"The key has {len(key):,} characters; a key may have {MAX_LENGTH:,}.")
    return _Parser(key).read()


class _Parser:
    """Recursive descent over the tokens of one key."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.start = 0  # of the token ahead
        self.end = 0
        self.token: re.Match[str] | None = None
        self.parts = 0
        self.depth = 0
        self.advance()

    def advance(self) -> None:
        self.token = _TOKEN.match(self.key, self.end)
        rest = self.key[self.end :]
        self.start = self.token.start(self.token.lastgroup or 0) if self.token else len(self.key) - len(rest.lstrip())
        if self.token:
            self.end = self.token.end()
        elif rest.strip():
            self.fail('has a double quote that is never closed or holds nothing; write " twice for one within a name')

    def fail(self, problem: str) -> None:
        position = self.start + 1
        raise InvalidKey(f"The key {self.key!r} {problem} (at character {position}).", position=position)

    def sign(self) -> str | None:
        return self.token["sign"] if self.token else None

    def read(self) -> Expression:
        tree = self.union()
        if self.sign() == ")":
            self.fail("closes a parenthesis that was not opened")
        if self.sign() == "/":
            self.fail("may write a type only before a name, as in SECTOR/energy")
        if self.token:
            self.fail("needs one of : & - between two names; a name with white space goes in double quotes")
        return tree

    def union(self) -> Expression:
        terms = [self.chain()]
        while self.sign() == ":":
            self.advance()
            terms.append(self.chain())
        return Union(tuple(terms))

    def chain(self) -> Expression:
        included: list[Expression] = [self.operand()]
        excluded: list[Expression] = []
        while (sign := self.sign()) in ("&", "-"):
            self.advance()
            (included if sign == "&" else excluded).append(self.operand())
        return Intersection(tuple(included), tuple(excluded))

    def operand(self) -> Expression:
        if self.sign() == "(":
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise LimitExceeded(f"The key opens more than {MAX_DEPTH} parentheses within each other.")
            self.advance()
            tree = self.union()
            if self.sign() != ")":
                self.fail("misses a closing parenthesis")
            self.depth -= 1
            self.advance()
            return tree
        return self.part()

    def part(self) -> Name:
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise LimitExceeded(f"The key names more than {MAX_PARTS} groups.")
        start = self.start
        first, quoted = self.name()
        if self.sign() != "/":
            return Name(None, first)
        if quoted:
            self.fail("has a quoted name before the slash, where only a type such as SECTOR may stand")
        if first.upper() not in TYPES:
            self.start = start
            self.fail(f"has no such type as {first}; there are {', '.join(TYPES)}")
        self.advance()
        return Name(first.upper(), self.name()[0])

    def name(self) -> tuple[str, bool]:
        if self.token is None or self.token["sign"]:
            self.fail("is empty" if not self.key.strip() else "misses a group's name")
        assert self.token  # noqa: S101 - fail() has raised otherwise
        bare, quoted = self.token["bare"], self.token["quoted"]
        self.advance()
        return (bare, False) if bare is not None else (quoted.replace('""', '"'), True)


def leaves(expression: Expression) -> Iterator[Name | GroupRef]:
    """Yield the groups that an expression names, in the order written."""
    match expression:
        case Name() | GroupRef():
            yield expression
        case Intersection(included, excluded):
            for each in (*included, *excluded):
                yield from leaves(each)
        case Union(terms):
            for each in terms:
                yield from leaves(each)


def canonical(expression: Expression, found: Mapping[Name | GroupRef, GroupRef]) -> Expression:
    """Put the groups found in the place of their names, and the whole in its canonical form."""
    match expression:
        case Name():
            return found[expression]
        case Union(terms):
            flat: list[Expression] = []
            for each in terms:
                term = canonical(each, found)
                flat.extend(term.terms if isinstance(term, Union) else [term])
            ordered = _ordered(flat)
            return ordered[0] if len(ordered) == 1 else Union(ordered)
        case Intersection(included, excluded):
            inside: list[Expression] = []
            outside: list[Expression] = []
            for each in included:
                term = canonical(each, found)
                if isinstance(term, Intersection):
                    inside.extend(term.included)
                    outside.extend(term.excluded)
                else:
                    inside.append(term)
            for each in excluded:
                term = canonical(each, found)
                outside.extend(term.terms if isinstance(term, Union) else [term])
            if len(_ordered(inside)) == 1 and not outside:
                return inside[0]
            return Intersection(_ordered(inside), _ordered(outside))
        case GroupRef():
            return expression


def _ordered(expressions: list[Expression]) -> tuple[Expression, ...]:
    return tuple(sorted(set(expressions), key=render))


def render(expression: Expression, write: Callable[[GroupRef], str] = lambda atom: atom.label) -> str:
    """Write a canonical expression as a key."""
    match expression:
        case GroupRef():
            return write(expression)
        case Union(terms):
            return ":".join(render(each, write) for each in terms)
        case Intersection(included, excluded):
            inner = [
                f"({render(each, write)})" if isinstance(each, Union | Intersection) else render(each, write)
                for each in (*included, *excluded)
            ]
            return "-".join(["&".join(inner[: len(included)]), *inner[len(included) :]])
        case Name():
            raise TypeError("only a canonical expression can be written")


def evaluate(expression: Expression, members: Mapping[int, frozenset[str]]) -> frozenset[str]:
    """Give the symbols of a canonical expression, from those of each group by its id."""
    match expression:
        case GroupRef():
            return members[expression.group]
        case Union(terms):
            return frozenset().union(*(evaluate(each, members) for each in terms))
        case Intersection(included, excluded):
            first, *others = (evaluate(each, members) for each in included)
            return first.intersection(*others).difference(*(evaluate(each, members) for each in excluded))
        case Name():
            raise TypeError("only a canonical expression can be evaluated")


def resolve_name(name: str, candidates: Sequence[GroupName]) -> GroupName | None:
    """Choose what a name means among the groups that bear it in whatever case.

    Of two in one type the exact spelling wins; anything else that leaves a choice is an AmbiguousGroup. None if there
    are no candidates.
    """
    if len({candidate.type for candidate in candidates}) == 1 and len(candidates) > 1:
        exact = [candidate for candidate in candidates if candidate.name == name]
        if exact:
            return exact[0]
    if len(candidates) > 1:
        written = sorted(f"{candidate.type}/{write_name(candidate.name)}" for candidate in candidates)
        raise AmbiguousGroup(f"{name!r} may be {' or '.join(written)}; name one of them.", candidates=written)
    return candidates[0] if candidates else None
