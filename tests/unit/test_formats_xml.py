import pytest

from modelhaul.domain.findings import ContentReport, FileVerdict, FindingKind
from modelhaul.inspection.formats.xml_files import MAX_SIZE, inspect_xml

OPENVINO = b"""<?xml version="1.0"?>
<net name="model" version="11">
  <layers>
    <layer id="0" name="x" type="Parameter" version="opset1"><data shape="1,3" element_type="f32" /></layer>
    <layer id="1" name="w" type="Const" version="opset1"><data offset="0" size="12" element_type="f32" /></layer>
  </layers>
  <edges />
</net>
"""
PMML = b"""<?xml version="1.0" encoding="UTF-8"?>
<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/><DataDictionary/>
<RegressionModel functionName="regression"><Extension>&lt;&#65;</Extension></RegressionModel></PMML>
"""
SVG = b"""<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>"""


def inspect(content: bytes) -> ContentReport:
    return inspect_xml(lambda start, end: content[start:end], len(content))


@pytest.mark.parametrize(
    "content",
    [
        OPENVINO,
        PMML,
        SVG,
        b"<!DOCTYPE a><a/>",
        b"<a><![CDATA[<!ENTITY]]></a>",
        b"<a>" + b"<b>x</b>" * 300_000 + b"</a>",
    ],
    ids=range(6),
)
def test_plain_xml_is_clean(content: bytes) -> None:
    assert inspect(content) == ContentReport("xml")


@pytest.mark.parametrize(
    "content",
    [
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://host/x.dtd"> %x;]><a/>',
        b'<!DOCTYPE a SYSTEM "http://host/x.dtd"><a/>',
        b'<!DOCTYPE a PUBLIC "-//Other//" "http://host/x.dtd"><a/>',
        b'<!DOCTYPE a PUBLIC "-//W3C//X" "http://host/x.dtd"><a/>',
        b'<!DOCTYPE a PUBLIC "-//W3C//X" "http://www.w3.org.host/x.dtd"><a/>',
        b'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x" [<!ENTITY y "z">]><svg/>',
        b'<!DOCTYPE a [<!ENTITY a0 "x"><!ENTITY a1 "&a0;&a0;&a0;">]><a>&a1;</a>',
        "<!DOCTYPE a [<!ENTITY x 'y'>]><a/>".encode("utf-16"),
    ],
)
def test_entities_are_unsafe(content: bytes) -> None:
    report = inspect(content)
    assert report.verdict is FileVerdict.UNSAFE
    assert report.reason is not None
    assert [finding.kind for finding in report.findings] == [FindingKind.XML_ENTITY]
    assert report.findings[0].detail.isprintable()


@pytest.mark.parametrize(
    "content",
    [b"", b"text", b"<a>", b"<a></b>", b"<a/><b/>", b"<a>&x;</a>", b"<a>\x00</a>", b"<a>\xff</a>", b"<a>" * 2_000],
)
def test_other_content_has_a_reason(content: bytes) -> None:
    report = inspect(content)
    assert report.reason is not None
    assert report.findings == ()


def test_large_files_are_not_read() -> None:
    assert inspect_xml(lambda start, end: b"", MAX_SIZE + 1).reason is not None
