"""mmengine's configs, which are Python, read as data: what only assigns values is never run.

Read are assignments to names, of numbers, texts, lists, tuples, dicts, `dict(...)`, arithmetic on
numbers and lists, names from above, and `_base_`, other such files. Nearly all configs that mmdet
brings say no more in what a model depends on. What else a file does is code.
"""

import ast
import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from paploss.safe_yaml import LONGEST
from paploss.strict import merged

Find = Callable[[str, Path], Path]
"""The file of a base's name, as the config in a file says it."""
_BASE = "_base_"
_MOST = 100_000
"""Values in a model's settings: names that repeat each other grow exponentially."""


class NotData(Exception):
    """What is wanted of a config cannot be had without running it; the message says where."""


def model_of(path: Path, find: Find) -> Any:
    """The `model` of the config at `path`, or None.

    Raises:
        NotData: it would have to be run.
        OSError, SyntaxError, ValueError, RecursionError, MemoryError: it cannot be read.
    """
    model = _known(_variables(path, (), find).get("model"))
    if _is_large(model):
        raise ValueError(f"its model has more than {_MOST:,} values")
    return copy.deepcopy(model)


def _variables(path: Path, above: tuple[Path, ...], find: Find) -> dict[str, Any]:
    """The variables of a config over those of its bases; a NotData is one that is not known."""
    path = path.resolve()
    if path in above:
        raise ValueError(f"{path} is its own base")
    with path.open(encoding="utf-8") as file:
        text = file.read(LONGEST + 1)
    if len(text) > LONGEST:
        raise ValueError(f"it has more than {LONGEST:,} characters")
    own: dict[str, Any] = {}
    base: dict[str, Any] = {}
    statements = ast.parse(text).body
    for name, value in _assignments(statements):
        if name == _BASE:
            base = _bases(_value(value, {}, {}), path, (*above, path), find)
    for name, value in _assignments(statements):
        if name != _BASE:
            try:
                own[name] = _value(value, own, base)
            except NotData as reason:
                own[name] = reason
    unknown = {name: value for name, value in own.items() if isinstance(value, NotData)}
    for name, value in own.items():
        if isinstance(value, dict) and isinstance(base.get(name), NotData):
            unknown[name] = base[name]
    return {**merged(base, {k: v for k, v in own.items() if k not in unknown}), **unknown}


def _bases(names: Any, path: Path, above: tuple[Path, ...], find: Find) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in [names] if isinstance(names, str) else names:
        if not isinstance(name, str):
            raise ValueError(f"its {_BASE} has {name!r}; expected names of files")
        found |= _variables(find(name, path.parent), above, find)
    return found


def _assignments(statements: list[ast.stmt]) -> Iterator[tuple[str, ast.expr | None]]:
    """(name, expression), None for what is imported; other statements could do anything."""
    for statement in statements:
        match statement:
            case ast.Assign(targets=targets, value=value) if all(
                isinstance(target, ast.Name) for target in targets
            ):
                yield from ((target.id, value) for target in targets)  # type: ignore[attr-defined]
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((alias.asname or alias.name, None) for alias in names)
            case ast.Expr(value=ast.Constant()):
                pass
            case _:
                raise NotData(_place(statement))


def _value(node: ast.expr | None, own: Mapping[str, Any], base: Mapping[str, Any]) -> Any:
    """What an expression stands for."""

    def of(part: ast.expr) -> Any:
        return _value(part, own, base)

    match node:
        case None:
            raise NotData("an import")
        case ast.Constant(value=str() | bool() | int() | float() | None as value):
            return value
        case ast.List(elts=parts):
            return [of(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(of(part) for part in parts)
        case ast.Dict(keys=keys, values=values):
            pairs = [(None if key is None else of(key), of(value))
                     for key, value in zip(keys, values, strict=True)]  # fmt: skip
            return _dict(pairs, node)
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords) if "dict" not in own:
            return _dict([(word.arg, of(word.value)) for word in keywords], node)
        case ast.Name(id="_base_"):
            return dict(base)
        case ast.Name(id=name) if name in own:
            return _known(own[name])
        case ast.Attribute(value=inner, attr=key):
            return _item(of(inner), key, node)
        case ast.Subscript(value=inner, slice=key):
            return _item(of(inner), of(key), node)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _calculated(operator.mul, -1, of(operand), node)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _calculated(_OPERATORS[type(op)], of(left), of(right), node)
    raise NotData(_place(node))


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def _known(value: Any) -> Any:
    if isinstance(value, NotData):
        raise value
    return value


def _dict(pairs: list[tuple[Any, Any]], node: ast.expr) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key is None and isinstance(value, dict):  # **value
            found |= value
        elif isinstance(key, str):
            found[key] = value
        else:
            raise NotData(f"line {node.lineno}: a key that is no text")
    return found


def _item(value: Any, key: Any, node: ast.expr) -> Any:
    try:
        return _known(value[key])
    except (LookupError, TypeError) as error:
        raise NotData(_place(node)) from error


def _calculated(operate: Callable[[Any, Any], Any], left: Any, right: Any, node: ast.expr) -> Any:
    """The result, where it is a number or a list of reasonable size."""
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    lists = operate is operator.add and type(left) is type(right) and isinstance(left, list | tuple)
    repeated = (
        operate is operator.mul
        and isinstance(left, list | tuple)
        and isinstance(right, int)
        and 0 <= right * len(left) <= _MOST
    )
    if numbers or lists or repeated:
        try:
            result = operate(left, right)
        except ArithmeticError as error:
            raise NotData(f"line {node.lineno}: {error}") from error
        small = abs(result) < 2**63 if isinstance(result, int | float) else len(result) <= _MOST
        if small:
            return result
    raise NotData(_place(node))


def _place(node: ast.stmt | ast.expr) -> str:
    """Where and what: "line 3: os.system('...')"."""
    return f"line {node.lineno}: {' '.join(ast.unparse(node).split())[:60]}"


def _is_large(value: Any) -> bool:
    """Whether more than `_MOST` values are in it, however often it repeats one."""
    left, count = [value], 0
    while left and count <= _MOST:
        part = left.pop()
        count += 1
        if isinstance(part, dict):
            left.extend(part.values())
        elif isinstance(part, list | tuple):
            left.extend(part)
    return count > _MOST
