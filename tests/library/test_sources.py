"""Which payloads of a job are decoded, by what, and which are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from depth2img import DepthMapError, DepthOptions, PictureError, read_picture
from depth2img.depth.masks import read_region
from depth2img.depth.reading import MapReader
from depth2img.depth.sources import Sources, read_sources
from tests.refusing import refused

MAP = np.arange(12, dtype=np.float32).reshape(3, 4)
PICTURE = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
REGION = np.full((3, 4), 51, np.uint8)

Read = list[tuple[Callable[[Any], Any], Any]]


def read(**options: Any) -> tuple[Sources, Read]:
    """The sources, and which reader got what."""
    seen: Read = []

    def once(reader: Callable[[Any], Any], payload: Any) -> Any:
        seen.append((reader, payload))
        return reader(payload)

    given = DepthOptions(**options)
    found = read_sources(given, once)
    plain = read_sources(given)
    for one, other in ((found.own, plain.own), (found.region, plain.region)):
        assert (one is None) == (other is None)
        assert one is None or other is None or np.array_equal(one.values, other.values)
    assert np.array_equal(found.reference, plain.reference)  # type: ignore[arg-type]
    return found, seen


def test_nothing_is_read_that_nobody_uses() -> None:
    payloads = {"depth_map": MAP, "reference": PICTURE}
    found, seen = read(**payloads)
    assert (found.own, found.reference, found.region) == (None, None, None) and seen == []
    everything = {"source": "map", "under_mask": "map", "region": REGION, **payloads}
    found, seen = read(enabled=False, **everything)
    assert (found.own, found.reference, found.region) == (None, None, None) and seen == []


@pytest.mark.parametrize("options", [{"source": "map"}, {"under_mask": "map"}, {"source": "map", "under_mask": "map"}])
def test_an_own_map_is_read_where_it_counts(options: dict[str, str]) -> None:
    found, seen = read(depth_map=MAP, reference=PICTURE, **options)
    assert found.own is not None and np.array_equal(found.own.values, MAP)
    assert found.reference is None and found.region is None
    [(reader, payload)] = seen
    assert reader == MapReader() and payload is MAP


def test_an_own_map_is_read_as_the_options_say() -> None:
    """Equal options make equal readers, so that jobs that share a map read it once."""
    found, [(reader, _)] = read(depth_map=1 + MAP, source="map", holds="distance")
    assert found.own is not None and np.allclose(found.own.values, 1 / (1 + MAP))
    assert reader == MapReader("distance") and hash(reader) == hash(MapReader("distance")) and reader != MapReader()
    with refused(DepthMapError, got="one channel without a name"):
        read(depth_map=MAP, source="map", map_channel="Z")


def test_a_reference_and_a_region() -> None:
    found, [(first, one), (second, other)] = read(source="reference", reference=PICTURE, region=REGION)
    assert (first, second) == (read_picture, read_region) and one is PICTURE and other is REGION
    assert np.array_equal(found.reference, PICTURE) and found.own is None  # type: ignore[arg-type]
    assert found.region is not None and found.region.values == pytest.approx(np.full((3, 4), 0.2))


@pytest.mark.parametrize("options", [{"source": "map"}, {"under_mask": "map"}])
def test_an_own_map_that_was_not_given(options: dict[str, str]) -> None:
    with refused(DepthMapError):
        read(reference=PICTURE, **options)


def test_a_reference_that_was_not_given() -> None:
    with refused(PictureError):
        read(source="reference", depth_map=MAP)
