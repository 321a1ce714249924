"""The page docs/modules-of-debian.md: which packages and cells its tables have, and how they are written."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quizmatrix.build.parts import Done
from tests.dkms_oracle import DkmsBuild, Oracle

PAGE = Path(__file__).parents[1] / "docs/modules-of-debian.md"

# What stands between these lines is written anew.
_BEGIN, _END = "<!-- written by make check-modules -->", "<!-- end -->"

# The packages, without -dkms.
PACKAGES = (
    *("v4l2loopback", "vpoll", "dm-writeboost", "apfs", "acpi-call", "ddcci"),
    *("digimend", "evdi", "jool", "lttng-modules", "rapiddisk", "xtables-addons"),
)
# The others of Debian 12's main, for the first kernel only. Without openafs-modules, whose configure compiles
# some hundred modules, one by one, which takes as long as all the rest.
OTHERS = (
    *("adv-17v35x", "bbswitch", "dahdi", "dpdk-kmods", "falcosecurity-scap", "gost-crypto"),
    *("iptables-netflow", "langford", "librem-ec-acpi", "lime-forensics", "nat-rtsp"),
    *("openrazer-driver", "openvpn-dco", "rtpengine-kernel", "tp-smapi", "west-chamber", "xtrx"),
)
# The cells, and what their columns are called.
CELLS = {
    "6.1-x86_64": "6.1 x86_64",
    "6.1-s390x": "6.1 s390x",
    "6.12-x86_64": "6.12 x86_64",
    "debian-source:6.1-x86_64": "built 6.1 x86_64",
}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one package in one cell.

    modules: the names of what was built. loaded: those that modprobe loads. why: the first error, or why it
    is not for this kernel, or what modprobe or the guest said of the first module that is not loaded.
    """

    done: Done
    modules: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()
    why: str = ""

    @property
    def words(self) -> str:
        """A table's cell."""
        if self.done not in (Done.BUILT, Done.REUSED):
            return str(self.done)
        if self.modules == self.loaded:
            return "loaded" if len(self.modules) == 1 else f"loaded ({len(self.modules)})"
        return f"built, {len(self.loaded)} of {len(self.modules)} loaded"


# By package and cell.
Outcomes = dict[str, dict[str, Outcome]]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the page says of how its tables were made.

    minutes, oracle_minutes: how long building and loading took, and dkms. releases: the kernels', by column.
    versions: the packages'.
    """

    date: str
    minutes: int
    oracle_minutes: int
    releases: dict[str, str]
    versions: dict[str, str]


def write(facts: Facts, oracles: dict[str, Oracle], first: Outcomes, others: Outcomes) -> None:
    """Replace the page's tables."""
    text = PAGE.read_text()
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    parts = [
        _made(facts, oracles),
        table(facts, oracles, first),
        reasons(first),
        "## The others",
        "The other packages of Debian 12 whose names end in -dkms, without openafs-modules, a slow one.",
        table(facts, oracles, others),
        reasons(others),
    ]
    written = "\n\n".join([_BEGIN, *parts, _END])
    PAGE.write_text(f"{before}{written}{after}")


def _made(facts: Facts, oracles: dict[str, Oracle]) -> str:
    kernels = ", ".join(f"{release} ({name})" for name, release in facts.releases.items())
    tools = "; ".join(
        f"for {CELLS[cell]} dkms {oracle.versions['dkms']}, gcc {oracle.versions['gcc']}"
        for cell, oracle in oracles.items()
    )
    return (
        f"Made on {facts.date} by `make check-modules`, in {facts.minutes} minutes, and "
        f"{facts.oracle_minutes} for dkms. The kernels: {kernels}. dkms: {tools}."
    )


def table(facts: Facts, oracles: dict[str, Oracle], outcomes: Outcomes) -> str:
    """A table of Markdown: a row for each package, a column for each cell, and dkms's own results."""
    cells = list(next(iter(outcomes.values())))
    native = [cell for cell in cells if cell in oracles]
    rows = [["package", *(CELLS[cell] for cell in cells), *(f"dkms, {CELLS[cell]}" for cell in native)]]
    rows.append(["---"] * len(rows[0]))
    for package, found in outcomes.items():
        theirs = [_dkms_words(oracles[cell].builds[f"{package}-dkms"]) for cell in native]
        name = f"{package} {facts.versions[package]}"
        rows.append([name, *(found[cell].words for cell in cells), *theirs])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _dkms_words(build: DkmsBuild) -> str:
    return f"built ({len(build.modules)})" if len(build.modules) > 1 else str(build.verdict)


def _code(text: str) -> str:
    """Text as code of Markdown, which may have backticks itself."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def reasons(outcomes: Outcomes) -> str:
    """A list of Markdown: why packages are not built, or not loaded; a reason of several cells once."""
    lines = []
    for package, cells in outcomes.items():
        alike: dict[str, list[str]] = {}
        for cell, outcome in cells.items():
            if outcome.why:
                alike.setdefault(outcome.why, []).append(CELLS[cell])
        lines += [f"- {package}, {', '.join(names)}: {_code(why)}" for why, names in alike.items()]
    return "\n".join(lines)
