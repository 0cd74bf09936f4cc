"""What every command shares: the options `--config`, `--url` and `--json`, and how an error leaves.

A command is a function whose first parameter is a `Run`; the others are its own options. `command` adds the
shared ones, so that they work before and after the command's name.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairque.cli.exits import ExitCode, exit_code
from fairque.cli.output import Output

if TYPE_CHECKING:
    from fairque.core.config import FairQueueConfig
    from fairque.queue.queue import TaskQueue

_PANEL = "Common options"

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c",
        metavar="FILE", help="Configuration file; else that of FAIRQUE_CONFIG.", rich_help_panel=_PANEL,
    ),
]  # fmt: skip
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL", help="Server, instead of the configured one.", rich_help_panel=_PANEL,
    ),
]  # fmt: skip
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=_PANEL)]
_SHARED: dict[str, tuple[Any, Any]] = {
    "config": (ConfigOption, None),
    "url": (UrlOption, None),
    "as_json": (JsonOption, False),
}


class Run:
    """One run of a command. The configuration is read, and the server connected to, when first needed."""

    def __init__(
        self, *, config_file: Path | None = None, url: str | None = None, as_json: bool = False
    ) -> None:
        named = os.environ.get("FAIRQUE_CONFIG")
        self.config_file = config_file or (Path(named) if named else None)
        self.url = url
        self.out = Output(as_json=as_json)

    @cached_property
    def config(self) -> FairQueueConfig:
        """The file, under the environment, under `--url`.

        Raises:
            ConfigError: any of them is wrong.
        """
        from fairque.core.config import FairQueueConfig

        if self.config_file is None:
            if self.url is None:
                return FairQueueConfig.create_default()
            return FairQueueConfig.from_dict({"redis": {"url": self.url}})
        if self.url is None:
            return FairQueueConfig.from_yaml(self.config_file)
        return _file_with_url(self.config_file, self.url)

    def queue(self) -> TaskQueue:
        """A queue over the configuration; use it in a ``with`` block."""
        from fairque.queue.queue import TaskQueue

        return TaskQueue(self.config)

    def finish(self, code: ExitCode) -> None:
        """End the command with this exit code, unless it is OK."""
        if code is not ExitCode.OK:
            raise typer.Exit(int(code))


def _file_with_url(file: Path, url: str) -> FairQueueConfig:
    """The file, under the environment, under `url`, as if the environment had named that server and no other."""
    from fairque.core.config import FairQueueConfig
    from fairque.core.config_loading import Setting, over_file, read_environment, read_yaml

    places = [("redis", name) for name in ("url", "host", "port")]
    settings = [setting for setting in read_environment(FairQueueConfig) if setting.path not in places]
    return FairQueueConfig.from_dict(
        over_file(read_yaml(file).data, [*settings, Setting(("redis", "url"), "--url", url)])
    )


def command(
    app: typer.Typer, name: str | None = None, **settings: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command of `app`, with the shared options and one way for errors to leave."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(function, eval_str=True).parameters.values()

        def call(ctx: typer.Context, **given: Any) -> None:
            above: dict[str, Any] = ctx.find_root().obj or {}
            shared = {key: given.pop(key) or above.get(key) for key in _SHARED}
            run = Run(config_file=shared["config"], url=shared["url"], as_json=bool(shared["as_json"]))
            _guarded(run, lambda: function(run, **given))

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("ctx", keyword, annotation=typer.Context),
            *(parameter.replace(kind=keyword) for parameter in own),
            *(
                inspect.Parameter(key, keyword, annotation=kind, default=default)
                for key, (kind, default) in _SHARED.items()
            ),
        ]
        # What typer reads: the signature for the defaults, the annotations for the rest.
        described: Any = call
        described.__name__ = function.__name__
        described.__signature__ = inspect.Signature(parameters)
        described.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, help=_flowing(function.__doc__ or ""), **settings)(described)
        return function

    return decorate


def _flowing(text: str) -> str:
    """Paragraphs without the line breaks of the source: the terminal's width decides."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))


def _guarded(run: Run, action: Callable[[], None]) -> None:
    """Run the command; whatever goes wrong is one line and an exit code."""
    from fairque.core.exceptions import FairQueueError

    try:
        action()
        sys.stdout.flush()
    except FairQueueError as error:
        code = exit_code(error)
        run.out.error(error, code)
        raise typer.Exit(int(code)) from None
    except KeyboardInterrupt:
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
    except BrokenPipeError:
        # The reader has gone, as with `| head`: nothing may be written at the exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(int(ExitCode.BROKEN_PIPE)) from None
    except Exception as error:
        # What typer itself reports, and what somebody wants to see whole.
        if isinstance(error, typer.Exit | typer.Abort | typer.BadParameter) or os.environ.get(
            "FAIRQUE_TRACEBACK"
        ):
            raise
        code = ExitCode.NO_SERVER if _is_redis_error(error) else ExitCode.INTERNAL
        run.out.error(error, code)
        raise typer.Exit(int(code)) from None


def _is_redis_error(error: Exception) -> bool:
    redis = sys.modules.get("redis")
    return redis is not None and isinstance(error, redis.RedisError)
