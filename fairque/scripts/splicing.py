"""From the text of scripts and libraries to what the server gets: nothing here knows what they mean.

A script's text runs from its beginning at every call: each function in it is made anew, and Lua makes each captured
local dearer for all closures that follow. So comments go, constants are written out where they are used, libraries
stand in blocks of their own, and functions that nothing leads to are left out. A call costs half of what it would.
"""

from __future__ import annotations

import re

_NAMES = re.compile(r"[A-Za-z_]\w*(?:\.\w+)?")
_TOKEN = re.compile(r"'(?:\\\\.|[^'\\\\\n])*'|\"(?:\\\\.|[^\"\\\\\n])*\"|(?<![\w.:])[A-Z][A-Z0-9_]*\b")
_CONSTANTS = re.compile(
    r"^local ([A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)*) =\s+((?:'[^'\n]*'|[\d.]+)(?:, (?:'[^'\n]*'|[\d.]+))*)$",
    re.MULTILINE,
)


def inline(body: str, constants: dict[str, str]) -> str:
    """`body` with constants (capital letters, a literal) written out where they are used."""

    def define(found: re.Match[str]) -> str:
        constants.update(zip(found[1].split(", "), found[2].split(", "), strict=True))
        return ""

    body = _CONSTANTS.sub(define, body)
    return _TOKEN.sub(lambda found: constants.get(found[0], found[0]), body)


_FUNCTION = re.compile(r"^(?:local )?function ([\w.]+)\((?:[^\n]*\bend$|.*?^end$)", re.MULTILINE | re.DOTALL)


def prune(text: str) -> str:
    """`text` without the library functions that nothing in it leads to: a closure that is never called costs its
    making at every call of the script."""
    bodies = {found[1]: found[0] for found in _FUNCTION.finditer(text)}
    live: set[str] = set()
    reached = [_FUNCTION.sub("", text)]
    while reached:
        words = set(_NAMES.findall(reached.pop()))
        found = [name for name in bodies if name in words and name not in live]
        live.update(found)
        # The name in a function's own head leads nowhere.
        reached += [bodies[name].partition("(")[2] for name in found]
    return _FUNCTION.sub(lambda found: found[0] if found[1] in live else "", text)


def code_only(part: str) -> str:
    """Comments stay out of the server's memory."""
    return "\n".join(
        line for line in part.splitlines() if line.strip() and not line.lstrip().startswith("--")
    )


def without_blanks(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.strip())


def enclose(body: str, exports: list[str], constants: dict[str, str]) -> str:
    """A library in a block of its own, so that what it does not export is closed before the next begins.

    Raises:
        ValueError: it exports a name that it does not declare, once, at the beginning of a line.
    """
    body = inline(code_only(body), constants)
    for name in exports:
        body, found = re.subn(rf"^local (function )?(?={name}\b)", r"\1", body, flags=re.MULTILINE)
        if found != 1:
            raise ValueError(f"exports {name}, which it declares {found} times")
    return f"local {', '.join(exports)}\ndo\n{body}\nend" if exports else body
