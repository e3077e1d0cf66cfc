"""Which checkpoint is in use, in words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from depth2img import CheckpointError
from tests.webui_fake.standin import Host, ramp, state_dict


def status(host: Host) -> tuple[str, str]:
    return host.ours("page.status").status()


def test_nothing_is_loaded_and_nothing_gets_loaded(bare: Host) -> None:
    bare.ours("script").register()
    assert status(bare) == ("wrong", "No checkpoint is loaded yet.")
    assert bare.sd_models.fake_loads == []


def test_ready(host: Host) -> None:
    assert status(host) == ("ready", "Ready: depth.")


def test_wrong(host: Host) -> None:
    host.select("plain")
    assert status(host) == ("wrong", "Needs a depth checkpoint; plain is not one.")


def test_failed_until_the_next_good_load_or_job(host: Host) -> None:
    host.add("bare", lambda: state_dict(5, midas=False))
    for mend in (lambda: host.select("plain"), lambda: host.run(host.img2img(ramp()))):
        host.select("depth")
        with pytest.raises(CheckpointError):
            host.select("bare")
        state, sentence = status(host)
        assert state == "failed" and "holds no depth_model weights" in sentence
        mend()
        assert status(host)[0] in ("ready", "wrong")


def test_html(host: Host) -> None:
    html = host.ours("page.status").status_html()
    assert 'data-state="ready"' in html and "depth2img-good" in html and "Ready: depth." in html
    host.model.sd_checkpoint_info.name_for_extra = "<b>"
    assert "&lt;b&gt;" in host.ours("page.status").status_html()
    host.select("plain")
    html = host.ours("page.status").status_html()
    assert 'data-state="wrong"' in html and "depth2img-bad" in html


def test_missing_says_how_to_get_one(host: Host, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    host.select("plain")
    host.sd_models.checkpoints_list.clear()
    plain, depth = tmp_path / "of-depth-only-the-name.safetensors", tmp_path / "another.safetensors"
    convolution = host.ours("hosts.loader").INPUT_CONVOLUTION
    save_file({convolution: np.zeros((8, 4, 3, 3), np.float32)}, plain)
    save_file({convolution: np.zeros((8, 5, 3, 3), np.float32)}, depth)
    host.sd_models.CheckpointInfo(str(plain)).register()
    state, sentence = status(host)
    assert state == "missing" and "512-depth-ema" in sentence
    host.sd_models.CheckpointInfo(str(depth)).register()
    assert status(host)[0] == "wrong"


@pytest.mark.parametrize(("channels", "state"), [(4, "missing"), (5, "wrong")])
def test_missing_goes_by_content_whatever_the_suffix(host: Host, tmp_path: Path, channels: int, state: str) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    host.select("plain")
    host.sd_models.checkpoints_list.clear()
    misnamed = tmp_path / ("depth.ckpt" if channels == 4 else "another.ckpt")
    save_file({host.ours("hosts.loader").INPUT_CONVOLUTION: np.zeros((8, channels, 3, 3), np.float32)}, misnamed)
    host.sd_models.CheckpointInfo(str(misnamed)).register()
    assert status(host)[0] == state


def test_a_pickle_goes_by_its_name(host: Host, tmp_path: Path) -> None:
    import torch

    host.select("plain")
    host.sd_models.checkpoints_list.clear()
    convolution = host.ours("hosts.loader").INPUT_CONVOLUTION
    torch.save({"state_dict": {convolution: torch.zeros(8, 5, 3, 3)}}, tmp_path / "another.ckpt")
    host.sd_models.CheckpointInfo(str(tmp_path / "another.ckpt")).register()
    assert status(host)[0] == "missing"
    torch.save({"state_dict": {convolution: torch.zeros(8, 4, 3, 3)}}, tmp_path / "of-depth.ckpt")
    host.sd_models.CheckpointInfo(str(tmp_path / "of-depth.ckpt")).register()
    assert status(host)[0] == "wrong"


def test_the_bundled_model_is_installed_where_checkpoints_are(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = host.ours("page.status")
    written: list[Path] = []
    monkeypatch.setattr(ours.embedded, "install", written.append)
    monkeypatch.setattr(host.shared, "cmd_opts", SimpleNamespace(ckpt_dir=str(tmp_path)), raising=False)
    line, button = ours.install()
    assert written == [tmp_path / ours.BUNDLED] and "choose it" in line and not button["visible"]

    def refuse(path: Path) -> None:
        raise CheckpointError("The folder cannot be written.")

    monkeypatch.setattr(ours.embedded, "install", refuse)
    assert "cannot be written" in ours.install()[0]
