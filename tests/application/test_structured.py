"""Schemas that answers are to fit, by the real compiler; and answers by them."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest

from tfo_mcp.application.structured import Output, OutputSchemas
from tfo_mcp.domain.errors import InvalidOutputSchema
from tfo_mcp.infrastructure.schemas import JsonSchemas

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
STRING: Schema = {"type": "string"}


def of(properties: Schema | None = None, **more: object) -> Schema:
    """An object that has these properties and no others."""
    return {"type": "object", "properties": properties or {}, "additionalProperties": False, **more}


PERSON = of({"name": STRING, "age": {"type": "integer"}}, required=["name"])


def check(schema: Schema, max_bytes: int = 65_536) -> None:
    OutputSchemas(JsonSchemas(), max_bytes=max_bytes).check(schema)


def read(text: str, stop_reason: str = "end_turn") -> Output:
    return OutputSchemas(JsonSchemas(), max_bytes=65_536).read(PERSON, text, stop_reason)


def refusal(schema: Schema, max_bytes: int = 65_536) -> str:
    with pytest.raises(InvalidOutputSchema) as refused:
        check(schema, max_bytes)
    return str(refused.value)


def nested(levels: int) -> Schema:
    """Lists within lists in an object, so deep in all."""
    schema: Schema = {"const": 1}
    for _ in range(levels - 4):
        schema = {"type": "array", "items": schema}
    return of({"deep": schema})


@pytest.mark.parametrize(
    "schema",
    [
        PERSON,
        of(),
        of({"a": PERSON, "b": {"type": "array", "items": PERSON, "minItems": 1}}, **{"$schema": DIALECT}),
        of({"a": {"anyOf": [STRING, {"type": "null"}]}, "b": {"type": ["string", "null"]}}),
        of({"a": {"enum": ["x", 1, None]}, "b": {"const": {"any": ["thing"]}}}),
        of({"a": {"$ref": "#/$defs/p"}, "b": {"$ref": "#/$defs/p"}}, **{"$defs": {"p": PERSON}}),
        of({"a": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": of({"y": {"$ref": "#/$defs/y"}}), "y": STRING}}),
        of({"a": {"$ref": "#/definitions/p~1q"}}, definitions={"p/q": PERSON}),
        of({"a": {"type": "string", "format": "date", "pattern": "^x"}}),
        of({"minimum": STRING, "enum": STRING, "$ref": STRING, "items": PERSON}),
        of({"a": {"type": "string", "default": {"minimum": 1}, "examples": [{"type": "object"}]}}),
        of({"a": True}),
    ],
)
def test_what_the_api_takes_is_taken(schema: Schema) -> None:
    check(schema)


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ({}, "output_schema: its type must be 'object'"),
        ({"type": "array", "items": STRING}, "output_schema: its type must be 'object'"),
        ({"type": ["object", "null"]}, "output_schema: its type must be 'object'"),
        ({"$ref": "#/$defs/p", "$defs": {"p": PERSON}}, "output_schema: its type must be 'object'"),
        (of({"a": {"type": "strnig"}}), 'output_schema: the schema cannot be used: /properties/a/type: "strnig" is'),
        ({"type": "object", "properties": 5}, "output_schema: the schema cannot be used: /properties: 5 is not of"),
        (of({"a": {"enum": 5}}), "output_schema: the schema cannot be used: /properties/a/enum: 5 is not of"),
        (of({"a": {"$ref": "#/$defs/no"}}), "output_schema: the schema cannot be used: "),
        (of({"a": {"$ref": "https://example.com/a"}}), "output_schema: the schema cannot be used: "),
        (of({"a": {"$ref": "file:///etc/passwd"}}), "output_schema: the schema cannot be used: "),
        (of({}, **{"$schema": "http://json-schema.org/draft-07/schema#"}), "output_schema: the schema says it is"),
        ({"type": "object"}, "output_schema: Claude's API needs additionalProperties: false in every object"),
        (
            of({"a": {"type": "object", "additionalProperties": True}}),
            "output_schema: /properties/a: Claude's API needs additionalProperties: false in every object",
        ),
        (
            of({"a": {"type": "array", "items": {"anyOf": [STRING, {"type": ["object", "null"]}]}}}),
            "output_schema: /properties/a/items/anyOf/1: Claude's API needs additionalProperties: false in every",
        ),
        (
            of(**{"$defs": {"p": {"type": "object", "additionalProperties": STRING}}}),
            "output_schema: /$defs/p: Claude's API needs additionalProperties: false in every object",
        ),
        (of({"a": {"type": "integer", "minimum": 0}}), "output_schema: /properties/a: Claude's API takes no minimum"),
        (of({"a": {**STRING, "maxLength": 9}}), "output_schema: /properties/a: Claude's API takes no maxLength"),
        (of({"a": {"type": "array", "maxItems": 9}}), "output_schema: /properties/a: Claude's API takes no maxItems"),
        (
            of({"a": {"type": "array", "minItems": 2}}),
            "output_schema: /properties/a: Claude's API takes no minItems but 0 and 1",
        ),
        (
            of({"a": {"enum": ["x", {"y": 1}]}}),
            "output_schema: /properties/a: Claude's API takes no objects and lists in an enum",
        ),
    ],
)
def test_what_no_answer_can_be_made_to_fit_is_one_clear_sentence(schema: Schema, sentence: str) -> None:
    said = refusal(schema)
    assert said.startswith(sentence)
    assert len(said) < 400


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (of({"a": {"$ref": "#"}}), "/properties/a"),
        (of({"a": {"$ref": "#/properties/a"}}), "/properties/a"),
        (of({"a": {"type": "array", "items": {"$ref": "#"}}}), "/properties/a/items"),
        (
            of({"a": {"$ref": "#/$defs/p"}}, **{"$defs": {"p": of({"b": {"$ref": "#/$defs/p"}})}}),
            "/$defs/p/properties/b",
        ),
        (
            of(**{"$defs": {"p/q": of({"b": {"$ref": "#/$defs/p~1q"}})}}),
            "/$defs/p~1q/properties/b",
        ),
        (of(**{"$defs": {"a b": of({"b": {"$ref": "#/$defs/a%20b"}})}}), "/$defs/a b/properties/b"),
        (
            of(**{"$defs": {"x": of({"y": {"$ref": "#/$defs/y"}}), "y": {"anyOf": [STRING, {"$ref": "#/$defs/x"}]}}}),
            "/$defs/",
        ),
    ],
)
def test_a_schema_that_leads_back_to_itself_is_refused(schema: Schema, place: str) -> None:
    said = refusal(schema)
    assert said.startswith(f"output_schema: {place}")
    assert said.endswith(": Claude's API takes no schema that leads back to itself")


def test_a_schema_has_a_largest_size_and_depth() -> None:
    schema = of({"a": {**STRING, "description": "€" * 50}})
    size = len(str(schema).replace("'", '"').replace(" ", "").replace("False", "false").encode())
    check(schema, size)
    assert refusal(schema, size - 1) == (
        f"output_schema: it has {size} bytes, and {size - 1} are the most (claude.max_output_schema_bytes)"
    )
    check(nested(64))
    assert refusal(nested(65)) == "output_schema: it is nested deeper than 64 levels"


def test_a_schema_that_multiplies_is_checked_at_once() -> None:
    """Without a memory, two references in each of these to the next one would be a billion."""
    names = [f"d{number}" for number in range(30)]
    defs: Schema = {a: of({"x": {"$ref": f"#/$defs/{b}"}, "y": {"$ref": f"#/$defs/{b}"}}) for a, b in pairwise(names)}
    check(PERSON)  # imports what there is to import
    begun = time.process_time()
    check(of({"a": {"$ref": "#/$defs/d0"}}, **{"$defs": {**defs, names[-1]: STRING}}))
    assert time.process_time() - begun < 1


# --- answers ---


def test_an_answer_that_fits_is_the_value() -> None:
    value = {"name": "Ada", "age": 36}
    assert read(' {"name": "Ada", "age": 36}\n') == Output(value)


@pytest.mark.parametrize("stop_reason", ["max_tokens", "stop_sequence", "max_steps"])
def test_an_answer_that_is_whole_is_the_value_whatever_stopped_the_turn(stop_reason: str) -> None:
    assert read('{"name": "Ada"}', stop_reason) == Output({"name": "Ada"})


@pytest.mark.parametrize(
    ("text", "stop_reason", "problem"),
    [
        ("I would rather not.", "refusal", "Claude refused to answer"),
        ('{"name": "Ada"}', "refusal", "Claude refused to answer"),
        ('{"name": "A', "max_tokens", "the answer was cut, because it had as many tokens as it may have (max_tokens)"),
        ("", "max_tokens", "the answer was cut, because it had as many tokens as it may have (max_tokens)"),
        (
            '{"na',
            "model_context_window_exceeded",
            "the answer was cut, because the conversation fills what the model can hold",
        ),
        ("I look.", "max_steps", "the turn was stopped by max_steps"),
        ("Ada", "end_turn", "the answer is not JSON"),
        ("", "end_turn", "the answer is not JSON"),
        ('```json\n{"name": "Ada"}\n```', "end_turn", "the answer is not JSON"),
        ('{"name": "Ada"} {"name": "Ada"}', "end_turn", "the answer is not JSON"),
        ('{"name": NaN}', "end_turn", "the answer is not JSON"),
        ('{"name": 1e999}', "end_turn", "the answer is not JSON"),
        ('{"age": ' + "9" * 5000 + "}", "end_turn", "the answer is not JSON"),
        ("[" * 100_000, "end_turn", "the answer is not JSON"),
        (
            '{"x": ' + "[" * 63 + "]" * 63 + "}",
            "end_turn",
            "the answer does not fit the schema: /x: no such field exists",
        ),
        ('{"x": ' + "[" * 64 + "]" * 64 + "}", "end_turn", "the answer is nested deeper than 64 levels"),
        ('{"age": 5}', "end_turn", "the answer does not fit the schema: /name: is required"),
        ("[]", "end_turn", 'the answer does not fit the schema: (the whole value): the list is not of type "object"'),
        ('{"name": "\\ud800"}', "end_turn", "the answer is not JSON"),
    ],
)
def test_an_answer_that_does_not_fit_is_a_problem_and_no_value(text: str, stop_reason: str, problem: str) -> None:
    output = read(text, stop_reason)
    assert output.value is None
    assert output.problem is not None
    assert output.problem.startswith(problem)


def test_a_problem_repeats_little_of_the_answer() -> None:
    output = read('{"name": 5, "' + "x" * 10_000 + '": 1}')
    assert output.problem is not None
    assert len(output.problem) < 700
