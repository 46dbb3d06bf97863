"""Downloads that resume, are verified and are never left half-written."""

import contextlib
import hashlib
import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

CONNECT_SECONDS = 10.0  # for name look-up and connection, then for each next byte
CHUNK_BYTES = 1 << 16


class DownloadError(Exception):
    """A file could not be downloaded; the message is a reason without a full stop."""


def download(url: str, path: Path, md5: str, timeout: float = CONNECT_SECONDS) -> None:
    """Downloads a file to ``path`` unless it is there already.

    A partial download is kept in ``path`` + ``.part`` and resumed by the next call; the
    file gets its final name only if its checksum is right.

    Args:
      url: address of the file.
      path: of the file on disk; its folder is created.
      md5: checksum of the whole file, hexadecimal.
      timeout: seconds to wait for a connection, and later for each next byte.

    Raises:
      DownloadError: no connection, an error of the server, a broken transfer, a folder
        that cannot be written, or a wrong checksum (the partial file is removed).
    """
    part = path.with_name(path.name + ".part")
    host = urllib.parse.urlsplit(url).hostname
    try:
        if path.exists() and md5_of(path) == md5:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part, timeout)
        found = md5_of(part)
        if found == md5:
            part.replace(path)
        else:
            part.unlink()
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as e:
        reason = getattr(e, "reason", e)
        raise DownloadError(f"{host} could not be reached ({reason})") from e
    except OSError as e:
        raise DownloadError(f"{e.filename} cannot be written ({e.strerror})") from e
    if found != md5:
        raise DownloadError(f"{host} sent a {path.name} with a wrong checksum")


def md5_of(path: Path) -> str:
    """The MD5 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def _md5() -> "hashlib._Hash":
    return hashlib.md5(usedforsecurity=False)


def _fetch(url: str, part: Path, timeout: float) -> None:
    """Appends the missing bytes of the file at ``url`` to ``part``."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = _open(request, timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the range begins at the end: the file is complete
            return
        raise
    resumed = response.status == 206
    with contextlib.closing(response), part.open("ab" if resumed else "wb") as file:
        expected = int(response.headers.get("Content-Length", 0))
        received = 0
        while chunk := response.read(CHUNK_BYTES):
            received += file.write(chunk)
    if received < expected:
        raise ConnectionError(f"the connection broke after {have + received} bytes")


def _open(request: urllib.request.Request, timeout: float) -> HTTPResponse:
    """Opens a connection within ``timeout`` seconds, including the name look-up.

    A socket's own timeout does not cover the look-up, which can hang for minutes, so
    the attempt runs in a thread that is abandoned after the timeout.
    """
    answer: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def attempt() -> None:
        try:
            answer.put(urllib.request.urlopen(request, timeout=timeout))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=attempt, daemon=True).start()
    try:
        result = answer.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout:g} seconds") from None
    if isinstance(result, Exception):
        raise result
    return result
