"""What a LangChain tool takes, as canonical bytes and back.

Rules: the model may set only the names that the tool shows it (`names`). Values arrive
validated by the tool's own schema and are dumped to canonical JSON; the tool runs from a parse
of those bytes, validated again by the same schema. What that second validation returns must
dump to the same bytes, else the call is refused: the executed value would not be the decided
one. Names are those that the tool shows to the model: of an argument the field's, inside
arguments the alias. Defaults are filled in before deciding; a null, or an empty list or object,
that is the field's own default is left out (inside arguments too), since leaving it out means
the same. Injected values never enter the bytes. Nothing here decides or does I/O.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import orjson
from langchain_core.tools import BaseTool, Tool
from langchain_core.utils.pydantic import get_fields
from pydantic import AliasChoices, AliasPath, BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.v1 import BaseModel as BaseModelV1
from pydantic.v1 import ValidationError as ValidationErrorV1
from pydantic_core import PydanticSerializationError, PydanticUndefined

from agentgate.errors import CanonicalError, ConfigError
from agentgate.values.canonical import SIMPLE, definition_digest, parse
from agentgate.values.entities import canonical_form, mapping
from agentgate.values.request import CanonicalArguments
from agentgate.values.value_class import Json, Values, value_class
from agentgate.workflow.model import Tool as Declared

# pydantic makes fields of these names for *args and **kwargs; LangChain never passes them on
# unless they were given
_VARIADIC = frozenset({"args", "kwargs"})
_EMPTY = (list, dict, set, tuple, frozenset)


@value_class
class _FieldSchema:
    """A model of either pydantic; `names`, in declared order, are what the model may set;
    `defaults`: of those that are not required.
    """

    fields: Values
    names: tuple[str, ...]
    defaults: Values
    to_json: Callable[[Values], Json]
    validate: Callable[[Json], Any]

    def dump(self, values: Values) -> Json:
        """The JSON form of validated values."""
        shown = {n: _shown(values.get(n), v) for n, v in self.to_json(values).items()}
        return _without_nothing(shown, self.defaults)

    def load(self, plain: Json, injected: Values) -> Json:
        """Validated values of a JSON form; `injected` values only complete the schema and are
        not returned.
        """
        instance = self.validate(
            {**plain, **{n: v for n, v in injected.items() if n in self.fields}}
        )
        return {
            n: getattr(instance, n)
            for n in self.names
            if n in plain or (n in self.defaults and n not in _VARIADIC)
        }


def _of_model(model: type[BaseModel], names: tuple[str, ...]) -> _FieldSchema:
    # a serializer of its own, or what is left out
    own = "'serialization" in str(dict(model.__pydantic_core_schema__))

    def dump(values: Values) -> Json:
        if not own and SIMPLE.issuperset(map(type, values.values())):
            return dict(values)  # as pydantic would write them
        instance = model.model_construct(None, **values)
        return instance.model_dump(
            mode="json", include=set(values), by_alias=False, warnings="none"
        )

    fields = model.model_fields
    if swapped := sorted(n for n in names if (_aliases(fields[n]) - {n}) & fields.keys()):
        raise ConfigError(
            "args_schema",
            f"a field whose alias is another field: {', '.join(swapped)}",
            "aliases that are no fields",
        )
    defaults = {n: _default(fields[n]) for n in names if not fields[n].is_required()}
    return _FieldSchema(
        fields,
        names,
        defaults,
        dump,
        lambda values: model.model_validate(values, by_alias=True, by_name=True),
    )


def _of_v1_model(model: type[BaseModelV1], names: tuple[str, ...]) -> _FieldSchema:
    """Pydantic's v1 interface has no validation by name: fields with an alias are refused."""
    fields = model.__fields__
    if aliased := sorted(n for n in names if fields[n].alias != n):
        raise ConfigError(
            "args_schema", f"fields with an alias: {', '.join(aliased)}", "field names only"
        )
    defaults = {n: fields[n].get_default() for n in names if not fields[n].required}
    return _FieldSchema(
        fields,
        names,
        defaults,
        lambda v: orjson.loads(model.construct(None, **v).json(include=set(v))),
        model.parse_obj,
    )


