"""`multipart/form-data` request bodies (RFC 7578) with one file."""

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
# Charsets that clients send. No other codec is looked up. https://datatracker.ietf.org/doc/html/rfc7578#section-4.5
_CHARSETS = ("utf-8", "utf8", "us-ascii", "iso-8859-1")
_MAX_PARTS = 16
_MAX_NAME_LENGTH = 100  # characters of a name in a message


@dataclass(frozen=True, slots=True)
class UploadForm:
    """Content and name of the file in the field `file`, and the value of the optional field `model_name`."""

    content: bytes
    file_name: str
    model_name: str | None


def read_upload_form(content_type: str, body: bytes) -> UploadForm:
    """Parse the form in memory. Raises InvalidFormError, also for unknown and duplicate fields."""
    boundary = parse_options_header(content_type)[1].get("boundary")
    if not boundary:
        raise InvalidFormError(f"The Content-Type {content_type[:_MAX_NAME_LENGTH]!r} has no boundary.")
    limit = len(body) + 1
    try:
        # A part above `spool_limit` would be written to a file.
        parser = MultipartParser(
            io.BytesIO(body),
            boundary,
            strict=True,
            part_limit=_MAX_PARTS,
            spool_limit=limit,
            memory_limit=limit,
        )
        parts = list(parser)
    except MultipartError as error:
        raise InvalidFormError(f"Invalid multipart/form-data body: {error}.") from None
    fields: dict[str, MultipartPart] = {}
    for part in parts:
        if part.name in fields:
            raise InvalidFormError(
                f"The form has a duplicate field {part.name[:_MAX_NAME_LENGTH]!r}. Send each field once."
            )
        fields[part.name] = part
    file = fields.get("file")
    if file is None or file.filename is None:
        raise InvalidFormError("The form must have a file in the field `file`.", field="file")
    unknown = [name for name in fields if name not in _FIELDS]
    if unknown:
        raise InvalidFormError(
            f"The form has the unknown field {unknown[0][:_MAX_NAME_LENGTH]!r}. Supported fields: `file`, `model_name`."
        )
    name = PurePosixPath(file.filename.replace("\\", "/")).name
    return UploadForm(file.raw, name[:255] or "archive.zip", _read_text(fields.get("model_name")))


def _read_text(part: MultipartPart | None) -> str | None:
    """Return the value, None for an empty one: browsers also send the fields that nobody has filled in."""
    if part is None:
        return None
    if part.charset.lower() not in _CHARSETS:
        charset = part.charset[:_MAX_NAME_LENGTH]
        raise InvalidFormError(f"Field `{part.name}` has the unsupported charset {charset!r}. Send UTF-8.")
    try:
        return str(part.value) or None
    except UnicodeDecodeError:
        raise InvalidFormError(f"Field `{part.name}` is not valid {part.charset} text. Send UTF-8.") from None
