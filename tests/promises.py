"""Check our routes' answers against the OpenAPI page with schemathesis; for two tiers of tests."""

from __future__ import annotations

import warnings
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis  # noqa: F401 - the others expect it
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

PREFIX = "/depth2img/v1/"
PATHS = ("status", "options", "estimators", "estimate", "adjust")
POSTS = ("estimate", "adjust")
"""These get bodies that the schema allows, and bodies that it does not."""

PROMISES = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


def tried(schema: Any, path: str, mode: GenerationMode, examples: int, fields: dict[str, Any]) -> list[int]:
    """The status of each answer; a broken promise fails the test.

    Args:
        schema: schemathesis' own, of the page.
        path: behind the prefix.
        mode: bodies that the schema allows, or others.
        examples: at most so many, the same each time.
        fields: put into every second body.
    """
    operation = next(iter(schema[PREFIX + path].values()))
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


def allowed(schema: Any, path: str, picture: str, examples: int) -> list[int]:
    """The status of each answer to what the schema allows: some are right, and none is the server's fault.

    Args:
        schema, path, examples: see `tried`.
        picture: base64; also a depth map.
    """
    fields: dict[str, Any] = {}
    if path in POSTS:
        image = {"image": picture, "estimator": "checkpoint"} if path == "estimate" else {"depth_map": picture}
        fields = {**image, "colour_map": "turbo", "options": {"near": 0.9}}
    seen = tried(schema, path, GenerationMode.POSITIVE, examples if path in POSTS else 5, fields)
    assert 200 in seen and all(status < 500 for status in seen)
    assert (422 in seen) is (path in POSTS)
    return seen


def forbidden(schema: Any, path: str, examples: int) -> list[int]:
    """The status of each answer to what the schema forbids: all are refusals."""
    seen = tried(schema, path, GenerationMode.NEGATIVE, examples, {})
    assert len(seen) > 30 and all(400 <= status < 500 for status in seen)
    return seen
