"""LoRAs and learned words in the real WebUI and in the engine: the same effect on states and noise predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host import Host
from safetensors.torch import save_file

from depth2img import Engine, Settings
from depth2img.diffusion.library import Library
from depth2img.diffusion.lora import with_loras
from depth2img.diffusion.text import Encoder, encode_text, read_passes
from depth2img.embedded import open_embedded
from depth2img.prompts.language import Lora, take_networks

TOLERANCE = 1e-4
"""Of predictions and states with a standard deviation of about 1: float32 by other code (ldm and OpenCLIP in torch 2.1,
diffusers and transformers in another torch). The LoRA changes them by a hundred times that."""

PREDICT = """
import networks
networks.list_available_networks()
from modules import extra_networks, sd_hijack
sd_hijack.model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
text, data = extra_networks.parse_prompt({prompt!r})
class P: pass
lora = extra_networks.extra_network_registry["lora"]
p = P(); p.all_prompts = [text]; p.extra_generation_params = {{}}
lora.activate(p, data["lora"])
try:
    with torch.no_grad():
        model = shared.sd_model
        states = model.cond_stage_model([text])
        latents = torch.tensor({latents!r})
        depth = torch.tensor({depth!r})
        cond = {{"c_crossattn": [states], "c_concat": [depth]}}
        noise = model.apply_model(latents, torch.tensor([500]), cond)
finally:
    networks.load_networks([])
hashes = p.extra_generation_params.get("Lora hashes", "")
ti = sd_hijack.model_hijack.extra_generation_params.get("TI hashes", "")
result = [states.tolist(), noise.tolist(), hashes, ti]
"""


@pytest.fixture(scope="module")
def engine(bundled_host: Host, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """With a random LoRA of every layer, and a learned word; the WebUI has both in its own folders.

    The WebUI turns the names of trainers into its own by a rule for two layers per level. The bundled model has one, so
    the WebUI gets a file with the names of its own modules, which it takes, too.
    """
    own, words = tmp_path_factory.mktemp("Lora"), bundled_host.data / "embeddings"
    (bundled_host.data / "models" / "Lora").mkdir(parents=True, exist_ok=True)
    words.mkdir(exist_ok=True)
    made = Engine.open("tiny", device="cpu", library=Library(own, words))
    state = random_lora(made)
    save_file(state, own / "clay.safetensors")
    theirs = hosts_names()
    renamed = {".".join([theirs.get(base, base), part]): state[f"{base}.{part}"] for base, part in map(split, state)}
    assert renamed.keys() != state.keys() and len(renamed) == len(state)
    save_file(renamed, bundled_host.data / "models" / "Lora" / "clay.safetensors")
    width = made.networks.text_encoder.config.hidden_size
    vectors = torch.randn(2, width, generator=torch.Generator().manual_seed(5))
    save_file({"emb_params": vectors}, words / "qzx.safetensors")
    return made


def split(key: str) -> tuple[str, str]:
    base, _, part = key.partition(".")
    return base, part


def hosts_names() -> dict[str, str]:
    """Module of the UNet as trainers name it -> as the WebUI names it."""
    names = {}
    for entry in open_embedded().key_map:
        if entry.component == "unet" and len(entry.names) == 1 and entry.ldm.endswith(".weight"):
            there = entry.ldm.removeprefix("model.diffusion_model.").removesuffix(".weight")
            here = entry.names[0].removesuffix(".weight")
            names["lora_unet_" + here.replace(".", "_")] = "lora_unet_" + there.replace(".", "_")
    return names


def random_lora(engine: Engine) -> dict[str, torch.Tensor]:
    """kohya's names; of linear layers and convolutions of the UNet, and of the text encoder."""
    generator = torch.Generator().manual_seed(4)
    state: dict[str, torch.Tensor] = {}
    for prefix, network in (("lora_unet_", engine.networks.unet), ("lora_te_", engine.networks.text_encoder)):
        for name, module in network.named_modules():
            weight = getattr(module, "weight", None)
            wanted = "attn" in name or "mlp" in name or "resnets" in name or "ff.net" in name
            if not wanted or not isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                continue
            base = prefix + ("" if name.startswith("text_model.") or prefix == "lora_unet_" else "text_model_")
            base += name.replace(".", "_")
            fan = float(weight[0].numel()) ** -0.5
            ends = tuple(1 for _ in weight.shape[2:])
            state[f"{base}.lora_up.weight"] = torch.randn((weight.shape[0], 4, *ends), generator=generator) * 0.5
            state[f"{base}.lora_down.weight"] = torch.randn((4, *weight.shape[1:]), generator=generator) * fan
            state[f"{base}.alpha"] = torch.tensor(2.0)
    return state


@torch.no_grad()
def ours(engine: Engine, prompt: str, latents: torch.Tensor, depth: torch.Tensor) -> tuple[Any, Any]:
    networks = engine.networks
    loras = engine.library.find(take_networks(prompt)[1])
    words = engine.library.words(networks.text_encoder.config.hidden_size)
    with with_loras(networks, loras):
        [tokens] = read_passes(Settings(prompt=prompt), words)
        text = encode_text(Encoder(networks, engine.library, loras), tokens).parts[0].values[:1]
        noise = networks.unet(torch.cat([latents, depth], 1), torch.tensor(500), encoder_hidden_states=text).sample
    return text.numpy(), noise.numpy()


@pytest.mark.parametrize(
    "prompt",
    [
        "a red cube",
        "a red cube<lora:clay:0.7>",
        "<lora:clay:-0.4:0.9> a cube",
        "a (qzx:1.3) cube<lora:clay:te=0:unet=1>",
    ],
)
def test_the_same_effect(bundled: Host, engine: Engine, prompt: str, record_property: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, 16, 24, generator=generator)
    depth = torch.rand(1, 1, 16, 24, generator=generator) * 2 - 1
    code = PREDICT.format(prompt=prompt, latents=latents.tolist(), depth=depth.tolist())
    states, noise, hashes, words = bundled.run(code)
    text, predicted = ours(engine, prompt, latents, depth)
    apart = [
        float(np.abs(np.array(one, np.float32) - other).max()) for one, other in ((states, text), (noise, predicted))
    ]
    record_property("largest differences of states and prediction", apart)
    assert max(apart) <= TOLERANCE
    if "lora" in prompt:
        _, plain = ours(engine, prompt.partition("<lora:clay")[0] or " a cube", latents, depth)
        assert np.abs(plain - predicted).max() > 100 * TOLERANCE
    theirs = Library(bundled.data / "models" / "Lora")
    assert theirs.hashes(theirs.find(take_networks(prompt)[1]), ()).get("Lora hashes", "") == hashes
    if "qzx" in prompt:
        [tokens] = read_passes(Settings(prompt=prompt), engine.library.words(text.shape[-1]))
        assert engine.library.hashes((), [tokens])["TI hashes"] == words


def test_a_lora_name_is_found_as_in_the_webui(engine: Engine) -> None:
    [found] = engine.library.find([Lora("clay")])
    assert found.path == Path(str(engine.library.lora_dir), "clay.safetensors")
