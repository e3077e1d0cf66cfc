"""The one table of options and the values made from it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth2img import OPTIONS, DepthOptions, OptionError
from depth2img.options import ADJUSTMENTS, SOURCE_OF_PAYLOAD, value_from_infotext
from depth2img.table import Option

NUMBERS = [name for name, option in OPTIONS.items() if option.kind == "number"]
SWITCHES = [name for name, option in OPTIONS.items() if option.kind == "switch"]
CHOICES = [name for name, option in OPTIONS.items() if option.kind == "choice"]
TEXTS = [name for name, option in OPTIONS.items() if option.kind == "text"]
IMAGES = [name for name, option in OPTIONS.items() if option.kind == "image"]

HOST_KEY = re.compile(r"\w[\w \-/]+")
"""Pattern of what the host takes for a key in an infotext (modules/infotext_utils.py, `re_param_code`; 1.10.1)."""


def values_of(option: Option) -> st.SearchStrategy[Any]:
    if option.kind == "switch":
        return st.booleans()
    if option.kind == "number":
        return st.floats(option.minimum, option.maximum)
    if option.kind == "choice":
        return st.sampled_from(sorted(option.choices))
    if option.kind == "text":
        return st.text(st.characters(categories=["L", "N", "P"]), max_size=40)
    return st.none()


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    """Valid named fields, any subset of them, without pictures."""
    names = draw(st.sets(st.sampled_from([name for name in OPTIONS if name not in IMAGES])))
    drawn = {name: draw(values_of(OPTIONS[name])) for name in OPTIONS if name in names}
    if drawn.get("far", 0.0) >= drawn.get("near", 1.0):
        drawn.pop("far", None)
        drawn.pop("near", None)
    if drawn.get("start", 0.0) > drawn.get("end", 1.0):
        drawn.pop("start", None)
    if drawn.get("range_far", 0.0) >= drawn.get("range_near", 0.0):
        drawn["range"] = "shared"
    return drawn


# --- the table ---------------------------------------------------------------------------------------------------


def test_table_and_class_agree():
    assert list(OPTIONS) == [field.name for field in dataclasses.fields(DepthOptions)]
    for name, option in OPTIONS.items():
        assert option.name == name
        assert getattr(DepthOptions(), name) == option.default


def test_the_names_of_the_contract_are_there_and_in_this_order():
    """Clients send positional lists: new options go to the end."""
    assert list(OPTIONS)[:11] == [
        "enabled",
        "source",
        "reference",
        "depth_map",
        "near",
        "far",
        "gamma",
        "blur",
        "invert",
        "append_map",
        "save_map",
    ]
    assert list(OPTIONS["source"].choices) == ["picture", "reference", "map"]


def test_labels_keys_and_help():
    labels = [option.label for option in OPTIONS.values()]
    keys = [option.infotext for option in OPTIONS.values() if option.infotext]
    assert len(set(labels)) == len(labels)
    assert len(set(keys)) == len(keys)
    for option in OPTIONS.values():
        assert option.help.endswith(".")
        assert option.kind in ("image", "text") or option.infotext
        assert not (option.kind == "image" and option.infotext), "a text cannot carry a picture"
        assert not option.infotext or HOST_KEY.fullmatch(option.infotext)


def test_defaults_pass_their_own_check():
    for option in OPTIONS.values():
        assert option.check(option.default) == option.default


@pytest.mark.parametrize("name", NUMBERS)
def test_ends_of_a_range_are_allowed(name):
    option = OPTIONS[name]
    assert option.minimum < option.maximum
    assert option.step > 0 or option.maximum - option.minimum > 1000, "too wide for a slider"
    assert option.check(option.minimum) == option.minimum
    assert option.check(option.maximum) == option.maximum
    assert option.minimum <= option.default <= option.maximum


def test_sources_of_payloads_exist():
    assert set(SOURCE_OF_PAYLOAD) == {"reference", "depth_map"}
    assert set(SOURCE_OF_PAYLOAD.values()) <= set(OPTIONS["source"].choices)


# --- values ------------------------------------------------------------------------------------------------------


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DepthOptions().near = 0.5  # type: ignore[misc]


@pytest.mark.parametrize("name", NUMBERS)
def test_integers_become_floats(name):
    value = DepthOptions.from_mapping({name: 1} if name != "far" else {"far": 0})
    assert type(getattr(value, name)) is float


BAD_NUMBERS = [
    "half",
    "0,5",
    "",
    True,
    False,
    float("nan"),
    float("inf"),
    float("-inf"),
    10**400,
    -(10**400),
    1e9,
    1j,
    [0.5],
    {},
    np.zeros(3),
]
BAD_SWITCHES = ["perhaps", "", 2, 0.5, -1, float("nan"), [], (), np.zeros(2)]
BAD_CHOICES = ["", "nonsense", "PICTURE", 0, True, [], ["picture"], {}, np.array(["picture", "map"]), b"map"]
BAD_IMAGES = [True, False, 7, 0.5, {}, {"image": "x"}]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in NUMBERS for value in BAD_NUMBERS),
        *((name, OPTIONS[name].minimum - 1) for name in NUMBERS),
        *((name, OPTIONS[name].maximum + 1) for name in NUMBERS),
        *((name, value) for name in SWITCHES for value in BAD_SWITCHES),
        *((name, value) for name in CHOICES for value in BAD_CHOICES),
        *((name, value) for name in IMAGES for value in BAD_IMAGES),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_field_is_named(name, value):
    position = list(OPTIONS).index(name)
    positional = [*[option.default for option in OPTIONS.values()][:position], value]
    for make in (
        lambda: DepthOptions.from_mapping({name: value}),
        lambda: DepthOptions.from_args(positional),
        lambda: DepthOptions.from_args([{name: value}]),
        lambda: DepthOptions(**{name: value}),
        lambda: OPTIONS[name].check(value),
    ):
        with pytest.raises(OptionError, match=f"'{name}'") as caught:
            make()
        assert caught.value.field == name
        assert len(str(caught.value)) < 400, "a payload must not be repeated in the message"


def test_a_long_text_is_not_repeated():
    with pytest.raises(OptionError) as caught:
        DepthOptions.from_mapping({"near": "x" * 1_000_000})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["Near", "depth", "near ", "", "threshold_a", 1, None, ("near",)])
def test_an_unknown_field_is_named_and_the_known_ones_are_listed(name):
    with pytest.raises(OptionError) as caught:
        DepthOptions.from_mapping({"near": 0.9, name: 1})
    assert caught.value.field == str(name)
    assert str(name) in str(caught.value)
    for known in OPTIONS:
        assert known in str(caught.value)


@given(st.dictionaries(st.text() | st.sampled_from(sorted(OPTIONS)), st.from_type(object) | st.floats() | st.text()))
def test_any_mapping_gives_options_or_an_option_error(mapping):
    try:
        options = DepthOptions.from_mapping(mapping)
    except OptionError as error:
        field = error.field
        assert field in OPTIONS or field in mapping
    else:
        assert options.near > options.far


@given(st.lists(st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary(), max_size=14))
def test_any_list_gives_options_or_an_option_error(args):
    with contextlib.suppress(OptionError):
        assert DepthOptions.from_args(args).near > 0


@pytest.mark.parametrize(("near", "far"), [(0.5, 0.5), (0.2, 0.7), (0.0, 0.0), (1.0, 1.0)])
def test_near_must_be_nearer_than_far(near, far):
    with pytest.raises(OptionError, match=r"'near' must be greater than 'far'") as caught:
        DepthOptions(near=near, far=far)
    assert caught.value.field == "near"
    assert f"near {near:g} and far {far:g}" in str(caught.value)


# --- round trips -------------------------------------------------------------------------------------------------


@given(fields())
def test_named_and_positional_fields_say_the_same(values):
    options = DepthOptions.from_mapping(values)
    for name in OPTIONS:
        # An empty text says nothing.
        expected = OPTIONS[name].default if values.get(name) == "" else values.get(name, OPTIONS[name].default)
        assert getattr(options, name) == expected
    positional = [getattr(options, name) for name in OPTIONS]
    assert DepthOptions.from_args(positional) == options
    assert DepthOptions.from_args([values]) == options
    assert DepthOptions.from_mapping(json.loads(json.dumps(values))) == options


@given(fields())
def test_infotext_restores_every_option(values):
    options = DepthOptions.from_mapping(values)
    text = options.infotext()
    carried = [name for name, option in OPTIONS.items() if option.infotext]
    again = DepthOptions.from_mapping({name: value_from_infotext(name, text) for name in carried})
    assert again == dataclasses.replace(options, map_directory="", map_ending="")


@given(fields())
def test_infotext_holds_what_is_not_default_and_nothing_else(values):
    options = DepthOptions.from_mapping(values)
    changed = {name for name in OPTIONS if getattr(options, name) != OPTIONS[name].default}
    text = options.infotext()
    assert set(text) == {OPTIONS[name].infotext for name in changed if OPTIONS[name].infotext}
    for name in changed & {*NUMBERS, *SWITCHES, *CHOICES}:
        value = text[OPTIONS[name].infotext]
        assert re.fullmatch(r"[\w.+\-]+", value), "the host would have to quote it"


def test_default_options_leave_no_trace():
    assert DepthOptions().infotext() == {}
    assert DepthOptions.from_mapping({}) == DepthOptions.from_args([]) == DepthOptions()


def test_pictures_stay_out_of_the_infotext():
    options = DepthOptions(source="map", depth_map="AAAA")
    assert options.infotext() == {"Depth from": "map"}


@given(st.integers(0, len(OPTIONS)))
def test_a_short_list_keeps_defaults(length):
    assert DepthOptions.from_args([option.default for option in OPTIONS.values()][:length]) == DepthOptions()


def test_too_many_values():
    with pytest.raises(OptionError, match="Too many values") as caught:
        DepthOptions.from_args([option.default for option in OPTIONS.values()] + [1])
    assert caught.value.field == "args"
    assert ", ".join(OPTIONS) in str(caught.value)


def test_one_object_before_the_values_of_the_page():
    """The host fills up the list of an API call with the page's own values."""
    page = [option.default for option in OPTIONS.values()][1:]
    page[list(OPTIONS).index("gamma") - 1] = 2.0
    page[list(OPTIONS).index("blur") - 1] = 3.0
    options = DepthOptions.from_args([{"blur": 1.5, "enabled": True}, *page])
    assert (options.blur, options.gamma) == (1.5, 2.0)
    assert DepthOptions.from_args([{"depth_map": "AAAA"}, *page]).source == "map"


