"""An extension for the tests alone: Forge and reForge may load the small random checkpoints, whose sizes they lack."""

from pathlib import Path

from modules import shared
from modules.paths_internal import data_path

from depth2img.checkpoints.model import open_single_file
from depth2img_webui import hosts

for file in sorted(Path(shared.cmd_opts.ckpt_dir).glob("small-depth.safetensors")):
    hosts.host().register_sizes(open_single_file(file).config, Path(data_path, "small-sizes"))
