"""KTAP between a kernel's other lines: on the console, in dmesg's output, and in both."""

import io
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.model.outcome import Outcome
from quizmatrix.subtests.reading import parse
from quizmatrix.subtests.summary import Subtests
from tests.unit.test_subtests import judged, read

# KUnit of 6.1 with a module of three cases, one of them with parameters. Before it what the boot printed:
# KUnit built in, with no suite of its own.
BOOT = """\
Linux version 6.1.192 (quizmatrix@quizmatrix)
KTAP version 1
1..0
Run /init as init process
"""
MODULE = """\
    KTAP version 1
    # Subtest: frobs
    1..3
    # frob_simple: initializing
    ok 1 frob_simple
random: crng init done
        KTAP version 1
        # Subtest: frob_params
        ok 1 one
        not ok 2 two
    # frob_params: pass:1 fail:1 skip:0 total:2
    not ok 2 frob_params
    ok 3 frob_skip # SKIP no frob here
# frobs: pass:1 fail:1 skip:1 total:3
not ok 1 frobs
"""
ROWS = {
    "frobs/frob_simple": "passed",
    "frobs/frob_params/one": "passed",
    "frobs/frob_params/two": "failed",
    "frobs/frob_skip": "skipped",
}
GOOD = "KTAP version 1\n1..3\nok 1 a\nok 2 b\nok 3 c\n"


def stamped(text: str, begin: float = 1.0, caller: str = "") -> str:
    """The text as printk writes it to a console."""
    return "".join(
        f"[{begin + number / 1000:12.6f}]{caller} {line}\r\n" for number, line in enumerate(text.splitlines())
    )


def on_console(console: str, output: str = "", *, console_is_whole: bool = True) -> Subtests:
    streams = io.BytesIO(output.encode()), io.BytesIO(console.encode())
    return parse(*streams, console_is_whole=console_is_whole)


def rows(found: Subtests) -> dict[str, str]:
    return {test.name: str(test.outcome) for test in found.tests}


def dated(text: str) -> str:
    return re.sub(r"\[ +(\d+)\.(\d+)\]", r"[Sat Nov 28 14:51:0\1 2026]", text)


@pytest.mark.parametrize(
    "written",
    [
        lambda text: text,
        stamped,
        lambda text: stamped(text, caller="[    T1]"),
        lambda text: stamped(text, caller=" [  C12]"),
        lambda text: "".join(f"<6>{line}\n" for line in text.splitlines()),
        lambda text: "".join(f"<6>{line}\n" for line in stamped(text).splitlines()),
        lambda text: "".join(f"kern  :info  : {line}\n" for line in stamped(text).splitlines()),
        lambda text: dated(stamped(text)),
        lambda text: re.sub(r"\[ +(\d+)\.(\d+)\]", r"2026-11-28T14:51:0\1,\2+00:00", stamped(text)),
        lambda text: re.sub(r"\[ +(\d+\.\d+)\]", r"[\1 <    0.000012>]", stamped(text)),
        lambda text: re.sub(r"^(?! )", "frob: ", text, flags=re.MULTILINE).replace("\n ", "\nfrob:  "),
        lambda text: re.sub(r"\] ", "] frob_test: ", stamped(text)),
    ],
    ids=[
        "plain",
        "time",
        "caller",
        "caller-apart",
        "raw",
        "raw-time",
        "x",
        "T",
        "iso",
        "d",
        "named",
        "named-time",
    ],
)
def test_what_stands_before_a_kernels_lines(written: Callable[[str], str]) -> None:
    text = written(f"KTAP version 1\n1..1\n{MODULE}")
    assert rows(on_console(text)) == ROWS
    assert on_console(text).failure == "1 of 4 tests failed"
    assert on_console("", text).counts == (read("").counts if "frob: " in text else on_console(text).counts)
    # A test that is printed twice, and also on the console, counts once.
    assert rows(on_console(text, text * 2)) == ROWS or "[" not in text
    assert on_console(text, text).counts == on_console(text).counts


