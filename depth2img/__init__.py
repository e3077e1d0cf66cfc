"""Stable Diffusion 2 depth-to-image: depth maps and conditioning, with or without the WebUI.

picture -> depth map -> adjusted map -> conditioning -> sampler
"""

from __future__ import annotations

from .depth.adjustments import adjust as adjust
from .depth.conditioning import conditioning as conditioning
from .depth.conditioning import neutral as neutral
from .depth.depth_map import DepthMap as DepthMap
from .depth.reading import read_depth_map as read_depth_map
from .errors import CheckpointError as CheckpointError
from .errors import Depth2ImgError as Depth2ImgError
from .errors import DepthMapError as DepthMapError
from .errors import EstimatorError as EstimatorError
from .errors import NoDepthError as NoDepthError
from .errors import NoDepthModelError as NoDepthModelError
from .errors import OptionError as OptionError
from .errors import PictureError as PictureError
from .estimators.base import Estimator as Estimator
from .estimators.base import register_estimator as register_estimator
from .estimators.cache import DepthCache as DepthCache
from .estimators.midas import MidasEstimator as MidasEstimator
from .io.images import read_picture as read_picture
from .options import OPTIONS as OPTIONS
from .options import DepthOptions as DepthOptions

__version__ = "0.1.0"
