"""The requests of clients that the tests cannot run, in the order in which their source code sends them.

hf-hub 0.5 (Rust; TEI, TGI): https://github.com/huggingface/hf-hub/blob/0064504b793d01ba8ca0eaa6bacb14628b79e922/src/api/tokio.rs
llama.cpp: https://github.com/ggml-org/llama.cpp/blob/0216dab364b886a4638020856333c07044453dd9/common/download.cpp
"""

from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import requests

_CHUNK_SIZE = 10_000_000


@dataclass(frozen=True)
class LoadedFile:
    """`commit` and `etag` are what a client stores in its cache."""

    content: bytes
    commit: str
    etag: str


class HfHubRust:
    """hf-hub 0.5, the asynchronous client. Raises requests.HTTPError."""

    def __init__(self, endpoint: str, key: str) -> None:
        self._endpoint = endpoint
        self._headers = {"Authorization": f"Bearer {key}", "User-Agent": "unkown/None; hf-hub/0.5.0; rust/unknown"}

    def list_files(self, repo_id: str, revision: str = "main") -> list[str]:
        response = _send("GET", f"{self._endpoint}/api/models/{repo_id}/revision/{revision}", self._headers)
        return [sibling["rfilename"] for sibling in response.json()["siblings"]]

    def load(self, repo_id: str, path: str, revision: str = "main") -> LoadedFile:
        url = f"{self._endpoint}/{repo_id}/resolve/{revision}/{path}"
        first = _send("GET", url, {**self._headers, "Range": "bytes=0-0"}, follow_other_hosts=False)
        etag = first.headers.get("x-linked-etag") or first.headers["etag"]
        commit = first.headers["x-repo-commit"]
        if first.is_redirect:
            # With the key: it is a default header of the client.
            first = _send("GET", first.headers["Location"], {**self._headers, "Range": "bytes=0-0"})
        size = int(first.headers["content-range"].rpartition("/")[2])
        content = b""
        for start in range(0, size, _CHUNK_SIZE):
            stop = min(start + _CHUNK_SIZE - 1, size)
            content += _send("GET", url, {**self._headers, "Range": f"bytes={start}-{stop}"}).content
        return LoadedFile(content, commit, etag.replace('"', ""))


class LlamaCpp:
    """llama.cpp with `-hf`. Raises requests.HTTPError."""

    def __init__(self, endpoint: str, key: str) -> None:
        self._endpoint = f"{endpoint}/"
        self._headers = {"Authorization": f"Bearer {key}", "User-Agent": "llama-cpp/b0"}

    def list_files(self, repo_id: str) -> tuple[str, dict[str, str]]:
        """Return the commit, and the digest of each file."""
        headers = {**self._headers, "Accept": "application/json"}
        refs = _send("GET", f"{self._endpoint}api/models/{repo_id}/refs", headers).json()
        commits = {branch["name"]: branch["targetCommit"] for branch in refs["branches"]}
        commit = commits.get("main") or next(iter(commits.values()))
        tree = _send("GET", f"{self._endpoint}api/models/{repo_id}/tree/{commit}?recursive=true", headers).json()
        entries = [entry for entry in tree if entry["type"] == "file"]
        return commit, {entry["path"]: entry.get("lfs", entry)["oid"] for entry in entries}

    def load(self, repo_id: str, commit: str, path: str, downloaded: bytes = b"") -> LoadedFile:
        """Return a file. `downloaded`: what an interrupted download left."""
        url = f"{self._endpoint}{repo_id}/resolve/{commit}/{path}"
        head = _send("HEAD", url, self._headers)
        assert head.headers["Accept-Ranges"] != "none"
        partial = {"Range": f"bytes={len(downloaded)}-"} if downloaded else {}
        response = _send("GET", url, self._headers | partial)
        assert response.status_code == (206 if downloaded else 200)
        return LoadedFile(downloaded + response.content, commit, head.headers["ETag"].strip('"'))


def _send(method: str, url: str, headers: dict[str, str], *, follow_other_hosts: bool = True) -> requests.Response:
    """Follow redirects as reqwest and cpp-httplib do: with the same method, without the key on another host."""
    while True:
        response = requests.request(method, url, headers=headers, allow_redirects=False, timeout=30)
        response.raise_for_status()
        target = urljoin(url, response.headers.get("Location", url))
        is_other_host = urlsplit(target).netloc != urlsplit(url).netloc
        if not response.is_redirect or (is_other_host and not follow_other_hosts):
            return response
        if is_other_host:
            headers = {name: value for name, value in headers.items() if name != "Authorization"}
        url = target
