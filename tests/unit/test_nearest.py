"""The suggestion for an unknown name."""

from quizmatrix.core.nearest import did_you_mean, nearest


def test_the_most_similar_name() -> None:
    assert nearest("endain", iter(["nightly", "endian", "indian"])) == "endian"
    assert nearest("endain", ["quick"]) is None
    assert nearest("endain", ["endian"], 0.99) is None
    assert nearest("", [""]) == ""


def test_the_question() -> None:
    assert did_you_mean("--timout", ["--memory", "--timeout"]) == "Did you mean `--timeout`?"
    assert did_you_mean("--timout", ["--memory"], 0.9) == ""
    assert did_you_mean("x", {}) == ""
