"""Getting checkpoints from mirrors that do everything wrong, and being killed, twice at once, without room."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest

from depth2img import CheckpointError
from depth2img.checkpoints.download import fetch as module
from depth2img.checkpoints.download.fetch import Fetched, fetch
from tests.library import mirror
from tests.library.mirror import CASES, LENGTH, NAME, OTHER, QUICK, content, nursery, published, running

DATA = content()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_fault(case, folder):
    with running(case.data, *case.plan) as source:
        source.default = case.always
        if not case.etag:
            source.etag = None
        entry = published(source.url, size=case.size)
        if case.says:
            with pytest.raises(CheckpointError, match=case.says):
                fetch(entry, folder, patience=case.patience)
            assert not (folder / NAME).exists()
        else:
            fetch(entry, folder, patience=case.patience)
            assert (folder / NAME).read_bytes() == DATA
            assert names(folder) == [NAME]
        assert len(source.requests) == case.requests
        assert source.sent < 100 * LENGTH  # nobody listened to a mirror that never ends
        # Whatever happened: nothing of it is in the way of the next run.
        source.plan, source.default, source.data, source.etag = [], mirror.serve, DATA, None
        assert fetch(entry, folder).path.read_bytes() == DATA
        assert names(folder) == [NAME]


def test_what_is_asked_for(folder):
    """Ranges, the version they belong to, and nothing that tells who asks."""
    home = folder.parent / "netrc"
    home.write_text("machine 127.0.0.1 login me password secret\n")
    os.environ["NETRC"] = str(home)
    try:
        with running(DATA, mirror.stop_after(70_000)) as source:
            told, heard = [], []
            got = fetch(
                published(source.url),
                folder,
                patience=QUICK,
                progress=lambda *both: told.append(both),
                notice=heard.append,
            )
    finally:
        del os.environ["NETRC"]
    first, second = source.requests
    assert "range" not in first and first["accept-encoding"] == "identity"
    assert second["range"] == "bytes=70000-"
    assert second["if-range"] == source.etag
    assert not {"authorization", "cookie", "referer"} & {*first, *second}
    assert got == Fetched(folder / NAME, got.sha256, True, source.url, LENGTH, 0)
    assert source.sent == LENGTH
    assert told == sorted(told) and told[-1] == (LENGTH, LENGTH)
    assert len(heard) == 1 and "the connection was lost; trying again in" in heard[0]


def test_goes_on_in_the_next_run(folder):
    with running(DATA, mirror.stop_after(120_000)) as source:
        source.default = mirror.status(404)
        with pytest.raises(CheckpointError, match="120,000 bytes are kept"):
            fetch(published(source.url), folder, patience=QUICK)
        assert names(folder) == [NAME + suffix for suffix in (".lock", ".part", ".part.json")]
        source.default = mirror.serve
        got = fetch(published(source.url), folder)
    assert (got.received, got.resumed) == (LENGTH - 120_000, 120_000)
    assert got.path.read_bytes() == DATA
    assert names(folder) == [NAME]


def test_goes_on_at_another_mirror(folder):
    """The hash judges the whole, so parts of two mirrors will do."""
    with running(DATA, mirror.stop_after(120_000)) as first, running(DATA) as second:
        first.default = mirror.status(503)
        got = fetch(published(first.url, second.url), folder, patience=QUICK)
    assert got.source == second.url and got.path.read_bytes() == DATA
    assert [request.get("range") for request in second.requests] == ["bytes=120000-"]
    assert "if-range" not in second.requests[0]  # an ETag of another server means nothing


def test_parts_that_do_not_fit_are_thrown_away(folder):
    with running(OTHER, mirror.stop_after(120_000)) as first, running(DATA) as second:
        first.default = mirror.status(503)
        got = fetch(published(first.url, second.url), folder, patience=QUICK)
    assert got.path.read_bytes() == DATA
    assert [request.get("range") for request in second.requests] == ["bytes=120000-", None]


def test_what_is_there_survives_what_cannot_be_the_file(folder):
    """A sign-in page, a wrong length or a login cost none of the bytes that an earlier run got."""
    with running(DATA, mirror.stop_after(120_000)) as source:
        source.default = mirror.status(404)
        for act in (
            mirror.status(404),
            mirror.page("text/html"),
            mirror.page("application/octet-stream", LENGTH),
            mirror.announce(50),
            mirror.redirect("http://example.org/"),
        ):
            source.default = act
            with pytest.raises(CheckpointError):
                fetch(published(source.url), folder, patience=QUICK)
            assert (folder / f"{NAME}.part").read_bytes() == DATA[:120_000]


@pytest.mark.parametrize("note", [b"", b"{", b"[1]", b'{"source": 3}', b"\xff\xfe", b"[" * 9000, None])
def test_a_part_of_unknown_origin_is_not_used(folder, note):
    (folder / f"{NAME}.part").write_bytes(OTHER[:120_000])
    if note is not None:
        (folder / f"{NAME}.part.json").write_bytes(note)
    with running(DATA) as source:
        got = fetch(published(source.url), folder)
    assert got.path.read_bytes() == DATA
    assert "range" not in source.requests[0] and got.resumed == 0


def test_a_whole_part_needs_no_mirror(folder):
    """Killed between the last byte and the rename."""
    (folder / f"{NAME}.part").write_bytes(DATA)
    got = fetch(published(), folder)
    assert got.path.read_bytes() == DATA and (got.received, got.resumed) == (0, LENGTH)
    assert names(folder) == [NAME]


def test_a_part_of_another_file_is_not_used(folder):
    """The table has a new hash since."""
    with running(OTHER, mirror.stop_after(120_000)) as source:
        source.default = mirror.status(404)
        with pytest.raises(CheckpointError):
            fetch(published(source.url, data=OTHER), folder, patience=QUICK)
        source.default, source.data = mirror.serve, DATA
        assert fetch(published(source.url), folder).resumed == 0


# --- what is there already --------------------------------------------------------------------------------------------


def test_the_right_file_is_left_alone(folder):
    (folder / NAME).write_bytes(DATA)
    before = (folder / NAME).stat()
    for replace in (False, True):
        got = fetch(published(), folder, replace=replace)
        assert (got.received, got.source, got.verified) == (0, None, True)
    after = (folder / NAME).stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert names(folder) == [NAME]


def test_another_file_is_replaced_only_when_told(folder):
    (folder / NAME).write_bytes(OTHER)
    with running(DATA, mirror.status(404), mirror.send(OTHER)) as source:
        with pytest.raises(CheckpointError, match=r"another file than the table's.*SHA-256 [0-9a-f]{64}"):
            fetch(published(source.url), folder)
        assert source.requests == []
        for says in ("404", "another file of that name"):
            with pytest.raises(CheckpointError, match=says):
                fetch(published(source.url), folder, replace=True, patience=QUICK)
            assert (folder / NAME).read_bytes() == OTHER
        fetch(published(source.url), folder, replace=True)
    assert (folder / NAME).read_bytes() == DATA
    assert names(folder) == [NAME]


def test_without_a_hash_only_with_consent(folder):
    with running(DATA, mirror.stop_after(50_000), mirror.unmeasured()) as source:
        entry = published(source.url, sha256=None)
        with pytest.raises(CheckpointError, match="No SHA-256"):
            fetch(entry, folder)
        assert source.requests == []
        with pytest.raises(CheckpointError, match="does not say how long"):
            fetch(entry, folder, unverified=True, patience=QUICK)
        got = fetch(entry, folder, unverified=True)
        assert not got.verified and got.path.read_bytes() == DATA and got.resumed == 50_000
        assert got.sha256 == published().sha256
        with pytest.raises(CheckpointError, match="no SHA-256 is known to tell"):
            fetch(entry, folder, unverified=True)


def test_without_a_hash_versions_are_never_mixed(folder):
    with running(OTHER, mirror.stop_after(50_000)) as source:
        source.etag, source.default = None, mirror.status(404)
        entry = published(source.url, sha256=None)
        with pytest.raises(CheckpointError):
            fetch(entry, folder, unverified=True, patience=QUICK)
        source.data, source.default = DATA, mirror.serve
        got = fetch(entry, folder, unverified=True)
    assert got.path.read_bytes() == DATA
    assert "range" not in source.requests[-1]


# --- redirects, certificates ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not installed, so there is no certificate")
    return mirror.certificate(tmp_path_factory.mktemp("tls"))


def test_redirect_to_another_host(folder, tls, monkeypatch):
    """As hubs do: their files lie elsewhere. The range goes along."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls[0]))
    with running(DATA, mirror.stop_after(70_000), tls=tls) as store, running(DATA, tls=tls) as hub:
        hub.default = mirror.redirect(store.url.replace("127.0.0.1", "localhost"))
        got = fetch(published(hub.url), folder, patience=QUICK)
    assert got.path.read_bytes() == DATA
    assert hub.sent == 0 and len(hub.requests) == 2
    assert [request.get("range") for request in store.requests] == [None, "bytes=70000-"]


