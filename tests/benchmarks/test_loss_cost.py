"""The benchmark of the losses' cost: its output, what it measures with, and what it compares with.

Nothing here asserts a time.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.all_pairs import all_pairs
from benchmarks.loss_cost import QUICK, exponents, pairwise_runs
from benchmarks.loss_runs import CRITERIA, CURVES, STAGES, criterion_run, focal_runs, random_batch
from benchmarks.measure import Meter
from loss import parameterized_ap_loss

ROOT = Path(__file__).parents[2]


def test_a_quick_run_prints_every_row():
    command = [sys.executable, "benchmarks/loss_cost.py", "--quick", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--repeats", "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("`PYTHONPATH=. python benchmarks/loss_cost.py --quick")
    assert f"torch {torch.__version__}" in lines[2]
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    for name in (*CRITERIA, "focal, eager"):
        assert sum(row[0] == name for row in cells) == len(STAGES)
    for n in QUICK.scores:
        for p in QUICK.positives:
            (row,) = [row for row in cells if row[:2] == [f"{n:,}", f"{p:,}"]]
            # Ours, eager focal, dense, loop; three ratios.
            assert len(row) == 9 and all(float(cell.replace(",", "")) > 0 for cell in row[2:])
    assert sum(line.startswith("- ") for line in lines) == 4
    assert [row[0] for row in cells[-2:]] == [str(p) for p in QUICK.positives]


@pytest.mark.parametrize("block", [1, 3, 40])
@pytest.mark.parametrize("cap", [None, 150])
def test_all_pairs_are_parameterized_ap_loss(block: int, cap: int | None):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, generator=generator, requires_grad=True)
    targets = torch.zeros(300, dtype=torch.int8)
    targets[5:300:8], targets[6:300:8] = 1, -1  # 37 positives, 37 ignored
    positive = (targets == 1).nonzero().squeeze(1)
    own = torch.rand(len(positive), generator=generator, requires_grad=True)
    localization = torch.zeros(300).index_put((positive,), own)
    expected = parameterized_ap_loss(logits, localization, targets, CURVES, num_topk=cap)
    expected_grads = torch.autograd.grad(expected, [logits, own])
    value, *grads = all_pairs(logits, own, positive, targets >= 0, CURVES, block=block, cap=cap)
    torch.testing.assert_close(value, expected.detach())
    for found, gradient in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(found, gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_timed_makes_gradients(stage: str):
    batch = random_batch((40, 3, 7), stage, "cpu")
    runs = {name: criterion_run(batch, name) for name in CRITERIA}
    for run in (*runs.values(), *pairwise_runs(batch).values()):
        d_logits, d_boxes = run()
        assert d_logits.any() and d_boxes.any()
    (d_logits,) = focal_runs(batch, ["focal, eager"])["focal, eager"]()
    assert d_logits.all()


def test_too_many_pairs_are_not_run():
    def run_at(n: int, p: int) -> set[str]:
        return set(pairwise_runs(random_batch((n, 1, p), "trained", "cpu")))

    # The dense form ranks 100,000 scores at most: 10^8 pairs, and the loop has 2 * 10^8.
    assert run_at(200_000, 1_000) == {"dense", "loop"}
    # 2 * 10^8 and 4 * 10^8; then 3 * 10^8 and 6 * 10^8.
    assert run_at(200_000, 2_000) == {"loop"}
    assert run_at(200_000, 3_000) == set()


def test_extra_memory_is_the_peak():
    x = torch.zeros(1000)  # there before, so not extra

    def run() -> torch.Tensor:
        once = x + 1  # 4,000 bytes
        twice = once.double()  # 8,000 more: the peak
        del once
        return twice[:10] + 1  # 80 more, but 4,000 less

    assert Meter("cpu", 1).extra_bytes(run) == 12_000


def test_exponents_of_known_laws():
    sizes = [(n, p) for n in (100, 1000, 10_000) for p in (10, 100)]
    laws = {
        "Parameterized AP": lambda n, p: 3 * n**0.5 * p**0.25,
        "dense": lambda n, p: n * p**2.0,
        "loop": lambda n, p: 0.1 * n * p,
    }
    times = {size: {name: law(*size) for name, law in laws.items()} for size in sizes}
    assert list(exponents(times)) == [
        "- Parameterized AP: N^0.50 P^0.25",
        "- Parameterized AP from N = 1,000: N^0.50 P^0.25",
        "- dense: N^1.00 P^2.00",
        "- loop: N^1.00 P^1.00",
    ]


def test_the_least_of_the_turns_counts(monkeypatch: pytest.MonkeyPatch):
    seconds = iter([5.0, 1.0, 4.0, 2.0, 3.0])
    monkeypatch.setattr(Meter, "seconds", lambda self, run: next(seconds))
    # a, b, a, b, a
    best = Meter("cpu", 1).least({"a": (print, 3), "b": (print, 2)})
    assert best == {"a": 3.0, "b": 1.0}
