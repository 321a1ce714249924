"""RunOptions: the options as data and as words mean the same."""

from typing import Any

import msgspec
import pytest

from quizmatrix.cli.parser import parse
from quizmatrix.cli.run import read_arguments
from quizmatrix.core.json import to_json
from quizmatrix.model.options import NAMES, NAMES_OF, RunOptions, with_values

# A value for every option, none the default.
VALUES: dict[str, Any] = {
    "only": ["6.1-*", "-x"],
    "skip": ["*-s390x"],
    "kernels": ["6.1,newest"],
    "arches": ["x86_64"],
    "source": "kernel.org",
    "profiles": ["memdev:count=2", "net"],
    "enable": ["BTRFS_FS"],
    "disable": ["SMP,IPV6"],
    "module": ["DRM"],
    "shard": 3,
    "shard_like": "20261123-181501-a655",
    "no_provide": True,
    "timeout": "90s",
    "boot_timeout": "3m",
    "memory": "1G",
    "shared_limit": "2G",
    "cpus": 2,
    "image": "debian",
    "append": ["a=1", "-b c"],
    "numa": 2,
    "stdin": "-",
    "accel": "tcg",
    "machine": "pc",
    "qemu": ["-device virtio-rng-pci"],
    "layer": ["a b", "c"],
    "bind": ["a:/b:ro"],
    "env": ["A=it's", 'B=-x\n"', "C"],
    "user": "-x",
    "no_work_tree": True,
    "on_timeout": "dump",
    "jobs": 4,
    "max_time": "1h",
    "retries": 2,
    "rerun_failed": 2,
    "fail_fast": True,
    "build": True,
    "offline": True,
    "on": "tls://boss:8786",
    "certificates": "keys",
    "whole_tree": True,
    "store": "/srv/quizmatrix",
    "build_on": "workers",
    "refresh": True,
    "last_failed": True,
    "failed_first": True,
    "resume": "latest",
    "shell": True,
    "dry_run": True,
    "cold": True,
    "warm": True,
    "output": "o",
    "coverage": "c",
    "json": "-",
    "junit": "j",
    "markdown": "m",
    "html": "h",
    "fail_on": "regression",
    "on_finish": "mail me",
    "quiet": True,
    "verbose": True,
}


def test_every_option_of_run_is_data_and_the_other_way_round() -> None:
    # MATRIX is a word without an option; `splat` is a key of matrices only.
    assert set(VALUES) == NAMES - {"matrix", "splat"}
    typed = {action.dest for action in parse(["run"]).parser._actions} - {"help"}
    assert typed == NAMES - {"splat"}


@pytest.mark.parametrize("name", sorted(VALUES))
def test_its_words_are_read_as_the_same(name: str) -> None:
    options = with_values(RunOptions(), {name: VALUES[name]})
    assert options.words() != []
    assert read_arguments(options.words()) == options
    assert read_arguments(["quick", *options.words()]).selection.matrix == "quick"


def test_no_options_are_no_words() -> None:
    assert RunOptions().words() == []
    assert read_arguments([]) == RunOptions()
    options = with_values(RunOptions(), {"stdin": "/dev/null"})
    assert options.words() == ["--no-stdin"]
    assert read_arguments(["--no-stdin"]) == options


def test_its_json_has_what_is_not_the_default() -> None:
    options = with_values(RunOptions(), VALUES | {"matrix": "m.toml"})
    assert msgspec.json.decode(to_json(options), type=RunOptions) == options
    assert msgspec.json.decode(to_json(RunOptions())) == {}
    # A newer version may have more options.
    later = b'{"limits": {"memory": "1G", "new": 1}, "guest": {"new": 1}, "new": {}}'
    assert msgspec.json.decode(later, type=RunOptions) == with_values(RunOptions(), {"memory": "1G"})


def test_some_of_them_are_taken_from_others() -> None:
    every = with_values(RunOptions(), VALUES)
    taken = RunOptions().taking(every, NAMES_OF["limits"] | {"build"})
    assert dict(taken.values()) == dict(RunOptions().values()) | {
        name: VALUES[name] for name in (*NAMES_OF["limits"], "build") if name in VALUES
    }
