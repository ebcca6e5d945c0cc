"""`multipart/form-data` bodies (RFC 7578) with one file in them."""

import io
from dataclasses import dataclass
from pathlib import PurePosixPath

from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartParser,
    MultipartPart,
    parse_options_header,
)

from modelhaul.domain.errors import InvalidFormError

_FIELDS = ("file", "model_name")
# What clients send; a codec of any other name is not looked up. https://datatracker.ietf.org/doc/html/rfc7578#section-4.5
_CHARSETS = ("utf-8", "utf8", "us-ascii", "iso-8859-1")
_MAX_PARTS = 16
_MAX_SHOWN = 100  # characters of an unknown field's name


@dataclass(frozen=True, slots=True)
class UploadForm:
    """The field `file`: its content and what its sender calls it; and the field `model_name`, if there is one."""

    content: bytes
    file_name: str
    model_name: str | None


def read_upload_form(content_type: str, body: bytes) -> UploadForm:
    """Reads the form in memory. Raises InvalidFormError, also for other fields than these two and for repeated ones."""
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
        parts = list(parser)
    except MultipartError as error:
        raise InvalidFormError(f"The form cannot be read: {error}.") from None
    fields: dict[str, MultipartPart] = {}
    for part in parts:
        if part.name in fields:
            raise InvalidFormError(
                f"The form has more than one field {part.name[:_MAX_SHOWN]!r}. Send one archive in each request."
            )
        fields[part.name] = part
    file = fields.get("file")
    if file is None or file.filename is None:
        raise InvalidFormError("The form has no file in a field `file`.", field="file")
    unknown = [name for name in fields if name not in _FIELDS]
    if unknown:
        raise InvalidFormError(
            f"The form has an unknown field {unknown[0][:_MAX_SHOWN]!r}. Its fields are `file` and `model_name`."
        )
    name = PurePosixPath(file.filename.replace("\\", "/")).name
    return UploadForm(file.raw, name[:255] or "archive.zip", _read_text(fields.get("model_name")))


def _read_text(part: MultipartPart | None) -> str | None:
    if part is None:
        return None
    if part.charset.lower() not in _CHARSETS:
        raise InvalidFormError(f"The field `{part.name}` has the charset {part.charset[:_MAX_SHOWN]!r}. Send UTF-8.")
    try:
        return str(part.value)
    except UnicodeDecodeError:
        raise InvalidFormError(f"The field `{part.name}` is not valid text in {part.charset}. Send UTF-8.") from None
