"""The variant `kunit`: a kernel's own KUnit tests, and a failing one of the user's. Real builds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 3000

# A suite with a case that passes, one that fails, one that is skipped, and one with parameters.
SUITE = """
#include <kunit/test.h>
#include <linux/module.h>
static void frob_good(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, 1 + 1, 2);
}
static void frob_bad(struct kunit *test)
{
	KUNIT_EXPECT_EQ_MSG(test, 1 + 1, 3, "ok, this is only said");
}
static void frob_skip(struct kunit *test)
{
	kunit_skip(test, "no frob here");
}
static const int numbers[] = { 2, 3, 4 };
KUNIT_ARRAY_PARAM(frob, numbers, NULL);
static void frob_even(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, *(const int *)test->param_value % 2, 0);
}
static struct kunit_case cases[] = {
	KUNIT_CASE(frob_good), KUNIT_CASE(frob_bad), KUNIT_CASE(frob_skip),
	KUNIT_CASE_PARAM(frob_even, frob_gen_params), {}
};
static struct kunit_suite suite = { .name = "quizmatrix-frob", .test_cases = cases };
kunit_test_suite(suite);
MODULE_LICENSE("GPL");
"""


@pytest.mark.timeout(LIMIT)
def test_kunit(tmp_path: Path) -> None:
    cell = "debian-source:6.1-x86_64+kunit"

    def quizmatrix(*argv: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "quizmatrix", *argv],
            env=dict(os.environ) | {"QUIZMATRIX_STATE_DIR": str(tmp_path / "state")},
            capture_output=True,
            check=False,
        )

    def run(*command: str) -> tuple[int, str, dict[str, str]]:
        place = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        done = quizmatrix("run", "--only", cell, "--output", str(place), "--", *command)
        (found,) = json.loads((place / "results.json").read_bytes())["cells"]
        (listed,) = place.glob("*/subtests.json")
        tests = json.loads(listed.read_bytes())
        return done.returncode, found["detail"], {test["name"]: test["outcome"] for test in tests}

    # Built-in tests ran before the command.
    status, detail, booted = run("true")
    assert (status, detail) == (0, "")
    assert booted["binfmt_elf/total_mapping_size_test"] == "passed"
    status, detail, named = run("modprobe", "kunit-example-test")
    assert (status, detail) == (0, "")
    assert {name: outcome for name, outcome in named.items() if name not in booted} == {
        "example/example_simple_test": "passed",
        "example/example_skip_test": "skipped",
        "example/example_mark_skipped_test": "skipped",
        "example/example_all_expect_macros_test": "passed",
    }
    status, detail, named = run("modprobe kunit-example-test && dmesg")
    assert (status, detail) == (0, "")
    assert not [name for name in named if name.endswith(" (2)")]

    source = tmp_path / "frob"
    source.mkdir()
    (source / "Kbuild").write_text("obj-m := quizmatrix_frob.o\n")
    (source / "quizmatrix_frob.c").write_text(SUITE)
    try:
        done = quizmatrix("module", "build", str(source), "--only", cell)
        assert done.returncode == 0, done.stderr
        for command in ("modprobe quizmatrix_frob", "modprobe quizmatrix_frob; dmesg; dmesg"):
            status, detail, named = run(command)
            total = len(booted) + 6
            assert (status, detail) == (1, f"2 of {total} tests failed")
            assert {name: outcome for name, outcome in named.items() if name not in booted} == {
                "quizmatrix-frob/frob_good": "passed",
                "quizmatrix-frob/frob_bad": "failed",
                "quizmatrix-frob/frob_skip": "skipped",
                "quizmatrix-frob/frob_even/param-0": "passed",
                "quizmatrix-frob/frob_even/param-1": "failed",
                "quizmatrix-frob/frob_even/param-2": "passed",
            }
        # The command of the profile: one suite by its name, all of a module's, all that there are.
        status, detail, named = run("kunit", "quizmatrix-frob")
        assert (status, detail) == (1, "tests: 14 passed, 2 failed, 1 skipped")
        status, detail, named = run("kunit", "example")
        assert (status, detail) == (0, "")
        assert named["example/example_simple_test"] == "passed"
        assert "quizmatrix-frob/frob_good" not in named
        status, detail, everything = run("kunit")
        assert status == 1
        assert named.keys() | {"quizmatrix-frob/frob_bad"} < everything.keys()
        assert {name for name in everything if everything[name] == "failed"} == {
            "quizmatrix-frob/frob_bad",
            "quizmatrix-frob/frob_even/param-1",
        }
        status, _, named = run("kunit", "no-such-suite")
        assert (status, named) == (2, booted)
    finally:
        quizmatrix("module", "remove", str(source))
