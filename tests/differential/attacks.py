"""Streams that unpicklers may read differently: an import after, in or instead of harmless opcodes."""

import pickle
import random
import struct

from tests.pickles import FORMS, SYSTEM, assemble

_ODD = [
    *(
        b"I1\0x\n0",
        b"I\0\n0",
        b"L1\0\n0",
        b"F1\0x\n0",
        b"I0x1\n0",
        b"I017\n0",
        b"I1_0\n0",
        b"I 1\n0",
        b"I1 \n0",
        b"L1\n0",
    ),
    *(b"L0x1L\n0", b"I9999999999999999999999\n0", b"F1_0\n0", b"Finfinity\n0", b"F 1\n0", b"F.5\n0", b"I00001\n0"),
    *(
        b"Np0\0x\n0",
        b"Np0\n0g0\0\n0",
        b"Np 0\n0g+0\n0",
        b"Np1_0\n0",
        b"Np0_0\n0g00\n0",
        b"S'\xc3\xbc'\n0",
        b"S'\\x80'\n0",
    ),
    *(b"S'\\d'\n0", b"S'a'b'\n0", b'S"\\101"\n0', b"S'a\\\n'\n0", b"V\\u0041\n0", b"Va\0\n0", b"V\xff\n0", b"I02\n0"),
    *(
        b"V\\U0001f600\n0",
        b"V\\U00110000\n0",
        b"U\x01\xff0",
        b"T\x01\0\0\0\xff0",
        b"X\x03\0\0\0\xed\xa0\x800",
        b"X\x01\0\0\0\xff0",
    ),
    *(
        b"\x8a\x000",
        b"\x8a\x03\x01\0\x000",
        b"\x8b\x01\0\0\0\x010",
        b"\x8b\0\0\0\x000",
        b"M\x01\x000",
        b"N20",
        b"(1",
        b"(0",
    ),
    *(
        b"(N1",
        b"(t0",
        b"(l0",
        b"(d0",
        b"(NNd0",
        b"]N2a00",
        b"](e0",
        b"}(u0",
        b"\x8f(\x900",
        b"(\x910",
        b"N\x98",
        b"\x97",
    ),
    *(
        b"\x80\x03",
        b"\x80\x00",
        b"Nq\x050",
        b"Nr\0\0\0\x000",
        b"Nr\xff\0\0\x000",
        b"N\x940h\x000",
        b"N\x85\x86",
        b"P\n0",
    ),
    *(b"Px\n0", b"P\xff\n0", b"K\x01Q0", b"\x82\x01", b"c\n\n", b"\x95\0\0\0\0\0\0\0\0", b"N(NNu", b"(NoQ", b"K\x01."),
]
_WORDS = ["os", "system", "collections", "OrderedDict", "os", "system"]


def make_attack(generator: random.Random) -> bytes:
    make = generator.choice([_put_behind, _put_behind, _hide, _hide, _play_with_memo, _play_with_memo, _make_joblib])
    return make(generator)


def _call(generator: random.Random) -> bytes:
    return assemble("os", "system", form=generator.choice(FORMS))


def _put_behind(generator: random.Random) -> bytes:
    """Return a call after an unusual opcode, or after a part of one."""
    begins = generator.choice(
        [b"", b"", b"\x80\x02", b"\x80\x04", b"\x80\x05", pickle.dumps([1, "a"]), pickle.dumps(1, 0)]
    )
    odd = b"".join(generator.choice(_ODD) for _ in range(generator.choice([1, 1, 2])))
    if not generator.randrange(4):
        at = generator.randrange(len(odd))
        odd = odd[:at] + generator.choice([b"\0", b"\n", b"", b"N", b"("]) + odd[at + 1 :]
    return begins + odd + _call(generator).removeprefix(b"\x80\x04")


def _hide(generator: random.Random) -> bytes:
    """Return a call within data, with frames or lengths that make some readers continue at other positions."""
    call = generator.choice([b"", b"N", b".", b"a\n", b"\n", b"'\n"]) + _call(generator)
    opcode, width = generator.choice(
        [("C", 1), ("U", 1), ("X", 4), ("B", 4), ("T", 4), ("\x8c", 1), ("\x8d", 8), ("\x8e", 8)]
    )
    length = len(call) + generator.choice([0, 0, 0, 0, 1, -1, 256, 2**31])
    data = opcode.encode("latin-1") + (length % (1 << 8 * width)).to_bytes(width, "little") + call
    if not generator.randrange(3):
        data = (
            generator.choice([b"V", b"S'", b"I1\0", b"I", b"F", b"p", b"g"])
            + generator.choice([b"ab", b"\\u12"])
            + call
        )
    body = generator.choice([b"", b"N", b"N0", b"NN"]) + data + generator.choice([b".", b"0N.", b""])
    frame = b"\x95" + struct.pack("<Q", generator.randrange(len(body) + 3))
    at = generator.randrange(4)
    more = b"\x95" + struct.pack("<Q", generator.randrange(9)) if not generator.randrange(4) else b""
    return b"\x80\x04" + body[:at] + frame + body[at : at + 3] + more + body[at + 3 :]


