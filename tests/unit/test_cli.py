"""The command line, as far as no guest is booted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quizmatrix.cli import run_command
from quizmatrix.cli.options import run_options
from quizmatrix.cli.parser import parse
from quizmatrix.core.errors import UsageError
from quizmatrix.model.cells import sharded
from quizmatrix.prepare.selection import selected_cells


def chosen(*argv: str) -> list[str]:
    options = run_options(parse(["run", *argv, "--", "true"]))
    return [cell.id for cell in selected_cells(options)]


def test_all_behind_the_first_dashes_is_the_command() -> None:
    args = parse(["run", "quick", "-x", "--", "sh", "-c", "--", "--help"])
    assert args.command == ["sh", "-c", "--", "--help"]
    assert args.matrix == "quick"
    assert args.fail_fast


def test_one_cell_on_the_spot() -> None:
    assert chosen("--only", "4.19-s390x") == ["4.19-s390x"]
    assert chosen("--only", "6.1-x86_64,4.19-s390x") == ["6.1-x86_64", "4.19-s390x"]


def test_a_cell_in_slices() -> None:
    options = run_options(parse(["run", "--only", "6.1-s390x", "--shard", "2", "--", "true"]))
    assert options.selection.shard == 2
    cells = sharded(selected_cells(options), 2)
    assert [cell.id for cell in cells] == ["6.1-s390x@1of2", "6.1-s390x@2of2"]
    assert {cell.unsharded for cell in cells} == {"6.1-s390x"}
    assert cells[1].folder == "6.1-s390x@2of2"
    assert cells[1].shard is not None
    assert cells[1].shard.environment == {"QUIZMATRIX_SHARD": "2", "QUIZMATRIX_SHARDS": "2"}


def test_kernels_and_arches_on_the_spot() -> None:
    assert chosen("-k", "6.1,4.19", "-a", "s390x") == ["6.1-s390x", "4.19-s390x"]
    assert chosen("-k", "5.10") == ["5.10-x86_64"]
    assert set(chosen("-a", "s390x")) == {"6.1-s390x", "6.12-s390x", "newest-s390x"}


def test_they_choose_from_a_matrix_that_is_named() -> None:
    assert chosen("quick", "-k", "6.1") == ["6.1-x86_64", "6.1-s390x"]
    assert chosen("quick", "--only", "*-s390x", "--skip", "newest-*") == ["6.1-s390x", "6.12-s390x"]


def test_globs_choose_from_the_default_matrix() -> None:
    assert chosen("-k", "6.1*", "-a", "s390x") == ["6.1-s390x", "6.12-s390x"]


def test_a_cell_is_made_once_and_other_options_still_choose() -> None:
    assert chosen("--only", "4.19-s390x,4.19-s390x") == ["4.19-s390x"]
    with pytest.raises(UsageError, match="no cell is left"):
        chosen("-k", "4.19", "--only", "6.1-x86_64")


def test_a_matrix_without_cells(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('kernels = ["6.1"]\n')
    for options in ((), ("-k", "6.1"), ("-a", "s390x")):
        with pytest.raises(UsageError, match="has no cells"):
            chosen(str(tmp_path / "m.toml"), *options)


def test_options_may_stand_between_a_run_and_its_cell() -> None:
    args = parse(["runs", "logs", "latest", "--console", "6.1-s390x"])
    assert (args.run, args.cell, args.stream) == ("latest", "6.1-s390x", "console.log")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["rnu"], ["unknown command `rnu`", "`run`"]),
        (["run", "--tmeout", "3", "--", "true"], ["unknown option --tmeout", "`--timeout`"]),
        (["run", "--variant", "kasan", "--", "true"], ["unknown option --variant", "run --help"]),
        (["run", "--only", "6.1-x86_64", "uname", "-a"], ["expected one argument", "comes after `--`"]),
        (["run", "--only", "6.1-x86_64", "uname", "-r"], ["unknown option -r", "comes after `--`"]),
        (["bisect", "6.1", "6.12", "uname", "-r"], ["comes after `--`"]),
        (["run", "/bin/true"], ["no command to run", "-- /bin/true"]),
        (["run", "quick"], ["no command to run", "quizmatrix run quick -- uname -a"]),
        (["run", "quick", "true"], ["unexpected argument `true`", "after `--`"]),
        (["--verson"], ["unknown option `--verson`", "`--version`"]),
        (["run", "--only", "", "--", "true"], ["--only names nothing"]),
        *(
            ([*argv, "--", blank], ["COMMAND names nothing", "variable"])
            for argv in (
                ["run", "--only", "6.1-x86_64"],
                ["bisect", "6.1", "newest"],
                ["shell", "6.1-x86_64"],
                ["exec", "latest/6.1-x86_64"],
            )
            for blank in ("", " \t\n")
        ),
        (["run", "", "--", "true"], ["MATRIX names nothing"]),
        (["run", "--layer", "", "--", "true"], ["--layer names nothing"]),
        (["run", "--env", "NO_SUCH_VARIABLE", "--", "true"], ["NO_SUCH_VARIABLE", "not set", "Export it"]),
        (["run", "--env", "a-b=1", "--", "true"], ["`a-b` is no name of a variable"]),
        (["nightly", "install", "--at", "2:00", "--env", "PATH", "--", "true"], ["--env PATH", "at night"]),
        (["run", "--bind", "/no/such:/etc/x", "--", "true"], ["/no/such is neither a folder nor a file"]),
        (["run", "--user=", "--", "true"], ["--user names nothing"]),
        (["run", "-j", "", "--", "true"], ["--jobs names nothing"]),
        (["run", "-p", "net", "-p", " ", "--", "true"], ["--profiles names nothing"]),
        (["runs", "show", ""], ["RUN names nothing"]),
        (["run", "quick", "-k", "6.1,4.19", "--", "true"], ["--kernels 4.19 fits no cell"]),
        (["run", "--json", "/no/dir/x", "--", "true"], ["--json /no/dir/x cannot be written"]),
        (["run", "--memory", "9" * 400 + "G", "--", "true"], ["`memory`"]),
        (["run"], ["no command to run", "after `--`"]),
        (["run", "./repro.sh"], ["no command to run", "-- ./repro.sh"]),
        (["cells", "--", "x"], ["only `quizmatrix run`"]),
        (["run", "endain", "--", "true"], ["no matrix named `endain`", "`endian`"]),
        (["run", "quick", "--only", "6.1-s390", "--", "true"], ["fits no cell", "`6.1-s390x`"]),
        (
            ["run", "--only", "package:x.deb", "--", "true"],
            ["fits no cell", "is named with its architecture: package:x.deb-x86_64"],
        ),
        (["run", "--skip", "*", "--", "true"], ["no cell is left"]),
        (["run", "--only", "foo-s390x", "--", "true"], ["unknown kernel `foo`", "newest"]),
        (["run", "--only", "debain:6.1-s390x", "--", "true"], ["unknown kernel source `debain`", "`debian`"]),
        (["run", "-a", "vax", "--", "true"], ["unknown architecture `vax`", "s390x"]),
        (["run", "-p", "zsf", "--", "true"], ["unknown profile `zsf`", "`zfs`"]),
        (["run", "--only", "6.1-s390x+cloud", "--", "true"], ["no variant cloud", "s390x"]),
        (["run", "--only", "debian-source:6.1-x86_64+rt", "--", "true"], ["variant rt is one of Debian's"]),
        (["run", "-j", "0", "--", "true"], ["-j 0", "1 or more"]),
        (["run", "--retries", "-1", "--", "true"], ["--retries"]),
        (["run", "--cpus", "x", "--", "true"], ["--cpus x"]),
        (["run", "--memory", "1", "--", "true"], ["`memory`", "512M"]),
        (["run", "--timeout", "soon", "--", "true"], ["`timeout`", "not a duration"]),
        (["run", "--layer", "/no/such", "--", "true"], ["the layer /no/such is not a folder"]),
        (["run", "--output", "/etc", "--", "true"], ["/etc exists and is not empty"]),
        (["runs", "show", "nope"], ["no run `nope`", "runs list"]),
        (["run", "--machine", "pc", "quick", "--", "true"], ["--machine pc for s390x, x86_64"]),
        (["run", "quick", "--source", "debain", "--", "true"], ["kernel source `debain`", "`debian`"]),
        (["kernel", "build", "6.x"], ["unknown kernel `6.x`", "not a kernel version"]),
        (["kernel", "build", "6.1", "-j", "0"], ["-j 0", "1 or more"]),
        (["kernel", "build", "6.1", "--variant", "kassan"], ["unknown variant `kassan`", "kasan"]),
        (["kernel", "build", "6.1", "-e", "A", "-d", "A"], ["CONFIG_A is asked to be n"]),
        (["kernel", "build", "tarball:/no/such"], ["there is no file /no/such"]),
        (["kernel", "build", "path:/etc"], ["/etc is no kernel source"]),
        (["kernel", "build", "git:/no/such#v6.1"], ["there is no folder /no/such"]),
        (["kernel", "show", "nope"], ["`nope` is no kernel in the cache", "kernel list"]),
    ],
)
def test_a_mistake_is_explained(
    argv: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path))
    assert run_command(argv) == 125
    said = capsys.readouterr().err
    assert said.startswith("quizmatrix: ")
    assert "Traceback" not in said
    for word in words:
        assert word in said


def test_dry_run_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run", "endian", "--dry-run", "--", "echo", "a b"]) == 0
    said = capsys.readouterr().out
    assert "6.1-s390x" in said
    assert "in each: echo 'a b'" in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["completion", shell]) == 0
    assert "boot-timeout" in capsys.readouterr().out


def test_bash_completes_cells_and_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What shtab makes, with the words of this host's quizmatrix; a colon and a comma are parts of a word."""
    assert run_command(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "quizmatrix").write_text(f'#!/bin/sh\nexec {sys.executable} -m quizmatrix "$@"\n')
    (tmp_path / "quizmatrix").chmod(0o755)
    answer = (
        '{"time": 1.0, "kernels": [{"kernel": "debian:6.1.9", "version": "6.1.9", "arches": ["s390x"],'
        ' "origin": "here"}]}'
    )
    (tmp_path / "available/refs").mkdir(parents=True)
    (tmp_path / "available/debian.json").write_text(answer)
    program = """. "$0"; spec=$(complete -p quizmatrix); function=${spec#*-F }
        COMP_WORDS=(quizmatrix "$@") COMP_CWORD=$#; ${function%% *}; echo "${COMPREPLY[@]}"
        case $COMP_WORDBREAKS in *:*) echo "a colon ends a word" ;; esac
        """

    def completed(*words: str) -> list[str]:
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "QUIZMATRIX_CACHE_DIR": str(tmp_path),
        }
        argv = ["bash", "-c", program, str(script), *words]
        return subprocess.run(
            argv, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()

    assert completed("run", "--only", "6.1-") == ["6.1-s390x", "6.1-x86_64"]
    assert completed("run", "--only", "6.1-x86_64,debian:") == ["6.1-x86_64,debian:6.1.9-s390x"]
    assert completed("kernel", "build", "deb") == ["debian:6.1.9"]


def test_help_imports_nothing_slow() -> None:
    script = (
        "import sys; from quizmatrix.cli import run_command; run_command(['run', '--help']);"
        "print(sorted({'rich', 'asyncssh', 'tabulate', 'anyio', 'msgspec', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_one_cell_imports_neither_rich_nor_asyncssh() -> None:
    script = (
        "import sys, quizmatrix.matrixrun.run;"
        "print(sorted({'rich', 'asyncssh', 'tabulate', 'shtab', 'junitparser'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m quizmatrix cells quick {closed}', sys.executable],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "words", ["-device virtio-rng-pci", "-drive file=x", "-msg timestamp=on", "-enable-kvm "]
)
def test_an_option_of_qemus_is_none_of_ours(words: str) -> None:
    """-d, -e and -m are options of `run`: argparse would read the beginning of the value as one."""
    assert parse(["run", "--qemu", words, "--", "true"]).qemu == [words]
