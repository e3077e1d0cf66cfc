"""The renderer of the embedded model's training: exact depth, looks apart from geometry, captions, judges."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import torch

from depth2img import DepthMap
from depth2img.checkpoints.layout.tokenizer import token_ids
from depth2img.depth.scores import structure
from tools.embedded_model import captions, looks, palette, render, scenes, shade, tokens
from tools.embedded_model.dataset import joint_array, render_looks, render_set, visible_joints
from tools.embedded_model.evaluate import centred_correlation
from tools.embedded_model.judges import found_joints, heat_maps
from tools.embedded_model.plan import Plan
from tools.embedded_model.primitives import INTERSECT, KINDS, normals

CPU = torch.device("cpu")
SIDE = 64
Array = npt.NDArray[np.float64]

SIZES = {
    "ellipsoid": (0.5, 0.8, 0.3),
    "box": (0.5, 0.8, 0.3),
    "rounded": (0.4, 0.2, 1.1),
    "frustum": (0.6, 0.25, 1.0),
    "pyramid": (0.7, 0.7, 1.2),
}


def inside(kind: str, size: tuple[float, float, float], p: Array) -> npt.NDArray[np.bool_]:
    """Tell whether points (..., 3) are in a primitive, by its definition alone."""
    a, b, c = size
    x, y, z = np.moveaxis(p, -1, 0)
    if kind == "ellipsoid":
        return (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 < 1
    if kind == "box":
        return (np.abs(x) < a) & (np.abs(y) < b) & (np.abs(z) < c)
    if kind == "rounded":  # a ball that rolls along the axis while its radius changes
        along = np.linspace(0, 1, 400)
        centres, radii = along * c, a + (b - a) * along
        return ((x[..., None] ** 2 + z[..., None] ** 2 + (y[..., None] - centres) ** 2) < radii**2).any(axis=-1)
    level = (y > 0) & (y < c)
    if kind == "frustum":
        return level & (np.hypot(x, z) < a + (b - a) * y / c)
    return level & (np.maximum(np.abs(x), np.abs(z)) < a * (1 - y / c))


@pytest.mark.parametrize("kind", KINDS)
def test_rays_meet_a_primitive_where_a_march_enters_it(kind: str) -> None:
    rng = np.random.default_rng(KINDS.index(kind))
    size = SIZES[kind]
    start = np.array([0.4, 1.9, -2.6])
    aim = rng.uniform(-0.8, 0.8, (300, 3)) + np.array([0, 0.4, 0])
    toward = aim - start
    ts = np.linspace(0, 1.6, 4001)
    entered = inside(kind, size, start + ts[None, :, None] * toward[:, None])
    marched = np.where(entered.any(axis=1), ts[entered.argmax(axis=1)], np.inf)

    def axes(values: Array) -> tuple[torch.Tensor, ...]:
        return tuple(torch.tensor(values[..., axis], dtype=torch.float32) for axis in range(3))

    found = INTERSECT[kind](axes(start[None, None]), axes(toward[None]), axes(np.array(size)[None, None]))[0].numpy()
    both = np.isfinite(found) & np.isfinite(marched)
    assert both.sum() > 60
    # A step of the march; rays that graze differ in whether they hit.
    assert np.abs(found[both] - marched[both]).max() < 2.5e-3
    assert (np.isfinite(found) != np.isfinite(marched)).mean() < 0.02
    points = start + found[both, None] * toward[both]
    outward = normals(
        torch.full((int(both.sum()),), KINDS.index(kind)),
        torch.tensor(points, dtype=torch.float32),
        torch.tensor(size).expand(int(both.sum()), 3),
    ).numpy()
    # Just outside along the normal is outside, just inside is inside, but for points at an edge.
    assert inside(kind, size, points - 0.02 * outward).mean() > 0.93
    assert (~inside(kind, size, points + 0.02 * outward)).mean() > 0.97


def alone(*primitives: scenes.Primitive, height: float = 1.3, pitch: float = 0.2) -> scenes.Scene:
    return scenes.Scene(
        height, pitch, 0.55, np.array([0.3, 0.8, -0.52]), "plain", (), "", primitives,
        (scenes.Plane(np.array([0, 1.0, 0]), 0.0, scenes.SLOT["floor"]),), (), np.zeros((0, 14, 3)),
    )  # fmt: skip


def rays(scene: scenes.Scene, pixels: int) -> Array:
    """Rays in the world whose parameter is depth along the camera's axis, written out once more."""
    steps = ((np.arange(pixels) + 0.5) / pixels * 2 - 1) * scene.tan_half_view
    right, up = np.meshgrid(steps, -steps)
    c, s = np.cos(scene.pitch), np.sin(scene.pitch)
    return np.stack([right, up * c - s, up * s + c], axis=-1)


