"""What a model's card says about the model. Its author wrote it, and nobody has verified it."""

from dataclasses import dataclass
from enum import StrEnum


class BaseModelRelation(StrEnum):
    ADAPTER = "adapter"
    FINETUNE = "finetune"
    MERGE = "merge"
    QUANTIZED = "quantized"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The metadata of a model card on the Hugging Face Hub, as far as it is valid.

    `licenses` are identifiers of the Hub (`apache-2.0`, `other`). `license_name` and `license_link` (a URL) describe
    the license `other`. `base_models` are names on the Hub. `library` and `pipeline_tag` are as on the model's page
    (`transformers`, `text-generation`). `omits_licenses`: the card has further licenses, which are invalid or too many.
    https://huggingface.co/docs/hub/model-cards#model-card-metadata
    """

    licenses: tuple[str, ...] = ()
    license_name: str | None = None
    license_link: str | None = None
    base_models: tuple[str, ...] = ()
    base_model_relation: BaseModelRelation | None = None
    library: str | None = None
    pipeline_tag: str | None = None
    omits_licenses: bool = False
