"""Other hosts, without any: addresses, certificates, what stays at home, and what is refused."""

import io
import re
import shutil
import ssl
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import anyio
import pytest
import zstandard
from msgspec.structs import replace

from quizmatrix.cli import run_command
from quizmatrix.core.errors import (
    DamagedError,
    DataError,
    HostError,
    NotFetchedError,
    UnpreparedError,
    UsageError,
)
from quizmatrix.hosts import batchfile, lenthost, placing, security, where, worktree
from quizmatrix.hosts.forker import Forker
from quizmatrix.hosts.heard import Heard
from quizmatrix.hosts.messages import Answered, CellOrder, Told, answered_with, decoded, encoded
from quizmatrix.hosts.packing import pack_cell, unpack_cell
from quizmatrix.hosts.serving import Uploads
from quizmatrix.model.arch import Accelerator, arch_names, load_arch
from quizmatrix.model.outcome import Outcome
from quizmatrix.model.result import CellResult, HostFacts, Timings
from quizmatrix.model.spec import OWN_STDIN, Share, WorkTree
from quizmatrix.model.start import StartKind
from quizmatrix.report import hosttable
from quizmatrix.run.observer import Observer
from quizmatrix.schedule.admission import Admission
from tests.made_job import job
from tests.made_spec import spec


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"QUIZMATRIX_{name}_DIR", str(tmp_path / name.lower()))


@pytest.mark.parametrize(
    ("address", "is_encrypted"),
    [
        ("tls://boss:8786", True),
        ("tls://[fe80::1]:8786", True),
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
    ],
)
def test_addresses(address: str, is_encrypted: bool) -> None:
    assert security.check_address(address) is is_encrypted


@pytest.mark.parametrize(
    "address", ["boss", "boss:8786", "tls://boss", "tls://:8786", "http://boss:1", "tls://b:x"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="no address of a dask scheduler"):
        security.check_address(address)


@pytest.mark.parametrize("host", ["boss", "10.0.0.1", "127.0.0.1.example.org", "[fe80::1]"])
def test_an_unencrypted_scheduler_of_another_host_is_refused(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in (
        ["run", "--only", "6.1-x86_64", "--on", f"tcp://{host}:8786", "--", "true"],
        ["worker", f"tcp://{host}:8786"],
    ):
        assert run_command(argv) == 125
        said = capsys.readouterr().err
        assert f"tcp://{host}:8786 is not encrypted" in said
        assert f"tls://{host}:8786" in said


def test_certificates_are_made_once_and_for_their_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "config/certificates"
    assert run_command(["worker", "--make-certificates"]) == 0
    assert str(folder) in capsys.readouterr().out
    names = {security.AUTHORITY, security.CERTIFICATE, security.KEY}
    assert {path.name for path in folder.iterdir()} == names
    for path in (folder, *folder.iterdir()):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert run_command(["worker", "--make-certificates"]) == 125
    assert "has authority.pem, host.pem, host.key already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def shaken_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Let the two sides of a connection meet. Raises SSLError where one does not accept the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname="any"),
    ]
    for _ in range(10):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    for side in sides:
        side.do_handshake()


def test_hosts_of_one_authority_know_each_other(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        security.make_certificates(tmp_path / name)
    ours, theirs = (security.certificates(str(tmp_path / name)) for name in ("ours", "theirs"))
    shaken_hands(ours.context(server=True), ours.context())
    for server, client in ((ours, theirs), (theirs, ours)):
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            shaken_hands(server.context(server=True), client.context())
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):
        shaken_hands(ours.context(server=True), nobody)


def test_certificates_that_are_not_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(UnpreparedError, match=r"there is no authority\.pem, host\.pem, host\.key in"):
        security.certificates(str(tmp_path / "none")).security()
    security.make_certificates(tmp_path / "some")
    (tmp_path / "some" / security.KEY).write_text("nonsense")
    with pytest.raises(UnpreparedError, match="cannot be used"):
        security.certificates(str(tmp_path / "some")).context()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--bind", "/tmp:/mnt/x"], "--bind"),
        (["--stdin", "-"], "--stdin -"),
        (["-S"], "--shell"),
        (["-p", "debug"], "-p debug"),
        (["-p", "blockdev:persist=x"], "-p blockdev:persist"),
        (["-p", "mine"], "your profile mine, which has a host half,"),
    ],
)
def test_what_only_this_host_has_is_refused(
    options: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config/profiles/mine").mkdir(parents=True)
    (tmp_path / "config/profiles/mine/profile.toml").write_text('summary = "mine"\n')
    (tmp_path / "config/profiles/mine/setup").write_text("echo '{}'")
    argv = ["run", "--only", "6.1-x86_64", "--on", "tls://boss:8786", *options, "--", "true"]
    assert run_command(argv) == 125
    assert f"{what} with --on tls://boss:8786: that needs this host" in capsys.readouterr().err
    # Nothing was begun.
    assert not (tmp_path / "state/runs").exists()


def test_large_files_that_git_ignores_stay_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worktree, "LIMIT", 1000)
    folder = tmp_path / "tree"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("*.ko\nbuild/\nodd*\n")
    for name, size in {"a.ko": 10, "big.ko": 9000, "big.c": 9000, "build/x": 9000, "odd\nname": 9000}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    assert anyio.run(worktree.left_out, folder) == {"big.ko", "build", "odd\nname"}
    assert anyio.run(worktree.left_out, tmp_path) == frozenset()
    said = worktree.sentence(frozenset({"big.ko", "build", "odd\nname"}))
    assert said.startswith("big.ko, build, odd name stay here: more than")


