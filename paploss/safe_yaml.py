"""YAML from anybody, read as settings: plain data of bounded size, said once and without cycles."""

from typing import Any

import yaml

from paploss.errors import BadConfig

LONGEST = 1 << 20
"""Characters of a file: ten times what the longest settings take."""
_DEEPEST = 60
_MOST = 100_000
"""Values in a file, those that an alias repeats counted again: aliases grow exponentially."""
_LARGEST = 2**63


def load_yaml(text: str, where: str) -> Any:
    """The value that `text` holds: dicts, lists, texts, numbers, booleans and None alone.

    Dates stay texts. Nothing is built from tags, whatever they name.

    Args:
        where: what the text was read from, for the message.

    Raises:
        BadConfig: not YAML; a key that is there twice, of which one would be lost; a key that is
            neither a text nor a whole number; a value of another kind, too many of them, or too
            deep; an alias of what it is in; a number beyond 64 bits.
    """
    if len(text) > LONGEST:
        raise BadConfig(
            f"{where} is too long for settings: {len(text):,} characters; expected at most "
            f"{LONGEST:,}. Give another file."
        )
    try:
        return yaml.load(text, _Loader)  # a safe loader: see below
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = f"{error.problem or error.context}{place}"
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
    except Exception as error:  # what Python makes of an odd scalar, such as `!!int ""`
        problem = f"a value that cannot be read ({error})"
    raise BadConfig(f"{where} is not valid YAML: {problem}")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which in itself lets a later key replace an earlier one of its name,
    and follows aliases and nesting as far as memory and stack go."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # of the nodes that are whole, by id

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            target = self.anchors.get(event.anchor)
            if target is not None and id(target) not in self._sizes:
                raise _problem(f"*{event.anchor} is an alias of what it is in", event)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _problem(f"nested deeper than {_DEEPEST} levels", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and id(node) not in self._sizes:
            self._sizes[id(node)] = size = 1 + sum(self._sizes[id(part)] for part in _parts(node))
            if size > _MOST:
                raise _problem(f"more than {_MOST:,} values, its aliases followed", event)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        # Before merge keys are followed: what those bring may be replaced.
        seen: set[str | int] = set()
        for part, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if part.tag == _MERGE:
                continue
            key = self._key(part)
            if key in seen:
                raise _problem(f"the key {key!r} is there twice; keep one of them", part)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def _key(self, node: yaml.Node) -> str | int:
        key = self.construct_object(node, deep=True)
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise _problem(
                f"the key {node.value if isinstance(node, yaml.ScalarNode) else key!r} is no text; "
                "put it in quotes",
                node,
            )
        return key

    def construct_yaml_int(self, node: Any) -> int:
        number: int = super().construct_yaml_int(node)
        if abs(number) >= _LARGEST:
            raise _problem("a whole number of more than 64 bits", node)
        return number


_MERGE = "tag:yaml.org,2002:merge"
_INT = "tag:yaml.org,2002:int"
_KINDS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "seq", "map")}
_Loader.add_constructor(_INT, _Loader.construct_yaml_int)
_Loader.yaml_constructors = {
    tag: make
    for tag, make in _Loader.yaml_constructors.items()
    if tag in {*_KINDS, "tag:yaml.org,2002:str", None}  # None: what refuses all other tags
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in {*_KINDS, _MERGE}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _problem(what: str, place: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, what, place.start_mark)
