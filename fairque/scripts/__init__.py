"""The Lua scripts and their loader: one library of functions for the server, made of all of them.

One transition a file; what they share stands in ``lib/``. A script begins with a header of comment lines: its
purpose as ``name: from -> to``, then ``KEYS`` and ``ARGV`` (the names that its body uses; a last one ending in
``...`` stands for the rest and becomes the index of its first, in capitals), ``FLAGS`` (of the server: allow-oom,
no-writes, or none), ``INCLUDE``, ``REPLY`` and ``ERRORS``. A library says what it ``INCLUDE``s and ``EXPORTS``, and
if it remembers anything, how that begins anew at each call: ``BEGIN``, a call that may take prefix or settings.
The loader binds the names, so that no body counts positions, and `Script.check` checks the arity of every call.

The server keeps the library, and what its locals hold, from call to call, also after one that failed half-way. So
a function first begins anew what it includes, and no more: what only reads a key does not read the clock.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Literal

from fairque.scripts import splicing

Clock = Literal["server", "argument"]
"""Where scripts take the time from: the server, or in tests the caller's settings."""

_HEADER = re.compile(r"^-- (KEYS|ARGV|FLAGS|INCLUDE|EXPORTS|BEGIN|REPLY|ERRORS)\b ?(.*)$")
_NAME = re.compile(r"^[a-z_]+$")
_BEGIN = re.compile(r"^[\w.]+\((prefix|settings)?\)$")
# What the language and the server provide: an argument of that name would hide it from its script.
_TAKEN = frozenset(
    "and break do else elseif end false for function if in local nil not or repeat return then true until while "  # noqa: SIM905 - forty quotes would hide the words
    "assert bit cjson cmsgpack error ipairs math next os pairs pcall redis select server string struct table "
    "tonumber tostring type unpack xpcall".split()
)
_KNOWN_FLAGS = frozenset({"allow-oom", "no-writes"})
_PLACE = "LIBRARY"
_REGISTER = f"""\
local function register(name, flags, callback)
  redis.register_function({{function_name = '{_PLACE}_' .. name, flags = flags, callback = callback}})
end"""


