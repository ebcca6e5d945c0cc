"""The Hugging Face Hub as a `modelhaul.ports.model_sources.ModelSource`."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from modelhaul.domain.errors import AccessRequiredError, CredentialsRefusedError
from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel
from modelhaul.ports.byte_streams import ByteStream
from modelhaul_sources.download import HttpDownloader
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import DEFAULT_TIMEOUTS, Timeouts

if TYPE_CHECKING:
    from modelhaul_sources.huggingface_api import HubApi


class HuggingFaceSource:
    """The Hub at `policy.endpoint`. `token` is asked for at each call; without it, models are public."""

    def __init__(
        self,
        policy: HostPolicy,
        *,
        token: Callable[[], str | None] | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        self._policy = policy
        self._find_secret = token
        self._downloader = HttpDownloader(policy, timeouts=timeouts)

    def load_client(self) -> None:
        """Loads now what the first question would."""
        self._open_api()

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        return self._open_api().resolve(name, revision, self._find_token())

    def list_files(self, model: ResolvedModel) -> Iterator[SourceFile]:
        return self._open_api().list_files(model, self._find_token())

    def open_range(self, model: ResolvedModel, file: SourceFile, start: int, end: int) -> ByteStream:
        token = self._find_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{self._policy.endpoint}/{quote(model.name)}/resolve/{model.commit}/{quote(file.path)}"
        try:
            return self._downloader.open_range(url, start, end, file.size, headers)
        except AccessRequiredError:
            raise AccessRequiredError(
                f"the Hub refuses the files of {model.name}: it is gated or private, and the token in the "
                "secret of the parameter HuggingFaceTokenSecret, if there is one, has no access to it"
            ) from None

    def prepare_files(self, files: Sequence[SourceFile]) -> None:
        """Each file has an address that needs no asking."""

    def locate(self, model: ResolvedModel, file: SourceFile) -> None:
        """The Hub's files do not lie in S3 where it could copy them from."""

    def _open_api(self) -> "HubApi":
        # huggingface_hub takes 0.2 s to import, and a transfer does not need it. It reads the variable then;
        # with telemetry on, its first call fetches and stores a list that is of no use here.
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        from modelhaul_sources.huggingface_api import HubApi  # noqa: PLC0415

        return HubApi(self._policy)

    def _find_token(self) -> str | None:
        token = ((self._find_secret() if self._find_secret else None) or "").strip()
        if token.isascii() and token.isprintable() and " " not in token:
            return token or None
        raise CredentialsRefusedError("the secret of the parameter HuggingFaceTokenSecret is not a bare token")
