"""Builds and loads what Debian 12 packages for DKMS, for docs/modules-of-debian.md: `make check-modules`.

Debian's own dkms(8) is the measure: whatever it builds for a kernel has to be built by `module build`, too.
The exit status is 1 where something is not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import anyio

from quizmatrix.build.module.build import ModuleOptions
from quizmatrix.build.module.module import Module, find_module
from quizmatrix.build.module.package import obtain
from quizmatrix.build.module.sweep import ModuleSweep
from quizmatrix.build.parts import Done, PartResult
from quizmatrix.core import paths, process
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.text import clean_line
from quizmatrix.kernel import buildlayer
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.model.cellid import folder_name
from quizmatrix.model.cells import Cell, cells_on_the_spot
from quizmatrix.model.matrix import Limits
from quizmatrix.prepare.preparer import Policy, Preparer
from tests import dkms_oracle, linkedcache
from tests.dkms_oracle import Oracle, Verdict
from tests.modules_page import CELLS, OTHERS, PACKAGES, Facts, Outcome, Outcomes, write

# Packages that are built from another's source, too, which Debian's `Depends` installs.
WITH = {"west-chamber": ["xtables-addons"]}
# Those for which dkms itself can build on this host.
NATIVE = ("6.1-x86_64", "6.12-x86_64")

# Says of each module whether it can be loaded.
_LOAD = """for name in {}; do
    if said=$(modprobe "$name" 2>&1); then echo "loaded $name"; else echo "refused $name" $said; fi
done"""


async def outcomes_of(packages: Iterable[str], cells: list[Cell], scratch: Path) -> Outcomes:
    """Build packages for cells, one package after the other, and load them in their guests."""
    preparer = Preparer(Policy())
    found: Outcomes = {}
    for package in packages:
        module = await module_of(package)
        others = [await module_of(name) for name in WITH.get(package, [])]
        sweep = ModuleSweep([*others, module], ModuleOptions(), preparer, process.usable_cpus(), tell)
        built = {one.cell: one.results[-1] for one in await sweep.run(cells)}
        found[package] = loaded(module, built, scratch / package)
        for cell, outcome in found[package].items():
            print(f"{package}, {cell}: {outcome.words} {outcome.why}", flush=True)
    return found


async def module_of(package: str) -> Module:
    """The source in Debian 12's package of this name, as `module build` takes it."""
    (folder,) = await obtain(f"apt:{package}-dkms/bookworm", print, is_offline=False)
    return find_module(str(folder))


def tell(_cell: str, _said: str) -> None:
    """Progress is not printed; each package's result is."""


def loaded(module: Module, built: dict[str, PartResult], folder: Path) -> dict[str, Outcome]:
    """What became of a package that was built for these cells; one guest of each loads all its modules."""
    names = {
        cell: frozenset(buildlayer.module_names(result.built.layer))
        for cell, result in built.items()
        if result.built is not None
    }
    outcomes = {
        cell: Outcome(done=result.done, why=reason(result, module.path))
        for cell, result in built.items()
        if cell not in names
    }
    if names:
        script = _LOAD.format(" ".join(sorted(frozenset.union(*names.values()))))
        argv = [sys.executable, "-m", "quizmatrix", "run", "-q", "--only", ",".join(names)]
        subprocess.run([*argv, "--output", str(folder), "--", script], check=False, stdout=subprocess.DEVNULL)
        results = json.loads((folder / "results.json").read_bytes())
        for one in results["cells"]:
            said = (folder / folder_name(one["cell"]) / "stdout").read_text(errors="replace")
            cell, modules = one["cell"], names[one["cell"]]
            now = frozenset(re.findall(r"^loaded (\S+)$", said, re.MULTILINE))
            refused = dict(re.findall(r"^refused (\S+) (.*)$", said, re.MULTILINE))
            whys = [refused[name] for name in sorted(modules & refused.keys())]
            if one["outcome"] != "passed":
                whys.insert(0, f"{one['outcome']}: {one['detail']}")
            outcomes[cell] = Outcome(
                done=Done.BUILT, modules=modules, loaded=modules & now, why=clean_line("".join(whys[:1]))
            )
    return {cell: outcomes[cell] for cell in built}


