"""Transfer of a published file from one source, an address or a file of this machine, from any byte on.

Nothing that a server says is taken on trust: each fault is raised before a byte of it has been handed on, or ends the
stream. Whether the bytes are the right ones, their SHA-256 decides, in `fetch`.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import ipaddress
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit

from ... import __version__
from ...errors import CheckpointError
from ...io.atomic import refusing
from ..storage.reading import MAX_HEADER
from .mirrors import RemoteFile, Source

if TYPE_CHECKING:
    import requests

CHUNK: Final = 1024 * 1024
"""Bytes that are requested at once; those that have arrived are returned."""

MAX_REDIRECTS: Final = 8
HEAD: Final = 16
"""First bytes that are needed to tell the kind of a file."""

LATER: Final = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed (RFC 9110; 425 and 429: RFC 8470 and 6585)."""

PERMANENT: Final = {
    401: "it asks for a login",
    403: "it refuses access",
    404: "the file is not there",
    410: "the file is no longer there",
    451: "the file is withheld for legal reasons",
}


@dataclass(frozen=True)
class Patience:
    """Limits on the time that a source is given, in seconds unless said otherwise.

    Attributes:
        tries: failures in a row, without getting further, after which a source is given up.
        first_wait: pause after the first of them; each further one doubles it.
        longest_wait: the longest pause; a server that asks for a longer one is given up.
        connect: for a connection.
        read: without a single byte.
        window, least_rate: a stream with fewer bytes per second over a window is cut and requested again.
    """

    tries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0
    connect: float = 15.0
    read: float = 30.0
    window: float = 30.0
    least_rate: float = 1024.0


class SourceFault(CheckpointError):
    """A source did not give what was asked for.

    Args:
        what: the fault, as the second half of "huggingface.co: …".
        got: details, added to it.
        again: true if the same source may do better next time.
        afresh: true if the bytes that are there so far are worth nothing.
        wait: seconds that the source asks to wait.
        fix: none; the caller knows the remedy.
    """

    def __init__(
        self,
        what: str,
        *,
        got: str = "",
        fix: str = "",
        again: bool = False,
        afresh: bool = False,
        wait: float = 0.0,
    ) -> None:
        self.again, self.afresh, self.wait = again, afresh, wait
        super().__init__(f"{what}: {got}" if got else what, fix=fix)


@dataclass(frozen=True)
class Stream:
    """An open source.

    Attributes:
        start: offset of its first byte in the file: the requested one, or 0 where the source starts again.
        total: bytes of the whole file, None if the source does not say.
        validator: identifies this version of the file (a strong ETag or a date); empty if there is none.
        chunks: the bytes; raises `SourceFault`. It may end early: count them.
    """

    start: int
    total: int | None
    validator: str
    chunks: Iterator[bytes]


@contextlib.contextmanager
def open_source(entry: RemoteFile, source: Source, start: int, validator: str, patience: Patience) -> Iterator[Stream]:
    """Open a source of a file from a byte on.

    Args:
        entry: the file.
        source: one of its sources.
        start: bytes that are there already.
        validator: of the version they belong to; empty to take whichever there is.
        patience: the time that the source is given.

    Raises:
        SourceFault: the source does not give the file.
    """
    opener = _open_file if isinstance(source, Path) else _open_url
    with opener(entry, source, start, validator, patience) as stream:  # type: ignore[arg-type]
        if stream.total is not None and stream.total not in entry.size:
            raise SourceFault(f"it has {stream.total:,} bytes where the table says {entry.size.text}")
        if stream.total is None and entry.sha256 is None:
            raise SourceFault("it does not say how long the file is, and no SHA-256 is known")
        yield stream


@contextlib.contextmanager
def _open_file(_: RemoteFile, path: Path, start: int, validator: str, __: Patience) -> Iterator[Stream]:
    with contextlib.ExitStack() as stack:
        with refusing("it cannot be read", SourceFault, fix=""):
            if not path.is_file():
                raise SourceFault("there is no such file")
            file = stack.enter_context(path.open("rb"))
            stat = path.stat()
            version = f"{stat.st_mtime_ns}-{stat.st_size}"
            start = start if start <= stat.st_size and validator in ("", version) else 0
            file.seek(start)

        def chunks() -> Iterator[bytes]:
            with refusing("it cannot be read", SourceFault, fix=""):
                yield from iter(lambda: file.read(CHUNK), b"")

        yield Stream(start, stat.st_size, version, chunks())


@contextlib.contextmanager
def _open_url(entry: RemoteFile, url: str, start: int, validator: str, patience: Patience) -> Iterator[Stream]:
    import requests

    headers = {
        "Accept-Encoding": "identity",  # bytes are counted as they are in the file
        "User-Agent": f"sd-webui-depth2img/{__version__}",
    }
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    with requests.Session() as session:
        session.auth = _no_credentials
        try:
            response = _followed(session, url, headers, patience)
        except requests.exceptions.SSLError as problem:
            raise SourceFault("its certificate is not valid") from problem
        except requests.exceptions.Timeout as problem:
            raise SourceFault("it does not answer in time", again=True) from problem
        except requests.exceptions.ConnectionError as problem:
            raise SourceFault("no connection", again=True) from problem
        except (requests.RequestException, ValueError) as problem:
            raise SourceFault(f"it cannot be asked: {type(problem).__name__}") from problem
        with response:
            yield _checked(response, start, validator, patience)


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep out the user's passwords (`.netrc`), which requests would send along."""
    return request


