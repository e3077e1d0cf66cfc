"""A mirror on this machine that serves one file, well or in every bad way that mirrors have; a file to serve; and
processes that fetch it, to be killed."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import importlib
import json
import os
import re
import signal
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from depth2img import Depth2ImgError
from depth2img.checkpoints.download.fetch import fetch
from depth2img.checkpoints.download.mirrors import RemoteFile, Size, Source
from depth2img.checkpoints.download.transfer import Patience

NAME = "depth.safetensors"
LENGTH = 200_003
"""Bytes of the file: neither a multiple of a block nor of a disk's sector."""

QUICK = Patience(tries=3, first_wait=0.01, longest_wait=3, connect=5, read=5)


def content(seed: int = 1, length: int = LENGTH) -> bytes:
    """A safetensors file of that many bytes, of noise."""
    size = length - 8 - 96
    header = json.dumps({"noise": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode().ljust(96)
    noise = np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()
    return struct.pack("<Q", len(header)) + header + noise


def published(
    *sources: Source, data: bytes | None = None, sha256: str | None = "", size: Size | None = None, file: str = NAME
) -> RemoteFile:
    """The table's entry of a file; the SHA-256 is the right one unless given."""
    data = content() if data is None else data
    size = size or Size(f"{len(data):,} bytes", len(data), len(data))
    right = hashlib.sha256(data).hexdigest()
    return RemoteFile(file, "", "", size, right if sha256 == "" else sha256, "", tuple(sources))


ROUNDED = Size("0.20 MB", 190_000, 210_000)
"""The size of `content()` as a page would round it."""

Act = Callable[["Handler"], None]
"""Answer to one request."""


class Handler(BaseHTTPRequestHandler):
    """Answers as the mirror's plan says, else well."""

    protocol_version = "HTTP/1.1"
    server: Mirror

    def do_GET(self) -> None:
        mirror = self.server
        with mirror.lock:
            mirror.requests.append({name.lower(): value for name, value in self.headers.items()})
            act = mirror.plan.pop(0) if mirror.plan else mirror.default
        with contextlib.suppress(ConnectionError, TimeoutError, ssl.SSLError):
            act(self)
            return
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def begin(self, status: int, **headers: str | int | None) -> None:
        """Status line and headers; underscores in names are dashes."""
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def give(self, data: bytes) -> None:
        """Sends bytes as fast as the mirror is."""
        mirror = self.server
        for start in range(0, len(data), mirror.block):
            block = data[start : start + mirror.block]
            self.wfile.write(block)
            with mirror.lock:
                mirror.sent += len(block)
            if mirror.delay:
                time.sleep(mirror.delay)

    def hang_up(self) -> None:
        """Closes the connection, whatever was announced."""
        self.close_connection = True

    def asked(self) -> int | None:
        """Return the start of a request's range, None for the whole file."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match else None


class Mirror(ThreadingHTTPServer):
    """The server; attributes may be changed while it runs.

    Attributes:
        data: the file; etag: its ETag, None for none.
        plan: how the next requests are answered; default: how those after them are.
        block, delay: bytes at once, and seconds between two blocks.
        requests: headers of each request; sent: bytes of files that went out.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, data: bytes, *plan: Act, tls: tuple[Path, Path] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.etag = data, f'"{hashlib.sha256(data).hexdigest()[:12]}"'
        self.plan, self.default = list(plan), serve
        self.block, self.delay = 1 << 20, 0.0
        self.requests: list[dict[str, str]] = []
        self.sent, self.lock, self.scheme = 0, threading.Lock(), "http"
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}/{NAME}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nothing to talk about."""


@contextlib.contextmanager
def running(data: bytes, *plan: Act, tls: tuple[Path, Path] | None = None) -> Iterator[Mirror]:
    """A mirror that runs within the block."""
    mirror = Mirror(data, *plan, tls=tls)
    thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        mirror.shutdown()
        mirror.server_close()
        thread.join()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and localhost that signs itself, and its key; needs the openssl command."""
    made, key = folder / "certificate.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=mirror"
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*command.split(), *names, "-keyout", key, "-out", made], check=True, capture_output=True)
    return made, key


# --- ways to answer ---------------------------------------------------------------------------------------------------


