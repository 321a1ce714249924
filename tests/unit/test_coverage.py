"""Counters of lines: read with what the compiler noted, merged over cells, and shown."""

import gzip
import importlib.util
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from quizmatrix.core.errors import HostError, QuizmatrixError, UnpreparedError, UsageError
from quizmatrix.coverage import differences, gcov, index, report, trace
from quizmatrix.coverage.differences import Elsewhere, PartlyReached, Stretch
from quizmatrix.coverage.sources import CountedTrees, SourcePlaces
from quizmatrix.coverage.trace import Trace
from quizmatrix.kernel import artifact
from quizmatrix.model.options import ResultOptions
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, RunResults
from quizmatrix.run import counters
from tests import made_spec

SOURCE = """\
#include "part.h"
int main(int argc, char **argv)
{
	if (argc > 1)
		return part(1);
	return part(0);
}
"""
HEADER = """\
static inline int part(int a)
{
	if (a)
		return 0;
	return 0 * a;
}
"""


def compiled(folder: Path, *runs: list[str], source: Path | None = None) -> Path:
    """A program in `folder`/object whose lines are counted, after these runs of it; the folder.

    source: where its source is; by default in `folder`/source.
    """
    source, into = source or folder / "source", folder / "object"
    for path in (source, into):
        path.mkdir(parents=True, exist_ok=True)
    for name, text in (("main.c", SOURCE), ("part.h", HEADER)):
        if not (source / name).exists():
            (source / name).write_text(text)
    argv = ["gcc", "--coverage", "-O0", "-c", "-o", "main.o", str(source / "main.c")]
    subprocess.run(argv, cwd=into, check=True)
    subprocess.run(["gcc", "--coverage", "-o", "main", "main.o"], cwd=into, check=True)
    for words in runs:
        subprocess.run([into / "main", *words], check=True)
    return into


def packed(file: Path, *paths: Path) -> Path:
    """An archive as a guest makes it, with these files at their paths on the host."""
    with tarfile.open(file, "w") as archive:
        for path in paths:
            archive.add(path, f"./{str(path).lstrip('/')}")
    return file


def placed(folder: Path, name: str = "tree") -> SourcePlaces:
    """One tree, in its own folder."""
    return SourcePlaces(folders={str(folder): name}, origins={name: str(folder)})


def lines_of(folder: Path, archive: Path, *, lost: tuple[str, ...] = ()) -> dict[str, dict[int, bool]]:
    """What gcov finds by the counters in an archive and the notes in `folder`/object."""
    own = folder / "own"
    own.mkdir()
    got = trace.unpack(str(archive), str(own), "{}", str(folder))
    assert tuple(anyio.run(trace.run_gcov, "/usr/bin/gcov", own, range(got.found))) == lost
    target = folder / f"joined{gcov.SUFFIX}"
    left_out = gcov.join(own, target, folder / "sources", placed(folder / "source"))
    assert left_out == gcov.LeftOut(changed=[], unknown=[])
    return {name: file.lines for name, file in gcov.read(target)}


def test_lines_are_read_of_what_gcc_compiled(tmp_path: Path) -> None:
    into = compiled(tmp_path, [])
    archive = packed(tmp_path / "counters.tar", into / "main.gcda")
    assert lines_of(tmp_path, archive) == {
        "tree/main.c": {2: True, 4: True, 5: False, 6: True},
        "tree/part.h": {1: True, 3: True, 4: False, 5: True},
    }
    assert (tmp_path / "sources/tree/part.h").read_text() == HEADER


def test_counters_of_another_build_are_not_taken_for_zeros(tmp_path: Path) -> None:
    archive = packed(tmp_path / "counters.tar", compiled(tmp_path, []) / "main.gcda")
    source = tmp_path / "source/main.c"
    source.write_text(SOURCE + "int more;\nint another(void)\n{\n\treturn more;\n}\n")
    subprocess.run(
        ["gcc", "--coverage", "-c", "-o", "main.o", str(source)], cwd=tmp_path / "object", check=True
    )
    assert lines_of(tmp_path, archive, lost=("compiled again since",)) == {}


