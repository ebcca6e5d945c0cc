"""Pickles, and files of them, as builders for tests. Nothing here is ever unpickled."""

import collections
import pickle
import struct

from tests.archives.zipping import zip_files


def assemble(module: str, name: str, *, form: str = "global") -> bytes:  # noqa: PLR0911 - one for each form
    """A pickle that calls `module.name('x')`."""
    call = b"\x8c\x01x\x85R."
    text = [b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name)]
    match form:
        case "global":
            return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X\x01\x00\x00\x00x\x85R."
        case "stack":
            return b"\x80\x04" + text[0] + text[1] + b"\x93" + call
        case "memoized":
            return b"\x80\x04" + text[0] + b"\x94" + text[1] + b"\x94\x93\x94" + call
        case "by-memo":
            return b"\x80\x04" + text[0] + b"\x940" + text[1] + b"\x940" + b"h\x00h\x01\x93" + call
        case "frame":
            body = text[0] + text[1] + b"\x93" + call
            return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body
        case "text":
            return b"c" + f"{module}\n{name}\n".encode() + b"(S'x'\ntR."
        case "inst":
            return b"(S'x'\ni" + f"{module}\n{name}\n".encode() + b"."
        case "obj":
            return b"(c" + f"{module}\n{name}\n".encode() + b"S'x'\no."
    raise ValueError(form)


FORMS = ["global", "stack", "memoized", "by-memo", "frame", "text", "inst", "obj"]
SYSTEM = assemble("os", "system")
PLAIN = pickle.dumps({"a": [1, 2.5, "x", None, True, b"bytes"], "b": collections.OrderedDict(c=(1, 2))})


class CountedReads:
    """Reads of `content`, with the bytes of each in `sizes`."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.sizes: list[int] = []

    def __call__(self, start: int, end: int) -> bytes:
        self.sizes.append(end - start)
        return self._content[start:end]


def build_state_dict(kind: str = "FloatStorage") -> bytes:
    """As torch.save writes a state dict of two tied tensors: protocol 2, storages by persistent id."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    storage = (
        b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\nq\x03" + text("0") + text("cpu") + b"K\x04tq\x04Q"
    )
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\nq\x02(" + storage + b"K\x00K\x02K\x02\x86q\x05K\x02K\x01\x86q\x06"
    tensor += b"\x89ccollections\nOrderedDict\nq\x07)Rq\x08tq\x09Rq\x0a"
    body = b"ccollections\nOrderedDict\nq\x00)Rq\x01(" + text("weight") + tensor + text("tied") + b"h\x0au"
    return b"\x80\x02" + body + b"."


def build_torch_zip(pickled: bytes, **more: bytes) -> bytes:
    files = {"data.pkl": pickled, "byteorder": b"little", "data/0": bytes(64), "version": b"3\n"}
    files |= {".data/serialization_id": b"0" * 40, **more}
    return zip_files({f"model/{name}": content for name, content in files.items()})


def build_legacy(pickled: bytes, keys: bytes = pickle.dumps([], 2), storages: bytes = b"") -> bytes:
    """As torch.save wrote checkpoints before 1.6."""
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}, 2)
    return magic + pickle.dumps(1001, 2) + system + pickled + keys + storages


def build_array(descr: str, data: bytes) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (2,), }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data
