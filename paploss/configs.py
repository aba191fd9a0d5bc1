"""Where the shipped configurations are: beside the packages, or inside the installed one."""

from pathlib import Path

from paploss.errors import BadConfig
from paploss.paths import is_there
from paploss.strict import nearest


def config_folder() -> Path:
    """The folder that holds search/, detectors/, datasets/, presets/."""
    here = Path(__file__).parent
    checkout = here.parent / "configs"
    return checkout if checkout.is_dir() else here / "_configs"


def find(kind: str, name: str, beside: Path | None = None) -> Path:
    """A configuration by path or by name.

    Args:
        kind: "search", "training", "detectors", "datasets" or "presets".
        name: a path, absolute or relative to the current folder or to `beside`, or the name of
            a shipped one.
        beside: the folder of the file that says `name`.

    Raises:
        BadConfig: none is found; the message has the nearest name.
    """
    shipped = {path.stem: path for path in (config_folder() / kind).glob("*.yaml")}
    if name in shipped:
        return shipped[name]
    for place in (Path(name), *([beside / name] if beside else [])):
        if is_there(place):
            return place.absolute()
    shown = name if len(name) <= 200 else f"{name[:200]}..."
    raise BadConfig(
        f"no file {shown!r}, and no shipped one of that name in {kind}; "
        f"{nearest(name, sorted(shipped))}"
    )
