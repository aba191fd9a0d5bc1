"""Where the shipped configurations are: beside the packages, or inside the installed one."""

from pathlib import Path

from paploss.errors import BadConfig
from paploss.strict import nearest


def config_folder() -> Path:
    """The folder that holds search/, detectors/, datasets/."""
    here = Path(__file__).parent
    checkout = here.parent / "configs"
    return checkout if checkout.is_dir() else here / "_configs"


def find(kind: str, name: str, beside: Path | None = None) -> Path:
    """A configuration by path or by name.

    Args:
        kind: "search", "detectors" or "datasets".
        name: a path, absolute or relative to the current folder or to `beside`, or the name of
            a shipped one.
        beside: the folder of the file that says `name`.

    Raises:
        BadConfig: none is found; the message has the nearest name.
    """
    places = [Path(name), *([beside / name] if beside else []), config_folder() / kind / name]
    for place in places:
        for path in (place, place.with_name(place.name + ".yaml")):
            if path.is_file():
                return path.absolute()
    shipped = sorted(path.stem for path in (config_folder() / kind).glob("*.yaml"))
    raise BadConfig(f"no file {name!r}, and no {kind} of that name; {nearest(name, shipped)}")
