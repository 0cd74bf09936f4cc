"""What Python and Lua both know, held equal: states, key names, the packed record, codes."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable
from itertools import product
from typing import Any, cast

import pytest
import redis
from msgspec import structs

from fairque.core import keys as key_names
from fairque.core import record
from fairque.core.keys import Keys, encode
from fairque.core.models import Priority
from fairque.core.options import TRIGGER_RULES, TriggerRule
from fairque.core.record import Flags, Reason, Record
from fairque.core.states import NEW, TERMINAL, TRANSITIONS, TaskState
from fairque.core.triggers import decide
from fairque.queue.operations import base, claims
from fairque.queue.operations.claims import Settled
from fairque.scripts import Source, beginnings, includes
from fairque.scripts.splicing import enclose
from tests.support.bench import Bench

AWKWARD = (
    "alice", "a:b", "{tag}", "50%", "%3A", "*", "?", "[x]", "new\nline", "\x00", "\x7f", "two words", "naïve", "🙂",
    "user:x:critical", "x" * 256, "queue", "'quote\"", "\\", "-",
)  # fmt: skip

Lua = Callable[..., Any]


@pytest.fixture
def lua(flushed: redis.Redis) -> Lua:
    """Run Lua after these libraries, with the prefix and settings of a queue: `lua("keys", "return keys.clock")`.

    Not as the loader would write it: here their constants are names, and can be asked for.
    """
    engine = base.Engine(base.QueueConfig())

    def run(names: str, code: str, *argv: Any, prefix: str = "fq") -> Any:
        libraries = includes(names.split())
        parts = [body_of(library, library.name in names.split()) for library in libraries]
        parts += ["local prefix, settings = ARGV[1], ARGV[2]", *beginnings(libraries), code]
        return flushed.eval("\n".join(["#!lua", *parts]), 0, prefix, engine.settings, *argv)

    return run


def body_of(library: Source, asked: bool) -> str:
    """A library as it stands. One that only others need shows its exports and constants alone: a chunk may have no more
    than 200 locals.
    """
    if asked:
        return library.body
    pattern = r"^local (?=([A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)*) *=)"
    names = ", ".join(re.findall(pattern, library.body, re.MULTILINE))
    code = re.sub(pattern, "", library.body, flags=re.MULTILINE)
    exports = [name for name in library.words("EXPORTS") if name not in names.split(", ")]
    return (f"local {names}\n" if names else "") + enclose(code, exports)


# -- states


def test_states_have_the_same_numbers_and_names(lua: Lua) -> None:
    names = [name.decode() for name in lua("states", "return STATE_NAMES")]
    assert names == [state.value for state in TaskState]
    numbers = lua("states", f"return {{{', '.join(state.name for state in TaskState)}}}")
    assert numbers == [state.code for state in TaskState]


def test_transitions_are_the_same(lua: Lua) -> None:
    pairs = lua(
        "states",
        "local found = {} for from, to in pairs(TRANSITIONS) do for state in pairs(to) do"
        " found[#found + 1] = {from, state} end end return found",
    )
    found = {(TaskState.from_code(a), TaskState.from_code(b)) for a, b in pairs}
    assert found == {pair for pair in TRANSITIONS if pair[0] is not NEW}


def test_only_an_explicit_requeue_leads_out_of_an_end() -> None:
    out = {(before, after) for before, after in TRANSITIONS if before in TERMINAL}
    assert out == {
        (before, after)
        for before in (TaskState.FAILED, TaskState.CANCELED)
        for after in (TaskState.QUEUED, TaskState.DEFERRED)
    }


# -- trigger rules


def test_the_rules_are_those_of_the_model(lua: Lua) -> None:
    code = """
      local found = {}
      for rule = 1, 5 do
        for s = 0, 3 do for f = 0, 3 do for c = 0, 3 do for p = 0, 3 do
          local action, state, reason = decide_trigger(rule, s, f, c, p)
          found[#found + 1] = action
          found[#found + 1] = state or 0
          found[#found + 1] = reason or 0
        end end end end
      end
      return found"""
    found = iter(lua("triggers", code))
    actions = {1: "run", 2: "wait", 3: "never"}
    for rule, succeeded, failed, canceled, pending in product(TRIGGER_RULES, *[range(4)] * 4):
        expected = decide(
            cast(TriggerRule, rule), succeeded=succeeded, failed=failed, canceled=canceled, pending=pending
        )
        names = (rule, succeeded, failed, canceled, pending)
        assert actions[next(found)] == expected.action, (rule, names)
        state = next(found)
        assert (TaskState.from_code(state) if state else None) == expected.state, (rule, names)
        text = Reason(next(found)).text
        assert text == expected.reason or (expected.reason.startswith("no dependency") and "rule" in text)


# -- keys


def test_both_sides_know_the_same_names(lua: Lua) -> None:
    """Each name of keys.lua exists in Keys with the same number of parts, and the other way round."""
    found = lua(
        "keys",
        "local found = {} for name, value in pairs(keys) do"
        " found[#found + 1] = {name, type(value) == 'function' and 1 or 0} end return found",
    )
    in_lua = {name.decode(): bool(takes) for name, takes in found}
    in_python = {
        name: callable(getattr(Keys, name))
        for name in vars(Keys)
        if not name.startswith("_") and name != "prefix"
    }
    assert in_lua == in_python


@pytest.mark.parametrize("prefix", ["fq", "{fq}", "{fq:3}"])
def test_names_of_awkward_parts_are_built_alike(lua: Lua, prefix: str) -> None:
    keys = Keys(prefix)
    one = ("task", "result", "errors", "progress", "watchers", "critical", "normal", "user", "costs", "dlq", "worker",
           "held", "wake")  # fmt: skip
    code = (
        "local part, other = ARGV[3], ARGV[4] "
        f"return {{{', '.join(f'keys.{name}(part)' for name in one)}, keys.dedup(part, other), keys.state('queued')}}"
    )
    for awkward in AWKWARD:
        part, other = encode(awkward[:200]), encode(awkward[::-1][:200])
        found = [name.decode() for name in lua("keys", code, part, other, prefix=prefix)]
        expected = [getattr(keys, name)(part) for name in one]
        assert found == [*expected, keys.dedup(part, other), keys.state("queued")]


def test_fixed_names_are_built_alike(lua: Lua) -> None:
    fixed = [name for name, value in vars(Keys).items() if isinstance(value, property)]
    found = lua("keys", f"return {{{', '.join(f'keys.{name}' for name in fixed)}}}")
    assert [name.decode() for name in found] == [getattr(Keys("fq"), name) for name in fixed]


def test_no_two_tenants_meet_in_a_key() -> None:
    keys = Keys("fq")
    seen: dict[str, tuple[str, ...]] = {}
    for one in AWKWARD:
        part = encode(one) if len(one.encode()) <= 256 else one
        for make in (keys.critical, keys.normal, keys.user, keys.costs, keys.dlq, keys.task):
            name = make(part)
            assert seen.setdefault(name, (make.__name__, one)) == (make.__name__, one)
        for other in AWKWARD:
            name = keys.dedup(part, encode(other))
            assert seen.setdefault(name, (one, other)) == (one, other)
        assert key_names.decode(part) == one


# -- the packed record


def random_record(rng: random.Random) -> Record:
    text = "".join(rng.choices("ab é🙂/", k=rng.randrange(1, 30)))
    flags = rng.randrange(128)
    return Record(
        state=rng.choice(list(TaskState)), priority=rng.randint(1, 6), flags=flags,
        attempt=rng.randrange(65_536), retries=rng.randrange(65_536), max_retries=rng.randrange(65_536),
        run=rng.randrange(65_536), crashes=rng.randrange(256), reason=rng.choice(list(Reason)),
        cost=rng.randrange(10, 10_000_001), created=rng.randrange(2**53), enqueued=rng.randrange(2**53),
        entered=rng.randrange(2**53), expires=rng.randrange(2**53), charged=rng.random() * 1e6,
        token=rng.randbytes(16), holder="abcDEF01234", user=text, function=f"module:{text}", op=rng.randbytes(8),
        dedup=text, limiter=text if flags & Flags.UNDER_LIMITER else "", body=rng.randbytes(50),
    )  # fmt: skip


def pack(rec: Record) -> bytes:
    """The bytes of any record of a task that was claimed, from what pack_new makes."""
    data = record.pack_new(
        rec.user, rec.function, rec.body, priority=rec.priority, max_retries=rec.max_retries, cost=rec.cost,
        expires=rec.expires, op=rec.op, dedup=rec.dedup, limiter=rec.limiter,
    )  # fmt: skip
    sizes = record.HEADER.unpack_from(data)[10:14]
    head = record.HEADER.pack(
        record.CLAIMED, rec.state.code, rec.priority, rec.flags, rec.attempt, rec.retries, rec.max_retries, rec.run,
        rec.crashes, rec.reason, *sizes, rec.cost, float(rec.created), float(rec.enqueued), float(rec.entered),
        float(rec.expires),
    )  # fmt: skip
    claim = record.CLAIM.pack(rec.charged, rec.token, rec.holder.encode())
    return head + claim + data[record.HEADER.size :]


def test_a_record_goes_through_lua_and_comes_back_the_same(lua: Lua) -> None:
    rng = random.Random(1)
    for _ in range(100):
        rec = random_record(rng)
        data = pack(rec)
        assert record.unpack(data) == rec
        assert record.token_in(data) == rec.token
        assert lua("record", "return record.whole(record.parse(ARGV[3]))", data) == data


def test_a_record_grows_by_the_claim_and_is_the_same_otherwise(lua: Lua, flushed: redis.Redis) -> None:
    data = record.pack_new(
        "alice", "m:f", b"body", priority=3, max_retries=2, cost=1000, op=b"8 bytes.", dedup="d"
    )
    data = data[:1] + b"\x01" + data[2:]  # queued
    flushed.set("fq:task:t", data)
    code = (
        "local rec = record.load_whole('t') rec.token, rec.charged = '%s', 1.5 record.claimed(rec)"
        " rec.charged = 2.5 call('SET', keys.task('t'), record.claimed(rec)) return record.whole(rec)"
    )
    whole = lua("record", code % ("t" * 16))
    assert flushed.get("fq:task:t") == whole
    assert len(whole) == len(data) + record.CLAIM.size
    before, after = record.unpack(data), record.unpack(whole)
    assert (before.token, before.charged) == (record.NO_TOKEN, 0)
    assert after == structs.replace(before, token=b"t" * 16, charged=2.5)
    flushed.delete("fq:task:t")


def test_lua_reads_the_fields_that_python_wrote(lua: Lua) -> None:
    rec = random_record(random.Random(2))
    numbers = ("priority", "flags", "attempt", "retries", "max_retries", "run", "crashes", "cost", "created",
               "enqueued", "entered", "expires", "charged")  # fmt: skip
    texts = [f"string.format('%.17g', rec.{name})" for name in numbers]
    code = f"local rec = record.parse(ARGV[3]) return {{{', '.join(texts)}, rec.user, rec.func, rec.token, rec.holder,"
    code += " record.op(rec), record.dedup(rec), record.limiter(rec) or ''}"
    found = lua("record", code, pack(rec))
    assert [float(value) for value in found[: len(numbers)]] == [getattr(rec, name) for name in numbers]
    rest = [
        rec.user.encode(),
        rec.function.encode(),
        rec.token,
        rec.holder.encode(),
        rec.op,
        rec.dedup.encode(),
        rec.limiter.encode(),
    ]
    assert found[len(numbers) :] == rest


def test_sizes_and_empty_values_are_the_same(lua: Lua) -> None:
    found = lua("record", "return {WAITING_SIZE, CLAIMED_SIZE, HEAD_AND_NAMES, NO_TOKEN, NO_HOLDER}")
    names = 2 * record.MAX_NAME_BYTES + 8 + record.MAX_DEDUP_BYTES + 1 + record.MAX_LIMITER_BYTES
    head = record.HEADER.size + record.CLAIM.size
    assert found == [record.HEADER.size, head, head + names, record.NO_TOKEN, record.NO_HOLDER]


def test_flags_and_reasons_have_the_same_numbers(lua: Lua) -> None:
    flags = lua("record", f"return {{{', '.join(flag.name or '' for flag in Flags)}}}")
    assert flags == [int(flag) for flag in Flags]
    in_lua = {"EXPIRED": Reason.EXPIRED, "BY_CALLER": Reason.CANCELED, "NO_RETRIES": Reason.RETRIES,
              "GAVE_UP": Reason.GAVE_UP, "CRASHED": Reason.CRASHED, "NOBODY": Reason.UNKNOWN_FUNCTION,
              "DISCARDED": Reason.DISCARDED, "MOVED": Reason.MOVED, "DEPENDENCY": Reason.DEPENDENCY,
              "INVALID": Reason.INVALID, "UPSTREAM_CANCELED": Reason.UPSTREAM_CANCELED,
              "NOT_TRIGGERED": Reason.NOT_TRIGGERED, "UPSTREAM_GONE": Reason.UPSTREAM_GONE}  # fmt: skip
    assert set(in_lua.values()) == set(Reason) - {Reason.NONE}
    assert lua("record", f"return {{{', '.join(in_lua)}}}") == [int(reason) for reason in in_lua.values()]
    assert all(reason.text for reason in in_lua.values())


def test_what_is_no_record_is_nothing_to_lua(lua: Lua) -> None:
    good = pack(random_record(random.Random(3)))
    for data in (b"", b"x", good[: record.HEADER.size - 1], b"\x03" + good[1:], b"\x80\x04" + b"." * 200):
        assert lua("record", "return record.parse(ARGV[3]) and 1 or 0", data) == 0
        with pytest.raises(ValueError, match="record"):
            record.unpack(data)


# -- codes and settings


def test_kinds_of_settlements_have_the_same_numbers(lua: Lua) -> None:
    assert [kind.decode() for kind in lua("settle", "return settle.KINDS")] == list(claims.KINDS)


def test_settle_codes_are_the_same(lua: Lua) -> None:
    found = lua(
        "settle",
        "return {STALE, WAS_FINISHED, WAS_RETRIED, WAS_FAILED, WAS_RELEASED, WAS_SNOOZED, WAS_CANCELED, WAS_PASSED_ON}",
    )
    assert found == [int(code) for code in Settled]
    assert [code.name for code in Settled] == [
        "STALE", "FINISHED", "RETRIED", "FAILED", "RELEASED", "SNOOZED", "CANCELED", "PASSED_ON",
    ]  # fmt: skip


def test_critical_is_the_same(lua: Lua) -> None:
    assert lua("tasks", "return CRITICAL") == Priority.CRITICAL


def test_settings_arrive_as_they_were_packed(lua: Lua) -> None:
    names = ("aging", "lease", "result_ttl", "user_ttl", "sparse_share", "unknown")
    code = f"return {{{', '.join(f'tostring(conf.{name})' for name in names)}}}"
    default = base.QueueConfig()
    found = [float(value) for value in lua("prelude", code)]
    assert found == [
        default.aging_seconds * 1e6, default.lease_seconds * 1e6, default.result_ttl_seconds * 1e3,
        default.user_ttl_seconds * 1e3, default.sparse_share, default.unknown_function_seconds * 1e6,
    ]  # fmt: skip


def test_the_clock_never_repeats_and_never_goes_back(bench: Bench) -> None:
    seen = []
    for step in (0, 0, -5, 3, 0):
        bench.clock.advance(step)
        bench.push(f"t{len(seen)}")
        task = bench.get(f"t{len(seen)}")
        assert task is not None
        assert task.created_at is not None
        seen.append(task.created_at)
    assert seen == sorted(set(seen))


def test_no_operation_knows_a_server_or_a_clock() -> None:
    """What import-linter holds for modules, held for what is called: no now(), no time()."""
    from importlib.resources import files

    for path in files("fairque.queue.operations").iterdir():
        if path.name.endswith(".py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    assert not re.fullmatch("now|utcnow|time|monotonic|sleep", node.func.attr) or (
                        ast.unparse(node) == "self.now()"
                    ), f"{path.name}:{node.lineno}"
