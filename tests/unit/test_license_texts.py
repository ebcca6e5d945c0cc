"""Licenses are recognized by their whole text, and by nothing less."""

import importlib.metadata
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identify.vendor.licenses import LICENSES

from modelhaul.policy.license_digests import LICENSE_DIGESTS
from modelhaul.policy.license_texts import build_digests, find_license, is_license_file

TEXTS = dict(LICENSES)
MIT, BSD, APACHE = TEXTS["MIT"], TEXTS["BSD-3-Clause"], TEXTS["Apache-2.0"]
_END = "END OF TERMS AND CONDITIONS"


def test_the_digests_are_those_of_the_texts() -> None:
    assert build_digests(LICENSES) == LICENSE_DIGESTS, "run python -m bench.licenses"


@pytest.mark.parametrize("identifier", TEXTS)
def test_every_text_is_recognized(identifier: str) -> None:
    text = TEXTS[identifier]
    assert find_license(text) == identifier.lower()
    assert find_license(text.replace("\n", "\r\n").upper()) == identifier.lower()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT.replace("[year] [fullname]", "2019-2025 Acme, Inc. and its contributors"), "mit"),
        (MIT.replace("MIT License", "# The MIT License (MIT)"), "mit"),
        (MIT.partition("Permission")[1] + MIT.partition("Permission")[2], "mit"),
        ("\ufeff" + MIT.replace('"', "“"), "mit"),
        ("\n\n".join(textwrap.fill(part, 50) for part in MIT.split("\n\n")), "mit"),
        (textwrap.indent(MIT, "# "), "mit"),
        (BSD.replace("the copyright holder nor", "Acme Research Labs, Inc. nor"), "bsd-3-clause"),
        (BSD.replace("[year], [fullname]", "(c) 2020, Acme").replace("1. ", "* ").replace("2. ", "* "), "bsd-3-clause"),
        (APACHE.partition(_END)[0] + _END, "apache-2.0"),
        (APACHE.replace("[yyyy] [name of copyright owner]", "2024 The Acme Authors. All rights"), "apache-2.0"),
    ],
)  # fmt: skip
def test_forms_of_a_text_are_recognized(text: str, expected: str) -> None:
    assert find_license(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MIT",
        "Licensed under the MIT License.",
        f"{MIT}\nThe Software may not be used for military purposes.",
        f"{MIT}\n不得用于商业用途",
        f"Non-commercial use only.\n{MIT}",
        f"Acme Research License\n\n{MIT}",
        MIT.replace("[year] [fullname]", "2025 Acme. For research purposes only."),
        MIT.replace("[year] [fullname]", "2025 Acme. No commercial use."),
        MIT.replace("without restriction", "with restrictions"),
        MIT.replace("without limitation the rights", "the rights"),
        MIT.replace(", sublicense, and/or sell", ""),
        f"{MIT}\n{APACHE}",
        APACHE.replace("irrevocable", "revocable", 1),
        BSD.replace("without\nmodification", "with\nmodification").replace("without modification", "unmodified"),
        MIT[:-200],
        "\udcff" * 10,
    ],
)
def test_other_texts_are_not_recognized(text: str) -> None:
    assert find_license(text) is None


@given(data=st.data())
def test_a_word_more_or_less_is_another_text(data: st.DataObject) -> None:
    words = APACHE.partition("TERMS AND CONDITIONS FOR USE")[2].partition("APPENDIX")[0].split()
    position = data.draw(st.integers(0, len(words) - 1))
    word = data.draw(st.sampled_from(["not", "noncommercial", "revocable", "条"]))
    prefix = APACHE.partition("TERMS AND CONDITIONS FOR USE")[0] + "TERMS AND CONDITIONS FOR USE "
    changed = [*words[:position], word, *words[position:]]
    assert find_license(prefix + " ".join(changed)) is None


def test_files_of_installed_packages_are_recognized_as_what_the_packages_declare() -> None:
    """Packages with several licenses have several files, or one file with several texts."""
    recognized: dict[str, str | None] = {}
    for package in importlib.metadata.distributions():
        declared = package.metadata.get("License-Expression")
        for file in package.files or ():
            if declared is None or ".dist-info/" not in str(file) or not is_license_file(file.name):
                continue
            found = find_license(Path(str(file.locate())).read_text(errors="replace"))
            recognized[f"{package.metadata['Name']}/{file.name}"] = found
            if " " not in declared:
                assert found in (None, declared.lower()), file
            else:
                assert found is None or found in declared.lower(), file
    assert len([name for name, found in recognized.items() if found]) >= 30


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("LICENSE", True),
        ("license.txt", True),
        ("LICENSE.md", True),
        ("LICENCE", True),
        ("LICENSE-MIT", True),
        ("UNLICENSE", True),
        ("COPYING", True),
        ("COPYING.LESSER", True),
        ("docs/LICENSE", False),
        ("NOTICE", False),
        ("LICENSE.pdf", False),
        ("license_checker.py", False),
        ("README.md", False),
        ("LICENSED", False),
    ],
)
def test_files_of_the_root_have_the_license(path: str, expected: bool) -> None:
    assert is_license_file(path) is expected
