"""Profiles: their options and order, what a cell lacks for them, and their host halves."""

from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from quizmatrix.core import paths
from quizmatrix.core.errors import DataError, UnpreparedError, UsageError
from quizmatrix.model.profile import Use, check, check_packages, facts_of, folders, parse_profiles, resolve
from quizmatrix.run.hosthalf import HostDisk, HostHalf, set_up

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes profiles in the user's folder."""
    monkeypatch.setenv("QUIZMATRIX_CONFIG_DIR", str(tmp_path))

    def write(name: str, facts: str = "", **files: str) -> Path:
        folder = tmp_path / "profiles" / name
        folder.mkdir(parents=True)
        (folder / "profile.toml").write_text(f'summary = "one for a test"\n{facts}')
        for file, text in files.items():
            (folder / file).write_text(text)
        return folder

    return write


@pytest.mark.parametrize(
    "name", sorted(path.name for path in (paths.data_dir("guest") / "profiles").iterdir())
)
def test_what_ships_is_whole(name: str) -> None:
    facts = facts_of(name, "test")
    (use,) = (use for use in resolve([name], {}, "test") if use.name == name)
    assert [option for option, _text in use.options] == list(facts.options)
    assert facts.summary


def test_words_of_the_command_line() -> None:
    assert parse_profiles(["memdev:count=6,size=1G,zfs", "net"]) == {
        "memdev": {"count": "6", "size": "1G"},
        "zfs": {},
        "net": {},
    }
    assert parse_profiles(["blockdev:persist=a=b,"]) == {"blockdev": {"persist": "a=b"}}
    assert parse_profiles([]) == {}


@pytest.mark.parametrize("text", ["memdev:count", "count=6", ":count=6"])
def test_words_that_are_no_options(text: str) -> None:
    with pytest.raises(UsageError):
        parse_profiles([text])


def test_options_have_types(make: Make) -> None:
    options = {
        "n": ("number", "3"),
        "s": ("size", '"1G"'),
        "d": ("duration", '"0"'),
        "w": ("switch", "false"),
        "t": ("text", '""'),
    }
    make(
        "own",
        "".join(
            f'[options.{name}]\ntype = "{kind}"\ndefault = {default}\nhelp = "?"\n'
            for name, (kind, default) in options.items()
        ),
    )
    (use,) = resolve(["own"], {}, "test")
    assert use.environment == {"OWN_N": "3", "OWN_S": "1024", "OWN_D": "0", "OWN_W": "", "OWN_T": ""}
    given = {"n": 4, "s": "2M", "d": "20ms", "w": "yes", "t": "a b"}
    (use,) = resolve(["own"], {"own": given}, "test")
    assert use.environment == {"OWN_N": "4", "OWN_S": "2", "OWN_D": "0.02", "OWN_W": "yes", "OWN_T": "a b"}
    for wrong in ({"n": "-1"}, {"n": "x"}, {"s": "3"}, {"d": "soon"}, {"w": "perhaps"}, {"t": "a\nb"}):
        with pytest.raises(DataError, match=f"own:{next(iter(wrong))}"):
            resolve(["own"], {"own": wrong}, "test")
    with pytest.raises(DataError) as caught:
        resolve(["own"], {"own": {"nn": 1}}, "test")
    assert "Did you mean `n`?" in caught.value.next_step


def test_what_is_needed_comes_first(make: Make) -> None:
    make("a", 'needs = ["b", "c"]\n')
    make("b", 'needs = ["c"]\n')
    make("c")
    assert [use.name for use in resolve(["a"], {}, "test")] == ["c", "b", "a"]
    assert [use.name for use in resolve(["c", "a"], {}, "test")] == ["c", "b", "a"]


def test_profiles_that_need_each_other(make: Make) -> None:
    make("a", 'needs = ["b"]\n')
    make("b", 'needs = ["a"]\n')
    with pytest.raises(DataError, match="a -> b -> a"):
        resolve(["a"], {}, "test")


