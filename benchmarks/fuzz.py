"""How many odd inputs the readers of settings, experiments and annotations take without a fault.

    python -m benchmarks.fuzz --minutes 8 > benchmarks/results/fuzz.md

Each reader in tests/safety/readers.py is fed with real files that were spoilt and with files of odd
values, new ones each time. It may read them, or refuse them with a UserError; any other exception
is a defect, and is shown with the smallest input that hypothesis finds.
"""

import argparse
import datetime
import sys
import time
import traceback
from collections import Counter

from benchmarks.measure import cpu_model, head, row
from tests.safety.fuzzing import fuzz
from tests.safety.readers import READERS

_BATCH = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--reader", action="append", help="this one alone; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of the first batch")
    options = parser.parse_args()
    readers = [r for r in READERS if not options.reader or r.name in options.reader]
    seen: dict[str, Counter[str]] = {reader.name: Counter() for reader in readers}
    seconds: Counter[str] = Counter()
    defects: dict[str, str] = {}
    end = time.monotonic() + 60 * options.minutes
    batch = options.seed
    while time.monotonic() < end and len(defects) < len(readers):
        for reader in readers:
            if reader.name in defects or time.monotonic() >= end:
                continue
            begun = time.monotonic()
            try:
                seen[reader.name] += fuzz(reader, max(10, int(_BATCH * reader.share)), batch)
            except Exception as error:
                defects[reader.name] = _told(error)
            seconds[reader.name] += time.monotonic() - begun
        batch += 1
    _print(seen, seconds, defects)
    return 1 if defects else 0


def _told(error: Exception) -> str:
    """Where it came from, and the beginning of the input: one may be long."""
    notes = "\n".join(getattr(error, "__notes__", ()))
    lines = traceback.format_exception(type(error), error, error.__traceback__, chain=False)
    return "".join(lines).replace(notes, "")[-2000:] + notes[:1000] + "\n"


def _print(seen: dict[str, Counter[str]], seconds: Counter[str], defects: dict[str, str]) -> None:
    command = f"python -m benchmarks.fuzz {' '.join(sys.argv[1:])}"
    print(f"# Odd inputs\n\n`{command}`, {datetime.date.today()}, {cpu_model()}\n")
    print(f"{head(('reader', 'inputs', 'read', 'refused', 'inputs a second'))}")
    for name, counts in seen.items():
        rate = counts.total() / max(seconds[name], 1e-9)
        numbers = (counts.total(), counts["read"], counts["refused"], round(rate))
        print(row((name, *(f"{number:,}" for number in numbers))))
    total = sum(counts.total() for counts in seen.values())
    print(f"\n{total:,} inputs, readers with a defect: {len(defects)}.")
    for name, found in defects.items():
        print(f"\n## {name}\n\n```\n{found}```")


if __name__ == "__main__":
    sys.exit(main())
