"""Which guests may start, and what is reported of a host that lacks memory or disk; without VMs."""

from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.core.errors import HostError
from quizmatrix.model.arch import Accelerator
from quizmatrix.model.cells import expand
from quizmatrix.model.matrix import Limits, Matrix
from quizmatrix.model.options import AUTO, RunOptions, with_values
from quizmatrix.run import emulator
from quizmatrix.run.hostwatch import HostWatch, Moment, now
from quizmatrix.schedule.admission import LEAST_DISK, Admission, Available, Need, need_of, threads_of_a_core
from quizmatrix.schedule.slicing import slices_of_each, with_number


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(128, 4000)), min_size=1, max_size=8),
    st.integers(1, 4),
)
def test_admission_never_gives_more_than_there_is(wants: list[tuple[int, int]], places: int) -> None:
    needs = [Need(cpus=cpus, memory=memory) for cpus, memory in wants]
    running: list[Need] = []
    order: list[Need] = []
    trouble: list[str] = []

    async def use(admission: Admission, one: Need) -> None:
        await admission.enter(one)
        running.append(one)
        order.append(one)
        fits = sum(other.cpus for other in running) <= 4 and len(running) <= places
        fits &= sum(other.memory for other in running) <= 4096
        if len(running) > 1 and not fits:
            trouble.append(f"{running}")
        await anyio.lowlevel.checkpoint()
        running.remove(one)
        admission.leave(one)

    async def play() -> None:
        admission = Admission(cpus=4, memory=4096, places=places)
        async with anyio.create_task_group() as group:
            for one in needs:
                group.start_soon(use, admission, one)

    anyio.run(play)
    assert trouble == []
    assert order == needs


@pytest.mark.parametrize("places", [1, 2])
def test_what_goes_on_with_a_cell_comes_before_cells_that_have_not_begun(places: int) -> None:
    need = Need(cpus=1, memory=128)
    order: list[str] = []

    async def use(
        admission: Admission, name: str, all_wait: anyio.Event, *, is_further: bool = False
    ) -> None:
        await admission.enter(need, is_further=is_further)
        order.append(name)
        await all_wait.wait()
        admission.leave(need)

    async def play() -> None:
        admission, all_wait = Admission(cpus=4, memory=4096, places=places), anyio.Event()
        async with anyio.create_task_group() as group:
            for number in range(places + 3):
                group.start_soon(use, admission, f"cell {number}", all_wait)
            await anyio.wait_all_tasks_blocked()
            for number in range(2):
                group.start_soon(partial(use, admission, f"further {number}", all_wait, is_further=True))
            await anyio.wait_all_tasks_blocked()
            all_wait.set()

    anyio.run(play)
    running = [f"cell {number}" for number in range(places)]
    rest = [f"cell {number}" for number in range(places, places + 3)]
    assert order == [*running, "further 0", "further 1", *rest]


def test_what_a_guest_takes() -> None:
    (cell,) = expand(Matrix(kernels=["6.1"], arches=["s390x"]), "test", Limits(memory="1G", cpus=2))
    need = need_of(cell, Accelerator.KVM, disks=512)
    assert (need.cpus, need.memory, need.disk) == (2, 1024 + 160, 512 + LEAST_DISK)
    # If two CPUs share a core, an emulated guest counts as both.
    assert need_of(cell, Accelerator.TCG).cpus == 2 * threads_of_a_core()


@pytest.mark.parametrize(("version", "threads"), [("7.2.22", 1), ("8.1.0", 2), ("10.0.13", 2), (None, 2)])
def test_emulated_cpus_that_share_a_thread_count_as_one(
    version: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator, "version_of", lambda _binary: version)
    (cell,) = expand(Matrix(kernels=["6.1"], arches=["x86_64"]), "test", Limits(memory="1G", cpus=2))
    assert need_of(cell, Accelerator.TCG).cpus == threads * threads_of_a_core()
    assert need_of(cell, Accelerator.KVM).cpus == 2


