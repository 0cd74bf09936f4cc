"""How a configuration is checked: every problem is found and told at once, by its YAML path.

`Section` is the base of all configuration models. Pydantic checks field by field; a section adds what no
single field can see (`contradictions`) and reports both together, so that nobody mends a file error by error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from fairque.core.exceptions import ConfigError

FieldPath: TypeAlias = tuple[str | int, ...]
"""Where a value stands: `("workers", 1, "id")` is `workers[1].id`."""

Origin: TypeAlias = Callable[[FieldPath, object], str | None]
"""Says where the value at a path came from (a line, an environment variable), if it knows."""

_OUR_ERROR = "fairque"
_NAME = re.compile(r"[A-Za-z_][\w-]*")
_USER_INFO = re.compile(r"(?<=://)[^@/?#\s]*@|(?<=://)\S*@")
_SECRET_NAME = re.compile(r"password|passwd|pasword|secret|token|credential|(^|_)keys?$", re.IGNORECASE)
_LONGEST_VALUE = 60


class Problem(NamedTuple):
    """One thing that is wrong: where (relative to the section), the value that is there, and what to do."""

    path: FieldPath
    value: object
    text: str


class Section(BaseModel):
    """A part of the configuration: unknown keys and wrong types are refused, instances do not change.

    Raises:
        ConfigError: listing every problem with its path, the value and the limit.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    if not TYPE_CHECKING:  # type checkers shall see the fields as parameters, not **data

        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as exc:
                raise config_error(exc, type(self), origin=type(self).origins()) from None

        # Tells pydantic that nested sections need not go through this __init__: their problems
        # then arrive as lines of the outer error, with their paths.
        __init__.__pydantic_base_init__ = True

    @classmethod
    def origins(cls) -> Origin:
        """What knows where a value came from, when Python code made the section."""
        return lambda _path, _value: None

    @classmethod
    def prepared(cls, data: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
        """`data` as it is to be validated, and what is wrong with it as it stands."""
        return data, []

    @classmethod
    def contradictions(cls, data: Mapping[str, Any]) -> Iterator[Problem]:
        """What does not fit together in `data`, whose values may still be of any type."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _find_all_problems(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        found: list[Problem] = []
        if isinstance(data, Mapping):
            data, found = cls.prepared(dict(data))
            found.extend(cls.contradictions(data))
        lines: list[InitErrorDetails] = []
        try:
            section = handler(data)
        except ValidationError as exc:
            lines.extend(_line(error) for error in exc.errors(include_url=False))
            section = None
        lines.extend(as_line(problem) for problem in found)
        if section is None or lines:
            raise ValidationError.from_exception_data(cls.__name__, lines)
        return section


def as_line(problem: Problem) -> InitErrorDetails:
    """`problem` in the form in which pydantic carries it outwards."""
    error = PydanticCustomError(_OUR_ERROR, "{text}", {"text": _valid(problem.text)})
    path = tuple(_valid(part) if isinstance(part, str) else part for part in problem.path)
    return InitErrorDetails(type=error, loc=path, input=problem.value)


def _valid(text: str) -> str:
    """`text` as Unicode that pydantic can carry: a lone surrogate becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _line(error: Any) -> InitErrorDetails:
    if error["type"] == _OUR_ERROR:
        return as_line(Problem(error["loc"], error["input"], error["ctx"]["text"]))
    return InitErrorDetails(
        type=error["type"], loc=error["loc"], input=error["input"], ctx=error.get("ctx", {})
    )


def config_error(
    exc: ValidationError,
    model: type[BaseModel],
    *,
    source: str = "",
    origin: Origin = lambda _path, _value: None,
) -> ConfigError:
    """One `ConfigError` for all that `exc` found.

    Args:
        exc: what pydantic and the sections found.
        model: the model that was validated: it knows the valid names.
        source: the name of the file, if any.
        origin: where values came from.
    """
    problems: dict[str, None] = {}  # a set that keeps its order
    for error in exc.errors(include_url=False):
        path = error["loc"]
        if path[-1:] == ("[key]",):  # pydantic's mark for a key that is no text
            path = (*path[:-2], str(error["input"]))
        line = f"{path_text(path)}: {_explain(error, path, model)}"
        place = origin(path, error["input"])
        problems[f"{line} ({place})" if place else line] = None
    return refusal(list(problems), source)


def refusal(problems: list[str], source: str = "") -> ConfigError:
    """The one error that lists `problems`."""
    head = f"{source}: " if source else ""
    if len(problems) == 1:
        return ConfigError(head + problems[0])
    listed = "".join(f"\n  {problem}" for problem in problems)
    return ConfigError(f"{head}{len(problems)} problems in the configuration:{listed}")


def path_text(path: Iterable[str | int]) -> str:
    """`workers[1].assigned_users[0]`; names that are no plain words are quoted: `users["team-*"].weight`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _NAME.fullmatch(part):
            text += f".{part}" if text else part
        else:
            quoted = '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f"[{quoted}]"
    return text or "the configuration"


def value_text(value: object, path: FieldPath = ()) -> str:
    """`value` for a message: short, and without a password."""
    if any(isinstance(part, str) and _SECRET_NAME.search(part) for part in path):
        return "the value (not shown)"
    if isinstance(value, str):
        value = without_credentials(value)
    elif isinstance(value, Mapping):
        return "a mapping"
    elif isinstance(value, list | tuple | set | frozenset):
        return "a list"
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def is_secret(name: str) -> bool:
    """Whether a setting of this name is not to be shown."""
    return _SECRET_NAME.search(name) is not None


def without_credentials(text: str) -> str:
    """`text` with the user information of every URL in it masked."""
    return _USER_INFO.sub("***@", text)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The valid name that `name` was most likely meant to be."""
    wanted, names = name.lower().replace("-", "_"), list(names)
    beginning = [known for known in names if known.startswith(f"{wanted}_")]
    if len(beginning) == 1:  # `lease` is far from `lease_seconds` in letters only
        return beginning[0]
    matches = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    return matches[0] if matches else None


def _explain(error: Any, path: FieldPath, model: type[BaseModel]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == _OUR_ERROR:
        return str(context["text"])
    if kind == "extra_forbidden":
        return _unknown_key(path, model)
    value = value_text(error["input"], path)
    if kind == "literal_error":
        close = nearest(str(error["input"]), re.findall(r"'([^']*)'", context["expected"]))
        return f"must be {context['expected']}, not {value}" + (f"; did you mean {close!r}?" if close else "")
    if kind == "invalid_key" or (kind == "string_type" and error["loc"][-1] == "[key]"):
        return f"the key {error['input']!r} must be text: quote it"
    for kinds, text in _TEXTS:
        if kind in kinds:
            hint = ""
            if isinstance(error["input"], str) and "number" in text:
                hint = _number_hint(error["input"])
            elif kind == "string_type" and isinstance(error["input"], int | float):
                hint = ": quote it"
            limits = {k: f"{v:.12g}" if isinstance(v, float) else v for k, v in context.items()}
            return text.format(**limits) + f", not {value}{hint}"
    return f"{error['msg']}, not {value}"


_TEXTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    (("float_type", "float_parsing"), "must be a number"),
    (("finite_number",), "must be a finite number"),
    (("bool_type", "bool_parsing"), "must be true or false"),
    (("string_type",), "must be text"),
    (("list_type",), "must be a list"),
    (("dict_type", "model_type", "mapping_type"), "must be a mapping of names to values"),
    (("greater_than_equal",), "must be at least {ge}"),
    (("greater_than",), "must be more than {gt}"),
    (("less_than_equal",), "must be at most {le}"),
    (("less_than",), "must be less than {lt}"),
    (("too_short",), "must have at least {min_length} entry"),
    (("too_long",), "must have at most {max_length} entries"),
    (("string_too_short",), "must have at least {min_length} character"),
    (("string_too_long",), "must have at most {max_length} characters"),
)


def _number_hint(text: str) -> str:
    """What to do about text where a number belongs."""
    try:
        float(text)
    except ValueError:
        return ""
    if "e" in text.lower():  # YAML reads 1e3 as text
        return " as text: write it out, without an exponent"
    return " as text: remove the quotes"


def _unknown_key(path: FieldPath, root: type[BaseModel]) -> str:
    name = str(path[-1])
    owner = model_at(root, path[:-1])
    names = tuple(owner.model_fields) if owner else ()
    close = nearest(name, names)
    if close:
        return f"unknown key; did you mean {close!r}?"
    for section, field in root.model_fields.items():
        other = model_of(field.annotation)
        if other is not None and other is not owner and name in other.model_fields:
            return f"unknown key here; {name!r} belongs to {section!r}"
    return f"unknown key; valid are {', '.join(names)}"


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as `RedisConfig` or `list[WorkerConfig]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (model_of(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)


def model_at(root: type[BaseModel], path: FieldPath) -> type[BaseModel] | None:
    """The model whose fields stand under `path`, if a model does."""
    model: type[BaseModel] | None = root
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) if model else None
        model = model_of(field.annotation) if field else None
    return model
