"""Named poses, each drawn anew with some play, and pairs that act together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from tools.embedded_model.figures import Build, Pose

Rng = np.random.Generator
Two = tuple[tuple[float, float], tuple[float, float]]


def _near(rng: Rng, *values: float, play: float = 8.0) -> tuple[float, float]:
    return float(values[0] + rng.normal(0, play)), float(values[1] + rng.normal(0, play))


def _sided(rng: Rng, one: tuple[float, float], two: tuple[float, float]) -> Two:
    return (one, two) if rng.random() < 0.5 else (two, one)


def standing(rng: Rng) -> Pose:
    """On both legs, arms down or one hand on the hip."""
    pose = Pose(
        upper_arms=(_near(rng, 0, 14), _near(rng, 0, 14)),
        forearms=(_near(rng, 15, 8), _near(rng, 15, 8)),
        thighs=(_near(rng, 0, 7, play=3), _near(rng, 0, 7, play=3)),
        shins=(_near(rng, -2, 4, play=2), _near(rng, -2, 4, play=2)),
        lean=_near(rng, 0, 0, play=3),
    )
    if rng.random() < 0.3:
        pose = replace(pose, upper_arms=((-10, 48), (-10, 48)), forearms=((20, -48), (20, -48)))
    return pose


def raising_arms(rng: Rng) -> Pose:
    """Both arms up."""
    out = float(rng.uniform(125, 165))
    return replace(
        standing(rng),
        upper_arms=(_near(rng, 0, out), _near(rng, 0, out)),
        forearms=(_near(rng, 0, out + 15), _near(rng, 0, out + 15)),
        thighs=(_near(rng, 0, 9, play=4), _near(rng, 0, 9, play=4)),
    )


def waving(rng: Rng) -> Pose:
    """One arm up, the other down."""
    pose = standing(rng)
    arms, forearms = list(pose.upper_arms), list(pose.forearms)
    side = int(rng.integers(2))
    arms[side], forearms[side] = _near(rng, 0, 108), _near(rng, 5, 165)
    return replace(pose, upper_arms=(arms[0], arms[1]), forearms=(forearms[0], forearms[1]))


def stretching(rng: Rng) -> Pose:
    """Arms straight out to both sides."""
    return replace(standing(rng), upper_arms=(_near(rng, 0, 88), _near(rng, 0, 88)),
                   forearms=(_near(rng, 0, 92), _near(rng, 0, 92)))  # fmt: skip


def walking(rng: Rng) -> Pose:
    """In the middle of a step."""
    step = float(rng.uniform(20, 34))
    left = rng.random() < 0.5
    thighs, shins = ((step, 2.0), (-step, 2.0)), ((step - 10, 2.0), (-step - 22, 2.0))
    arms, lower = ((-step, 9.0), (step, 9.0)), ((-step + 20, 6.0), (step + 30, 6.0))
    if not left:
        thighs, shins, arms, lower = thighs[::-1], shins[::-1], arms[::-1], lower[::-1]
    return Pose(arms, lower, thighs, shins, lean=(6, 0))


def running(rng: Rng) -> Pose:
    """Draw a running pose: a long stride, elbows bent."""
    step = float(rng.uniform(40, 58))
    thighs, shins = ((step, 2.0), (-step + 10, 2.0)), ((step - 45, 2.0), (-step - 45, 2.0))
    arms, lower = ((-50.0, 12.0), (40.0, 12.0)), ((35.0, 2.0), (125.0, 2.0))
    if rng.random() < 0.5:
        thighs, shins, arms, lower = thighs[::-1], shins[::-1], arms[::-1], lower[::-1]
    return Pose(arms, lower, thighs, shins, lean=(18, 0))


def sitting(rng: Rng) -> Pose:
    """Thighs level, shins down, hands on the lap."""
    return Pose(
        upper_arms=(_near(rng, 20, 10), _near(rng, 20, 10)),
        forearms=(_near(rng, 65, -8), _near(rng, 65, -8)),
        thighs=(_near(rng, 84, 10, play=5), _near(rng, 84, 10, play=5)),
        shins=(_near(rng, 2, 3, play=5), _near(rng, 2, 3, play=5)),
        lean=_near(rng, 0, 0, play=4),
    )


def kneeling(rng: Rng) -> Pose:
    """On both knees, or on one."""
    pose = replace(standing(rng), thighs=((5, 8), (5, 8)), shins=((-88, 3), (-88, 3)))
    if rng.random() < 0.5:
        thighs, shins = ((82.0, 6.0), (0.0, 8.0)), ((-5.0, 4.0), (-88.0, 4.0))
        pose = replace(pose, thighs=thighs, shins=shins) if rng.random() < 0.5 else replace(
            pose, thighs=thighs[::-1], shins=shins[::-1])  # fmt: skip
    return pose


def dancing(rng: Rng) -> Pose:
    """Draw a dancing pose: an arm up and one out, a leg lifted or the knees bent."""
    arms = _sided(rng, _near(rng, 0, 150, play=14), _near(rng, 0, 85, play=18))
    forearms: Two = tuple((_near(rng, 8, a[1] + rng.uniform(-5, 45))) for a in arms)  # type: ignore[assignment]
    kind = rng.random()
    if kind < 0.4:
        thighs, shins = (_near(rng, 0, 4), _near(rng, 10, 62, play=14)), ((0.0, 3.0), _near(rng, 0, 62, play=14))
    elif kind < 0.7:
        thighs, shins = ((0.0, 4.0), _near(rng, 60, 25)), ((0.0, 3.0), _near(rng, -35, 12))
    else:
        thighs, shins = (_near(rng, 22, 24), _near(rng, 0, 26)), (_near(rng, -22, 12), _near(rng, -30, 14))
    if rng.random() < 0.5:
        thighs, shins = thighs[::-1], shins[::-1]
    return Pose(arms, forearms, thighs, shins, lean=_near(rng, 0, 0, play=9))


def bowing(rng: Rng) -> Pose:
    """Bent forward from the hips."""
    return replace(
        standing(rng),
        lean=(float(rng.uniform(48, 75)), 0),
        nod=10,
        upper_arms=(_near(rng, 10, 8), _near(rng, 10, 8)),
        forearms=(_near(rng, 20, 4), _near(rng, 20, 4)),
    )


def lying(rng: Rng) -> Pose:
    """On the back, at length."""
    spread = float(rng.uniform(8, 50))
    return Pose(((0, spread), (0, spread)), ((5, spread), (5, spread)), lying=1.0 if rng.random() < 0.8 else -1.0,
                thighs=(_near(rng, 0, 8, play=3), _near(rng, 0, 8, play=3)))  # fmt: skip


def wrestling(rng: Rng) -> Pose:
    """Crouched forward, arms out for a hold."""
    arm, low = float(rng.uniform(70, 105)), float(rng.uniform(85, 115))
    front, back = (float(rng.uniform(30, 48)), 10.0), (float(rng.uniform(-28, -8)), 14.0)
    shins = ((-18.0, 6.0), (-42.0, 8.0))
    thighs = (front, back)
    if rng.random() < 0.5:
        thighs, shins = thighs[::-1], shins[::-1]
    return Pose(
        upper_arms=(_near(rng, arm, 18), _near(rng, arm, 18)),
        forearms=(_near(rng, low, -5), _near(rng, low - 20, -5)),
        thighs=thighs,
        shins=shins,
        lean=(float(rng.uniform(25, 48)), float(rng.normal(0, 5))),
        nod=-20,
    )


def holding(rng: Rng, side: int) -> Pose:
    """Dancing, with the arm on one side (0 right, 1 left) held out to a partner."""
    pose = dancing(rng)
    out, lower = _near(rng, 5, 78, play=6), _near(rng, 5, 88, play=6)
    arms, forearms = list(pose.upper_arms), list(pose.forearms)
    arms[side], forearms[side] = out, lower
    return replace(pose, upper_arms=(arms[0], arms[1]), forearms=(forearms[0], forearms[1]))


POSES: Final[dict[str, Callable[[Rng], Pose]]] = {
    "standing": standing,
    "raising": raising_arms,
    "waving": waving,
    "stretching": stretching,
    "walking": walking,
    "running": running,
    "sitting": sitting,
    "kneeling": kneeling,
    "dancing": dancing,
    "bowing": bowing,
    "lying": lying,
    "wrestling": wrestling,
}
POSE_NAMES: Final = tuple(POSES)


def sample_build(rng: Rng) -> Build:
    """Draw the build of a man or a woman; some women wear a skirt."""
    woman = rng.random() < 0.5
    height = float(rng.uniform(1.6, 1.8)) - (0.08 if woman else 0.0)
    return Build(
        height=height,
        shoulders=height * float(rng.uniform(0.098, 0.108) if woman else rng.uniform(0.112, 0.128)),
        hips=height * float(rng.uniform(0.054, 0.062) if woman else rng.uniform(0.048, 0.056)),
        girth=float(rng.uniform(1.0, 1.12) if woman else rng.uniform(1.05, 1.25)),
        long_hair=woman,
        skirt=float(rng.choice([0.13, 0.2, 0.28, 0.36])) if woman and rng.random() < 0.55 else 0.0,
    )
