"""`multipart/form-data` bodies (RFC 7578) with one file in them."""

import io
from dataclasses import dataclass
from pathlib import PurePosixPath

from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartParser,
    parse_options_header,
)

from modelhaul.errors import InvalidFormError

_MAX_PARTS = 16


@dataclass(frozen=True, slots=True)
class UploadForm:
    """The field `file`: its content and what its sender calls it; and the field `model_name`, if there is one."""

    content: bytes
    file_name: str
    model_name: str | None


def read_upload_form(content_type: str, body: bytes) -> UploadForm:
    """Reads the form in memory. Raises InvalidFormError."""
    boundary = parse_options_header(content_type)[1].get("boundary")
    if not boundary:
        raise InvalidFormError("The Content-Type multipart/form-data has no boundary.")
    whole = len(body) + 1
    try:
        # A part above `spool_limit` would go to a file.
        parser = MultipartParser(
            io.BytesIO(body),
            boundary,
            strict=True,
            part_limit=_MAX_PARTS,
            spool_limit=whole,
            memory_limit=whole,
        )
        fields = {part.name: part for part in parser}
    except MultipartError as error:
        raise InvalidFormError(f"The form cannot be read: {error}.") from None
    file = fields.get("file")
    if file is None or file.filename is None:
        raise InvalidFormError("The form has no file in a field `file`.", field="file")
    named = fields.get("model_name")
    name = PurePosixPath(file.filename.replace("\\", "/")).name
    return UploadForm(file.raw, name[:255] or "archive.zip", named.value if named is not None else None)