def serve(handler: Handler) -> None:
    """As a good server: ranges, If-Range, 416."""
    mirror, start = handler.server, handler.asked()
    expected = handler.headers.get("If-Range")
    if start is None or (expected is not None and expected != mirror.etag):
        handler.begin(200, Content_Length=len(mirror.data), ETag=mirror.etag, Content_Type="application/octet-stream")
        handler.give(mirror.data)
    elif start >= len(mirror.data):
        handler.begin(416, Content_Range=f"bytes */{len(mirror.data)}", Content_Length=0)
    else:
        part(handler, start, mirror.data[start:])


def part(handler: Handler, start: int, data: bytes) -> None:
    """206 with these bytes."""
    whole = len(handler.server.data)
    content_range = f"bytes {start}-{whole - 1}/{whole}"
    handler.begin(206, Content_Length=len(data), Content_Range=content_range, ETag=handler.server.etag)
    handler.give(data)


def stop_after(count: int) -> Act:
    """Announces all that was asked for, sends a few bytes of it, and hangs up."""

    def act(handler: Handler) -> None:
        data, start = handler.server.data, handler.asked() or 0
        length = len(data) - start
        content_range = f"bytes {start}-{len(data) - 1}/{len(data)}" if start else None
        status = 206 if start else 200
        handler.begin(status, Content_Length=length, ETag=handler.server.etag, Content_Range=content_range)
        handler.give(data[start : start + count])
        handler.hang_up()

    return act


def without_ranges(handler: Handler) -> None:
    """200 and the whole file, whatever was asked for."""
    handler.begin(200, Content_Length=len(handler.server.data))
    handler.give(handler.server.data)


def announce(length: int, data: bytes | None = None) -> Act:
    """Says one length and sends other bytes, or the file."""

    def act(handler: Handler) -> None:
        handler.begin(200, Content_Length=length)
        handler.give(handler.server.data if data is None else data)
        handler.hang_up()

    return act


def endless(handler: Handler, status: int = 200, **headers: str) -> None:
    """No length, no end."""
    handler.begin(status, Transfer_Encoding="chunked", **headers)
    block = handler.server.data[:50_000]
    for _ in range(2000):
        handler.give(b"%x\r\n" % len(block) + block + b"\r\n")


def unmeasured(count: int | None = None) -> Act:
    """No length, but an end, perhaps an early one."""

    def act(handler: Handler) -> None:
        handler.begin(200, Connection="close")
        handler.give(handler.server.data[:count])
        handler.hang_up()

    return act


def status(code: int, retry_after: str | Callable[[], str] | None = None) -> Act:
    """An error."""

    def act(handler: Handler) -> None:
        value = retry_after() if callable(retry_after) else retry_after
        handler.begin(code, Content_Length=0, Retry_After=value)

    return act


def in_seconds(seconds: float) -> Callable[[], str]:
    """A date for Retry-After; dates have whole seconds."""
    return lambda: email.utils.formatdate(time.time() + seconds, usegmt=True)


def redirect(to: str) -> Act:
    """302."""
    return lambda handler: handler.begin(302, Location=to, Content_Length=0)


PAGE = b"<!doctype html><html><title>Sign in</title>" + b"<p>Please sign in.</p>" * 9000


def page(content_type: str, length: int | None = None) -> Act:
    """A web page, as it is or padded to a length."""
    data = PAGE if length is None else PAGE.ljust(length)[:length]

    def act(handler: Handler) -> None:
        handler.begin(200, Content_Length=len(data), Content_Type=content_type)
        handler.give(data)

    return act


def send(data: bytes) -> Act:
    """200 with other bytes."""

    def act(handler: Handler) -> None:
        handler.begin(200, Content_Length=len(data))
        handler.give(data)

    return act


def drip(handler: Handler) -> None:
    """A few bytes at a time, so that no single wait is long."""
    handler.begin(200, Content_Length=len(handler.server.data), ETag=handler.server.etag)
    for start in range(0, 200, 2):
        handler.wfile.write(handler.server.data[start : start + 2])
        time.sleep(0.02)
    handler.hang_up()


def silence(seconds: float) -> Act:
    """Takes the request and says nothing."""

    def act(handler: Handler) -> None:
        time.sleep(seconds)
        handler.hang_up()

    return act


