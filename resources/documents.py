"""Strict reading of the YAML files that people write: site profiles and releases.

Belongs here: turning a YAML file into a frozen pydantic model, and every way that can fail into one line that names the
file, the key and the nearest right key. Doesn't: what any particular file means (`resources.site`, `planning.release`).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from resources.errors import Rejected

_ENVIRONMENT_REFERENCE = re.compile(r"\$\{(\w+)\}")


class Document(BaseModel):
    """A part of a file that people write: unknown keys are errors, values don't change after reading.

    What was read in place of a ``${NAME}`` is a secret: no error shows it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def read_document[D: Document](path: Path, model: type[D]) -> D:
    """Read a YAML file as a model.

    Parameters
    ----------
    path
        The file; ``${NAME}`` in its values is replaced by the environment variable of that name.
    model
        What the file has to be.

    Raises
    ------
    resources.errors.Rejected
        The file is missing, isn't YAML, or doesn't fit the model: one line names file, key and remedy.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise Rejected("holds no keys", str(path), f"it needs at least {', '.join(_required(model))}")
    try:
        return model.model_validate(_expand(content, path))
    except ValidationError as error:
        raise _first_line(path, model, error, content) from error


def read_yaml(path: Path) -> Any:
    """Read what is in a YAML file, whatever it is.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    resources.errors.Rejected
        The file is missing or isn't YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Rejected(f"cannot be read: {error.strerror}", str(path), "name an existing file") from error
    except UnicodeDecodeError as error:
        raise Rejected(f"is not UTF-8 (byte {error.start})", str(path), "save it as UTF-8") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise Rejected(
            f"is not YAML: {getattr(error, 'problem', error)}", f"{path}{line}", "mend the syntax"
        ) from error


def _expand(value: Any, path: Path, key: str = "") -> Any:
    if isinstance(value, dict):
        return {k: _expand(v, path, f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, path, f"{key}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def environment(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise Rejected(f"the environment variable {name} is not set", f"{path}: {key}", f"export {name}=…")
        return os.environ[name]

    return _ENVIRONMENT_REFERENCE.sub(environment, value)


def _required(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if field.is_required()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _model_at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """Follow a key's path into nested models, to know which names would have been right there."""
    for part in path:
        field = model.model_fields.get(str(part))
        if field is not None:
            model = next(_models_in(field.annotation), model)
    return model


def _as_written(content: Any, path: tuple[int | str, ...]) -> Any:
    """Follow a key's path into what the file says, as far as it goes there."""
    for part in path:
        try:
            content = content[part]
        except (LookupError, TypeError):
            break
    return content


def _first_line(path: Path, model: type[BaseModel], error: ValidationError, content: Any) -> Rejected:
    problems = error.errors()
    # An unknown key usually is the misspelling of one that is missing: say that one first.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = problem["loc"]
    key = ".".join(str(part) for part in location)
    where = f"{path}: {key}" if key else str(path)
    if problem["type"] == "extra_forbidden":
        known = list(_model_at(model, location[:-1]).model_fields)
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        return Rejected("unknown key", where, f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")
    if problem["type"] == "missing":
        return Rejected("missing key", where, "add it")
    what = f"{problem['msg'][0].lower()}{problem['msg'][1:]} (got {_as_written(content, location)!r})"
    return Rejected(what, where, "correct it")
