"""What a job is made of."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.job_submission import JobStatus

from cluster.submit import Submission, check_not_running, parse_environment
from cluster.upload import Upload
from paploss.errors import BadConfig, BadExperiment


def submission(**changes: object) -> Submission:
    upload = Upload(Path("/home/me/project"), {Path("a.yaml"): 1}, (".git",))
    given = {
        "config": "a b.yaml", "name": "one", "storage": Path("/shared/experiments"),
        "overrides": ("algorithm.rounds=4", "name=one"), "upload": upload, **changes,
    }  # fmt: skip
    return Submission(**given)


def test_the_driver_resumes_and_gets_each_override_as_it_was_typed() -> None:
    assert shlex.split(submission().entrypoint) == [
        "python", "-m", "search.cli", "search", "a b.yaml", "--or-resume",
        "--set=algorithm.rounds=4", "--set=name=one",
    ]  # fmt: skip


def test_code_is_trusted_only_if_the_user_says_so() -> None:
    assert "--trust-code" not in submission().entrypoint
    assert "--trust-code" in shlex.split(submission(trust_code=True).entrypoint)


def test_nothing_in_an_override_reaches_the_shell() -> None:
    words = shlex.split(submission(overrides=("name=$(id); rm -rf /",)).entrypoint)
    assert words[-1] == "--set=name=$(id); rm -rf /"
    assert "'--set=name=$(id); rm -rf /'" in submission(overrides=(words[-1][6:],)).entrypoint


def test_the_environment_has_what_was_asked_for_and_time_to_stop_cleanly() -> None:
    env = submission(environment={"A": "1"}, install=("paploss==0.1",)).runtime_env
    assert env["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "60", "A": "1"}
    assert env["working_dir"] == "/home/me/project"
    assert env["excludes"] == [".git"]
    assert env["pip"] == ["paploss==0.1"]
    assert "pip" not in submission().runtime_env


def test_the_metadata_says_where_the_results_will_be() -> None:
    assert submission().metadata["experiment"] == "/shared/experiments/one"


def test_environment_variables() -> None:
    assert parse_environment(["A=1", "B=x=y", "C="]) == ({"A": "1", "B": "x=y", "C": ""}, [])


@pytest.mark.parametrize("item", ["A", "=1", "RAY_AUTH_TOKEN=secret", "RAY_AUTH_MODE=disabled"])
def test_wrong_variables_are_refused_without_their_values(item: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse_environment([item])
    assert "secret" not in str(caught.value)


def test_a_secret_among_the_variables_is_warned_of_without_its_value() -> None:
    _, warnings = parse_environment(["WANDB_API_KEY=abc123", "OMP_NUM_THREADS=1"])
    assert len(warnings) == 1
    assert "WANDB_API_KEY" in warnings[0]
    assert "abc123" not in warnings[0]


@pytest.mark.parametrize(
    ("status", "refused"),
    [("PENDING", True), ("RUNNING", True), ("STOPPED", False), ("FAILED", False)],
)
def test_an_experiment_has_one_job_at_a_time(status: str, refused: bool) -> None:
    job = SimpleNamespace(
        status=JobStatus(status), submission_id="paploss-one-1", metadata={"experiment": "/s/one"}
    )
    server = SimpleNamespace(jobs=lambda: [SimpleNamespace(**{**vars(job), "metadata": None}), job])
    check_not_running(server, Path("/s/two"))
    if refused:
        with pytest.raises(BadExperiment, match="paploss-one-1"):
            check_not_running(server, Path("/s/one"))
    else:
        check_not_running(server, Path("/s/one"))
