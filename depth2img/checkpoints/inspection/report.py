"""The report on a checkpoint: as data, as rows of a table, as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ...text import printable, size
from ..layout import keys
from ..layout.keys import Shape
from ..storage.opening import Format
from .sidecar import Sidecar

Midas = Literal["inside", "incomplete", "missing", "other"]
TextLayout = Literal["OpenCLIP", "SD1", "none"]


@dataclass(frozen=True)
class Fault:
    """Something about a checkpoint that the user should know.

    Attributes:
        code: a fixed name for programs.
        what: one sentence.
        fix: the remedy; empty where nothing needs to be done.
        serious: true if pictures cannot be made, or come out wrong, because of it.
    """

    code: str
    what: str
    fix: str = ""
    serious: bool = True


@dataclass(frozen=True)
class Deviation:
    """A tensor of another shape than it must have."""

    name: str
    shape: Shape
    wanted: Shape


@dataclass(frozen=True)
class Report:
    """The findings about a checkpoint file.

    Attributes:
        path: the file.
        format: its storage format, regardless of its name.
        bytes: its size.
        tensors, values: numbers of tensors, and of values in them.
        kind: the kind of model, in words.
        channels: input channels of its UNet; None without one.
        midas: its depth network: MiDaS `inside`, `incomplete` or `missing`, or an `other`; None unless depth.
        types: element type -> bytes stored in it, most first.
        ema: tensors of a second set of weights, kept for training on.
        text_layout: layout of its text encoder: `OpenCLIP`, as Stable Diffusion 2 has it, `SD1`, or `none`.
        missing, extra: names that should be there and are not, and the reverse; of a depth checkpoint.
        misshaped: tensors of the wrong shape.
        model_hash: the WebUI's old short hash, 8 digits.
        sha256: of the file; None if it was not computed.
        published: name of the published file with its hashes, if any.
        sidecar: the YAML beside it; None unless depth.
        faults: the faults, the worst first.
        merged: the recipe of its merge, if its metadata have one (`sd_merge_recipe`, of the WebUI or of `merge`).
    """

    path: Path
    format: Format
    bytes: int
    tensors: int
    values: int
    kind: str
    channels: int | None
    midas: Midas | None
    types: Mapping[str, int]
    ema: int
    text_layout: TextLayout
    missing: Sequence[str]
    extra: Sequence[str]
    misshaped: Sequence[Deviation]
    model_hash: str
    sha256: str | None
    published: str
    sidecar: Sidecar | None
    faults: Sequence[Fault]
    merged: str = ""

    @property
    def is_depth(self) -> bool:
        """True if its UNet takes depth."""
        return self.channels == keys.DEPTH_CHANNELS

    @property
    def usable(self) -> bool:
        """True if the file works as a depth checkpoint as it is."""
        return self.is_depth and not any(fault.serious for fault in self.faults)

    @property
    def short_hash(self) -> str | None:
        """The WebUI's short hash, 10 digits."""
        return None if self.sha256 is None else self.sha256[:10]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        values = dataclasses.asdict(self) | {"path": str(self.path), "usable": self.usable}
        values |= {"short_hash": self.short_hash, "depth": self.is_depth}
        if self.sidecar is not None:
            values["sidecar"]["path"] = str(self.sidecar.path)
        return values

    def rows(self) -> list[tuple[str, str]]:
        """List what it is, as label and value."""
        rows = [
            ("File", f"{self.path.name}, {self.format}, {size(self.bytes)}"),
            ("What it is", self.kind),
            ("Precision", _precision(self.types)),
            ("Tensors", f"{self.tensors:,} with {self.values / 1e6:,.1f} million values"),
        ]
        if self.midas is not None:
            rows.append(("Depth network", MIDAS_WORDS[self.midas]))
        if self.channels is not None:
            rows.append(("Text encoder", TEXT_WORDS[self.text_layout]))
            rows.append(("EMA weights", f"{self.ema:,} tensors" if self.ema else "none"))
        if self.sidecar is not None:
            rows.append(("YAML", _yaml_words(self.sidecar)))
        rows.append(("Hash", ", ".join(filter(None, [self.short_hash, f"{self.model_hash} (old)"]))))
        if self.sha256:
            rows.append(("SHA-256", self.sha256))
        if self.published:
            rows.append(("Published as", self.published + ("" if self.sha256 else ", as the old hash goes")))
        if self.merged:
            rows.append(("Merged", self.merged))
        return [(label, printable(value)) for label, value in rows]

    def lines(self) -> list[str]:
        """Format everything as lines of text."""
        lines = [f"{label:14}{value}" for label, value in self.rows()]
        for fault in self.faults:
            lines += ["", printable(f"{'Fault' if fault.serious else 'Note'}: {fault.what}")]
            lines += [printable(f"  {fault.fix}")] if fault.fix else []
        return [*lines, "", self.verdict]

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.usable:
            return "This depth checkpoint is whole and works."
        return "This depth checkpoint does not work as it is." if self.is_depth else "This is not a depth checkpoint."


MIDAS_WORDS: Final[Mapping[Midas, str]] = {
    "inside": "MiDaS dpt_hybrid, inside",
    "incomplete": "MiDaS dpt_hybrid, incomplete",
    "missing": "none inside",
    "other": "another one, inside",
}
TEXT_WORDS: Final[Mapping[TextLayout, str]] = {
    "OpenCLIP": "OpenCLIP",
    "SD1": "laid out like Stable Diffusion 1's",
    "none": "none inside",
}


def _precision(types: Mapping[str, int]) -> str:
    floats = [name for name in types if "float" in name]
    if not floats:
        return "none"
    total = sum(types[name] for name in floats)
    short = {name: name.replace("bfloat", "bf").replace("float", "fp") for name in floats}
    rest = [f"{short[name]} {types[name] / total:.1%}" for name in floats[1:]]
    return short[floats[0]] + (f" ({', '.join(rest)})" if rest else "")


def _yaml_words(sidecar: Sidecar) -> str:
    name = sidecar.path.name
    if sidecar.state == "none":
        return "none beside it"
    if sidecar.state == "right":
        return f"{name}, the right one" + (f" ({sidecar.detail})" if sidecar.detail else "")
    return f"{name}, {sidecar.state}"