def test_an_option_that_has_only_some_values(make: Make) -> None:
    def resolved(**options: object) -> dict[str, str]:
        (use,) = resolve(["own"], {"own": options}, "test")
        return use.environment

    make(
        "own",
        '[options.bus]\ntype = "text"\ndefault = "a"\nhelp = "?"\nneeds = { a = [], b = [] }\n'
        '[options.none]\ntype = "text"\ndefault = ""\nhelp = "?"\nneeds = { a = [] }\n'
        '[options.on]\ntype = "switch"\ndefault = true\nhelp = "?"\nneeds = { yes = ["X"] }\n',
    )
    assert resolved() == {"OWN_BUS": "a", "OWN_NONE": "", "OWN_ON": "yes"}
    assert resolved(bus="b", none="", on=False) == {"OWN_BUS": "b", "OWN_NONE": "", "OWN_ON": ""}
    for bad in ("c", ""):
        with pytest.raises(DataError, match=f"own:bus: it is one of a, b, not '{bad}'"):
            resolved(bus=bad)


@pytest.mark.parametrize("name", ["nosuch", "../memdev", "a/b", "", "."])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(DataError, match="unknown profile"):
        resolve([name], {}, "test")


def test_facts_with_a_wrong_key(make: Make) -> None:
    make("own", "needz = []\n")
    with pytest.raises(DataError, match="needz"):
        resolve(["own"], {}, "test")


def test_what_a_cell_lacks(make: Make) -> None:
    make("own", 'config = ["A", "B"]\nvariant = "wide"\npackages = ["fio"]\nmodules = ["mine"]\n')
    (use,) = resolve(["own"], {}, "test")
    whole = "CONFIG_A=y\nCONFIG_B=m\n"

    def look(config: str = whole, built: str = "mine") -> None:
        check(use, kernel="k", config=config, has_module=lambda name: name == built, cell="c")

    look()
    with pytest.raises(UnpreparedError, match="needs CONFIG_B: the kernel k") as caught:
        look("CONFIG_A=y\n# CONFIG_B is not set\n")
    assert "built here with the variant wide has it" in caught.value.next_step
    with pytest.raises(UnpreparedError, match="needs the module mine: nothing"):
        look(built="yours")
    check_packages(use, ("fio",))
    for installed, next_step in (
        (None, "--image debian"),
        ((), "quizmatrix image build --include fio"),
    ):
        with pytest.raises(UnpreparedError, match="needs fio") as caught:
            check_packages(use, installed)
        assert caught.value.next_step == next_step


def run_setup(use: Use, folder: Path) -> HostHalf:
    async def main() -> HostHalf:
        return await set_up(use, folders()[use.name], cell="6.1-s390x", arch="s390x", folder=folder)

    return anyio.run(main)


def test_a_host_half_returns_data(make: Make, tmp_path: Path) -> None:
    make(
        "own",
        setup='echo "{\\"disks\\": [{\\"serial\\": \\"x\\", \\"path\\": \\"$QUIZMATRIX_FOLDER/x\\"}], '
        '\\"environment\\": {\\"A\\": \\"$QUIZMATRIX_ARCH\\"}}"',
    )
    half = run_setup(Use(name="own"), tmp_path / "f")
    assert half.disks == [HostDisk(serial="x", path=f"{tmp_path}/f/x")]
    assert half.environment == {"A": "s390x"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo oh no >&2; exit 3", "failed with 3: oh no"),
        ("echo rubbish", "something else"),
        ("echo '{\"dsks\": []}'", "unknown field"),
    ],
)
def test_a_host_half_that_fails(make: Make, tmp_path: Path, text: str, said: str) -> None:
    make("own", setup=text)
    with pytest.raises(UnpreparedError, match=said):
        run_setup(Use(name="own"), tmp_path / "f")


def test_disks_that_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIZMATRIX_STATE_DIR", str(tmp_path / "a state"))

    def disks(**given: str) -> list[HostDisk]:
        (use,) = resolve(
            ["blockdev"], {"blockdev": {key.replace("_", "-"): given[key] for key in given}}, "t"
        )
        return run_setup(use, tmp_path / "f").disks

    first, second = disks(size="8M")
    assert (first.serial, second.serial) == ("quizb0", "quizb1")
    assert Path(first.path).stat().st_size == 8 << 20
    assert Path(first.path).stat().st_blocks == 0
    (kept,) = disks(count="1", size="8M", persist="mine", fails="read", fails_at="2M")
    assert kept.path.startswith(f"{tmp_path}/a state/disks/mine/6.1-s390x/")
    assert (kept.fails, kept.fails_at) == ("read", 2 << 20)
    Path(kept.path).write_bytes(b"data")
    assert disks(count="1", size="16M", persist="mine")[0].path == kept.path
    assert Path(kept.path).read_bytes()[:4] == b"data"
    for wrong in ({"persist": "../x"}, {"fails": "maybe"}):
        with pytest.raises(UnpreparedError):
            disks(**wrong)
