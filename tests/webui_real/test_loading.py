"""Loading depth checkpoints in the real WebUI: with and without YAML, MiDaS weights, MiDaS file and network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from host import Host, Refused, running
from PIL import Image


def conditioned(host: Host) -> bool:
    """Tell whether the UNet got a depth map in the latest job."""
    shape, values, _ = host.conditionings()[-1]
    return shape[1:] == [1, 16, 24] and min(values) == -1 and max(values) == 1


def status(host: Host) -> tuple[str, str]:
    """State and sentence that the panel shows."""
    state, sentence = host.run("result = sys.modules['depth2img_webui.page.status'].status()")
    return state, sentence


def test_the_host_alone_cannot_load_offline(models: Path, tmp_path: Path, astronaut: Image.Image) -> None:
    """The defect that the patch cures: no network, no MiDaS file, although the checkpoint holds the weights."""
    with running(tmp_path, checkpoints=models, checkpoint="small-depth.safetensors", extension=None) as host:
        with pytest.raises(Refused):
            host.img2img(astronaut)
        assert "Stable diffusion model failed to load" in host.log.read_text(errors="replace")


@pytest.fixture(scope="module")
def loading(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("loading")
    checkpoints = folder / "checkpoints"
    shutil.copytree(models, checkpoints, copy_function=lambda a, b: Path(b).symlink_to(a))
    with running(folder / "data", checkpoints=checkpoints, checkpoint="small-depth.safetensors") as host:
        host.checkpoints = checkpoints
        yield host


def test_loads_without_network_and_without_a_midas_file(loading: Host, astronaut: Image.Image) -> None:
    loading.run("probe.clear()")
    loading.img2img(astronaut)
    assert conditioned(loading)
    assert not list((loading.data / "models" / "midas").iterdir())
    assert "Downloading midas" not in loading.log.read_text(errors="replace")


def test_loads_from_a_pickled_checkpoint(loading: Host, astronaut: Image.Image) -> None:
    target = loading.checkpoints / "pickled.ckpt"
    source = loading.checkpoints / "small-depth.safetensors"
    loading.run(
        "from safetensors.torch import load_file\n"
        f"torch.save({{'state_dict': load_file({str(source)!r})}}, {str(target)!r})"
    )
    refused = loading.run(
        "import zipfile; from modules import safe\n"
        f"names = zipfile.ZipFile({str(target)!r}).namelist()\n"
        "result = [name for name in names if not safe.allowed_zip_names_re.match(name)]"
    )
    if refused:
        pytest.skip(f"this WebUI refuses every pickled file that its torch writes (modules/safe.py): {refused}")
    shutil.copy(loading.checkpoints / "small-depth.yaml", target.with_suffix(".yaml"))
    loading.post("/sdapi/v1/refresh-checkpoints")
    loading.use("pickled")
    loading.run("probe.clear()")
    assert loading.img2img(astronaut).info["sd_model_name"] == "pickled"
    assert conditioned(loading)


def test_a_file_is_loaded_as_what_it_is(loading: Host, astronaut: Image.Image) -> None:
    """A safetensors file named `.ckpt` and a pickle named `.safetensors`; the host alone goes by the name."""
    source = loading.checkpoints / "small-depth.safetensors"
    shutil.copy(source, loading.checkpoints / "odd.ckpt")
    odd = loading.checkpoints / "odd2.safetensors"
    loading.run(f"from safetensors.torch import load_file\ntorch.save(load_file({str(source)!r}), {str(odd)!r})")
    for name in ("odd", "odd2"):
        shutil.copy(source.with_suffix(".yaml"), loading.checkpoints / f"{name}.yaml")
    loading.post("/sdapi/v1/refresh-checkpoints")
    for name in ("odd", "odd2"):
        loading.use(name)
        loading.run("probe.clear()")
        assert loading.img2img(astronaut).info["sd_model_name"] == name
        assert conditioned(loading)
    assert loading.log.read_text(errors="replace").count("its name says another kind") == 2


def test_weights_are_the_checkpoints_own(loading: Host) -> None:
    """The host's meta-device loading leaves zeros where a weight is missing: every tensor must match the file."""
    loading.use("small-depth")
    path = loading.checkpoints / "small-depth.safetensors"
    code = (
        "from safetensors.torch import load_file\n"
        f"sd = load_file({str(path)!r}); own = shared.sd_model.depth_model.state_dict()\n"
        "result = [len(own), all(torch.equal(v.float(), sd['depth_model.' + k].float()) for k, v in own.items())]"
    )
    count, equal = loading.run(code)
    assert count > 300 and equal


