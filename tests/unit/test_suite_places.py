"""Where a matrix says that test suites are: its key `suite`."""

from pathlib import Path

import pytest

from quizmatrix.core.errors import DataError
from quizmatrix.model.cells import expand
from quizmatrix.model.matrix import load_matrix

CELLS = 'kernels = ["6.1"]\narches = ["x86_64", "s390x"]\n'


def places(tmp_path: Path, text: str) -> dict[str, dict[str, str]]:
    """The suites of each architecture's cell."""
    (tmp_path / "a.toml").write_text(CELLS + text)
    matrix = load_matrix(tmp_path / "a.toml")
    return {cell.arch: dict(cell.suites) for cell in expand(matrix, "a.toml")}


def test_one_folder_is_for_all_or_for_an_architecture(tmp_path: Path) -> None:
    text = """
        [suite]
        xfstests = "path:../xfstests"
        ltp = { s390x = "path:/srv/ltp", aarch64 = "path:none" }
        """
    shared = str(tmp_path / "../xfstests")
    assert places(tmp_path, text) == {
        "x86_64": {"xfstests": shared},
        "s390x": {"xfstests": shared, "ltp": "/srv/ltp"},
    }


def test_a_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = places(tmp_path, '[suite]\nltp = "path:~/ltp"\n')
    assert found["x86_64"] == {"ltp": "/home/me/ltp"}


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('ltp = "../ltp"', "`suite.ltp`: '../ltp' is no place; write \"path:../ltp\""),
        ('ltp = "path: "', "is no place"),
        ('ltp = { i960 = "path:x" }', "`suite.ltp`: unknown architecture `i960`"),
        ('ltp = { native = "path:x" }', "`suite.ltp`: a suite is compiled for one architecture: name it"),
        ('ltp = "path:~nobody-of-this-name/x"', "`suite.ltp`: path:~nobody-of-this-name/x: "),
        ('memdev = "path:x"', "`suite.memdev`: the profile memdev runs no suite from a folder"),
        ('nothing = "path:x"', "nothing"),
    ],
)
def test_what_is_wrong_is_named(text: str, cause: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        places(tmp_path, f"[suite]\n{text}\n")
    assert cause in str(raised.value)