def test_a_label_stands_for_its_choice():
    """The host's list of scripts shows labels, not names."""
    for name, label in OPTIONS["source"].choices.items():
        assert OPTIONS["source"].check(label) == OPTIONS["source"].check(name) == name


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in IMAGES])
def test_infotext_without_the_key_means_the_default(name):
    assert value_from_infotext(name, {"Steps": "20"}) == OPTIONS[name].default


@pytest.mark.parametrize("name", IMAGES)
def test_infotext_of_a_picture(name):
    assert value_from_infotext(name, {"": "x", name: "y"}) is None


@pytest.mark.parametrize("text", ["", "many", "nan", "inf", "1e999", "-2e6", "2e6", "0,5"])
@pytest.mark.parametrize("name", NUMBERS)
def test_bad_number_in_an_infotext(name, text):
    with pytest.raises(OptionError) as caught:
        value_from_infotext(name, {OPTIONS[name].infotext: text})
    assert caught.value.field == name


@pytest.mark.parametrize("text", ["", "true", "yes", "1"])
@pytest.mark.parametrize("name", SWITCHES)
def test_bad_switch_in_an_infotext(name, text):
    with pytest.raises(OptionError) as caught:
        value_from_infotext(name, {OPTIONS[name].infotext: text})
    assert caught.value.field == name