def test_depth_is_that_of_the_floor_and_of_a_turned_ball_in_front_of_it() -> None:
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    ball = scenes.Primitive("ellipsoid", (0.7, 0.7, 0.7), np.array([0.3, 0.7, 3.0]), turn, 8, 1)
    scene = alone(ball)
    found = render.trace(render.pack([scene, alone()], CPU), SIDE)
    toward = rays(scene, SIDE * render.OVERSAMPLING)
    eye = np.array([0, scene.height, 0])
    floor = np.where(toward[..., 1] < 0, -toward[..., 1] / scene.height, 0.0)
    away = eye - ball.centre
    a, b, c = (toward**2).sum(-1), toward @ away, away @ away - 0.49
    with np.errstate(invalid="ignore"):
        t = (-b - np.sqrt(b * b - a * c)) / a
    expected = np.where(np.isfinite(t), 1 / t, floor)
    # float32, and a pixel at the silhouette may fall on either side
    wrong = np.abs(found.inverse_depth[0].numpy() - expected) > 1e-4
    assert wrong.mean() < 1e-3
    assert np.abs(found.inverse_depth[1].numpy() - floor).max() < 1e-5
    assert ((found.item[0] == 1).numpy() == np.isfinite(t)).mean() > 0.999
    assert set(found.slot[1].unique().tolist()) == {scenes.SLOT["sky"], scenes.SLOT["floor"]}


def figure_scene(seed: int) -> scenes.Scene:
    """A scene with a figure in it, and what is beside it."""
    while True:
        scene = scenes.sample_scene(np.random.default_rng(seed))
        if any(item.kind == "figure" for item in scene.items):
            return scene
        seed += 1000


def test_styles_and_lights_change_the_picture_and_not_the_depth() -> None:
    scene = figure_scene(11)
    plain = looks.sample_look(np.random.default_rng(1), scene, light="day", style="plain")
    others = [dataclasses.replace(plain, style=style) for style in looks.STYLES[1:]]
    others += [dataclasses.replace(plain, light=light) for light in palette.LIGHT_NAMES[1:]]
    made = render_looks([scene] * (1 + len(others)), [plain, *others], SIDE, CPU, seed=2)
    pictures = made["pictures"].float()
    for n in range(len(pictures)):
        assert torch.equal(made["inverse_depth"][n], made["inverse_depth"][0])
        for m in range(n):
            assert float((pictures[n] - pictures[m]).abs().mean()) > 4, (n, m)


def test_a_mirrored_look_is_the_picture_turned_and_the_caption_from_the_other_end() -> None:
    scene = next(s for s in map(figure_scene, range(20, 60)) if len(s.items) == 2 and not s.together)
    look = looks.sample_look(np.random.default_rng(1), scene, style="plain")
    buffers = render.trace(render.pack([scene], CPU), SIDE)
    both = shade.stack_looks([scene], [[look, look]], [[False, True]], CPU)
    one, two = shade.shade(buffers, both, torch.Generator().manual_seed(0))
    assert torch.equal(one.flip(1), two)
    turned = captions.plain_caption(*looks.mirrored(scene, look))
    parts = captions.plain_caption(scene, look).split(" and ")
    assert turned != captions.plain_caption(scene, look)
    assert sorted(turned.replace(" and ", " ").split()) == sorted(" ".join(parts).split())


def test_figures_fill_the_frame_and_joints_lie_on_them() -> None:
    sampled = [figure_scene(n) for n in range(300, 324)]
    plain = [looks.sample_look(np.random.default_rng(n), scene) for n, scene in enumerate(sampled)]
    made = render_looks(sampled, plain, 128, CPU, seed=0)
    joints, seen = made["joints"], visible_joints(made["joints"], made["inverse_depth"].float())
    assert int(seen.sum()) > 200
    tall = []
    for n, items in enumerate(made["items"]):
        rows = (items > 0).any(dim=1).nonzero()[:, 0]
        columns = (items > 0).any(dim=0).nonzero()[:, 0]
        tall.append(max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) / 128)
        for x, y, _ in joints[n][seen[n]]:
            around = items[max(0, int(y * 128) - 1) : int(y * 128) + 2, max(0, int(x * 128) - 1) : int(x * 128) + 2]
            assert bool((around > 0).any())
    assert np.mean(tall) > 0.7