def test_what_travels_of_a_job_and_where_it_comes_from_there() -> None:
    one = job(
        layers=[Share(tag="kernel", path="kernels/key/layer"), Share(tag="user0", path="/mine")],
        work_tree=WorkTree(path="/home/me/work"),
        stdin="/home/me/input",
        symbols="debug-information/key/vmlinux",
    )
    assert one.sources == [
        "kernels/key/image",
        "initramfs/i.cpio",
        "kernels/key/layer",
        "/mine",
        "/home/me/work",
        "/home/me/input",
    ]
    moved = one.moved({source: f"travel/trees/{number}" for number, source in enumerate(one.sources)})
    assert (moved.kernel.image, moved.kernel.initramfs, moved.kernel.symbols) == (
        "travel/trees/0",
        "travel/trees/1",
        None,
    )
    assert [layer.path for layer in moved.files.layers] == ["travel/trees/2", "travel/trees/3"]
    assert moved.files.work_tree == WorkTree(path="/home/me/work", place="travel/trees/4")
    assert moved.command.stdin == "travel/trees/5"
    assert job(stdin=OWN_STDIN).moved({"-": "x"}).command.stdin in (OWN_STDIN, "x")
    assert OWN_STDIN not in job(stdin=OWN_STDIN).sources


HOST = HostFacts(name="zed")


def test_what_hosts_tell_each_other_loses_nothing() -> None:
    order = CellOrder(job=job(words=["\udcff"]), travels={"a\udcfe": "b"}, home="https://x", topic="t")
    assert decoded(encoded(order), CellOrder) == order
    answered = Answered(host=HOST, spec=spec(words=["\udcff"]), upload="u")
    assert decoded(encoded(answered), Answered) == answered
    told = Told(stdout=bytes(range(256)))
    assert decoded(encoded(told), Told) == told
    for data in (b"", b"[]", b"\xff", b'{"host": 1}'):
        with pytest.raises(DamagedError, match="what another host says is no Answered"):
            decoded(data, Answered)


def test_only_what_a_host_lacks_is_tried_elsewhere() -> None:
    lacks_disk = answered_with(HOST, HostError("no disk"))
    assert lacks_disk.may_work_elsewhere
    assert lacks_disk.is_hosts_fault
    # What does not come from the submitter may be its own fault, and does not set hosts aside for others.
    not_come = answered_with(HOST, NotFetchedError("no network"))
    assert not_come.may_work_elsewhere
    assert not not_come.is_hosts_fault
    assert not answered_with(HOST, UnpreparedError("no such profile")).may_work_elsewhere


