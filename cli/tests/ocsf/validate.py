"""Checks events, one a line on standard input, against a class of the published OCSF schema.

Arguments: the version of the schema, the class, and the profiles that the events use. The Python package ocsf-json-schema
contains the published schemas.
"""

import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

version, name, *profiles = sys.argv[1:]
published = get_ocsf_schema(version)
schema = OcsfJsonSchemaEmbedded(published).get_class_schema(name, profiles)
validator = Draft202012Validator(schema)


def captions(event, attributes):
    """Returns what is wrong with the text beside each id: it has to be the caption of the id."""
    for attribute, definition in attributes.items():
        sibling = definition.get("sibling")
        if sibling and attribute in event and sibling in event:
            entry = definition["enum"].get(str(event[attribute]))
            if entry is None or event[sibling] != entry["caption"]:
                yield f"{sibling} is {event[sibling]!r}, but {attribute} is {event[attribute]}"


count = failures = 0
for count, line in enumerate(sys.stdin, 1):
    event = json.loads(line)
    wrong = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(event)]
    wrong += captions(event, published["classes"][name]["attributes"])
    for text in wrong:
        failures += 1
        print(f"event {count}: {text}")
print(f"events: {count}, failures: {failures}")
sys.exit(failures > 0 or count == 0)