@pytest.mark.parametrize("content", [b"", b"adcg", b"adcg" + b"\xff" * 4000, b"\0" * 100])
def test_damaged_counters_cost_no_other_file(content: bytes, tmp_path: Path) -> None:
    into = compiled(tmp_path, [])
    for name in ("main", "other"):
        (into / f"{name}.gcno").write_bytes((into / "main.gcno").read_bytes())
    (into / "other.gcda").write_bytes(content)
    archive = packed(tmp_path / "counters.tar", into / "other.gcda", into / "main.gcda")
    own = tmp_path / "own"
    own.mkdir()
    assert trace.unpack(str(archive), str(own), "{}", str(tmp_path)).found == 2
    (why,) = anyio.run(trace.run_gcov, "/usr/bin/gcov", own, range(2))
    assert why == "compiled again since" or why.startswith("gcov says: ")
    assert (own / f"1{gcov.SUFFIX}").exists()
    assert not (own / f"0{gcov.SUFFIX}").exists()


def test_what_a_guest_wrote_is_quoted_without_escape_sequences(tmp_path: Path) -> None:
    into = compiled(tmp_path, [])
    (into / "main.gcda").write_bytes(b"adcg\x1b[2J" + bytes(8))
    archive = packed(tmp_path / "counters.tar", into / "main.gcda")
    own = tmp_path / "own"
    own.mkdir()
    trace.unpack(str(archive), str(own), "{}", str(tmp_path))
    (why,) = anyio.run(trace.run_gcov, "/usr/bin/gcov", own, range(1))
    assert why.startswith("gcov says: version ")
    assert "\x1b" not in why


def test_only_counters_with_notes_in_the_cache_are_unpacked(tmp_path: Path) -> None:
    into = compiled(tmp_path / "cache", [])
    (into / "link.gcda").symlink_to(into / "main.gcda")
    elsewhere = compiled(tmp_path / "elsewhere", [])
    archive = packed(
        tmp_path / "counters.tar", into / "main.gcda", into / "link.gcda", elsewhere / "main.gcda"
    )
    with tarfile.open(archive, "a") as hostile:
        for name in (f"{into}/../object/main.gcda", str(into / "main.gcda"), "./reset", "main.gcda"):
            member = tarfile.TarInfo(f".//x/..{name}" if "/../" in name else name)
            hostile.addfile(member)
        hostile.addfile(tarfile.TarInfo(f"/{into}/main.gcda"))
        sparse = tarfile.TarInfo(f".{into}/sparse.gcda")
        sparse.type = tarfile.GNUTYPE_SPARSE
        hostile.addfile(sparse)
    own = tmp_path / "own"
    own.mkdir()
    got = trace.unpack(str(archive), str(own), "{}", str(tmp_path / "cache"))
    assert got == trace.Unpacked(found=1, without=2)
    assert sorted(path.name for path in own.iterdir()) == ["0.gcda", "0.gcno"]


@pytest.mark.parametrize("content", [b"no archive", b"\0" * 5, b"x" * 2000])
def test_an_archive_that_is_none_is_told_of(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "counters.tar").write_bytes(content)
    with pytest.raises(OSError, match="its counters cannot be read"):
        trace.unpack(str(tmp_path / "counters.tar"), str(tmp_path), "{}", str(tmp_path))


def reported(folder: Path, name: str, *files: dict[str, Any]) -> None:
    content = {"files": files, "current_working_directory": "/elsewhere", "format_version": "1"}
    (folder / f"{name}{gcov.SUFFIX}").write_bytes(gzip.compress(json.dumps(content).encode()))
    (folder / f"{name}.gcno").touch()


