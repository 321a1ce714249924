"""Findings on consoles: kinds, blocks, functions and fingerprints, on all architectures, in any bytes."""

import itertools
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quizmatrix.console.titles import title_of, without_time
from quizmatrix.console.watch import ConsoleWatch
from quizmatrix.model.finding import Finding, FindingKind

CONSOLES = Path(__file__).parent / "consoles"


def findings(text: str | bytes) -> list[Finding]:
    watch = ConsoleWatch()
    watch.feed(text if isinstance(text, bytes) else text.encode())
    watch.finish()
    return watch.findings


def sample(name: str) -> Finding:
    (found,) = findings((CONSOLES / f"{name}.txt").read_bytes())
    return found


class Case(NamedTuple):
    """What a sample must give: the beginnings of title and last line of the block, and the functions."""

    title: str
    last: str
    functions: tuple[str, ...]


NULL = ("provoke_null", "provoke_init", "do_one_initcall")
EXPORT = ("cv_wait_common", "txg_wait_synced_impl", "txg_wait_synced")
CASES = {
    "x86_64-panic": Case("Kernel panic - not syncing: provoked", " </TASK>", ("provoke_panic",)),
    "ppc64-panic": Case("Kernel panic - not syncing: provoked", "--- interrupt: 3000", ("provoke_panic",)),
    "s390x-panic": Case("Kernel panic - not syncing: provoked", " [<0000000000534c62>]", ("provoke_panic",)),
    "x86_64-oops": Case("BUG: kernel NULL pointer", "---[ end trace", ("provoke_list", "provoke_init")),
    "s390x-oops": Case("Unable to handle kernel pointer", "Kernel panic", ("provoke_list", "provoke_init")),
    "aarch64-oops": Case("Unable to handle kernel NULL", "---[ end trace", NULL),
    "riscv64-oops": Case("Unable to handle kernel NULL", "---[ end trace", NULL),
    "loongarch64-oops": Case("CPU 0 Unable to handle kernel", "---[ end trace", NULL),
    "s390x-bug-on": Case("kernel BUG at", "Kernel panic", ("provoke_bug", "do_one_initcall")),
    "x86_64-warning": Case("WARNING: CPU: 0 PID: 73 at", "---[ end trace", ("provoke_warn", "provoke_init")),
    "s390x-warning": Case("WARNING: CPU: 0", "---[ end trace", ("provoke_warn", "provoke_init")),
    "x86_64-zfs-panic": Case("VERIFY3(a == b)", " </TASK>", ("provoke_verify", "provoke_init")),
    "s390x-zfs-panic": Case("VERIFY3(a == b)", " [<0000000000534c62>]", ("provoke_verify", "provoke_init")),
    "ppc64-zfs-panic": Case("VERIFY3(a == b)", "--- interrupt", ("provoke_verify", "provoke_init")),
    "x86_64-kasan": Case("BUG: KASAN: use-after-free", "=====", ("provoke_uaf", "provoke_init")),
    "s390x-kasan": Case("BUG: KASAN: use-after-free", "=====", ("provoke_uaf", "provoke_init")),
    "x86_64-kcsan": Case("BUG: KCSAN: data-race in", "=====", ("arc_evict_state",)),
    "x86_64-ubsan": Case("UBSAN: array-index", "=====", ("zap_leaf_lookup", "fzap_lookup")),
    "x86_64-lockdep": Case("WARNING: possible circular", " </TASK>", ("_raw_spin_lock", "provoke_ba")),
    "x86_64-hung-task": Case("INFO: task zpool:1234", "INFO: lockdep is turned off", EXPORT),
    "s390x-hung-task": Case("INFO: task zpool:77", " [<000003ff8034b2d6>]", EXPORT),
    "x86_64-soft-lockup": Case("watchdog: BUG: soft lockup", " </TASK>", ("provoke_spin", "provoke_init")),
    "ppc64-soft-lockup": Case("watchdog: BUG: soft lockup", "7c0802a6", ("provoke_spin", "provoke_init")),
    "x86_64-hard-lockup": Case("watchdog: Watchdog detected", " </TASK>", ("provoke_spin",)),
    "x86_64-rcu-stall": Case("rcu: INFO: rcu_sched self", " </TASK>", ("arch_get_unmapped_area_topdown",)),
    "x86_64-bug": Case("BUG: sleeping function", " </TASK>", ("kmem_cache_alloc", "provoke_atomic")),
    "ppc64-oops": Case("BUG: Kernel NULL pointer", "---[ end trace", NULL),
    "ppc64-warning": Case("WARNING: CPU: 0", "---[ end trace", ("provoke_warn", "provoke_init")),
    "x86_64-bug-on": Case("kernel BUG at", "---[ end trace", ("provoke_bug",)),
    "ppc64-bug-on": Case("kernel BUG at", "---[ end trace", ("provoke_bug", "provoke_init")),
}


