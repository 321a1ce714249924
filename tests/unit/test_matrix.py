"""Matrix files: what they mean, and the errors for wrong ones."""

from itertools import product
from pathlib import Path

import pytest

from quizmatrix.core import tomlfile
from quizmatrix.core.errors import DataError, QuizmatrixError, UsageError
from quizmatrix.model import cellid, cells
from quizmatrix.model.arch import arch_names, load_arch
from quizmatrix.model.cells import Cell, expand, select
from quizmatrix.model.matrix import Limits, Matrix, find_matrix, load_matrix, shipped_matrices
from quizmatrix.model.options import RunOptions, SelectionOptions
from quizmatrix.model.outcome import Outcome
from quizmatrix.prepare.selection import selected_cells


def read(text: str, folder: Path) -> list[Cell]:
    path = folder / "m.toml"
    path.write_text(text)
    return expand(load_matrix(path), str(path))


BASE = 'kernels = ["5.10", "6.1"]\narches = ["x86_64", "s390x"]\n'


def test_kernels_times_arches(tmp_path: Path) -> None:
    found = [cell.id for cell in read(BASE, tmp_path)]
    assert found == ["5.10-x86_64", "5.10-s390x", "6.1-x86_64", "6.1-s390x"]


def test_includes_come_after_excludes(tmp_path: Path) -> None:
    more = 'exclude = [{ kernel = "5.*" }]\ninclude = [{ kernel = "5.10", arch = "s390x", memory = "4G" }]\n'
    found = read(BASE + more, tmp_path)
    assert [cell.id for cell in found] == ["6.1-x86_64", "6.1-s390x", "5.10-s390x"]
    assert [cell.memory for cell in found] == [1024, 1024, 4096]


def test_the_most_specific_limit_counts(tmp_path: Path) -> None:
    text = BASE + 'timeout = "5m"\ncpus = 2\ninclude = [{ kernel = "6.12", arch = "s390x", cpus = 4 }]\n'
    text += '[arch.s390x]\ntimeout = "1h"\n'
    found = {cell.id: cell for cell in read(text, tmp_path)}
    assert found["6.1-x86_64"].timeout == 300
    assert found["6.1-s390x"].timeout == 3600
    assert (found["6.12-s390x"].cpus, found["6.1-s390x"].cpus) == (4, 2)
    assert found["6.1-x86_64"].boot_timeout == 30
    overridden = expand(load_matrix(tmp_path / "m.toml"), "m", Limits(timeout="7s"))
    assert {cell.timeout for cell in overridden} == {7}


def test_kernel_parameters_add_up(tmp_path: Path) -> None:
    text = BASE + 'append = "a loglevel=4"\n[arch.s390x]\nappend = "s=1 a"\n[variant.kasan]\nappend = "k"\n'
    text += """[[include]]
kernel = "6.1"
arch = "s390x"
variant = "kasan"
append = 'dyndbg="file x.c +p" loglevel=6'
"""
    found = {cell.id: cell.append for cell in read(text, tmp_path)}
    assert found["6.1-x86_64"] == "a loglevel=4"
    assert found["6.1-s390x"] == "loglevel=4 s=1 a"
    assert found["6.1-s390x+kasan"] == 'loglevel=4 s=1 a k dyndbg="file x.c +p" loglevel=6'
    more = expand(load_matrix(tmp_path / "m.toml"), "m", Limits(append="loglevel=7"))
    assert [cell.append.split()[-1] for cell in more] == ["loglevel=7"] * 5
    # As in the command that repeats a cell: all parameters are given once more.
    for cell in more:
        again = expand(load_matrix(tmp_path / "m.toml"), "m", Limits(append=cell.append))
        assert {other.id: other.append for other in again}[cell.id] == cell.append
    with pytest.raises(DataError, match=r"line 3.*a quotation mark is not closed"):
        read(BASE + "append = 'dyndbg=\"file x.c'\n", tmp_path)
    with pytest.raises(DataError, match="on one line"):
        read(BASE + 'append = "a\\nb"\n', tmp_path)


