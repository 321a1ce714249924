"""What follows from findings: verdict, the matrix's allowed list, source lines, report."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from quizmatrix.console import symbols
from quizmatrix.console.watch import ConsoleWatch
from quizmatrix.core import process
from quizmatrix.core.errors import DataError
from quizmatrix.core.json import to_json
from quizmatrix.kernel import artifact
from quizmatrix.model.arch import host_arch
from quizmatrix.model.cells import cells_on_the_spot, expand
from quizmatrix.model.finding import Finding, FindingKind, SplatPolicy, Tolerance
from quizmatrix.model.matrix import Limits, load_matrix
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult
from quizmatrix.report.findings import allowed, important_lines, other_paragraphs
from quizmatrix.report.grid import explanations, whole
from quizmatrix.run import findings
from quizmatrix.run.channel import Message
from quizmatrix.run.verdict import Evidence, Rules, judge
from tests.made_spec import spec

CONSOLES = Path(__file__).parent / "consoles"
LINE = "WARNING: CPU: 0 PID: 1 at here.c:1"
WARNING = f"{LINE}\n Call Trace:\n here_it_is+0x1/0x2\n".encode()


def watch(text: bytes) -> ConsoleWatch:
    console = ConsoleWatch()
    console.feed(text)
    console.finish()
    return console


def verdict(text: bytes, tolerance: Tolerance, exit_code: int = 0) -> tuple[Outcome, str]:
    ended = Message(event="exited", exit_code=exit_code)
    return judge(Evidence(ended=ended, rules=Rules(tolerance=tolerance)), watch(text))


@pytest.mark.parametrize(
    ("splat", "outcome", "detail"),
    [
        ("fail", "splat", LINE),
        ("warn", "passed", f"the kernel complained: {LINE}"),
        ("ignore", "passed", ""),
    ],
)
def test_what_a_finding_means(splat: str, outcome: str, detail: str) -> None:
    assert verdict(WARNING, Tolerance(splat=SplatPolicy(splat))) == (outcome, detail)
    assert verdict(WARNING, Tolerance(splat=SplatPolicy(splat)), 3) == ("failed", "")


def fingerprint_of(text: bytes) -> str:
    return watch(text).findings[0].fingerprint


@pytest.mark.parametrize("allow", [r"at here\.c", "^here_it", fingerprint_of(WARNING)])
def test_what_is_allowed_is_no_news(allow: str) -> None:
    tolerance = Tolerance(allow=("nothing like it", allow))
    assert verdict(WARNING, tolerance) == ("passed", "")
    assert verdict(WARNING + b"BUG: another\n", tolerance) == ("splat", "BUG: another")
    assert [finding.allowed for finding in tolerance.apply(watch(WARNING).findings)] == [True]


def test_a_panic_is_never_allowed() -> None:
    oops = (CONSOLES / "ppc64-oops.txt").read_bytes()
    assert verdict(oops, Tolerance(splat=SplatPolicy.IGNORE, allow=(".",)))[0] is Outcome.PANICKED
    assert not Tolerance(allow=(".",)).apply(watch(oops).findings)[0].allowed


def test_findings_are_counted() -> None:
    assert verdict(WARNING * 3 + b"BUG: x\n", Tolerance()) == ("splat", f"{LINE} (and 3 more)")


def test_what_was_not_read_is_not_allowed() -> None:
    allowed = Tolerance(allow=("here",))
    assert verdict(f"{LINE}\n".encode() * 2100, allowed)[0] is Outcome.SPLAT


BASE = 'kernels = ["6.1"]\narches = ["x86_64", "s390x"]\n'


def test_the_matrix_decides(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(
        BASE + 'splat = "warn"\nallow-splats = ["a.*b", "0123456789ab"]\n[arch.s390x]\nsplat = "ignore"\n'
    )
    matrix = load_matrix(path)
    found = {cell.arch: cell.tolerance for cell in expand(matrix, "m")}
    allow = ("a.*b", "0123456789ab")
    assert found["x86_64"] == Tolerance(splat=SplatPolicy.WARN, allow=allow)
    assert found["s390x"] == Tolerance(splat=SplatPolicy.IGNORE, allow=allow)
    (cell,) = cells_on_the_spot(["6.12-x86_64"], Limits(), matrix)
    assert cell.tolerance == found["x86_64"]
    assert cells_on_the_spot(["6.12-x86_64"], Limits())[0].tolerance == Tolerance()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('splat = "perhaps"', "line 3: `splat`: invalid enum value 'perhaps'"),
        ('allow-splats = ["fine", "(bad"]', r"line 3: `allow-splats`: `\(bad` is not a regular expression"),
        ('allow-splats = [""]', "an empty one would allow everything"),
        ('allow-splat = ["x"]', "unknown key `allow-splat`"),
    ],
)
def test_what_a_matrix_may_not_say(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(BASE + text + "\n")
    with pytest.raises(DataError, match=said):
        load_matrix(path)


def result(cell: str, outcome: str, folder: Path, text: bytes, tolerance: Tolerance) -> CellResult:
    """Make a cell's folder, as in a run directory, with `text` on its console."""
    found = tolerance.apply(watch(text).findings)
    (folder / cell).mkdir()
    (folder / cell / findings.FILE).write_bytes(to_json(found))
    fields: dict[str, Any] = {"variant": None, "accelerator": None, "detail": found[0].title if found else ""}
    kernel, arch = cell.rsplit("-", 1)
    summaries = [finding.summary for finding in found]
    return CellResult(
        cell=cell,
        kernel=kernel,
        arch=arch,
        release="6.1.192",
        outcome=Outcome(outcome),
        findings=summaries,
        **fields,
    )


