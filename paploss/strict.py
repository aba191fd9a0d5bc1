"""Settings models that accept nothing they do not know, and say what was meant."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from paploss.addresses import check_addresses
from paploss.errors import BadConfig


class StrictModel(BaseModel):
    """A frozen settings model: an unknown key is an error, no value is coerced out of range."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """`values` as a `model`.

    Args:
        where: what the values were read from, for the message.

    Raises:
        BadConfig: one line for each thing wrong; a mistyped key comes with the nearest right one.
            An address with a secret in it is wrong too.
    """
    check_addresses(values, where)
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = [_describe(problem, model) for problem in error.errors()]
        raise BadConfig(f"{where}:\n" + "\n".join(f"  {line}" for line in problems)) from error


def nearest(word: str, words: list[str]) -> str:
    """', did you mean ...?' for the closest of `words`, or the list of all of them."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(sorted(words))}."


_LONGEST = 120
"""Characters of a wrong value that a message shows: the message has to be found in it."""


def _describe(problem: Any, model: type[BaseModel]) -> str:
    path = list(problem["loc"])
    name = ".".join(str(part) for part in path)
    if problem["type"] == "extra_forbidden":
        known = list(_fields_at(model, path[:-1]))
        return f"{name}: unknown key; {nearest(str(path[-1]), known)}"
    if problem["type"] == "missing":
        return f"{name}: missing; it has to be given."
    message = _expected(problem, model, path)
    first = message.split()[0]
    # A name such as RetinaNet or H2 keeps its capitals.
    if first.isalpha() and first == first.capitalize():
        message = message[0].lower() + message[1:]
    given = repr(problem["input"])
    if len(given) > _LONGEST:
        given = f"{given[:_LONGEST]}..."
    shown = f"{name}: got {given}; " if name else ""  # of all settings, the message says which
    return f"{shown}{message.rstrip('.')}{'' if message.endswith('?') else '.'}"


def _expected(problem: Any, model: type[BaseModel], path: list[Any]) -> str:
    """What is wrong with a value, in this project's words where pydantic has its own."""
    kind, given = problem["type"], problem["input"]
    if kind in ("model_type", "model_attributes_type"):
        known = ", ".join(sorted(_fields_at(model, path)))
        return f"expected settings by name: {known}"
    if kind in ("bool_parsing", "bool_type"):
        return "expected true or false"
    if kind in ("tuple_type", "list_type"):
        return "expected a list"
    message: str = problem["msg"].removeprefix("Value error, ")
    if kind == "literal_error" and isinstance(given, str):
        choices = problem["ctx"]["expected"].replace(" or ", ", ").split(", ")
        close = nearest(given.lower(), [choice.strip("'") for choice in choices])
        if close.startswith("did"):
            return f"{message}; {close}"
    return message


def _fields_at(model: Any, path: list[Any]) -> Iterator[str]:
    """Names of the fields of the model found by following `path` from `model`."""
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return
        candidates = [field.annotation, *get_args(field.annotation)]
        model = next((kind for kind in candidates if hasattr(kind, "model_fields")), None)
    yield from getattr(model, "model_fields", {})


def override(values: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy of nested `values` with {"algorithm.rounds": 4} written over it.

    Whether a key exists is the model's to say; here only the way to it must be a section.

    Raises:
        BadConfig: a part of the way holds a value, not a section.
    """
    out = dict(values)
    for dotted, value in overrides.items():
        *way, last = dotted.split(".")
        section = out
        for part in way:
            inner = section.get(part, {})
            if not isinstance(inner, Mapping):
                raise BadConfig(
                    f"{where}: cannot set {dotted}: {part} holds {inner!r} and has no keys."
                )
            section[part] = dict(inner)
            section = section[part]
        section[last] = value
    return out


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested `base` with `over` laid over it; neither is changed.

    A section is laid over a section, key by key; anything else replaces what was there. A section
    with `_delete_: true` replaces the other as well. Over a list, a section whose keys are numbers
    changes those entries.

    Raises:
        BadConfig: a number that the list has no entry for.
    """
    out = {} if over.get("_delete_") else dict(base)
    for key, value in over.items():
        if key != "_delete_":
            out[key] = _laid_over(out.get(key), value)
    return out


def _laid_over(base: Any, over: Any) -> Any:
    if not isinstance(over, Mapping):
        return over
    if isinstance(base, list | tuple) and over and all(str(key).isdecimal() for key in over):
        changed = {int(key): value for key, value in over.items()}
        if max(changed) >= len(base):
            raise BadConfig(
                f"{max(changed)} is no entry of a list of {len(base)}; they count from 0."
            )
        return [_laid_over(old, changed.get(k, old)) for k, old in enumerate(base)]
    return merged(base if isinstance(base, Mapping) else {}, over)
