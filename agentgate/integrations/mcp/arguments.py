"""What an SDK calls a tool with: the values that were decided on, or nothing.

Rules: an SDK validates arguments after the decision, and may make other values of them: a text
that is parsed as JSON, ``"1"`` that becomes 1, a key that is dropped. So they are validated
here, strictly and from their canonical bytes, and what came of it must dump to the same bytes.
A plain default is in the schema that a workflow pins. What is in no schema, or cannot be
compared, is refused at the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    Json,
    PlainValidator,
    ValidationError,
    WrapValidator,
)
from pydantic_core import PydanticSerializationError

from agentgate.errors import CanonicalError, ConfigError, NotDone
from agentgate.values.canonical import canonical

_REPLACING = BeforeValidator | PlainValidator | WrapValidator


class ArgumentsChanged(NotDone):
    """The tool would have been given other values than were decided on. Nothing ran."""


def check_signature(tool: str, model: type[BaseModel], *above: type[BaseModel]) -> None:
    """Check a tool's parameters when its server starts, and those of the models in them;
    `above`: the models that this one is in.

    Raises:
        ConfigError: a parameter whose value would not be the decided one; with why, and what to
            do.
    """
    for name, field in model.model_fields.items():
        shown = field.alias or name
        for got, expected in _unfit(field):
            raise ConfigError(f"tools.{tool}.{shown}", got, expected)
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in above:
                check_signature(f"{tool}.{shown}", part, *above, part)


def _unfit(field: Any) -> Iterator[tuple[str, str]]:
    if field.default_factory is not None:
        yield (
            "a default that is made for each call",
            "a plain default, which is in the definition that a workflow pins",
        )
    if field.validate_default:
        yield "a default that is validated", "the default as the tool is to have it"
    if not (field.validation_alias == field.serialization_alias == field.alias):
        yield "an alias for reading or writing alone", "one alias, or none"
    for part in (*field.metadata, *_parts(field.annotation)):
        if isinstance(part, _REPLACING) or part is Json or type(part) is Json:
            yield (
                f"{getattr(part, '__name__', type(part).__name__)}, which replaces the decided value",
                "the value as it is; convert it in the tool",
            )
        elif part in (set, frozenset):
            yield f"a {part.__name__}, which has no order", "a list"


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and everything inside it, with what ``Annotated`` adds."""
    yield get_origin(annotation) or annotation
    for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from _parts(part)


def decided_values(model: type[BaseModel], arguments: Mapping[str, Any]) -> BaseModel:
    """The arguments of a call as its tool takes them.

    Raises:
        ArgumentsChanged: they are not what the tool takes, or would be other values there. The
            message has names, and no values.
    """
    try:
        data = canonical(arguments, "args")
        values = model.model_validate_json(data, strict=True)
        executed = canonical(
            values.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings="none"),
            "args",
        )
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False)[0]
        where = ".".join(
            ["args", *(str(part) for part in first["loc"] if part in model.model_fields)]
        )
        raise ArgumentsChanged(
            f"{where}: got a value that its tool does not take as it is ({first['type']})"
        ) from None
    except (CanonicalError, PydanticSerializationError, TypeError, ValueError) as error:
        raise ArgumentsChanged(
            f"args: got values without a JSON form ({type(error).__name__})"
        ) from None
    if executed != data:
        raise ArgumentsChanged(
            "args: got values that its tool would be given otherwise than they were decided on"
        )
    return values
