"""Patterns of user ids (`team-*`), as patterns of Lua: scripts choose the policy of a user that has none of its own.

What matches here matches there: `string.match(id, lua_pattern(glob))` agrees with `fnmatch.fnmatchcase(id, glob)`.
Lua knows bytes only, so one character is spelt as the bytes that it takes in UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fairque.core.exceptions import ConfigError, InvalidTaskError
from fairque.core.keys import encode

MAX_STARS = 2
"""With text after them. Lua tries all ways to divide an id among them: two take up to 1 ms for an id of 256 bytes,
three 17 ms, four a second."""
EVERYBODY = b"^"
"""The Lua pattern that matches every id."""

_FOLLOWING = b"\x80-\xbf"  # what the bytes of a character after its first lie between
_ANY = b"[^" + _FOLLOWING + b"][" + _FOLLOWING + b"]*"
_NONE = b"[^%z\x01-\xff]"


def is_pattern(name: str) -> bool:
    """Whether a name stands for several users."""
    return any(character in name for character in "*?[")


def lua_pattern(glob: str) -> bytes:
    """The Lua pattern that matches the ids (in UTF-8) that `glob` matches: `*` is any text, `?` one character,
    `[abc]`, `[a-z]` and `[!x]` one of a set, or one that is not in it.

    Raises:
        ConfigError: there are more than `MAX_STARS` stars with text after them, a set holds a character that is not
            ASCII, or the pattern is empty, too long or no valid Unicode.
    """
    try:
        encode(glob, "pattern")
    except InvalidTaskError as error:
        raise ConfigError(str(error)) from None
    parts = list(_parts(glob))
    # At the ends, `*` is an anchor left out.
    begin, end = parts[0] != b".-", parts[-1] != b".-"
    stars = parts.count(b".-") - (not end)
    if stars > MAX_STARS:
        raise ConfigError(
            f"pattern {glob!r} has {stars} `*` with text after them; the limit is {MAX_STARS}, because the time that "
            "matching may take multiplies with each. Use several patterns, or name a group in each user's policy"
        )
    inner = b"".join(parts[not begin : len(parts) - (not end)])
    return (b"^" if begin else b"") + inner + (b"$" if end else b"") if inner else EVERYBODY


def _parts(glob: str) -> Iterator[bytes]:
    """The pieces of `glob` in Lua's spelling; stars that follow each other are one."""
    position = 0
    starred = False
    while position < len(glob):
        character = glob[position]
        position += 1
        if character == "*":
            if not starred:
                yield b".-"
            starred = True
            continue
        starred = False
        if character == "?":
            yield _ANY
        elif character == "[" and (end := _end_of_set(glob, position)) is not None:
            yield _set(glob, glob[position:end])
            position = end + 1
        else:
            yield b"".join(_literal(byte) for byte in character.encode())


def _end_of_set(glob: str, start: int) -> int | None:
    """Where the `]` of a set is whose inside begins at `start`; None: it has none, so `[` stands for itself."""
    first = start + (glob[start : start + 1] == "!")
    # A `]` that comes first is one of the set.
    end = glob.find("]", first + 1)
    return end if end >= 0 else None


def _set(glob: str, inside: str) -> bytes:
    if not inside.isascii():
        odd = next(character for character in inside if not character.isascii())
        raise ConfigError(
            f"pattern {glob!r} has {odd!r} in brackets, where only ASCII characters can stand: use `?`, or a pattern "
            "for each"
        )
    negated = inside.startswith("!")
    members = _members(inside[negated:])
    if not members:
        return _ANY if negated else _NONE
    spelt = b"".join(_ranges(members))
    # A character that is not in the set may take several bytes.
    return b"[^" + spelt + _FOLLOWING + b"][" + _FOLLOWING + b"]*" if negated else b"[" + spelt + b"]"


def _members(inside: str) -> set[int]:
    """The codes of the characters that a set stands for. A range from a larger to a smaller one is empty."""
    members: set[int] = set()
    position = 0
    while position < len(inside):
        first, dash, last = (
            inside[position],
            inside[position + 1 : position + 2],
            inside[position + 2 : position + 3],
        )
        if dash == "-" and last:
            members.update(range(ord(first), ord(last) + 1))
            position += 3
        else:
            members.add(ord(first))
            position += 1
    return members


def _ranges(members: Iterable[int]) -> Iterator[bytes]:
    """Letters and digits as ranges, which Lua reads safely; every other character by itself."""
    run: list[int] = []
    for code in [*sorted(members), -1]:
        if run and (code != run[-1] + 1 or not _is_plain(code)):
            yield bytes(run) if len(run) < 3 else b"%c-%c" % (run[0], run[-1])
            run = []
        if code >= 0 and _is_plain(code):
            run.append(code)
        elif code >= 0:
            yield _literal(code)


def _is_plain(code: int) -> bool:
    return 0 <= code < 128 and chr(code).isalnum()


def _literal(byte: int) -> bytes:
    """One byte that stands for itself, also where Lua's patterns give it a meaning."""
    if byte == 0:
        return b"%z"
    return b"%c" % byte if byte >= 128 or _is_plain(byte) else b"%%%c" % byte