def test_from_https_never_to_http(folder, tls, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls[0]))
    with running(DATA) as plain, running(DATA, tls=tls) as hub:
        hub.default = mirror.redirect(plain.url)
        with pytest.raises(CheckpointError, match="not an https address"):
            fetch(published(hub.url), folder, patience=QUICK)
    assert plain.requests == []


def test_certificate_of_nobody(folder, tls):
    with running(DATA, tls=tls) as hub, pytest.raises(CheckpointError, match="certificate is not valid"):
        fetch(published(hub.url), folder, patience=QUICK)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "10.0.0.7", "192.168.1.1", "169.254.169.254", "[::1]", "nas.local"]
)
def test_from_outside_never_to_this_network(host):
    from depth2img.checkpoints.download.transfer import SourceFault, _may_lead

    _may_lead("https://hub.example.org/a", "https://store.example.net/b")
    with pytest.raises(SourceFault, match="not a public host"):
        _may_lead("https://hub.example.org/a", f"https://{host}/b")


def test_no_server(folder):
    with running(DATA) as source:
        url = source.url
    with pytest.raises(CheckpointError, match="no connection"):
        fetch(published(url), folder, patience=QUICK)
    assert not (folder / NAME).exists()


# --- files of this machine --------------------------------------------------------------------------------------------


