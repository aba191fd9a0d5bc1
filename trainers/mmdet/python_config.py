"""A detector's settings out of an mmdet config, which is Python: as data, or run where trusted."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from paploss.errors import BadConfig
from paploss.paths import is_there, stays_inside
from trainers.mmdet.config_data import NotData, model_of

INSTALLED = "mmdet::"
"""In front of the path of a config that mmdet itself brings."""


def read_mmdet_config(name: str, *, trust_code: bool = False) -> dict[str, Any]:
    """The `model` of an mmdet config.

    Args:
        name: of a file, or "mmdet::" and the path of a config that mmdet brings, such as
            "mmdet::atss/atss_r50_fpn_1x_coco.py".
        trust_code: run the file if it is more than data. Those that mmdet brings are trusted as
            mmdet is.

    Raises:
        BadConfig: there is none, it cannot be read, it has no `model`, or it is code that is not
            trusted.
    """
    path = _find(name)
    try:
        model = model_of(path, _find)
    except NotData as reason:
        if not (trust_code or name.startswith(INSTALLED)):
            raise BadConfig(
                f"{name} is Python that does more than name values ({reason}), so reading it means "
                "running it. If you trust whoever wrote it, say --trust-code; if not, write a YAML "
                "with `base: mmdet::...` and what you change."
            ) from reason
        model = _run(name, path)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadConfig(f"cannot read {name}: {error or type(error).__name__}.") from error
    if not isinstance(model, dict):
        raise BadConfig(f"{name} has no `model`; expected the config of an mmdet detector.")
    return model


def _find(name: str, beside: Path = Path()) -> Path:
    if not name.startswith(INSTALLED):
        return beside / name
    folder = installed_configs()
    wanted = name.removeprefix(INSTALLED)
    path = folder / wanted
    if not stays_inside(wanted) or not is_there(path):
        raise BadConfig(
            f"cannot read {name}: mmdet brings no such config. They are the files in {folder}."
        )
    return path


def installed_configs() -> Path:
    """The folder of the configs that mmdet brings; mmdet, which takes seconds, is not imported."""
    found = find_spec("mmdet")
    if found is None or found.origin is None:
        raise BadConfig("mmdet is not installed. `paploss doctor` says what is missing.")
    return Path(found.origin).parent / ".mim" / "configs"


def _run(name: str, path: Path) -> Any:
    from mmengine.config import Config

    try:
        config = Config.fromfile(str(path))
        return config.model.to_dict() if "model" in config else None
    except Exception as error:
        raise BadConfig(f"mmengine cannot read {name}: {error}") from error
