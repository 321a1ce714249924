"""`make check-modules`: what counts as missed."""

from quizmatrix.build.parts import Done
from tests.check_modules import missed
from tests.dkms_oracle import DkmsBuild, Oracle, Verdict
from tests.modules_page import Outcome


def test_a_module_that_dkms_builds_and_we_do_not_is_missed() -> None:
    theirs = DkmsBuild(verdict=Verdict.BUILT, modules=["xt_one", "xt-two"])
    oracles = {"6.1-x86_64": Oracle(builds={"xt-dkms": theirs}, versions={})}

    def ours(*modules: str) -> list[str]:
        outcome = Outcome(done=Done.BUILT, modules=frozenset(modules), why="of no use")
        return missed({"xt": {"6.1-x86_64": outcome, "6.1-s390x": Outcome(done=Done.FAILED)}}, oracles)

    assert ours("xt_one", "xt_two") == []
    assert ours("xt_one") == ["xt, 6.1-x86_64: dkms builds xt_two; of no use"]


def test_what_dkms_cannot_build_is_not_missed() -> None:
    oracles = {"6.1-x86_64": Oracle(builds={"xt-dkms": DkmsBuild(verdict=Verdict.FAILED)}, versions={})}
    assert missed({"xt": {"6.1-x86_64": Outcome(done=Done.FAILED)}}, oracles) == []
