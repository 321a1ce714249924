"""What a run takes because its command needs it, and what the user's own words leave of that."""

from collections.abc import Callable
from pathlib import Path

import pytest

from quizmatrix.build.uptodate import builds_openzfs
from quizmatrix.build.zfs.update import bring_up_to_date
from quizmatrix.cli.options import run_options
from quizmatrix.cli.parser import parse
from quizmatrix.core import elf
from quizmatrix.core.errors import DataError, UsageError
from quizmatrix.model.cells import Cell
from quizmatrix.model.options import RunOptions
from quizmatrix.model.outcome import Outcome
from quizmatrix.prepare.selection import Selection, selected_for, selected_tasks

Write = Callable[..., None]

SUITE = ("zfs-tests.sh", "-r", "sanity.run")


def chosen(*words: str, command: tuple[str, ...] = SUITE) -> Selection:
    return selected_for(run_options(parse(["run", *words])), list(command))


def one(*words: str, command: tuple[str, ...] = SUITE) -> Cell:
    (cell,) = chosen("--only", "6.1-s390x", *words, command=command).cells
    return cell


def said(*words: str, command: tuple[str, ...] = SUITE) -> str:
    taken = chosen(*words, command=command).taken
    return taken.sentence if taken is not None else "nothing"


def profiles(cell: Cell) -> list[str]:
    return [use.name for use in cell.profiles]


@pytest.fixture
def provide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Makes a profile of the user's that provides a command."""
    monkeypatch.setenv("QUIZMATRIX_CONFIG_DIR", str(tmp_path))

    def write(command: str, facts: str = "", name: str = "mine") -> None:
        folder = tmp_path / "profiles" / name
        folder.mkdir(parents=True)
        (folder / "profile.toml").write_text(f'summary = "mine"\nprovides = ["{command}"]\n{facts}')

    return write


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (["zfs-smoke", "--list"], "zfs-smoke"),
        (["zfs-smoke"], "zfs-smoke"),
        (["A=1 B='x y' zfs-smoke && dmesg"], "zfs-smoke"),
        (["'zfs-smoke' -v;true"], "zfs-smoke"),
        (["# a comment\n zfs-smoke\n"], "zfs-smoke"),
        (["zpool", "create", "tank", "quizm0", "&&", "zpool", "status"], "zpool"),
        (["A=1", "zfs-smoke"], "A=1"),
        (["./zfs-smoke -v"], "./zfs-smoke"),
        (["(zfs-smoke)"], "("),
        (["echo 'not closed"], "echo"),
        (["'not closed"], None),
        (["A=1"], None),
        ([], None),
    ],
)
def test_the_first_word(command: list[str], word: str | None) -> None:
    assert elf.first_word(command) == word


def test_a_command_gets_what_it_needs() -> None:
    cell = one()
    assert profiles(cell) == ["zfs", "ztest", "memdev"]
    assert (cell.image, cell.include, cell.memory, cell.cpus) == ("debian", ("zfs-tests",), 4096, 2)
    assert cell.timeout == 6 * 3600
    assert said("--only", "6.1-s390x") == (
        "zfs-tests.sh: profiles zfs, ztest, memdev; image debian+zfs-tests; 4 GiB, 2 CPUs, "
        "time limit 6h00m (--no-provide: as typed)"
    )
    smoke = one(command=("zfs-smoke",))
    assert (profiles(smoke), smoke.image, smoke.memory) == (["zfs", "memdev"], "small", 1024)


@pytest.mark.parametrize("command", [("./zfs-tests.sh",), ("true",), ("sh", "-c", "zpool"), ("/sbin/zpool",)])
def test_other_commands_get_nothing(command: tuple[str, ...]) -> None:
    assert chosen("--only", "6.1-s390x", command=command).taken is None
    assert profiles(one(command=command)) == []


def test_as_typed() -> None:
    cell = one("--no-provide", "-p", "net")
    assert (profiles(cell), cell.image, cell.memory) == (["net"], "small", 1024)


def test_what_the_user_gave_wins_key_by_key(tmp_path: Path) -> None:
    cell = one("--memory", "8G", "--cpus", "1", "-p", "memdev:count=6,net", "--image", "debian:trixie")
    assert profiles(cell) == ["memdev", "net", "zfs", "ztest"]
    assert dict(cell.profiles[0].options)["count"] == "6"
    assert (cell.memory, cell.cpus, cell.image, cell.include) == (8192, 1, "debian:trixie", ("zfs-tests",))
    assert cell.timeout == 6 * 3600
    matrix = tmp_path / "m.toml"
    matrix.write_text(
        'kernels = ["6.1"]\narches = ["x86_64", "s390x"]\ntimeout = "5m"\n[arch.s390x]\nmemory = "2G"\n'
    )
    here, there = chosen(str(matrix)).cells
    assert [(cell.memory, cell.cpus, cell.timeout) for cell in (here, there)] == [
        (4096, 2, 300.0),
        (2048, 2, 300.0),
    ]
    assert said(str(matrix)) == (
        "zfs-tests.sh: profiles zfs, ztest, memdev; image debian+zfs-tests; 4 GiB, 2 CPUs; "
        "2 GiB as asked for, not 4 GiB; time limit 5m00s as asked for, not 6h00m (--no-provide: as typed)"
    )


