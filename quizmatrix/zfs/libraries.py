from pathlib import Path

from quizmatrix.arch import Arch
from quizmatrix.process import Tell


async def build_libraries(arch: Arch, into: Path, tell: Tell) -> None:
    raise NotImplementedError
