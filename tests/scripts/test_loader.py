"""The loader: what a script's file must say, and what is made of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import redis

from fairque import scripts
from fairque.queue.lua_manager import LuaScriptManager
from fairque.queue.operations.base import Call
from fairque.scripts import SCRIPTS, Script, ScriptError, load

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


def forget() -> None:
    scripts.load.cache_clear()
    scripts._library.cache_clear()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write scripts and libraries (`lib_` and a name) that the loader then finds instead of ours."""
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(scripts, "files", lambda _package: tmp_path)

    def write(**texts: str) -> None:
        for name, text in texts.items():
            path = tmp_path / f"lib/{name[4:]}.lua" if name.startswith("lib_") else tmp_path / f"{name}.lua"
            path.write_text(text)
        forget()

    yield write
    forget()


def demo() -> Script:
    return load().scripts["demo"]


def code(clock: scripts.Clock = "server") -> list[str]:
    """The library, line by line, without the shebang and what registers functions."""
    lines = load(clock).text.decode().splitlines()
    assert lines[0] == f"#!lua name={load(clock).name}"
    assert lines[1].startswith("local function register(")
    assert lines[3] == "end"
    return lines[4:]


def function_of(name: str) -> list[str]:
    """The lines of one function."""
    lines = code()
    begin = next(number for number, line in enumerate(lines) if line.startswith(f"register('{name}', "))
    return lines[begin : lines.index("end)", begin) + 1]


def test_a_script_becomes_a_function_with_its_flags_its_names_and_its_body(write: Write) -> None:
    write(demo=GOOD.format(include=""))
    script = demo()
    assert script.purpose == "demo: here -> there"
    assert script.keys == ("clock",)
    assert script.argv == ("prefix", "settings", "name")
    assert script.rest
    assert script.flags == ("allow-oom",)
    assert code() == [
        "register('demo', {'allow-oom'}, function(KEYS, ARGV)",
        "local prefix, settings, name = ARGV[1], ARGV[2], ARGV[3]",
        "return {name, 4}",
        "end)",
    ]


def test_no_flags_are_an_empty_list(write: Write) -> None:
    write(demo=GOOD.format(include="").replace(" allow-oom", ""))
    assert code()[0] == "register('demo', {}, function(KEYS, ARGV)"


def test_names_carry_a_hash_of_the_text(write: Write) -> None:
    write(demo=GOOD.format(include=""))
    library = load()
    assert re.fullmatch("fairque_[0-9a-f]{10}", library.name)
    assert library.scripts["demo"].function == f"{library.name}_demo"
    write(demo=GOOD.format(include="") + "-- a comment\n")
    assert load() == library
    write(demo=GOOD.format(include="").replace("return", "local a return"))
    assert load().name != library.name


def test_libraries_stand_before_what_needs_them_and_once(write: Write) -> None:
    write(
        demo=GOOD.format(include="left right"),
        other=GOOD.format(include="base right").replace("demo", "other"),
        lib_left="-- INCLUDE base\n-- EXPORTS left\nlocal left = base",
        lib_right="-- INCLUDE base left\n-- EXPORTS right\nlocal right = left",
        lib_base="-- EXPORTS base\nlocal base = 1",
    )
    assert [line for line in code() if " = " in line and "ARGV" not in line] == [
        "base = 1",
        "left = base",
        "right = left",
    ]


def test_comments_and_blank_lines_are_left_out(write: Write) -> None:
    write(demo=GOOD.format(include="base"), lib_base="-- why\n\nlocal a = 1\n  -- inside\nlocal b = 2\n")
    assert code()[:4] == ["do", "local a = 1", "local b = 2", "end"]


def test_the_clock_is_chosen_by_the_caller(write: Write) -> None:
    write(demo=GOOD.format(include="now"), lib_now_server="local now = 1", lib_now_argument="local now = 2")
    assert "local now = 1" in code()
    assert "local now = 2" in code("argument")
    assert load().name != load("argument").name


