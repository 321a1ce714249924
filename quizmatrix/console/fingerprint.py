"""Fingerprints of findings: the same finding has the same one in every cell and every run.

Addresses, offsets, line numbers, CPU and process numbers, process names, times and module lists differ
between two occurrences. Registers and the depth of inlining differ between architectures. A fingerprint is
therefore made of the kind, the words of the title and the names of the innermost functions of the trace.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

from quizmatrix.model.finding import FindingKind

# Number of innermost functions in a fingerprint. More would make it depend on the callers.
_FUNCTIONS_USED = 3
# Hexadecimal digits of a fingerprint.
_DIGITS = 12

# `name+0xoffset/0xsize [module]`: the kernel's %pS, on every architecture.
_SYMBOL = (
    r"(?P<name>\.?[A-Za-z_][\w.$]*)\+0x(?P<offset>[0-9a-f]+)/0x(?P<size>[0-9a-f]+)(?: \[(?P<module>[\w-]+))?"
)
SYMBOL = re.compile(_SYMBOL)
# A line of a trace. Before the name: addresses ([<...>] on s390x, two of them on powerpc); then a parenthesis
# (s390x) or `? ` (x86) if the function may not be a caller.
FRAME = re.compile(rf"\s*(?P<maybe>\()?(?:\[<?[0-9a-f]+>?\]\s*)*(?P<doubt>\? )?{_SYMBOL}")
# The line that names the function that was running.
RUNNING = re.compile(
    r"\s*(?:RIP: 00(?:10|08):|Krnl PSW : [0-9a-f]+ [0-9a-f]+ \(|NIP \[[0-9a-f]+\] |e?pc : |ERA: [0-9a-f]+ "
    rf"|PC is at ){_SYMBOL}"
)
_ZFS_AT = re.compile(r"(?:PANIC at |SPLError: [\d:]+\()[^:\s]+:\d+:(\w+)\(\)")
# The line with the return address of that function, its caller: powerpc's trace lacks the caller of a leaf
# function.
_RETURN_ADDRESS = re.compile(rf"\s*(?:LR \[[0-9a-f]+\] |lr : |ra : |ra: [0-9a-f]+ |LR is at ){_SYMBOL}")
# After these lines come traces of earlier events.
_OTHER_TRACES = re.compile(
    r"(?:Allocated|Freed) by |Last (?:potentially|Breaking-Event)|Uninit was (?:stored|created)"
)
_AFTER_INTERRUPT = re.compile(r"\s*</(?:IRQ|NMI)>|--- interrupt")
_INTERRUPTED = frozenset(
    {FindingKind.RCU_STALL, FindingKind.SOFT_LOCKUP, FindingKind.HARD_LOCKUP, FindingKind.HANG}
)

# Suffixes that a compiler adds to names, and prefixes that an architecture adds to system calls.
_SUFFIX = re.compile(r"\.(?:cold|isra|constprop|part|llvm|lto_priv|\d)[\w.]*$")
_SYSCALL = re.compile(r"(?:__(?:x64|ia32|arm64|s390x?|riscv|powerpc|loongarch|se|do|compat)_|k)?sys_(\w+)$")

# Functions that report, wait or enter the kernel. They occur in traces of all kinds of findings.
_MACHINERY = re.compile(
    r"(?:dump_stack\w*|show_(?:stack|regs|trace)\w*|v?panic|__warn\w*|warn_slowpath\w*|report_bug\w*|handle_bug"
    r"|exc_\w+|asm_\w+|do_(?:error_)?trap\w*|do_invalid_op|invalid_op|(?:__)?die\w*|oops_\w+|page_fault_oops"
    r"|\w*bad_area\w*|no_context|do_(?:user_addr|kern_addr|page)_fault|handle_page_fault|___?do_page_fault"
    r"|bad_page_fault|data_access_\w+|program_check\w*|pgm_check\w*|__do_pgm_check|monitor_event_\w+"
    r"|illegal_op|do_dat_exception|do_protection_exception|el[01]\w*|bug_handler|brk_handler|do_el\w+"
    r"|call_break_hook|do_debug_exception|do_mem_abort|do_translation_fault|handle_exception\w*"
    r"|print_\w*(?:report|bug|address_description|unlock_imbalance)\w*|_*kasan_\w+|_*asan_\w+|kcsan_\w+"
    r"|__tsan_\w+|_*k?msan_\w+|kfence_\w+|check_region_inline|check_memory_region"
    r"|_*ubsan_\w+|handle_overflow|refcount_warn_saturate|_*fortify_(?:panic|report)|__stack_chk_fail"
    r"|usercopy_abort|__list_\w+_(?:valid|valid_or_report)"
    r"|check_(?:noncircular|irq_usage|prev_\w+|deadlock|usage\w*)|validate_chain|mark_(?:lock\w*|usage|held\w*)"
    r"|_*lock_(?:acquire|release)|lockdep_\w+|valid_state|register_lock_class|assign_lock_key"
    r"|_{2,3}might_\w+|__schedule_bug|__schedule|schedule\w*|io_schedule\w*|context_switch|_?_?switch_to\w*"
    r"|_switch|preempt_schedule\w*|rcu_(?:gp_\w+|\w*(?:stall|dump|sched_clock)\w*)|print_\w*stall\w*|check_cpu_stall"
    r"|\w*cpu_backtrace\w*|\w*cpumask_backtrace\w*|update_process_times|tick_\w+|\w*hrtimer_\w+|enqueue_hrtimer"
    r"|\w*apic_timer_interrupt|sysvec_\w+|__sysvec_\w+|timer_interrupt|\w*do_irq\w*|do_IRQ|\w*ext_int\w*"
    r"|watchdog_\w+|perf_event_overflow|nmi_handle|default_do_nmi|\w+_nmi|end_repeat_nmi"
    r"|spl_(?:panic|dumpstack|debug_\w+|assert)|v?cmn_err|do_syscall\w*|entry_\w+|__do_syscall|system_call\w*"
    r"|invoke_syscall|x64_sys_call|handle_syscall|ret_from_\w+|kernel_thread_starter|kthread"
    r"|exit_to_\w+|irqentry_\w+|interrupt_return\w*)$"
)


def plain_name(name: str) -> str:
    """A function's name as in the source, without powerpc's leading dot and compilers' suffixes."""
    name = _SUFFIX.sub("", name.lstrip("."))
    return _SYSCALL.sub(r"sys_\1", name)