@pytest.mark.parametrize(
    ("arches", "cpus", "memory", "jobs", "slices"),
    [
        (["s390x"], 8, 1 << 20, None, 4),
        (["s390x", "x86_64"], 8, 1 << 20, None, 2),
        (["s390x", "x86_64", "ppc64"], 8, 1 << 20, None, 1),
        (["s390x"], 1, 100, None, 1),
        (["s390x"], 64, 5000, None, 4),
        (["s390x"], 64, 1 << 20, 6, 6),
    ],
)
def test_as_many_slices_as_the_host_holds(
    arches: list[str], cpus: int, memory: int, jobs: int | None, slices: int
) -> None:
    cells = expand(Matrix(kernels=["6.1"], arches=arches), "test", Limits(memory="1G", cpus=2))
    admission = Admission(cpus=cpus, memory=memory, places=jobs or 1000)
    assert slices_of_each(cells, admission, Accelerator.KVM) == slices


def test_the_number_of_slices_is_found_only_where_it_is_asked_for() -> None:
    def shard_of(**asked: Any) -> int | str:
        own = {"only": ["6.1-s390x"], "memory": "128M", "jobs": 2}
        return with_number(with_values(RunOptions(), own | asked), ["./t"]).selection.shard

    assert shard_of() == 1
    assert shard_of(shard=3) == 3
    assert shard_of(shard=AUTO) == 2
    assert shard_of(shard=AUTO, only=["6.1-s390x,6.1-x86_64"]) == 1
    assert shard_of(shard=AUTO, only=["6.1-s390x@3of20"]) == 20


class Host:
    """A host on which other programs use and free memory."""

    def __init__(self, *looks: Available) -> None:
        self._looks = list(looks)
        self.asked = 0

    def look(self) -> Available:
        self.asked += 1
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


def enter(host: Host, need: Need, patience: float = 60) -> list[str]:
    """Enter as the only guest; returns the messages."""
    told: list[str] = []

    async def play() -> None:
        admission = Admission(cpus=4, memory=4096, places=4, look=host.look, patience=patience)
        await admission.enter(need, told.append)

    anyio.run(play)
    return told


def test_a_guest_waits_while_others_have_the_memory() -> None:
    host = Host(Available(memory=300), Available(memory=300), Available(memory=300), Available(memory=3000))
    assert enter(host, Need(cpus=1, memory=1184)) == [
        "waits: this host has 300 MiB of memory left, and a guest needs 416"
    ]
    # The only guest does not wait for all of its memory, which it may never use.
    assert enter(Host(Available(memory=500)), Need(cpus=1, memory=1184)) == []


def test_a_host_that_stays_short_is_said_to_be() -> None:
    with pytest.raises(HostError, match="this host has 100 MiB of memory left") as caught:
        enter(Host(Available(memory=100)), Need(cpus=1, memory=1184), patience=0)
    assert "--memory" in caught.value.next_step
    with pytest.raises(HostError, match="3 MiB of disk left for its run directory, and a guest needs 528"):
        enter(Host(Available(disk=3)), Need(cpus=1, memory=1184, disk=528))


def test_a_second_guest_waits_for_the_first_one_to_give_disk_back() -> None:
    left = [600]
    order: list[str] = []

    async def play() -> None:
        admission = Admission(cpus=9, memory=9999, places=9, look=lambda: Available(disk=left[0]))
        need = Need(cpus=1, memory=100, disk=528)

        async def one(name: str) -> None:
            await admission.enter(need)
            order.append(f"{name} in")
            left[0] -= 528
            await anyio.lowlevel.checkpoint()
            left[0] += 528
            order.append(f"{name} out")
            admission.leave(need)

        async with anyio.create_task_group() as group:
            group.start_soon(one, "a")
            group.start_soon(one, "b")

    anyio.run(play)
    assert order == ["a in", "a out", "b in", "b out"]


def test_what_happened_to_the_host_is_noticed() -> None:
    moments = [
        Moment(awake=10, passed=1000, oom_kills=3),
        Moment(awake=20, passed=1310, oom_kills=3),
        Moment(awake=30, passed=1320, oom_kills=4),
    ]
    watch = HostWatch(lambda: moments.pop(0))
    assert watch.notes == ["this host was suspended for 5m00s meanwhile"]
    assert watch.has_killed_for_memory
    here = HostWatch()
    assert here.notes == []
    assert now().awake > 0