def test_a_result_that_nobody_expects_is_not_taken(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, 1)
    with uploads.expected("run1"):
        path = uploads.path_of("run1", "abc")
        assert path is not None
        path.touch()
        assert uploads.path_of("run2", "abc") is None
        for name in ("", "../x", "a/b", ".", "a.b"):
            assert uploads.path_of("run1", name) is None
    assert uploads.path_of("run1", "abc") is None
    assert not list(tmp_path.iterdir())


def test_hosts_of_ssh() -> None:
    assert where.parse("ssh:big1,me@big2").hosts == ("big1", "me@big2")
    assert where.parse("tls://boss:8786").address == "tls://boss:8786"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ssh:", "`` is no host"),
        ("ssh:a,", "`` is no host"),
        ("ssh:-oProxyCommand=x", "`-oProxyCommand=x` is no host"),
        ("ssh:a;b", "`a;b` is no host"),
        ("ssh:a b", "`a b` is no host"),
        ("ssh:a,b,a", "names a host twice"),
        ("slurm2:x", "no address of a dask scheduler"),
    ],
)
def test_what_is_no_host_of_ssh(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        where.parse(text)


def test_batch_systems(tmp_path: Path) -> None:
    assert where.parse("slurm") == where.Where(kind=where.HostsKind.BATCH)
    found = where.parse("pbs:my jobs.toml")
    assert (found.system, found.file) == (where.BatchSystem.PBS, "my jobs.toml")
    # Without a file, the user's own counts, or what is there by default.
    assert batchfile.read_options(where.BatchSystem.SLURM, "") == batchfile.BatchFile()
    own = tmp_path / "config/slurm.toml"
    own.parent.mkdir()
    own.write_text('jobs = 9\n[options]\nqueue = "short"\n')
    assert batchfile.read_options(where.BatchSystem.SLURM, "") == batchfile.BatchFile(
        jobs=9, options={"queue": "short"}
    )
    assert batchfile.read_options(where.BatchSystem.PBS, "") == batchfile.BatchFile()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("job = 1", "unknown key `job`"),
        ('memory = "much"', "`memory`"),
        ("[options]\ncores = 4", "`options.cores` cannot be set"),
        ("[options]\nsecurity = false", "`options.security` cannot be set"),
    ],
)
def test_a_wrong_file_of_batch_options(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "batch.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(said)):
        batchfile.read_options(where.BatchSystem.SLURM, str(path))
    with pytest.raises(DataError, match="cannot read"):
        batchfile.read_options(where.BatchSystem.SLURM, str(tmp_path / "none"))
    # Before anything is begun.
    assert run_command(["run", "--only", "6.1-x86_64", "--on", f"slurm:{path}", "--", "true"]) == 125
    assert not (tmp_path / "state/runs").exists()


def packed(folder: Path) -> Path:
    """The folder of a cell as a worker sends it."""
    target = folder.with_name("packed")
    anyio.run(pack_cell, folder, target)
    return target


def test_what_a_guest_left_arrives(tmp_path: Path) -> None:
    shared = tmp_path / "cell/artifacts"
    shared.mkdir(parents=True)
    (shared / "secret").write_bytes(b"x")
    (shared / "secret").chmod(0)
    with (shared / "disk").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"in the middle")
    (shared / "one").write_bytes(b"1")
    (shared / "other").hardlink_to(shared / "one")
    (shared / "link").symlink_to("one")
    deep = shared
    for _ in range(300):
        deep = deep / "d"
        deep.mkdir()
    for number in range(2000):
        (shared / f"{number}").touch()
    sent = packed(tmp_path / "cell")
    assert sent.stat().st_size < 1 << 20
    (tmp_path / "home").mkdir()
    assert unpack_cell(sent, tmp_path / "home", 1 << 20) == []
    came = tmp_path / "home/artifacts"
    assert (came / "secret").read_bytes() == b"x"
    assert (came / "disk").stat().st_size == 1 << 40
    assert (came / "disk").stat().st_blocks < 1000
    with (came / "disk").open("rb") as file:
        file.seek(1 << 39)
        assert file.read(13) == b"in the middle"
    assert (came / "other").read_bytes() == b"1"
    assert (came / "link").readlink() == Path("one")
    assert len(list(came.rglob("d"))) == 300
    with pytest.raises(DamagedError, match="larger than it may be"):
        unpack_cell(sent, tmp_path / "home", 3)


