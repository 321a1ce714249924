"""A cell's job: what is in it, what is not, and how a host finds its artifacts."""

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.core import store
from quizmatrix.core.errors import DamagedError, UnpreparedError, UsageError
from quizmatrix.model.arch import Accelerator, load_arch
from quizmatrix.model.job import CellJob
from quizmatrix.model.profile import Use
from quizmatrix.model.result import CellResult
from quizmatrix.model.spec import OWN_STDIN, Bind, CellSpec, CommandLine, Disk, Session, Share
from quizmatrix.run.__main__ import main
from quizmatrix.run.accelerator import Answer
from quizmatrix.run.job import JOB, run_job, with_secrets, without_secrets
from quizmatrix.run.observer import Observer
from tests.made_job import job
from tests.ready import ended

# Words and paths with any bytes, as Python represents them.
WORDS = st.binary(max_size=8).map(os.fsdecode)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    for name in ("kernels/key/layer", "initramfs"):
        (cache / name).mkdir(parents=True)
    for name in ("kernels/key/image", "initramfs/i.cpio"):
        (cache / name).touch()
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(cache))
    return cache


async def emulated(_job: CellJob) -> Answer:
    return Answer(accelerator=Accelerator.TCG, why="a test")


def ran(one: CellJob, folder: Path) -> CellSpec:
    """What a job is run from."""
    folder.mkdir()
    specs: list[tuple[CellSpec, str]] = []

    async def heard(spec: CellSpec, why: str) -> None:
        specs.append((spec, why))

    async def run(spec: CellSpec, _observer: Observer) -> CellResult:
        # It is heard of before the guest starts.
        assert specs == [(spec, "a test")]
        assert (folder / JOB).exists()
        return ended(spec)

    async def play() -> tuple[CellSpec, CellResult]:
        observer = Observer(specified=heard)
        return await run_job(one, folder=folder, observer=observer, find_out=emulated, run=run)

    spec, result = anyio.run(play)
    assert result == ended(spec)
    return spec


@given(st.data())
def test_no_byte_is_lost(data: st.DataObject) -> None:
    def word() -> str:
        return data.draw(WORDS)

    one = job(
        words=data.draw(st.lists(WORDS)),
        environment=data.draw(st.dictionaries(WORDS, WORDS)),
        layers=[Share(tag="user0", path=word())],
        binds=[Bind(path=word(), guest=word())],
        disks=[Disk(serial="base", path=word())],
        again=CommandLine(folder=word(), argv=[word()]),
        stdin=word(),
        uses=(Use(name="p", options=((word(), word()),), asked=word()),),
    )
    assert CellJob.decode(one.encode()) == one
    json.loads(one.encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff", b'{"labels": '])
def test_what_is_no_job(data: bytes) -> None:
    with pytest.raises(DamagedError, match="job cannot be read"):
        CellJob.decode(data)


def test_a_host_adds_its_paths_and_its_limits(cache: Path, tmp_path: Path) -> None:
    layers = [Share(tag="kernel", path="kernels/key/layer"), Share(tag="user0", path=str(tmp_path))]
    one = job(layers=layers, binds=[Bind(path="/a", guest="/b")])
    assert one.artifacts == ["kernels/key/image", "initramfs/i.cpio", "kernels/key/layer"]
    spec = ran(one, tmp_path / "results")
    assert spec.machine.kernel.image == str(cache / "kernels/key/image")
    assert [layer.path for layer in spec.files.layers] == [str(cache / "kernels/key/layer"), str(tmp_path)]
    assert (spec.files.folder, spec.files.binds) == (str(tmp_path / "results"), one.files.binds)
    factor = load_arch("s390x").facts.timeout_factor.tcg
    assert (spec.limits.timeout, spec.limits.boot_timeout) == (60 * factor, 30 * factor)
    # The job itself has no path of the cache, and none of the results.
    kept = (tmp_path / "results" / JOB).read_bytes()
    assert CellJob.decode(kept) == one
    assert str(cache).encode() not in kept


def test_a_folder_of_the_cache_that_is_on_another_disk(cache: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (cache / "kernels").rename(other)
    (cache / "kernels").symlink_to(other)
    assert store.name_of(other / "key/image") == "kernels/key/image"
    assert store.path_of("kernels/key/image") == other / "key/image"
    assert store.name_of(tmp_path / "mine") == str(tmp_path / "mine")
    assert store.path_of(str(tmp_path / "mine")) == tmp_path / "mine"
    assert ran(job(), tmp_path / "results").machine.kernel.image == str(other / "key/image")


def test_an_artifact_that_is_gone(cache: Path, tmp_path: Path) -> None:
    (cache / "initramfs/i.cpio").unlink()
    with pytest.raises(UnpreparedError, match=r"the cache has no initramfs/i\.cpio") as caught:
        ran(job(), tmp_path / "results")
    assert "quizmatrix prepare --only 6.1-s390x" in caught.value.next_step


def test_what_is_passed_on_is_never_stored(cache: Path, tmp_path: Path) -> None:
    one = job(environment={"A": "open", "TOKEN": "secret"}, passed_on=["TOKEN"])
    ran(one, tmp_path / "results")
    kept = CellJob.decode((tmp_path / "results" / JOB).read_bytes())
    assert kept == without_secrets(one)
    assert kept.command.environment == {"A": "open"}
    assert with_secrets(kept, {"TOKEN": "new", "B": "1"}).command.environment == {"A": "open", "TOKEN": "new"}
    assert with_secrets(one, {}) == one
    with pytest.raises(UsageError, match="passes TOKEN on") as caught:
        with_secrets(kept, {"A": "1"})
    assert caught.value.next_step == "Export it: TOKEN=..."


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"stdin": OWN_STDIN}, "wants this terminal or its stdin"),
        ({"session": Session()}, "wants this terminal or its stdin"),
        ({"passed_on": ["QUIZMATRIX_NOT_SET"]}, "passes QUIZMATRIX_NOT_SET on"),
        ({}, "the cache has no kernels/key/image"),
    ],
)
def test_by_hand_an_error_is_a_sentence(
    changed: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QUIZMATRIX_CACHE_DIR", str(tmp_path / "empty"))
    path = tmp_path / JOB
    path.write_bytes(job(**changed).encode())
    assert main([str(path), str(tmp_path / "results")]) == 125
    assert said in capfd.readouterr().err


def test_by_hand_with_wrong_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in ([], ["--help"], ["a", "b", "c"]):
        assert main(argv) == 125
        assert "python -m quizmatrix.run JOB.json [FOLDER]" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 125
    assert "cannot read" in capsys.readouterr().err
    path = tmp_path / JOB
    path.write_bytes(job().encode())
    assert main([str(path), str(tmp_path)]) == 125
    assert f"{tmp_path} is not empty" in capsys.readouterr().err