def test_counts_of_one_line_are_added_up(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/part.h").write_text("a\nb\nc\n")
    function = {"name": "f", "demangled_name": "f", "blocks": 4, "blocks_executed": 2, "execution_count": 5}
    function |= {"start_line": 1, "start_column": 1, "end_line": 3, "end_column": 1}
    here = {"file": str(tmp_path / "tree/part.h"), "functions": [function]}
    line = {"branches": [{"count": 1, "fallthrough": False, "throw": False}], "unexecuted_block": False}
    reported(tmp_path, "1", here | {"lines": [line | {"line_number": 1, "count": 2}]})
    gone = {
        "file": str(tmp_path / "tree/gone.h"),
        "functions": [],
        "lines": [line | {"line_number": 1, "count": 1}],
    }
    more = [{"line_number": 1, "count": 3}, {"line_number": 2, "count": -7}]
    elsewhere = {"file": "generated.h", "functions": [], "lines": more}
    reported(
        tmp_path,
        "2",
        here | {"lines": more, "functions": [function | {"execution_count": -9}]},
        gone,
        elsewhere,
    )
    left_out = gcov.join(tmp_path, tmp_path / "joined", tmp_path / "sources", placed(tmp_path / "tree"))
    joined = json.loads(gzip.decompress((tmp_path / "joined").read_bytes()))
    (only,) = joined["files"]
    assert only["file"] == "tree/part.h"
    assert [(one["line_number"], one["count"]) for one in only["lines"]] == [(1, 5), (2, 0)]
    assert [one["execution_count"] for one in only["functions"]] == [5]
    # What is gone was made by the build.
    assert left_out == gcov.LeftOut(changed=[], unknown=["/elsewhere/generated.h"])


def test_a_source_that_changed_since_is_left_out(tmp_path: Path) -> None:
    into = compiled(tmp_path, [])
    archive = packed(tmp_path / "counters.tar", into / "main.gcda")
    own = tmp_path / "own"
    own.mkdir()
    trace.unpack(str(archive), str(own), "{}", str(tmp_path))
    anyio.run(trace.run_gcov, "/usr/bin/gcov", own, range(1))
    header = tmp_path / "source/part.h"
    os.utime(header, (header.stat().st_mtime + 60,) * 2)
    left_out = gcov.join(own, tmp_path / "joined", tmp_path / "sources", placed(tmp_path / "source"))
    assert left_out.changed == [str(header)]
    assert [name for name, _ in gcov.read(tmp_path / "joined")] == ["tree/main.c"]


def test_files_that_do_not_count_are_left_out_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "linux").mkdir()
    (tmp_path / "linux/list.h").touch()
    line = {"line_number": 1, "count": 1}
    reported(tmp_path, "1", {"file": str(tmp_path / "linux/list.h"), "functions": [], "lines": [line]})
    places = SourcePlaces(folders={str(tmp_path / "linux"): ""})
    left_out = gcov.join(tmp_path, tmp_path / "joined", tmp_path / "sources", places)
    assert left_out == gcov.LeftOut(changed=[], unknown=[])
    assert dict(gcov.read(tmp_path / "joined")) == {}


