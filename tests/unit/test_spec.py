"""A cell's specification as JSON."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.core.errors import DamagedError
from quizmatrix.core.json import encode
from quizmatrix.model.spec import ActiveProfile, Bind, CellSpec, CommandLine, Disk, Share, WorkTree
from tests.made_spec import spec

# Words and paths with any bytes, as Python represents them.
WORDS = st.binary(max_size=8).map(os.fsdecode) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.data())
def test_no_byte_is_lost(data: st.DataObject) -> None:
    def word() -> str:
        return data.draw(WORDS)

    one = spec(
        words=data.draw(st.lists(WORDS)),
        environment=data.draw(st.dictionaries(WORDS, WORDS)),
        layers=[Share(tag="user0", path=word())],
        binds=[Bind(path=word(), guest=word())],
        disks=[Disk(serial="quizh0", path=word(), origin=word())],
        work_tree=WorkTree(path=word(), typed=word(), links=data.draw(st.dictionaries(WORDS, WORDS))),
        profiles=[ActiveProfile(name="p", asked=word(), environment={"A": word()}, texts={word(): word()})],
        again=CommandLine(folder=word(), argv=[word()]),
        parameters=word(),
        stdin=word(),
        qemu_words=[word()],
    )
    text = one.encode()
    assert CellSpec.decode(text) == one
    assert text.isascii()
    json.loads(text)


def test_other_programs_read_what_is_no_utf8_as_such() -> None:
    """The form of results.json, which other programs read."""
    words = os.fsdecode(b"\xff"), "ü"
    assert encode(words) == '["\ufffd","ü"]'.encode()
    assert spec(words=list(words)).encode().count(rb'["\udcff","\u00fc"]') == 1


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff", b'{"labels": ', b"null"])
def test_what_is_no_specification(data: bytes) -> None:
    with pytest.raises(DamagedError, match="specification cannot be read"):
        CellSpec.decode(data)
