"""The work: to tokenise one source file of the standard library. A worker imports this module."""

from __future__ import annotations

import io
import os
import sysconfig
import time
import tokenize
from pathlib import Path
from typing import TypedDict

from fairque.core.decorator import task


class Counts(TypedDict):
    """What is in a file, when the work on it began (Unix time), and in which process."""

    bytes: int
    lines: int
    tokens: int
    names: int
    comments: int
    started: float
    pid: int


def library() -> Path:
    """Where this Python's standard library is."""
    return Path(sysconfig.get_paths()["stdlib"])


def count(data: bytes) -> tuple[int, int, int]:
    """How many tokens, names and comments there are, as far as `data`, which may be cut off, can be read."""
    tokens = names = comments = 0
    try:
        for token in tokenize.tokenize(io.BytesIO(data).readline):
            tokens += 1
            names += token.type == tokenize.NAME
            comments += token.type == tokenize.COMMENT
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError):
        # It was cut in the middle of something, or is one of the library's own broken examples.
        pass
    return tokens, names, comments


@task
def tokenise(path: str, limit: int) -> Counts:
    """Count what is in the first `limit` bytes of a file of the standard library."""
    started = time.time()
    with (library() / path).open("rb") as file:
        data = file.read(limit)
    tokens, names, comments = count(data)
    return Counts(
        bytes=len(data),
        lines=data.count(b"\n"),
        tokens=tokens,
        names=names,
        comments=comments,
        started=started,
        pid=os.getpid(),
    )