def replaced_by(data: bytes, then: Act) -> Act:
    """Another version of the file from now on."""

    def act(handler: Handler) -> None:
        mirror = handler.server
        mirror.data = data
        mirror.etag = mirror.etag and f'"{hashlib.sha256(data).hexdigest()[:12]}"'
        then(handler)

    return act


def ignoring_if_range(handler: Handler) -> None:
    """206 of whichever version there is now."""
    start = handler.asked() or 0
    part(handler, start, handler.server.data[start:])


def other_part(handler: Handler) -> None:
    """206, but from another byte on than was asked for."""
    start = (handler.asked() or 0) + 7
    part(handler, start, handler.server.data[start:])


def encoded(handler: Handler) -> None:
    """gzip, unasked."""
    handler.begin(200, Content_Length=len(handler.server.data), Content_Encoding="gzip")
    handler.give(handler.server.data)


# --- the table of faults ----------------------------------------------------------------------------------------------

OTHER = content(seed=2)


@dataclass(frozen=True)
class Case:
    """A fault and what must come of it.

    Attributes:
        what: the fault.
        plan: how the first requests are answered; those after them are answered well.
        says: part of the error; empty where the file is there in the end.
        requests: how many there are.
        size: what the table says of it, None for the exact size.
        patience: with the mirror.
        always: how those after the plan are answered.
        data: the file on the mirror at first; etag: whether it has one.
    """

    what: str
    plan: tuple[Act, ...]
    says: str = ""
    requests: int = 2
    size: Size | None = None
    patience: Patience = QUICK
    data: bytes = field(default_factory=content, repr=False)
    etag: bool = True
    always: Act = serve


SLOW = Patience(tries=2, first_wait=0.01, longest_wait=1, connect=5, read=5, window=0.2, least_rate=50_000)
IMPATIENT = Patience(tries=2, first_wait=0.01, longest_wait=1, connect=5, read=0.3)

CASES = [
    Case("stops midway, once", (stop_after(70_000),)),
    Case("stops midway, five times, each time further", (stop_after(30_000),) * 5, requests=6),
    Case("stops after 10 bytes, always", (), "was lost", 3, always=stop_after(10)),
    Case("ends after 10 bytes without a word", (), "sends only 10 bytes", 3, ROUNDED, always=unmeasured(10)),
    Case("stops midway at the same byte, always", (stop_after(70_000),), "was lost", 3, always=stop_after(0)),
    Case("hangs up without an answer, twice", (silence(0), silence(0)), requests=3),
    Case("answers 200 to a range request", (stop_after(70_000), without_ranges)),
    Case("sends another part than was asked for", (stop_after(70_000), other_part), requests=3),
    Case("says 416 to a range request", (stop_after(70_000), status(416)), requests=3),
    Case("says the file is shorter", (announce(150_000),), "has 150,000 bytes", 1),
    Case("says the file is longer", (announce(250_000),), "has 250,000 bytes", 1),
    Case("shorter within the rounding", (announce(195_000),), "another file of that name", 1, ROUNDED),
    Case("longer within the rounding, sends the file", (announce(205_000),), requests=1, size=ROUNDED),
    Case("says no length, sends the file", (unmeasured(),), requests=1, size=ROUNDED),
    Case("says no length, never ends", (endless,), "more bytes than the file", 1, ROUNDED),
    Case("sends a web page", (page("text/html"),), "a web page", 1),
    Case("sends a web page by another name", (page("application/octet-stream", LENGTH),), "does not begin like", 1),
    Case("sends a web page to a range request", (stop_after(70_000), page("text/html")), "a web page", 2),
    Case("sends the file encoded", (encoded,), "encoded", 1),
    Case("404", (status(404),), "404: the file is not there", 1),
    Case("401", (status(401),), "401: it asks for a login", 1),
    Case("500 twice", (status(500), status(500)), requests=3),
    Case("429, Retry-After: 1", (status(429, "1"),)),
    Case("503, Retry-After: a date", (status(503, in_seconds(2)),)),
    Case("503 always", (), "it answers 503", 3, always=status(503)),
    Case("429, Retry-After: an hour", (status(429, "3600"),), "come back in 3,600 seconds", 1),
    Case("redirects in a circle", (), "redirects more than 8 times", 9, always=redirect("/" + NAME)),
    Case("redirects to a local file", (redirect("file:///etc/passwd"),), "not an https address", 1),
    Case("redirects to plain http elsewhere", (redirect("http://example.org/x"),), "not an https address", 1),
    Case("redirects, with an endless page", (lambda handler: endless(handler, 302, Location="/" + NAME),)),
    Case("redirects to no address", (redirect("http://[::1/"),), "redirects to something that is not an address", 1),
    Case(
        "redirects with a password",
        (redirect("https://me:secret@127.0.0.1/x"),),
        "'127.0.0.1', which is not a public host",
        1,
    ),
    Case("the file changes between two tries", (stop_after(70_000), replaced_by(content(), serve)), data=OTHER),
    Case(
        "it changes, and If-Range is ignored",
        (stop_after(70_000), replaced_by(content(), ignoring_if_range)),
        requests=3,
        data=OTHER,
    ),
    Case(
        "it changes, and there is no ETag",
        (stop_after(70_000), replaced_by(content(), serve)),
        requests=3,
        data=OTHER,
        etag=False,
    ),
    Case("sends another file of the same size", (send(OTHER),), "another file of that name", 1),
    Case("drips", (), "bytes per second", 2, patience=SLOW, always=drip),
    Case("drips once", (drip,), patience=SLOW),
    Case("falls silent", (), "does not answer in time", 2, patience=IMPATIENT, always=silence(1)),
]


