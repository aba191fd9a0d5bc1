"""What all files for clusters have in common: versions, tokens, addresses, and what docs say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
DOCS = ROOT / "docs" / "cluster"
TOKEN = {
    "docker/Dockerfile": "RAY_AUTH_MODE=token",
    "kuberay/raycluster.yaml": "authOptions:\n    mode: token",
    "kuberay/rayjob.yaml": "authOptions:\n      mode: token",
    "ray_up/aws.yaml": "RAY_AUTH_MODE=token ray start",
    "ray_up/gcp.yaml": "RAY_AUTH_MODE=token ray start",
    "ray_up/on_premise.yaml": "RAY_AUTH_MODE=token ray start",
    "slurm/paploss.sbatch": "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=",
}
"""How each file that starts Ray turns its authentication on."""


def files() -> dict[str, str]:
    """Every file for clusters that is no Python, by its path under cluster/."""
    found = (p for p in CLUSTER.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc"))
    return {str(path.relative_to(CLUSTER)): path.read_text() for path in found}


FILES = files()
PAGES = {path.name: path.read_text() for path in DOCS.glob("*.md")}
RAY = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]


def test_every_file_that_starts_ray_asks_for_a_token() -> None:
    starts = {
        name
        for name, text in FILES.items()
        if re.search(r"\bray start\b|symmetric-run|kind: Ray|registry.example.com/\S+ \.", text)
    }
    assert starts == TOKEN.keys()
    for name, line in TOKEN.items():
        assert line in FILES[name], name
    assert not [n for n, text in FILES.items() if re.search(r"mode: disabled|MODE=disabled", text)]


def test_nothing_is_opened_to_everybody() -> None:
    for name, text in (FILES | PAGES).items():
        assert not re.search(r"0\.0\.0\.0|--dashboard-host=(?!127\.0\.0\.1)|\[?::\]?/0", text), name
        assert not re.search(r"LoadBalancer|NodePort|enableIngress", text), name


def test_no_secret_is_in_a_file() -> None:
    for name, text in (FILES | PAGES).items():
        assert not re.search(
            r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|auth_token: \S{20}", text
        ), name
        # Tokens and keys come from files and from the environment.
        assert not re.search(r"RAY_AUTH_TOKEN=(?!\"?\$)\S", text), name


def test_all_name_the_ray_that_is_pinned() -> None:
    versions = {
        found
        for text in (FILES | PAGES).values()
        for found in re.findall(r"(?:ray|rayVersion: |Ray )(\d+\.\d+\.\d+)", text)
    }
    assert versions == {RAY}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_names_files_that_are_there(name: str) -> None:
    text = PAGES[name]
    named = re.findall(r"(?<![\w/~.-])((?:cluster|configs|scripts|docs)/[\w./-]+\w)", text)
    absent = [path for path in named if not (ROOT / path).exists()]
    assert absent == []
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (DOCS / link).exists(), link


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_names_commands_and_options_that_exist(name: str) -> None:
    """Each `paploss ...` of a page, as far as the shell's own words go."""
    for line in commands(PAGES[name]):
        command, *words = line
        assert command in known_commands(), line
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= help_options(command), line


def commands(page: str) -> list[list[str]]:
    """The paploss commands in the blocks of a page, as words after `paploss`."""
    blocks = re.findall(r"^```(?:bash|sh)?\n(.*?)^```", page, re.M | re.S)
    text = "\n".join(blocks).replace("\\\n", " ")
    # Not the namespace of `kubectl -n paploss get`.
    found = re.findall(r"(?<!-n )\bpaploss ([a-z][^\n\"'|;&#]*)", text)
    return [words.split() for words in found]


def click_commands() -> dict[str, object]:
    import typer

    from search.cli import app

    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def known_commands() -> set[str]:
    return set(click_commands())


def help_options(command: str) -> set[str]:
    found = click_commands()[command]
    inner = getattr(found, "commands", {}).values()
    params = [p for c in (found, *inner) for p in c.params]  # type: ignore[attr-defined]
    return {name for p in params for name in (*p.opts, *p.secondary_opts)} | {"--help"}


