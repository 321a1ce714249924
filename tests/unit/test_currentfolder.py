"""The current folder's paths, and whether a command names files in it."""

from pathlib import Path

import pytest

from quizmatrix.prepare.currentfolder import other_names, shell_path, uses_files_in


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a file, a symlink to the folder above it, and a symlink inside it that stays inside."""
    real = tmp_path / "real"
    (real / "below").mkdir(parents=True)
    (real / "below/t.sh").touch()
    (tmp_path / "link").symlink_to("real")
    (real / "self").symlink_to(".")
    return real


def test_the_shells_word_counts_where_it_is_true(tree: Path) -> None:
    here, link = str(tree / "below"), str(tree.parent / "link/below")
    assert shell_path(here, {"PWD": link}) == link
    for wrong in (here, str(tree), "/no/such", "below", f"{link}/", f"{link}/../below", ""):
        assert shell_path(here, {"PWD": wrong}) is None
    assert shell_path(here, {}) is None


def test_other_names(tree: Path) -> None:
    here, top = str(tree / "below"), str(tree.parent)
    link = f"{top}/link/below"
    assert other_names(here, ["true"], link) == {link: here}
    assert other_names(here, [f"{link}/t.sh", "x"], None) == {link: here}
    assert other_names(here, [f"cd / && '{link}/t.sh' | cat"], None) == {link: here}
    # The symlink itself, if it points into the folder that the guest sees.
    assert other_names(top, [f"{top}/link/below/t.sh", "x"], None) == {}
    assert other_names(str(tree), [f"{top}/link/below/t.sh", "x"], None) == {f"{top}/link": str(tree)}
    assert other_names(here, [f"{here}/t.sh", "/etc/passwd", "/no/such", "link"], None) == {}
    assert other_names(here, ["it's"], None) == {}


@pytest.mark.parametrize(
    "command",
    [
        ["./t.sh"],
        ["sh", "t.sh"],
        ["sh", "-c", "cat t.sh"],
        ["cat *.sh"],
        ["cat <t.sh>/dev/null"],
        ['sh "$PWD/x"'],
        ["HERE/t.sh"],
        ["HERE/t.sh", "x"],
        ["find", "."],
        ["make"],
    ],
)
def test_a_command_that_means_its_folder(tree: Path, command: list[str]) -> None:
    here = tree / "below"
    assert uses_files_in(here, [word.replace("HERE", str(here)) for word in command])


def test_who_hid_it_is_told_of_what_is_missed(tree: Path) -> None:
    here = tree / "below"
    for command in (["true"], ["echo $PWD"], ["make"]):
        assert not uses_files_in(here, command, is_hidden=True)
    for command in (["sh t.sh"], ["cat *.sh"], ["sh", "t.sh"]):
        assert uses_files_in(here, command, is_hidden=True)


def test_a_command_that_does_not() -> None:
    assert not uses_files_in(Path("/"), ["uname -a; cat /etc/passwd"])
    assert not uses_files_in(Path("/usr/local"), ["uname", "-a"])
