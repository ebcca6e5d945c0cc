"""XML (PMML, OpenVINO IR, SVG): well-formed, without entities or an external document type."""

from xml.parsers import expat

from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.windows import WINDOW, ContentError, read_windows

MAX_SIZE = 256 * 1024 * 1024  # bytes
_MAX_DEPTH = 1_000  # nested elements
# Well-known document types, which programs do not download.
_KNOWN_TYPES = {
    "-//W3C//": ("http://www.w3.org/", "https://www.w3.org/"),
    "-//Apple//": ("http://www.apple.com/", "https://www.apple.com/"),
}
"""URLs, by the beginning of the public identifier."""


class _EntityError(Exception):
    """The document type declares an entity, or is external. The message is the detail of the finding."""


def inspect_xml(read: ReadRange, size: int) -> ContentReport:
    """Inspect an XML file. XML_ENTITY is a document type that declares entities, or that is external."""
    if size > MAX_SIZE:
        return ContentReport("xml", f"XML file has {size:,} bytes; the limit is {MAX_SIZE:,}")
    parser = _build_parser()
    try:
        for window in read_windows(read, 0, size):
            if len(window) == WINDOW and b">" not in window:
                # expat builds all attributes of a tag at once, which takes twenty times their size.
                raise ContentError("Unsupported: XML tag or text of more than 1 MiB")
            parser.Parse(window, False)
        parser.Parse(b"", True)
    except _EntityError as error:
        finding = Finding(FindingKind.XML_ENTITY, Severity.HIGH, str(error))
        return ContentReport("xml", "Content after the document type declaration was not inspected", (finding,))
    except expat.ExpatError as error:
        return ContentReport("xml", f"File is not valid XML: {expat.ErrorString(error.code)} (line {error.lineno})")
    except ContentError as error:
        return ContentReport("xml", str(error))
    return ContentReport("xml")


def _build_parser() -> expat.XMLParserType:
    depth = 0

    def begin_element(name: str, attributes: dict[str, str]) -> None:  # noqa: ARG001 - expat passes both
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise ContentError(f"File has more than {_MAX_DEPTH:,} nested elements")

    def end_element(name: str) -> None:  # noqa: ARG001
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin_element
    parser.EndElementHandler = end_element
    parser.StartDoctypeDeclHandler = _check_document_type
    parser.EntityDeclHandler = _refuse_entity
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    return parser


def _check_document_type(name: str, system: str | None, public: str | None, has_subset: int) -> None:
    addresses = next((urls for begin, urls in _KNOWN_TYPES.items() if (public or "").startswith(begin)), ())
    is_known = not has_subset and (system or "").startswith(addresses)
    if (system is not None or public is not None) and not is_known:
        raise _EntityError(f"Document type {name[:80]!a} is external: {(system or public or '')[:80]!a}")


def _refuse_entity(name: str, *_: object) -> None:
    raise _EntityError(f"Document type declares the entity {name[:80]!a}")
