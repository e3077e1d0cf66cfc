"""Which checkpoint is in use, in words."""

from __future__ import annotations

import pytest

from depth2img import CheckpointError
from tests.webui_fake.standin import Host, ramp, state_dict


def status(host: Host) -> tuple[str, str]:
    return host.ours("status").status()


def test_nothing_is_loaded_and_nothing_gets_loaded(bare: Host) -> None:
    bare.ours("script").register()
    assert status(bare) == ("wrong", "No checkpoint is loaded yet.")
    assert bare.sd_models.fake_loads == []


def test_ready(host: Host) -> None:
    assert status(host) == ("ready", "Ready: depth.")


def test_wrong(host: Host) -> None:
    host.select("plain")
    assert status(host) == ("wrong", "Needs a depth checkpoint; plain is none.")


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
    html = host.ours("status").status_html()
    assert 'data-state="ready"' in html and "depth2img-good" in html and "Ready: depth." in html
    host.model.sd_checkpoint_info.name_for_extra = "<b>"
    assert "&lt;b&gt;" in host.ours("status").status_html()
    host.select("plain")
    html = host.ours("status").status_html()
    assert 'data-state="wrong"' in html and "depth2img-bad" in html
