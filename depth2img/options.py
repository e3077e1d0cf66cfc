"""The depth options: the same in the panel, the API, the infotext, the X/Y/Z axes and on the command line.

A new option is one more row of `DepthOptions`, at its end: the positional list of the API has the order of the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .errors import OptionError
from .table import Option, choice, image, number, rows, switch, text, written

CHECKPOINT: Final = "checkpoint"
"""Name of the estimator that the checkpoint itself carries."""


@dataclasses.dataclass(frozen=True)
class DepthOptions:
    """The depth options of one job, checked; the defaults reproduce the host's own depth-to-image.

    Raises:
        OptionError: a value is of the wrong type or out of range, or two values contradict each other.
    """

    enabled: bool = switch(
        True,
        "Depth to image",
        "On: a depth checkpoint keeps the depth of the picture. Off: the same checkpoint does plain img2img. "
        "Other checkpoints are not affected.",
        infotext="Depth to image",
    )
    source: str = choice(
        "picture",
        "Depth from",
        "Where depth comes from: the picture being worked on, another picture (only its depth is used, never its "
        "colours), or a depth map of your own.",
        {"picture": "This picture", "reference": "Another picture", "map": "My own depth map"},
        infotext="Depth from",
        section="source",
        stage="map",
    )
    reference: object = image(
        "Reference picture",
        "The picture whose depth is used with 'Another picture'.",
        section="source",
        stage="map",
        look="picture",
        flag="--depth-from",
    )
    depth_map: object = image(
        "Depth map",
        "A depth map, white = near: PNG, TIFF, EXR, PFM, .npy or .npz, read at full precision; or a phone's portrait "
        "with depth inside.",
        section="source",
        stage="map",
        flag="--depth",
    )
    near: float = number(
        1.0,
        "Near",
        "Everything nearer than this counts as nearest. 1 = the nearest point of the map.",
        (0.0, 1.0, 0.01),
        infotext="Depth near",
        section="adjust",
        stage="adjustment",
    )
    far: float = number(
        0.0,
        "Far",
        "Everything farther than this counts as farthest. 0 = the farthest point of the map.",
        (0.0, 1.0, 0.01),
        infotext="Depth far",
        section="adjust",
        stage="adjustment",
    )
    gamma: float = number(
        1.0,
        "Gamma",
        "Bends the middle distances: above 1 brings them nearer, below 1 pushes them back.",
        (0.1, 10.0, 0.05),
        infotext="Depth gamma",
        section="adjust",
        stage="adjustment",
    )
    blur: float = number(
        0.0,
        "Blur",
        "Softens the depth map: standard deviation in per cent of its shorter side.",
        (0.0, 10.0, 0.1),
        infotext="Depth blur",
        section="adjust",
        stage="adjustment",
    )
    invert: bool = switch(
        False,
        "Invert",
        "Swaps near and far. Use it for maps in which black is near.",
        infotext="Depth invert",
        section="adjust",
        stage="adjustment",
    )
    append_map: bool = switch(
        False,
        "Append map to results",
        "Shows the depth map of the job after the generated pictures.",
        infotext="Depth append map",
        section="result",
    )
    save_map: bool = switch(
        False,
        "Save map beside picture",
        "Saves the depth map of the job as a 16-bit PNG next to each saved picture, at the picture's size.",
        infotext="Depth save map",
        section="result",
    )
    strength: float = number(
        1.0,
        "Strength",
        "How strongly the depth map counts: 1 = fully, 0 = not at all.",
        (0.0, 1.0, 0.05),
        infotext="Depth strength",
        section="adjust",
    )
    start: float = number(
        0.0,
        "Start",
        "Fraction of the steps after which depth begins to count; 0 = from the first step. The hires pass counts its "
        "own steps.",
        (0.0, 1.0, 0.01),
        infotext="Depth start",
        section="control",
    )
    end: float = number(
        1.0,
        "End",
        "Fraction of the steps after which depth no longer counts; 1 = up to the last step.",
        (0.0, 1.0, 0.01),
        infotext="Depth end",
        section="control",
    )
    region: object = image(
        "Region",
        "Depth counts inside the white part of this mask, and partly where it is grey. The mask covers the whole "
        "picture and is resized and cropped with it.",
        section="control",
    )
    neutral: float = number(
        0.0,
        "Neutral depth",
        "The conditioning where depth does not count: one distance everywhere, -1 = farthest, 1 = nearest.",
        (-1.0, 1.0, 0.05),
        infotext="Depth neutral",
        section="control",
    )
    guidance: float = number(
        1.0,
        "Depth guidance",
        "Pushes towards depth as the CFG scale pushes towards the prompt, by showing the negative half less of the "
        "depth map: 1 = not at all, the CFG scale's own value = as strongly as the prompt.",
        (1.0, 30.0, 0.5),
        infotext="Depth guidance",
        section="control",
    )
    ignore_colours: bool = switch(
        False,
        "Ignore source colours",
        "At denoising strength 1, starts from pure noise, so that no tone of the picture shows through; with a mask, "
        "only where the mask is fully white. Below 1 it does nothing.",
        infotext="Depth ignore colours",
        section="control",
    )
    estimate_on: str = choice(
        "auto",
        "Estimate on",
        "Original: the whole picture before it is resized, cropped or filled; with 'Only masked', the cropped part "
        "keeps the whole picture's range. Entering: the picture as it enters the sampler, as the host does on its own. "
        "Automatic: original with 'Only masked', otherwise entering.",
        {"auto": "Automatic", "original": "Original picture", "entering": "Picture as it enters the sampler"},
        infotext="Depth estimate on",
        section="control",
        stage="map",
    )
    under_mask: str = choice(
        "keep",
        "Under the mask",
        "Keep: new content in the same shape. Fill: depth is filled in from the surroundings, to remove an object. "
        "My own depth map: it counts under the mask only, within the range of the picture's depth.",
        {"keep": "Keep depth", "fill": "Fill from surroundings", "map": "My own depth map"},
        infotext="Depth under mask",
        section="control",
        stage="map",
    )
    hires: str = choice(
        "keep",
        "Hires depth",
        "Depth for the hires pass: keep that of the first pass, or estimate it again from the first pass's picture.",
        {"keep": "Keep", "estimate": "Estimate again"},
        infotext="Depth hires",
        section="control",
    )
    keep_first: bool = switch(
        False,
        "Keep first depth",
        "Loopback: keeps the depth of the first picture in all loops, instead of estimating each result again.",
        infotext="Depth keep first",
        section="control",
        webui_only="Give the first picture as 'reference'.",
    )
    range: str = choice(
        "own",
        "Range",
        "Which distances count as farthest and nearest. Own: those of each picture. Shared, against flicker in "
        "sequences: those of all pictures of a batch together; in a batch folder and in Loopback, those of the first "
        "picture. Fixed: Range far and Range near. Without outliers: those of each picture, but for some per cent at "
        "each end.",
        {"own": "Each picture's own", "shared": "Shared", "fixed": "Fixed", "percentile": "Without outliers"},
        infotext="Depth range",
        section="control",
        stage="map",
    )
    score: bool = switch(
        False,
        "Fidelity score",
        "Estimates the depth of each result and writes to its infotext how well it agrees with the depth asked for: "
        "1 = everywhere, 0 = by chance. Costs one estimation per picture.",
        infotext="Depth score",
        section="control",
    )
    range_far: float = number(
        0.0,
        "Range far",
        "With a fixed range: the farthest value, in the map's own units, as the preview shows them; everything beyond "
        "counts as farthest.",
        (-1e6, 1e6, 0.0),
        infotext="Depth range far",
        section="control",
        stage="map",
    )
    range_near: float = number(
        0.0,
        "Range near",
        "With a fixed range: the nearest value, in the map's own units; it must be greater than Range far.",
        (-1e6, 1e6, 0.0),
        infotext="Depth range near",
        section="control",
        stage="map",
    )
    estimator: str = text(
        CHECKPOINT,
        "Estimator",
        "What estimates depth: 'checkpoint' is the checkpoint's own network (MiDaS); others are depth models that you "
        "have installed, such as Depth Anything V2, named by their folder.",
        infotext="Depth estimator",
        section="source",
        rank=1,
        stage="map",
        look="dropdown",
    )
    map_directory: str = text(
        "",
        "Depth map directory",
        "Batch tab: a folder of depth maps, each named after its picture (photo.png or photo-depth.png for photo.jpg), "
        "for 'My own depth map'. Missing maps are reported before anything runs.",
        section="source",
        webui_only="Give each picture its 'depth_map', or run 'depth2img batch' with --depth-folder.",
    )
    holds: str = choice(
        "nearness",
        "Map holds",
        "What the numbers of your own depth map are. Nearness: larger or whiter is nearer. Distance: larger is "
        "farther, in any unit (Blender's Z, depth cameras, metric networks); it becomes inverse depth, holes are "
        "filled from their surroundings, and infinity is farthest.",
        {"nearness": "Nearness (white = near)", "distance": "Distance (larger = farther)"},
        infotext="Depth map holds",
        section="source",
        stage="map",
    )
    map_channel: str = text(
        "",
        "Map channel",
        "Of a depth map file that holds several channels, layers or arrays (EXR, .npz): the name of the one to use. "
        "Empty: the one that is depth by its name.",
        infotext="Depth map channel",
        section="source",
        stage="map",
    )
    map_ending: str = text(
        "",
        "Depth map ending",
        "Batch tab: what follows the picture's name in the name of its depth map, such as _depth; or a pattern, with * "
        "for the picture's name (depth_*) or # for the number in it (Depth#). Empty: -depth.",
        section="source",
        webui_only="Give each picture its 'depth_map', or run 'depth2img batch' with --depth-ending.",
    )
    range_clip: float = number(
        1.0,
        "Range clip",
        "With a range without outliers: per cent of the map's values at each end that count as farthest and nearest.",
        (0.1, 20.0, 0.1),
        infotext="Depth range clip",
        section="control",
        stage="map",
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
                fix="Both are fractions of the steps: 0 is before the first, 1 after the last.",
            )

        if self.range == "fixed" and self.range_near <= self.range_far:
            raise OptionError(
                "range_near",
                "With a fixed range, depth option 'range_near' must be greater than 'range_far'.",
                got=f"range_near {self.range_near:g} and range_far {self.range_far:g}",
                fix="Give both in the map's own units; the preview and /depth2img/v1/estimate show a picture's range.",
            )

    @property
    def adjusts(self) -> bool:
        """True if any adjustment differs from its default; see `depth.adjustments.adjust`."""
        return any(getattr(self, name) != OPTIONS[name].default for name in ADJUSTMENTS)

    @property
    def needs_own_map(self) -> bool:
        """True if the user's own map is used: for the whole picture, or under the mask alone."""
        return uses_own_map(self.source, self.under_mask)

    @property
    def lacks_own_map(self) -> bool:
        """True if a map of a folder of maps would be used: depth is on, and neither a map nor a reference decides."""
        decided = self.depth_map is not None or (self.source == "reference" and self.under_mask != "map")
        return self.enabled and not decided

    def with_own_map(self, depth_map: object) -> DepthOptions:
        """Return the options with a map: for the whole picture, or under the mask if `under_mask` asks for it there."""
        source = self.source if self.under_mask == "map" else "map"
        return dataclasses.replace(self, source=source, depth_map=depth_map)

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> DepthOptions:
        """Make options from named fields, as the API takes them; missing fields, and None, keep their defaults.

        Without `source`, a `depth_map` or `reference` that is given decides where depth comes from.

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
        given = {name: OPTIONS[name].check(value) for name, value in values.items() if value is not None}
        if given.get("region") is not None and not given.get("enabled", True):
            raise OptionError(
                "region",
                "Depth option 'region' is given, but would have no effect.",
                got="enabled False",
                fix="Set enabled to true, or leave 'region' out.",
            )
        payloads = [name for name in SOURCE_OF_PAYLOAD if given.get(name) is not None]
        deciding = deciding_payloads(given)
        if "source" not in given and len(deciding) == 1:
            given["source"] = SOURCE_OF_PAYLOAD[deciding[0]]
        options = cls(**given)
        for name in payloads:
            used = SOURCE_OF_PAYLOAD[name] == options.source or name not in deciding
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
        """Make options from the panel's positional list, in the order of `OPTIONS`; a shorter list keeps defaults.

        A mapping in first place is read by `from_mapping`, as the API sends it; the values after it (the user's own
        defaults, or those of an infotext) apply to the options that the mapping does not name.

        Raises:
            OptionError: see `from_mapping`; also for more values than there are options.
        """
        if args and isinstance(args[0], Mapping):
            named = {name: value for name, value in args[0].items() if value is not None}
            rest = {
                name: value
                for name, value in zip(OPTIONS, args, strict=False)
                if name not in ("enabled", *SOURCE_OF_PAYLOAD) and value is not None
            }
            checked = {name: OPTIONS[name].check(named.get(name)) for name in SOURCE_OF_PAYLOAD}
            under_mask = OPTIONS["under_mask"].check(named.get("under_mask", rest.get("under_mask", "keep")))
            if deciding_payloads({**checked, "under_mask": under_mask}):
                rest.pop("source", None)
            return cls.from_mapping({**rest, **named})
        if len(args) > len(OPTIONS):
            raise OptionError(
                "args",
                "Too many values for the depth options.",
                got=f"{len(args)} values",
                fix=f"Give at most {len(OPTIONS)}, in this order: {', '.join(OPTIONS)}; or one object with names.",
            )
        values: dict[str, Any] = {name: one for name, one in zip(OPTIONS, args, strict=False) if one is not None}
        return cls(**values)

    def infotext(self) -> dict[str, str]:
        """Return infotext key -> text of every option that differs from its default; images are left out."""
        return {option.infotext: str(value) for option, value in written(self, OPTIONS)}


OPTIONS: Final[Mapping[str, Option]] = rows(DepthOptions, "Depth option")
"""Name -> option, in the order of the positional list."""

ADJUSTMENTS: Final = tuple(name for name, option in OPTIONS.items() if option.stage == "adjustment")
"""The options that `depth.adjustments.adjust` applies."""

MAP_OPTIONS: Final = (
    *("holds", "map_channel"),
    *("range", "range_far", "range_near", "range_clip"),
    *ADJUSTMENTS,
)
"""The options that say how a map that stands alone is read and adjusted; see `depth.adjustments.finish`."""

WEBUI_ONLY: Final[Mapping[str, str]] = {name: row.webui_only for name, row in OPTIONS.items() if row.webui_only}
"""Options for what only the WebUI has (Loopback, Batch tab) -> what to do elsewhere, where they are refused."""

SOURCE_OF_PAYLOAD: Final[Mapping[str, str]] = {"reference": "reference", "depth_map": "map"}
"""Image option -> the `source` that uses it."""


def value_from_infotext(name: str, params: Mapping[str, object]) -> Any:
    """Read one option from a parsed infotext; it has its default if the text does not carry it.

    Args:
        name: a key of `OPTIONS`.
        params: infotext key -> text, as the host parses it.

    Raises:
        OptionError: the text carries the key with a value that the option does not allow.
    """
    option = OPTIONS[name]
    text = params.get(option.infotext) if option.infotext else None
    if text is None:
        return option.default
    # A bare key (the host writes it so when key and value are equal) cannot come from `DepthOptions.infotext`.
    return option.parse(str(text))


def uses_own_map(source: str, under_mask: str) -> bool:
    """Return whether these values of the two options use the user's own map."""
    return "map" in (source, under_mask)


def deciding_payloads(given: Mapping[str, object]) -> list[str]:
    """List the given payloads that decide where depth comes from; a map for under the mask alone does not.

    Args:
        given: option name -> value; missing names and None count as not given.
    """
    under_mask = given.get("under_mask") == "map"
    return [
        name for name in SOURCE_OF_PAYLOAD if given.get(name) is not None and not (under_mask and name == "depth_map")
    ]