def _default(field: FieldInfo) -> Any:
    """A field's default; of those that are made for each call only an empty one, else a value
    that nothing equals.
    """
    made: Any = field.default_factory
    return field.default if made is None else made() if made in _EMPTY else PydanticUndefined


def _says_nothing(plain: Any, default: Any) -> bool:
    """Whether the JSON form of a value is null or empty, and its field's own default is the
    same.
    """
    return (plain is None and default is None) or (
        plain in ([], {}) and isinstance(default, _EMPTY) and not default
    )


def _without_nothing(values: Values, defaults: Values) -> Json:
    return {
        n: v for n, v in values.items() if not (n in defaults and _says_nothing(v, defaults[n]))
    }


def _aliases(field: FieldInfo) -> set[str]:
    """Every alias under which a field is read."""
    paths = [
        [choice] if isinstance(choice, str) else choice.path
        for choice in _alias_choices(field)
        if choice is not None
    ]
    return {path[0] for path in paths if len(path) == 1 and isinstance(path[0], str)}


def _shown(value: Any, plain: Any) -> Any:
    """The JSON form of a value; in models inside it, names are those of a JSON Schema, and
    defaults that say nothing are left out.
    """
    fields: Any = getattr(type(value), "__pydantic_fields__", None)  # of a model or a dataclass
    if fields and type(plain) is dict:
        kept = {}
        for name, inner in plain.items():
            field = fields.get(name)
            shown = _shown(getattr(value, name, None), inner)
            if (
                field is None
                or field.is_required()
                or not _says_nothing(shown, _default(field))
            ):
                kept[_spelled(type(value), name, field)] = shown
        return kept
    if isinstance(value, list | tuple) and type(plain) is list and len(value) == len(plain):
        return [_shown(one, shown) for one, shown in zip(value, plain, strict=True)]
    if isinstance(value, dict) and type(plain) is dict:
        return {n: _shown(value.get(n), v) for n, v in plain.items()}
    return plain


def _spelled(model: Any, name: str, field: FieldInfo | None) -> str:
    """The name of a field as pydantic's JSON Schema shows it."""
    config = (
        getattr(model, "model_config", None)
        or getattr(model, "__pydantic_config__", None)
        or {}
    )
    if not field or config.get("validate_by_alias") is False:
        return name
    return next((n for n in _alias_choices(field) if isinstance(n, str)), name)


def _alias_choices(field: FieldInfo) -> Sequence[str | AliasPath | None]:
    alias = field.validation_alias
    return alias.choices if isinstance(alias, AliasChoices) else [alias]


class _JsonSchema:
    """A JSON Schema (every MCP tool has one). LangChain does not check it at all, so it is
    checked here; no reference is fetched.
    """

    def __init__(self, schema: Json) -> None:
        try:
            import jsonschema_rs  # noqa: PLC0415 - only tools with a JSON Schema need it
        except ImportError as error:
            raise ConfigError(
                "args_schema", "a JSON Schema", "the package jsonschema-rs (extra [langchain])"
            ) from error
        self._schema = copy.deepcopy(schema)
        moment = jsonschema_rs.validator_for({"format": "date-time"}, validate_formats=True)
        try:
            self._validator = jsonschema_rs.validator_for(
                self._schema,
                retriever=_deny_retrieval,
                validate_formats=True,
                formats={
                    "date-time": lambda text: (
                        moment.is_valid(text) or moment.is_valid(text + "Z")
                    )
                },  # `agentgate.values.entities`
                pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000),
            )
        except (
            jsonschema_rs.ValidationError,
            jsonschema_rs.ReferencingError,
            ValueError,
        ) as error:
            raise ConfigError(
                "args_schema",
                "an unusable JSON Schema",
                "a valid schema without remote references",
            ) from error
        properties = self._schema.get("properties", {})
        required = self._schema.get("required", ())
        self.names = tuple(properties)
        self._declared = {
            n: p["default"]
            for n, p in properties.items()
            if "default" in mapping(p) and n not in required
        }

    def dump(self, values: Values) -> Json:
        return _without_nothing({**copy.deepcopy(self._declared), **values}, self._declared)

    def load(self, plain: Json, injected: Values) -> Json:  # noqa: ARG002 - a JSON Schema has none
        if not self._validator.is_valid(plain):
            # its message would quote the value
            error = next(self._validator.iter_errors(plain))
            where = ".".join(["args", *(str(part) for part in error.instance_path)])
            rule = "/".join(str(part) for part in error.schema_path)
            raise CanonicalError(
                where, "a value outside the tool's JSON Schema", f"what it says at {rule}"
            )
        return plain