def _play_with_memo(generator: random.Random) -> bytes:
    """Return an import of texts from the memo, stored in any order and at any index, or pushed in other ways."""
    parts = [generator.choice([b"\x80\x04", b"\x80\x04", b"", b"\x80\x02"])]
    for _ in range(generator.randrange(1, 6)):
        parts.append(_push_text(generator))
        parts.append(_put(generator))
        parts.append(generator.choice([b"0", b"0", b"0", b""]))
    parts += [_get(generator) if generator.randrange(3) else _push_text(generator) for _ in range(2)]
    return b"".join(parts) + b"\x93" + generator.choice([b".", b")R.", b""])


def _push_text(generator: random.Random) -> bytes:
    word = generator.choice(_WORDS).encode()
    length = len(word)
    forms = [
        *[b"\x8c%c%b" % (length, word)] * 4,
        b"X" + struct.pack("<I", length) + word,
        b"\x8d" + struct.pack("<Q", length) + word,
        b"U%c%b" % (length, word),
        b"T" + struct.pack("<I", length) + word,
        b"S'%b'\n" % word,
        b"V%b\n" % word,
        b"C%c%b" % (length, word),
        b"c_codecs\nencode\n\x8c%c%b\x85R" % (length, word),
    ]
    return generator.choice(forms)


def _put(generator: random.Random) -> bytes:
    index = generator.randrange(3)
    forms = [
        b"\x94",
        b"\x94",
        b"q%c" % index,
        b"p%d\n" % index,
        b"r" + struct.pack("<I", index),
        b"",
        b"p%d\0\n" % index,
    ]
    return generator.choice(forms)


def _get(generator: random.Random) -> bytes:
    index = generator.randrange(3)
    return generator.choice(
        [b"h%c" % index, b"h%c" % index, b"g%d\n" % index, b"j" + struct.pack("<I", index), b"g0%d\n" % index]
    )


def _make_joblib(generator: random.Random) -> bytes:
    """Return a joblib file in which a part of the dtype, the state or the padding may be modified."""
    rarity = generator.choice([6, 12, 30, 100])

    def is_modified() -> bool:
        return not generator.randrange(rarity)

    def unless(value: bytes, *others: bytes) -> bytes:
        return generator.choice(others) if is_modified() else value

    def text(value: str) -> bytes:
        return b"\x8c%c%b" % (len(value), value.encode())

    hidden = generator.choice(
        [SYSTEM, b"\x80\x04" + SYSTEM[2:], bytes(8), pickle.dumps([1]), b"\x0c" + b"\xff" * 12 + SYSTEM]
    )
    size = unless(
        b"K%c" % len(hidden), b"K\x00", b"K\x08", b"J\xff\xff\xff\xff", b"\x88", b"\x8a\x09" + b"\0" * 8 + b"\x01", b"N"
    )
    kind = generator.choice(["u1", "S1", "V1", "u1", unless(b"f8", b"O8", b"U1", b"M8", b"f4,O", b"b1").decode()])
    dtype = (
        text("numpy")
        + text("dtype")
        + b"\x93"
        + text(kind)
        + unless(b"\x89\x88", b"\x89\x89", b"\x88\x88")
        + b"\x87R\x94"
    )
    item = b"K\x01" if kind[0] in "SV" else b"J\xff\xff\xff\xff"
    state = b"(" + unless(b"K\x03", b"K\x04", b"K\x01") + text("|") + b"NN" + unless(b"N", b"}", text("a"))
    state += unless(item, b"K\x08", b"K\x00") + (b"K\x01" if kind[0] in "SV" else b"J\xff\xff\xff\xff")
    flags = unless(b"K\x00", b"K\x3f", b"K\x3f", b"K\x01", b"K\x08")
    state += flags + b"tb"
    dtype += state + (state.replace(b"K\x00tb", b"K\x3ftb") if is_modified() else b"")
    keys = [
        text("subclass") + text("numpy") + unless(text("ndarray"), text("dtype")) + b"\x93",
        text("shape") + unless(size + b"\x85", b")", size + size + b"\x86", b"]" + size + b"a"),
        text("order") + unless(text("C"), text("F"), b"N"),
        text("dtype") + unless(dtype, b"h\x00", dtype + b"0h\x00"),
        text("allow_mmap") + unless(b"\x89", b"\x88", b"N"),
        text("numpy_array_alignment_bytes") + unless(b"K\x10", b"N", b"K\x00", b"K\x08"),
    ]
    if is_modified():
        del keys[generator.randrange(6)]
    if is_modified():
        keys.append(generator.choice(keys))
    wrapper = text("joblib.numpy_pickle") + text("NumpyArrayWrapper") + b"\x93" + unless(b")\x81", b")R", b"N\x81")
    call = b"N" + (b"0" + SYSTEM[2:]).ljust(ord("N"), b"N")
    padding = unless(
        b"\x04\xff\xff\xff\xff", b"\x00", b"", b"\x02\xff\xff", b"\x01N", b"\x10" + b"\xff" * 16, call, call
    )
    if flags != b"K\x00" and generator.randrange(2):
        padding = b""
    build = unless(b"}(" + b"".join(keys) + b"ub", b"}(" + b"".join(keys) + b"u0b", b"N}(" + b"".join(keys) + b"u\x86b")
    return b"\x80\x04" + wrapper + build + padding + hidden + generator.choice([b".", b".", b"", b"0" + SYSTEM[2:]])