def test_from_a_file(folder, tmp_path):
    source = tmp_path / "elsewhere.safetensors"
    with pytest.raises(CheckpointError, match="there is no such file"):
        fetch(published(source), folder)
    source.write_bytes(DATA[:-1])
    with pytest.raises(CheckpointError, match="200,002 bytes where the table says 200,003"):
        fetch(published(source), folder)
    source.write_bytes(OTHER)
    with pytest.raises(CheckpointError, match="another file of that name"):
        fetch(published(source), folder)
    source.write_bytes(DATA)
    assert fetch(published(source), folder).source == source
    assert (folder / NAME).read_bytes() == DATA
    assert names(folder) == [NAME]


def test_from_a_file_in_two_goes(folder, tmp_path, monkeypatch):
    source = tmp_path / "elsewhere.safetensors"
    source.write_bytes(DATA)
    monkeypatch.setattr("depth2img.checkpoints.download.transfer.CHUNK", 50_000)
    asked = iter([False, True])
    with pytest.raises(CheckpointError, match=r"Stopped\."):
        fetch(published(source), folder, stop=lambda: next(asked))
    got = fetch(published(source), folder)
    assert (got.received, got.resumed) == (LENGTH - 100_000, 100_000)


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_not_enough_room(folder, monkeypatch):
    monkeypatch.setattr(module, "free_space", lambda *_: 150_000)
    with running(DATA, mirror.stop_after(120_000)) as source:
        with pytest.raises(CheckpointError, match="150,000 bytes free of 200,003 bytes that are needed"):
            fetch(published(source.url), folder)
        assert source.requests == []


def test_what_is_there_counts_as_room(folder, monkeypatch):
    with running(DATA, mirror.stop_after(120_000)) as source:
        source.default = mirror.status(404)
        with pytest.raises(CheckpointError):
            fetch(published(source.url), folder, patience=QUICK)
        source.default = mirror.serve
        monkeypatch.setattr(module, "free_space", lambda *_: 90_000)
        fetch(published(source.url), folder)


@pytest.fixture(scope="module")
def nurse():
    with nursery() as made:
        yield made


def test_the_disk_refuses_more(folder, nurse):
    """By the system's own limit on the size of files, in a process of its own."""
    with running(DATA) as source:
        source.block = 10_000
        nurse.start(source.url, folder, largest_file=100_000)
        error = nurse.end()["error"]
        assert "cannot be written" in error and "File too large" in error and "the next run resumes" in error
        assert len(source.requests) == 1  # not the mirror's fault
        assert (folder / f"{NAME}.part").read_bytes() == DATA[:100_000]
        assert fetch(published(source.url), folder).resumed == 100_000
    assert (folder / NAME).read_bytes() == DATA


def test_no_permission(nurse):
    with tempfile.TemporaryDirectory() as name, running(DATA) as source:
        folder = Path(name)
        folder.chmod(0o555)
        nurse.start(source.url, folder, nobody=True)
        assert "Permission denied" in nurse.end()["error"]
        folder.chmod(0o000)
        nurse.start(source.url, folder, nobody=True)
        assert "Permission denied" in nurse.end()["error"]
        assert source.requests == [] and names(folder) == []
        folder.chmod(0o755)


def test_no_folder(folder):
    with pytest.raises(CheckpointError, match="no such folder"):
        fetch(published(), folder / "nowhere")


# --- stopped, killed, twice at once -----------------------------------------------------------------------------------


