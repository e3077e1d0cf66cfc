"""Every control of the extension, once: name, default, range, label, infotext key and tooltip.

The panel, the API, the infotext, the X/Y/Z axes and the command line are all made from `OPTIONS`,
so a control has one name everywhere. A new control is one more field of `DepthOptions`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from .errors import OptionError

Kind = Literal["switch", "number", "choice", "text", "image"]

LONGEST_TEXT: Final = 4096

CHECKPOINT: Final = "checkpoint"
"""Name of the estimator that the checkpoint itself carries."""


@dataclasses.dataclass(frozen=True)
class Option:
    """What is known about one control.

    Attributes:
        name: field of `DepthOptions`, API field, command line option.
        kind: `switch` (bool), `number` (float), `choice` (one of `choices`), `text` (one line of str), `image` (a
            payload: file content, data URL, base64 or an already decoded picture; see `images.py`).
        default: the value that leaves the host's own depth-to-image as it is.
        label: what the panel calls it; unique.
        help: tooltip and docs, one or two sentences.
        minimum, maximum, step: range of a `number`, inclusive; step 0 for a range too wide for a slider.
        choices: API value -> label, for a `choice`.
        infotext: key in the infotext; empty for what it does not carry (images, places on the server).
    """

    name: str
    kind: Kind
    default: Any
    label: str
    help: str
    minimum: float = 0.0
    maximum: float = 0.0
    step: float = 0.0
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    infotext: str = ""

    def check(self, value: object) -> Any:
        """The value as `DepthOptions` holds it.

        Raises:
            OptionError: the type or the range is wrong; the message names the field.
        """
        if self.kind == "switch":
            return self._check_switch(value)
        if self.kind == "number":
            return self._check_number(value)
        if self.kind == "choice":
            return self._check_choice(value)
        return self._check_text(value) if self.kind == "text" else self._check_image(value)

    def parse(self, text: str) -> Any:
        """The value from the text of an infotext (`str` of what `check` returned).

        Raises:
            OptionError: the text is no such value.
        """
        if self.kind == "switch" and text in ("True", "False"):
            return text == "True"
        if self.kind == "number":
            try:
                return self.check(float(text))
            except ValueError as error:
                raise self._error(text) from error
        return self.check(text)

    def _error(self, value: object) -> OptionError:
        wanted = {
            "switch": "true or false",
            "number": f"a number from {self.minimum:g} to {self.maximum:g}",
            "choice": " or ".join(f"'{name}'" for name in self.choices),
            "text": f"one line of text, at most {LONGEST_TEXT} characters",
            "image": "a picture: base64, a data URL or file content",
        }[self.kind]
        shown = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
        return OptionError(
            self.name,
            f"Depth option '{self.name}' must be {wanted}.",
            got=shown[:80],
            fix="Correct the value or leave the field out.",
        )

    def _check_switch(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise self._error(value)
        return value

    def _check_number(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._error(value)
        # An int can be too large for a float; comparing it first keeps that an ordinary range error.
        if not self.minimum <= value <= self.maximum or not math.isfinite(value):
            raise self._error(value)
        return float(value)

    def _check_choice(self, value: object) -> str:
        # The host's script list shows the labels, so that a client may well send one.
        for name, label in self.choices.items():
            if isinstance(value, str) and value in (name, label):
                return name
        raise self._error(value)

    def _check_text(self, value: object) -> str:
        if value is None:
            return str(self.default)
        if not isinstance(value, str) or len(value) > LONGEST_TEXT or not all(map(str.isprintable, value)):
            raise self._error(value)
        return value.strip() or str(self.default)

    def _check_image(self, value: object) -> object:
        if value is None or (isinstance(value, str) and not value):
            return None
        if isinstance(value, (bool, int, float, Mapping)):
            raise self._error(value)
        return value


def _option(
    kind: Kind,
    default: object,
    label: str,
    help: str,
    *,
    span: tuple[float, float, float] = (0.0, 0.0, 0.0),
    choices: Mapping[str, str] | None = None,
    infotext: str = "",
) -> Any:
    parts = {
        "kind": kind,
        "label": label,
        "help": help,
        "minimum": span[0],
        "maximum": span[1],
        "step": span[2],
        "choices": dict(choices or {}),
        "infotext": infotext,
    }
    return dataclasses.field(default=default, metadata=parts)


@dataclasses.dataclass(frozen=True)
class DepthOptions:
    """The options of one job, checked. The defaults are the host's own depth-to-image.

    Raises:
        OptionError: a value is of the wrong type or out of range, or two values contradict.
    """

    enabled: bool = _option(
        "switch",
        True,
        "Depth to image",
        "On: a depth checkpoint keeps the depth of the picture. Off: the same checkpoint does plain img2img. "
        "Other checkpoints are left alone.",
        infotext="Depth to image",
    )
    source: str = _option(
        "choice",
        "picture",
        "Depth from",
        "Where depth comes from: the picture being worked on, another picture (only its depth is used, never its "
        "colours), or a depth map of your own.",
        choices={"picture": "This picture", "reference": "Another picture", "map": "My own depth map"},
        infotext="Depth from",
    )
    reference: object = _option(
        "image", None, "Reference picture", "The picture whose depth is used with 'Another picture'."
    )
    depth_map: object = _option(
        "image",
        None,
        "Depth map",
        "A depth map, white = near: PNG with 8 or 16 bits, TIFF or .npy. All bits are kept.",
    )
    near: float = _option(
        "number",
        1.0,
        "Near",
        "Everything nearer than this becomes the nearest. 1 = nearest point of the map.",
        span=(0.0, 1.0, 0.01),
        infotext="Depth near",
    )
    far: float = _option(
        "number",
        0.0,
        "Far",
        "Everything farther than this becomes the farthest. 0 = farthest point of the map.",
        span=(0.0, 1.0, 0.01),
        infotext="Depth far",
    )
    gamma: float = _option(
        "number",
        1.0,
        "Gamma",
        "Bends the middle distances: above 1 brings them nearer, below 1 pushes them back.",
        span=(0.1, 10.0, 0.05),
        infotext="Depth gamma",
    )
    blur: float = _option(
        "number",
        0.0,
        "Blur",
        "Softens the depth map: standard deviation in per cent of its shorter side.",
        span=(0.0, 10.0, 0.1),
        infotext="Depth blur",
    )
    invert: bool = _option(
        "switch",
        False,
        "Invert",
        "Swap near and far. Use it for maps whose near side is black.",
        infotext="Depth invert",
    )
    append_map: bool = _option(
        "switch",
        False,
        "Append map to results",
        "Show the depth map that was used after the generated pictures.",
        infotext="Depth append map",
    )
    save_map: bool = _option(
        "switch",
        False,
        "Save map beside picture",
        "Save the depth map that was used as a 16-bit PNG next to each saved picture, at the picture's size.",
        infotext="Depth save map",
    )
    strength: float = _option(
        "number",
        1.0,
        "Strength",
        "How much the depth map counts: 1 = fully, 0 = not at all.",
        span=(0.0, 1.0, 0.05),
        infotext="Depth strength",
    )
    start: float = _option(
        "number",
        0.0,
        "Start",
        "Depth counts from this part of the steps on; 0 = from the first step. Each pass (hires) counts its own steps.",
        span=(0.0, 1.0, 0.01),
        infotext="Depth start",
    )
    end: float = _option(
        "number",
        1.0,
        "End",
        "Depth counts until this part of the steps; 1 = to the last step.",
        span=(0.0, 1.0, 0.01),
        infotext="Depth end",
    )
    region: object = _option(
        "image",
        None,
        "Region",
        "Depth counts inside the white part of this mask, grey counts partly. It covers the whole picture and is "
        "resized and cropped with it.",
    )
    neutral: float = _option(
        "number",
        0.0,
        "Neutral depth",
        "What the model is told where depth does not count: one distance everywhere, -1 = farthest, 1 = nearest.",
        span=(-1.0, 1.0, 0.05),
        infotext="Depth neutral",
    )

    guidance: float = _option(
        "number",
        1.0,
        "Depth guidance",
        "Pushes towards depth as the CFG scale pushes towards the prompt, by letting the negative half see less of the "
        "depth map: 1 = not at all, the CFG scale's own value = as strongly as the prompt.",
        span=(1.0, 30.0, 0.5),
        infotext="Depth guidance",
    )
    ignore_colours: bool = _option(
        "switch",
        False,
        "Ignore source colours",
        "At denoising strength 1 start from noise alone, so that no tone of the picture shows through; under a mask "
        "only where it is fully white. Below 1 it does nothing.",
        infotext="Depth ignore colours",
    )
    estimate_on: str = _option(
        "choice",
        "auto",
        "Estimate on",
        "Original: the whole picture before it is resized, cropped or filled; the part under 'Only masked' keeps the "
        "whole picture's range. Entering: the picture as it enters the sampler, as the host does by itself. Automatic: "
        "original for 'Only masked', else entering.",
        choices={"auto": "Automatic", "original": "Original picture", "entering": "Picture as it enters the sampler"},
        infotext="Depth estimate on",
    )
    under_mask: str = _option(
        "choice",
        "keep",
        "Under the mask",
        "Keep: new content in the same shape. Fill: the depth of the surroundings runs in, to remove an object. "
        "My own depth map: it counts under the mask alone, over the range of the picture's depth.",
        choices={"keep": "Keep depth", "fill": "Fill from surroundings", "map": "My own depth map"},
        infotext="Depth under mask",
    )
    hires: str = _option(
        "choice",
        "keep",
        "Hires depth",
        "Depth of the hires pass: keep that of the first pass, or estimate it anew from the first pass' picture.",
        choices={"keep": "Keep", "estimate": "Estimate anew"},
        infotext="Depth hires",
    )
    keep_first: bool = _option(
        "switch",
        False,
        "Keep first depth",
        "Loopback: keep the depth of the first picture in all loops, instead of estimating each result anew.",
        infotext="Depth keep first",
    )
    range: str = _option(
        "choice",
        "own",
        "Range",
        "Which distances are farthest and nearest. Own: each picture's. Shared, against flicker in sequences: those of "
        "all pictures of a batch together; in a batch folder and in Loopback those of the first picture. Fixed: Range "
        "far and Range near.",
        choices={"own": "Each picture's own", "shared": "Shared", "fixed": "Fixed"},
        infotext="Depth range",
    )
    score: bool = _option(
        "switch",
        False,
        "Fidelity score",
        "Estimate the depth of each result and write into its infotext how far it agrees with the depth that was asked "
        "for: 1 = in everything, 0 = by chance. Costs one estimation per picture.",
        infotext="Depth score",
    )

    range_far: float = _option(
        "number",
        0.0,
        "Range far",
        "With a fixed range: the farthest value, in the map's own units, as the preview names them; what lies "
        "beyond counts as farthest.",
        span=(-1e6, 1e6, 0.0),
        infotext="Depth range far",
    )
    range_near: float = _option(
        "number",
        0.0,
        "Range near",
        "With a fixed range: the nearest value, in the map's own units; it must be greater than Range far.",
        span=(-1e6, 1e6, 0.0),
        infotext="Depth range near",
    )
    estimator: str = _option(
        "text",
        CHECKPOINT,
        "Estimator",
        "What estimates depth: 'checkpoint' is the checkpoint's own network (MiDaS); others are depth models that you "
        "have installed, such as Depth Anything V2, by the name of their folder.",
        infotext="Depth estimator",
    )
    map_directory: str = _option(
        "text",
        "",
        "Depth map directory",
        "Batch tab: a folder of depth maps, each named like its picture (photo.png or photo-depth.png for photo.jpg), "
        "for 'My own depth map'. If a picture has none, that is reported before anything runs.",
    )

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            object.__setattr__(self, name, option.check(getattr(self, name)))
        if self.near <= self.far:
            raise OptionError(
                "near",
                "Depth option 'near' must be greater than 'far'.",
                got=f"near {self.near:g} and far {self.far:g}",
                fix="Use 'invert' to swap near and far.",
            )
        if self.start > self.end:
            raise OptionError(
                "start",
                "Depth option 'start' must not be greater than 'end'.",
                got=f"start {self.start:g} and end {self.end:g}",
                fix="Both are parts of the steps: 0 is before the first, 1 after the last.",
            )

        if self.range == "fixed" and self.range_near <= self.range_far:
            raise OptionError(
                "range_near",
                "With a fixed range, depth option 'range_near' must be greater than 'range_far'.",
                got=f"range_near {self.range_near:g} and range_far {self.range_far:g}",
                fix="Give both in the map's own units; the preview and /depth2img/v1/estimate name those of a picture.",
            )

    @property
    def adjusts(self) -> bool:
        """True if any adjustment differs from its default (see `adjust.adjust`)."""
        return any(getattr(self, name) != OPTIONS[name].default for name in ADJUSTMENTS)

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> DepthOptions:
        """Options from named fields, as the API takes them; what is missing keeps its default.

        Without `source`, a given `depth_map` or `reference` says where depth comes from.

        Raises:
            OptionError: a field is unknown or bad, or a picture is given that would have no effect.
        """
        for name in values:
            if name not in OPTIONS:
                raise OptionError(
                    str(name),
                    f"There is no depth option '{str(name)[:40]}'.",
                    fix=f"The options are: {', '.join(OPTIONS)}.",
                )
        given = {name: OPTIONS[name].check(value) for name, value in values.items()}
        if given.get("region") is not None and not given.get("enabled", True):
            raise OptionError(
                "region",
                "Depth option 'region' is given, but would have no effect.",
                got="enabled False",
                fix="Set enabled to true, or leave 'region' out.",
            )
        payloads = [name for name in SOURCE_OF_PAYLOAD if given.get(name) is not None]
        under_mask = given.get("under_mask") == "map"
        sources = [name for name in payloads if not (under_mask and name == "depth_map")]
        if "source" not in given and len(sources) == 1:
            given["source"] = SOURCE_OF_PAYLOAD[sources[0]]
        options = cls(**given)
        for name in payloads:
            used = SOURCE_OF_PAYLOAD[name] == options.source or (under_mask and name == "depth_map")
            if not (used and options.enabled):
                raise OptionError(
                    name,
                    f"Depth option '{name}' is given, but would have no effect.",
                    got=f"source '{options.source}', enabled {options.enabled}",
                    fix=f"Set source to '{SOURCE_OF_PAYLOAD[name]}' and enabled to true, or leave '{name}' out.",
                )
        return options

    @classmethod
    def from_args(cls, args: Sequence[object]) -> DepthOptions:
        """Options from the positional list of the panel, in the order of `OPTIONS`; a shorter list keeps defaults.

        One mapping in first place is read by `from_mapping`, as the API sends it; the values after it (what the
        user's own defaults or an infotext say) stand where the mapping says nothing.

        Raises:
            OptionError: see `from_mapping`; also more values than there are options.
        """
        if args and isinstance(args[0], Mapping):
            rest = {
                name: value
                for name, value in zip(OPTIONS, args, strict=False)
                if name not in ("enabled", *SOURCE_OF_PAYLOAD)
            }
            under_mask = OPTIONS["under_mask"].check(args[0].get("under_mask", rest.get("under_mask", "keep")))
            sources = [name for name in SOURCE_OF_PAYLOAD if not (under_mask == "map" and name == "depth_map")]
            if any(OPTIONS[name].check(args[0].get(name)) is not None for name in sources):
                rest.pop("source", None)
            return cls.from_mapping({**rest, **args[0]})
        if len(args) > len(OPTIONS):
            raise OptionError(
                "args",
                "Too many values for the depth options.",
                got=f"{len(args)} values",
                fix=f"Give at most {len(OPTIONS)}, in this order: {', '.join(OPTIONS)}; or one object with names.",
            )
        values: dict[str, Any] = dict(zip(OPTIONS, args, strict=False))
        return cls(**values)

    def infotext(self) -> dict[str, str]:
        """Infotext key -> text of every option that differs from its default; images are left out."""
        return {
            option.infotext: str(getattr(self, name))
            for name, option in OPTIONS.items()
            if option.infotext and getattr(self, name) != option.default
        }


def _table() -> dict[str, Option]:
    return {
        field.name: Option(name=field.name, default=field.default, **field.metadata)
        for field in dataclasses.fields(DepthOptions)
    }


OPTIONS: Final[Mapping[str, Option]] = _table()
"""Name -> option, in the order of the positional list."""

ADJUSTMENTS: Final = ("near", "far", "gamma", "blur", "invert")
"""The options that `adjust.adjust` takes."""

WEBUI_ONLY: Final[Mapping[str, str]] = {
    "keep_first": "Give the first picture as 'reference'.",
    "map_directory": "Give each picture its 'depth_map', or run 'depth2img batch' with --depth-folder.",
}
"""Options of what only the WebUI has, Loopback and the Batch tab -> what to do elsewhere, where they are refused."""

SOURCE_OF_PAYLOAD: Final[Mapping[str, str]] = {"reference": "reference", "depth_map": "map"}
"""Image option -> the `source` that uses it."""


def value_from_infotext(name: str, params: Mapping[str, object]) -> Any:
    """The value of one option in a parsed infotext; its default where the text does not carry it.

    Args:
        name: a key of `OPTIONS`.
        params: infotext key -> text, as the host parses it.

    Raises:
        OptionError: the text carries the key with a value that the option cannot have.
    """
    option = OPTIONS[name]
    text = params.get(option.infotext) if option.infotext else None
    if text is None:
        return option.default
    # A bare key (the host writes it so when key and value are equal) cannot come from `DepthOptions.infotext`.
    return option.parse(str(text))
