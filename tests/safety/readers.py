"""Everything that reads what others wrote: for test_fuzz and benchmarks/fuzz.py."""

from tests.safety import annotation_readers, experiment_readers, settings_readers
from tests.safety.reader import Reader

READERS: tuple[Reader, ...] = (
    *settings_readers.READERS,
    *annotation_readers.READERS,
    *experiment_readers.READERS,
)
