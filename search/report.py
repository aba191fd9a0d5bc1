"""The report of an experiment: the dashboard's page as one file that needs nothing else."""

from pathlib import Path

from paploss.files import write_atomic
from search.dashboard.data import history_data, status_data
from search.dashboard.page import static_page
from search.history import History, load_history


def write_report(experiment: Path) -> Path:
    """Write report.html into the experiment, whatever has finished so far; returns its path.

    Raises:
        BadExperiment: the directory holds no experiment.
    """
    history = load_history(experiment)
    path = history.path / "report.html"
    write_atomic(path, render_html(history))
    return path


def render_html(history: History) -> str:
    """The page of `write_report`; it names no path of this machine."""
    data = history_data(history)
    shown = {"name": data["name"], "history": data, "status": status_data(history.path)}
    return static_page(f"{data['name']}: paploss report", shown, data["verdict"])
