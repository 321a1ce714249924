"""How the words of COMMAND are passed to the guest."""

import shlex
import subprocess

from hypothesis import given
from hypothesis import strategies as st

from quizmatrix.run.runlayer import guest_argv

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(words, min_size=1, max_size=5))
def test_words_arrive_as_they_were_given(given_words: list[str]) -> None:
    if {"&&", "||", "|"} & set(given_words):
        return
    argv = guest_argv(["printf", "%s\\n", *given_words])
    done = subprocess.run(argv, capture_output=True, check=True)
    assert done.stdout.decode() == "".join(f"{word}\n" for word in given_words)


def test_operators_are_the_shells() -> None:
    assert guest_argv(["a b", "&&", "c"]) == ["/bin/sh", "-c", "'a b' && c"]
    assert guest_argv(["x | y"]) == ["/bin/sh", "-c", "x | y"]
    assert shlex.join(["a b"]) == "'a b'"
