"""Measures speed against other tools, on this host: `make bench`.

Every comparison is interleaved, so that a machine that is busy for a while is busy for both.
Prints the median of each figure and whether the target is met; exits with 1 where one is not.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import anyio
import msgspec
from tabulate import tabulate

from quizmatrix.core import paths, process
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.model import cells
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.matrix import Limits
from quizmatrix.model.spec import CellSpec
from quizmatrix.model.task import in_each
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import specify
from quizmatrix.run import qemu, runlayer

# Started as a file, not as a module: its folder is on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ROUNDS = 7
BUILT = "debian-source:6.1"
BUILT_CELLS = [f"{BUILT}-{arch}" for arch in ("x86_64", "s390x", "ppc64")]
DEBIAN = ("--image", "debian")
# As it is typed.
QUIZMATRIX = [str(Path(sys.executable).with_name("quizmatrix"))]
# The cell whose kernel has every way of reading.
READING = "6.1-x86_64"
NINE_P = "trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose"
# Where Debian's qemu-system-common has the daemon.
VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
VIRTME = Path(__file__).parents[1] / ".bench-venv"


def timed(action: Callable[[], object]) -> float:
    """Seconds of wall time."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


def cpu_of(argv: list[str]) -> tuple[float, float]:
    """Wall time, and CPU time of the process and all that it started and awaited, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = timed(
        lambda: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def run_in(cell: str, *options: str) -> None:
    """`true` in one cell, including Python's start."""
    subprocess.run([*QUIZMATRIX, "run", "--only", cell, "--offline", *options, "--", "true"], check=True)


def specified(cell_id: str, folder: Path, command: str = "true") -> tuple[CellSpec, Kernel]:
    """The QEMU command line of quizmatrix for `command` in this cell."""
    (cell,) = cells.cells_on_the_spot([cell_id], Limits())
    preparer = Preparer(Policy())
    prepared = anyio.run(preparer.prepare, cell, lambda text: print(f"  {text}"))
    answer = anyio.run(preparer.accelerator, cell, prepared, None)
    (task,) = in_each([cell], [command])
    spec = anyio.run(partial(specify, task, prepared, answer.accelerator, folder=folder))
    return spec, prepared.kernel


def interleaved(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float]:
    """The median seconds of both, measured in turns, so that a busy host affects both."""
    pairs = [(timed(theirs), timed(ours)) for _ in range(ROUNDS)]
    return statistics.median(own for _, own in pairs), statistics.median(other for other, _ in pairs)


def bare_qemu(spec: CellSpec, more: Sequence[str] = ()) -> str:
    """The same command line and `more`, from its start until the guest says that the command has ended.

    Returns the command's output.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = msgspec.structs.replace(spec.files, folder=name)
        _bare_qemu(msgspec.structs.replace(spec, files=files), folder, more)
        return (folder / "stdout").read_text()


def _bare_qemu(spec: CellSpec, folder: Path, more: Sequence[str]) -> None:
    control = folder / "control"
    os.mkfifo(f"{control}.in")
    os.mkfifo(f"{control}.out")
    shares = runlayer.write_run_layer(spec, "")
    null = "file,path=/dev/null"
    output = f"file,path={folder}/stdout"
    chardevs = {"console": null, "stdout": output, "stderr": null, "control": f"pipe,path={control}"}
    argv = [*qemu.command_line(spec, shares, chardevs), *more]
    # Opened for reading and writing, so that opening does not block.
    to_guest = os.open(f"{control}.in", os.O_RDWR)
    from_guest = os.open(f"{control}.out", os.O_RDWR)
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        os.write(to_guest, b'{"op":"start"}\n')
        said = b""
        while b'"exited"' not in said:
            said += os.read(from_guest, 4096)
        process.kill()
    os.close(to_guest)
    os.close(from_guest)


def against_bare_qemu(
    cell: str, target: float, start: str = "--cold", by_hand: Callable[[CellSpec], object] = bare_qemu
) -> list[str]:
    """One row: the time that quizmatrix adds to QEMU alone, which `by_hand` starts in the same way."""
    with tempfile.TemporaryDirectory() as name:
        spec, _ = specified(cell, Path(name))
    own, bare = interleaved(lambda: run_in(cell, start), lambda: by_hand(spec))
    return row(
        f"`true` in {cell} ({spec.machine.accelerator}), {start}",
        f"{own:.2f} s",
        f"bare QEMU {bare:.2f} s",
        f"{own - bare:+.2f} s",
        f"at most +{target} s",
        own - bare <= target,
    )


def against_debian(arch: str) -> list[str]:
    """One row: the kernel that was built for microVMs, and Debian's of the same version."""
    own, debian = interleaved(
        lambda: run_in(f"{BUILT}-{arch}", "--cold"), lambda: run_in(f"6.1-{arch}", "--cold")
    )
    return row(
        f"`true` in {BUILT}-{arch}",
        f"{own:.2f} s",
        f"Debian's kernel {debian:.2f} s",
        f"{own / debian:.2f} times",
        "at most 0.5 times",
        own / debian <= 0.5,
    )


