"""Thousands of odd files: each is read, or refused with a message for the user.

The inputs are the same ones every time; `python -m benchmarks.fuzz` makes others for as long as it
is told to.
"""

from collections.abc import Callable

import pytest

from paploss.errors import UserError
from search import cli
from search.exit_codes import Exit
from tests.safety.annotation_readers import BOMB, STEALS, VOC
from tests.safety.fuzzing import fuzz
from tests.safety.inputs import as_json
from tests.safety.reader import Reader
from tests.safety.readers import READERS

INPUTS = 160
"""Of a reader with the share 1; about 2,000 of all."""


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_reader_takes_anything(reader: Reader) -> None:
    seen = fuzz(reader, int(INPUTS * reader.share))
    # Inputs that are all refused at the door would show nothing.
    assert seen["read"]


def by_name(name: str) -> Reader:
    return next(reader for reader in READERS if reader.name == name)


def test_what_is_no_user_error_is_found() -> None:
    """The fuzzing itself can fail."""

    def read(content: bytes, folder: object) -> None:
        if len(content) % 7 == 3:
            raise KeyError("a defect")
        raise UserError("refused")

    broken = Reader("broken", by_name("detector").inputs, read)
    with pytest.raises(KeyError, match="a defect"):
        fuzz(broken, 200)

    def silent(content: bytes, folder: object) -> None:
        raise UserError("")

    with pytest.raises(AssertionError, match="UserError without a message"):
        fuzz(Reader("silent", by_name("detector").inputs, silent), 5)


@pytest.mark.parametrize("content", [BOMB, STEALS], ids=["bomb", "external entity"])
def test_entities_of_xml_are_refused(content: bytes) -> None:
    said = by_name("voc").feed((content, b"1\n"))
    assert said and "document type" in said
    assert "root:" not in said
    assert by_name("voc").feed((VOC, b"1\n")) is None


@pytest.mark.parametrize(
    ("command", "name", "content"),
    [
        (["detector"], "a.yaml", b"name: a\nname: b\n"),
        (["detector"], "a.yaml", b"\xff\xfe\x00"),
        (["detector"], "a.py", b"import os\nos.abort()\n"),
        (["search"], "a.yaml", b"detector: &a [*a]\n"),
        (["search"], "a.yaml", b"[" * 9999),
        (["train"], "a.yaml", b"detector: {name: 1, model: {}}\ndata: 3\ncriterion: .nan\n"),
        (["ablate"], "a.yaml", b"rows: [{label: 0}]\n"),
        (["data", "check"], "a.yaml", as_json({"classes": [1], "val": [], "test": {}})),
        (["data", "coco-split", "--out", "out"], "a.json", b'{"images": [{"id": NaN}]}'),
    ],
)
def test_a_command_says_it_in_a_few_lines(
    command: list[str], name: str, content: bytes, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    arguments = [*command, str(tmp_path / name)]
    call: Callable[[], None] = lambda: cli.app(args=arguments, standalone_mode=False)  # noqa: E731
    assert cli.run_safely(call) == Exit.BAD_INPUT
    said = capsys.readouterr().err
    assert said.startswith("error: ") and len(said) < 2000
    assert "Traceback" not in said