def reason(result: PartResult, folder: Path) -> str:
    """Why a build made no modules: the compiler's first error, or what dkms.conf says. folder: its source."""
    error = result.error
    if error is None:
        return clean_line(result.why)
    # The options of the kernel that it misses, where that is known.
    options = [line.strip() for line in error.next_step.splitlines() if "CONFIG_" in line]
    said = (error.cause or str(error)).replace(f"{folder}/", "")
    said = clean_line(re.sub(r"/\S+/trees/[^/\s]+/", "/", said))
    return "; ".join([said, *map(clean_line, options[:1])])


def missed(outcomes: Outcomes, oracles: dict[str, Oracle]) -> list[str]:
    """What dkms builds and `module build` does not: a line for each."""
    lines = []
    for package, cells in outcomes.items():
        for cell, oracle in oracles.items():
            if cell not in cells or oracle.builds[f"{package}-dkms"].verdict is not Verdict.BUILT:
                continue
            names = {name.replace("-", "_") for name in oracle.builds[f"{package}-dkms"].modules}
            if lacking := names - cells[cell].modules:
                why = cells[cell].why
                lines.append(f"{package}, {cell}: dkms builds {', '.join(sorted(lacking))}; {why}")
    return lines


async def check(scratch: Path) -> list[str]:
    """Ask dkms, build, load, and write the page; returns what dkms builds and `module build` does not."""
    began = time.monotonic()
    cells = [one for name in CELLS for one in cells_on_the_spot([name], Limits())]
    kernels = await kernels_of(cells)
    debs = scratch / "debs"
    debs.mkdir()
    packages = await dkms_oracle.fetch([f"{name}-dkms" for name in (*PACKAGES, *OTHERS)], debs)
    versions = {deb.name.split("_")[0].removesuffix("-dkms"): version_of(deb) for deb in packages}
    twelve = [deb for deb, name in zip(packages, versions, strict=True) if name in PACKAGES]
    oracles = {
        cell: await dkms_oracle.ask(kernels[cell].record.release, debs)
        for cell, debs in zip(NATIVE, (packages, twelve), strict=True)
    }
    asked = time.monotonic()
    # Not before: what stays has paths of the user's cache in it.
    linkedcache.link(paths.cache_dir(), scratch / "cache", without=("modules", "build-layers"))
    first = await outcomes_of(PACKAGES, cells, scratch)
    others = await outcomes_of(OTHERS, cells[:1], scratch)
    facts = Facts(
        date=datetime.now(UTC).date().isoformat(),
        minutes=round((time.monotonic() - asked) / 60),
        oracle_minutes=round((asked - began) / 60),
        releases={CELLS[cell]: kernel.record.release for cell, kernel in kernels.items()},
        versions=versions,
    )
    write(facts, oracles, first, others)
    return missed(first | others, oracles)


async def kernels_of(cells: list[Cell]) -> dict[str, Kernel]:
    """The kernels of cells, with what modules are built against, by the cells' ids."""
    preparer = Preparer(Policy())
    pool = JobServer(process.usable_cpus())
    try:
        return {cell.id: await preparer.kernel(cell, print, pool=pool) for cell in cells}
    finally:
        pool.close()


def version_of(deb: Path) -> str:
    """The version in a .deb's name."""
    return deb.name.split("_")[1].replace("%3a", ":")


def main() -> int:
    """Check all; the modules that are built do not get into the guests of the user's own runs."""
    with tempfile.TemporaryDirectory(dir=paths.cache_dir()) as name:
        lines = anyio.run(check, Path(name))
    print("\n".join(lines) or "Whatever dkms builds is built.")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
