"""What the ranking losses cost beside focal loss and beside their forms over all pairs.

    PYTHONPATH=. python benchmarks/loss_cost.py [--threads 2] [--no-scaling] [--quick]

Timed is forward plus backward, to logits and boxes. What a row compares is measured in one run,
taking turns, and the least of each counts. Prints Markdown.

Shape letters: A anchors, C classes, N = A C scores, P positives.
"""

import argparse
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from benchmarks.loss_runs import (
    CRITERIA,
    STAGES,
    all_pairs_run,
    criterion_run,
    focal_names,
    focal_runs,
    random_batch,
)
from benchmarks.measure import Meter, Run, head, milliseconds, ratio, row
from loss import DetectionBatch

OURS = "Parameterized AP"
CAP = 100_000
"""Scores that the released dense code ranks."""
PAIRS = {"dense": 10**8, "loop": 4 * 10**8}
"""More pairs would take more than 8 GB, or more than 20 s on one core."""
FEW = 2
"""Turns of what goes over all pairs: it takes seconds, of which a few hundredths do not count."""

Times = Mapping[tuple[int, int], Mapping[str, float]]
"""Seconds by (N, P), then by what was run."""


@dataclass(frozen=True)
class Sizes:
    retinanet: tuple[int, int, int] = (125_000, 80, 1_000)  # A, C, P
    scores: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    positives: tuple[int, ...] = (10, 100, 1_000, 3_000)


QUICK = Sizes((500, 80, 50), (1_000, 4_000), (10, 100))


def retinanet_tables(sizes: Sizes, meter: Meter, repeats: int, rivals: list[str]) -> Iterator[str]:
    """Every loss on one mini-batch, at each stage of a training."""
    anchors, classes, positives = sizes.retinanet
    for stage in STAGES:
        yield f"## {anchors:,} anchors x {classes} classes, {positives:,} positives: {stage}\n"
        batch = random_batch(sizes.retinanet, stage, meter.device)
        runs = {name: criterion_run(batch, name) for name in CRITERIA}
        runs |= focal_runs(batch, rivals)
        best = meter.least({name: (run, repeats) for name, run in runs.items()})
        yield head(["", "ms", *(f"/ {name}" for name in rivals), "extra memory / logits"])
        for name, run in runs.items():
            beside = [ratio(best[name], best[rival]) for rival in rivals]
            memory = meter.extra_bytes(run) / batch.logits.nbytes
            yield row([name, milliseconds(best[name]), *beside, f"{memory:.2f}"])
        yield ""


def pairwise_runs(batch: DetectionBatch) -> dict[str, Run]:
    """The two forms over all pairs, as far as they are within `PAIRS`."""
    n, p = batch.logits.numel(), len(batch.pos)
    runs = {"dense": all_pairs_run(batch, block=p, cap=CAP), "loop": all_pairs_run(batch, block=1)}
    pairs = {"dense": min(n, CAP) * p, "loop": n * p}
    return {name: run for name, run in runs.items() if pairs[name] <= PAIRS[name]}


def scaling_table(sizes: Sizes, meter: Meter, repeats: int, rivals: list[str]) -> Iterator[str]:
    """Parameterized AP Loss over N and P, beside what it is compared with."""
    names = [OURS, *rivals, *PAIRS]
    ratios = [(OURS, rival) for rival in rivals] + [(name, OURS) for name in PAIRS]
    yield f"## {OURS} at the start of training: ms\n"
    yield head(["N", "P", *names, *(f"{a} / {b}" for a, b in ratios)])
    times = {}
    for n, p in itertools.product(sizes.scores, sizes.positives):
        batch = random_batch((n, 1, p), "start of training", meter.device)
        runs = {OURS: criterion_run(batch, OURS), **focal_runs(batch, rivals)}
        turns = {name: (run, repeats) for name, run in runs.items()}
        turns |= {name: (run, FEW) for name, run in pairwise_runs(batch).items()}
        times[n, p] = best = meter.least(turns)
        cells = {name: milliseconds(best.get(name)) for name in names}
        if n > CAP and "dense" in best:
            cells["dense"] += "*"
        beside = [ratio(best.get(a), best.get(b)) for a, b in ratios]
        yield row([f"{n:,}", f"{p:,}", *cells.values(), *beside])
    yield f"\n\\* The {CAP:,} highest scores alone. - Not run: more than 8 GB or 20 s.\n"
    yield "The times grow as\n"
    yield from exponents(times)
    yield ""


def exponents(times: Times) -> Iterator[str]:
    """The least squares fit of N^a P^b to the times, of ours once more where N is large."""
    large = sorted({n for n, _ in times})[-2]
    for name, least, most in (
        (OURS, 0, math.inf),
        (OURS, large, math.inf),
        ("dense", 0, CAP),
        ("loop", 0, math.inf),
    ):
        cells = [(n, p) for n, p in times if name in times[n, p] and least <= n <= most]
        logs = torch.tensor([[math.log(n), math.log(p), 1] for n, p in cells]).double()
        seconds = torch.tensor([times[cell][name] for cell in cells]).double()
        a, b, _ = torch.linalg.lstsq(logs, seconds.log()[:, None]).solution.flatten().tolist()
        where = f" from N = {least:,}" if least else ""
        yield f"- {name}{where}: N^{a:.2f} P^{b:.2f}"


def memory_table(sizes: Sizes, meter: Meter) -> Iterator[str]:
    """Extra memory, at the most scores that the dense form ranks without its cap."""
    n = max(n for n in sizes.scores if n <= CAP)
    yield f"## Extra memory at N = {n:,}: MB\n"
    yield head(["P", OURS, *PAIRS])
    for p in sizes.positives:
        batch = random_batch((n, 1, p), "start of training", meter.device)
        runs = {OURS: criterion_run(batch, OURS), **pairwise_runs(batch)}
        used = {name: f"{meter.extra_bytes(run) / 1e6:,.1f}" for name, run in runs.items()}
        yield row([f"{p:,}", *(used.get(name, "-") for name in (OURS, *PAIRS))])


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of the ranking losses.")
    here = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=here)
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU")
    turns = "turns of which the least counts; the first one compiles"
    parser.add_argument("--repeats", type=int, default=10, help=turns)
    parser.add_argument("--no-scaling", action="store_true", help="the mini-batch's tables alone")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing compiled")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    meter = Meter(arguments.device, arguments.threads)
    sizes = QUICK if arguments.quick else Sizes()
    rivals = focal_names(arguments.device, compile=not arguments.quick)
    print(f"{meter.header()} Least of {arguments.repeats}.\n")
    lines = retinanet_tables(sizes, meter, arguments.repeats, rivals)
    if not arguments.no_scaling:
        scaling = scaling_table(sizes, meter, arguments.repeats, rivals)
        lines = itertools.chain(lines, scaling, memory_table(sizes, meter))
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
