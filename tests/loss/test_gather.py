"""Mini-batches of several workers ranked as one, over real processes that gloo has joined."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loss import CRITERIA, Criterion, FocalGIoU, GatheredCriterion, criterion_type
from loss.gather import gather
from tests.gloo_workers import GlooWorkers
from tests.loss.gathering import Plain, batch_of, gathered, plain_of, trained

C = 3
WORKERS = 3
OPTIONAL = (
    *("anchor_sizes", "avg_factor", "images", "deltas", "target_deltas"),
    *("quality", "box_avg_factor", "levels"),
)


@pytest.fixture(scope="module")
def workers() -> Iterator[GlooWorkers]:
    found = GlooWorkers(WORKERS)
    yield found
    found.close()


def share(
    seed: int,
    anchors: int = 10,
    positives: int = 3,
    images: int = 2,
    columns: int = C,
    fields: Sequence[str] = OPTIONAL,
) -> Plain:
    """A worker's batch of `images` images that all have anchors; the last anchor is ignored."""
    random = np.random.default_rng(seed)
    positives = min(positives, max(anchors - 1, 0))
    pos = np.sort(random.choice(max(anchors - 1, 0), positives, replace=False)).astype(np.int64)
    labels = np.full(anchors, C)
    labels[pos] = random.integers(C, size=positives)
    weights = np.ones(anchors)
    weights[anchors - 1 :] = 0
    low = random.uniform(0, 50, (positives, 2))
    target = np.hstack([low, low + random.uniform(10, 30, (positives, 2))])
    deltas = random.normal(size=(positives, 4))
    quality = random.uniform(0.1, 1, positives)
    values = {
        "logits": random.normal(size=(anchors, columns)),
        "labels": labels,
        "weights": weights,
        "pos": pos,
        "pred_boxes": target + random.normal(0, 3, (positives, 4)),
        "target_boxes": target,
        "anchor_sizes": random.uniform(20, 40, (positives, 2)),
        "avg_factor": float(positives + 1),
        "images": np.arange(anchors) * images // max(anchors, 1),
        "deltas": deltas,
        "target_deltas": deltas + random.normal(size=(positives, 4)),
        "quality": quality,
        "box_avg_factor": torch.tensor(quality.sum() + 1),
        "levels": random.integers(2, size=anchors),
    }
    return {k: v for k, v in values.items() if k not in OPTIONAL or k in fields}


def together(shares: Sequence[Plain]) -> Plain:
    """The batch that one process would have had."""
    whole: Plain = {}
    anchors = np.cumsum([0, *(len(each["logits"]) for each in shares)])
    images = np.cumsum([0, *(each["images"].max(initial=-1) + 1 for each in shares)]
                       if "images" in shares[0] else [0] * (len(shares) + 1))  # fmt: skip
    for name in shares[0]:
        parts = [each[name] for each in shares]
        if name.endswith("avg_factor"):
            whole[name] = sum(float(part) for part in parts)
            continue
        offset = {"pos": anchors, "images": images}.get(name, np.zeros(len(shares) + 1, int))
        moved = [part + by for part, by in zip(parts, offset, strict=False)] if (
            name in ("pos", "images")
        ) else parts  # fmt: skip
        whole[name] = np.concatenate(moved)
    return whole


def assert_same(found: Plain, expected: Plain) -> None:
    assert {name for name, value in found.items() if value is not None} == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert np.asarray(found[name]).dtype == np.asarray(value).dtype, name


sizes = st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(1, 3))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(sizes, min_size=WORKERS, max_size=WORKERS),
    st.sets(st.sampled_from(OPTIONAL)),
    st.integers(0, 2**32 - 1),
)
def test_every_worker_has_the_batch_of_all(
    workers: GlooWorkers, sizes: list[tuple[int, int, int]], fields: set[str], seed: int
) -> None:
    shares = [share(seed + rank, *size, fields=sorted(fields)) for rank, size in enumerate(sizes)]
    for found in workers.call(gathered, [(each,) for each in shares]):
        assert_same(found, together(shares))


UNEVEN = [(10, 3, 2), (7, 0, 1), (13, 5, 3)]
"""Of each worker: anchors, positives (one has none), images."""


def shares_for(settings: Plain, fields: Sequence[str] = OPTIONAL) -> list[Plain]:
    columns = C + (criterion_type(settings["type"]).activation == "softmax")
    return [share(rank, *size, columns=columns, fields=fields) for rank, size in enumerate(UNEVEN)]