def _deny_retrieval(uri: str) -> Any:
    raise ValueError(f"remote references are not followed: {uri}")


@value_class
class Settled:
    """Arguments in canonical form.

    Attributes:
        decided: what the gate decides on, and the token's digest is of.
        values: a validated parse of those bytes; what the tool runs with.
    """

    decided: CanonicalArguments
    values: Json


class Arguments:
    """The arguments of one tool.

    Attributes:
        names: what the model may set, in declared order.
        injected: what only the framework may set (`InjectedToolArg`, `ToolRuntime`, ...).
        shape: the tool's JSON Schema, as a model is shown it.
        spellings: names as a model may write them.
        bare: it takes one value, under any name.
        text: the argument that an input of bare text fills, or empty.
    """

    def __init__(self, tool: BaseTool) -> None:
        """Read the tool's schema.

        Raises:
            ConfigError: the schema cannot be used.
        """
        self._schema, self.shape = _schema_of(tool), shown_schema(tool)
        self.names = self._schema.names
        # a single-input tool without a schema takes one value under any name; models are shown
        # `__arg1`
        self.bare = _is_bare(tool)
        fields: tuple[str, ...] = ()
        if not isinstance(tool.args_schema, dict) and not self.bare:
            fields = tuple(get_fields(tool.get_input_schema()))
        # langchain-core shows nowhere else the names that it finds only in the function's
        # signature
        signature: frozenset[str] = getattr(tool, "_injected_args_keys", frozenset())
        self.injected = (frozenset(fields) | signature) - frozenset(self.names) - _VARIADIC
        # LangChain validates nothing then, and fills no default
        self._as_given = tool.args_schema is None and not self.bare
        known = getattr(tool.args_schema, "model_fields", {})
        aliases = [
            alias for name in self.names if name in known for alias in _aliases(known[name])
        ]
        self.spellings = frozenset([*self.names, *aliases, *["__arg1"] * self.bare])

        only = isinstance(tool, Tool)  # takes one value and no names
        first = next(iter(fields or self.names), "")
        takes_text = first in self.names and (
            len(self.names) == 1 if only else not isinstance(tool.args_schema, dict)
        )
        self.text = first if takes_text else ""

    def not_the_models(self, name: str) -> str:
        """What a log says of an argument that the model may not set; a name that the model made
        up is not in it.
        """
        only = f"expected only {', '.join(self.names) or 'no argument'}"
        if name not in self.injected:
            return f"an argument that the model may not set: got a name that the tool does not have, {only}"
        return (
            f"argument '{name}' that the model may not set: got a value of unknown source, {only} "
            "(LangGraph's ToolNode injects state, store and runtime; a host injects with "
            f"use_run(run, inject={{{name!r}: ...}}))"
        )

    def shown(self, name: str) -> str:
        """What a log says of an argument that the host injects and the tool shows to the
        model.
        """
        return (
            f"argument '{name}': got a value of inject=, expected a name that the tool "
            "hides from the model (annotate it InjectedToolArg)"
        )

    def in_form(self, given: Values, declared: Declared | None) -> Json:
        """What was given, with the model's arguments in their one form
        (`agentgate.values.entities`).

        What the tool takes as it is, though its JSON Schema does not say so, it gets: a
        validator of its own may split a text.
        """
        others = {name: value for name, value in given.items() if name not in self.names}
        own = {name: value for name, value in given.items() if name in self.names}
        form = canonical_form(own, self.shape, declared)
        if form != own:
            as_given = canonical_form(own, {}, declared)
            with suppress(CanonicalError, ValueError, TypeError):
                self._schema.load(as_given, others)
                form = as_given
        return others | form

    def unreadable(self, error: CanonicalError) -> str:
        """What a log says of arguments that cannot be used, with the tool's own name of the
        argument at most.
        """
        field = next(
            (
                field
                for field in (f"args.{name}" for name in self.names)
                if error.field.startswith(field)
            ),
            "args",
        )
        return f"{field}: got {error.got}, expected {error.expected}"

    def settle(
        self,
        values: Values,
        injected: Values,
        *,
        incomplete: bool = False,
    ) -> Settled:
        """Canonical bytes of validated values, and the values to run with.

        Args:
            values: as LangChain passes them.
            injected: what the framework or the host adds.
            incomplete: LangChain passed a text alone; other arguments have their defaults. (So
                they have in a tool without a schema.)

        Raises:
            CanonicalError: no canonical form, or a value that changes between check and use.
        """
        try:
            decided = CanonicalArguments(self._schema.dump(values))
            loaded = self._schema.load(parse(decided.data), injected)
            if incomplete or self._as_given:
                decided = CanonicalArguments(self._schema.dump(loaded))
                loaded = self._schema.load(parse(decided.data), injected)
            same = CanonicalArguments(self._schema.dump(loaded)).data == decided.data
        except (ValidationError, ValidationErrorV1) as error:
            where = ".".join(["args", *(str(part) for part in error.errors()[0]["loc"])])
            raise CanonicalError(
                where,
                "a value that its own JSON form does not give back",
                "a value of the tool's schema",
            ) from error
        except (
            PydanticSerializationError,
            orjson.JSONDecodeError,
            TypeError,
            ValueError,
        ) as error:
            raise CanonicalError(
                "args",
                f"values of {type(error).__name__}",
                "values of the tool's schema with a JSON form",
            ) from error
        if not same:
            raise CanonicalError(
                "args",
                "values that change when validated again",
                "the same bytes after validation",
            )
        return Settled(decided, loaded)