def debian_image(cell: str, start: str = "--cold", target: float = 1.0) -> list[str]:
    """One row: the time that a Debian image adds to the small image."""
    own, small = interleaved(lambda: run_in(cell, *DEBIAN, start), lambda: run_in(cell, start))
    return row(
        f"`true` in {cell}, --image debian, {start}",
        f"{own:.2f} s",
        f"the small image {small:.2f} s",
        f"{own - small:+.2f} s",
        f"at most +{target} s",
        own - small <= target,
    )


def shell_words(cell: str, *options: str) -> list[str]:
    """The command line of `true` in a session of `shell`."""
    return [*QUIZMATRIX, "shell", cell, *DEBIAN, "--offline", *options, "--", "true"]


def shell_start(cell: str, start: str = "--cold", target: float | None = None) -> list[str]:
    """One row: from a typed `shell` to the end of `true` in its session, over `run -- true`."""
    argv = shell_words(cell, start)
    own, run = interleaved(
        lambda: subprocess.run(argv, check=True, stdin=subprocess.DEVNULL),
        lambda: run_in(cell, *DEBIAN, start),
    )
    return row(
        f"`shell -- true` in {cell}, {start}",
        f"{own:.2f} s",
        f"run {run:.2f} s",
        f"{own - run:+.2f} s",
        "-" if target is None else f"at most +{target} s",
        target is None or own - run <= target,
    )


