import bz2
import gzip
import lzma
import zlib

import pytest

from modelhaul.inspection.formats.opaque import recognize_opaque


@pytest.mark.parametrize(
    ("head", "path", "name"),
    [
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "a", "7-Zip archive"),
        (b"Rar!\x1a\x07\x01\x00", "a.bin", "RAR archive"),
        (b"MSCF\x00\x00\x00\x00", "a", "cabinet archive"),
        (b"\x1f\x9d\x90", "a", "compress (.Z) data"),
        (gzip.compress(b"a", mtime=0), "a.json", "gzip data"),
        (bz2.compress(b"a"), "a", "bzip2 data"),
        (lzma.compress(b"a"), "a", "xz data"),
        (lzma.compress(b"a", lzma.FORMAT_ALONE), "a", "LZMA data"),
        (b"\x28\xb5\x2f\xfd\x04", "a", "Zstandard data"),
        (b"!<arch>\ndebian-binary", "a", "ar archive or Debian package"),
        (b"070701" + b"0" * 8 + b"\x00", "a", "cpio archive"),
        (bytes(257) + b"ustar\x00", "a", "tar archive"),
        (b"\x00\x01", "a.tar.br", "Brotli data"),
        (b"\x00\x01", "a.iso", "disk image"),
        (b"\x89PNG\r\n\x1a\n\x00", "a.txt", "PNG image"),
        (b"\xff\xd8\xff\xe0", "a", "JPEG image"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "a", "WAV audio"),
        (b"\x00\x00\x00\x20ftypisom", "a", "MP4, HEIC or AVIF media"),
        (b"\x18\x00\x00\x00TFL3", "a", "TensorFlow Lite model"),
        (b"\x89HDF\r\n\x1a\n\x00", "a", "HDF5 file"),
        (b"PAR1\x15\x00", "a", "Parquet file"),
        (b"%PDF-1.7\n", "a", "PDF document"),
        (b"tjgg\x01\x00\x00\x00", "ggml.bin", "ggml file before GGUF"),
    ],
)
def test_known_formats_have_names(head: bytes, path: str, name: str) -> None:
    assert recognize_opaque(head, path) == name


@pytest.mark.parametrize(
    "head", [b"", b"{}", b"ORC is a format", b"BM25 scores", b"ID3 tags", b"LHA", b"SIT!", b"0707070707", b"GIF89a is"]
)
def test_text_that_begins_like_a_magic_number_is_not_recognized(head: bytes) -> None:
    assert recognize_opaque(head, "notes.txt") is None


def test_zlib_is_not_recognized() -> None:
    assert recognize_opaque(zlib.compress(b"a"), "a") is None