def test_cells_with_one_finding_share_a_paragraph(tmp_path: Path) -> None:
    results = [
        result(f"6.1-{arch}", "splat", tmp_path, (CONSOLES / f"{arch}-warning.txt").read_bytes(), Tolerance())
        for arch in ("x86_64", "ppc64")
    ]
    assert explanations(results, tmp_path).splitlines() == [
        f"6.1-x86_64, 6.1-ppc64: splat: {results[0].findings[0].title}",
        "    the count is 7",
        f"    {results[0].findings[0].title}",
        "      provoke_warn.constprop.0+0x15/0x19 [provoke]",
        "      provoke_init+0x21/0x1000 [provoke]",
        "      do_one_initcall+0x65/0x156",
        "      do_init_module+0x4a/0x1b2",
        "      load_module+0x16b5/0x1826",
        "      __do_sys_finit_module+0xa4/0xb4",
        f"    fingerprint: {results[0].findings[0].fingerprint} (warning)",
        f"  logs: {tmp_path}/{{6.1-x86_64,6.1-ppc64}}/",
    ]


def test_findings_beside_the_outcome_are_told(tmp_path: Path) -> None:
    warn = Tolerance(splat=SplatPolicy.WARN, allow=("known",))
    known = b"WARNING: CPU: 0 PID: 1 at known.c:1\n"
    results = [
        result("6.1-x86_64", "passed", tmp_path, WARNING + known, warn),
        result("6.1-s390x", "timed-out", tmp_path, WARNING, warn),
        result("6.1-ppc64", "passed", tmp_path, known, warn),
    ]
    print_ = fingerprint_of(WARNING)
    assert other_paragraphs(results, tmp_path).splitlines() == [
        "6.1-x86_64 (passed), 6.1-s390x (timed-out): the kernel complained",
        f"    {LINE}",
        "      here_it_is+0x1/0x2",
        f"    fingerprint: {print_} (warning)",
    ]
    assert "the kernel complained" in whole(results, tmp_path, 1.0)
    assert allowed(results) == (
        f"allowed: 6.1-x86_64, 6.1-ppc64: WARNING: CPU: 0 PID: 1 at known.c:1 ({fingerprint_of(known)})"
    )


def test_a_folder_without_findings_is_told_of_by_what_the_results_say(tmp_path: Path) -> None:
    one = result("6.1-x86_64", "splat", tmp_path, WARNING, Tolerance())
    (tmp_path / "6.1-x86_64" / findings.FILE).write_bytes(b"{")
    assert important_lines(one.findings[0], tmp_path / "6.1-x86_64")[0] == LINE


