"""Depth checkpoints: what they are and what is wrong with them; getting, setting up, converting and merging them."""

from __future__ import annotations

from .anatomy import Anatomy as Anatomy
from .convert import Ledger as Ledger
from .convert import convert as convert
from .convert import convert_model as convert_model
from .convert import to_folder as to_folder
from .convert import to_single_file as to_single_file
from .description import open_clip_config as open_clip_config
from .inspection import inspect as inspect
from .merge import Merged as Merged
from .merge import merge as merge
from .model import Model as Model
from .model import open_midas as open_midas
from .model import open_model as open_model
from .report import Fault as Fault
from .report import Report as Report
from .setup import Plan as Plan
from .setup import carry_out as carry_out
from .setup import plan_setup as plan_setup
from .setup import webui_folders as webui_folders