def definition_of(tool: BaseTool) -> str:
    """The ``sha256:...`` digest that a workflow pins as `definition`: of the tool's name,
    description and input schema.

    Raises:
        CanonicalError: the schema has no canonical form.
    """
    return definition_digest(tool.name, tool.description, shown_schema(tool))


def shown_schema(tool: BaseTool) -> Json:
    """The JSON Schema of a tool's arguments, as a model is shown it."""
    if isinstance(tool.args_schema, dict):
        return tool.args_schema
    shown: Any = tool.tool_call_schema
    schema: Json = shown.model_json_schema() if issubclass(shown, BaseModel) else shown.schema()
    return schema


def _is_bare(tool: BaseTool) -> bool:
    """A single-input `Tool` without a schema: its one argument is text."""
    return isinstance(tool, Tool) and tool.args_schema is None


def _schema_of(tool: BaseTool) -> _FieldSchema | _JsonSchema:
    if isinstance(tool.args_schema, dict):
        return _JsonSchema(tool.args_schema)
    if _is_bare(tool):
        return _of_model(create_model("Input", tool_input=(str, ...)), ("tool_input",))
    model: Any = tool.get_input_schema()
    # an argument called `runtime` of any type is LangGraph's: its ToolNode replaces whatever
    # stands there
    names = tuple(
        n
        for n, field in get_fields(model).items()
        if n in tool.args and not (n == "runtime" and field.annotation is Any)
    )
    return (
        _of_model(model, names) if issubclass(model, BaseModel) else _of_v1_model(model, names)
    )
