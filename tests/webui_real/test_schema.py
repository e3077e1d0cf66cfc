"""The routes of the real WebUI against what its OpenAPI page promises, by schemathesis."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from host import Host, to_base64
from PIL import Image

from tests import promises

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def schema(host: Host) -> Any:
    return schemathesis.openapi.from_url(f"{host.url}/openapi.json")


@pytest.mark.parametrize("path", promises.PATHS)
def test_answers_keep_the_promises_of_the_schema(depth_host: Host, schema: Any, path: str) -> None:
    picture = to_base64(Image.linear_gradient("L").resize((40, 24)))
    assert len(promises.allowed(schema, path, picture, 60)) >= (30 if path in promises.POSTS else 1)


@pytest.mark.parametrize("path", promises.POSTS)
def test_what_the_schema_forbids_is_refused(depth_host: Host, schema: Any, path: str) -> None:
    promises.forbidden(schema, path, 80)
    assert depth_host.get("/depth2img/v1/status")["state"] == "ready"
