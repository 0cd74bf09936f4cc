"""From the text of scripts and libraries to parts of one text: nothing here knows what they mean.

Comments go, since the server keeps the text. Constants are written out where they are used: a Lua function may
capture 60 names at most, and each of them costs. Libraries stand in blocks of their own.
"""

from __future__ import annotations

import re

_TEXT = r"""'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|--.*"""
_CODE_CONSTANT = re.compile(rf"{_TEXT}|(?<![\w.:])[A-Z][A-Z0-9_]*\b")
_STRINGS_AND_COMMENTS = re.compile(_TEXT)
_NAMES = re.compile(r"(?<![\w.:])[A-Za-z_]\w*")
_CONSTANTS = re.compile(
    r"^local ([A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)*) =\s+((?:'[^'\n]*'|[\d.]+)(?:, (?:'[^'\n]*'|[\d.]+))*)(?: --.*)?$",
    re.MULTILINE,
)


def code_only(text: str) -> str:
    """`text` without blank lines and lines of comment."""
    return "\n".join(
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("--")
    )


def inline(code: str, constants: dict[str, str]) -> str:
    """`code` with constants (capital letters, a literal) written out where they are used; its own enter `constants`."""

    def define(found: re.Match[str]) -> str:
        constants.update(zip(found[1].split(", "), found[2].split(", "), strict=True))
        return ""

    code = _CONSTANTS.sub(define, code)
    return code_only(_CODE_CONSTANT.sub(lambda found: constants.get(found[0], found[0]), code))


def names_in(code: str) -> set[str]:
    """The names that `code` uses by themselves: not in strings, and not as a field of something."""
    return set(_NAMES.findall(_STRINGS_AND_COMMENTS.sub("", code)))


def enclose(code: str, exports: list[str]) -> str:
    """A library in a block of its own, so that what it does not export is closed before the next begins.

    Raises:
        ValueError: it exports a name that it does not declare, once, at the beginning of a line.
    """
    for name in exports:
        code, found = re.subn(rf"^local (function )?(?={name}\b)", r"\1", code, flags=re.MULTILINE)
        if found != 1:
            raise ValueError(f"exports {name}, which it declares {found} times")
        # A bare declaration would now be an expression.
        code = re.sub(rf"^{name}$\n?", "", code, flags=re.MULTILINE)
    return f"local {', '.join(exports)}\ndo\n{code}\nend" if exports else f"do\n{code}\nend"
