"""Universe keys: `SPY:QQQ`, `SPY&QQQ`, `SPY-QQQ`, `(SPY:QQQ)-dow30`, `SECTOR/energy`, `"a name: with signs"`.

`:` is union, `&` intersection, `-` difference; `&` and `-` have one precedence, associate to the left and bind tighter
than `:`. `a&b-c&d` is the intersection of a, b and d without c, in whatever order it is written. So every key has a
canonical form, which does not depend on order, repetition or redundant parentheses.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from graph.errors import InvalidKey, LimitExceeded
from graph.model import GroupName

MAX_LENGTH = 4_000
"""Maximum number of characters of a key."""
MAX_NAMES = 100
"""Maximum number of groups named in a key."""
MAX_DEPTH = 20
"""Maximum depth of nested parentheses."""

_TOKEN = re.compile(r'\s*(?:(?P<sign>[:&()/-])|"(?P<quoted>(?:[^"]|"")+)"|(?P<bare>[^\s:&\-()/"]+))')
_BARE = re.compile(r'[^\s:&\-()/"]+')


@dataclass(frozen=True, slots=True)
class Name:
    """A group as named in a key; `type` is None if the key gives only the name."""

    type: str | None
    """The type in capitals, which may be none that exists."""
    name: str
    position: int = field(default=1, compare=False)
    """The place in its key, from 1, with the type if there is one."""
    length: int = field(default=0, compare=False)
    """The number of characters, quotes included."""


@dataclass(frozen=True, slots=True)
class GroupRef:
    """A group that a name was resolved to."""

    label: str
    """Name of the group in the canonical form."""
    group_id: int


@dataclass(frozen=True, slots=True)
class Intersection:
    """Stocks in all of `included` and in none of `excluded`."""

    included: "tuple[Expression, ...]"
    excluded: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Union:
    """Stocks in any of `terms`."""

    terms: "tuple[Expression, ...]"


Expression = Name | GroupRef | Intersection | Union


def write_name(name: str) -> str:
    """Return a group's name as written in a key: bare if possible, else in double quotes."""
    return name if _BARE.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def parse(key: str) -> Expression:
    """Parse a key into an expression over names.

    Raises InvalidKey with the position (from 1) of a syntax error, or LimitExceeded.
    """
    if len(key) > MAX_LENGTH:
        raise LimitExceeded(f"The key has {len(key):,} characters; a key may have {MAX_LENGTH:,}.")
    return _Parser(key).read()


class _Parser:
    """Recursive descent parser of one key."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.last_end = 0  # of the token before
        self.start = 0  # of the current token
        self.end = 0
        self.token: re.Match[str] | None = None
        self.names = 0
        self.depth = 0
        self.advance()

    def advance(self) -> None:
        self.token = _TOKEN.match(self.key, self.end)
        rest = self.key[self.end :]
        self.last_end, self.start = self.end, len(self.key) - len(rest.lstrip())
        self.end = self.token.end() if self.token else len(self.key)
        if rest.strip() and not self.token:
            self.fail('has a double quote that is never closed or holds nothing; write " twice for one within a name')

    def fail(self, problem: str) -> None:
        position = self.start + 1
        place = {"position": position, "length": self.end - self.start}
        raise InvalidKey(
            f"The key {self.key!r} {problem} (at character {position}).",
            **place,
            parts=[{"code": InvalidKey.code.value, **place}],
        )

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
        terms = [self.intersection()]
        while self.sign() == ":":
            self.advance()
            terms.append(self.intersection())
        return Union(tuple(terms))

    def intersection(self) -> Expression:
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
        return self.group()

    def group(self) -> Name:
        self.names += 1
        if self.names > MAX_NAMES:
            raise LimitExceeded(f"The key names more than {MAX_NAMES} groups.")
        start = self.start
        first, quoted = self.name()
        if self.sign() != "/":
            return Name(None, first, start + 1, self.last_end - start)
        if quoted:
            self.fail("has a quoted name before the slash, where only a type such as SECTOR may stand")
        self.advance()
        return Name(first.upper(), self.name()[0], start + 1, self.last_end - start)

    def name(self) -> tuple[str, bool]:
        if self.token is None or self.token["sign"]:
            self.fail("is empty" if not self.key.strip() else "misses a group's name")
        assert self.token  # noqa: S101 - fail() has raised otherwise
        bare, quoted = self.token["bare"], self.token["quoted"]
        self.advance()
        return (bare, False) if bare is not None else (quoted.replace('""', '"'), True)


def leaves(expression: Expression) -> Iterator[Name | GroupRef]:
    """Yield the names and groups in an expression."""
    match expression:
        case Name() | GroupRef():
            yield expression
        case Intersection(included, excluded):
            for each in (*included, *excluded):
                yield from leaves(each)
        case Union(terms):
            for each in terms:
                yield from leaves(each)


def canonicalize(expression: Expression, refs: Mapping[Name, GroupRef]) -> Expression:
    """Replace names by the groups they were resolved to, and return the canonical form."""
    match expression:
        case Name():
            return refs[expression]
        case Union(terms):
            flat: list[Expression] = []
            for each in terms:
                term = canonicalize(each, refs)
                flat.extend(term.terms if isinstance(term, Union) else [term])
            ordered = _ordered(flat)
            return ordered[0] if len(ordered) == 1 else Union(ordered)
        case Intersection(included, excluded):
            inside: list[Expression] = []
            outside: list[Expression] = []
            for each in included:
                term = canonicalize(each, refs)
                if isinstance(term, Intersection):
                    inside.extend(term.included)
                    outside.extend(term.excluded)
                else:
                    inside.append(term)
            for each in excluded:
                term = canonicalize(each, refs)
                outside.extend(term.terms if isinstance(term, Union) else [term])
            if len(_ordered(inside)) == 1 and not outside:
                return inside[0]
            return Intersection(_ordered(inside), _ordered(outside))
        case GroupRef():
            return expression


def _ordered(expressions: list[Expression]) -> tuple[Expression, ...]:
    return tuple(sorted(set(expressions), key=render))


def render(expression: Expression, write: Callable[[GroupRef], str] = lambda ref: ref.label) -> str:
    """Return a canonical expression as a key, its groups written by `write`."""
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
    """Return the symbols of a canonical expression, given the members of each group by id."""
    match expression:
        case GroupRef():
            return members[expression.group_id]
        case Union(terms):
            return frozenset().union(*(evaluate(each, members) for each in terms))
        case Intersection(included, excluded):
            first, *others = (evaluate(each, members) for each in included)
            return first.intersection(*others).difference(*(evaluate(each, members) for each in excluded))
        case Name():
            raise TypeError("only a canonical expression can be evaluated")


def matching(name: Name, groups: Sequence[GroupName]) -> Sequence[GroupName]:
    """Return the groups that a name may mean among those whose names are equal but for case.

    If all are of one type, the exact spelling wins.
    """
    found = [group for group in groups if name.type in (None, group.type)]
    if len(found) > 1 and len({group.type for group in found}) == 1:
        return [group for group in found if group.name == name.name] or found
    return found
