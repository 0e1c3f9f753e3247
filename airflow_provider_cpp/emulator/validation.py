"""Models of the JSON files that users write, and error messages that name the wrong key."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from pydantic import ValidationError


class Document(BaseModel):
    """A JSON object of a file: keys in camelCase, no unknown keys, no conversion of types."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, alias_generator=to_camel, allow_inf_nan=False
    )


def describe(error: ValidationError, model: type[Document]) -> str:
    """Return the problems of a document in one line, each with the path of its key."""
    problems = []
    for one in error.errors(include_url=False, include_input=False):
        path = _path(one["loc"])
        if one["type"] == "extra_forbidden":
            message = _unknown_key(str(one["loc"][-1]), _model_at(model, one["loc"][:-1]))
        elif "error" in (context := one.get("ctx", {})):
            message = str(context["error"])
        else:
            message = one["msg"]
        problems.append(f"{path}: {message}")
    return " ".join("; ".join(problems).split())


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part}" if path else part
    return path or "the document"


def _unknown_key(key: str, model: type[BaseModel]) -> str:
    known = [field.alias or name for name, field in model.model_fields.items()]
    if near := get_close_matches(key, known, n=1):
        return f"is an unknown key; did you mean '{near[0]}'?"
    return f"is an unknown key; the keys are {', '.join(known)}"


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model of the object at a location."""
    for part in location:
        for field in model.model_fields.values():
            if field.alias == part:
                model = next(_models_in(field.annotation), model)
    return model


def _models_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