def test_a_profile_that_was_asked_for_brings_no_others() -> None:
    assert profiles(one("-p", "zfs", command=("zpool", "status"))) == ["zfs"]
    assert said("--only", "6.1-s390x", "-p", "zfs", command=("zpool", "status")) == ""
    cell = one("-p", "ztest")
    assert (profiles(cell), cell.image, cell.memory) == (["zfs", "ztest"], "debian", 4096)
    # Nor is anything built: it is what the user has.
    taken = chosen("--only", "6.1-s390x", "-p", "zfs,ztest").taken
    assert taken is not None
    assert taken.built_from == frozenset()


def test_the_profile_that_build_means_is_not_one_that_was_asked_for() -> None:
    assert profiles(one("--build", command=("zfs-smoke",))) == ["zfs", "memdev"]
    assert profiles(one("--build", "-p", "zfs", command=("zfs-smoke",))) == ["zfs"]
    assert profiles(one("--build", command=("./zfs-smoke",))) == ["zfs"]
    typed = one("--build", "--no-provide", command=("zfs-smoke",))
    assert profiles(typed) == []
    with pytest.raises(UsageError, match="--build has nothing to build") as caught:
        bring_up_to_date(RunOptions(), [typed], None)
    assert caught.value.next_step == "Add -p zfs."
    assert profiles(one("--build", "--no-provide", "-p", "zfs", command=("zfs-smoke",))) == ["zfs"]


def test_options_that_contradict_are_said_and_win() -> None:
    cell = one("--image", "small", "--memory", "512M")
    assert (profiles(cell)[1], cell.image, cell.include, cell.memory) == ("ztest", "small", (), 512)
    sentence = said("--only", "6.1-s390x", "--image", "small", "--memory", "512M")
    assert "; image small as asked for, not debian; 512 MiB as asked for, not 4 GiB (" in sentence


def test_a_cell_that_cannot_have_it_is_skipped() -> None:
    cells = {cell.id: cell for cell in chosen("endian", "--only", "6.1-*").cells}
    assert [cell.id for cell in cells.values() if cell.skipped] == ["6.1-ppc64"]
    skipped = cells["6.1-ppc64"]
    assert skipped.expected is Outcome.SKIPPED
    assert skipped.skipped == (
        "zfs-tests.sh needs a Debian image, and Debian's archive does not carry ppc64; zfs-smoke runs there"
    )
    # With another image it is the user's own affair, and other commands run there.
    assert not one("--only", "6.1-s390x", "--image", "small").skipped
    cells = {cell.id: cell for cell in chosen("endian", command=("zfs-smoke",)).cells}
    assert not any(cell.skipped for cell in cells.values())


def test_a_profile_of_the_users(provide: Write) -> None:
    provide("mine-test", '[provided]\nmemory = "3G"\n')
    cell = one(command=("mine-test",))
    assert (profiles(cell), cell.memory) == (["mine"], 3072)
    provide("zfs-smoke", name="other")
    assert profiles(one(command=("zfs-smoke",))) == ["other"]
    assert profiles(one("-p", "zfs", command=("zfs-smoke",))) == ["zfs"]


def test_what_the_base_image_has_is_taken_only_where_it_is_asked_for(provide: Write) -> None:
    provide("ls", '[provided]\nmemory = "3G"\n')
    cell = one(command=("ls", "/"))
    assert (profiles(cell), cell.memory) == ([], 1024)
    cell = one("-p", "mine", command=("ls", "/"))
    assert (profiles(cell), cell.memory) == (["mine"], 3072)


def test_what_a_layer_of_the_users_has(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    assert profiles(one("--layer", str(tmp_path), command=("zpool",))) == ["zfs", "memdev"]
    (tmp_path / "usr/bin/zpool").touch()
    assert profiles(one("--layer", str(tmp_path), command=("zpool",))) == []


@pytest.mark.parametrize("wrong", ['memory = "much"', 'image = "nosuch"', "cpus = 0", 'timeout = "soon"'])
def test_a_profile_with_a_wrong_value(provide: Write, wrong: str) -> None:
    provide("mine-test", f"[provided]\n{wrong}\n")
    with pytest.raises(DataError, match=f"the profile mine: .*{wrong.partition(' ')[0]}"):
        one(command=("mine-test",))
    assert profiles(one(command=("true",))) == []


def test_a_profile_that_cannot_be_read_harms_no_other_command(provide: Write) -> None:
    provide("mine-test", "nosuch = 1\n")
    assert profiles(one(command=("zfs-smoke",))) == ["zfs", "memdev"]


def test_in_the_tree_of_what_a_profile_is_built_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = chosen("--only", "6.1-s390x").taken
    below = tmp_path / "zfs/module/zfs"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert not builds_openzfs(taken)
    (tmp_path / "zfs/META").write_text("Meta:  1\nName:  zfs\nVersion: 2.4.3\n")
    assert builds_openzfs(taken)
    assert not builds_openzfs(chosen("--only", "6.1-s390x", "-p", "zfs,ztest").taken)
    assert not builds_openzfs(None)
    below.rmdir()
    assert not builds_openzfs(taken)
    monkeypatch.chdir(tmp_path)
    assert not builds_openzfs(taken)


def test_commands_of_a_matrix_are_its_own() -> None:
    whole, _tasks = selected_tasks(run_options(parse(["run", "handoff"])), None)
    assert whole.taken is None
