"""The loader: what a script's file must say, and what is made of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import redis

from fairque import scripts
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations.base import Call
from fairque.scripts import SCRIPTS, Script, ScriptError, load, load_all

GOOD = """\
-- demo: here -> there
-- KEYS  clock
-- ARGV  prefix settings name items...
-- FLAGS allow-oom
-- INCLUDE {include}
-- REPLY nothing
return {{name, ITEMS}}
"""

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write scripts and libraries (`lib_` and a name) that the loader then finds instead of ours."""
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(scripts, "files", lambda _package: tmp_path)
    scripts._library.cache_clear()

    def write(**texts: str) -> None:
        for name, text in texts.items():
            path = tmp_path / f"lib/{name[4:]}.lua" if name.startswith("lib_") else tmp_path / f"{name}.lua"
            path.write_text(text)

    yield write  # type: ignore[misc]
    scripts._library.cache_clear()


def code(script: Script) -> list[str]:
    return script.source.decode().splitlines()


def test_a_script_gets_its_flags_its_names_and_its_body(write: Write) -> None:
    write(demo=GOOD.format(include=""))
    script = load("demo")
    assert script.purpose == "demo: here -> there"
    assert script.keys == ("clock",)
    assert script.argv == ("prefix", "settings", "name")
    assert script.rest
    assert script.flags == ("allow-oom",)
    assert code(script) == [
        "#!lua flags=allow-oom",
        "local prefix, settings, name = ARGV[1], ARGV[2], ARGV[3]",
        "return {name, 4}",
    ]
    assert script.sha == hashlib.sha1(script.source, usedforsecurity=False).hexdigest()


def test_no_flags_are_a_bare_shebang(write: Write) -> None:
    write(demo=GOOD.format(include="").replace(" allow-oom", ""))
    assert code(load("demo"))[0] == "#!lua"


def test_libraries_stand_before_what_needs_them_and_once(write: Write) -> None:
    write(
        demo=GOOD.format(include="left right"),
        lib_left="-- INCLUDE base\nlocal left = base",
        lib_right="-- INCLUDE base left\nlocal right = left",
        lib_base="local base = 1",
    )
    body = code(load("demo"))[2:]
    assert body == ["local base = 1", "local left = base", "local right = left", "return {name, 4}"]


def test_comments_and_blank_lines_are_left_out(write: Write) -> None:
    write(demo=GOOD.format(include="base"), lib_base="-- why\n\nlocal a = 1\n  -- inside\nlocal b = 2\n")
    assert code(load("demo"))[2:-1] == ["local a = 1", "local b = 2"]


def test_the_clock_is_chosen_by_the_caller(write: Write) -> None:
    write(demo=GOOD.format(include="now"), lib_now_server="local now = 1", lib_now_argument="local now = 2")
    assert "local now = 1" in code(load("demo"))
    assert "local now = 2" in code(load("demo", "argument"))
    assert load("demo").sha != load("demo", "argument").sha


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("-- demo: here -> there\n", ""), "purpose"),
        (("-- demo: ", "-- other: "), "purpose"),
        (("-- KEYS  clock\n", ""), "KEYS"),
        (("-- KEYS  clock", "-- KEYS"), "must declare KEYS"),
        (("-- REPLY nothing\n", ""), "REPLY"),
        (("-- FLAGS allow-oom\n", ""), "FLAGS"),
        (("-- INCLUDE \n", ""), "INCLUDE"),
        (("allow-oom", "allow-cake"), "unknown flags"),
        (("prefix settings", "settings prefix"), "prefix settings"),
        (("settings name", "settings na-me"), "'na-me' cannot be a name"),
        (("settings name", "settings error"), "'error' cannot be a name"),
    ],
)
def test_a_wrong_header_is_refused(write: Write, change: tuple[str, str], problem: str) -> None:
    text = GOOD.format(include="")
    assert change[0] in text
    write(demo=text.replace(*change))
    with pytest.raises(ScriptError, match=re.escape(problem)):
        load("demo")


def test_a_circle_of_includes_is_named(write: Write) -> None:
    write(demo=GOOD.format(include="a"), lib_a="-- INCLUDE b\n", lib_b="-- INCLUDE a\n")
    with pytest.raises(ScriptError, match="a -> b -> a"):
        load("demo")


