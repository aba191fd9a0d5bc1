"""Settings that accept nothing they do not know."""

import pytest
from pydantic import Field

from paploss.errors import BadConfig
from paploss.strict import StrictModel, nearest, override, parse


class Inner(StrictModel):
    rounds: int = Field(4, ge=1)


class Outer(StrictModel):
    name: str
    algorithm: Inner = Inner()
    maybe: Inner | None = None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a", "algoritm": {}}, "algoritm: unknown key; did you mean 'algorithm'?"),
        ({"name": "a", "algorithm": {"round": 1}}, "round: unknown key; did you mean 'rounds'?"),
        ({"name": "a", "maybe": {"round": 1}}, "round: unknown key; did you mean 'rounds'?"),
        ({"name": "a", "xyzzy": 1}, "known here: algorithm, maybe, name."),
        ({}, "name: missing"),
        ({"name": "a", "algorithm": {"rounds": 0}}, "algorithm.rounds: got 0; input should be"),
        ({"name": "a", "algorithm": {"rounds": float("nan")}}, "algorithm.rounds: got nan"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse(Outer, values, "file.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("file.yaml:\n")


def test_all_problems_come_at_once() -> None:
    with pytest.raises(BadConfig) as caught:
        parse(Outer, {"nam": "a", "algorithm": {"rounds": "many"}}, "file.yaml")
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 3  # name is missing, nam is unknown, rounds is no number


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(Outer, {"name": "a"}, "x").name = "b"  # type: ignore[misc]


def test_nearest_lists_all_where_none_is_close() -> None:
    assert nearest("q", ["beta", "alpha"]) == "known here: alpha, beta."


def test_override_writes_into_a_copy() -> None:
    values = {"a": {"b": 1, "c": 2}, "d": 3}
    changed = override(values, {"a.b": 9, "e.f.g": 4, "d": None}, "x")
    assert changed == {"a": {"b": 9, "c": 2}, "d": None, "e": {"f": {"g": 4}}}
    assert values == {"a": {"b": 1, "c": 2}, "d": 3}


def test_override_needs_a_section_on_the_way() -> None:
    with pytest.raises(BadConfig, match=r"cannot set d\.x: d holds 3"):
        override({"d": 3}, {"d.x": 1}, "file.yaml")
