"""Formats that are recognized but not parsed. A report names them."""

import re
from pathlib import PurePosixPath

_ARCHIVES = {
    b"7z\xbc\xaf\x27\x1c": "7-Zip archive",
    b"Rar!\x1a\x07": "RAR archive",
    b"MSCF": "cabinet archive",
    b"\x1f\x9d": "compress (.Z) data",
    b"\x1f\xa0": "compress (.Z) data",
    b"\x1f\x8b": "gzip data",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ\x00": "xz data",
    b"\x5d\x00\x00": "LZMA data",
    b"LZIP": "lzip data",
    b"\x28\xb5\x2f\xfd": "Zstandard data",
    b"\x04\x22\x4d\x18": "LZ4 data",
    b"\x02\x21\x4c\x18": "LZ4 data",
    b"\xff\x06\x00\x00sNaPpY": "Snappy data",
    b"xar!": "xar archive",
    b"!<arch>\n": "ar archive or Debian package",
    b"070701": "cpio archive",
    b"070702": "cpio archive",
    b"070707": "cpio archive",
    b"\xc7\x71": "cpio archive",
    b"\xed\xab\xee\xdb": "RPM package",
    b"hsqs": "SquashFS image",
    b"LHA": "LHA archive",
    b"\x60\xea": "ARJ archive",
    b"SIT!": "StuffIt archive",
    b"StuffIt": "StuffIt archive",
    b"MSWIM\x00": "WIM image",
    b"KDMV": "VMDK image",
    b"QFI\xfb": "QCOW image",
    b"conectix": "VHD image",
}
_MEDIA = {
    b"\x89PNG\r\n\x1a\n": "PNG image",
    b"\xff\xd8\xff": "JPEG image",
    b"GIF87a": "GIF image",
    b"GIF89a": "GIF image",
    b"BM": "BMP image",
    b"II*\x00": "TIFF image",
    b"MM\x00*": "TIFF image",
    b"\x00\x00\x01\x00": "icon",
    b"8BPS": "Photoshop image",
    b"\x76\x2f\x31\x01": "OpenEXR image",
    b"\xff\x0a": "JPEG XL image",
    b"OggS": "Ogg audio",
    b"fLaC": "FLAC audio",
    b"ID3": "MP3 audio",
    b"\xff\xfb": "MP3 audio",
    b"\xff\xf3": "MP3 audio",
    b"\xff\xf1": "AAC audio",
    b"MThd": "MIDI audio",
    b"#!AMR": "AMR audio",
    b"\x1a\x45\xdf\xa3": "Matroska or WebM video",
    b"FLV\x01": "Flash video",
    b"%PDF-": "PDF document",
    b"\xd0\xcf\x11\xe0": "Microsoft Office document",
    b"{\\rtf": "RTF document",
    b"\x00\x01\x00\x00\x00": "TrueType font",
    b"OTTO": "OpenType font",
    b"ttcf": "font collection",
    b"wOFF": "web font",
    b"wOF2": "web font",
}
_DATA = {
    b"\x89HDF\r\n\x1a\n": "HDF5 file",
    b"PAR1": "Parquet file",
    b"ARROW1": "Arrow file",
    b"ORC": "ORC file",
    b"Obj\x01": "Avro file",
    b"SQLite format 3\x00": "SQLite database",
    b"LMDB": "LMDB database",
    b"CDF\x01": "NetCDF file",
    b"CDF\x02": "NetCDF file",
    b"MATLAB 5.0": "MATLAB file",
    b"\x1b\x0a": "NCNN parameters",
    b"ftrt": "TensorRT engine",
    b"ptrt": "TensorRT engine",
    b"tkdb": "ggml file before GGUF",
    b"lmgg": "ggml file before GGUF",
    b"tjgg": "ggml file before GGUF",
    b"fmgg": "ggml file before GGUF",
    b"algg": "ggml adapter",
}
_AT = {
    (4, b"ftyp"): "MP4, HEIC or AVIF media",
    (4, b"moov"): "QuickTime video",
    (4, b"mdat"): "QuickTime video",
    (4, b"TFL3"): "TensorFlow Lite model",
    (4, b"ORTM"): "ONNX Runtime model",
    (4, b"ET12"): "ExecuTorch program",
    (8, b"WEBP"): "WebP image",
    (8, b"WAVE"): "WAV audio",
    (8, b"AVI "): "AVI video",
    (8, b"AIFF"): "AIFF audio",
    (257, b"ustar"): "tar archive",
    (2, b"-lh"): "LHA archive",
}
_NAMES = {
    ".br": "Brotli data",
    ".dmg": "disk image",
    ".iso": "disk image",
    ".img": "disk image",
    ".arrow": "Arrow file",
    ".avro": "Avro file",
    ".lzma": "LZMA data",
    ".mlmodel": "Core ML model",
    ".npy": "numpy array",
    ".pdiparams": "Paddle weights",
    ".pdmodel": "Paddle program",
    ".tar": "tar archive",
    ".tfrecord": "TFRecord file",
    ".tflite": "TensorFlow Lite model",
    ".z": "compress (.Z) data",
}
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_DISTINCTIVE = (b"%PDF-", b"!<arch>\n", b"{\\rtf")  # printable, but text does not begin with these


def recognize_opaque(head: bytes, path: str) -> str | None:
    """Return the name of a file's format, such as `RAR archive`; None for a format that is not known here.

    `head` are the first 2,048 bytes or more, or all. A name does not mean that the content was parsed.
    """
    # A file that begins with the letters of a magic number but has no control characters is text: "ORC is a format".
    is_text = _CONTROL.search(head) is None
    for magics in (_ARCHIVES, _MEDIA, _DATA):
        for magic, name in magics.items():
            if head.startswith(magic) and (not is_text or not _may_begin_text(magic)):
                return name
    for (offset, magic), name in _AT.items():
        if head[offset : offset + len(magic)] == magic and not is_text:
            return name
    return _NAMES.get(PurePosixPath(path).suffix.lower())


def _may_begin_text(magic: bytes) -> bool:
    return magic not in _DISTINCTIVE and magic.isascii() and magic.decode().isprintable()
