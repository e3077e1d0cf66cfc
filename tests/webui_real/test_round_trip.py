"""Every option there and back, driven by the table: a new option is covered without a word here.

Page -> infotext -> page, API -> infotext -> API, cell of X/Y/Z -> infotext, on the real WebUI.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from conftest import grid_args, photograph
from host import Host
from page import CHROMIUM, DepthPanel, opened

from depth2img import OPTIONS, DepthOptions, OptionError
from depth2img.table import Option

CARRIED = {name: option for name, option in OPTIONS.items() if option.infotext}
ANOTHER = "a test's, with: marks"
"""Value of texts; an estimator of this name is registered."""

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 1, "sampler_name": "Euler", "denoising_strength": 1.0}


def others(option: Option) -> list[Any]:
    """Values that are not the default: of a choice all, of a number two."""
    if option.kind == "switch":
        return [not option.default]
    if option.kind == "choice":
        return [name for name in option.choices if name != option.default]
    if option.kind == "text":
        return [ANOTHER]
    at = [option.minimum + part * (option.maximum - option.minimum) for part in (0.25, 0.75)]
    return [round(round(value / option.step) * option.step, 6) if option.step else value for value in at]


def allowed(case: dict[str, Any]) -> bool:
    """Tell whether a job can have these values together. With depth on, none may need a picture of its own."""
    try:
        DepthOptions(**case)
    except OptionError:
        return False
    return case.get("enabled") is False or not {"reference", "map"} & {case.get("source"), case.get("under_mask")}


def begun(case: dict[str, Any], name: str, value: Any) -> dict[str, Any] | None:
    """The case with one more value, and with a value of another option if it takes that; None if neither is allowed."""
    more = [{}, *({other: each} for other in CARRIED if other != "enabled" for each in others(CARRIED[other]))]
    return next((one for change in more if allowed(one := {**case, **change, name: value})), None)


def covering() -> list[dict[str, Any]]:
    """Few cases in which every value of `others` stands, each with as many options as go together."""
    missing = [(name, value) for name, option in CARRIED.items() for value in others(option) if name != "enabled"]
    cases: list[dict[str, Any]] = []
    while missing:
        bases: list[dict[str, Any]] = [{"enabled": False}, {}]
        made = [begun(base, *missing[0]) for base in (bases if len(cases) % 2 else reversed(bases))]
        case = next((one for one in made if one is not None), None)
        assert case is not None, f"no case has {missing[0]}: say in `allowed` or `others` what goes with it"
        for name in CARRIED:
            values = sorted(others(CARRIED[name]), key=lambda value: (name, value) not in missing)
            if name not in case and name != "enabled":
                case |= next(({name: value} for value in values if allowed({**case, name: value})), {})
        missing = [pair for pair in missing if pair not in case.items()]
        cases.append(case)
    return cases


CASES = covering()


@pytest.fixture
def bundled(bundled: Host) -> Host:
    """With another extension's estimator: brightness."""
    bundled.run(
        "from depth2img import DepthMap, register_estimator\n"
        "class Bright:\n"
        "    key = 'bright'\n"
        "    def estimate(self, picture): return DepthMap(picture.mean(axis=2))\n"
        f"register_estimator({ANOTHER!r}, Bright, replace=True)"
    )
    return bundled


def told(text: str) -> dict[str, str]:
    """Parse the depth options of an infotext; quoted values stay quoted."""
    keys = {option.infotext for option in CARRIED.values()}
    pairs = re.findall(r'(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', text.splitlines()[-1])
    return {key: value for key, value in pairs if key in keys}


def expected(case: dict[str, Any]) -> dict[str, str]:
    """The host quotes what has a comma or a colon in it."""
    texts = DepthOptions(**case).infotext()
    return {key: f'"{text}"' if {",", ":"} & set(text) else text for key, text in texts.items()}


def test_every_option_is_in_a_case() -> None:
    assert {name for case in CASES for name in case} == set(CARRIED)
    assert len(CASES) <= 6
    assert any(case.get("enabled") is False for case in CASES) and any("enabled" not in case for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_api_to_infotext_to_api(bundled: Host, case: dict[str, Any]) -> None:
    picture = photograph("coffee", 64, 64)
    first = bundled.img2img(picture, depth=case, **SMALL)
    assert told(first.infotexts[0]) == expected(case)
    steps = bundled.conditionings()
    bundled.run("probe.clear()")
    again = bundled.img2img(picture, infotext=first.infotexts[0], **SMALL)
    assert told(again.infotexts[0]) == expected(case)
    assert bundled.conditionings() == steps


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_cell_to_infotext(bundled: Host, case: dict[str, Any]) -> None:
    """Three options at a time as the axes of a grid of one cell, the others of the case as the job's."""
    words = {True: "on", False: "off"}
    picture = photograph("coffee", 64, 64)
    for at in range(0, len(case), 3):
        axes = dict(itertools.islice(case.items(), at, at + 3))
        rest = {name: value for name, value in case.items() if name not in axes or name == "enabled"}
        pairs = []
        for name, value in axes.items():
            text = words.get(value, str(value)) if CARRIED[name].kind == "switch" else str(value)
            pairs += [CARRIED[name].infotext, f'"{text}"' if "," in text else text]
        if not allowed(rest):  # the ends of a fixed range are the axes', say
            rest |= axes
        result = bundled.img2img(
            picture, script_name="x/y/z plot", script_args=grid_args(bundled, *pairs), depth=rest, **SMALL
        )
        assert told(result.infotexts[-1]) == expected(case), list(axes)


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium (Debian: apt-get install chromium)")
def test_page_to_infotext_to_page(bundled: Host, tmp_path: Any) -> None:
    """Each case is pasted over the one before, shown by the page, generated with, and said by the result's infotext.
    At last an infotext without any option brings every default back."""
    photograph("coffee", 64, 64).save(tmp_path / "picture.png")
    with opened(bundled.url) as page:
        panel = DepthPanel(page, "img2img")
        panel.show_tab()
        panel.upload("img2img_image", tmp_path / "picture.png")
        panel.open()
        for case in [*CASES, {}]:
            options = ", ".join(f"{key}: {value}" for key, value in expected(case).items())
            size = "Steps: 1, Sampler: Euler, CFG scale: 5, Seed: 1, Size: 64x64"
            page.locator("#img2img_prompt textarea").fill(f"a vase\n{size}" + (f", {options}" if options else ""))
            page.locator("#img2img_tools #paste").click()
            page.wait_for_function("() => !document.querySelector('#img2img_prompt textarea').value.includes('Steps')")
            page.wait_for_timeout(300)
            shown = {name: value for name in CARRIED if (value := panel.value(name)) is not None}
            wanted = DepthOptions(**case)
            assert shown == {name: getattr(wanted, name) for name in shown}
            assert len(shown) >= len(CARRIED) - 5, "what belongs to a range or to an own map may be hidden"
            before = len(bundled.conditionings())
            page.locator("#img2img_generate").click()
            for _ in range(600):
                if len(bundled.conditionings()) > before:
                    break
                page.wait_for_timeout(100)
            page.locator("#img2img_interrupt").wait_for(state="hidden")
            page.wait_for_timeout(500)
            assert told(page.locator("#html_info_img2img p").last.inner_text()) == expected(case)
