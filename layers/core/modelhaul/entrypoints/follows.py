"""Bodies of requests and responses of the routes of follows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from modelhaul.catalog.presentation import format_time, present_model_error
from modelhaul.domain.follows import MAX_KEPT, Follow, FollowedImport, format_interval, parse_interval
from modelhaul.domain.models import Model, ModelStatus
from modelhaul.entrypoints.submissions import HubImport
from modelhaul.imports.follow import FollowChange


def _check_interval(text: str) -> str:
    parse_interval(text)
    return text


_Interval = Annotated[
    str,
    Field(
        max_length=10,
        description="How often the revision is checked: a number of hours, days or weeks such as `6h`, `1d` or `2w`, "
        "from 1 hour to 4 weeks.",
        examples=["1d"],
    ),
    AfterValidator(_check_interval),
]
_Kept = Annotated[int, Field(ge=1, le=MAX_KEPT)]


class FollowSelection(HubImport):
    """The files to import, as in the routes that import a model."""


class FollowRequest(BaseModel):
    """A revision to follow."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: Literal["HUGGINGFACE", "GITHUB"]
    name: str = Field(
        min_length=1,
        max_length=200,
        description="The name of the model on the Hugging Face Hub, or OWNER/REPOSITORY on GitHub.",
        examples=["google-bert/bert-base-uncased"],
    )
    revision: str = Field(
        default="main", min_length=1, max_length=255, description="A branch or a tag. A commit never moves."
    )
    selection: FollowSelection = FollowSelection()
    every: _Interval
    keep_newest: _Kept | None = Field(
        default=None,
        description="How many imported commits to keep. Older ones are deleted once a day, unless they are in use. "
        "Default: the follow deletes none. Retention rules of the policy apply nevertheless.",
    )

    @property
    def interval(self) -> timedelta:
        return parse_interval(self.every)


class FollowUpdate(BaseModel):
    """Changes of a follow. Omitted fields do not change."""

    model_config = ConfigDict(extra="forbid", strict=True)

    paused: bool | None = Field(
        default=None,
        description="`true` pauses the follow. `false` resumes it and checks it immediately: an import that failed, or "
        "whose model was deleted, is submitted again.",
    )
    every: _Interval | None = None
    keep_newest: _Kept | None = Field(default=None, description="How many imported commits to keep. `null`: no limit.")

    @property
    def change(self) -> FollowChange:
        return FollowChange(
            self.paused,
            None if self.every is None else parse_interval(self.every),
            self.keep_newest,
            keeps_all="keep_newest" in self.model_fields_set and self.keep_newest is None,
        )


def present_follows(follows: Sequence[Follow], models: Sequence[Model]) -> list[dict[str, Any]]:
    """Return follows, with the current status of their last imports. `models`: the records of these."""
    found = {model.model_id: model for model in models}
    return [present_follow(follow, found) for follow in follows]


def present_follow(follow: Follow, models: Mapping[str, Model]) -> dict[str, Any]:
    """Return a follow. `models`: by their IDs."""
    error = follow.last_error
    shown: dict[str, Any] = {
        "follow_id": follow.id,
        "source": follow.source.value,
        "name": follow.name,
        "revision": follow.revision,
        "every": format_interval(follow.every),
        "keep_newest": follow.keep_newest,
        "status": follow.status.value,
        "created_at": format_time(follow.created_at),
        "checked_at": follow.checked_at and format_time(follow.checked_at),
        "next_check": follow.next_check and format_time(follow.next_check),
        "waits_for_rate_limit": follow.waits_for_limit,
        "consecutive_failures": follow.failures,
        "last_import": follow.last_import and _present_import(follow.last_import, models),
        "last_error": error
        and {
            "type": error.type,
            "detail": error.detail,
            "retryable": error.retryable,
            "at": format_time(error.at),
            **({"remedy": error.remedy} if error.remedy else {}),
        },
    }
    if follow.created_by is not None:
        shown["created_by"] = follow.created_by
    if not follow.selection.is_whole:
        shown["selection"] = asdict(follow.selection)
    if follow.former_names:
        shown["former_names"] = list(follow.former_names)
    return shown


def _present_import(found: FollowedImport, models: Mapping[str, Model]) -> dict[str, Any]:
    model = models.get(found.model_id)
    return {
        "commit": found.commit,
        "previous_commit": found.previous_commit,
        "rewritten": found.is_rewritten,
        "found_at": format_time(found.found_at),
        "model_id": found.model_id,
        "task_id": found.task_id,
        "status": "DELETED" if model is None or model.status is ModelStatus.DELETING else model.status.value,
        **(present_model_error(model) if model is not None else {}),
    }