# --- processes that fetch ---------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
TRACED = tuple(
    str(ROOT / "depth2img" / "checkpoints" / "download" / f"{name}.py") for name in ("fetch", "partial", "transfer")
)
"""The modules whose lines are counted."""


class Nursery:
    """A process that has everything imported and forks one that fetches, as often as it is told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from tests.library import mirror; mirror.nurse()"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_PROXY": "*", "OMP_NUM_THREADS": "1"},
        )
        self._line()

    def start(self, url: str, folder: Path, **order: Any) -> int:
        """Begins a fetch; its process id. `order`: see `child`."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"url": url, "folder": str(folder), **order}) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def end(self) -> dict[str, Any]:
        """Waits for it: what it reported, or `{"killed": true}`. Until then its process id is nobody else's."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        report: dict[str, Any] = json.loads(self._line())
        return report

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> None:
        """Ends the process."""
        self.process.communicate()


@contextlib.contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery within the block."""
    made = Nursery()
    try:
        yield made
    finally:
        made.close()


def nurse() -> None:
    """The nursery's own loop: an order per line of stdin; the process id and the report on stdout."""
    for needed in ("filelock", "requests", "encodings.ascii", "encodings.idna"):
        importlib.import_module(needed)  # once, and while files of whoever runs this can be read

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    say("ready")
    while order := sys.stdin.readline():
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.write(writer, json.dumps(child(**json.loads(order))).encode())
            os._exit(0)
        os.close(writer)
        say(str(pid))
        with os.fdopen(reader, "rb") as pipe:
            report = pipe.read()
        sys.stdin.readline()
        _, code = os.waitpid(pid, 0)
        say(report.decode() if code == 0 else '{"killed": true}')


def child(
    url: str, folder: str, replace: bool = False, kill_at: int = -1, largest_file: int = 0, nobody: bool = False
) -> dict[str, Any]:
    """Fetches.

    Args:
        url: of the mirror; the file is `content()`.
        folder: where to.
        replace: see `fetch`.
        kill_at: number of the line of our modules at which the process kills itself.
        largest_file: limit of the system on the size of a file, in bytes.
        nobody: gives up the rights of the superuser.
    """
    if largest_file:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if nobody and os.geteuid() == 0:
        os.setuid(65534)
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.endswith(TRACED):
            return None
        lines += event == "line"
        if event == "line" and lines == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace if kill_at >= 0 else None)
    try:
        got = fetch(published(url), Path(folder), replace=replace, patience=QUICK)
    except Depth2ImgError as error:
        return {"error": str(error)}
    finally:
        sys.settrace(None)
    return {"received": got.received, "resumed": got.resumed, "lines": lines}