def test_stop_while_waiting(folder):
    begun = time.monotonic()
    with running(DATA) as source:
        source.default = mirror.status(503, "3")
        with pytest.raises(CheckpointError, match=r"Stopped\."):
            fetch(published(source.url), folder, stop=lambda: time.monotonic() - begun > 0.1, patience=QUICK)
    assert time.monotonic() - begun < 2.5  # not the three seconds that the mirror asked for


def check(folder, old):
    """Either the old file or the whole new one, never a half."""
    target = folder / NAME
    assert (target.read_bytes() if target.exists() else None) in (old, DATA)


@pytest.mark.parametrize("old", [None, OTHER], ids=["new", "replacing"])
def test_killed_at_random_moments(folder, nurse, old):
    """Ten times, each run going on from the one before; `benchmarks/faults_fetch.py` does it a hundred times."""
    moments = random.Random(3)
    if old:
        (folder / NAME).write_bytes(old)
    with running(DATA) as source:
        source.block, source.delay = 5_000, 0.004
        for _ in range(10):
            pid = nurse.start(source.url, folder, replace=True)
            time.sleep(moments.uniform(0, 0.15))
            os.kill(pid, signal.SIGKILL)
            nurse.end()
            check(folder, old)
        got = fetch(published(source.url), folder, replace=True)
    assert got.path.read_bytes() == DATA
    assert names(folder) == [NAME]


@pytest.mark.parametrize("half", [False, True], ids=["from the start", "resumed"])
def test_killed_at_any_line(folder, nurse, half):
    """At every thirtieth line that our modules run; the benchmark takes each."""

    def prepare():
        for path in folder.iterdir():
            path.unlink()
        (folder / NAME).write_bytes(OTHER)
        if half:
            note = {"source": source.url, "validator": source.etag, "sha256": published().sha256}
            (folder / f"{NAME}.part").write_bytes(DATA[:90_000])
            (folder / f"{NAME}.part.json").write_text(json.dumps(note))

    with running(DATA) as source:
        source.block = 100_000
        for line in range(5, 2000, 30):
            prepare()
            nurse.start(source.url, folder, replace=True, kill_at=line)
            report = nurse.end()
            if report != {"killed": True}:
                break  # how many lines there are depends on how the network cuts the bytes: this run had fewer
            check(folder, OTHER)
            fetch(published(source.url), folder, replace=True)
            assert (folder / NAME).read_bytes() == DATA
            assert names(folder) == [NAME], line
    assert 100 < report["lines"] < line
    assert (folder / NAME).read_bytes() == DATA and names(folder) == [NAME]


def test_two_at_once(folder, nurse):
    """One of them gets it, the other finds it."""
    with running(DATA) as source:
        source.block, source.delay = 20_000, 0.05
        nurse.start(source.url, folder)
        while not source.sent:
            time.sleep(0.01)
        heard = []
        got = fetch(published(source.url), folder, notice=heard.append)
        assert heard[0] == f"Another process is fetching {NAME}; waiting for it."
        assert (got.received, nurse.end()["received"]) == (0, LENGTH)
        assert source.sent == LENGTH and len(source.requests) == 1
    assert (folder / NAME).read_bytes() == DATA
    assert names(folder) == [NAME]


def test_the_second_takes_over_when_the_first_dies(folder, nurse):
    """The lock of a dead process is nobody's."""
    with running(DATA) as source:
        source.block, source.delay = 20_000, 0.05
        first = nurse.start(source.url, folder)
        while not source.sent:
            time.sleep(0.01)
        heard = []

        def kill(text):
            heard.append(text)
            if len(heard) == 1:
                os.kill(first, signal.SIGKILL)

        got = fetch(published(source.url), folder, notice=kill)
        assert nurse.end() == {"killed": True}
    assert "Another process" in heard[0] and heard[1].startswith("Resuming from")
    assert got.resumed > 0 and got.resumed + got.received == LENGTH
    assert (folder / NAME).read_bytes() == DATA
    assert names(folder) == [NAME]


def test_two_threads_at_once(folder):
    """As in the WebUI: two clicks."""
    with running(DATA) as source:
        source.block, source.delay = 20_000, 0.1  # long enough for the second to begin on a busy machine
        heard, threads = [], []
        for _ in range(2):
            run = threading.Thread(target=fetch, args=(published(source.url), folder), kwargs={"notice": heard.append})
            threads.append(run)
            run.start()
        for run in threads:
            run.join()
    assert source.sent == LENGTH
    assert any("Another process is fetching" in text for text in heard)
    assert names(folder) == [NAME]
