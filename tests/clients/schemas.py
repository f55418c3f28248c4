"""Turns a list of MCP tools, on standard input, into what the APIs of model providers take, with the providers' own packages. Prints
the names of the tools that each takes."""
import json
import sys
from types import SimpleNamespace

from agents.strict_schema import ensure_strict_json_schema
from google.genai import types
from google.genai._mcp_utils import mcp_to_gemini_tool

# What the strict mode of OpenAI's API takes, as its guide to structured outputs lists it.
STRICT = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const", "description", "pattern",
          "maxLength", "minimum", "maximum", "maxItems"}


def keywords(schema):
    """Returns the keywords of a schema and all schemas in it."""
    found = set(schema)
    nested = [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
    for one in [*nested, *([schema["items"]] if "items" in schema else [])]:
        found |= keywords(one)
    return found


def without(schema, keyword):
    """Returns a schema without a keyword, at any depth. No argument has its name."""
    if isinstance(schema, dict):
        return {name: without(value, keyword) for name, value in schema.items() if name != keyword}
    return [without(one, keyword) for one in schema] if isinstance(schema, list) else schema


def openai(tool):
    strict = ensure_strict_json_schema(tool["inputSchema"])
    unknown = keywords(strict) - STRICT
    assert not unknown, f"{tool['name']}: {unknown}"


def gemini(tool):
    # The package fails on `false`.
    schema = without(tool["inputSchema"], "additionalProperties")
    converted = mcp_to_gemini_tool(SimpleNamespace(name=tool["name"], description="", inputSchema=schema))
    parameters = converted.function_declarations[0].parameters
    assert set(parameters.properties or {}) == set(schema["properties"]), parameters
    # All values of enumerations are texts: others cannot be sent.
    types.Tool.model_validate_json(converted.model_dump_json(warnings="error"))


tools = json.load(sys.stdin)
taken = {}
for name, take in [("gemini", gemini), ("openai", openai)]:
    taken[name] = []
    for tool in tools:
        take(json.loads(json.dumps(tool)))
        taken[name].append(tool["name"])
print(json.dumps(taken))
