"""The policy document: JSON with rules for imports and for retention. docs/policy.md describes it."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from modelhaul.domain.errors import InvalidPolicyError
from modelhaul.domain.findings import FindingKind, Severity
from modelhaul.domain.gate import GateVerdict
from modelhaul.domain.models import Source
from modelhaul.domain.name_patterns import MAX_PATTERN, is_name_pattern
from modelhaul.policy.facts import FORMATS
from modelhaul.policy.retention_rules import RetentionRule

MAX_DOCUMENT = 256 * 1024  # bytes
_MAX_RULES = 200
_MAX_VALUES = 100  # in the list of one condition
_MAX_SIZE = 10**18  # bytes
_MAX_DAYS = 36_500
_MAX_PROBLEMS = 5  # in a message
_MAX_PLACE = 200  # characters of a place in a message
_MAX_TEXT = 300  # characters of a problem in a message


class Effect(StrEnum):
    ALLOW = "allow"
    WARN = "warn"
    DENY = "deny"


def _check_pattern(pattern: str) -> str:
    if not is_name_pattern(pattern):
        raise ValueError(
            f"a pattern has 1 to {MAX_PATTERN} letters, digits, '.', '_', '-', '/', and '*' for any characters"
        )
    return pattern


def _check_format(name: str) -> str:
    if name not in FORMATS:
        raise ValueError(f"unknown format; the formats are {', '.join(sorted(FORMATS))}")
    return name


def _check_not_null[T](value: T | None) -> T:
    # A condition without a value must not become a rule that matches everything.
    if value is None:
        raise ValueError("must not be null")
    return value


# Not `type` statements: pydantic would add their names to the schema of the document.
_Pattern = Annotated[
    str,
    Field(min_length=1, max_length=MAX_PATTERN, json_schema_extra={"pattern": "^[A-Za-z0-9._/*-]+$"}),
    AfterValidator(_check_pattern),
]
_Format = Annotated[str, Field(json_schema_extra={"enum": sorted(FORMATS)}), AfterValidator(_check_format)]
_List = Field(min_length=1, max_length=_MAX_VALUES)
_Days = Annotated[int | None, Field(ge=1, le=_MAX_DAYS), BeforeValidator(_check_not_null)]
RuleId = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
Reason = Annotated[str, Field(min_length=1, max_length=500)]


class PolicyPart(BaseModel):
    """A part of the document. Unknown members and values of another type are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Conditions(PolicyPart):
    """All conditions of a rule must hold. The values of a list are alternatives. Without conditions, a rule matches
    every model.
    """

    source: Annotated[list[Source], _List] = Field(default=[], description="The model is from one of these sources.")
    name: Annotated[list[_Pattern], _List] = Field(
        default=[], description="The model's name at its source matches one of these patterns."
    )
    name_not: Annotated[list[_Pattern], _List] = Field(
        default=[], description="The model's name at its source matches none of these patterns."
    )
    license: Annotated[list[_Pattern], _List] = Field(
        default=[], description="The model has a license that matches one of these patterns."
    )
    license_not: Annotated[list[_Pattern], _List] = Field(
        default=[], description="The model has a license that matches none of these patterns."
    )
    gated: Annotated[bool | None, BeforeValidator(_check_not_null)] = Field(
        default=None, description="Whether the model is gated at its source."
    )
    commit_younger_than_days: _Days = Field(
        default=None, description="The commit was made less than this number of days ago."
    )
    commit_older_than_days: _Days = Field(
        default=None, description="The commit was made at least this number of days ago."
    )
    size_above: Annotated[int | None, Field(ge=0, le=_MAX_SIZE), BeforeValidator(_check_not_null)] = Field(
        default=None, description="The selected files have more bytes in total."
    )
    format: Annotated[list[_Format], _List] = Field(
        default=[], description="The format of at least one file of weights is one of these."
    )
    format_not: Annotated[list[_Format], _List] = Field(
        default=[], description="At least one file of weights has a format that is not in this list."
    )
    finding: Annotated[list[FindingKind], _List] = Field(
        default=[], description="The inspection has a finding of one of these kinds."
    )
    finding_severity: Annotated[list[Severity], _List] = Field(
        default=[],
        description="The inspection has a finding of one of these severities; with `finding`, the same finding.",
    )
    verdict: Annotated[list[GateVerdict], _List] = Field(
        default=[], description="The inspection has one of these verdicts on the model."
    )