def test_what_a_script_includes_begins_anew_in_order_of_need(write: Write) -> None:
    write(
        demo=GOOD.format(include="top"),
        other=GOOD.format(include="base").replace("demo", "other"),
        none=GOOD.format(include="").replace("demo", "none"),
        lib_top="-- INCLUDE middle\n-- EXPORTS top\n-- BEGIN top.begin()\nlocal top = {}",
        lib_middle="-- INCLUDE base\n-- EXPORTS middle\nlocal middle = {}",
        lib_base="-- EXPORTS base begin\n-- BEGIN begin(prefix)\nlocal base = {}\nlocal begin = print",
    )
    assert function_of("demo")[2:-2] == ["begin(prefix)", "top.begin()"]
    assert function_of("other")[2:-2] == ["begin(prefix)"]
    assert function_of("none")[2:-2] == []


@pytest.mark.parametrize("begin", ["", "begin", "begin(x)", "begin(prefix, settings)", "begin() call()"])
def test_a_beginning_that_is_no_plain_call_is_refused(write: Write, begin: str) -> None:
    write(
        demo=GOOD.format(include="base"),
        lib_base=f"-- EXPORTS begin\n-- BEGIN {begin}\nlocal function begin()\nend",
    )
    with pytest.raises(ScriptError, match=r"lib/base\.lua"):
        load()


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("return t", "t"),
        ("return f(t)", "f"),
        ("return LIMIT", "LIMIT"),
        ("return x.t .. 't' -- t", None),
        ("return x:t()", None),
    ],
)
def test_a_name_of_a_library_that_is_not_included_is_refused(
    write: Write, body: str, name: str | None
) -> None:
    """It would be there, but as the last call left it."""
    write(
        demo=GOOD.format(include="").replace("return {name, ITEMS}", body),
        other=GOOD.format(include="base").replace("demo", "other"),
        lib_base="-- EXPORTS t f\nlocal LIMIT = 3\nlocal t = {}\nlocal function f()\nend",
    )
    if name is None:
        load()
        return
    with pytest.raises(ScriptError, match=rf"script demo uses {name}, but does not include lib/base\.lua"):
        load()
    write(
        demo=GOOD.format(include="user"),
        lib_user=f"local function use()\n  {body}\nend",
    )
    with pytest.raises(ScriptError, match=rf"lib/user\.lua uses {name}, but does not include lib/base\.lua"):
        load()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("-- demo: here -> there\n", ""), "purpose"),
        (("-- demo: ", "-- other: "), "purpose"),
        (("-- KEYS  clock\n", ""), "KEYS"),
        (("-- KEYS  clock", "-- KEYS"), "must declare KEYS"),
        (("-- REPLY nothing\n", ""), "REPLY"),
        (("-- FLAGS allow-oom\n", ""), "FLAGS"),
        (("-- INCLUDE base\n", ""), "INCLUDE"),
        (("allow-oom", "allow-cake"), "unknown flags"),
        (("prefix settings", "settings prefix"), "prefix settings"),
        (("settings name", "settings na-me"), "'na-me' cannot be a name"),
        (("settings name", "settings error"), "'error' cannot be a name"),
        (("settings name", "settings base"), "'base' cannot be a name: a library has it"),
    ],
)
def test_a_wrong_header_is_refused(write: Write, change: tuple[str, str], problem: str) -> None:
    text = GOOD.format(include="base")
    assert change[0] in text
    write(demo=text.replace(*change), lib_base="-- EXPORTS base\nlocal base = {}")
    with pytest.raises(ScriptError, match=re.escape(problem)):
        load()


def test_a_circle_of_includes_is_named(write: Write) -> None:
    write(demo=GOOD.format(include="a"), lib_a="-- INCLUDE b\n", lib_b="-- INCLUDE a\n")
    with pytest.raises(ScriptError, match="a -> b -> a"):
        load()


def test_a_missing_library_is_named(write: Write) -> None:
    write(demo=GOOD.format(include="nowhere"))
    with pytest.raises(ScriptError, match=r"lib/nowhere\.lua"):
        load()


@pytest.mark.parametrize(("keys", "argv"), [(0, 3), (2, 3), (1, 2), (1, 0)])
def test_a_call_of_the_wrong_arity_is_refused_before_it_is_sent(write: Write, keys: int, argv: int) -> None:
    write(demo=GOOD.format(include=""))
    script = demo()
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
    timed = load("argument")
    assert set(SCRIPTS) == names == set(timed.scripts)
    for name, script in SCRIPTS.items():
        other = timed.scripts[name]
        assert (script.keys, script.argv, script.flags) == (other.keys, other.argv, other.flags)
    assert b"call('TIME')" in load().text
    assert b"'TIME'" not in timed.text


