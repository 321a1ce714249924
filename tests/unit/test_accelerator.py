"""The trial boot that decides whether KVM is used. The boots are replaced by a stand-in."""

from pathlib import Path

import anyio
import msgspec
import pytest

from quizmatrix.core import paths
from quizmatrix.image.artifact import Image
from quizmatrix.kernel.artifact import Kernel, KernelRecord
from quizmatrix.model.arch import Accelerator, load_arch
from quizmatrix.model.cells import Cell, expand
from quizmatrix.model.job import CellJob
from quizmatrix.model.matrix import Matrix
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, Timings
from quizmatrix.model.spec import CellSpec
from quizmatrix.model.task import trial_of
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.specify import Prepared, job_of
from quizmatrix.run.accelerator import TRIAL_LIMIT, Answer, forget, recall, try_kvm
from tests.ready import ended

ARCH = load_arch("x86_64")
KVM, TCG = Accelerator.KVM, Accelerator.TCG


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "cache"))


def cell_of(kernel: str) -> Cell:
    (cell,) = expand(Matrix(kernels=[kernel], arches=["x86_64"], append="init=/nonsense"), "test")
    return cell


def artifacts(kernel: str) -> Prepared:
    record = KernelRecord(key=kernel, arch="x86_64", version=kernel, release=kernel, packages=[])
    folder = paths.cache_dir().parent / "kernel"
    folder.mkdir(exist_ok=True)
    (folder / "config").write_text("CONFIG_9P_FS=y\n")
    image = Image(key="i", archive=Path("/none"))
    return Prepared(kernel=Kernel(folder=folder, record=record), image=image, initramfs=Path("/none"))


class Machine:
    """Boots nothing. Returns for each boot a time in seconds, or None for a guest that did not boot."""

    def __init__(self, *boots: tuple[Accelerator, float | None]) -> None:
        self.boots = list(boots)
        self.seen: list[CellSpec] = []

    async def boot(self, spec: CellSpec) -> CellResult:
        self.seen.append(spec)
        accelerator, seconds = self.boots.pop(0)
        assert spec.machine.accelerator is accelerator
        assert Path(spec.files.folder).is_dir()
        assert not list(Path(spec.files.folder).iterdir())
        assert (spec.command.words, spec.files.work_tree) == (["true"], None)
        assert spec.machine.kernel.parameters == ""
        result = ended(spec, Outcome.PANICKED if seconds else Outcome.BOOT_FAILED)
        return msgspec.structs.replace(result, detail="no sign of life", timings=Timings(boot=seconds))

    def tried(self, kernel: str = "6.1") -> Answer:
        async def play() -> Answer:
            return await try_kvm(job_of(trial_of(cell_of(kernel)), artifacts(kernel)), self.boot)

        answer = anyio.run(play)
        assert not self.boots
        return answer


def test_a_guest_that_comes_up_is_enough_whatever_becomes_of_it() -> None:
    answer = Machine((KVM, 1.25)).tried()
    assert (answer.accelerator, answer.why) == (KVM, "KVM booted a guest in 1.2 s")
    assert recall(ARCH) == answer


def test_a_kernel_that_boots_nowhere_says_nothing_of_kvm() -> None:
    answer = Machine((KVM, None), (TCG, None)).tried()
    assert (answer.accelerator, answer.is_known) == (TCG, False)
    assert "6.1-x86_64 boots neither under KVM nor emulated" in answer.why
    assert recall(ARCH) is None


def test_kvm_that_runs_no_guest_that_emulation_runs_is_remembered_for_a_day() -> None:
    answer = Machine((KVM, None), (TCG, 2.0), (KVM, None)).tried()
    assert (answer.accelerator, answer.is_known) == (TCG, True)
    assert recall(ARCH) == answer
    path = paths.cache_dir() / "accelerator/x86_64.json"
    for age, is_remembered in ((80000, True), (90000, False), (-90000, False)):
        old = msgspec.structs.replace(answer, when=answer.when - age)
        path.write_bytes(msgspec.json.encode(old))
        assert (recall(ARCH) is not None) == is_remembered, age
    # An answer saved by an earlier quizmatrix has no date.
    path.write_bytes(msgspec.json.encode({"accelerator": "tcg", "why": "no", "host": answer.host}))
    assert recall(ARCH) is None
    # The answer that KVM works does not expire.
    works = msgspec.structs.replace(answer, accelerator=KVM, when=0)
    path.write_bytes(msgspec.json.encode(works))
    assert recall(ARCH) == works
    forget()
    assert recall(ARCH) is None


def test_a_busy_host_is_given_the_time_that_emulation_took() -> None:
    machine = Machine((KVM, None), (TCG, 25.0), (KVM, 40.0))
    assert machine.tried().accelerator is KVM
    first, emulated, second = (spec.limits.boot_timeout for spec in machine.seen)
    assert first == TRIAL_LIMIT
    assert emulated == 30 * ARCH.facts.timeout_factor.tcg
    assert second == 50


def test_an_answer_that_cannot_be_written_is_given_all_the_same() -> None:
    paths.cache_dir().write_text("in the way")
    assert Machine((KVM, 1.0)).tried().accelerator is KVM


def test_another_kernel_of_the_run_is_tried_where_one_said_nothing() -> None:
    answers = [
        Answer(accelerator=TCG, why="this kernel boots nowhere", is_known=False),
        Answer(accelerator=KVM, why="it works"),
    ]

    async def find_out(_: CellJob) -> Answer:
        return answers.pop(0)

    async def play() -> list[Accelerator]:
        preparer = Preparer(Policy(offline=True), find_out)
        kernels = ("6.1", "6.1", "6.12", "6.12", "6.1")
        found = [await preparer.accelerator(cell_of(one), artifacts(one), None) for one in kernels]
        return [answer.accelerator for answer in found]

    assert anyio.run(play) == [TCG, TCG, KVM, KVM, KVM]
