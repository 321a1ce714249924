"""Errors that can be found early are raised before waiting for a lock, a download or a build."""

import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from quizmatrix.build.zfs.options import ZfsOptions
from quizmatrix.build.zfs.sweep import ZfsSweep
from quizmatrix.build.zfs.tree import find_tree
from quizmatrix.cli import run_command
from quizmatrix.core.errors import HostError, QuizmatrixError, UnpreparedError, UsageError
from quizmatrix.core.jobserver import JobServer
from quizmatrix.core.process import Tell
from quizmatrix.kernel import artifact, source
from quizmatrix.kernel.artifact import Kernel
from quizmatrix.kernel.build import builds_dir, builds_locked
from quizmatrix.kernel.order import KernelOptions, Order
from quizmatrix.model.arch import load_arch
from quizmatrix.model.cells import Cell
from quizmatrix.model.profile import Use, resolve
from quizmatrix.prepare.preparer import Policy, Preparer

# Seconds to wait for the message; afterwards it would never come, since the lock is not released.
HANGS = 30


def cell(kernel: str, *config: str, profiles: tuple[Use, ...] = (), image: str = "small") -> Cell:
    return Cell(
        kernel=kernel,
        source="path",
        arch="x86_64",
        config=config,
        profiles=profiles,
        image=image,
        timeout=60,
        boot_timeout=60,
        memory=512,
        cpus=1,
    )


def while_another_builds(action: Callable[[], Awaitable[object]]) -> None:
    """Run code while another process, or another part of this one, holds the lock of all builds."""

    async def play() -> None:
        async with builds_locked(lambda: None):
            with anyio.fail_after(HANGS):
                await action()

    anyio.run(play)


async def until_waiting(told: list[str], builds: int) -> None:
    while told.count("waiting for another build to end") < builds:  # noqa: ASYNC110 - nobody else tells
        await anyio.sleep(0.01)


@pytest.mark.parametrize("kind", ["path", "tarball", "git"])
@pytest.mark.parametrize("config", ["CONFIG_TYPO_VIRTIO=y", "CONFIG_NEEDS_ABSENT=y"])
def test_a_misspelt_option(kind: str, config: str, toy: Path, tmp_path: Path) -> None:
    if kind == "git" and "TYPO" not in config:
        pytest.skip("what a symbol depends on is known once the commit is checked out")
    place = {"path": str(toy), "tarball": str(tmp_path / "toy.tar"), "git": f"{toy}#main"}[kind]
    if kind == "tarball":
        subprocess.run(["tar", "-cf", place, "-C", toy.parent, toy.name], check=True)
    elif kind == "git":
        identity = ["-c", "user.name=x", "-c", "user.email=x@y"]
        for words in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-qmx"]):
            subprocess.run(["git", "-C", toy, *words], check=True)
    order = Order(arch=load_arch("x86_64"), options=KernelOptions(config=(config,)), tell=lambda _said: None)

    async def obtain() -> None:
        with pytest.raises(UnpreparedError, match="cannot be configured as asked") as caught:
            await source.obtain(f"{kind}:{place}", order)
        assert config in caught.value.cause

    while_another_builds(obtain)


def test_a_misspelt_option_behind_many_kernels(toy: Path) -> None:
    preparer = Preparer(Policy())
    told: list[str] = []

    async def others() -> None:
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(preparer.kernel, cell(f"path:{toy}", f"CONFIG_N={number}"), told.append)
            await until_waiting(told, 4)
            with pytest.raises(UnpreparedError, match="cannot be configured as asked"):
                await preparer.kernel(cell(f"path:{toy}", "CONFIG_TYPO=y"), told.append)
            group.cancel_scope.cancel()

    while_another_builds(others)
    assert artifact.KERNELS.stored() == []


def test_what_was_configured_while_it_waited_may_be_gone(toy: Path) -> None:
    told: list[str] = []
    keys: list[str] = []

    async def obtain() -> None:
        order = Order(arch=load_arch("x86_64"), tell=told.append)
        keys.append((await source.obtain(f"path:{toy}", order)).record.key)

    async def play() -> None:
        async with anyio.create_task_group() as group, builds_locked(lambda: None):
            group.start_soon(obtain)
            await until_waiting(told, 1)
            (config,) = builds_dir().glob("*/.config")
            # As `kernel remove --unused` does.
            shutil.rmtree(config.parent)

    anyio.run(play)
    assert artifact.KERNELS.stored() == keys


@pytest.mark.parametrize(
    ("image", "profile", "words"),
    [
        ("small", "error", "the profile error needs .* in the base image"),
        ("debian:nosuch", "memdev", "unknown suite `nosuch`"),
        ("debian", "memdev", "the Debian image for x86_64 is not in the cache"),
    ],
)
def test_what_an_image_lacks(image: str, profile: str, words: str, toy: Path) -> None:
    wanted = cell(f"path:{toy}", profiles=resolve([profile], {}, "a test"), image=image)
    preparer = Preparer(Policy(offline=True))
    told: list[str] = []
    with pytest.raises((UnpreparedError, UsageError), match=words):
        anyio.run(preparer.prepare, wanted, told.append)
    assert told == []


class NoKernels(Preparer):
    """Fails the test if it is asked for a kernel."""

    async def kernel(self, cell: Cell, tell: Tell, *, pool: JobServer | None = None) -> Kernel:
        raise AssertionError("a kernel was built in vain")


def test_what_openzfs_is_built_with(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "gcc").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tools))
    tree = find_tree(str(shutil.copytree(Path(__file__).parents[1] / "toy-zfs", tmp_path / "zfs")))
    sweep = ZfsSweep(tree, ZfsOptions(), NoKernels(Policy()), 1, lambda _what, _said: None)
    (done,) = anyio.run(sweep.run, [cell(f"path:{toy}")])
    error: QuizmatrixError | None = done.kernel.error
    assert isinstance(error, HostError)
    assert "`pkg-config` is not installed" in str(error)


def test_the_kernel_that_cannot_be_built_is_told_of_first(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All programs of this host except one architecture's compiler.
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for path in Path(folder).glob("*"):
            if not path.name.startswith("s390x-") and not (programs / path.name).is_symlink():
                (programs / path.name).symlink_to(path)
    monkeypatch.setenv("PATH", str(programs))
    argv = [sys.executable, "-m", "quizmatrix", "kernel", "build", f"path:{toy}", "-a", "x86_64,s390x"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 125
    lacking = done.stdout.index("`s390x-linux-gnu-gcc` is not installed")
    assert lacking < done.stdout.index(f"path:{toy}-x86_64: ready: 6.1.9")


def test_options_of_a_bisection(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["bisect", "kernel.org:6.1", "kernel.org:6.2", "-a", "x86_64", "--bind", "nothing", "--", "true"]
    assert run_command(argv) == 125
    said = capsys.readouterr().err
    assert "--bind nothing" in said
    assert "asking what was released" not in said


def test_where_results_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/of").touch()
    # --build would go first, and find no OpenZFS here.
    argv = ["run", "--build", "--only", "6.1-x86_64", "-p", "zfs", "--output", "full", "--", "true"]
    assert run_command(argv) == 125
    assert "full exists and is not empty" in capsys.readouterr().err