def _followed(session: requests.Session, url: str, headers: dict[str, str], patience: Patience) -> requests.Response:
    """Follow all redirects to the answer; none may lead where `_may_lead` forbids."""
    import requests

    at = url
    for _ in range(MAX_REDIRECTS + 1):
        # Not `session.get`, which reads the whole body of a redirect, however long.
        request = session.prepare_request(requests.Request("GET", at, headers=headers))
        settings = session.merge_environment_settings(at, {}, True, None, None)
        response = session.get_adapter(at).send(request, timeout=(patience.connect, patience.read), **settings)
        if not response.is_redirect:
            return response
        response.close()
        try:
            at = urljoin(at, response.headers["Location"])
            _may_lead(url, at)
        except ValueError as problem:
            raise SourceFault("it redirects to something that is not an address") from problem
    raise SourceFault(f"it redirects more than {MAX_REDIRECTS} times")


def _may_lead(url: str, to: str) -> None:
    """Refuse a redirect that leads astray. Hubs keep their files elsewhere, so another host is fine: the hash judges.

    Never to another scheme than https (http only where the user's own table names the very host by http), and never
    from outside to an address of this machine or its network.
    """
    begin, end = urlsplit(url), urlsplit(to)
    same = (begin.scheme, begin.netloc) == (end.scheme, end.netloc)
    if end.scheme != "https" and not (same and end.scheme == "http"):
        raise SourceFault(f"it redirects to {to[:80]!r}, which is not an https address")
    if not end.hostname or end.username is not None or (_is_near(end.hostname) and not _is_near(begin.hostname or "")):
        raise SourceFault(f"it redirects to {str(end.hostname)[:80]!r}, which is not a public host")


def _is_near(host: str) -> bool:
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return False


def _checked(response: requests.Response, start: int, validator: str, patience: Patience) -> Stream:
    status, headers = response.status_code, response.headers
    if status == 416:
        raise SourceFault("the file ends before the part that is here", again=True, afresh=True)
    if status in LATER:
        wait = _retry_after(headers.get("Retry-After", ""))
        if wait > patience.longest_wait:
            raise SourceFault(f"it answers {status} and asks to come back in {wait:,.0f} seconds")
        raise SourceFault(f"it answers {status}", again=True, wait=wait)
    if status not in (200, 206):
        raise SourceFault(f"it answers {status}: {PERMANENT.get(status, 'it does not give the file')}")
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml"):
        raise SourceFault("it sends a web page instead of the file")
    if headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise SourceFault("it sends the file encoded, which was not asked for")
    etag = headers.get("ETag", "")
    version = etag if etag.startswith('"') else headers.get("Last-Modified", "")
    length = headers.get("Content-Length", "")
    total = int(length) if re.fullmatch(r"\d{1,18}", length) else None
    if status == 206:
        match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            raise SourceFault("it sends another part than was asked for", again=True, afresh=True)
        if validator and version and version != validator:
            raise SourceFault("the file has changed there", again=True, afresh=True)
        total = None if match[2] == "*" else int(match[2])
    return Stream(start if status == 206 else 0, total, version, _chunks(response.raw, patience))


def _retry_after(value: str) -> float:
    """Read `Retry-After`, a number or a date (RFC 9110, 10.2.3), as seconds; 0 if it is neither."""
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0


def _chunks(raw: Any, patience: Patience) -> Iterator[bytes]:
    from urllib3.exceptions import HTTPError

    # What has arrived, rather than all that was asked for: else a drip would go unnoticed. urllib3 1 has no read1.
    read = getattr(raw, "read1", raw.read)
    begun, count = time.monotonic(), 0
    while True:
        try:
            chunk = read(CHUNK, decode_content=False)
        except (HTTPError, OSError, http.client.HTTPException, ValueError) as problem:
            raise SourceFault("the connection was lost", again=True) from problem
        if not chunk:
            return
        yield chunk
        count += len(chunk)
        passed = time.monotonic() - begun
        if passed >= patience.window:
            if count < patience.least_rate * passed:
                raise SourceFault(f"it sends only {count / passed:,.0f} bytes per second", again=True)
            begun, count = time.monotonic(), 0


def plausible(chunks: Iterator[bytes], file: str) -> Iterator[bytes]:
    """Pass bytes on, unless they do not begin like a file of that suffix; the first piece is at least `HEAD` long.

    Raises:
        SourceFault: from the first piece on.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD:
            break
    else:
        raise SourceFault(f"it sends only {len(head)} bytes", again=True)
    if file.endswith(".safetensors"):
        right = int.from_bytes(head[:8], "little") <= MAX_HEADER and head[8:9] == b"{"
    else:
        right = head.startswith((b"PK\x03\x04", b"\x80"))
    if not right:
        raise SourceFault(f"what it sends does not begin like a {Path(file).suffix} file")
    yield head
    yield from chunks