def test_of_the_boot_a_module_and_both() -> None:
    assert on_console(stamped(BOOT)) == Subtests()
    assert on_console("", stamped(BOOT)).failure == ""
    whole = stamped(BOOT) + stamped(MODULE, 3)
    for found in (on_console(whole), on_console("", whole), on_console(whole, whole)):
        assert rows(found) == ROWS
        assert found.missing == 0
    # The command's own tests count, too, and it is not hidden that it ran none.
    both = on_console(whole, f"1..1\nok 1 mine\n{whole}")
    assert rows(both) == {"mine": "passed", **ROWS}
    assert on_console(stamped(GOOD), "TAP version 13\n").failure == "no test ran"
    assert on_console(stamped(GOOD), "1..2\nok 1 a\n").failure == "1 of 4 tests did not run"


def test_built_in_and_loaded_twice() -> None:
    built_in = f"KTAP version 1\n1..1\n{MODULE.replace('not ok', 'ok')}"
    again = MODULE.replace("ok 1 frobs", "ok 2 frobs")
    assert rows(on_console(stamped(built_in))).keys() == ROWS.keys()
    found = on_console(stamped(built_in) + stamped(again, 5))
    assert found.counts == {"passed": 5, "failed": 1, "skipped": 2}
    assert rows(found)["frobs/frob_params/two (2)"] == "failed"
    # If a test ended differently in the output and on the console, the worse outcome counts.
    assert rows(on_console(stamped(built_in), f"KTAP version 1\n{MODULE}")) == ROWS
    assert rows(on_console(stamped(MODULE), built_in)) == ROWS


def test_parts_of_a_stream() -> None:
    lines = stamped(GOOD).splitlines(keepends=True)
    head, tail = "".join(lines[:-1]), "".join(lines[-2:])
    # The complete text on the console wins over the part that the command shows.
    assert on_console(stamped(GOOD), head).failure == ""
    assert on_console(stamped(GOOD), tail).failure == ""
    assert on_console(stamped(GOOD), tail).counts == {"passed": 3}
    # Both in the output and on the console, all announced tests have to be there.
    assert on_console("", head).failure == "1 of 3 tests did not run"
    assert on_console(head).failure == "1 of 3 tests did not run"
    # A ring buffer that has lost its beginning.
    kept = "".join(stamped(MODULE).splitlines(keepends=True)[4:])
    assert rows(on_console(stamped(MODULE), kept)) == ROWS
    assert on_console("", kept).counts.get("failed") == 1


@pytest.mark.parametrize(
    ("console", "failure"),
    [
        # An incomplete line: the guest died there, or the console was read too early.
        ("KTAP version 1\n1..2\nok 1 a\nok 2 b", "1 of 2 tests did not run"),
        ("KTAP version 1\n1..2\nok 1 a\nnot ok 2 b", "1 of 2 tests failed"),
        ("KTAP version 1\n1..2\nok 1 a\nnot o", "1 of 2 tests did not run"),
        ("KTAP version 1\n1..1", ""),
        ("KTAP version 1\n1..2\nok 1 a\nok 2 took [    0.000001] s\n", ""),
        # Text without a line feed stands before it on the same line.
        ("KTAP version 1\n1..2\nok 1 a\nwaiting ...[    1.000009] not ok 2 b\n", "1 of 2 tests failed"),
        ("KTAP version 1\n1..2\nok 1 a[    1.000009] not ok 2 b\n", "1 of 2 tests failed; 1 of 2"),
        # A line that was not announced, or has no number, is no result.
        ("ok 1 then\nnot ok\n", ""),
        ("KTAP version 1\n1..1\nok 1 a\nnot ok at all\nok\n", ""),
        (
            "KTAP version 1\n1..3\nBail out! no frobs\n",
            "the tests bailed out: no frobs; 3 of 3 tests did not run",
        ),
    ],
)
def test_cut_and_mixed_lines(console: str, failure: str) -> None:
    assert on_console(console).failure.startswith(failure)
    assert bool(failure) is bool(on_console(console).failure)