def test_a_missing_library_is_named(write: Write) -> None:
    write(demo=GOOD.format(include="nowhere"))
    with pytest.raises(ScriptError, match=r"lib/nowhere\.lua"):
        load("demo")


@pytest.mark.parametrize(("keys", "argv"), [(0, 3), (2, 3), (1, 2), (1, 0)])
def test_a_call_of_the_wrong_arity_is_refused_before_it_is_sent(write: Write, keys: int, argv: int) -> None:
    write(demo=GOOD.format(include=""))
    script = load("demo")
    script.check(1, 3)
    script.check(1, 9)
    with pytest.raises(TypeError, match="script demo takes"):
        script.check(keys, argv)


def test_without_a_rest_more_arguments_are_refused(flushed: redis.Redis) -> None:
    manager = LuaScriptManager(flushed)
    with pytest.raises(TypeError, match="script pause takes"):
        manager.execute(Call("pause", ("fq", b"", 1, 2)))
    assert flushed.dbsize() == 0


def test_every_script_file_is_loaded_for_both_clocks() -> None:
    names = {
        path.name.removesuffix(".lua") for path in files(scripts).iterdir() if path.name.endswith(".lua")
    }
    assert set(SCRIPTS) == names == set(load_all("argument"))
    for name, script in SCRIPTS.items():
        timed = load_all("argument")[name]
        assert (script.keys, script.argv, script.flags) == (timed.keys, timed.argv, timed.flags)
        if b"server_now" in script.source:
            assert b"redis.call('TIME')" in script.source
            assert b"'TIME'" not in timed.source


def test_no_body_counts_arguments() -> None:
    for script in SCRIPTS.values():
        body = script.source.split(b"\n", 2)[2]
        assert not re.search(rb"(ARGV|KEYS)\[\d+\]", body), script.name


def test_only_what_adds_to_the_queue_is_refused_by_a_full_server() -> None:
    refused = {name for name, script in SCRIPTS.items() if not script.flags}
    assert refused == {"push", "set_policy"}


def test_reads_are_marked_so() -> None:
    reads = {name for name, script in SCRIPTS.items() if script.reads_only}
    assert reads == {"get_stats", "get_task", "get_user", "list_tasks"}


@pytest.mark.parametrize("clock", ["server", "argument"])
def test_the_server_compiles_every_script(flushed: redis.Redis, clock: scripts.Clock) -> None:
    for script in load_all(clock).values():
        assert flushed.script_load(script.source) == script.sha


def test_constants_are_written_out_but_not_in_strings(write: Write) -> None:
    write(
        demo=GOOD.format(include="base").replace("return {name, ITEMS}", "return {A, B, 'A', x.A, BB}"),
        lib_base="-- EXPORTS t\nlocal A, B =\n  1, '>d'\nlocal t = {[A] = B}",
    )
    assert code(load("demo"))[2:] == [
        "local t",
        "do",
        "t = {[1] = '>d'}",
        "end",
        "return {1, '>d', 'A', x.A, BB}",
    ]


def test_what_a_library_exports_is_declared_before_its_block(write: Write) -> None:
    write(
        demo=GOOD.format(include="base"),
        lib_base="-- EXPORTS a b\nlocal a = 1\nlocal function b()\n  return a\nend",
    )
    assert code(load("demo"))[2:6] == ["local a, b", "do", "a = 1", "function b()"]
    write(lib_base="-- EXPORTS c\nlocal a = 1")
    scripts._library.cache_clear()
    with pytest.raises(ScriptError, match=r"lib/base\.lua exports c, which it declares 0 times"):
        load("demo")


def test_functions_that_nothing_leads_to_are_left_out(write: Write) -> None:
    write(
        demo=GOOD.format(include="base").replace("return {name, ITEMS}", "return t.used()"),
        lib_base=(
            "-- EXPORTS t\nlocal t = {}\nlocal function deep() return 1 end\nlocal function lost() return 2 end\n"
            "function t.used()\n  if true then return deep() end\nend\nfunction t.unused()\n  return lost()\nend"
        ),
    )
    text = load("demo").source.decode()
    assert "deep" in text
    assert "unused" not in text
    assert "lost" not in text
