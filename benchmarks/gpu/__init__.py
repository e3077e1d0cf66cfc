"""Check a graphics card in a few minutes: correctness, speed, memory, and a comparison with diffusers.

What libraries read when they are loaded is set here: without JAX, which they would load where it is installed, and
without chatter.
"""

import os
import time

BEGUN = time.monotonic()
"""When the process began, nearly."""

os.environ.update(USE_FLAX="0", USE_TF="0", TRANSFORMERS_VERBOSITY="error", DIFFUSERS_VERBOSITY="error")
