"""Print the messages of a format for layers/core/modelhaul/inspection: `python make_schemas.py onnx`.

Needs the library that has them: onnx, sentencepiece, or tensorflow.
"""

import sys
from importlib import import_module
from typing import Any

ROOTS = {
    "onnx": ("onnx", "ModelProto"),
    "sentencepiece": ("sentencepiece.sentencepiece_model_pb2", "ModelProto"),
    "tensorflow": ("tensorflow.core.protobuf.saved_model_pb2", "SavedModel"),
    "keras": ("tensorflow.python.keras.protobuf.saved_metadata_pb2", "SavedMetadata"),
}
PACKAGES = ("onnx.", "tensorflow.", "sentencepiece.", "third_party.tensorflow.python.keras.protobuf.")
FIXED64, FIXED32, LENGTH, STRING, MESSAGE = (
    {1, 6, 16},
    {2, 7, 15},
    {9, 12},
    9,
    11,
)  # descriptor.proto's FieldDescriptorProto.Type
WIDTH = 118  # characters of a line


def name_message(descriptor: Any) -> str:
    name: str = descriptor.full_name
    for package in PACKAGES:
        name = name.removeprefix(package)
    return name


def read_syntax(file: Any) -> str:
    proto = import_module("google.protobuf.descriptor_pb2").FileDescriptorProto()
    file.CopyToProto(proto)
    syntax: str = proto.syntax
    return syntax


def describe_field(field: Any) -> str:
    if field.type == MESSAGE:
        kind = name_message(field.message_type)
    elif field.type in LENGTH:
        # Only of proto3 do all libraries refuse a string that is not UTF-8.
        kind = "string" if field.type == STRING and read_syntax(field.file) == "proto3" else "bytes"
    else:
        kind = "fixed64" if field.type in FIXED64 else "fixed32" if field.type in FIXED32 else "int"
    return f"{field.number}:{field.name}:{kind}{'*' if field.is_repeated else ''}"


def print_messages(root: Any) -> None:
    left, seen = [root], set()
    while left:
        descriptor = left.pop(0)
        if name_message(descriptor) in seen:
            continue
        seen.add(name_message(descriptor))
        line = name_message(descriptor)
        for field in sorted(descriptor.fields, key=lambda one: one.number):
            text = describe_field(field)
            if len(line) + 1 + len(text) > WIDTH:
                print(line)
                line = "   "
            line += f" {text}"
            if field.type == MESSAGE:
                left.append(field.message_type)
        print(line)


if __name__ == "__main__":
    module, message = ROOTS[sys.argv[1]]
    print_messages(getattr(import_module(module), message).DESCRIPTOR)