def test_every_way_has_its_page_and_the_first_page_links_to_all() -> None:
    for page in ("box", "slurm", "cloud", "kubernetes", "storage"):
        assert f"({page}.md)" in PAGES["README.md"]
    for name, page in (("slurm/", "slurm"), ("ray_up/", "cloud"), ("kuberay/", "kubernetes")):
        assert f"cluster/{name}" in PAGES[f"{page}.md"]


# --- Docker -----------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions; a line that goes on is one with the next."""
    text = FILES["docker/Dockerfile"]
    lines = [x for x in text.splitlines() if not x.lstrip().startswith("#")]  # as Docker reads it
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(word, " ".join(rest.split())) for word, _, rest in found]


def test_the_dockerfile_is_one() -> None:
    known = {"ARG", "CMD", "COPY", "ENV", "FROM", "RUN", "USER", "WORKDIR"}
    assert {word for word, _ in instructions()} <= known
    bases = [rest for word, rest in instructions() if word == "FROM"]
    assert all(":${CUDA}-" in base and "latest" not in base for base in bases)


def test_the_image_runs_as_a_user() -> None:
    words = [word for word, _ in instructions()]
    last = len(words) - 1 - words[::-1].index("USER")
    assert instructions()[last] == ("USER", "ray")
    assert "COPY" not in words[last:]
    # The pods and the machines of `ray up` use this number.
    assert any("useradd" in rest and "--uid 1000" in rest for _, rest in instructions())
    assert "runAsUser: 1000" in FILES["kuberay/raycluster.yaml"]


def test_the_image_is_made_by_the_set_up_of_every_machine() -> None:
    (setup,) = [
        rest for word, rest in instructions() if "scripts/setup.py" in rest and word == "RUN"
    ]
    assert "FORCE_CUDA=1" in setup and "TORCH_CUDA_ARCH_LIST=" in setup
    assert not [rest for _, rest in instructions() if "pip install" in rest]


def test_a_login_shell_finds_ray_too() -> None:
    (path,) = [rest.split("=")[1].split(":")[0] for word, rest in instructions() if word == "ENV"]
    assert any(f"PATH={path}:$PATH' > /etc/profile.d/" in rest for _, rest in instructions())


def test_what_the_image_copies_is_there_and_not_left_out() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = [line for line in lines if not line.startswith("#")]
    assert ignored[0] == "*"
    kept = {line[1:] for line in ignored if line.startswith("!")}
    for word, rest in instructions():
        if word == "COPY" and "--from" not in rest:
            sources = [s for s in rest.split()[:-1] if not s.startswith("--") and s != "."]
            assert all((ROOT / source).exists() for source in sources)
            assert set(sources) <= kept
    # Everything that the wheel is made of, and no data, results or settings of one's own.
    assert kept >= {"cluster", "configs", "loss", "paploss", "search", "trainers"}
    assert not kept & {"data", "experiments", "tests", ".git", ".venv", "."}


# --- Slurm ------------------------------------------------------------------------------------


def test_shellcheck_has_nothing_to_say() -> None:
    script = CLUSTER / "slurm" / "paploss.sbatch"
    checker = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([checker, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_ports_of_two_jobs_differ_and_are_out_of_rays_own_range() -> None:
    line = re.search(r"^port=\$\(\((.*?)\)\)", FILES["slurm/paploss.sbatch"], re.M)[1]
    jobs = range(5000, 11000)
    ports = [
        eval(line, {"SLURM_JOB_ID": job}) for job in jobs
    ]  # the shell's arithmetic is Python's
    taken = [port + offset for port in ports for offset in (0, 1)]
    assert len(set(taken)) == len(taken)
    assert min(taken) >= 20000  # Ray's workers take 10002 to 19999 by default
    assert max(taken) < 32768  # where Linux begins to give ports to connections


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [((), {"SLURM_JOB_ID": "1"}, "usage: sbatch"), (("x.yaml",), {}, "start it with sbatch")],
)
def test_a_wrong_start_is_said(
    arguments: tuple[str, ...], env: dict[str, str], message: str
) -> None:
    script = CLUSTER / "slurm" / "paploss.sbatch"
    done = subprocess.run(
        ["bash", script, *arguments], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
