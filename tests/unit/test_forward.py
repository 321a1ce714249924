"""Ports of the host that are forwarded to a guest."""

import socket

import pytest

from quizmatrix.cli import run_command
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.model import forward


def test_what_is_one_and_what_is_none() -> None:
    assert forward.parse("") == []
    assert "+".join(map(str, forward.parse("2222-22+10.0.0.1:0-80"))) == "127.0.0.1:2222-22+10.0.0.1:0-80"
    assert len(forward.parse("0-1+0-2+10.0.0.1:5-1+5-1")) == 4
    assert forward.parse("2222-22")[0].option == "tcp:127.0.0.1:2222-:22"
    for text in (
        "2222",
        "2222:22",
        "a:1-2",
        "1.2.3:1-2",
        "1.2.3.4.5:1-2",
        "1.2.3:1-2",
        "65536-1",
        "1-0",
        "1-65536",
        "1-2+",
        "5-1+127.0.0.1:5-2",
    ):
        with pytest.raises(ValueError, match=r"."):
            forward.parse(text)


def test_a_free_port_and_one_that_is_taken() -> None:
    (wanted,) = forward.parse("0-22")
    port = forward.with_free_port(wanted).port
    assert port > 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (other,) = forward.parse(f"{taken.getsockname()[1]}-22")
        with pytest.raises(UnpreparedError, match="in use"):
            forward.with_free_port(other)


def test_one_port_for_several_guests(capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["run", "--dry-run", "-k", "6.1", "-a", "x86_64,s390x", "-p"]
    assert run_command([*argv, "net:forward=2222-22", "--", "true"]) == 125
    said = capfd.readouterr().err
    assert "forward=127.0.0.1:2222-22 for 2 cells at a time" in said
    assert "127.0.0.1:0-22" in said
    for allowed in (["net:forward=0-22"], ["net:forward=2222-22", "-j", "1"]):
        assert run_command([*argv, *allowed, "--", "true"]) == 0
    assert run_command([*argv, "net:forward=22", "--", "true"]) == 125
    assert "net:forward: not [ADDRESS:]PORT-PORT" in capfd.readouterr().err
