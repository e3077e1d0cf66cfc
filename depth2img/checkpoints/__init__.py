"""Depth checkpoints: inspect, get, set up, convert and merge them."""

from __future__ import annotations

from .conversion import Ledger as Ledger
from .conversion import convert as convert
from .conversion import convert_model as convert_model
from .conversion import to_folder as to_folder
from .conversion import to_single_file as to_single_file
from .inspection.inspect import inspect as inspect
from .inspection.report import Fault as Fault
from .inspection.report import Report as Report
from .layout.config import ModelConfig as ModelConfig
from .layout.ldm_yaml import open_clip_config as open_clip_config
from .merging import Merged as Merged
from .merging import merge as merge
from .model import Model as Model
from .model import open_midas as open_midas
from .model import open_model as open_model
from .setup import SetupPlan as SetupPlan
from .setup import carry_out as carry_out
from .setup import plan_setup as plan_setup
from .setup import webui_folders as webui_folders
from .storage.opening import CheckpointFile as CheckpointFile
from .storage.opening import open_checkpoint as open_checkpoint
