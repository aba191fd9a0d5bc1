"""Addresses in settings hold no secrets."""

import pytest

from paploss.addresses import check_addresses
from paploss.errors import BadConfig
from paploss.strict import StrictModel, parse


@pytest.mark.parametrize(
    "address",
    [
        "https://user:secret@host/x.pth",
        "s3://secret@bucket/a",
        "https://host/x.pth?token=secret",
        "https://host/x?a=1&X-Amz-Signature=secret",
        "https://host/x?sv=1&sig=secret",
        "https://host/x?api_key=secret#b",
    ],
)
def test_a_secret_is_refused_and_not_repeated(address: str) -> None:
    values = {"model": {"backbone": [{"init_cfg": {"checkpoint": address}}]}}
    with pytest.raises(
        BadConfig, match=r"^file: model\.backbone\.0\.init_cfg\.checkpoint is"
    ) as error:
        check_addresses(values, "file")
    assert "secret" not in str(error.value).replace("leave the secret", "")


@pytest.mark.parametrize(
    "address",
    [
        "https://host/x.pth",
        "https://host/x@2.pth?download=1",
        "torchvision://resnet50",
        "mmdet::a/b.py",
        "user@host",
        "https://host/x?design=1",
    ],
)
def test_other_texts_pass(address: str) -> None:
    check_addresses({"a": [address]}, "file")


def test_all_settings_are_looked_through() -> None:
    class Settings(StrictModel):
        place: str

    with pytest.raises(BadConfig, match=r"^here: place is an address with a password"):
        parse(Settings, {"place": "http://a:b@c"}, "here")
