"""Everything that commands print goes through here: tables for people, one JSON document with `--json`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fairque.cli.exits import ExitCode, error_data

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 10_000
"""Columns for a reader that is no terminal: nothing is cut off or wrapped."""
_PIECE = 1024
"""Characters, of up to 4 bytes; 4,096 bytes is what POSIX systems write to a pipe at once."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def tame(text: object) -> str:
    """Text that came from elsewhere, its control characters made visible: it cannot command the terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", str(text))


def to_json(data: Any) -> str:
    """`data` as JSON, indented. Times are ISO 8601, bytes base64; what JSON has no word for is its text."""
    import msgspec

    try:
        encoded = msgspec.json.encode(data, enc_hook=str)
    except (TypeError, ValueError, OverflowError, RecursionError):
        encoded = msgspec.json.encode(_plain(data), enc_hook=str)
    return msgspec.json.format(encoded, indent=2).decode()


def _plain(value: Any) -> Any:
    """With keys that are text: a task's data may have others."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


class Output:
    """Standard output and standard error, in one of the two forms."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    @cached_property
    def console(self) -> Console:
        """Standard output, for people."""
        return _console(sys.stdout.isatty(), stderr=False)

    @cached_property
    def errors(self) -> Console:
        """Standard error."""
        return _console(sys.stderr.isatty(), stderr=True)

    def data(self, data: Any) -> None:
        """The one JSON document."""
        text = to_json(data) + "\n"
        # In pieces that a pipe takes whole: unbuffered (PYTHONUNBUFFERED), Python drops in silence what a single
        # write has left over, and so would not notice that the reader has gone.
        for start in range(0, len(text), _PIECE):
            sys.stdout.write(text[start : start + _PIECE])
        sys.stdout.flush()

    def line(self, text: str, style: str | None = None) -> None:
        """A line for people, or for a script that reads lines."""
        self.console.print(tame(text), style=style, soft_wrap=True)

    def note(self, text: str, style: str | None = "dim") -> None:
        """A remark beside the output proper, on standard error; not with `--json`."""
        if not self.as_json:
            self.errors.print(tame(text), style=style, soft_wrap=True)

    def error(self, error: BaseException, code: ExitCode) -> None:
        """Why it did not work."""
        if self.as_json:
            sys.stderr.write(to_json(error_data(error, code)) + "\n")
            return
        text = tame(error) or type(error).__name__
        if code is ExitCode.INTERNAL:
            text = f"internal: {type(error).__name__}: {text} (FAIRQUE_TRACEBACK=1 shows where)"
        self.errors.print("error: ", style="bold red", end="")
        self.errors.print(text, soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
        """Rows under headings. A heading that begins with ``>`` is of numbers."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        fancy = self.console.is_terminal
        if title:
            self.line(title, style="bold")
        table = Table(
            box=SIMPLE_HEAD if fancy else None,
            header_style="bold" if fancy else None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        for column in columns:
            number = column.startswith(">")
            table.add_column(
                column.removeprefix(">"),
                justify="right" if number else "left",
                overflow="fold",
                no_wrap=not fancy or number,
            )
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else tame(cell) for cell in row))
        self.console.print(table)

    def pairs(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Names and values, a line each; values that are None or empty are left out."""
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in pairs:
            if value is not None and value != "":
                table.add_row(name, value if isinstance(value, Text) else tame(value))
        self.console.print(table)


def _console(is_terminal: bool, *, stderr: bool) -> Console:
    from rich.console import Console

    return Console(
        stderr=stderr,
        width=None if is_terminal else _WIDE,
        markup=False,
        highlight=False,
        emoji=False,
    )