@pytest.mark.parametrize(("text", "is_left_out"), [("", False), ("edited since", True)])
def test_a_copy_counts_as_long_as_it_is_the_users_file(text: str, is_left_out: bool, tmp_path: Path) -> None:
    for name in ("copy", "own"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.c").touch()
    (tmp_path / "copy/made.c").touch()
    (tmp_path / "own/a.c").write_text(text)
    lines = [{"line_number": 1, "count": 1}]
    files = [
        {"file": str(tmp_path / "copy" / name), "functions": [], "lines": lines} for name in ("a.c", "made.c")
    ]
    reported(tmp_path, "1", *files)
    places = SourcePlaces(folders={str(tmp_path / "copy"): "own"}, origins={"own": str(tmp_path / "own")})
    left_out = gcov.join(tmp_path, tmp_path / "joined", tmp_path / "sources", places)
    assert left_out.changed == ([str(tmp_path / "own/a.c")] if is_left_out else [])
    assert [name for name, _ in gcov.read(tmp_path / "joined")] == ([] if is_left_out else ["own/a.c"])


def test_two_texts_of_one_file_are_not_mixed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    reported(
        tmp_path, "1", {"file": f"{tree}/a.c", "functions": [], "lines": [{"line_number": 1, "count": 1}]}
    )
    (tree / "a.c").write_text("new")
    os.utime(tree / "a.c", (1, 1))
    (tmp_path / "sources/tree").mkdir(parents=True)
    (tmp_path / "sources/tree/a.c").write_text("of another guest")
    left_out = gcov.join(tmp_path, tmp_path / "joined", tmp_path / "sources", placed(tree))
    assert left_out.changed == [f"{tree}/a.c"]


def test_paths_in_a_sandbox_are_followed(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "a.c").touch()
    line = {"line_number": 1, "count": 1}
    place = "/var/lib/dkms/a/1/build"
    reported(tmp_path, "1", {"file": f"{place}/a.c", "functions": [], "lines": [line]})
    places = msgspec.structs.replace(placed(copy, "a"), sandboxed={place: str(copy)})
    gcov.join(tmp_path, tmp_path / "joined", tmp_path / "sources", places)
    assert dict(gcov.read(tmp_path / "joined")) == {"a/a.c": gcov.CountedFile(lines={1: True})}
    (copy / "a.gcno").touch()
    (tmp_path / "a.gcda").touch()
    with tarfile.open(tmp_path / "counters.tar", "w") as archive:
        archive.add(tmp_path / "a.gcda", f".{place}/a.gcda")
        archive.addfile(tarfile.TarInfo("./incomplete"))
    got = trace.unpack(
        str(tmp_path / "counters.tar"), str(tmp_path), msgspec.json.encode(places).decode(), str(tmp_path)
    )
    assert got == trace.Unpacked(found=1, without=0, is_incomplete=True)


def test_trees_have_names_of_their_own(tmp_path: Path) -> None:
    trees = CountedTrees()
    for place in ("a/zfs", "b/zfs"):
        (tmp_path / place).mkdir(parents=True)
        trees.add_tree(tmp_path / place, "zfs", tmp_path / place)
    trees.add_tree(tmp_path / "a/zfs", "zfs", tmp_path / "copy")
    assert trees.places.folders == {
        str(tmp_path / "a/zfs"): "zfs",
        str(tmp_path / "b/zfs"): "zfs-2",
        str(tmp_path / "copy"): "zfs",
    }


def traced(cell: str, **files: dict[int, bool]) -> Trace:
    counted = {f"tree/{name}.c": gcov.CountedFile(lines=lines) for name, lines in files.items()}
    return Trace(cell=cell, files=counted)


X, S, P = "6.1-x86_64", "6.1-s390x", "6.12-ppc64"


def test_lines_that_only_some_cells_reach() -> None:
    traces = [
        traced(X, a={1: True, 2: False, 4: True, 9: True}, b={1: True}),
        traced(S, a={1: True, 2: True, 3: True, 4: True, 9: True}, b={1: True}),
        traced(P, a={1: True, 2: True, 3: True, 4: False, 9: True}, b={1: False}),
        traced(P, a={1: True, 2: False, 4: False, 9: True}, b={1: True}),
        Trace(cell="other", files={"elsewhere/c.c": gcov.CountedFile(lines={1: False})}),
    ]
    merged = differences.merge(traces)
    found = differences.find(merged, traces)
    assert found == [
        PartlyReached(
            cells=frozenset({S, X}),
            others=frozenset({P}),
            elsewhere=Elsewhere.NOT_REACHED,
            stretches=[Stretch(file="tree/a.c", first=4, last=4, lines=1)],
        ),
        PartlyReached(
            cells=frozenset({S, P}),
            others=frozenset({X}),
            elsewhere=Elsewhere.NOT_REACHED,
            stretches=[Stretch(file="tree/a.c", first=2, last=2, lines=1)],
        ),
        PartlyReached(
            cells=frozenset({S, P}),
            others=frozenset({X}),
            elsewhere=Elsewhere.NOT_COMPILED,
            stretches=[Stretch(file="tree/a.c", first=3, last=3, lines=1)],
        ),
    ]
    elsewhere, tree = differences.count(merged)
    assert (elsewhere.tree, elsewhere.reached, elsewhere.lines) == ("elsewhere", 0, 1)
    assert (tree.reached, tree.lines) == (6, 6)
    assert tree.cells == {X: (4, 5), S: (6, 6), P: (5, 6)}


def test_a_file_without_counters_elsewhere_says_nothing() -> None:
    traces = [traced(X, a={1: True}, b={1: True}), traced(S, b={1: True})]
    (only,) = differences.find(differences.merge(traces), traces)
    assert (only.elsewhere, only.stretches[0].file) == (Elsewhere.NOT_COUNTED, "tree/a.c")


def test_the_first_line_of_a_function_is_no_difference() -> None:
    heads = gcov.CountedFile(lines={1: True, 2: True, 9: True}, heads=frozenset({1, 9}))
    traces = [Trace(cell=X, files={"tree/a.c": heads}), traced(S, a={2: False, 9: False})]
    found = differences.find(differences.merge(traces), traces)
    # Of line 1, S has no code; of line 9 it has, and does not reach it.
    assert [(one.elsewhere, [place.first for place in one.stretches]) for one in found] == [
        (Elsewhere.NOT_REACHED, [2])
    ]
    assert found[0].stretches[0].last == 9


def result(cell: str, **more: Any) -> CellResult:
    kernel, arch = cell.rsplit("-", 1)
    known = {"kernel": kernel, "arch": arch, "release": kernel, "variant": None, "accelerator": None}
    return CellResult(**({"cell": cell, "outcome": Outcome.PASSED} | known | more))


def results(*cells: CellResult) -> RunResults:
    return RunResults(run="a-run", command=["echo", "<b>"], started="", cells=list(cells))


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({S}, "only on s390x"),
        ({S, P}, "only on big-endian"),
        ({P}, "only on ppc64"),
        ({X, P}, f"only in {X}, {P}"),
    ],
)
def test_groups_of_cells_have_words(cells: set[str], words: str) -> None:
    others = frozenset({X, S, P} - cells)
    one = PartlyReached(cells=frozenset(cells), others=others, elsewhere=Elsewhere.NOT_REACHED, stretches=[])
    assert index.words_of(one, index.sites_of(results(*map(result, (X, S, P))))) == words