def test_missing_midas_weights_are_named(loading: Host, astronaut: Image.Image) -> None:
    """The host prints the sentence and goes back to the checkpoint before; the panel shows the sentence."""
    loading.use("small-depth")
    loading.use("small-nodepth")
    state, sentence = status(loading)
    assert state == "failed" and "holds no depth_model weights" in sentence
    assert "dpt_hybrid-midas-501f0c75.pt" in sentence and sentence in loading.log.read_text(errors="replace")
    loading.run("probe.clear()")
    assert loading.img2img(astronaut).info["sd_model_name"] == "small-depth"
    assert conditioned(loading)


def test_missing_midas_weights_come_from_the_file(loading: Host, models: Path, astronaut: Image.Image) -> None:
    """With the file in place a checkpoint without MiDaS works too; in the host alone its depth is all zeros."""
    target = loading.data / "models" / "midas" / "dpt_hybrid-midas-501f0c75.pt"
    target.symlink_to(models / "midas.pt")
    try:
        loading.use("small-nodepth")
        loading.run("probe.clear()")
        loading.img2img(astronaut)
        assert conditioned(loading)
    finally:
        target.unlink()
        loading.use("small-depth")


def test_the_wrong_yaml_is_named(loading: Host, astronaut: Image.Image) -> None:
    target = loading.checkpoints / "wrong.safetensors"
    target.symlink_to(loading.checkpoints / "small-depth.safetensors")
    shutil.copy(loading.checkpoints / "small-plain.yaml", target.with_suffix(".yaml"))
    loading.post("/sdapi/v1/refresh-checkpoints")
    loading.use("wrong")
    state, sentence = status(loading)
    assert state == "failed" and "YAML beside the depth checkpoint wrong.safetensors" in sentence
    loading.img2img(astronaut)  # with the checkpoint before
    target.with_suffix(".yaml").unlink()
    target.unlink()
    loading.post("/sdapi/v1/refresh-checkpoints")
    loading.use("small-depth")


def test_switching_to_a_plain_checkpoint_and_back(loading: Host, astronaut: Image.Image) -> None:
    loading.use("small-plain")
    loading.img2img(astronaut)
    loading.use("small-depth")
    loading.run("probe.clear()")
    loading.img2img(astronaut)
    assert conditioned(loading)


def test_patches_come_off_again(loading: Host) -> None:
    code = (
        "import ldm.modules.midas.api as midas, modules.sd_models_config as config\n"
        "loader = sys.modules['depth2img_webui.hosts.loader']\n"
        "fields = [(sd_models, 'load_model'), (config, 'find_checkpoint_config'), (midas, 'load_model')]\n"
        "names = lambda: [getattr(place, field).__module__ for place, field in fields]\n"
        "result = [names()]\n"
        "loader.undo(); loader.undo(); result.append(names())\n"
        "loader.apply(); loader.apply(); result.append(names())"
    )
    before, without, after = loading.run(code)
    assert before == after == ["depth2img_webui.hosts.loader"] * 3
    assert without == ["modules.sd_models", "modules.sd_models_config", "modules.sd_models"]


def test_the_bundled_model_installs_and_generates(loading: Host, astronaut: Image.Image) -> None:
    """One call puts it into the dropdown; it has a text encoder and a depth network of its own."""
    loading.run("sys.modules['depth2img_webui.page.status'].install()")
    loading.use("depth2img-tiny")
    loading.run("probe.clear()")
    result = loading.img2img(astronaut, width=128, height=128, denoising_strength=0.8)
    assert result.info["sd_model_name"] == "depth2img-tiny"
    shape, values, _ = loading.conditionings()[-1]
    assert shape == [2, 1, 16, 16] and min(values) == -1 and max(values) == 1
    assert 'data-side="128"' in loading.run("result = sys.modules['depth2img_webui.page.status'].status_html()")
    loading.use("small-depth")


# --- what is made of a depth checkpoint -------------------------------------------------------------------------------


