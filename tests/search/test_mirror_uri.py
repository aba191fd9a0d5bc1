"""Addresses of mirrors: which are taken, and that no secret is."""

import pytest

from paploss.errors import BadConfig
from search.config import SearchConfig
from search.mirror_uri import check_mirror_uri, last_name, under


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("s3://bucket/searches/", "s3://bucket/searches"),
        ("s3://bucket", "s3://bucket"),
        ("gs://bucket/a/b", "gs://bucket/a/b"),
        ("file:///backup/my searches", "file:///backup/my searches"),
        (
            "s3://b/c?endpoint_override=storage:9000&scheme=http&region=eu-west-1",
            "s3://b/c?endpoint_override=storage:9000&scheme=http&region=eu-west-1",
        ),
    ],
)
def test_addresses(given: str, kept: str) -> None:
    assert check_mirror_uri(given) == kept


@pytest.mark.parametrize(
    "secret",
    ["s3://me:hunter2@bucket/x", "s3://hunter2@bucket/x", "gs://hunter2@bucket",
     "s3://bucket/x?access_key=hunter2", "s3://bucket/x?region=r&secret_key=hunter2",
     "gs://bucket/x?access_token=hunter2&", "file:///x?password=hunter2"],
)  # fmt: skip
def test_secrets_are_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(BadConfig, match=r"environment|nowhere") as raised:
        check_mirror_uri(secret)
    assert "hunter2" not in str(raised.value)
    with pytest.raises(BadConfig) as raised:
        SearchConfig(name="x", mirror=secret)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "wrong",
    ["", "backup", "/backup", "https://bucket/x", "s3:///x", "file://backup/x", "s3://b/../c",
     "file:///a/../../b", "s3://[b/x", "s3://b/x#part"],
)  # fmt: skip
def test_what_is_no_address(wrong: str) -> None:
    with pytest.raises(BadConfig, match="expected s3://bucket/folder"):
        check_mirror_uri(wrong)


def test_names_in_addresses() -> None:
    assert under("s3://b", "one") == "s3://b/one"
    assert under("s3://b/c?region=r", "one") == "s3://b/c/one?region=r"
    assert last_name("s3://b/c/one?region=r") == "one"
    assert last_name("s3://b") == ""
