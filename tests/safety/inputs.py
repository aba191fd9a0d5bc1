"""Inputs for the fuzzing of readers: real files, spoilt, and files of odd values."""

import copy
import json
from collections.abc import Sequence
from typing import Any

import yaml
from hypothesis import strategies as st

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 0.5, 1e308, -0.0, float("nan"), float("inf"), 2**63, 10**400),
    *("", " ", "x", "0", "1e5", "null", "../../etc/passwd", "/etc/passwd", "\0", "a\nb", "\ud83d"),
    *("os.system", "mmdet::../../x.py", "\U0001f600" * 3, "9" * 5000, "a/" * 3000, "http://u:p@h/x.pth"),
    *([], {}, [[]], {"a": {}}, [None], {"type": "os.system"}, {"0": 1}, {1: 2}, [1, [2, {"a": 3}]]),
)  # fmt: skip

SCALARS = st.one_of(
    st.sampled_from(ODD),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)

_WORDS = (
    *(b": ", b"\n", b"- ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"<<: *a", b"!!int ", b"!!x/y"),
    *(b"'", b'"', b"\x00", b"\xff", b"\xc3\x28", b"\t", b"#", b",", b"null", b"NaN", b"1e99"),
    *(b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>", b"&b;", b"</object>", b"<object>"),
    *(b"(", b")", b"**x", b"_base_ = ", b"__import__('os')"),
    *(b"[" * 3000, b"{'a':" * 300, b"9" * 5000, b"|", b"1e999"),
)  # fmt: skip


@st.composite
def spoilt_bytes(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """A real file with a few bytes cut, doubled, exchanged or put in; or no real file at all."""
    content = draw(st.sampled_from([*originals, b""]))
    if not content:
        return draw(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(_bytes)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from((0, 1, 2, 7, 30, 10**9))))
        part = draw(
            st.one_of(
                st.just(b""), st.sampled_from(_WORDS), st.just(2 * content[start:end][:500]),
                st.binary(max_size=4),
            )
        )  # fmt: skip
        content = content[:start] + part + content[end:]
    return content


@st.composite
def spoilt_values(draw: st.DrawFn, originals: Sequence[Any]) -> Any:
    """The value of a real file with a few of its parts replaced, removed or renamed."""
    root = {"": copy.deepcopy(draw(st.sampled_from(originals)))}
    for _ in range(draw(st.integers(1, 3))):
        section: Any = root
        key: Any = ""
        while True:
            inner = section[key]
            keys = list(inner) if isinstance(inner, dict) else list(range(_length(inner)))
            # Shallow parts are chosen as often as deep ones.
            if not keys or draw(st.integers(0, 3)) == 0:
                break
            section, key = inner, draw(st.sampled_from(keys))
        inner = section[key]
        if isinstance(inner, int | float) and draw(st.booleans()):
            # Right in its kind, so that it gets further.
            section[key] = draw(
                st.sampled_from((0, 1, -1, inner + 1, -inner, 2 * inner, 0.5, 10**9))
            )
            continue
        change = draw(st.sampled_from(("replace", "replace", "remove", "rename", "double")))
        if change == "remove" and section is not root:
            del section[key]
        elif change == "rename" and isinstance(section, dict) and section is not root:
            section[draw(st.text(max_size=5))] = section.pop(key)
        elif change == "double" and isinstance(section[key], list):
            section[key] = section[key] * 2
        else:
            section[key] = copy.deepcopy(draw(VALUES))  # `ODD` must stay as it is
    return root[""]


def as_json(value: Any) -> bytes:
    return json.dumps(value, default=str, skipkeys=True).encode()


def as_yaml(value: Any) -> bytes:
    return _bytes(yaml.safe_dump(value, sort_keys=False))


def spoilt_json(originals: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """JSON files: wrong in their values, or in their bytes."""
    values = [json.loads(content) for content in originals]
    return _mostly(spoilt_values(values).map(as_json), VALUES.map(as_json), spoilt_bytes(originals))


def spoilt_yaml(originals: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """YAML files: wrong in their values, or in their bytes."""
    values = [yaml.safe_load(content) for content in originals]
    return _mostly(spoilt_values(values).map(as_yaml), VALUES.map(as_yaml), spoilt_bytes(originals))


def _mostly(first: st.SearchStrategy[bytes], *rest: st.SearchStrategy[bytes]) -> Any:
    """Three times in five the first, which gets further into a reader than the others."""
    return st.integers(0, 4).flatmap(lambda k: first if k > 1 else rest[k])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0
