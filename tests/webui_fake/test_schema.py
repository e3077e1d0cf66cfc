"""The routes against what their own OpenAPI page promises, by schemathesis."""

from __future__ import annotations

import base64
import io
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from tests import promises
from tests.webui_fake.standin import Host, ramp

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*starlette.*"),
]


@pytest.fixture
def schema(host: Host) -> Any:
    host.shared.cmd_opts = SimpleNamespace(api=True, nowebui=False, api_auth=None)
    app = FastAPI()
    host.ours("api").add(None, app)
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def picture() -> str:
    content = io.BytesIO()
    ramp(40, 24).convert("L").save(content, "PNG")  # a picture to the one route, a map to the other
    return base64.b64encode(content.getvalue()).decode()


@pytest.mark.parametrize("path", promises.PATHS)
def test_answers_keep_the_promises_of_the_schema(schema: Any, path: str) -> None:
    promises.allowed(schema, path, picture(), 60)


@pytest.mark.parametrize("path", promises.POSTS)
def test_what_the_schema_forbids_is_refused(schema: Any, path: str) -> None:
    promises.forbidden(schema, path, 80)
