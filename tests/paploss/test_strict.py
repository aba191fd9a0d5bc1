"""Settings that accept nothing they do not know."""

import copy
from typing import Any, Literal

import pytest
from pydantic import Field, model_validator

from paploss.errors import BadConfig
from paploss.strict import StrictModel, merged, nearest, override, parse


class Inner(StrictModel):
    rounds: int = Field(4, ge=1)


class Outer(StrictModel):
    name: str
    algorithm: Inner = Inner()
    maybe: Inner | None = None
    kind: Literal["cma-es", "ppo2"] = "ppo2"
    quick: bool = False
    names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_another_name(self) -> "Outer":
        if self.name == "twice":
            raise ValueError("name is 'twice'; expected another one")
        return self


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "a", "algoritm": {}}, "algoritm: unknown key; did you mean 'algorithm'?"),
        ({"name": "a", "algorithm": {"round": 1}}, "round: unknown key; did you mean 'rounds'?"),
        ({"name": "a", "maybe": {"round": 1}}, "round: unknown key; did you mean 'rounds'?"),
        ({"name": "a", "xyzzy": 1}, "known here: algorithm, kind, maybe, name, names, quick."),
        ({"name": "a", "kind": "cmaes"}, "kind: got 'cmaes'; input should be 'cma-es' or 'ppo2'; "),
        ({"name": "a", "kind": "cmaes"}, "did you mean 'cma-es'?"),
        ({"name": "a", "kind": "PPO2"}, "did you mean 'ppo2'?"),
        ({"name": "a", "kind": "xyzzy"}, "input should be 'cma-es' or 'ppo2'."),
        ({"name": "a", "maybe": False}, "maybe: got False; expected settings by name: rounds."),
        ({"name": "a", "quick": "perhaps"}, "quick: got 'perhaps'; expected true or false."),
        ({"name": "a", "names": "b"}, "names: got 'b'; expected a list."),
        ({"name": "twice"}, "\n  name is 'twice'; expected another one."),
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


def test_a_long_value_is_shown_by_its_beginning() -> None:
    with pytest.raises(BadConfig) as caught:
        parse(Outer, {"name": list(range(1000))}, "file.yaml")
    assert "name: got [0, 1, 2, 3" in str(caught.value)
    assert "...; input should be a valid string." in str(caught.value)
    assert len(str(caught.value)) < 200


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


# --- one over another ---------------------------------------------------------------------------


def test_sections_are_merged_and_all_else_is_replaced() -> None:
    base = {"a": {"b": 1, "c": {"d": 2, "e": 3}}, "f": [1, 2], "g": 4, "h": {"i": 5}}
    over = {"a": {"c": {"d": 9}}, "f": [3], "h": None, "j": {"k": 6}}
    assert merged(base, over) == {
        "a": {"b": 1, "c": {"d": 9, "e": 3}},
        "f": [3],
        "g": 4,
        "h": None,
        "j": {"k": 6},
    }


def test_a_section_may_replace_what_is_no_section() -> None:
    assert merged({"a": 1, "b": [1, 2]}, {"a": {"c": 2}, "b": {"d": 3}}) == {
        "a": {"c": 2},
        "b": {"d": 3},
    }


def test_merging_changes_neither() -> None:
    base, over = {"a": {"b": [1, {"c": 2}]}}, {"a": {"b": {1: {"c": 3}}, "d": {"_delete_": True}}}
    kept = copy.deepcopy((base, over))
    assert merged(base, over) == {"a": {"b": [1, {"c": 3}], "d": {}}}
    assert (base, over) == kept


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({"a": {"_delete_": True, "c": 2}}, {"a": {"c": 2}, "d": 3}),
        ({"a": {"_delete_": False, "c": 2}}, {"a": {"b": 1, "c": 2}, "d": 3}),
        ({"a": {"_delete_": True}}, {"a": {}, "d": 3}),
        ({"_delete_": True, "c": 2}, {"c": 2}),
        # Inside of what is new there is nothing to delete, and the word is no key.
        (
            {"a": {"_delete_": True, "c": {"_delete_": True, "e": 4}}},
            {"a": {"c": {"e": 4}}, "d": 3},
        ),
        ({"e": {"_delete_": True, "f": 5}}, {"a": {"b": 1}, "d": 3, "e": {"f": 5}}),
    ],
)
def test_delete_replaces_a_section(over: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merged({"a": {"b": 1}, "d": 3}, over) == expected


@pytest.mark.parametrize("one", [1, "1"])
@pytest.mark.parametrize("kind", [list, tuple])
def test_entries_of_a_list_are_changed_by_number(one: int | str, kind: type) -> None:
    base = {"stages": kind([{"w": 1, "t": "a"}, {"w": 1, "t": "b"}, {"w": 1, "t": "c"}])}
    assert merged(base, {"stages": {one: {"w": 9}}}) == {
        "stages": [{"w": 1, "t": "a"}, {"w": 9, "t": "b"}, {"w": 1, "t": "c"}]
    }
    assert merged({"a": [1, 2, 3]}, {"a": {one: 9}}) == {"a": [1, 9, 3]}


def test_a_section_with_other_keys_replaces_a_list() -> None:
    assert merged({"a": [1, 2]}, {"a": {"type": "x", "1": 3}}) == {"a": {"type": "x", "1": 3}}
    assert merged({"a": [1, 2]}, {"a": {}}) == {"a": {}}


def test_a_number_that_no_entry_has() -> None:
    with pytest.raises(BadConfig, match="3 is no entry of a list of 3; they count from 0"):
        merged({"a": [1, 2, 3]}, {"a": {1: 5, 3: 9}})
