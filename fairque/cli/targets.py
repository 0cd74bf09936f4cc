"""From `MODULE:FUNCTION` and JSON on the command line to a task: what cannot be found is named with its nearest."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairque.core.exceptions import ConfigError, InvalidTaskError, UnknownFunctionError

if TYPE_CHECKING:
    from fairque.core.decorator import TaskFunction


def see_current_directory() -> None:
    """Make modules of the current directory importable, as `python -m` does."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def import_module(name: str) -> Any:
    """The module called `name`.

    Raises:
        ConfigError: there is none (the error names the nearest), or importing it failed (the error says where).
    """
    see_current_directory()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise ConfigError(f"there is no module {missing!r}{nearest_module(missing)}") from None
        raise ConfigError(f"module {name} needs the module {missing!r}, which is not installed") from None
    except (ValueError, TypeError) as error:  # an empty or relative name, among others
        raise ConfigError(f"module {name!r} cannot be imported: {error}") from None
    except Exception as error:  # noqa: BLE001 - importing runs the user's code, which can raise anything
        raise ConfigError(
            f"importing {name} failed{_where(error)}: {type(error).__name__}: {error}"
        ) from None


def _where(error: Exception) -> str:
    """The file and line that raised it."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}:{error.lineno})"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""


def nearest_module(missing: str) -> str:
    """The end of a sentence about a module that is not there: which one may be meant, or where it is searched for."""
    import pkgutil

    parent, _, name = missing.rpartition(".")
    places: Iterable[str] | None = None
    if parent:
        places = getattr(sys.modules.get(parent), "__path__", [])
    names = [found.name for found in pkgutil.iter_modules(places)]
    near = get_close_matches(name, names, n=1)
    if near:
        return f": did you mean {f'{parent}.' if parent else ''}{near[0]}?"
    return (
        f" in {parent}" if parent else f": it is searched for in {Path.cwd()} and where Python's packages are"
    )


def find_function(target: str, modules: Sequence[str] = ()) -> TaskFunction[..., Any]:
    """The task function of `MODULE:FUNCTION`, or one registered under the name `target` by one of `modules`.

    Raises:
        ConfigError: a module is missing or cannot be imported.
        UnknownFunctionError: there is no such task function; the error names the nearest one.
    """
    from fairque.core.decorator import TaskFunction
    from fairque.core.registry import default_registry

    for name in modules:
        import_module(name)
    registry = default_registry()
    if target in registry:
        return registry.resolve(target)
    module_name, colon, qualname = target.partition(":")
    if not colon or not qualname:
        if modules:
            return registry.resolve(target)
        raise UnknownFunctionError(
            f"{target!r} is no MODULE:FUNCTION; a name given by @task(name=...) needs the module that defines it: "
            "--module MODULE"
        )
    module = import_module(module_name)
    if target in registry:
        return registry.resolve(target)
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if isinstance(found, TaskFunction):
        return found
    if found is not None:
        raise UnknownFunctionError(f"{target} is not a task: decorate it with @task")
    there = [name for name, value in vars(module).items() if isinstance(value, TaskFunction)]
    near = get_close_matches(qualname, there, n=1)
    if near:
        hint = f"did you mean {module_name}:{near[0]}?"
    elif there:
        hint = f"it has {', '.join(sorted(there)[:10])}"
    else:
        hint = "it has no @task functions"
    raise UnknownFunctionError(f"module {module_name} has no task {qualname!r}: {hint}")


def parse_json(text: str, what: str) -> Any:
    """A JSON value.

    Raises:
        InvalidTaskError: it is not JSON; the error names `what` and, for plain text, the way to quote it.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        # What begins like other JSON is more likely a slip in that than text without quotes.
        is_text = text[:1] not in tuple('{["')
        hint = f"; as text it is '{json.dumps(text, ensure_ascii=False)}'" if is_text else ""
        raise InvalidTaskError(f"{what} is not JSON: {text[:60]!r} ({error}){hint}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def parse_mapping(text: str, what: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidTaskError: it is something else.
    """
    value = parse_json(text, what)
    if not isinstance(value, dict):
        raise InvalidTaskError(
            f"{what} must be a JSON object such as '{{\"width\": 200}}', not {text[:60]!r}"
        )
    return value
