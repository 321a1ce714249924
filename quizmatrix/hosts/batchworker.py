"""A worker as a job of a batch system: dask-jobqueue starts this as it would start dask's own worker."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import anyio
from dask.utils import parse_bytes

from quizmatrix.core import uses
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.hosts.lending import Lent, lend
from quizmatrix.hosts.security import Certificates
from quizmatrix.model.outcome import EXIT_NO_VERDICT, EXIT_OK
from quizmatrix.schedule.admission import MEMORY_SHARE


def main(words: list[str]) -> int:
    """Run a worker until its scheduler ends. words: those of `dask worker`, as far as they are known here."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("address")
    parser.add_argument("--name")
    parser.add_argument("--nthreads", type=int)
    parser.add_argument("--memory-limit", type=parse_bytes, default=0)
    parser.add_argument("--tls-ca-file", type=Path, required=True)
    given, _others = parser.parse_known_args(words)
    # The three files are in one folder: see security.Certificates.
    certificates = Certificates(folder=given.tls_ca_file.parent)
    # The job has no more, whatever its node has.
    memory = int((given.memory_limit >> 20) * MEMORY_SHARE) or None
    lent = Lent(cpus=given.nthreads, memory=memory, name=given.name)
    try:
        with uses.using_cache(lambda text: print(text, file=sys.stderr)):
            anyio.run(lend, given.address, certificates, lent)
    except QuizmatrixError as error:
        print(error.render(), file=sys.stderr)
        return EXIT_NO_VERDICT
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
