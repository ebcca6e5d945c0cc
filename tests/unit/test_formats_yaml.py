import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhaul.domain.findings import ContentReport, FindingKind, Severity
from modelhaul.inspection.formats.yaml_files import MAX_SIZE, inspect_yaml

SPEECHBRAIN = b"""
# Feature parameters
n_mels: 80
sample_rate: 16000
seed: !ref <n_mels> + 1
__set_seed: !apply:torch.manual_seed [!ref <seed>]
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
modules:
    compute_features: !ref <compute_features>
shape: !tuple (3, 4)
label: !PLACEHOLDER
copy: !copy <modules>
"""


def inspect(content: bytes | str) -> ContentReport:
    data = content.encode() if isinstance(content, str) else content
    return inspect_yaml(lambda start, end: data[start:end], len(data))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "a: 1\nb: [x, 2.5, ~, true, 2001-12-14]\nc: {d: 'e', f: !!str 3, g: !!binary aGk=}\n",
        "--- !!set {a, b}\n...\n--- !!omap [a: 1]\n",
        "a: &x {b: 1}\nc: {<<: *x}\nd: *x\n",
        "a: |\n  !!python/object:os.system\nb: '!apply:os.system'\n# !!python/x\n",
        "a: '_target_'\n",
        "\ufefflanguage: de\n",
    ],
)
def test_plain_yaml_is_clean(content: str) -> None:
    assert inspect(content) == ContentReport("yaml")


def test_constructors_of_known_packages_are_medium() -> None:
    report = inspect(SPEECHBRAIN)
    assert report.reason is None
    assert {(finding.kind, finding.severity) for finding in report.findings} == {
        (FindingKind.YAML_CONSTRUCTOR, Severity.MEDIUM)
    }


@pytest.mark.parametrize(
    "content",
    [
        "a: !apply:os.system ['true']",
        "a: !apply:speechbrain.utils.superpowers.run_shell ['true']",
        "a: !apply:torch.hub.load ['a/b', 'c']",
        "a: !new:subprocess.Popen {args: true}",
        "a: !name:builtins.eval",
        "a: !module:os",
        "a: !applyref:os.system [true]",
        "a: !new:speechbrainx.os.system",
        "a: !include:/etc/passwd",
        "a: !include:../other.yaml",
        "a: !!python/object/apply:os.system [true]",
        "a: !!python/name:os.system ''",
        "a: !<tag:yaml.org,2002:python/object:os.system> {}",
        "%TAG !p! tag:yaml.org,2002:python/\n---\na: !p!name:os.system ''",
        "%TAG ! !apply:\n---\na: !os.system [true]",
        "a: !%61pply:os.system [true]",
        "!apply:os.system [true]",
        "? !apply:os.system [true]\n: 1",
        "a: &x !apply:os.system [true]",
        "_target_: os.system",
        "a: {_target_: subprocess.Popen, args: [true]}",
        '"_targ\\x65t_": builtins.eval',
    ],
)
def test_other_constructors_are_unsafe(content: str) -> None:
    findings = inspect(content).findings
    assert [(finding.kind, finding.severity) for finding in findings] == [(FindingKind.YAML_CONSTRUCTOR, Severity.HIGH)]
    assert findings[0].detail.isprintable()


def test_targets_outside_the_standard_library_are_medium() -> None:
    (finding,) = inspect("encoder: {_target_: nemo.collections.asr.modules.ConformerEncoder}").findings
    assert finding.severity is Severity.MEDIUM
    (finding,) = inspect("a: !include:other.yaml").findings
    assert finding.severity is Severity.MEDIUM


@pytest.mark.parametrize(
    "content",
    [
        b"a: [",
        b"a: 'b",
        b"\x00",
        b"\xff\xfe\x00",
        b"a: !unknown 1",
        b"\t- a",
        b"a: *b\n",
        b"[" * 20_000,
        b" " * (MAX_SIZE + 1),
    ],
    ids=range(9),
)
def test_other_content_has_a_reason(content: bytes) -> None:
    assert inspect(content).reason is not None


def test_aliases_are_not_expanded() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 100))
    assert inspect(bomb) == ContentReport("yaml")


@given(st.binary(max_size=100) | st.text(max_size=100))
def test_any_content_has_a_report(content: bytes | str) -> None:
    inspect(content.encode("utf-8", "replace") if isinstance(content, str) else content)


def test_call_after_many_constructors_is_found() -> None:
    objects = "".join(f"a{number}: !new:torch.nn.Module{number} {{}}\n" for number in range(50))
    report = inspect(f"{objects}b: !apply:os.system [true]\n")
    assert report.findings[0].severity is Severity.HIGH
    assert len(report.findings) == 20
