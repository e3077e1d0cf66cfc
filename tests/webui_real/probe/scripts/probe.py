"""An extension for the tests alone: looks at the real host from inside. Never installed anywhere else."""

import sys
import types
from typing import Any

import torch
from modules import call_queue, processing, script_callbacks, scripts, sd_models, shared


class Probe:
    """Values that tests read and switches that they set.

    Attributes:
        steps: per step: [shape, values] of the conditioning that the UNet gets, and `rows` of the latent.
        calls: how often the depth network and the VAE encoder ran.
        seeded: whether the VAE's unseeded draw is seeded for each job.
        seen: pictures' (minimum, maximum) as the depth network got them.
        on_step: called with each step's parameters, before anything else.
        quiet: whether the values of the conditioning are left out of `steps`, which would grow with every job.
    """

    def __init__(self) -> None:
        self.seeded = False
        self.quiet = False
        self.on_step: Any = None
        self.clear()

    def clear(self) -> None:
        self.steps: list[Any] = []
        self.calls = {"depth": 0, "depth_rows": 0, "vae": 0}
        self.seen: list[Any] = []

    def native(self, on: bool) -> None:
        """True: the extension stays away from all jobs, so that the host's own code runs."""
        modules = [sys.modules.get(f"depth2img_webui.{name}") for name in ("script", "hosts.a1111", "jobs.hook")]
        if None in modules:
            return
        script, *others = modules
        if not hasattr(self, "originals"):
            self.originals = script.compat, script.DepthToImage.process
        compat, process = self.originals
        for module in others:
            module.compat = types.SimpleNamespace(depth_network=lambda model: None) if on else compat
        script.DepthToImage.process = (lambda *args: None) if on else process

    def settled(self) -> bool:
        """Tell whether a checkpoint is loaded, after loading has ended (reading the attribute waits for it).

        Forge loads one at the first job; here, at once.
        """
        reload = getattr(sd_models, "forge_model_reload", None)
        if reload is not None:
            reload()
        return shared.sd_model is not None

    def watch(self) -> None:
        """Count the runs of the loaded checkpoint's depth network and VAE encoder."""
        model = shared.sd_model
        hosts = sys.modules.get("depth2img_webui.hosts")
        estimates = hosts is not None and hosts.HOST is not None and hosts.HOST.is_depth(model)
        network = hosts.HOST.own_estimator(model).network if estimates else None
        if network is not None and "forward" not in network.__dict__:
            inner = network.forward

            def forward(x: torch.Tensor) -> torch.Tensor:
                self.calls["depth"] += 1
                self.calls["depth_rows"] += x.shape[0]
                self.seen.append([float(x.min()), float(x.max()), list(x.shape)])
                return inner(x)

            network.forward = forward
        vae = model.forge_objects.vae if hasattr(model, "forge_objects") else model.first_stage_model
        if "encode" not in vae.__dict__:
            encode = vae.encode

            def counted(x: torch.Tensor) -> Any:
                self.calls["vae"] += x.shape[0]
                return encode(x)

            vae.encode = counted


probe = sys.modules.setdefault("depth2img_test_probe", types.SimpleNamespace(probe=Probe())).probe


class ProbeScript(scripts.Script):
    def title(self) -> str:
        return "Probe"

    def show(self, is_img2img: bool) -> object:
        return scripts.AlwaysVisible

    def process(self, p: Any, *args: Any) -> None:
        if probe.seeded:
            torch.manual_seed(1234)


def on_cfg_denoiser(params: Any) -> None:
    if probe.on_step is not None:
        probe.on_step(params)
    if not RELATIVE:
        record(params.image_cond, params.x)


def record(cond: torch.Tensor, x: torch.Tensor) -> None:
    """Keep the conditioning of a step, (rows, 1, h, w), and the latent's shape."""
    if probe.quiet:
        return
    cond = cond.detach().float().cpu()
    probe.steps.append([list(cond.shape), cond.flatten().tolist() if cond.numel() < 40000 else [], list(x.shape)])


def watch_network(kind: Any) -> None:
    """Record what a relative's UNet gets, since its callbacks come before the two halves have theirs."""
    inner = kind.apply_model

    def apply_model(self: Any, x: torch.Tensor, t: Any, c_concat: Any = None, *args: Any, **kwargs: Any) -> Any:
        if c_concat is not None:
            kinds = kwargs["transformer_options"]["cond_or_uncond"]  # one for each part of the batch; 1: unconditional
            parts = list(zip(kinds, c_concat.chunk(len(kinds)), strict=True))
            with_prompt = [part for kind, part in parts if kind == 0]  # one for each part joined by AND, all pictures
            rows = torch.stack(with_prompt, 1).flatten(0, 1)  # in AUTOMATIC1111's order: picture by picture
            record(torch.cat([rows, *(part for kind, part in parts if kind == 1)]), x)
        return inner(self, x, t, c_concat, *args, **kwargs)

    kind.apply_model = apply_model


try:
    from backend.modules.k_model import KModel as Network
except ImportError:
    try:
        from ldm_patched.modules.model_base import BaseModel as Network
    except ImportError:
        Network = None
RELATIVE = Network is not None
if RELATIVE and not hasattr(Network, "depth2img_watched"):
    Network.depth2img_watched = True
    watch_network(Network)


def on_app_started(demo: Any, app: Any) -> None:
    def run(body: dict) -> dict:
        names = {
            "probe": probe,
            "shared": shared,
            "torch": torch,
            "sys": sys,
            "processing": processing,
            "sd_models": sd_models,
        }
        with call_queue.queue_lock:
            exec(body["code"], names)
        return {"result": names.get("result")}

    app.add_api_route("/probe/run", run, methods=["POST"])


script_callbacks.on_cfg_denoiser(on_cfg_denoiser)
script_callbacks.on_app_started(on_app_started)