def is_machinery(name: str) -> bool:
    """Whether a function (plain name) only reports, waits or enters the kernel."""
    return _MACHINERY.match(name) is not None


def functions(kind: FindingKind, title: str, lines: list[str]) -> list[str]:
    """The plain names of the functions in a trace, the innermost first, without machinery."""
    sure: list[str] = []
    doubtful: list[str] = []
    if at := SYMBOL.search(title):
        sure.append(at["name"])
    named = len(sure)
    has_run = False
    for line in lines:
        if _OTHER_TRACES.match(line):
            break
        running = RUNNING.match(line)
        # Drop the functions so far: the interrupted functions come after those that report the stall, and
        # lockdep's own trace comes after the traces of where the locks were taken.
        if (
            kind in _INTERRUPTED and not has_run and (running or _AFTER_INTERRUPT.match(line))
        ) or "stack backtrace:" in line:
            del sure[named:]
        has_run |= running is not None
        if zfs := _ZFS_AT.match(line):
            sure.append(zfs[1])
            continue
        match = running or (has_run and _RETURN_ADDRESS.match(line)) or FRAME.match(line)
        # A return address at offset 0 belongs to the function before it, whose last instruction was a call
        # that never returns.
        if not match or (running is None and int(match["offset"], 16) == 0):
            continue
        caller = match.groupdict()
        is_doubtful = caller.get("maybe") or caller.get("doubt") or "(unreliable)" in line
        (doubtful if is_doubtful else sure).append(match["name"])
    names = dict.fromkeys(plain_name(name) for name in sure)
    telling = [name for name in names if not is_machinery(name)]
    if not telling:
        telling = [name for name in dict.fromkeys(map(plain_name, doubtful)) if not is_machinery(name)]
    return telling


# Only the title counts. KCSAN's title has both functions, and which trace comes first is random. panic()
# never returns: its return address may lie in the next function, whose name is then in the trace.
_TITLE_TELLS = frozenset({FindingKind.KCSAN, FindingKind.PANIC})


def fingerprint(kind: FindingKind, title: str, names: list[str]) -> str:
    """The fingerprint: equal for the same finding in any cell and run. names: from `functions`."""
    top = [] if kind in _TITLE_TELLS else names[:_FUNCTIONS_USED]
    text = "\n".join([kind, _words(kind, title), *top])
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_DIGITS]


# Each architecture has its own words for an access to an invalid address.
_BAD_ACCESS = re.compile(
    r"BUG: (?:[Uu]nable to handle|[Kk]ernel NULL)|(?:CPU \d+ )?Unable to handle kernel"
    r"|(?:Internal error: )?Oops\b"
)
_BUG_AT = re.compile(r"[Kk]ernel BUG at (\S+):\d+")
_WARNING_AT = re.compile(r"WARNING: .*?(\S+\.[chSs]):\d+")
_REPLACEMENTS = (
    (re.compile(r"failed \(.*"), "failed"),  # the values that VERIFY3() compared
    (re.compile(r"\[[^\]]*\]"), ""),  # [comm:pid], [#1], [module]
    (re.compile(r"\btask \S+?[:/]\d+"), "task"),
    (re.compile(r"\bprocess \S+"), "process"),
    (re.compile(r"(?<=WARNING: )\S+(?=/\d+ still has)"), ""),
    (re.compile(r"(?<=, )\S+/\d+\b"), ""),  # comm/pid
    (re.compile(r"(?<=atomic: )\S+"), ""),
    (re.compile(r"(?<![\w.+/-])[\w.+/-]*/([\w.+-]+)"), r"\1"),  # a file name, without its folder
    (re.compile(r"\b(?:0x[0-9a-f]+|(?=[a-f]*\d)[0-9a-f]{4,})\b|\d+"), "#"),
    (re.compile(r"\s+"), " "),
)


def _words(kind: FindingKind, title: str) -> str:
    """A title without the parts that differ between occurrences."""
    if kind in _INTERRUPTED or kind is FindingKind.HUNG_TASK:
        return ""
    if match := _BUG_AT.match(title):
        return f"BUG {PurePosixPath(match[1]).name}"
    if kind is FindingKind.OOPS and _BAD_ACCESS.match(title) and "BUG" not in title[5:]:
        return "bad access"
    if kind is FindingKind.WARNING and (match := _WARNING_AT.match(title)):
        return PurePosixPath(match[1]).name
    title = SYMBOL.sub(lambda match: plain_name(match["name"]), title)
    for pattern, instead in _REPLACEMENTS:
        title = pattern.sub(instead, title)
    return title.strip()
