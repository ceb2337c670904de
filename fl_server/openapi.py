"""What `/v1/predict` takes and gives, as an OpenAPI 3.1 document. `fl_server.predict` serves it, docs/rest.md explains it."""

from typing import Any

PATH = "/v1/predict"

_PART = {"type": "number", "minimum": 0, "maximum": 1}
_FACE = {
    "type": "object",
    "required": ["box", "score", "label", "probabilities"],
    "properties": {
        "box": {
            "type": "array",
            "items": {"type": "integer"},
            "minItems": 4,
            "maxItems": 4,
            "description": "x, y, width, height in pixels of the upright picture; may reach beyond it",
        },
        "score": _PART | {"description": "how sure the face detector is; 1 with whole=true"},
        "label": {"type": "string", "description": "the most probable class"},
        "probabilities": {"type": "object", "additionalProperties": _PART, "description": "of every class; they add up to 1"},
    },
}
_ANSWER = {
    "type": "object",
    "required": ["model", "width", "height", "faces"],
    "properties": {
        "model": {
            "type": "object",
            "required": ["version", "private", "statement"],
            "properties": {"version": {"type": "string"}, "private": {"type": "boolean"}, "statement": {"type": "string"}},
        },
        "width": {"type": "integer"},
        "height": {"type": "integer"},
        "faces": {"type": "array", "items": _FACE},
    },
}
_ERROR = {"type": "object", "properties": {"error": {"type": "string"}, "reason": {"type": "string"}}}


def _refusal(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ERROR}}}


OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "emofl predictions",
        "version": "1",
        "description": "The server sees the picture that is sent, and stores nothing. The camera page sends none.",
    },
    "paths": {
        PATH: {
            "post": {
                "operationId": "predict",
                "summary": "What the newest published model reads in the faces of a picture",
                "security": [{"token": []}],
                "parameters": [
                    {
                        "name": "whole",
                        "in": "query",
                        "description": "The picture is a face crop already: no face is looked for.",
                        "schema": {"type": "boolean", "default": False},
                    }
                ],
                "requestBody": {
                    "required": True,
                    "description": "A picture of at most 8 MiB and 12 million pixels.",
                    "content": {f"image/{kind}": {} for kind in ("jpeg", "png", "webp", "bmp")},
                },
                "responses": {
                    "200": {
                        "description": "The faces, from left to right; with `Accept: image/png` the picture with boxes.",
                        "content": {"application/json": {"schema": _ANSWER}, "image/png": {}},
                    },
                    "401": _refusal("The token is missing or wrong; the body was not read."),
                    "408": _refusal("The body did not arrive within 30 seconds."),
                    "413": _refusal("The body or the picture is too large."),
                    "415": _refusal("The body is no picture of a known format."),
                    "422": _refusal("The picture is damaged, or too small to hold a face."),
                    "503": _refusal("Others are being served, or nothing is published yet; try again."),
                },
            }
        }
    },
    "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
}