KSELFTEST = """\
TAP version 13
1..4
# timeout set to 45
# selftests: timers: frobtimers
# TAP version 13
# 1..3
# # Testing frobtimers. # False negatives may happen
# ok 1 first
# not ok 2 second
# ok 3 third # SKIP no clock
# # Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0
not ok 1 selftests: timers: frobtimers # exit=1
# selftests: frob: nested
# 1..2
# # TAP version 13
# # 1..2
# # ok 1 - deep
# # # 1..1
# # # not ok 1 deeper # XFAIL known
# # ok 2 deepest
# ok 1 inside
# ok 2 other # a comment
ok 2 selftests: frob: nested
# selftests: frob: free.sh
# 1..5
# ok this is no result
# not ok, neither is this
ok 3 selftests: frob: free.sh
# selftests: frob: skipped
# TAP version 13
# 1..5
# ok 1 # SKIP not root
ok 4 selftests: frob: skipped # SKIP
"""


def test_the_programs_of_kselftest() -> None:
    expected = {
        "selftests: timers: frobtimers/first": "passed",
        "selftests: timers: frobtimers/second": "failed",
        "selftests: timers: frobtimers/third": "skipped",
        "selftests: frob: nested/inside/deep": "passed",
        "selftests: frob: nested/inside/deepest/deeper": "skipped",
        "selftests: frob: nested/other": "passed",
        "selftests: frob: free.sh": "passed",
        "selftests: frob: skipped/test 1": "skipped",
    }
    expected["selftests: frob: nested/inside/deepest/deeper"] = "skipped"
    assert rows(read(KSELFTEST)) == expected
    assert read(KSELFTEST).failure == "1 of 8 tests failed"
    assert rows(on_console(stamped(KSELFTEST))) == expected
    # Comments are comments, also in output that is no TAP, and in streams that are only indented.
    assert (
        read(
            KSELFTEST.replace("TAP version 13\n1..4\n", "", 1).replace("\nok", "\n~").replace("\nnot", "\n~")
        )
        == Subtests()
    )
    short = "TAP version 13\n1..1\n# TAP version 13\n# 1..3\n# ok 1 a\nok 1 s\n"
    assert read(short).failure == "2 of 3 tests did not run"
    quoted = "KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n# 1..7\n# not ok 1 x\n  # not ok 1 y\n"
    quoted += "  ok 1 a\nok 1 s\n"
    assert rows(read(quoted)) == {"s/a": "passed"}
    assert read(quoted).failure == ""


@pytest.mark.parametrize(
    ("console", "exit_code", "outcome", "detail"),
    [
        (stamped(GOOD), 0, Outcome.PASSED, ""),
        (stamped(MODULE), 0, Outcome.FAILED, "1 of 4 tests failed"),
        (stamped(MODULE), 2, Outcome.FAILED, "tests: 2 passed, 1 failed, 1 skipped"),
        (stamped(BOOT), 0, Outcome.PASSED, ""),
    ],
)
def test_the_verdict(console: str, exit_code: int, outcome: Outcome, detail: str) -> None:
    assert judged(on_console(console), exit_code) == (outcome, detail)


def test_a_console_that_is_not_all_there() -> None:
    assert (
        on_console(stamped(GOOD), console_is_whole=False).failure
        == "there were more test results than are read"
    )
    assert on_console("nothing here\n", console_is_whole=False) == Subtests()
    cut = parse(io.BytesIO(b"1..3\n" + b"ok\n" * 9), max_lines=5)
    assert cut.failure == "there were more test results than are read"
    assert parse(io.BytesIO(b"ok\n" * 9), max_lines=5) == Subtests()


def test_a_flood_on_the_console() -> None:
    flood = b"".join(b"[%5d.%06d] not ok %d x%d\n" % (n // 1000, n, n, n) for n in range(5050))
    found = parse(io.BytesIO(flood), io.BytesIO(b"KTAP version 1\n" + flood), max_named=5000)
    assert len(found.tests) == 5000
    assert found.counts == {"failed": 5050}
    assert found.limits == ["of 5,050 tests the first 5,000 are kept by name"]
    names = b"KTAP version 1\n" + b"".join(
        b"m%d: KTAP version 1\nm%d: not ok 1 a\n" % (n, n) for n in range(900)
    )
    assert parse(io.BytesIO(), io.BytesIO(names)).counts["failed"] <= 64


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes(output: bytes, console: bytes) -> None:
    begun = b"[    1.000000] KTAP version 1\n[    1.000001] 1..2\n[    1.000002] ok 1 a\n"
    found = parse(io.BytesIO(begun + output), io.BytesIO(begun + console))
    assert found.is_known
    assert len({test.name for test in found.tests}) == len(found.tests)
