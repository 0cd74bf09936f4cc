"""Patterns of user ids in Lua match what they match in Python."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import redis
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from fairque.core.exceptions import ConfigError
from fairque.core.patterns import EVERYBODY, MAX_STARS, is_pattern, lua_pattern

# Few characters, so that texts and patterns meet; among them all that mean something in either language, and some
# that take one to four bytes.
ALPHABET = "ab-z]![^*?%.$()+\\&~|09AZ \x00\n\x7füß☃𝄞"
# A character that is not ASCII is refused in brackets, so a pattern has few of them.
GLOBS = st.lists(
    st.sampled_from([*ALPHABET, "*", "?", "[a-c]", "[!a]", "[!a-z-]", "[]]", "[!]a]", "[z-a]", "[!z-a]", "[a-]", "[-a]",
                     "[--0]", "[%-.]", "[^a]", "[[a]", "[a\\]", "[&&~~||]", "[+--]", "[!", "[b-a-z]"]),
    min_size=1, max_size=8,
).map("".join)  # fmt: skip
IDS = st.text(st.sampled_from(ALPHABET), max_size=8)

# The server is the same for all examples, since they leave nothing there; some globs are refused.
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]


def matches(client: redis.Redis, pattern: bytes, user: str) -> bool:
    """What a script finds."""
    return bool(client.eval("return string.match(ARGV[1], ARGV[2]) and 1 or 0", 0, user.encode(), pattern))


@given(glob=GLOBS, ids=st.lists(IDS, min_size=5, max_size=30))
@example(glob="*ü", ids=["ü", "aü", "\u00fcü", "a"])
@example(glob="?", ids=["ü", "☃", "𝄞", "ab", "", "a"])
@example(glob="*?", ids=["ü", "𝄞", ""])
@example(glob="[!a]?[!b]", ids=["ü☃𝄞", "aaa", "bbb", "üü"])
@example(glob="?" * 250, ids=["a" * 250, "a" * 251, "☃" * 80])
@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
def test_lua_and_python_agree(flushed: redis.Redis, glob: str, ids: list[str]) -> None:
    try:
        pattern = lua_pattern(glob)
    except ConfigError:
        reject()  # what is refused, and how, is tested below
    # Besides what chance gives: the pattern itself, and what it becomes when its stars and marks are filled in.
    near = [glob, glob.replace("*", ""), glob.replace("*", "aü").replace("?", "☃"), glob.replace("?", "b")]
    for user in [*ids, *near]:
        assert matches(flushed, pattern, user) == fnmatchcase(user, glob), (glob, pattern, user)


@given(st.text(ALPHABET, min_size=1, max_size=12).filter(lambda text: not is_pattern(text)), IDS)
@settings(max_examples=100, deadline=None, suppress_health_check=QUIET)
def test_text_without_wildcards_matches_itself_only(flushed: redis.Redis, text: str, other: str) -> None:
    assert matches(flushed, lua_pattern(text), text)
    assert matches(flushed, lua_pattern(text), other) == (text == other)


@pytest.mark.parametrize(
    ("glob", "pattern"),
    [
        ("*", EVERYBODY),
        ("**", EVERYBODY),
        ("team-*", rb"^team%-"),
        ("*-trial", rb"%-trial$"),
        ("*trial*", rb"trial"),
        ("a*b", rb"^a.-b$"),
        ("[a-c9-]x", rb"^[%-9a-c]x$"),
        ("[x", rb"^%[x$"),
    ],
)
def test_what_patterns_become(glob: str, pattern: bytes) -> None:
    assert lua_pattern(glob) == pattern


@pytest.mark.parametrize(
    ("glob", "words"),
    [
        ("[aü]", ["'[aü]'", "'ü'", "ASCII"]),
        ("[a-ü]*", ["'ü'", "ASCII"]),
        ("*a*b*c", ["'*a*b*c'", "3", str(MAX_STARS)]),
        ("a*b*c*d*", ["3"]),
        ("", ["empty"]),
        ("x" * 257, ["256"]),
        ("\ud800", ["surrogate"]),
    ],
)
def test_what_cannot_be_a_pattern_is_refused(glob: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        lua_pattern(glob)
    for word in words:
        assert word in str(refused.value)


def test_a_match_takes_no_longer_than_a_script_may(flushed: redis.Redis) -> None:
    script = """
        local begun = redis.call('TIME')
        string.match(ARGV[1], ARGV[2])
        local ended = redis.call('TIME')
        return (ended[1] - begun[1]) * 1000000 + ended[2] - begun[2]
    """
    for glob in ("*a*b", "x*a*b", "*a*b*"):
        assert flushed.eval(script, 0, b"x" + b"a" * 255, lua_pattern(glob)) < 20_000
