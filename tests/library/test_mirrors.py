"""Tables of mirrors: the package's, and what users may write into theirs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from depth2img import CheckpointError
from depth2img.checkpoints.download import mirrors
from depth2img.checkpoints.download.mirrors import Size, find, location, table
from depth2img.estimators.dinov2_layout import version_of

FP16 = "512-depth-ema-fp16.safetensors"
HASH = "ab" * 32


@pytest.fixture(autouse=True)
def _hub(monkeypatch):
    monkeypatch.delenv(mirrors.HUB_VARIABLE, raising=False)


def own(folder: Path, text: str, name: str = "own.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def entry(folder: Path, **fields: object) -> mirrors.RemoteFile:
    values = {"size": 1000, "sha256": HASH, "urls": ["https://mirror.example/a"], **fields}
    return table([own(folder, yaml.safe_dump({"a.safetensors": values}))])["a.safetensors"]


def test_the_packages_table():
    """Every entry has a SHA-256, https sources and a description."""
    entries = table()
    assert next(iter(entries)) == FP16
    for file, one in entries.items():
        assert one.file == file and one.about and one.licence and one.precision in ("fp16", "fp32")
        assert one.sha256 is not None and re.fullmatch("[0-9a-f]{64}", one.sha256)
        assert one.sources
        assert all(isinstance(source, str) and source.startswith("https://") for source in one.sources)
        assert all(str(source).endswith("/" + file) for source in one.sources)
        assert one.size.low < one.size.high < 1.01 * one.size.low
    assert len({one.sha256 for one in entries.values()}) == len(entries)


def test_the_packages_estimators():
    """Names tell the model, licences are said, and a SHA-256 is left out where no source states it, never made up."""
    entries = table(kind="estimator")
    assert next(iter(entries)) == "Depth-Anything-V2-Small.safetensors"
    assert not set(entries) & set(table())
    for file, one in entries.items():
        assert (one.file, one.kind) == (file, "estimator") and one.about and one.precision in ("fp16", "fp32")
        assert version_of(Path(file).stem) == (2 if "-V2-" in file else 1)
        assert all(str(source).startswith("https://huggingface.co/") for source in one.sources)
        # V1 is Apache-2.0 in all sizes, V2 in the small one alone.
        free = "-V2-" not in file or "Small" in file
        assert one.licence == ("Apache-2.0" if free else "CC-BY-NC-4.0 (not for commercial use)")
        assert one.size.low <= one.size.high < 1.03 * one.size.low
    unknown = {file for file, one in entries.items() if one.sha256 is None}
    assert unknown == {f"Depth-Anything-V2-Metric-{place}-Small.safetensors" for place in ("Indoor", "Outdoor")}
    hashes = [one.sha256 for one in entries.values() if one.sha256]
    assert len(set(hashes)) == len(hashes)


def test_a_table_of_ones_own_names_estimators(tmp_path):
    path = own(
        tmp_path,
        f"""