# --- as clients send them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("true", True), ("False", False), (" ON ", True), ("0", False), (1, True), (0, False), (1.0, True)],
)
def test_switches_as_clients_send_them(value, wanted):
    assert DepthOptions.from_mapping({"invert": value}).invert is wanted


@pytest.mark.parametrize(("value", "wanted"), [("0.9", 0.9), (" 1 ", 1.0), ("5e-1", 0.5), (1, 1.0)])
def test_numbers_as_clients_send_them(value, wanted):
    for made in (DepthOptions.from_mapping({"near": value}), DepthOptions.from_args([{"near": value}])):
        assert made.near == wanted and type(made.near) is float


@pytest.mark.parametrize("name", OPTIONS)
def test_null_is_not_given(name):
    default = DepthOptions()
    assert DepthOptions.from_mapping({name: None}) == default
    assert DepthOptions.from_args([{name: None}]) == default
    position = list(OPTIONS).index(name)
    assert DepthOptions.from_args([*[option.default for option in OPTIONS.values()][:position], None]) == default


def test_a_list_of_null():
    assert DepthOptions.from_args([None]) == DepthOptions.from_args([None] * len(OPTIONS)) == DepthOptions()
    assert DepthOptions.from_args([{"near": 0.5}, None, None]).near == 0.5


