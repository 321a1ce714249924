"""Hosts from a batch system: a real Slurm of one node."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.conftest import Quizmatrix
from tests.vm.processes import qemus_with, wait_for
from tests.vm.slurm import running_slurm, why_not

CELL = "6.1-x86_64"

if reason := why_not():
    pytest.skip(reason, allow_module_level=True)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """Its folder, and the environment of its users."""
    folder = tmp_path_factory.mktemp("slurm")
    with running_slurm(folder) as environment:
        yield folder, environment
    assert not qemus_with(str(folder))


def test_jobs_of_slurm_run_the_cells_and_end_with_the_run(
    slurm: tuple[Path, dict[str, str]], quizmatrix: Quizmatrix, environment: dict[str, str], tmp_path: Path
) -> None:
    folder, known = slurm
    here = tmp_path / "here"
    (here / "file").write_text("from here\n")
    options = here / "slurm.toml"
    options.write_text(
        f'jobs = 2\ncpus = 1\nmemory = "3G"\n[options]\nlog_directory = "{folder}"\n'
        f'job_script_prologue = ["export QUIZMATRIX_CACHE_DIR={folder}/cache"]\n'
    )
    own = {**environment, **{name: known[name] for name in ("SLURM_CONF", "PATH")}}
    argv = ["run", "--only", CELL, "--on", f"slurm:{options}", "--offline", "--", "cat file; exit 3"]
    done = quizmatrix(*argv, env=own)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"from here\n", b"")
    # It ran in a job, which has a cache of its own, and no job is left.
    assert (folder / "cache/travel/trees").is_dir()
    wait_for(lambda: not queued(own))
    options.write_text('[options]\nqueue = "no-such-partition"\n')
    done = quizmatrix(*argv, env=own)
    assert done.returncode == 125
    assert b"the batch system takes no job" in done.stderr
    assert b"nvalid partition" in done.stderr


def queued(environment: dict[str, str]) -> bytes:
    """The jobs that wait or run."""
    return subprocess.run(
        ["squeue", "--noheader"], env=environment, capture_output=True, check=True
    ).stdout.strip()
