"""ZIP archives as the standard library writes them."""

import io
import zipfile
from collections.abc import Mapping

from tests.weights import wrap_weights


def zip_files(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return body.getvalue()


def zip_models(*directories: str) -> bytes:
    """Return an archive of a tiny model in each directory; "" is the root of the archive."""
    model = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": wrap_weights(b"tiny")}
    return zip_files({f"{folder}/{path}".lstrip("/"): body for folder in directories for path, body in model.items()})