def test_no_body_counts_arguments() -> None:
    for name in SCRIPTS:
        body = "\n".join(function_of(name)[2:])
        assert not re.search(r"(ARGV|KEYS)\[\d+\]", body), name


def test_what_does_not_need_the_clock_does_not_read_it() -> None:
    free = {name for name in SCRIPTS if "clock.read(settings)" not in function_of(name)}
    assert free == {
        "dead_news", "dead_users", "get_policies", "get_results", "get_task", "get_workflow", "list_nodes",
        "list_policies", "list_tasks", "list_workflows", "open", "rights", "schedule_history", "watch",
        "watch_workflow", "xcom_delete", "xcom_pull", "xcom_watch",
    }  # fmt: skip


def test_only_what_adds_to_the_queue_is_refused_by_a_full_server() -> None:
    refused = {name for name, script in SCRIPTS.items() if not script.flags}
    assert refused == {
        "commit", "expand", "push", "push_graph", "requeue_changed", "schedule_fire", "schedule_put", "schedule_run",
        "set_group", "set_limiter", "set_policy", "set_rules", "stage", "update", "xcom_push",
    }  # fmt: skip


def test_reads_are_marked_so() -> None:
    reads = {name for name, script in SCRIPTS.items() if script.reads_only}
    assert reads == {
        "dead_users", "examine", "explain", "find_tasks", "get_policies", "get_results", "get_stats", "get_task",
        "get_users", "get_workflow", "list_nodes", "list_policies", "list_tasks", "list_users", "list_workflows",
        "rights", "schedule_history", "schedule_list", "xcom_list", "xcom_pull",
    }  # fmt: skip


@pytest.mark.parametrize("clock", ["server", "argument"])
@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_the_server_takes_the_library_and_knows_every_function_and_its_flags(
    request: pytest.FixtureRequest, kind: str, clock: scripts.Clock
) -> None:
    client = request.getfixturevalue(f"{kind}_server").client(decode_responses=True)
    library = load(clock)
    assert client.function_load(library.text, replace=True) == library.name
    [found] = client.function_list(library=library.name)
    functions = [
        dict(zip(item[::2], item[1::2], strict=True)) for item in found[found.index("functions") + 1]
    ]
    assert {function["name"]: tuple(function["flags"]) for function in functions} == {
        script.function: script.flags for script in library.scripts.values()
    }


def test_constants_are_written_out_but_not_in_strings(write: Write) -> None:
    write(
        demo=GOOD.format(include="base").replace(
            "return {name, ITEMS}", "return {A, B, 'A', 'it\\'s A', x.A, BB} -- it's A"
        ),
        lib_base="-- EXPORTS t\nlocal A, B =\n  1, '>d'\nlocal C = '\\n' -- why\nlocal t = {[A] = B, C}",
    )
    assert code()[:4] == ["local t", "do", "t = {[1] = '>d', '\\n'}", "end"]
    assert function_of("demo")[2:-1] == [
        "return {1, '>d', 'A', 'it\\'s A', x.A, BB} -- it's A",
    ]


def test_a_constant_is_known_to_those_who_include_its_library(write: Write) -> None:
    write(
        demo=GOOD.format(include="one").replace("return {name, ITEMS}", "return {LIMIT, ITEMS}"),
        other=GOOD.format(include="two")
        .replace("return {name, ITEMS}", "return LIMIT")
        .replace("demo", "other"),
        lib_one="local LIMIT = 1",
        lib_two="local LIMIT = 2",
    )
    assert function_of("demo")[2:-1] == ["return {1, 4}"]
    assert function_of("other")[2:-1] == ["return 2"]


def test_what_a_library_exports_is_declared_before_its_block(write: Write) -> None:
    write(
        demo=GOOD.format(include="base"),
        lib_base="-- EXPORTS a b c\nlocal a = 1\nlocal c\nlocal function b()\n  return a\nend",
    )
    assert code()[:7] == ["local a, b, c", "do", "a = 1", "function b()", "  return a", "end", "end"]
    write(lib_base="-- EXPORTS c\nlocal a = 1")
    with pytest.raises(ScriptError, match=r"lib/base\.lua exports c, which it declares 0 times"):
        load()
