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

# Seconds to wait for a connection, and for the next bytes on it.
_TIMEOUT = 30.0
# Attempts for a transfer that breaks off, and seconds between them.
_TRIES = 3
_PAUSE = 1.0
# Bytes of a file. A package with a kernel for debuggers has one GB.
_AT_MOST = 8 << 30
# Seconds between two progress messages.
_PROGRESS = 5.0


async def fetch_text(url: str, *, otherwise: str = "") -> str | None:
    """The text of a small file; None if the server answers 404.

    otherwise: one more next step for the error message. Raises NotFetchedError if the download fails.
    """
    import httpx

    try:
        client = _client()
    except (ImportError, ValueError) as error:  # an invalid proxy address, or an unsupported kind of proxy
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
    url: str,
    into: Path,
    tell: Tell,
    *,
    sha256: str | None = None,
    otherwise: str = "",
    at_most: int = _AT_MOST,
) -> Path:
    """Download a file into a folder; continue NAME.part if an earlier attempt left it there.

    sha256: the expected hash. Only with it can a continued download be trusted; without it, every download
    starts from the beginning.
    otherwise: as for fetch_text. at_most: bytes of the file.
    Raises NotFetchedError if the download fails or the hash differs, HostError if the file cannot be written.
    """
    import httpx

    path = into / url.partition("?")[0].rpartition("/")[2]
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
            await _continue(url, part, tell, at_most)
        except (httpx.HTTPStatusError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise _not_fetched(url, error, otherwise) from error
        except httpx.HTTPError as error:
            failure = error
            continue
        except OSError as error:
            raise host_error(f"store {path.name}", error) from error
        except (ImportError, ValueError) as error:  # as in fetch_text, or it is too large
            part.unlink(missing_ok=True)
            raise _not_fetched(url, error, otherwise) from error
        if sha256 is None or (found := sha256_of(part)) == sha256:
            return part.replace(path)
        # The partial file may have belonged to another version of the file: start from the beginning.
        part.unlink()
        failure = ValueError(f"its SHA-256 is {found}, not {sha256}")
    raise _not_fetched(url, failure or ValueError("no data arrived"), otherwise)


async def _continue(url: str, part: Path, tell: Tell, at_most: int) -> None:
    """Fetch the missing rest of `part`."""
    import httpx

    there = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={there}-"} if there else {}
    async with _client() as client, client.stream("GET", url, headers=headers) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the file is complete; the caller checks its hash
        answer.raise_for_status()
        continued = answer.status_code == httpx.codes.PARTIAL_CONTENT
        if continued:
            tell(f"fetching {part.stem}: continuing at {there // 1_000_000} MB")
        size = int(answer.headers.get("Content-Length", 0)) + (there if continued else 0)
        spoke = anyio.current_time()
        with part.open("ab" if continued else "wb") as file:
            async for chunk in answer.aiter_raw():
                if file.tell() + len(chunk) > at_most:
                    raise ValueError(f"it has more than {at_most} bytes")
                file.write(chunk)
                if anyio.current_time() - spoke > _PROGRESS:
                    spoke = anyio.current_time()
                    of = f" of {size // 1_000_000}" if size else ""
                    tell(f"fetching {part.stem}: {file.tell() // 1_000_000}{of} MB")


def _client() -> httpx.AsyncClient:
    import httpx

    # No compression by the server: the SHA-256 is that of the file itself.
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