mine.safetensors: {{kind: estimator, size: 3, sha256: '{HASH}', urls: ['https://a.example/']}}
Depth-Anything-V2-Small.safetensors: {{urls: ['https://b.example/small']}}
depth.ckpt: {{size: 3, sha256: '{HASH}', urls: ['https://a.example/']}}
""",
    )
    estimators = table([path], kind="estimator")
    assert "mine.safetensors" in estimators and "depth.ckpt" not in estimators
    assert estimators["Depth-Anything-V2-Small.safetensors"].sources[0] == "https://b.example/small"
    assert "depth.ckpt" in table([path]) and "mine.safetensors" not in table([path])
    with pytest.raises(CheckpointError, match="No such estimator is in the table"):
        find("depth.ckpt", estimators)


def test_it_is_a_table_like_any_other(tmp_path):
    """Nothing in it is special: a user may begin from a copy."""
    copy = own(tmp_path, mirrors.PACKAGE_TABLE.read_text(encoding="utf-8"))
    assert table([copy]) == table()
    assert table([copy], kind="estimator") == table(kind="estimator")


@pytest.mark.parametrize(
    ("size", "text", "low", "high"),
    [
        (492757791, "492,757,791 bytes", 492757791, 492757791),
        ("2.85 GB", "2.85 GB", 2_840_000_000, 2_860_000_000),
        ("3 GB", "3 GB", 2_000_000_000, 4_000_000_000),
        ("1.87kB", "1.87kB", 1860, 1880),
        ("493 MB", "493 MB", 492_000_000, 494_000_000),
    ],
)
def test_sizes(tmp_path, size, text, low, high):
    assert entry(tmp_path, size=size).size == Size(text, low, high)


def test_own_sources_come_first(tmp_path):
    folder = tmp_path / "nas"
    folder.mkdir()
    (folder / FP16).write_bytes(b"there")
    path = own(
        tmp_path,
        f"{FP16}:\n  urls: [https://mirror.example/x, 'file://{tmp_path}/far%20away', nas, 'http://nas.lan/{FP16}']\n",
    )
    mine, packages = table([path])[FP16], table()[FP16]
    assert mine.sources == (
        "https://mirror.example/x",
        tmp_path / "far away",
        folder / FP16,
        f"http://nas.lan/{FP16}",
        *packages.sources,
    )
    assert (mine.sha256, mine.size, mine.about) == (packages.sha256, packages.size, packages.about)
    assert location(mine.sources[0]) == "mirror.example" and location(mine.sources[1]) == f"{tmp_path}/far away"


def test_a_folder_is_a_table(tmp_path):
    (tmp_path / FP16).write_bytes(b"there")
    entries = table([tmp_path])
    assert entries[FP16].sources == (tmp_path / FP16, *table()[FP16].sources)
    assert entries["512-depth-ema.safetensors"] == table()["512-depth-ema.safetensors"]


def test_an_entry_of_ones_own(tmp_path):
    mine = entry(tmp_path, about="Mine", precision="fp16", licence="Mine", sha256=HASH.upper())
    assert mine == mirrors.RemoteFile(
        "a.safetensors", "Mine", "fp16", Size("1,000 bytes", 1000, 1000), HASH, "Mine", ("https://mirror.example/a",)
    )
    assert mine.lines()[2:5] == ["Size          1,000 bytes", "From          mirror.example", f"SHA-256       {HASH}"]
    assert "cannot be checked" in dict(entry(tmp_path, sha256="").rows())["SHA-256"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no file names"),
        ("[1, 2]", "no file names"),
        ("a: [", "not YAML"),
        ("!!python/object/apply:os.system [id]", "not YAML"),
        ("[" * 1500, "not YAML"),
        ("\0", "not YAML"),
        ("../a.safetensors: {}", "plain .safetensors or .ckpt name"),
        ("a/b.ckpt: {}", "plain .safetensors or .ckpt name"),
        (r"'..\a.ckpt': {}", "plain .safetensors or .ckpt name"),
        (".ckpt: {}", "plain .safetensors or .ckpt name"),
        ("a.exe: {}", "plain .safetensors or .ckpt name"),
        ("3: {}", "plain .safetensors or .ckpt name"),
        ("a.ckpt: 3", "no fields"),
        ("a.ckpt: {url: x}", "unknown field url"),
        ("a.ckpt: {}", "not a list of 1 to 32"),
        ("a.ckpt: {urls: https://a.example/}", "not a list of 1 to 32"),
        ("a.ckpt: {urls: []}", "not a list of 1 to 32"),
        ("a.ckpt: {urls: [3]}", "not a line of text"),
        ("a.ckpt: {urls: ['https://a.example/\\n']}", "no size"),
        ('a.ckpt: {urls: ["https://a.example/\\n"]}', "not a line of text"),
        ("a.ckpt: {urls: [https://a.example/]}", "no size"),
        ("a.ckpt: {size: 0, urls: [https://a.example/]}", "size is neither"),
        ("a.ckpt: {size: 0.00 GB, urls: [https://a.example/]}", "size is neither"),
        ("a.ckpt: {size: true, urls: [https://a.example/]}", "size is neither"),
        ("a.ckpt: {size: 3 GiB, urls: [https://a.example/]}", "size is neither"),
        ("a.ckpt: {size: 3, sha256: abc, urls: [https://a.example/]}", "64 hexadecimal"),
        ("a.ckpt: {size: 3, sha256: 1234, urls: [https://a.example/]}", "put it into quotes"),
        ("a.ckpt: {size: 3, urls: [ftp://a.example/]}", "neither https, http, file nor a path"),
        ("a.ckpt: {size: 3, urls: [https:///b]}", "without a host"),
        ("a.ckpt: {size: 3, urls: ['https://me:secret@a.example/']}", "with a user's name"),
        ("a.ckpt: {size: 3, urls: ['https://[::1/']}", "not an address"),
        ("a.ckpt: {size: 3, urls: [http://a.example/b]}", "needs a sha256"),
        ("a.ckpt: {size: 3, urls: ['file://other/b']}", "of another machine"),
        ("a.ckpt: {size: 3, kind: lora, urls: [https://a.example/]}", "kind 'lora'; it is checkpoint or estimator"),
        (f"{FP16}: {{kind: estimator}}", "kind 'estimator'"),
        (f"{FP16}: {{sha256: '{HASH}'}}", "another sha256 than the package's"),
    ],
)
def test_malformed(tmp_path, text, says):
    with pytest.raises(CheckpointError, match=re.escape(says)):
        table([own(tmp_path, text)])


def test_too_large_or_missing(tmp_path):
    with pytest.raises(CheckpointError, match="larger than a megabyte"):
        table([own(tmp_path, "#" * (1024 * 1024 + 1))])
    with pytest.raises(CheckpointError, match="No such file"):
        table([tmp_path / "nowhere.yaml"])


def test_the_package_offers_https_alone(tmp_path, monkeypatch):
    """The rules for a user's own table are not those for ours."""
    for url in ("http://a.example/b", "file:///b", "/b", "b"):
        text = yaml.safe_dump({"a.ckpt": {"size": 3, "sha256": HASH, "urls": [url]}})
        monkeypatch.setattr(mirrors, "PACKAGE_TABLE", own(tmp_path, text))
        with pytest.raises(CheckpointError, match="neither https"):
            table()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ENTRY = st.fixed_dictionaries({}, optional={name: VALUES for name in (*mirrors.FIELDS, "other")})


