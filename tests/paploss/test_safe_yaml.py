"""YAML of anybody: plain data of bounded size, or one message."""

import time
from typing import Any

import pytest
import yaml

from paploss.errors import BadConfig
from paploss.safe_yaml import LONGEST, load_yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: [2, 0.5, x, true, null]\n", {"a": 1, "b": [2, 0.5, "x", True, None]}),
        ("a: &a {b: 1, c: 2}\nd: {<<: *a, c: 3}\n", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("a: &a [1]\nb: [*a, *a]\n", {"a": [1], "b": [[1], [1]]}),
        ("0: {a: 1}\n", {0: {"a": 1}}),
        ("day: 2024-13-45\nother: 2024-01-02\n", {"day": "2024-13-45", "other": "2024-01-02"}),
        ("sign: =\n", {"sign": "="}),
        ("", None),
        (f"a: {2**63 - 1}\n", {"a": 2**63 - 1}),
    ],
)
def test_plain_data_is_read(text: str, expected: Any) -> None:
    assert load_yaml(text, "file") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 1\nb: 2\na: 3\n",
            r"the key 'a' is there twice; keep one of them \(line 3, column 1\)",
        ),
        ("x: {a: 1, 'a': 2}\n", "the key 'a' is there twice"),
        ("on: 1\n", "the key 'on' is no text; put it in quotes"),
        ("? [1]\n: 2\n", "is no text"),
        ("1.5: 2\n", "the key '1.5' is no text"),
        ("a: &a [*a]\n", r"\*a is an alias of what it is in"),
        ("a: &a {b: {c: *a}}\n", r"\*a is an alias of what it is in"),
        ("[" * 100_000, "nested deeper than 60 levels"),
        ("{a: " * 100_000, "nested deeper than 60 levels"),
        (f"a: {2**63}\n", "a whole number of more than 64 bits"),
        (f"a: {'9' * 5000}\n", "a value that cannot be read"),
        ("a: !!int ''\n", "a value that cannot be read"),
        ("a: !!python/object/apply:os.system [true]\n", "could not determine a constructor"),
        ("a: !!binary aGk=\n", "could not determine a constructor"),
        ("a: !!set {b}\n", "could not determine a constructor"),
        ("a: b: c\n", r"mapping values are not allowed here \(line 1"),
        ("a: \x00\n", "special characters are not allowed"),
        ("a: 1\n" * LONGEST, "too long for settings"),
    ],
)
def test_anything_else_is_one_line(text: str, message: str) -> None:
    with pytest.raises(BadConfig, match=f"^file is .*{message}") as error:
        load_yaml(text, "file")
    assert "\n" not in str(error.value)


def test_aliases_that_multiply_are_refused_before_they_do() -> None:
    levels = [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 30)]
    text = "\n".join(["a0: &a0 [x, x]", *levels])
    begun = time.process_time()
    with pytest.raises(BadConfig, match="more than 100,000 values, its aliases followed"):
        load_yaml(text, "file")
    assert time.process_time() - begun < 5  # 2e29 values


def test_what_is_written_is_read_as_it_was() -> None:
    value = {"a": "2024-01-02", "b": "on", "c": [1e-5, -0.0, None], "d": {"e": "*x", "f": "<<"}}
    assert load_yaml(yaml.safe_dump(value), "file") == value
