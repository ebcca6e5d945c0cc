"""The Hugging Face Hub, as a `modelhaul.ports.model_sources.ModelSource`."""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from modelhaul.domain.errors import AccessRequiredError
from modelhaul.domain.files import SourceFile
from modelhaul.domain.models import ResolvedModel
from modelhaul.ports.byte_streams import ByteStream
from modelhaul.ports.missing_models import UpstreamDocument, UpstreamFile, UpstreamRequest
from modelhaul_sources.download import HttpDownloader
from modelhaul_sources.hosts import HostPolicy
from modelhaul_sources.http_client import DEFAULT_TIMEOUTS, Timeouts
from modelhaul_sources.huggingface_documents import HubDocuments
from modelhaul_sources.huggingface_history import HubHistory
from modelhaul_sources.tokens import HUB_PARAMETER, read_token

if TYPE_CHECKING:
    from modelhaul_sources.huggingface_api import HubApi


class HuggingFaceSource:
    """The Hub at `policy.endpoint`. `token` is called for each request. Without it, only public models are found."""

    def __init__(
        self,
        policy: HostPolicy,
        *,
        token: Callable[[], str | None] | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        self._policy = policy
        self._read_secret = token
        self._downloader = HttpDownloader(policy, timeouts=timeouts)

    def load_client(self) -> None:
        """Import the API client now instead of at the first request."""
        self._open_api()

    def resolve(self, name: str, revision: str) -> ResolvedModel:
        return self._open_api().resolve(name, revision, self._find_token())

    def find_commit_date(self, model: ResolvedModel) -> datetime | None:
        return self._open_api().find_commit_date(model, self._find_token())

    def resolve_moved(self, name: str, revision: str, commit: str) -> ResolvedModel | None:
        return self._open_api().resolve_moved(name, revision, commit, self._find_token())

    def is_rewritten(self, model: ResolvedModel, earlier: str) -> bool | None:
        return HubHistory(self._policy).is_rewritten(model.name, model.commit, earlier, self._find_token())

    def find_missing_remedy(self, name: str) -> str:
        from modelhaul_sources.huggingface_api import describe_name_remedy  # noqa: PLC0415

        return describe_name_remedy(self._open_api().find_similar_names(name))

    def describe_file(self, name: str, revision: str, path: str) -> UpstreamFile | None:
        """Return the file as the Hub describes it to clients without a token, None if there is none.

        Raises the errors of `resolve`.
        """
        return self._open_api().describe_file(name, revision, path)

    def read_document(self, name: str, commit: str, request: UpstreamRequest) -> UpstreamDocument | None:
        """Return a document of the Hub's API as clients without a token get it, None if there is no such path.

        Raises the errors of `resolve`.
        """
        return HubDocuments(self._policy).read_document(name, commit, request)

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
                f"The Hub denied access to the files of {model.name}, which is gated or private. A token with read "
                f"access is required in {HUB_PARAMETER}."
            ) from None

    def prepare_files(self, files: Sequence[SourceFile]) -> None:
        """No-op: the URL of each file is known."""

    def locate(self, model: ResolvedModel, file: SourceFile) -> None:
        """Return None: S3 cannot copy the files of the Hub."""

    def _open_api(self) -> "HubApi":
        # huggingface_hub takes 0.2 s to import, and transfers do not need it. It reads the variable at its import.
        # With telemetry, its first call downloads and stores a list that is not needed here.
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        from modelhaul_sources.huggingface_api import HubApi  # noqa: PLC0415

        return HubApi(self._policy)

    def _find_token(self) -> str | None:
        return read_token(self._read_secret, HUB_PARAMETER)