def test_the_page_shows_source_as_text(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a.c").write_text("".join(f"if (a < {number}) <script>\n" for number in range(1, 100)))
    traces = [traced(X, a={3: True}), traced(S, a=dict.fromkeys(range(1, 100), True))]
    merged = differences.merge(traces)
    page = index.render(
        results(result(X), result(S)),
        differences.count(merged),
        index.groups_of(results(result(X), result(S)), differences.find(merged, traces)),
        ["a note"],
        tmp_path,
    )
    assert "<script>" not in page
    assert "<b>" not in page.split("<h2>")[0]
    assert "<b>only on s390x</b>: 98 lines, compiled nowhere else" in page
    assert "tree/a.c:4-99" in page
    assert "... 56 more" in page
    assert "a note" in page


def test_there_may_be_nothing_to_tell(tmp_path: Path) -> None:
    traces = [traced(X, a={3: True})]
    merged = differences.merge(traces)
    page = index.render(
        results(result(X)),
        differences.count(merged),
        index.groups_of(results(result(X), result(S)), differences.find(merged, traces)),
        [],
        tmp_path,
    )
    assert "None: there is one cell." in page


def kept(folder: Path, archive: bytes, kernel: str = "no-kernel") -> Path:
    folder.mkdir(parents=True)
    (folder / counters.COUNTERS).write_bytes(archive)
    (folder / counters.RECORD).write_text(json.dumps({"kernel": kernel}))
    return folder


def written(folder: Path, *cells: CellResult) -> list[str]:
    """The summary of a page of these cells."""
    return anyio.run(report.write, folder / "run", results(*cells), folder / "page", lambda _said: None)


def test_cells_without_counters_are_named(tmp_path: Path) -> None:
    kept(tmp_path / "run" / X, b"")
    with pytest.raises(UnpreparedError, match="no line was counted") as error:
        written(
            tmp_path,
            result(X),
            result(S, outcome=Outcome.PANICKED, detail="a panic"),
            result(P, further=["rest-1"]),
        )
    assert error.value.cause.split("; ") == [
        f"{X} is not counted: its kernel is gone from the cache, and with it what the compiler noted",
        f"{S} is not counted: panicked: a panic",
        f"{P} is not counted: its guest kept no counters",
        f"{P}/rest-1 is not counted: its guest kept no counters",
    ]
    # Nothing half-made stays.
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def stored_kernel(key: str, build: Path) -> None:
    """A kernel in the cache that was built in `build`, from the source that is linked there."""
    folder = artifact.KERNELS.path(key)
    folder.mkdir(parents=True)
    (folder / artifact.CONFIG).write_text("CONFIG_GCOV_KERNEL=y\nCONFIG_GCOV_PROFILE_ALL=y\n")
    (build / artifact.BUILD_STAMP).write_text(key)
    record = artifact.KernelRecord(
        key=key,
        arch="x86_64",
        version="6.1.9",
        release="6.1.9",
        packages=[],
        build=str(build),
        make=["CC=gcc"],
    )
    artifact.write_record(folder, record)


def test_the_page_of_two_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))
    for cell, words in ((X, ["a"]), (S, [])):
        build = compiled(tmp_path / "cache" / cell, words, source=tmp_path / "tree")
        (build / "source").symlink_to(tmp_path / "tree")
        stored_kernel(cell, build)
        archive = packed(tmp_path / "counters.tar", build / "main.gcda")
        kept(tmp_path / "run" / cell, archive.read_bytes(), cell)
    for _ in range(2):  # the second replaces the first
        said = written(tmp_path, result(X), result(S))
    page = tmp_path / "page"
    assert said == [
        f"coverage: {page}/index.html",
        "coverage: 100.0% of 8 lines of linux-6.1.9 ran",
        "coverage: 2 lines only on s390x",
        "coverage: 2 lines only on x86_64",
    ]
    assert "linux-6.1.9/main.c:5" in (page / "index.html").read_text()
    assert f"SF:{tmp_path}/tree/main.c\n" in (page / "coverage.lcov").read_text()
    lines = (page / "coverage.lcov").read_text().partition("SF:")[2]
    assert "\nDA:4,2," in lines
    assert "\nDA:5,1," in lines
    assert {path.name for path in page.iterdir()} == report._FILES
    assert (page / "lines/index.html").is_file()
    (page / "mine").touch()
    with pytest.raises(UsageError, match="is neither new"):
        written(tmp_path, result(X), result(S))
    assert (page / "mine").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cache",
        "counters.tar",
        "page",
        "run",
        "tree",
    ]


