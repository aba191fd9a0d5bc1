"""The documentation holds: its code runs, what it links to is there, its pictures can be drawn."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import loss.criterion

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def run(page: Path, names: dict[str, Any]) -> None:
    """Run the Python of a page from its top to its end, in one namespace that holds `names`."""
    text = page.read_text(encoding="utf-8")
    blocks = list(PYTHON.finditer(text))
    assert blocks
    for block in blocks:
        # Line numbers in a traceback are those of the page.
        above = "\n" * text.count("\n", 0, block.start(1))
        exec(compile(above + block[1], str(page), "exec"), names)


def test_the_code_about_the_losses_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    # It registers a criterion of its own; other tests go over those that are ours.
    monkeypatch.setattr(loss.criterion, "CRITERIA", dict(loss.criterion.CRITERIA))
    with torch.random.fork_rng():
        run(ROOT / "docs" / "losses.md", {})


def test_the_code_of_the_readme_trains_what_it_is_given() -> None:
    """A batch with one positive and one negative, which the example takes for granted."""
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    names = {
        "logits": torch.zeros(2, 1, requires_grad=True),
        "labels": torch.tensor([0, 1]),
        "weights": torch.ones(2),
        "pos": torch.tensor([0]),
        "pred_boxes": (box + 1).requires_grad_(),
        "target_boxes": box,
    }
    run(ROOT / "README.md", names)
    assert names["logits"].grad is not None and names["logits"].grad.any()
    assert names["pred_boxes"].grad is not None and names["pred_boxes"].grad.any()


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings: lower case, blanks to hyphens, punctuation left out."""
    headings = HEADING.findall(re.sub(PYTHON, "", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_the_pictures_are_those_that_the_script_draws(tmp_path: Path) -> None:
    path = ROOT / "scripts" / "draw_losses.py"
    spec = importlib.util.spec_from_file_location("draw_losses", path)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(tmp_path)
    drawn = {picture.name for picture in tmp_path.iterdir()}
    assert drawn == {picture.name for picture in (ROOT / "docs" / "losses").iterdir()}
    page = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    assert all(f"](losses/{name})" in page for name in drawn)