def random_lora(checkpoint: Path, path: Path, rank: int = 4) -> int:
    """A LoRA for Stable Diffusion 2 with kohya's names and noise for weights, as trainers write it; how many layers."""
    import torch
    from safetensors.torch import save_file

    from depth2img.checkpoints import open_model

    model, generator = open_model(checkpoint), torch.Generator().manual_seed(5)
    state: dict[str, torch.Tensor] = {}
    for component, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_")):
        part = model.parts[component]
        for name in part.keys():
            shape = part.shape(name)
            layer = name.removesuffix(".weight")
            if len(shape) != 2 or not any(word in layer for word in ("attn", "proj_", ".ff.", ".mlp.")):
                continue
            key = prefix + layer.replace(".", "_")
            # The product has about a third of the deviation of the weights that it is added to.
            state[f"{key}.lora_down.weight"] = torch.randn(rank, shape[1], generator=generator) * shape[1] ** -0.5
            state[f"{key}.lora_up.weight"] = torch.randn(shape[0], rank, generator=generator) / 3 * rank**-0.5
            state[f"{key}.alpha"] = torch.tensor(float(rank))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return len(state) // 3


def apart(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, 0..255."""
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


def test_lora_applies_to_a_depth_checkpoint(loading: Host, models: Path, astronaut: Image.Image) -> None:
    """A LoRA for Stable Diffusion 2, on UNet and text encoder: every name finds its layer; the picture changes with it
    and comes back without it."""
    loading.use("small-depth")
    count = random_lora(models / "small-depth.safetensors", loading.data / "models" / "Lora" / "noise.safetensors")
    code = (
        "import logging, networks\n"
        "seen, root = [], logging.getLogger()\n"
        "handler = logging.Handler(); handler.emit = lambda record: seen.append(record.getMessage())\n"
        "level = root.level; root.addHandler(handler); root.setLevel(logging.DEBUG)\n"
        "try:\n"
        "    networks.list_available_networks()\n"
        "    network = networks.load_network('noise', networks.available_networks['noise'])\n"
        "finally:\n"
        "    root.removeHandler(handler); root.setLevel(level)\n"
        "result = [len(network.modules), [text for text in seen if 'match keys' in text]]"
    )
    assert loading.run(code) == [count, []]
    loading.img2img(astronaut)  # the first after a switch may differ by a rounding
    [without] = loading.img2img(astronaut).images
    [weightless] = loading.img2img(astronaut, prompt="a red vase <lora:noise:0>").images
    loading.run("probe.clear()")
    changed = loading.img2img(astronaut, prompt="a red vase <lora:noise:1>")
    assert conditioned(loading)
    [again] = loading.img2img(astronaut).images
    assert "noise" in changed.infotexts[0]
    assert apart(without, changed.images[0]) > 3
    assert apart(without, weightless) < 0.1 and apart(without, again) < 0.1


def test_merged_and_converted_checkpoints_are_selected_and_used(
    loading: Host, models: Path, astronaut: Image.Image
) -> None:
    """Merged with a 4-channel checkpoint, and through a folder of diffusers and back in half precision."""
    from depth2img.checkpoints import convert, merge

    depth, plain = models / "small-depth.safetensors", models / "small-plain.safetensors"
    merge(depth, plain, loading.checkpoints / "merged.safetensors", multiplier=0.3, precision="float16")
    convert(depth, loading.data / "folder")
    convert(loading.data / "folder", loading.checkpoints / "converted.safetensors", half=True)
    loading.post("/sdapi/v1/refresh-checkpoints")
    made = {}
    for name in ("small-depth", "converted", "merged"):
        loading.use(name)
        loading.run("probe.clear()")
        loading.img2img(astronaut)
        result = loading.img2img(astronaut)
        assert result.info["sd_model_name"] == name and conditioned(loading)
        made[name] = result.images[0]
    assert apart(made["small-depth"], made["converted"]) < 0.5  # the source is in half precision too
    recipe = loading.run("result = shared.sd_model.sd_checkpoint_info.metadata['sd_merge_recipe']")
    assert recipe["interp_method"] == "Weighted sum" and recipe["models"]["B"] == "small-plain.safetensors"
    loading.use("small-depth")


def test_switching_frees_the_depth_network(loading: Host) -> None:
    """Of several switches between depth and plain checkpoints at most one MiDaS stays, and no memory."""
    code = (
        "import gc, psutil\n"
        "gc.collect()\n"
        "nets = [o for o in gc.get_objects() if type(o).__name__ == 'DPTDepthModel']\n"
        "real = [n for n in nets if next(n.parameters()).device.type != 'meta']\n"
        "result = [len(real), psutil.Process().memory_info().rss / 1e6]"
    )
    seen = []
    for _ in range(4):
        loading.use("small-plain")
        plain, _ = loading.run(code)
        loading.use("small-depth")
        depth, resident = loading.run(code)
        assert (plain, depth) == (0, 1)
        seen.append(resident)
    assert seen[-1] - seen[0] < 250, seen  # MiDaS alone is 490 MB in float32