def checked(target: Path, **more: Any) -> None:
    report.check(ResultOptions(coverage=str(target), **more))


def test_only_an_own_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page"
    checked(page)
    page.mkdir()
    checked(page)
    (page / report.PAGE).touch()
    with pytest.raises(UsageError, match="neither new"):
        checked(page)
    for name in report._FILES:
        (page / name).touch()
    checked(page)
    (page / "mine").touch()
    with pytest.raises(UsageError, match="neither new, nor empty, nor the page of an earlier run"):
        checked(page)
    (page / "mine").unlink()
    (page / report.PAGE).unlink()
    with pytest.raises(UsageError, match="neither new"):
        checked(page)
    with pytest.raises(UsageError, match="neither new"):
        checked(page / report.LCOV)
    with pytest.raises(UsageError, match="cannot be written"):
        checked(tmp_path / "missing/page")


@pytest.mark.parametrize("more", [{"output": "page"}, {"output": "page/run"}, {"html": "page/a.html"}])
def test_nothing_else_is_written_into_it(
    more: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is in the folder of --coverage"):
        checked(Path("page"), **more)
    with pytest.raises(UsageError, match="is neither new"):
        checked(Path())


def test_a_host_without_gcovr_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(HostError, match="--coverage needs gcovr") as error:
        checked(tmp_path / "page")
    assert error.value.next_step == "`pip install 'quizmatrix[coverage]'` installs it."


def left_by_guest(folder: Path) -> Path:
    (folder / "artifacts").mkdir(parents=True)
    return folder / "artifacts/.quizmatrix-counters.tar"


def test_without_the_extra_it_is_named() -> None:
    """The command says what to install, and does not stumble over an import."""
    script = (
        "import sys\n"
        "for name in ('gcovr', 'jinja2'): sys.modules[name] = None\n"
        "from quizmatrix.cli import main\n"
        "sys.argv = ['quizmatrix', 'run', '--only', '6.1-x86_64', '--coverage', '/tmp/page', '--', 'true']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 125, done.stderr
    assert "--coverage needs gcovr" in done.stderr
    assert "Traceback" not in done.stderr


def test_counters_are_taken_out_of_shared(tmp_path: Path) -> None:
    left = left_by_guest(tmp_path)
    spec = made_spec.spec(tmp_path, counters=True)
    assert counters.keep(spec) == []
    assert counters.load(tmp_path) is None
    left.write_bytes(b"counters")
    assert counters.keep(spec) == []
    assert (tmp_path / counters.COUNTERS).read_bytes() == b"counters"
    assert counters.load(tmp_path) == counters.CountersRecord(kernel="key")
    assert not left.exists()


def test_no_link_is_taken_for_counters(tmp_path: Path) -> None:
    left_by_guest(tmp_path).symlink_to("/etc/passwd")
    (note,) = counters.keep(made_spec.spec(tmp_path, counters=True))
    assert note.startswith("its counters of lines were not kept: ")
    assert not (tmp_path / counters.COUNTERS).exists()


def test_a_damaged_record_is_told_of(tmp_path: Path) -> None:
    (kept(tmp_path / X, b"") / counters.RECORD).write_text("{")
    with pytest.raises(QuizmatrixError, match="cannot be read"):
        counters.load(tmp_path / X)