def test_captions_hold_only_words_with_a_row_of_their_own() -> None:
    known = set(captions.vocabulary()) | set(captions.STRANGE_WORDS)
    texts = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        scene = scenes.sample_scene(rng)
        look = looks.sample_look(rng, scene)
        texts += [captions.plain_caption(scene, look), *(captions.caption(rng, scene, look) for _ in range(4))]
    used = {word for text in texts for word in text.replace(",", " , ").split()}
    assert used <= known
    # Nearly every word of the vocabulary is used; the rarest need more scenes than these.
    assert len(set(captions.vocabulary()) - used) < 12
    assert {"a", "red", "cube", "on", "blue", "floor", ",", "night"} <= known
    ids = tokens.encode(texts)
    assert torch.equal(ids, token_ids(texts))
    assert int((ids != 0).sum(dim=1).max()) < 77
    rows = torch.from_numpy(tokens.row_of_id())[ids]
    strange = torch.tensor([[any(w in text for w in captions.STRANGE_WORDS)] for text in texts])
    assert not bool(((rows == len(tokens.trained_ids())) & ~strange).any())


def test_colours_are_read_back_from_the_picture() -> None:
    sampled = [figure_scene(n) for n in range(40, 48)]
    plain = [looks.sample_look(np.random.default_rng(n), s, style="plain") for n, s in enumerate(sampled)]
    made = render_looks(sampled, plain, 128, CPU, seed=0)
    lights = palette.light_table(CPU)[made["light"]]
    shown = palette.nearest_colour(made["pictures"].permute(0, 3, 1, 2) / 255, lights, made["inverse_depth"].float())
    slots = made["slots"].long()
    asked = made["name"].long().gather(1, slots.flatten(1)).view_as(slots)
    # Highlights, windows' light and pixels at an edge show something else.
    assert float((shown == asked)[asked >= 0].float().mean()) > 0.93


def test_a_rendered_set_is_the_same_twice_and_hides_nothing() -> None:
    plan = Plan(looks=2, captions=2, side=32)
    one = render_set(range(12), plan, CPU, workers=1, seconds=60)
    two = render_set(range(12), plan, CPU, workers=2, seconds=60)
    for key, value in vars(one).items():
        assert torch.equal(value, getattr(two, key)), key
    assert 6 <= len(one.pictures) <= 12
    assert one.mirrored[0].tolist() == [False, True]
    relative = one.relative_depth(slice(0, 3))
    assert float(relative.amax()) == pytest.approx(1.0)


def test_joints_are_found_where_they_are_and_not_elsewhere() -> None:
    scene = next(s for s in map(figure_scene, range(70, 120)) if len(s.joints) == 2)
    joints = torch.from_numpy(joint_array([scene]))
    seen = (joints[..., 2] > 0) & (joints[..., :2] > 0).all(-1) & (joints[..., :2] < 1).all(-1)
    heat = torch.logit(heat_maps(joints, seen)[0].clamp(1e-4, 1 - 1e-4))
    found, total = found_joints(heat, joints[0], seen[0])
    assert total == int(seen.sum()) > 20
    assert found / total > 0.9  # where two limbs cross, one spot may hide the other
    moved = joints.clone()
    moved[..., 0] += 0.25 * float(joints[0, 0, :, 1].max() - joints[0, 0, :, 1].min())
    elsewhere, _ = found_joints(heat, moved[0], seen[0])
    assert elsewhere / total < 0.5


def test_structure_is_the_library_s() -> None:
    rng = np.random.default_rng(0)
    one, two, mean = (rng.random((3, 20, 28)).astype(np.float32) for _ in range(3))
    ours = centred_correlation(torch.tensor(one), torch.tensor(two), torch.tensor(mean[0]))
    theirs = [structure(DepthMap(a), DepthMap(b), DepthMap(mean[0])) for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)
