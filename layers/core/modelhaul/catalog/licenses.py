"""SPDX identifiers of the Hub's license identifiers.

https://huggingface.co/docs/hub/repositories-licenses, https://spdx.org/licenses/
"""

# fmt: off
_SPDX = (
    "AFL-3.0", "AGPL-3.0", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear",
    "BSL-1.0", "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-2.0", "CC-BY-NC-3.0",
    "CC-BY-NC-4.0", "CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0",
    "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0", "CDLA-Permissive-1.0",
    "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "ECL-2.0", "EPL-1.0", "EPL-2.0", "EUPL-1.1", "EUPL-1.2",
    "GPL-2.0", "GPL-3.0", "ISC", "LGPL-2.1", "LGPL-3.0", "LPPL-1.3c", "MIT", "MPL-2.0", "MS-PL", "NCSA",
    "OFL-1.1", "OSL-3.0", "PostgreSQL", "Unlicense", "WTFPL", "Zlib", "etalab-2.0",
)
# fmt: on
# The Hub names these licenses without their only version. `gpl`, `lgpl`, `bsd` and `cc` may be any of several licenses.
_ONLY_VERSIONS = {"odbl": "ODbL-1.0", "odc-by": "ODC-By-1.0", "pddl": "PDDL-1.0", "lgpl-lr": "LGPLLR"}
_BY_NAME = {identifier.lower(): identifier for identifier in _SPDX} | _ONLY_VERSIONS


def find_spdx_identifier(license_id: str) -> str | None:
    """Return the SPDX identifier of a license of the Hub, None if it has none."""
    return _BY_NAME.get(license_id.lower())