class ScriptError(Exception):
    """A script's header is wrong; found at import, never at run time."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script ready to be called: the name of its function on the server, and the names of its arguments."""

    name: str
    purpose: str
    keys: tuple[str, ...]
    argv: tuple[str, ...]
    rest: bool
    flags: tuple[str, ...]
    function: str

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
class Library:
    """What FUNCTION LOAD takes. Its name, and those of its functions, carry a hash of its text, so that clients of
    different versions do not meet on one server."""

    name: str
    text: bytes
    scripts: dict[str, Script]


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it was read: the fields of its header, and what follows."""

    name: str
    fields: dict[str, str]
    purpose: str
    body: str

    def words(self, key: str) -> list[str]:
        """What the header says there, word by word."""
        return self.fields.get(key, "").split()


def _read(path: str) -> str:
    return files(__name__).joinpath(path).read_text(encoding="utf-8")


def _parse(name: str, text: str) -> Source:
    lines = text.splitlines()
    fields: dict[str, str] = {}
    end = 0
    for end, line in enumerate(lines):  # noqa: B007  (the index of the first line that is no comment)
        if not line.startswith("--"):
            break
        if found := _HEADER.match(line):
            fields.setdefault(found[1], found[2].strip())
    purpose = lines[0].removeprefix("-- ") if lines else ""
    return Source(name, fields, purpose, "\n".join(lines[end:]))


@cache
def _library(name: str, clock: Clock) -> Source:
    file = f"now_{clock}" if name == "now" else name
    try:
        library = _parse(name, _read(f"lib/{file}.lua"))
    except FileNotFoundError:
        raise ScriptError(f"there is no lib/{file}.lua") from None
    begin = library.fields.get("BEGIN")
    if begin is not None and not _BEGIN.match(begin):
        raise ScriptError(f"lib/{file}.lua: {begin!r} is no call that takes nothing, prefix or settings")
    return library


def includes(names: list[str], clock: Clock = "server", path: tuple[str, ...] = ()) -> list[Source]:
    """The libraries of these names and all that they need, each behind what it needs itself.

    Raises:
        ScriptError: one does not exist, has a wrong BEGIN, or they form a circle.
    """
    placed: dict[str, Source] = {}
    for name in names:
        if name in path:
            raise ScriptError(f"includes form a circle: {' -> '.join((*path, name))}")
        if name not in placed:
            library = _library(name, clock)
            for need in includes(library.words("INCLUDE"), clock, (*path, name)):
                placed.setdefault(need.name, need)
            placed[name] = library
    return list(placed.values())


def beginnings(libraries: list[Source]) -> list[str]:
    """The calls with which these libraries begin anew."""
    return [library.fields["BEGIN"] for library in libraries if "BEGIN" in library.fields]


def _bind(source: Source) -> tuple[tuple[str, ...], tuple[str, ...], str, str]:
    """Names of keys and arguments, the line that binds them, and that which says where the rest begins, if any."""
    keys = tuple(source.words("KEYS"))
    names = source.words("ARGV")
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


def _script_source(name: str) -> Source:
    source = _parse(name, _read(f"{name}.lua"))
    if not source.purpose.startswith(f"{name}: "):
        raise ScriptError(f"script {name} must begin with its purpose: '-- {name}: ...'")
    for key in ("KEYS", "ARGV", "FLAGS", "INCLUDE", "REPLY"):
        if key not in source.fields:
            raise ScriptError(f"script {name} lacks the header line {key}")
    if unknown := set(source.words("FLAGS")) - _KNOWN_FLAGS:
        raise ScriptError(f"script {name}: unknown flags {sorted(unknown)}")
    return source


class _Text:
    """The library's text as it grows."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        # What each library may write out: its own constants, and those of what it includes.
        self._constants: dict[str, dict[str, str]] = {}
        # The library of each name that is exported, or a constant.
        self._owners: dict[str, str] = {}
        # Who uses which names, and which libraries he includes.
        self._used: list[tuple[str, set[str], set[str]]] = []

    def add_library(self, library: Source, needs: list[Source]) -> None:
        """Raises ScriptError if it exports what it does not declare."""
        where, exports = f"lib/{library.name}.lua", library.words("EXPORTS")
        constants = self._constants_of(needs)
        included = set(constants)
        code = self._code(where, library.body, constants, [*needs, library])
        self._constants[library.name] = constants
        self._owners |= dict.fromkeys([*exports, *(constants.keys() - included)], library.name)
        try:
            self.parts.append(splicing.enclose(code, exports))
        except ValueError as error:
            raise ScriptError(f"{where} {error}") from None

    def add_script(self, source: Source, needs: list[Source]) -> Script:
        """The script, whose function has no more than its own name as yet.

        Raises:
            ScriptError: an argument cannot have its name, or prefix and settings are not the first.
        """
        keys, argv, binding, rest_index = _bind(source)
        if argv[:2] != ("prefix", "settings"):
            raise ScriptError(f"script {source.name}: ARGV must begin with prefix settings")
        if hidden := [name for name in argv if name in self._owners]:
            raise ScriptError(f"script {source.name}: {hidden[0]!r} cannot be a name: a library has it")
        body = f"{rest_index}\n{source.body}"
        code = self._code(f"script {source.name}", body, self._constants_of(needs), needs)
        flags = tuple(source.words("FLAGS"))
        listed = ", ".join(f"'{flag}'" for flag in flags)
        head = f"register('{source.name}', {{{listed}}}, function(KEYS, ARGV)"
        self.parts += [head, binding, *beginnings(needs), code, "end)"]
        return Script(source.name, source.purpose, keys, argv, bool(rest_index), flags, source.name)

    def _constants_of(self, needs: list[Source]) -> dict[str, str]:
        return {name: value for need in needs for name, value in self._constants[need.name].items()}

    def _code(self, user: str, body: str, constants: dict[str, str], needs: list[Source]) -> str:
        code = splicing.inline(splicing.code_only(body), constants)
        self._used.append((user, splicing.names_in(code), {need.name for need in needs}))
        return code

    def check(self) -> None:
        """Raises ScriptError if one uses a library that it does not include: it would not begin anew."""
        for user, names, included in self._used:
            for name in sorted(names & self._owners.keys()):
                if self._owners[name] not in included:
                    raise ScriptError(
                        f"{user} uses {name}, but does not include lib/{self._owners[name]}.lua"
                    )


@cache
def load(clock: Clock = "server") -> Library:
    """All scripts, and the library that they are functions of.

    Raises:
        ScriptError: a header line is missing or wrong, includes form a circle, or a name is used without its library.
    """
    names = sorted(
        entry.name.removesuffix(".lua") for entry in files(__name__).iterdir() if entry.name.endswith(".lua")
    )
    sources = [_script_source(name) for name in names]
    needs = {source.name: includes(source.words("INCLUDE"), clock) for source in sources}
    text = _Text()
    # A library's needs stand before it in each list, so also in all of them together.
    for library in dict.fromkeys(library.name for placed in needs.values() for library in placed):
        *below, source = includes([library], clock)
        text.add_library(source, below)
    scripts = [text.add_script(source, needs[source.name]) for source in sources]
    text.check()
    code = "\n".join([_REGISTER, *text.parts, ""])
    name = f"fairque_{hashlib.sha1(code.encode(), usedforsecurity=False).hexdigest()[:10]}"
    return Library(
        name,
        f"#!lua name={name}\n{code.replace(_PLACE, name, 1)}".encode(),
        {script.name: replace(script, function=f"{name}_{script.name}") for script in scripts},
    )


SCRIPTS = load().scripts