def test_every_sample_is_read() -> None:
    assert {path.stem for path in CONSOLES.glob("*.txt")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_sample(name: str) -> None:
    case, found = CASES[name], sample(name)
    assert found.kind == ("oops" if name.endswith("-bug-on") else name.split("-", 1)[1])
    assert found.title.startswith(case.title)
    assert found.block[-1].startswith(case.last)
    assert tuple(found.functions[: len(case.functions)]) == case.functions


SAME = (
    ("x86_64-panic", "s390x-panic", "ppc64-panic"),
    ("x86_64-bug-on", "s390x-bug-on"),
    ("x86_64-oops", "s390x-oops"),
    ("aarch64-oops", "riscv64-oops", "loongarch64-oops", "ppc64-oops"),
    ("x86_64-warning", "s390x-warning", "ppc64-warning"),
    ("x86_64-zfs-panic", "s390x-zfs-panic", "ppc64-zfs-panic"),
    ("x86_64-kasan", "s390x-kasan"),
    ("x86_64-hung-task", "s390x-hung-task"),
    ("x86_64-soft-lockup", "ppc64-soft-lockup"),
)


@pytest.mark.parametrize("names", SAME)
def test_one_finding_has_one_fingerprint_on_every_architecture(names: tuple[str, ...]) -> None:
    assert len({sample(name).fingerprint for name in names}) == 1


def test_other_findings_have_other_fingerprints() -> None:
    shared = sum(len(names) - 1 for names in SAME)
    assert len({sample(name).fingerprint for name in CASES}) == len(CASES) - shared


CHANGES = (
    ("CPU: 0", "CPU: 11"),
    ("CPU#2", "CPU#0"),
    ("PID: ", "PID: 4"),
    ("Comm: insmod", "Comm: kworker/u4:2"),
    ("[insmod:91]", "[sh:4]"),
    ("task insmod/85", "task sh/1"),
    ("zpool:1234", "kworker/1:0:99"),
    ("ffff8880", "ffff9271"),
    ("+0x", "+0x1"),
    ("/0x", "/0x2"),
    ("stuck for 26s", "stuck for 900s"),
    ("address: 0000000000000008", "address: 00000000000000f0"),
    ("(1 == 5)", "(18446744073709551615 == 0)"),
    ("provoke(O+)", "zfs(PO) spl(O)"),
    ("c:15 ", "c:99 "),
    ("/home/me/zfs/", "../"),
)


@pytest.mark.parametrize("name", CASES)
def test_what_differs_from_time_to_time_is_not_in_the_fingerprint(name: str) -> None:
    text = (CONSOLES / f"{name}.txt").read_text()
    for old, new in CHANGES:
        text = text.replace(old, new)
    text = "\n".join(without_time(line) for line in text.split("\n"))
    assert [found.fingerprint for found in findings(text)] == [sample(name).fingerprint]


def test_one_thing_happens_often() -> None:
    (found,) = findings((CONSOLES / "x86_64-warning.txt").read_bytes() * 30)
    assert (found.count, found.line) == (30, 4)


def test_lines_of_others_come_between() -> None:
    lines = (CONSOLES / "s390x-oops.txt").read_text().splitlines()
    mixed = "\n".join(itertools.chain(*((line, "[    9.9] virtio_blk: a driver's word") for line in lines)))
    (found,) = findings(mixed)
    assert found.fingerprint == sample("s390x-oops").fingerprint
    assert found.block[-1].startswith("Kernel panic")


def test_a_finding_without_a_trace_is_its_line() -> None:
    (found,) = findings("BUG: Bad rss-counter state mm:00000000 val:3\n" + "[    1.0] ordinary\n" * 99)
    assert found.block == ["BUG: Bad rss-counter state mm:00000000 val:3"]


def test_several_findings_follow_each_other() -> None:
    names = ("x86_64-kasan", "x86_64-lockdep", "s390x-warning", "ppc64-zfs-panic", "aarch64-oops")
    found = findings(b"".join((CONSOLES / f"{name}.txt").read_bytes() for name in names))
    assert [one.fingerprint for one in found] == [sample(name).fingerprint for name in names]


def test_an_oops_does_not_become_a_panic_too() -> None:
    text = (CONSOLES / "x86_64-oops.txt").read_text()
    (found,) = findings(text + "[   3.0] Kernel panic - not syncing: Fatal exception\n")
    assert found.kind is FindingKind.OOPS


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (
            "general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
            FindingKind.OOPS,
        ),
        ("divide error: 0000 [#1] PREEMPT SMP NOPTI", FindingKind.OOPS),
        ("monitor event: 0040 ilc:2 [#1] SMP", FindingKind.OOPS),
        ("specification exception: 0006 ilc:2 [#1] SMP", FindingKind.OOPS),
        ("Oops: Exception in kernel mode, sig: 5 [#1]", FindingKind.OOPS),
        ("BUG: Unable to handle kernel data access on read at 0xc00000000", FindingKind.OOPS),
        ("Internal error: synchronous external abort: 96000410 [#1] SMP", FindingKind.OOPS),
        ("Kernel bug detected[#1]:", FindingKind.OOPS),
        ("traps: PANIC: double fault, error_code: 0x0", FindingKind.OOPS),
        ("PANIC: blkptr at 000000005d6c4b4c has invalid CHECKSUM 0", FindingKind.ZFS_PANIC),
        ("SPLError: 23061:0:(zfs_znode.c:432:zfs_znode_alloc()) SPL PANIC", FindingKind.ZFS_PANIC),
        ("ASSERT3U(a, <, b) failed (3 < 2)", FindingKind.ZFS_PANIC),
        ("BUG: KFENCE: use-after-free read in f+0x1/0x2", FindingKind.KFENCE),
        ("BUG: KMSAN: uninit-value in f+0x1/0x2", FindingKind.KMSAN),
        ("BUG kmalloc-64 (Tainted: G           O     ): Redzone overwritten", FindingKind.BUG),
        ("[ BUG: Invalid wait context ]", FindingKind.LOCKDEP),
        ("INFO: trying to register non-static key.", FindingKind.LOCKDEP),
        ("watchdog: CPU 4 Hard LOCKUP", FindingKind.HARD_LOCKUP),
        ("watchdog: CPU 4 self-detected hard LOCKUP @ f+0x1/0x2", FindingKind.HARD_LOCKUP),
        (
            "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-... } 21 jiffies",
            FindingKind.RCU_STALL,
        ),
        ("INFO: task sh:1 blocked in I/O wait for more than 120 seconds.", FindingKind.HUNG_TASK),
        ("usb 1-1: found device [#1] of two", None),
        ("traps: sh[12] general protection fault ip:1 sp:2 error:0", None),
        ("WARNING: Pool 'tank' has encountered an uncorrectable I/O failure", None),
    ],
)
def test_titles(line: str, kind: FindingKind | None) -> None:
    title = title_of(line)
    assert (title.kind if title else None) is kind


SAMPLES = [path.read_bytes() for path in sorted(CONSOLES.glob("*.txt"))]
PIECES = st.lists(
    st.one_of(
        st.sampled_from(SAMPLES),
        st.sampled_from(b"".join(SAMPLES).splitlines(keepends=True)),
        st.binary(max_size=60),
        st.sampled_from([b"x" * 9000, b"[" * 5000, b"\0\xff\r\n", b"BUG: " + b"a" * 5000 + b"\n"]),
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=50)
@given(PIECES, st.data())
def test_any_bytes_in_any_pieces(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    watch = ConsoleWatch()
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        watch.feed(text[start:end])
    watch.finish()
    assert watch.findings == findings(text)


def test_a_guest_that_prints_without_end_is_read_to_a_point() -> None:
    watch = ConsoleWatch()
    for number in range(3000):
        name = f"f{chr(97 + number % 26)}{chr(97 + number // 26 % 26)}"
        watch.feed(f"BUG: KASAN: use-after-free in {name}+0x1/0x2\n".encode())
    watch.feed(b" f+0x1/0x2\n" * 100_000)
    watch.finish()
    assert len(watch.findings) == 40
    assert watch.unread > 2000
    assert sum(len(line) for found in watch.findings for line in found.block) < 100_000
