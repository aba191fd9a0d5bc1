"""Faults of machines and processes, on a cluster of three machines, with short trials."""

import signal

import psutil
import pytest

from benchmarks.soak import Soak
from tests.service.short import ShortSearch, join, training_of

pytestmark = pytest.mark.slow

STALL_SECONDS = 6


def test_a_soak(cluster, tmp_path):
    """Every kind of fault once, at random moments; see benchmarks/soak.py."""
    experiment = ShortSearch(None, tmp_path, algorithm={"rounds": 3, "samples": 4}).path
    soak = Soak(cluster, experiment, tmp_path / "log", seed=1)
    del soak.kinds["driver"]  # which a record that is cut includes
    try:
        soak.run(every=1, seconds=300, most=len(soak.kinds))
    finally:
        soak.close()
    assert set(soak.faults) <= set(soak.kinds)
    assert soak.faults.total() >= 3  # the search may be done before the last of them
    assert soak.check() == []
    assert soak.lost == 0 < soak.kept
    assert "Traceback" not in soak.log.read_text()


def test_a_head_that_is_gone_then_a_training_that_hangs(start, cluster, tmp_path):
    """A cluster of the driver's own loses its head; the search goes on on another.

    There one training is stopped, the baseline is slow, and one sample diverges: only what makes
    no progress is ended, and a diverged loss is an answer that is not asked for again.
    """
    search = ShortSearch(
        start,
        tmp_path,
        {"SHORT_TRIAL_BASELINE_SECONDS": str(STALL_SECONDS + 4)},
        seed=2,  # one sample of it diverges
        algorithm={"rounds": 1, "samples": 4},
        resources={"stall_minutes": STALL_SECONDS / 60},
    )
    assert [r["status"] for r in search.expected.values()].count("diverged") == 1
    driver = search.start(RAY_gcs_rpc_server_reconnect_timeout_s="12")
    driver.wait_for(lambda: search.records)
    for process in driver.look():
        if process.name() in ("gcs_server", "raylet"):
            process.kill()
    assert driver.code(60) == 3, driver.output
    assert "does not answer; waiting for it for 6 seconds" in driver.output
    *_, last = driver.output.split("error: ")
    kept = search.records
    assert "has not answered for" in last
    assert f"{len(kept)} of {len(search.expected)} trials are finished and kept; go on with" in last
    assert "Traceback" not in driver.output
    assert driver.left(30, rays=False) == []  # what is left of Ray ends by itself, later
    (search.path / "runs.txt").unlink()

    search.variables |= join(cluster)
    driver = search.start()
    stopped, training = driver.wait_for(lambda: training_of(cluster, "start", "search"))
    training.send_signal(signal.SIGSTOP)
    assert driver.code() == 0, driver.output
    assert not psutil.pid_exists(training.pid)
    assert search.what_counts() == search.expected
    assert {key: search.records[key] for key in kept} == kept
    assert f"{stopped} lost its process; Ray starts it again" in driver.output
    assert f"made no progress for {STALL_SECONDS} s" in driver.output
    assert "Traceback" not in driver.output
    runs = search.runs
    assert set(runs) == set(search.expected) - set(kept)
    assert runs.pop(stopped) == 2
    assert set(runs.values()) == {1}
