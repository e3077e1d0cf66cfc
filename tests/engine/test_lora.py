"""LoRAs and learned words of the engine: names, files, effects, and that nothing of them is left."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from depth2img import CheckpointError, DepthOptions, Engine, OptionError, Settings
from depth2img.batch.items import Item
from depth2img.batch.plan import make_plan
from depth2img.diffusion.library import Library
from depth2img.diffusion.lora import with_loras
from depth2img.diffusion.networks import Networks, build
from depth2img.diffusion.text import MOST_TEXTS, Encoder, encode_text, read_passes
from depth2img.prompts.language import Lora
from tests.engine import small
from tests.engine.conftest import Run

LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "mid_block.resnets.0.conv1"
TEXT = "encoder.layers.1.self_attn.v_proj"
RANK = 2


@pytest.fixture(scope="module")
def networks() -> Networks:
    return build(small.model(midas=False), device=torch.device("cpu"), dtype=torch.float32)


def weight(networks: Networks, name: str) -> torch.Tensor:
    network = networks.text_encoder if name == TEXT else networks.unet
    for prefix in ("", "text_model."):
        found = dict(network.named_modules()).get(prefix + name)
        if found is not None:
            return found.weight
    raise KeyError(name)


def changes(networks: Networks, seed: int = 3) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Module -> up and down, in the shapes that trainers write."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name in (LINEAR, CONV, TEXT):
        shape = weight(networks, name).shape
        up = torch.randn((shape[0], RANK, *(1 for _ in shape[2:])), generator=generator)
        down = torch.randn((RANK, *shape[1:]), generator=generator)
        made[name] = up, down
    return made


def kohya(networks: Networks, alpha: float = 1.0) -> dict[str, torch.Tensor]:
    state = {}
    for name, (up, down) in changes(networks).items():
        base = ("lora_te_text_model_" if name == TEXT else "lora_unet_") + name.replace(".", "_")
        state |= {f"{base}.lora_up.weight": up, f"{base}.lora_down.weight": down}
        state[f"{base}.alpha"] = torch.tensor(alpha)
    return state


def peft(networks: Networks) -> dict[str, torch.Tensor]:
    state = {}
    for name, (up, down) in changes(networks).items():
        base = ("text_encoder.text_model." if name == TEXT else "unet.") + name
        state |= {f"{base}.lora_B.weight": up, f"{base}.lora_A.weight": down}
    return state


def diffusers(networks: Networks) -> dict[str, torch.Tensor]:
    state = {}
    for name, (up, down) in changes(networks).items():
        base = ("text_encoder.text_model." if name == TEXT else "unet.") + name
        ending = "lora_linear_layer" if name == TEXT else "lora"
        state |= {f"{base}.{ending}.up.weight": up, f"{base}.{ending}.down.weight": down}
    return state


@pytest.fixture
def library(tmp_path: Path, networks: Networks) -> Library:
    """Three LoRAs that are one but for their names inside, one in a folder of its own, and a learned word."""
    loras, words = tmp_path / "Lora", tmp_path / "embeddings"
    (loras / "styles").mkdir(parents=True)
    words.mkdir()
    save_file(kohya(networks), loras / "clay.safetensors", metadata={"ss_output_name": "clay-v1"})
    save_file(peft(networks), loras / "styles" / "peft.safetensors")
    torch.save(diffusers(networks), loras / "old.pt")
    save_file({"emb_params": torch.randn(3, 64)}, words / "my-word.safetensors")
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": torch.randn(2, 64)}}, words / "other.pt")
    save_file({"emb_params": torch.randn(3, 768)}, words / "for-another-model.safetensors")
    return Library(loras, words)


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)


def generate(networks: Networks, library: Library, prompt: str, **more: Any) -> Any:
    given = {"steps": 2, "denoising_strength": 1.0, **more}
    return Engine(networks, library=library).generate([picture()], Settings(prompt=prompt, **given))[0]


def state(networks: Networks) -> dict[str, torch.Tensor]:
    both = {**networks.unet.state_dict(), **networks.text_encoder.state_dict()}
    return {name: value.clone() for name, value in both.items()}


@pytest.mark.parametrize(("name", "scale"), [("clay", 1 / RANK), ("clay-v1", 1 / RANK), ("peft", 1.0), ("old", 1.0)])
def test_weights_change_by_the_product_and_come_back_to_the_bit(
    networks: Networks, library: Library, name: str, scale: float
) -> None:
    before, plain = state(networks), {one: weight(networks, one).clone() for one in (LINEAR, CONV, TEXT)}
    with with_loras(networks, library.find([Lora(name, text=0.5, unet=0.8)])):
        for module, (up, down) in changes(networks).items():
            product = (up.flatten(1) @ down.flatten(1)).reshape(plain[module].shape)
            expected = plain[module] + product * scale * (0.5 if module == TEXT else 0.8)
            # one float32 product of matrices, whose order of sums may differ
            assert torch.allclose(weight(networks, module), expected, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in state(networks).items())


def test_a_lora_changes_the_picture_of_its_job_alone(networks: Networks, library: Library) -> None:
    plain = generate(networks, library, "a cube").picture
    made = generate(networks, library, "a cube<lora:clay:0.1>").picture
    assert np.abs(made.astype(int) - plain.astype(int)).max() > 0
    assert np.array_equal(generate(networks, library, "a cube<lora:clay:0>").picture, plain)
    assert np.array_equal(generate(networks, library, "a cube").picture, plain)


def test_a_lora_of_the_text_encoder_alone(networks: Networks, library: Library) -> None:
    """States are cached for each LoRA."""
    plain, made, again = (
        generate(networks, library, f"a cube{lora}").picture
        for lora in ("", "<lora:clay:te=0.5:unet=0>", "<lora:clay:te=-0.5:unet=0>")
    )
    assert not np.array_equal(plain, made) and not np.array_equal(made, again)


def test_jobs_with_and_without_a_lora_in_one_run(networks: Networks, library: Library) -> None:
    engine, prompts = Engine(networks, library=library), ["a cube", "a cube<lora:clay:0.1>", "a cube<lora:peft:0.1>"]
    given = Settings(steps=2, denoising_strength=1.0)
    together = engine.generate([picture()] * 3, given, prompts=prompts)
    for made, prompt, seed in zip(together, prompts, (0, 1, 2), strict=True):
        alone = generate(networks, library, prompt, seed=seed).picture
        assert np.array_equal(made.picture, alone)


def test_weights_come_back_after_an_error(
    networks: Networks, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(networks)

    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    engine = Engine(networks, library=library)
    with pytest.raises(KeyboardInterrupt):
        engine.generate([picture()], Settings(prompt="<lora:clay:2>", steps=2), on_step=stop)
    assert all(torch.equal(value, before[name]) for name, value in state(networks).items())


def test_the_infotext_has_the_text_and_the_hashes(networks: Networks, library: Library) -> None:
    made = generate(networks, library, "a my-word cube <lora:clay:0.1><lora:old:0>", negative_prompt="other")
    lines = made.infotext.splitlines()
    assert lines[0] == "a my-word cube <lora:clay:0.1><lora:old:0>"
    assert library.lora_dir is not None and library.embeddings_dir is not None
    content = (library.lora_dir / "clay.safetensors").read_bytes()
    clay = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()[:12]
    old = hashlib.sha256((library.lora_dir / "old.pt").read_bytes()).hexdigest()[:12]
    assert f'Lora hashes: "clay: {clay}, old: {old}"' in lines[-1]
    word = hashlib.sha256((library.embeddings_dir / "my-word.safetensors").read_bytes()).hexdigest()[:12]
    assert f"my-word: {word}" in lines[-1] and "TI hashes" in lines[-1] and "other: " in lines[-1]


@torch.no_grad()
def test_learned_words_take_the_place_of_their_tokens(networks: Networks, library: Library) -> None:
    words = library.words(64)
    assert {word.name: word.count for word in words.values()} == {"my-word": 3, "other": 2}
    [tokens] = read_passes(Settings(prompt="a (my-word:1.0) cube"), words)
    seen: list[torch.Tensor] = []
    table = networks.text_encoder.get_input_embeddings()
    encoder = networks.text_encoder
    first = next(module for name, module in encoder.named_modules() if name.endswith("layers.0"))
    hook = first.register_forward_pre_hook(
        lambda _, given, named: seen.append((*given, *named.values())[0]), with_kwargs=True
    )
    encode_text(Encoder(networks, library), tokens)
    hook.remove()
    positions = next(m for name, m in encoder.named_modules() if name.endswith("position_embedding")).weight
    [word] = [word for word in words.values() if word.name == "my-word"]
    embedded = seen[0][0] - positions
    assert torch.allclose(embedded[2:5], library.vectors(word), atol=1e-5)  # a sum of two float32 and back
    assert torch.allclose(embedded[1], table.weight[320], atol=1e-5)
    assert not table._forward_hooks


@pytest.mark.parametrize("where", ["file", "folder"])
def test_a_name_that_is_not_there_lists_those_that_are(networks: Networks, library: Library, where: str) -> None:
    if where == "folder":
        with pytest.raises(OptionError, match=r"no folder of LoRAs.*--lora-dir"):
            generate(networks, Library(), "<lora:clay:1>")
    else:
        with pytest.raises(OptionError, match=r"no LoRA '\.\./clay' in .* There are clay, old, peft"):
            generate(networks, library, "<lora:../clay:1>")


def broken(kind: str, networks: Networks) -> dict[str, torch.Tensor]:
    state = kohya(networks)
    first = next(iter(state))
    if kind == "loha":
        return {"lora_unet_mid_block.hada_w1_a": torch.zeros(2, 2)}
    if kind == "half":
        del state[first]
    elif kind == "sd1":
        state[first] = torch.zeros(7, RANK)
    else:
        state["lora_unet_no_such_module.lora_up.weight"] = torch.zeros(2, 2)
    return state


@pytest.mark.parametrize("kind", ["loha", "half", "sd1", "unknown"])
def test_a_file_that_is_not_a_lora_for_this_model(
    networks: Networks, library: Library, tmp_path: Path, kind: str
) -> None:
    before = state(networks)
    save_file(broken(kind, networks), tmp_path / "Lora" / "bad.safetensors")
    with pytest.raises(CheckpointError, match=r"LoRA for this model|fit this model"):
        generate(networks, library, "<lora:bad:1>")
    assert all(torch.equal(value, before[name]) for name, value in state(networks).items())


def test_a_file_that_wants_to_run_code(networks: Networks, library: Library, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return exec, ("raise SystemExit",)

    torch.save({"x": Evil()}, tmp_path / "Lora" / "evil.pt")
    torch.save({"string_to_param": Evil()}, tmp_path / "embeddings" / "evil.pt")
    with pytest.raises(CheckpointError, match="wants to run code"):
        generate(networks, Library(library.lora_dir), "<lora:evil:1>")
    with pytest.raises(CheckpointError, match="wants to run code"):
        generate(networks, library, "a cube")


def test_nothing_grows(networks: Networks, library: Library) -> None:
    engine = Engine(networks, library=library)
    for strength in range(5):
        engine.generate([picture()], Settings(prompt=f"<lora:clay:0.{strength}>a my-word", steps=1))
    assert len(networks.texts) <= MOST_TEXTS
    assert len(library._opened) == 3  # one for each learned word's file


def test_the_webuis_folders(tmp_path: Path, library: Library) -> None:
    (tmp_path / "models" / "Lora").mkdir(parents=True)
    found = Library.of_webui(tmp_path)
    assert found == Library(tmp_path / "models" / "Lora", tmp_path / "embeddings")
    assert Library.of_webui(tmp_path / "nowhere") == Library()
    with pytest.raises(OptionError, match="no folder"):
        Library(tmp_path / "nowhere")


def test_the_command_line_finds_them(run: Run, networks: Networks, library: Library, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "room.png")
    given = ("generate", "room.png", "-o", "made.png", "--steps", 1, "-p", "<lora:x:1>", "--lora-dir", "Lora")
    made = run(*given)
    assert made.code == 2 and "There are clay, old, peft" in made.err
    made = run("generate", "room.png", "-o", "made.png", "-p", "a", "--embeddings-dir", "nowhere")
    assert made.code == 2 and "no folder nowhere" in made.err


def test_a_batch_makes_an_item_again_when_its_lora_has_changed(library: Library, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "room.png")

    def key(prompt: str) -> str:
        item = Item("room", tmp_path / "room.png", Settings(prompt=prompt), DepthOptions(), None, "here")
        plan = make_plan(
            [item], tmp_path / "out", suffix=".png", batch_size=1, model="tiny", dtype="auto", library=library
        )
        return plan.groups[0][0].key if plan.groups else plan.failed["room"]["error"]

    clay, word, plain = key("<lora:clay:1>"), key("a my-word"), key("a cube")
    assert "There are clay" in key("<lora:nowhere:1>")
    save_file({"emb_params": torch.zeros(3, 64)}, tmp_path / "embeddings" / "my-word.safetensors")
    with (tmp_path / "Lora" / "clay.safetensors").open("ab") as file:
        file.write(b" ")
    assert key("<lora:clay:1>") != clay and key("a my-word") != word and key("a cube") == plain