SOURCE = """
static int __attribute__((noinline)) twice(int *p) { return *(volatile int *)p; }
int inner(int *p) { return twice(p) + 1; }

int outer(int *p)
{
        int n = inner(p);

        return n * 2;
}

int main(int argc, char **argv) { (void)argv; return outer(&argc); }
"""


@pytest.mark.parametrize(
    ("prefix", "dot", "options"),
    [
        ("x86_64-linux-gnu-", "", []),
        ("s390x-linux-gnu-", "", []),
        ("powerpc64-linux-gnu-", ".", ["-mcall-aixdesc"]),  # as its kernel is built
    ],
)
def test_functions_are_traced_to_their_lines(
    prefix: str, dot: str, options: list[str], tmp_path: Path
) -> None:
    if not shutil.which(f"{prefix}gcc"):
        pytest.skip(f"no {prefix}gcc")
    (tmp_path / "fs").mkdir()
    (tmp_path / "fs/inode.c").write_text(SOURCE)
    elf = tmp_path / "vmlinux"
    source = str(tmp_path / "fs/inode.c")
    build = [f"{prefix}gcc", *options, "-nostdlib", "-static", "-Wl,-e,outer", "-O0", source, "-o", str(elf)]
    subprocess.run(build, check=True)
    frame = f"{dot}outer+0x20/0x40"
    block = [f" {frame}", " never+0x1/0x2", f" {dot}inner+0x8/0x30 [module]"]
    one = Finding(
        kind=FindingKind.BUG, title="BUG: x", line=0, block=block, functions=["outer"], fingerprint="0" * 12
    )

    def decode(prefix: str) -> dict[str, str]:
        return anyio.run(symbols.decode, [one], elf, prefix)[0].places

    assert not symbols.has_lines(elf)
    assert decode(prefix) == {}
    subprocess.run([*build, "-g"], check=True)
    assert symbols.has_lines(elf)
    place = decode(prefix)
    assert list(place) == [frame]
    assert place[frame] in ("fs/inode.c:6", "fs/inode.c:7", "fs/inode.c:9")
    if process.find_program("addr2line"):
        # The host's own tools read it too.
        assert decode("no-such-prefix-") == place


def test_symbols_of_a_kernel_that_was_built_in_its_place_are_not_its(tmp_path: Path) -> None:
    """The developer edits and builds in the same folder while a long test runs."""
    (tmp_path / "inode.c").write_text(SOURCE)
    elf = tmp_path / "vmlinux"
    build = ["gcc", "-g", "-nostdlib", "-static", "-Wl,-e,outer", "-O0", str(tmp_path / "inode.c")]
    subprocess.run([*build, "-o", str(elf)], check=True)
    cell = spec(tmp_path, host_arch().name, key="ours", symbols=str(elf))
    console = watch(WARNING.replace(b"here_it_is+0x1/0x2", b"outer+0x20/0x40"))

    def places() -> dict[str, str]:
        anyio.run(findings.write_findings, cell, console.findings)
        return findings.load(tmp_path)[0].places

    assert places() == {}  # it is being built in
    (tmp_path / artifact.BUILD_STAMP).write_text("another")
    assert places() == {}
    (tmp_path / artifact.BUILD_STAMP).write_text("ours")
    assert list(places()) == ["outer+0x20/0x40"]


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 100, b"\x7fELF\x02\x02" + b"\0" * 100]
)
def test_what_is_no_kernel_has_no_lines(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(data)
    assert not symbols.has_lines(tmp_path / "vmlinux")
    assert not symbols.has_lines(tmp_path / "absent")


def test_places_are_shown_behind_the_functions(tmp_path: Path) -> None:
    one = result("6.1-x86_64", "splat", tmp_path, WARNING, Tolerance())
    (found,) = findings.load(tmp_path / "6.1-x86_64")
    known = msgspec.structs.replace(found, places={"here_it_is+0x1/0x2": "fs/inode.c:7"})
    (tmp_path / "6.1-x86_64" / findings.FILE).write_bytes(to_json([known]))
    shown = important_lines(one.findings[0], tmp_path / "6.1-x86_64")
    assert shown[1] == "  here_it_is+0x1/0x2  (fs/inode.c:7)"
