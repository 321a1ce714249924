"""Downloads over HTTP: checked by SHA-256, and resumed after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from quizmatrix.core.checksum import sha256_of
from quizmatrix.core.errors import NotFetchedError, host_error
from quizmatrix.core.process import Tell

if TYPE_CHECKING:
    import httpx

# Seconds to wait for a connection, and for the next bytes of one.
_TIMEOUT = 30.0
# How often a transfer that breaks off is taken up again, and seconds between.
_TRIES = 3
_PAUSE = 1.0
# Seconds between two words on how far it is.
_PROGRESS = 5.0


async def fetch_text(url: str, *, otherwise: str = "") -> str | None:
    """A small file; None where the server says that there is none.

    otherwise: what else a person may do where it does not come, which raises NotFetchedError.
    """
    import httpx

    try:
        client = _client()
    except (ImportError, ValueError) as error:  # a proxy's address that is none, or of another kind
        raise _not_fetched(url, error, otherwise) from error
    try:
        async with client:
            answer = await client.get(url)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _not_fetched(url, error, otherwise) from error
    return answer.text


async def fetch_file(
    url: str, into: Path, tell: Tell, *, sha256: str | None = None, otherwise: str = ""
) -> Path:
    """Fetch a file into a folder; what an earlier try left there as NAME.part is continued.

    sha256: what its content has to have, and the reason to trust a continued one; without it every
    fetch begins anew. otherwise: as for fetch_text. Raises NotFetchedError where it does not come or is
    another file, HostError where the disk does not take it.
    """
    import httpx

    path = into / url.rpartition("/")[2]
    part = path.with_name(f"{path.name}.part")
    if sha256 is not None and path.is_file() and sha256_of(path) == sha256:
        return path
    failure: Exception | None = None
    for attempt in range(_TRIES):
        if attempt:
            await anyio.sleep(_PAUSE)
        if sha256 is None:
            part.unlink(missing_ok=True)
        try:
            await _continue(url, part, tell)
        except (httpx.HTTPStatusError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise _not_fetched(url, error, otherwise) from error
        except httpx.HTTPError as error:
            failure = error
            continue
        except OSError as error:
            raise host_error(f"store {path.name}", error) from error
        except (ImportError, ValueError) as error:  # as in fetch_text
            raise _not_fetched(url, error, otherwise) from error
        if sha256 is None or sha256_of(part) == sha256:
            return part.replace(path)
        # What was continued may have been another file's beginning: once more, from the beginning.
        part.unlink()
        failure = ValueError("its SHA-256 is not the one that was signed")
    raise _not_fetched(url, failure or ValueError("it did not come"), otherwise)


async def _continue(url: str, part: Path, tell: Tell) -> None:
    """Fetch what is missing of `part`."""
    import httpx

    there = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={there}-"} if there else {}
    async with _client() as client, client.stream("GET", url, headers=headers) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing; the caller checks what is there
        answer.raise_for_status()
        continued = answer.status_code == httpx.codes.PARTIAL_CONTENT
        if continued:
            tell(f"fetching {part.stem}: continuing at {there // 1_000_000} MB")
        size = int(answer.headers.get("Content-Length", 0)) + (there if continued else 0)
        spoke = anyio.current_time()
        with part.open("ab" if continued else "wb") as file:
            async for chunk in answer.aiter_raw():
                file.write(chunk)
                if anyio.current_time() - spoke > _PROGRESS:
                    spoke = anyio.current_time()
                    of = f" of {size // 1_000_000}" if size else ""
                    tell(f"fetching {part.stem}: {file.tell() // 1_000_000}{of} MB")


def _client() -> httpx.AsyncClient:
    import httpx

    # The file itself, not one the server compressed on the way: its SHA-256 is known.
    headers = {"Accept-Encoding": "identity", "User-Agent": "quizmatrix"}
    return httpx.AsyncClient(follow_redirects=True, timeout=_TIMEOUT, headers=headers)


def _not_fetched(url: str, error: Exception, otherwise: str) -> NotFetchedError:
    import httpx

    cause = str(error) or type(error).__name__
    if isinstance(error, httpx.HTTPStatusError):
        cause = f"the server says {error.response.status_code} {error.response.reason_phrase}"
    return NotFetchedError(
        f"could not fetch {url}",
        cause=cause,
        next_step="Check the network and the address, then run it again."
        + (f" {otherwise}" if otherwise else ""),
    )