def test_where_a_kernel_comes_from_that_names_no_source(tmp_path: Path) -> None:
    text = 'kernels = ["6.1", "6.13-rc2", "path:/x"]\narches = ["x86_64", "ppc64"]\n'
    text += 'include = [{ kernel = "6.1", arch = "x86_64", variant = "kasan" }]\n'
    assert [cell.kernel_spec for cell in read(text, tmp_path)] == [
        "debian:6.1",
        "debian-source:6.1",
        "kernel.org:6.13-rc2",
        "kernel.org:6.13-rc2",
        "path:/x",
        "path:/x",
        "debian-source:6.1",
    ]
    old = 'kernels = ["5.10", "path:/a b"]\narches = ["s390x"]\n'
    assert [cell.kernel_spec for cell in read(old, tmp_path)] == ["debian-source:5.10", "path:/a b"]
    named = {cell.kernel_spec for cell in read('source = "kernel.org"\n' + text, tmp_path)}
    assert named == {"kernel.org:6.1", "kernel.org:6.13-rc2", "path:/x"}


def test_a_variant_is_a_way_to_build(tmp_path: Path) -> None:
    text = 'include = [{ kernel = "6.1", arch = "x86_64", variant = "v" }]\n'
    text += '[variant.v]\nconfig = ["CONFIG_X=y"]\nclang = true\nmemory = "4G"\n'
    (cell,) = read(text, tmp_path)
    assert (cell.id, cell.config, cell.clang, cell.memory) == ("6.1-x86_64+v", ("CONFIG_X=y",), True, 4096)


def test_more_configuration_for_all_kernels_of_a_matrix_or_a_command_line(tmp_path: Path) -> None:
    """A variant's lines win over the matrix's, and -e, -d and -m over both; kernels are built here then."""
    path = tmp_path / "m.toml"
    path.write_text(
        'kernels = ["6.1"]\narches = ["x86_64"]\nconfig = ["CONFIG_A=y", "CONFIG_B=y"]\n'
        'include = [{ kernel = "6.1", arch = "x86_64", variant = "v" }]\n'
        '[variant.v]\nconfig = ["CONFIG_B=m", "CONFIG_C=y"]\n'
    )
    plain, variant = selected_cells(RunOptions(selection=SelectionOptions(matrix=str(path))))
    assert plain.kernel_spec == "debian-source:6.1"
    assert plain.config == ("CONFIG_A=y", "CONFIG_B=y")
    assert variant.config == ("CONFIG_A=y", "CONFIG_B=m", "CONFIG_C=y")
    typed = SelectionOptions(matrix=str(path), disable=["A"], module=["C,CONFIG_D"])
    plain, variant = selected_cells(RunOptions(selection=typed))
    assert plain.config == ("CONFIG_B=y", "CONFIG_A=n", "CONFIG_C=m", "CONFIG_D=m")
    assert variant.config == ("CONFIG_B=m", "CONFIG_A=n", "CONFIG_C=m", "CONFIG_D=m")
    (cell,) = selected_cells(RunOptions(selection=SelectionOptions(only=["6.1-s390x"], enable=["A"])))
    assert (cell.kernel_spec, cell.config) == ("debian-source:6.1", ("CONFIG_A=y",))
    for refused in (
        SelectionOptions(only=["6.1-x86_64+cloud"], enable=["A"]),
        SelectionOptions(only=["6.1-x86_64"], source="debian", enable=["A"]),
    ):
        with pytest.raises(UsageError, match="comes ready-made"):
            selected_cells(RunOptions(selection=refused))


def test_two_cells_do_not_share_a_folder() -> None:
    ids = ["git:../linux#fix/a-x86_64", "git:../linux#fix_a-x86_64", "6.1-x86_64"]
    made = cells.cells_on_the_spot(ids, Limits())
    cellid.check_folders([cell.id for cell in made[1:]], "test")
    with pytest.raises(DataError, match="would have the same folder"):
        cellid.check_folders([cell.id for cell in made], "test")


