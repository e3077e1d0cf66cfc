"""The routes against what their own OpenAPI page promises, by schemathesis."""

from __future__ import annotations

import base64
import io
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.webui_fake.standin import Host, ramp

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*starlette.*"),
]

PROMISES = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]

POSTS = ("/depth2img/v1/estimate", "/depth2img/v1/adjust")
"""These get bodies that the schema allows, and bodies that it does not."""


def mounted(host: Host) -> FastAPI:
    host.shared.cmd_opts = SimpleNamespace(api=True, nowebui=False, api_auth=None)
    app = FastAPI()
    host.ours("api").add(None, app)
    return app


def picture() -> str:
    content = io.BytesIO()
    ramp(40, 24).convert("L").save(content, "PNG")  # a picture to the one route, a map to the other
    return base64.b64encode(content.getvalue()).decode()


def tried(app: FastAPI, path: str, mode: GenerationMode, examples: int, fields: dict[str, Any]) -> list[int]:
    """The status of each answer; a broken promise fails the test."""
    operation = next(iter(schemathesis.openapi.from_asgi("/openapi.json", app)[path].values()))
    seen: list[int] = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode), st.booleans())
    def run(case: Any, whole: bool) -> None:
        if whole and isinstance(case.body, dict):
            case.body.update(fields)
        seen.append(case.call_and_validate(checks=PROMISES).status_code)

    run()
    return seen


@pytest.mark.parametrize("path", ["status", "options", "estimators", "estimate", "adjust"])
def test_answers_keep_the_promises_of_the_schema(host: Host, path: str) -> None:
    app, path = mounted(host), f"/depth2img/v1/{path}"
    image = {"image" if path.endswith("estimate") else "depth_map": picture()}
    fields = {**image, "colour_map": "turbo", "options": {"near": 0.9}} if path in POSTS else {}
    if path.endswith("estimate"):
        fields["estimator"] = "checkpoint"
    seen = tried(app, path, GenerationMode.POSITIVE, 60 if path in POSTS else 5, fields)
    assert 200 in seen and all(status < 500 for status in seen)
    assert (422 in seen) is (path in POSTS)


@pytest.mark.parametrize("path", POSTS)
def test_what_the_schema_forbids_is_refused(host: Host, path: str) -> None:
    seen = tried(mounted(host), path, GenerationMode.NEGATIVE, 80, {})
    assert len(seen) > 30 and all(400 <= status < 500 for status in seen)
