"""OpenAPI that says what is true: bodies that routes parse by themselves, problems, credentials."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.api.problems import Problem

_TEMPLATE = "#/components/schemas/{model}"
_bodies: list[type[BaseModel]] = [Problem]
_made: list[dict[str, Any]] = []

_SCHEMES = {
    "api_key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key with the role checkout, collect or admin.",
    },
    "page_token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "HS256, header kid = id of a checkout key, aud = decide, exp at most 15 "
        "minutes ahead, sub = the user_id if one is sent, signed by the shop's server with "
        'HMAC-SHA-256(key=API key, message="tillwise-page-token").',
    },
}


def body_of(
    model: type[BaseModel], *, page_token: bool = False, yaml: bool = False
) -> dict[str, Any]:
    """`openapi_extra` of a route that reads `model` from the request by itself, also as `yaml`."""
    if model not in _bodies:
        _bodies.append(model)
    schema = {"$ref": _TEMPLATE.format(model=model.__name__)}
    schemes: list[dict[str, list[str]]] = [{"api_key": []}]
    kinds = ["application/json", *(["application/yaml"] if yaml else [])]
    return {
        "requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}},
        "security": [*schemes, {"page_token": []}] if page_token else schemes,
    }


def path_parameter(name: str, description: str, form: str) -> dict[str, Any]:
    """A parameter that the path holds and the route reads by itself."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "format": form},
    }


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of `app`, made once in a process: every gateway has the same routes."""
    if app.openapi_schema is None and _made:
        app.openapi_schema = _made[0]
    if app.openapi_schema is None:
        described = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        components = described.setdefault("components", {})
        _, definitions = models_json_schema(
            [(model, "validation") for model in _bodies], ref_template=_TEMPLATE
        )
        components["schemas"] = definitions["$defs"] | components.get("schemas", {})
        components["securitySchemes"] = _SCHEMES
        app.openapi_schema = described
        _made.append(described)
    return app.openapi_schema
