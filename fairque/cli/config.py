"""`fairque config`: look at, check and begin a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairque.cli.run import Run, command

FileArgument = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="Else that of --config.", show_default=False)
]
app = typer.Typer(
    no_args_is_help=True, help="The configuration: check a file, show what is in effect, begin one."
)


@command(app)
def check(
    run: Run,
    file: FileArgument = None,
) -> None:
    """Check a configuration file, under the environment. Exit code 2: it is wrong, and every mistake is named."""
    from fairque.core.exceptions import ConfigError

    run.config_file = file or run.config_file
    if run.config_file is None:
        raise ConfigError("name the file to check, as an argument, with --config or in FAIRQUE_CONFIG")
    config = run.config
    workers = [entry.id for entry in config.workers]
    if run.out.as_json:
        run.out.data(
            {
                "ok": True,
                "file": str(run.config_file),
                "server": str(config.redis.address),
                "workers": workers,
                "users": list(config.users),
                "groups": list(config.groups),
                "limiters": list(config.limiters),
                "schedules": list(config.schedules),
                "plugins": list(config.plugins),
            }
        )
        return
    run.out.line(
        f"{run.config_file}: good. Server {config.redis.address}, workers {', '.join(workers)}, "
        f"{len(config.users)} user policies, {len(config.groups)} groups, {len(config.limiters)} limiters, "
        f"{len(config.schedules)} schedules"
    )


@command(app)
def show(
    run: Run,
    include_secrets: Annotated[bool, typer.Option("--include-secrets", help="Also passwords.")] = False,
) -> None:
    """Show the configuration in effect: defaults, file, environment and --url, every field."""
    import yaml

    text = run.config.to_yaml(include_secrets=include_secrets)
    if run.out.as_json:
        run.out.data(yaml.safe_load(text))
    else:
        run.out.line(text.rstrip())


@command(app)
def init(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="[FILE]")] = Path("fairque.yaml"),
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a file that is there.")] = False,
) -> None:
    """Write a configuration file to begin with: every field, its default, and what it means, commented out."""
    from fairque.cli.config_template import template
    from fairque.core.exceptions import ConfigError

    try:
        with file.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(template())
    except FileExistsError:
        raise ConfigError(f"{file} is there already: name another file, or replace it with --force") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror or error}") from None
    if run.out.as_json:
        run.out.data({"file": str(file)})
    else:
        run.out.line(f"{file} is written; after changing it: fairque config check {file}")
