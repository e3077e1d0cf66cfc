"""The standalone engine: depth-to-image and depth inpainting on diffusers."""

from __future__ import annotations

from .engine import Engine as Engine
from .engine import Generated as Generated
from .loader import find as find
from .loader import load as load
from .loader import load_estimator as load_estimator
from .settings import Settings as Settings