def by_worker(workers: GlooWorkers, settings: Plain, shares: Sequence[Plain], how: str) -> Any:
    return workers.call(trained, [(settings, each, how) for each in shares])


TRAINED: list[Plain] = [
    *({"type": name} for name in sorted(CRITERIA)),
    {"type": "standard", "classification": "quality_focal", "boxes": {"l1": 1.0, "iou": 2.0}},
    {"type": "standard", "classification": "ghm", "boxes": {"ghm": 1.0}},
    {"type": "parameterized_ap", "ranking_group": 4, "localization": "l1", "gradient_scale": 3.0},
    {"type": "parameterized_ap", "num_topk": 11, "detach_denominator": False},
]


@pytest.mark.parametrize("fields", [OPTIONAL, ["images", "deltas", "target_deltas"]], ids=len)
@pytest.mark.parametrize("settings", TRAINED, ids=lambda s: "-".join(map(str, s.values())))
def test_the_gradients_are_those_of_one_process(
    workers: GlooWorkers, settings: Plain, fields: Sequence[str]
) -> None:
    if settings.get("localization") == "l1" and "anchor_sizes" not in fields:
        fields = [*fields, "anchor_sizes"]
    shares = shares_for(settings, fields)
    alone = trained(settings, together(shares))
    for found in by_worker(workers, settings, shares, "gathered"):
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-11, err_msg=name)


def test_without_it_each_share_is_ranked_by_itself(workers: GlooWorkers) -> None:
    """What the papers' code does: the mean of the workers' own losses, which is something else."""
    settings = {"type": "parameterized_ap"}
    shares = shares_for(settings)
    own = [trained(settings, each) for each in shares]
    found = by_worker(workers, settings, shares, "plain")
    whole = trained(settings, together(shares))
    for name in ("for_logits", "for_boxes"):
        mean = np.mean([each[name] for each in own], axis=0)
        np.testing.assert_allclose(found[0][name], mean, rtol=1e-12)
        assert np.abs(mean - whole[name]).max() > 1e-3
    assert [each["loss_pap"] for each in found] == [each["loss_pap"] for each in own]


def test_it_can_be_told_to_be_alone(workers: GlooWorkers) -> None:
    settings = {"type": "parameterized_ap"}
    shares = shares_for(settings)
    alone, plain = (by_worker(workers, settings, shares, how) for how in ("alone", "plain"))
    for one, other in zip(alone, plain, strict=True):
        assert_same(one, other)


def test_alone_lasts_for_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    monkeypatch.setattr("loss.gather.gather", lambda batch: asked.append(None) or batch)
    criterion, batch = GatheredCriterion(FocalGIoU()), batch_of(share(0))
    with criterion.alone():
        with criterion.alone():
            criterion(batch)
        criterion(batch)
        assert not asked
    criterion(batch)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": C + 1}, "worker 1 has logits of 4 columns, but worker 0 of 3"),
        (
            {"fields": [name for name in OPTIONAL if name not in ("quality", "images")]},
            "workers 0 and 1 do not agree on whether their batches have images, quality",
        ),
    ],
)
def test_batches_that_do_not_fit_together(
    workers: GlooWorkers, changes: dict[str, Any], message: str
) -> None:
    """All workers say it, none waits for another."""
    shares = [share(rank, **(changes if rank == 1 else {})) for rank in range(WORKERS)]
    for found in workers.call(gathered, [(each,) for each in shares]):
        assert found.startswith(f"ValueError: {message}")


def test_without_a_process_group_it_is_the_criterion_itself() -> None:
    batch = batch_of(share(0))
    assert gather(batch) is batch
    criterion = GatheredCriterion(FocalGIoU())
    assert plain_of(batch)["logits"] is not None
    expected = FocalGIoU()(batch)
    for name, loss in criterion(batch).items():
        assert torch.equal(loss, expected[name])


class Epochs(FocalGIoU):
    """Counts its epochs."""

    activation = "softmax"
    ended = 0

    def end_epoch(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("ask", [lambda c: c.activation, lambda c: isinstance(c, Criterion)])
def test_it_is_a_criterion_like_the_one_inside(ask: Callable[[Any], Any]) -> None:
    inside = Epochs()
    assert ask(GatheredCriterion(inside)) == ask(inside)
    GatheredCriterion(inside).end_epoch()
    assert inside.ended == 1
