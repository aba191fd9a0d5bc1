"""How many threads the process of a search computes on."""

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from search.run import experiment as module
from search.run.threads import one_blas_thread, one_torch_thread
from tests.search.run.by_hand import TASK, config_in


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(limits=2, user_api="blas"):
        yield
    torch.set_num_threads(before)


def test_blas_computes_on_one_thread_for_a_while():
    before = blas_threads()
    assert 2 in before
    with one_blas_thread():
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_torch_computes_on_one_thread_for_a_while():
    with one_torch_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_a_plan_is_made_on_one_thread(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(module, "Plan", lambda *_, **__: seen.append(blas_threads()))
    module.plan_of(tmp_path, config_in(tmp_path), TASK)
    assert seen == [{1}]