def reading(cell: str, size: int = 200) -> list[list[str]]:
    """A row for each way from the host into a guest: the reading of one file of `size` MB, not compressible.

    By the guest's own clock, the medians of all ways taken in turns.
    """
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        folder = top / "folder"
        folder.mkdir()
        (folder / "file").write_bytes(os.urandom(size * 1_000_000))
        disk = top / "disk"
        subprocess.run(
            ["mksquashfs", folder, disk, "-quiet", "-no-progress", "-noD"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        ways = {
            "9p": f"mount -t 9p -o {NINE_P} folder /mnt",
            "a block image": "mount -t squashfs -o ro $(echo /dev/vd?) /mnt",
        }
        if VIRTIOFSD.exists():
            ways["virtiofs"] = "modprobe virtiofs; mount -t virtiofs folder /mnt"
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for way in list(ways) * 3:
            seconds[way].append(_read_once(cell, way, ways[way], folder, disk))
    medians = {way: statistics.median(times) for way, times in seconds.items()}
    best = min(medians, key=lambda way: medians[way])
    return [
        row(
            f"{size} MB read in {cell} from {way}",
            f"{median:.2f} s",
            f"{best} {medians[best]:.2f} s",
            f"{median / medians[best]:.1f} times",
            "-",
            True,
        )
        for way, median in medians.items()
    ]


def _read_once(cell: str, way: str, mount: str, folder: Path, disk: Path) -> float:
    script = f"""set -e; mkdir -p /mnt; modprobe virtio_blk; modprobe squashfs; {mount}
        read begin rest </proc/uptime; cat /mnt/file >/dev/null; read end rest </proc/uptime
        echo $begin $end"""
    with tempfile.TemporaryDirectory() as name:
        spec, _ = specified(cell, Path(name), script)
        transport = spec.machine.arch.facts.qemu.transport
        if way == "virtiofs":
            more = _virtiofs(Path(name) / "socket", spec.machine.memory, transport)
            argv = [
                str(VIRTIOFSD),
                f"--socket-path={name}/socket",
                "-o",
                f"source={folder}",
                "-o",
                "sandbox=chroot",
            ]
            with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as daemon:
                while not (Path(name) / "socket").exists():
                    if daemon.poll() is not None:
                        raise SystemExit(f"{VIRTIOFSD} ended with {daemon.returncode}")
                    time.sleep(0.01)
                said = bare_qemu(spec, more)
                daemon.kill()
        elif way == "9p":
            more = ["-fsdev", f"local,id=folder,path={folder},security_model=none,readonly=on"]
            said = bare_qemu(spec, [*more, "-device", f"virtio-9p-{transport},fsdev=folder,mount_tag=folder"])
        else:
            more = [
                "-blockdev",
                f"driver=raw,node-name=image,read-only=on,file.driver=file,file.filename={disk}",
            ]
            said = bare_qemu(spec, [*more, "-device", f"virtio-blk-{transport},drive=image"])
    begin, end = (float(word) for word in said.split())
    return end - begin


# A tree in the folder the command is run in, which is read as it is on the host at that moment, and the same
# one in a mount that keeps in the guest what it has once read: each with nothing of it in the guest's memory,
# and again.
_READ_TREES = r"""
    up() { read -r now rest </proc/uptime; echo $now; }
    cat_all() { find "$1" -type f -print0 | xargs -0 cat >/dev/null; }
    umount /mnt/bound; mkdir /l /u; mount -t tmpfs u /u; mkdir /u/u /u/w /m
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro,cache=loose bind0 /l
    mount -t overlay -o lowerdir=/l,upperdir=/u/u,workdir=/u/w m /m
    for round in 1 2 3 4 5; do for tree in "$PWD" /m; do
        echo 3 >/proc/sys/vm/drop_caches
        first=$(up); cat_all "$tree"; again=$(up); cat_all "$tree"; echo $first $again $(up)
    done; done"""


def reading_a_tree(cell: str) -> list[list[str]]:
    """Two rows: the reading of a work tree, this package and its tests, and what caching it would save."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        skipped = shutil.ignore_patterns("__pycache__")
        for folder in ("quizmatrix", "tests"):
            # Not in the folder where `python -m` would look for the package.
            shutil.copytree(Path(__file__).parents[1] / folder, tree / "copy" / folder, ignore=skipped)
        count = sum(path.is_file() for path in tree.rglob("*"))
        argv = [*QUIZMATRIX, "run", "--only", cell, "--offline", "--bind", f"{tree}:/mnt/bound:ro"]
        done = subprocess.run([*argv, "--", _READ_TREES], check=True, stdout=subprocess.PIPE, cwd=tree)
    times = [[float(word) for word in line.split()] for line in done.stdout.decode().splitlines()]
    rows = []
    for what, at in (("read", 0), ("read again", 1)):
        live, kept = (
            statistics.median(line[at + 1] - line[at] for line in times[side::2]) for side in (0, 1)
        )
        rows.append(
            row(
                f"a work tree of {count} files {what} in {cell}",
                f"{live:.2f} s",
                f"cached by the guest {kept:.2f} s",
                f"{live / kept:.1f} times",
                "-",
                True,
            )
        )
    return rows


def _virtiofs(socket: Path, memory: int, transport: str) -> list[str]:
    """The options of QEMU's document on virtiofsd: the daemon shares the guest's memory."""
    return [
        *("-chardev", f"socket,id=fs,path={socket}"),
        *("-device", f"vhost-user-fs-{transport},chardev=fs,tag=folder"),
        *("-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on"),
        *("-machine", "memory-backend=memory"),
    ]


def image_making() -> list[str]:
    """One row: a Debian image of this host's architecture, the packages being in the cache."""
    with tempfile.TemporaryDirectory() as name:
        # Everything except the images is in the user's cache.
        for path in paths.cache_dir().iterdir():
            if path.name != "images":
                (Path(name) / path.name).symlink_to(path)
        environment = os.environ | {"QUIZMATRIX_CACHE_DIR": name}
        wall = timed(
            lambda: subprocess.run(
                [*QUIZMATRIX, "image", "build"], check=True, env=environment, stdout=subprocess.DEVNULL
            )
        )
    return row("`image build`, its packages in the cache", f"{wall:.0f} s", "-", "-", "-", True)


def guest_start(cell: str) -> list[str]:
    """One row: from the kernel's start to the command's, by the guest's own clock."""
    argv = [*QUIZMATRIX, "run", "--only", cell, "--offline", "--cold", "--", "cat /proc/uptime"]
    uptimes = [
        float(subprocess.run(argv, check=True, capture_output=True).stdout.split()[0]) for _ in range(ROUNDS)
    ]
    seconds = statistics.median(uptimes)
    return row(
        f"kernel start to command start, {cell}",
        f"{seconds:.2f} s",
        "-",
        "-",
        "at most 1.2 s",
        seconds <= 1.2,
    )


def against_virtme(cell: str, target: float, start: str = "--cold") -> list[str]:
    """One row: virtme-ng with the same kernel image, modules and accelerator."""
    if not (VIRTME / "bin/vng").exists():
        subprocess.run([sys.executable, "-m", "venv", VIRTME], check=True)
        subprocess.run([VIRTME / "bin/pip", "install", "-qq", "virtme-ng"], check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec, kernel = specified(cell, folder)
        # The folder where it looks for an image and for modules.
        image = folder / "boot" / f"vmlinuz-{kernel.record.release}"
        image.parent.mkdir()
        image.symlink_to(kernel.image)
        (folder / "lib").symlink_to(kernel.layer / "usr/lib")
        busybox = folder / "busybox"
        busybox.write_bytes(member(Path(spec.machine.kernel.initramfs).read_bytes(), "guest/busybox"))
        busybox.chmod(0o755)
        argv = [str(VIRTME / "bin/vng"), "--busybox", str(busybox), "--run", str(image)]
        if spec.machine.accelerator is Accelerator.TCG:
            argv.append("--disable-kvm")
        environment = os.environ | {"PATH": f"{VIRTME / 'bin'}:{os.environ['PATH']}"}

        def run_theirs() -> None:
            done = subprocess.run(
                [*argv, "--", "true"],
                check=False,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
            # 255: on a host without udevd it finds no port to return the exit code over, and has
            # run the command all the same.
            if done.returncode not in (0, 255):
                raise SystemExit(f"virtme-ng failed:\n{done.stderr.decode()}")

        own, other = interleaved(lambda: run_in(cell, start), run_theirs)
    return row(
        f"`true` in {cell} ({spec.machine.accelerator}), {start}",
        f"{own:.2f} s",
        f"virtme-ng {other:.2f} s",
        f"{other / own:.2f} times as fast",
        f"at least {target} times",
        other / own >= target,
    )


def member(archive: bytes, wanted: str) -> bytes:
    """A file out of a newc archive."""
    at = 0
    while at < len(archive):
        size, name_size = (int(archive[at + start : at + start + 8], 16) for start in (54, 94))
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        data = at + (110 + name_size + 3) // 4 * 4
        if name == wanted:
            return archive[data : data + size]
        at = data + (size + 3) // 4 * 4
    raise KeyError(wanted)


def makespan(matrix: str) -> list[str]:
    """One row: how well a matrix fills the host."""
    cores = process.usable_cpus()
    ratios, walls, sums = [], [], []
    for _ in range(3):
        wall, cpu = cpu_of([*QUIZMATRIX, "run", matrix, "--offline", "--cold", "--", "true"])
        walls.append(wall)
        sums.append(cpu / cores)
        ratios.append(wall / (cpu / cores))
    ratio = statistics.median(ratios)
    return row(
        f"makespan of `{matrix}`",
        f"{statistics.median(walls):.2f} s",
        f"CPU time / {cores} cores {statistics.median(sums):.2f} s",
        f"{ratio:.2f} times",
        "at most 1.15 times",
        ratio <= 1.15,
    )


def help_cpu() -> list[str]:
    """One row: what `--help` costs."""
    cpu = statistics.median(cpu_of([*QUIZMATRIX, "--help"])[1] for _ in range(ROUNDS))
    return row("`quizmatrix --help`, CPU", f"{cpu:.2f} s", "-", "-", "at most 0.2 s", cpu <= 0.2)


def build_of_what_is_built() -> list[str]:
    """One row: the time to find that there is nothing to build."""
    wall = statistics.median(
        cpu_of([*QUIZMATRIX, "kernel", "build", "6.1", "-a", "ppc64"])[0] for _ in range(ROUNDS)
    )
    return row("`kernel build` of what is built", f"{wall:.2f} s", "-", "-", "at most 0.3 s", wall <= 0.3)


def scheduling(few: int = 100, many: int = 1000) -> list[list[str]]:
    """Two rows: the scheduler's own cost, with simulated guests."""
    found = {}
    for count in (few, many):
        argv = [sys.executable, "-m", "tests.bench_scheduler", str(count)]
        done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        found[count] = json.loads(done.stdout)
    cpu, memory = found[many]["cpu"], found[many]["memory"]
    growth = 1024 * (memory - found[few]["memory"]) / (many - few)
    return [
        row(f"scheduling, CPU a cell of {many}", f"{cpu:.1f} ms", "-", "-", "at most 20 ms", cpu <= 20),
        row(
            f"scheduling, memory with {many} cells",
            f"{memory:.0f} MiB",
            f"{few} cells {found[few]['memory']:.0f} MiB",
            f"{growth:.0f} KiB a cell",
            "at most 20 KiB a cell",
            growth <= 20,
        ),
    ]


def stall() -> list[str]:
    """One row: how long half a million files of one cell delay a run's other cells."""
    argv = [sys.executable, "-m", "tests.bench_stall"]
    said = subprocess.run(argv, check=True, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE).stdout
    worst = float(said)
    what = "longest stall while a cell leaves 500,000 files"
    return row(what, f"{worst * 1000:.0f} ms", "-", "-", "at most 100 ms", worst <= 0.1)


def row(what: str, own: str, rival: str, ratio: str, target: str, met: bool) -> list[str]:
    """One line of the table."""
    print(f"{what}: {own}, {rival}: {ratio}", flush=True)
    return [what, own, rival, ratio, target, "met" if met else "MISSED"]


def main() -> int:
    """Measure everything."""
    with tempfile.TemporaryDirectory() as runs:
        os.environ["QUIZMATRIX_STATE_DIR"] = runs
        return measure()


def measure() -> int:
    """All rows, and the table of them."""
    for matrix in ("quick", "endian", "built"):
        subprocess.run([*QUIZMATRIX, "prepare", matrix, "--quiet"], check=True)
    subprocess.run([*QUIZMATRIX, "prepare", "--only", ",".join(BUILT_CELLS), "--quiet"], check=True)
    subprocess.run([*QUIZMATRIX, "prepare", "--only", BUILT_CELLS[0], *DEBIAN, "--quiet"], check=True)
    rows = [against_bare_qemu(cell, 0.5) for cell in ("6.1-x86_64", "6.1-s390x")]
    rows += [against_bare_qemu(cell, 0.3) for cell in BUILT_CELLS]
    rows += [against_debian(arch) for arch in ("x86_64", "s390x")]
    rows += [guest_start(cell) for cell in BUILT_CELLS]
    rows += [debian_image(BUILT_CELLS[0]), shell_start(BUILT_CELLS[0]), image_making()]
    rows += reading(READING)
    rows += [line for cell in ("6.1-x86_64", "6.1-s390x") for line in reading_a_tree(cell)]
    from tests import bench_warm

    rows += bench_warm.measure()
    rows += [against_virtme("6.1-x86_64", 2.5), against_virtme(f"{BUILT}-x86_64", 4)]
    rows += [against_virtme("6.1-x86_64", 15, "--warm")]
    rows += [makespan("quick"), makespan("endian"), makespan("built"), build_of_what_is_built(), help_cpu()]
    rows += [*scheduling(), stall()]
    print()
    print(tabulate(rows, headers=["what", "quizmatrix", "rival", "difference", "target", ""]))
    return int(any(line[-1] == "MISSED" for line in rows))


if __name__ == "__main__":
    sys.exit(main())