# --- where depth comes from --------------------------------------------------------------------------------------


def test_a_picture_given_alone_says_where_depth_comes_from():
    assert DepthOptions.from_mapping({"depth_map": "AAAA"}).source == "map"
    assert DepthOptions.from_mapping({"reference": "AAAA"}).source == "reference"
    assert DepthOptions.from_mapping({"reference": "AAAA", "depth_map": ""}).source == "reference"
    assert DepthOptions.from_mapping({"reference": None, "depth_map": ""}).source == "picture"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"source": "picture", "depth_map": "AAAA"}, "depth_map"),
        ({"source": "picture", "reference": "AAAA"}, "reference"),
        ({"source": "reference", "depth_map": "AAAA"}, "depth_map"),
        ({"source": "map", "reference": "AAAA", "depth_map": "AAAA"}, "reference"),
        ({"reference": "AAAA", "depth_map": "AAAA"}, "reference"),
        ({"enabled": False, "depth_map": "AAAA"}, "depth_map"),
        ({"enabled": False, "source": "reference", "reference": "AAAA"}, "reference"),
        ({"enabled": False, "region": "AAAA"}, "region"),
    ],
)
def test_a_picture_that_would_have_no_effect(values, field):
    with pytest.raises(OptionError, match="no effect") as caught:
        DepthOptions.from_mapping(values)
    assert caught.value.field == field


def test_the_page_may_hold_pictures_that_are_not_in_use():
    """From the page the upload stays in its box while another source is chosen."""
    args = [option.default for option in OPTIONS.values()]
    args[list(OPTIONS).index("reference")] = object()
    assert DepthOptions.from_args(args).source == "picture"


@pytest.mark.parametrize("name", ADJUSTMENTS)
def test_each_adjustment_counts_as_one(name):
    value = True if OPTIONS[name].kind == "switch" else 0.5
    assert DepthOptions.from_mapping({name: value}).adjusts


def test_the_rest_does_not_adjust():
    assert not DepthOptions(enabled=False, source="map", depth_map="A", append_map=True, save_map=True).adjusts


def test_a_map_under_the_mask_alone():
    """The map is for the masked part; depth of the rest comes from the picture."""
    given = {"depth_map": "AAAA", "under_mask": "map"}
    page = [option.default for option in OPTIONS.values()][1:]
    assert DepthOptions.from_mapping(given).source == "picture"
    assert DepthOptions.from_args([given, *page]).source == "picture"
    both = DepthOptions.from_mapping({**given, "reference": "BBBB"})
    assert both.source == "reference"


def test_a_fixed_range_needs_its_ends():
    for bad in ({}, {"range_near": -1.0}, {"range_far": 3.0, "range_near": 3.0}):
        with pytest.raises(OptionError, match="'range_near' must be greater than 'range_far'"):
            DepthOptions.from_mapping({"range": "fixed", **bad})
    assert DepthOptions(range="fixed", range_far=-3.0).range_near == 0