class Rule(PolicyPart):
    """A rule for imports. The first rule with the effect `allow` or `deny` that matches decides."""

    id: RuleId
    effect: Effect
    reason: Reason = Field(description="Why the rule exists. Users read it when the rule denies an import or warns.")
    when: Conditions = Conditions()


class Policy(PolicyPart):
    """Rules for imports, in their order, and rules for retention."""

    # Named by documents for editors, which then complete and check members.
    schema_url: str = Field(default="", alias="$schema", max_length=500)
    version: Literal[1]
    default: Literal["allow", "deny"] = Field(
        default="allow", description="The decision if no rule with the effect `allow` or `deny` matches."
    )
    rules: list[Rule] = Field(default=[], max_length=_MAX_RULES)
    retention: list[RetentionRule] = Field(default=[], max_length=_MAX_RULES)

    @field_validator("version", mode="before")
    @classmethod
    def _check_version(cls, version: object) -> object:
        if type(version) is not int:  # True == 1 == 1.0
            raise ValueError("must be the number 1")
        return version

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        ids = [rule.id for rule in self.rules] + [rule.id for rule in self.retention]
        repeated = next((rule_id for rule_id in ids if ids.count(rule_id) > 1), None)
        if repeated is not None:
            raise ValueError(f"several rules have the id {repeated!r}")
        return self

    @property
    def needs_commit_date(self) -> bool:
        """Return whether a rule has a condition on the date of the commit, which takes a request to the source."""
        ages = ((rule.when.commit_younger_than_days, rule.when.commit_older_than_days) for rule in self.rules)
        return any(age != (None, None) for age in ages)


def encode_document(text: str) -> bytes:
    """Return the bytes of a document that a request contains. Raises InvalidPolicyError for lone surrogates."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidPolicyError(f"The policy document is not Unicode text (character {error.start}).") from None


def parse_policy(content: bytes) -> Policy:
    """Parse a policy document. Raises InvalidPolicyError with the place and the reason of up to five problems."""
    if len(content) > MAX_DOCUMENT:
        raise InvalidPolicyError(
            f"The policy document has {len(content):,} bytes. The limit is {MAX_DOCUMENT:,} bytes (256 KiB)."
        )
    _check_json(content)
    try:
        return Policy.model_validate_json(content)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidPolicyError(f"The policy document is invalid: {_describe_problems(problems)}.") from None


def _check_json(content: bytes) -> None:
    """Check what pydantic accepts: duplicate members, of which one would be ignored, and NaN."""
    try:
        json.loads(content.decode(), object_pairs_hook=_check_members, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidPolicyError(f"The policy document is not UTF-8 (byte {error.start}).") from None
    except json.JSONDecodeError as error:
        raise InvalidPolicyError(
            f"The policy document is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from None
    except RecursionError:
        raise InvalidPolicyError("The policy document is nested too deeply.") from None
    except ValueError:
        # An integer of more than 4,300 digits: https://docs.python.org/3/library/stdtypes.html#int-max-str-digits
        raise InvalidPolicyError("The policy document has a number with too many digits.") from None


def _check_members(members: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            raise InvalidPolicyError(f"The policy document has an object with two members {_show(name)}.")
        seen.add(name)


def _refuse_constant(name: str) -> None:
    raise InvalidPolicyError(f"The policy document has the number {name}, which is not JSON.")


def _describe_problems(problems: Sequence[Mapping[str, Any]]) -> str:
    shown = [f"{_locate(p['loc'])}: {_describe_problem(p)}" for p in problems[:_MAX_PROBLEMS]]
    more = f"; and {len(problems) - _MAX_PROBLEMS:,} more problems" if len(problems) > _MAX_PROBLEMS else ""
    return "; ".join(shown) + more


def _locate(location: Sequence[str | int]) -> str:
    """Return the place as a path, such as `rules[2].when.license[0]`."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{_show(part, quote=False)}" for part in location)
    return path.removeprefix(".")[:_MAX_PLACE] or "document"


def _describe_problem(problem: Mapping[str, Any]) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        text = "unknown member"
    return _show(text, quote=False)[:_MAX_TEXT]


def _show(text: str, *, quote: bool = True) -> str:
    """Return printable text: names of members may contain control characters and lone surrogates."""
    shown = repr(text[:_MAX_TEXT])
    return shown if quote else shown[1:-1]
