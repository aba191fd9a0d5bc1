"""What is said of a machine that cannot run trials; real ones: tests/service/test_on_demand."""

import pytest

from search.run import nodes


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("No module named 'search'"), "cannot run paploss (ModuleNotFoundErr"),
        (RuntimeError("the node\nhas died"), "cannot run a task: RuntimeError: the node has died"),
    ],
)
def test_a_machine_that_cannot_even_look(monkeypatch, error, said):
    def get(answer):
        raise error

    monkeypatch.setattr(nodes.ray, "get", get)
    [problem] = nodes._answer("ref")
    assert problem.startswith(said) and "\n" not in problem


def test_code_that_is_missing_is_said_with_what_to_do(monkeypatch):
    def get(answer):
        raise ModuleNotFoundError("No module named 'search'")

    monkeypatch.setattr(nodes.ray, "get", get)
    [problem] = nodes._answer("ref")
    assert "install it there" in problem and "paploss submit" in problem


def test_the_compiled_ops_are_tried_where_another_installation_is(monkeypatch, tmp_path):
    tried = []

    class Bad:
        ok, detail, remedy = False, "mmcv is installed without compiled ops", "make setup"

    def compiled_ops():
        tried.append(1)
        return Bad

    monkeypatch.setattr(nodes, "compiled_ops", compiled_ops)
    token = nodes.expect(tmp_path, [])
    assert nodes._look(str(tmp_path), token, nodes._machine()) == []
    assert tried == []  # the driver's own, which has run them
    other = nodes._look(str(tmp_path), token, ("another host", "", "/usr"))
    assert other == ["mmcv is installed without compiled ops; there: make setup"]
    assert nodes._look(str(tmp_path), "wrong", ("another host", "", "/usr"))[0].startswith("sees")
    assert tried == [1]