@settings(max_examples=40)
@given(content=st.dictionaries(st.sampled_from(["a.ckpt", "b.safetensors", FP16, "b", ""]), ENTRY, max_size=3))
def test_any_table_is_read_or_refused(shared, content):
    path = own(shared, yaml.safe_dump(content))
    try:
        entries = table([path])
    except CheckpointError:
        return
    assert all(one.sources for one in entries.values())


@settings(max_examples=40)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(shared, content):
    path = shared / "own.yaml"
    path.write_bytes(content)
    try:
        table([path])
    except CheckpointError:
        return


def test_another_hub(monkeypatch):
    """As huggingface_hub has it, for those who cannot reach the first."""
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example/")
    sources = table()[FP16].sources
    assert sources == (f"https://hub.example/webui/stable-diffusion-2-depth/resolve/main/{FP16}",)
    for bad in ("hub.example", "http://hub.example", "file:///etc", "https://"):
        monkeypatch.setenv("HF_ENDPOINT", bad)
        with pytest.raises(CheckpointError, match="HF_ENDPOINT does not name an https address"):
            table()


def test_finding():
    entries = table()
    assert find(None, entries).file == FP16
    assert find("512-depth-ema.ckpt", entries).file == "512-depth-ema.ckpt"
    assert find("512-depth-ema-fp16", entries).file == FP16
    assert find("512-depth-ema", entries).file == "512-depth-ema.safetensors"
    with pytest.raises(CheckpointError, match=r"'other'.*Choose one of 512-depth-ema-fp16.safetensors"):
        find("other", entries)


@pytest.mark.parametrize("place", ["x" * 300, "x" * 300 + "/y.yaml"])
def test_a_table_that_cannot_be_looked_at(place):
    with pytest.raises(CheckpointError, match="cannot be read as a table of mirrors"):
        table([Path(place)])


@pytest.mark.parametrize(
    ("url", "words"), [("x" * 300, "cannot be read as a table"), ("~nobody-of-that-name/x", "home folder of nobody")]
)
def test_a_place_that_cannot_be_looked_at(tmp_path, url, words):
    with pytest.raises(CheckpointError, match=words):
        entry(tmp_path, urls=[url])