def test_what_leads_out_is_left_out_alone(tmp_path: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, target in (("y", "z/1/2/3"), ("a", "y/../../../../x"), ("b", "/etc/passwd"), ("../c", "x")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        device = tarfile.TarInfo("device")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
        kept = tarfile.TarInfo("kept")
        kept.size = 4
        archive.addfile(kept, io.BytesIO(b"kept"))
    sent = tmp_path / "packed"
    sent.write_bytes(zstandard.compress(plain.getvalue()))
    home = tmp_path / "home"
    home.mkdir()
    (note,) = unpack_cell(sent, home, 1000)
    assert "lead out of it" in note
    assert (home / "kept").read_bytes() == b"kept"
    assert not [path for path in home.rglob("*") if not path.resolve().is_relative_to(home)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "packed"]
    sent.write_bytes(sent.read_bytes()[:-20])
    with pytest.raises(DamagedError, match="cannot be read"):
        unpack_cell(sent, home, 1000)


def test_output_that_was_not_told_comes_with_the_results(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"0123456789")
    (tmp_path / "stderr").write_bytes(b"err")
    shown: list[bytes] = []

    async def show(data: bytes) -> None:
        shown.append(data)

    async def play() -> None:
        heard = Heard(Observer(stdout=show))
        heard.put(Told(stdout=b"01", at=0))
        # What was at 2 was dropped: what is behind it must not be shown before it.
        heard.put(Told(stdout=b"45", at=4))
        heard.put(Told(stderr=b"err", at=0))
        heard.close()
        await heard.pass_on()
        await heard.pass_on_rest(tmp_path)

    anyio.run(play)
    assert shown == [b"01", b"23456789"]


def test_a_host_that_is_set_aside_gives_back_what_it_has(tmp_path: Path) -> None:
    class Broken(lenthost.LentHost):
        async def _run(self, *_arguments: object) -> Answered:
            raise HostError("no QEMU")

    host = Broken(1, Admission(cpus=1, memory=1, places=1), tmp_path, Forker(), None)
    order = CellOrder(job=job(), travels={}, home="https://x", topic="t")

    async def play() -> list[Answered]:
        return [await host.answer(str(number), order, lambda _topic, _said: None) for number in range(4)]

    answers = anyio.run(play)
    assert [answer.error for answer in answers] == ["no QEMU"] * 3 + ["it takes no more cells"]
    assert host.is_set_aside
    assert all(answer.may_work_elsewhere for answer in answers)


def host_with(**more: float) -> dict[str, float]:
    """The resources of a host."""
    return {placing.resource(): 9, placing.CPUS: 4, placing.MEMORY: 8000} | more


def test_a_cell_goes_where_it_is_not_emulated() -> None:
    one = job(arch="s390x", memory=1024, cpus=2)
    emulating, fast = host_with(), host_with() | {placing.native("s390x"): 1}
    plain = {placing.resource(): 1, placing.CPUS: 2, placing.MEMORY: 1184}
    assert placing.resources_for(one, [emulating]) == plain
    assert placing.resources_for(one, [emulating, fast]) == plain | {placing.native("s390x"): 1}
    assert placing.resources_for(one, [fast | {placing.native("s390x"): 0}]) == plain
    assert placing.resources_for(job(accelerator=Accelerator.TCG, memory=1024), [fast]) == plain


def test_a_cell_goes_where_there_is_qemu_for_it() -> None:
    one = job(arch="s390x")
    without, with_it = host_with(), host_with() | {placing.emulator("s390x"): 1}
    assert placing.resources_for(one, [without, with_it])[placing.emulator("s390x")] == 1
    # Where none has it, one of them says what to install.
    assert placing.emulator("s390x") not in placing.resources_for(one, [without])


def test_a_guest_that_is_larger_than_any_host_runs_there_alone() -> None:
    one = job(memory=9000, cpus=8)
    wanted = placing.resources_for(one, [host_with(cpus=2), host_with(memory=500)])
    assert (wanted[placing.CPUS], wanted[placing.MEMORY]) == (4, 8000)
    # Those of a batch system may all be still to come.
    assert placing.resources_for(one, [])[placing.CPUS] == 8


def test_what_this_host_says_of_itself() -> None:
    found = placing.resources_of_this_host(3, 1000)
    assert (found[placing.CPUS], found[placing.MEMORY]) == (3, 1000)
    assert found[placing.resource()] > 0
    has_qemu = {name for name in arch_names() if shutil.which(load_arch(name).facts.qemu.binary)}
    assert {name for name in arch_names() if placing.emulator(name) in found} == has_qemu != set()


def test_which_host_ran_what() -> None:
    def cell(name: str, host: HostFacts | None, total: float, accelerator: Accelerator | None) -> CellResult:
        return CellResult(
            cell=name,
            kernel="6.1",
            release=None,
            arch="s390x",
            variant=None,
            accelerator=accelerator,
            outcome=Outcome.PASSED,
            host=host,
            timings=Timings(total=total, prepare=1.0),
        )

    big = HostFacts(name="big\x1b[31m1", qemu="9.2", cpu="EPYC")
    cells = [
        cell("a", big, 11.0, Accelerator.KVM),
        cell("b", big, 21.0, Accelerator.TCG),
        cell("c", None, 6.0, Accelerator.TCG),
        cell("d", None, 0.0, None),
    ]
    assert hosttable.rows(cells, 20.0) == [
        ["big1", "EPYC", "9.2", "kvm, tcg", "2", "30.0s", "150%"],
        ["this host", "", "", "tcg", "1", "5.00s", "25%"],
    ]
    assert hosttable.rows(cells, None)[0][-1] == ""
    assert "of the run's" in hosttable.table(cells, 20.0)


def test_a_cell_goes_where_its_template_is() -> None:
    one, other = job(cpus=1), job(cpus=1, memory=4096)
    shape = placing.shape_of(one)
    assert shape != placing.shape_of(other)
    cold = replace(one, machine=replace(one.machine, start=StartKind.COLD))
    warm = replace(one, machine=replace(one.machine, start=StartKind.WARM))
    assert (placing.shape_of(cold), placing.shape_of(warm)) == ("", shape)
    hosts: list[dict[str, Any]] = [
        {"address": "a", "resources": host_with(), "metrics": {}},
        {"address": "b", "resources": host_with(cpus=2), "metrics": {placing.SHAPES: [shape]}},
        {"address": "c", "resources": host_with(), "metrics": {placing.SHAPES: ["other", shape]}},
    ]
    wanted = placing.resources_for(one, [host["resources"] for host in hosts])
    assert placing.warm_host(shape, hosts, wanted, {}) == "b"
    # Two guests of one CPU are as many as it runs.
    assert placing.warm_host(shape, hosts, wanted, {"b": 2, "c": 3}) == "c"
    # Rather cold at once than warm later.
    assert placing.warm_host(shape, hosts, wanted, {"b": 2, "c": 4}) is None
    # A host that takes no more cells is not preferred.
    aside = [{**hosts[1], "resources": host_with(**{placing.resource(): 0})}]
    assert placing.warm_host(shape, aside, wanted, {}) is None


@pytest.mark.parametrize(
    ("url", "said"), [("nonsense://x", "Protocol not known"), ("simplecache::s3://x", "another URL")]
)
def test_a_store_that_cannot_be(url: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["run", "--only", "6.1-x86_64", "--on", "tls://boss:8786", "--store", url, "--", "true"]
    assert run_command(argv) == 125
    assert said in capsys.readouterr().err
