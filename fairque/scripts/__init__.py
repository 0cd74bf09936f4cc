"""The Lua scripts and their loader.

One transition a file; what they share stands in ``lib/`` and is spliced in once, in order of need. A script
begins with a header of comment lines: its purpose as ``name: from -> to``, then ``KEYS`` and ``ARGV`` (the
names that its body uses; a last one ending in ``...`` stands for the rest and becomes the index of its first,
in capitals), ``FLAGS`` (of the server: allow-oom, no-writes, or none), ``INCLUDE``, ``REPLY`` and ``ERRORS``.
The loader binds the names, so that no body counts positions, and `Script.arguments` checks the arity of every
call.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from fairque.scripts import splicing

Clock = Literal["server", "argument"]
"""Where scripts take the time from: the server, or in tests the caller's settings."""

_HEADER = re.compile(r"^-- (KEYS|ARGV|FLAGS|INCLUDE|EXPORTS|REPLY|ERRORS)\b ?(.*)$")
_NAME = re.compile(r"^[a-z_]+$")
# What the language and the server provide: an argument of that name would hide it from the libraries.
_TAKEN = frozenset(
    "and break do else elseif end false for function if in local nil not or repeat return then true until while "  # noqa: SIM905 - forty quotes would hide the words
    "assert bit cjson cmsgpack error ipairs math next os pairs pcall redis select server string struct table "
    "tonumber tostring type unpack xpcall".split()
)
_KNOWN_FLAGS = frozenset({"allow-oom", "no-writes"})


class ScriptError(Exception):
    """A script's header is wrong; found at import, never at run time."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script ready to be sent: its text, its SHA-1 and the names of its arguments."""

    name: str
    purpose: str
    keys: tuple[str, ...]
    argv: tuple[str, ...]
    rest: bool
    flags: tuple[str, ...]
    source: bytes
    sha: str

    @property
    def reads_only(self) -> bool:
        """Whether the server knows that it writes nothing."""
        return "no-writes" in self.flags

    def check(self, keys: int, argv: int) -> None:
        """Raises TypeError if a call with so many keys and arguments does not fit the header."""
        if keys != len(self.keys) or argv < len(self.argv) or (argv > len(self.argv) and not self.rest):
            more = "..." if self.rest else ""
            raise TypeError(
                f"script {self.name} takes KEYS {self.keys} and ARGV {self.argv}{more}, got {keys} and {argv}"
            )


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    fields: dict[str, str]
    purpose: str
    body: str


def _read(path: str) -> str:
    return files(__name__).joinpath(path).read_text(encoding="utf-8")


def _parse(name: str, text: str) -> _Source:
    lines = text.splitlines()
    fields: dict[str, str] = {}
    end = 0
    for end, line in enumerate(lines):  # noqa: B007  (the index of the first line that is no comment)
        if not line.startswith("--"):
            break
        if found := _HEADER.match(line):
            fields.setdefault(found[1], found[2].strip())
    purpose = lines[0].removeprefix("-- ") if lines else ""
    return _Source(name, fields, purpose, "\n".join(lines[end:]))


@cache
def _library(name: str, clock: Clock) -> _Source:
    file = f"now_{clock}" if name == "now" else name
    try:
        return _parse(name, _read(f"lib/{file}.lua"))
    except FileNotFoundError:
        raise ScriptError(f"there is no lib/{file}.lua") from None


def _in_order(names: list[str], clock: Clock, placed: dict[str, _Source], path: tuple[str, ...] = ()) -> None:
    for name in names:
        if name in path:
            raise ScriptError(f"includes form a circle: {' -> '.join((*path, name))}")
        if name not in placed:
            library = _library(name, clock)
            _in_order(library.fields.get("INCLUDE", "").split(), clock, placed, (*path, name))
            placed[name] = library


def _bind(source: _Source) -> tuple[tuple[str, ...], tuple[str, ...], str, str]:
    """Names of keys and arguments, the line that binds them, and that which says where the rest begins, if any."""
    keys = tuple(source.fields.get("KEYS", "").split())
    names = source.fields.get("ARGV", "").split()
    rest = bool(names) and names[-1].endswith("...")
    fixed = tuple(names[:-1] if rest else names)
    for name in (*keys, *fixed):
        if not _NAME.match(name) or name in _TAKEN:
            raise ScriptError(f"script {source.name}: {name!r} cannot be a name")
    if not keys:
        raise ScriptError(f"script {source.name} must declare KEYS: the first is a key of its partition")
    binding = f"local {', '.join(fixed)} = {', '.join(f'ARGV[{i}]' for i in range(1, len(fixed) + 1))}"
    index = f"local {names[-1].removesuffix('...').upper()} = {len(fixed) + 1}" if rest else ""
    return keys, fixed, binding, index


def load(name: str, clock: Clock = "server") -> Script:
    """The script of that name, includes spliced.

    Raises:
        ScriptError: a header line is missing or wrong, or includes form a circle.
    """
    source = _parse(name, _read(f"{name}.lua"))
    if not source.purpose.startswith(f"{name}: "):
        raise ScriptError(f"script {name} must begin with its purpose: '-- {name}: ...'")
    for field in ("KEYS", "ARGV", "FLAGS", "INCLUDE", "REPLY"):
        if field not in source.fields:
            raise ScriptError(f"script {name} lacks the header line {field}")
    flags = tuple(source.fields["FLAGS"].split())
    if unknown := set(flags) - _KNOWN_FLAGS:
        raise ScriptError(f"script {name}: unknown flags {sorted(unknown)}")
    keys, argv, binding, rest_index = _bind(source)
    if argv[:2] != ("prefix", "settings"):
        raise ScriptError(f"script {name}: ARGV must begin with prefix settings")
    placed: dict[str, _Source] = {}
    _in_order(source.fields["INCLUDE"].split(), clock, placed)
    parts = [f"#!lua{' flags=' + ','.join(flags) if flags else ''}", binding]
    constants: dict[str, str] = {}
    parts += [_enclose(library, constants) for library in placed.values()]
    parts.append(splicing.inline(splicing.code_only(f"{rest_index}\n{source.body}"), constants))
    text = splicing.without_blanks(splicing.prune("\n".join(parts))).encode()
    sha = hashlib.sha1(text, usedforsecurity=False).hexdigest()
    return Script(name, source.purpose, keys, argv, bool(rest_index), flags, text, sha)


def _enclose(library: _Source, constants: dict[str, str]) -> str:
    try:
        return splicing.enclose(library.body, library.fields.get("EXPORTS", "").split(), constants)
    except ValueError as error:
        raise ScriptError(f"lib/{library.name}.lua {error}") from None


@cache
def load_all(clock: Clock = "server") -> dict[str, Script]:
    """All scripts by name."""
    names = sorted(
        entry.name.removesuffix(".lua") for entry in files(__name__).iterdir() if entry.name.endswith(".lua")
    )
    return {name: load(name, clock) for name in names}


SCRIPTS = load_all()