def test_cells_on_the_spot() -> None:
    made = cells.cells_on_the_spot(
        ["6.1-ppc64", "6.1-x86_64+kasan", "6.1-x86_64+nope", "6.*-x86_64"], Limits()
    )
    assert [cell.id for cell in made] == ["6.1-ppc64", "6.1-x86_64+kasan"]
    (cell,) = cells.cells_on_the_spot(["6.1-x86_64"], Limits(), Matrix(source="debian-source"))
    assert cell.kernel_spec == "debian-source:6.1"


def test_expectations(tmp_path: Path) -> None:
    found = read(BASE + 'expect = [{ arch = "s390x", outcome = "failed", why = "#1" }]\n', tmp_path)
    assert {cell.id: cell.expected for cell in found}["6.1-s390x"] is Outcome.FAILED
    assert {cell.id: cell.expected for cell in found}["6.1-x86_64"] is Outcome.PASSED


@pytest.mark.parametrize(
    ("text", "place", "cause", "next_step"),
    [
        (BASE + 'timout = "5m"\n', "line 3", "unknown key `timout`", "Did you mean `timeout`?"),
        (BASE + "[arch.s390x]\nmemroy = '1G'\n", "line 4", "unknown key `memroy`", "`memory`"),
        ('kernels = "6.1"\narches = []\n', "line 1", "`kernels`: expected `array`, got `str`", ""),
        ('kernel = ["6.1"]\n', "line 1", "`kernel`: expected `object`", "Did you mean `kernels`?"),
        (BASE + '[arch.x86_64]\ntimeout="5m"\n[arch.s390x]\ntimeout=5\n', "line 6", "arch.s390x.timeout", ""),
        (
            BASE + 'expect = [{ arch="s390x", outcome="failed", why="cpus broken" }]\ncpus="two"\n',
            "line 4",
            "`cpus`",
            "",
        ),
        (
            BASE + 'include = [\n{ kernel="6.12", arch="s390x" },\n{ kernel="6.13", arch=3 }]\n',
            "line 5",
            "include.arch",
            "",
        ),
        (BASE + 'include = [{ kernel = "6.12" }]\n', "line 3", "`arch` is missing", "Needed: kernel, arch."),
        (BASE + "[handoff]\n", "line 3", "`write` is missing", "Needed: write"),
        (BASE + 'known = [{ test = "a" }]\n', "line 3", "`why` is missing", "Needed: test, why."),
        ("x = " + "[" * 3000, "is not TOML", "recursion", ""),
        (BASE + 'cpus = "two"\n', "line 3", "`cpus`: expected `int`, got `str`", ""),
        (BASE + "cpus = 0\n", "line 3", "`cpus`: has to be 1 to 255", ""),
        (BASE + 'memory = "16M"\n', "line 3", "`memory`: a guest needs at least", ""),
        (BASE + '[arch.s390x]\ntimeout = "soon"\n', "line 4", "not a duration", ""),
        (BASE + 'profiles = ["zsf"]\n', "m.toml", "unknown profile `zsf`", ""),
        ('kernels = ["6.1"]\narches = ["vax"]\n', "m.toml", "unknown architecture `vax`", "Known: "),
        (
            'kernels = ["6.1", "6.1"]\narches = ["s390x"]\n',
            "m.toml",
            "the matrix has the cell 6.1-s390x twice",
            "Remove",
        ),
        ('kernels = ["6.1"\n', "is not TOML", "", ""),
        (BASE + "[arch.vax]\ncpus = 1\n", "m.toml", "[arch.vax] sets limits", "It has: x86_64, s390x."),
        (BASE + 'expect = [{ arch = "s390x", outcome = "sad", why = "" }]\n', "line 3", "outcome", ""),
        (
            BASE + 'include = [{ kernel = "6.1", arch = "s390x", variant = "v" }]\n',
            "m.toml",
            "not defined",
            "v",
        ),
        (BASE + '[variant.v]\nconfig = ["CONFG_X=y"]\n', "line 4", "`CONFG_X=y` is not a line", ""),
        ('kernels = ["6 1"]\narches = ["s390x"]\n', "m.toml", "'6 1' is not a kernel", "6.1"),
    ],
)
def test_what_is_wrong_is_named(text: str, place: str, cause: str, next_step: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(text, tmp_path)
    assert str(tmp_path / "m.toml") in caught.value.fact
    assert place in caught.value.fact
    assert cause in caught.value.cause
    assert next_step in caught.value.next_step


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_bytes(b'kernels = ["\xff"]')
    with pytest.raises(DataError, match="not UTF-8"):
        load_matrix(tmp_path / "m.toml")


def test_selection_by_globs() -> None:
    found = expand(Matrix(kernels=["5.10", "6.1"], arches=["x86_64", "s390x"]), "m")

    def chosen(**options: list[str]) -> list[str]:
        given: dict[str, list[str]] = {"only": [], "skip": [], "kernels": [], "arches": []} | options
        return [cell.id for cell in select(found, **given)]

    assert chosen(only=["*-s390x"]) == ["5.10-s390x", "6.1-s390x"]
    assert chosen(only=["5.*"], skip=["*-s390x"]) == ["5.10-x86_64"]
    assert chosen(kernels=["6.1"], arches=["s390x"]) == ["6.1-s390x"]
    assert chosen(only=["6.1-s390x", "5.10-x86_64"]) == ["5.10-x86_64", "6.1-s390x"]


def test_ids_name_folders() -> None:
    assert cellid.parse_cell_id("6.12-s390x+kasan") == ("6.12", "s390x", "kasan")
    assert cellid.parse_cell_id("path:../linux-x86_64") == ("path:../linux", "x86_64", None)
    assert cellid.parse_cell_id("6.1-*") is None
    assert cellid.parse_cell_id("6.1") is None
    assert cellid.folder_name("path:../linux-x86_64") == "path_.._linux-x86_64"


@pytest.mark.parametrize("name", shipped_matrices())
def test_matrices_that_ship(name: str) -> None:
    path = find_matrix(name)
    assert expand(load_matrix(path), str(path))


def test_endian_builds_only_what_debian_has_not_ready_made() -> None:
    found = expand(load_matrix(find_matrix("endian")), "endian")
    sources = {cell.id: cell.source for cell in found}
    for kernel, arch in product(("5.10", "6.1", "6.12"), ("x86_64", "s390x", "ppc64")):
        has_none = arch == "ppc64" or (kernel, arch) == ("5.10", "s390x")
        assert sources[f"{kernel}-{arch}"] == ("debian-source" if has_none else "debian")
    every = expand(load_matrix(find_matrix("built")), "built")
    assert [cell.id for cell in every] == [cell.id for cell in found]
    assert {cell.source for cell in every} == {"debian-source"}


def test_a_profile_does_not_change_which_kernel_is_meant() -> None:
    (cell,) = cells.cells_on_the_spot(["6.1-x86_64"], Limits(), Matrix(profiles=["zfs"]))
    assert cell.kernel_spec == "debian:6.1"


def test_a_shipped_matrix_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("matrices/endian.toml", "./matrices/endian.toml"):
        assert find_matrix(name) == shipped_matrices()["endian"]
    own = Path("matrices/endian.toml")
    own.parent.mkdir()
    own.write_text(BASE)
    assert find_matrix("matrices/endian.toml") == own


@pytest.mark.parametrize(
    "name", ["endain", "no/such.toml", "x.toml", "/", "matrices/endian", "no/matrices/endian.toml"]
)
def test_no_such_matrix(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_matrix(name)
    assert "endian" in caught.value.next_step


@pytest.mark.parametrize("name", arch_names())
def test_architectures_that_ship(name: str) -> None:
    facts = load_arch(name).facts
    assert facts.byte_order in ("little", "big")
    assert facts.timeout_factor.tcg > facts.timeout_factor.kvm
    assert facts.kernel.modules


def test_an_architecture_with_an_unknown_key(tmp_path: Path) -> None:
    from quizmatrix.core.paths import data_dir
    from quizmatrix.model.arch import ArchFile

    text = (data_dir("arch") / "s390x.toml").read_text()
    with pytest.raises(QuizmatrixError, match="unknown key `flavor`"):
        tomlfile.parse(text.replace("flavour", "flavor"), ArchFile, "x.toml")
