"""Files of the imported models, as the API and the bucket return them."""

import base64
import json
from datetime import timedelta
from urllib.parse import parse_qs, quote, urlsplit

import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from deployment.verify.api import expect_problem, expect_status
from deployment.verify.archives import ODD_NAMES
from deployment.verify.checks.importing import IMPORTS, import_by_post, import_from_github, import_from_hub
from deployment.verify.checks.resources import find_key
from deployment.verify.contents import digest_content
from deployment.verify.imports import ImportedModel
from deployment.verify.registry import Verification, check
from deployment.verify.results import CheckFailedError, CheckSkippedError, expect, expect_true

SECTION = "reads"
URL_LIFETIME = timedelta(hours=1)
HASHES = {256: SHA256(), 384: SHA384(), 521: SHA512()}


def list_imported(verification: Verification) -> list[ImportedModel]:
    """Return the models of all sources whose import succeeded. Raises CheckSkippedError if there is none."""
    models = []
    for find in IMPORTS:
        try:
            models.append(find(verification))
        except CheckSkippedError:
            # The check of this import reports it.
            continue
    if not models:
        raise CheckSkippedError("no import succeeded")
    return models


@check("read-files", SECTION)
def check_files(verification: Verification) -> str:
    """Each file, read through the redirect of the API, has the sha256 of the manifest, the digest that its source has
    published, and the content that was uploaded.
    """
    files = size = 0
    for model in list_imported(verification):
        for file in model.record["manifest"]["files"]:
            subject = f"{model.record['name']}/{file['path']}"
            content = verification.imports.read_file(model, file["path"])
            expect(content.size, file["size"], f"size of {subject}")
            expect(content.sha256, file["sha256"], f"sha256 of {subject}")
            expect_true(
                content.matches(file["source_digest"]), f"{subject} does not match its digest {file['source_digest']}"
            )
            files, size = files + 1, size + content.size
        if model.files is not None:
            expect(sorted(model.paths), sorted(model.files), f"files of {model.record['name']}")
    return f"{files} files, {size:,} bytes"


@check("manifest", SECTION)
def check_manifest(verification: Verification) -> str:
    """`manifest_url` returns the manifest of the record, and its objects are in the bucket."""
    model = import_by_post(verification)
    response = verification.api.session.get(model.record["manifest_url"], timeout=60)
    expect_status(response, 200)
    expect_true(response.json() == model.record["manifest"], "manifest_url returns another manifest than the record")
    stored = verification.imports.list_keys(model)
    expect(sorted(stored), sorted(model.keys), "objects of the model")
    return f"{len(stored)} objects"


@check("signature", SECTION)
def check_signature(verification: Verification) -> str:
    """With Signing=KMS, a model has a signature of all its files by the key of the stack."""
    if verification.stack.parameters.get("Signing") != "KMS":
        raise CheckSkippedError("Signing is off")
    model = import_by_post(verification)
    expect_true("signature" in model.record, f"{model.record['name']} is not signed")
    recorded = model.record["signature"]
    expect(recorded["key_arn"], verification.stack.outputs["SigningKeyArn"], "key of the signature")
    envelope = verification.api.read(f"models/{model.model_id}/signature")["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"]
    # https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    key = load_pem_public_key(recorded["public_key"].encode())
    if not isinstance(key, EllipticCurvePublicKey):
        raise CheckFailedError("the public key is not one of an elliptic curve")
    try:
        key.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed, ECDSA(HASHES[key.key_size]))
    except InvalidSignature:
        raise CheckFailedError(f"the signature of {model.record['name']} is invalid") from None
    digests = {file["name"]: file["digest"] for file in json.loads(payload)["predicate"]["resources"]}
    expected = {file["path"]: file["sha256"] for file in model.record["manifest"]["files"]}
    expect(digests, expected, "signed files")
    return f"{len(digests)} files, {key.curve.name}"


@check("odd-names", SECTION)
def check_odd_names(verification: Verification) -> str:
    """Spaces, percent signs, plus signs and letters that are not ASCII in a path select the right file."""
    model = import_by_post(verification)
    contents = model.files or {}
    for path in ODD_NAMES:
        content = verification.imports.read_file(model, path)
        expected = digest_content([contents[path]], len(contents[path]))
        expect_true(content == expected, f"the content of {path!r} is that of another file")
    missing = verification.api.send("GET", f"models/{model.model_id}/files/{quote('names/missing')}")
    expect_problem(missing, 404, "file-not-found")
    return f"{len(ODD_NAMES)} names"


@check("source-digests", SECTION)
def check_source_digests(verification: Verification) -> str:
    """The files have the Git blob IDs that the source publishes now. For files of Git LFS, the ID of the pointer."""
    compared: list[str] = []
    unreachable: list[str] = []
    for find, list_blobs in ((import_from_hub, _list_hub_blobs), (import_from_github, _list_github_blobs)):
        try:
            model = find(verification)
        except CheckSkippedError:
            continue
        try:
            blobs = list_blobs(verification, model)
        except requests.RequestException as error:
            unreachable.append(type(error).__name__)
            continue
        for path in model.paths:
            content = verification.imports.read_file(model, path)
            expect_true(
                blobs.get(path) in {content.git_sha1, content.pointer_sha1},
                f"{path} has the blob ID {content.git_sha1} (pointer: {content.pointer_sha1}), the source has "
                f"{blobs.get(path)}",
            )
            compared.append(path)
    if not compared:
        raise CheckSkippedError(f"no source responds to this computer {unreachable or ''}".rstrip())
    return f"{len(compared)} files"


@check("presigned-urls", SECTION)
def check_presigned_urls(verification: Verification) -> str:
    """Presigned URLs of files are valid for an hour, and support ranges."""
    model = import_by_post(verification)
    url = verification.imports.find_file_url(model, "model.safetensors")
    query = parse_qs(urlsplit(url).query)
    seconds = int(query.get("X-Amz-Expires", ["0"])[0])
    expect(timedelta(seconds=seconds), URL_LIFETIME, "lifetime of a presigned URL")
    response = verification.api.session.get(url, headers={"Range": "bytes=0-7"}, timeout=60)
    expect_status(response, 206)
    expected = (model.files or {})["model.safetensors"][:8]
    expect(response.content, expected, "the first eight bytes of model.safetensors")
    return f"{seconds} s, 206"


@check("object-checksums", SECTION, not_on_local="the local stack does not compute checksums of copies")
def check_object_checksums(verification: Verification) -> str:
    """S3 has the CRC-32 of each whole object that was published, and it is that of the content."""
    bucket = verification.stack.outputs["ModelsBucket"]
    encryption = "aws:kms" if find_key(verification) else "AES256"
    count = 0
    for model in list_imported(verification):
        for path in model.paths:
            key = f"{model.record['manifest']['prefix']}{path}"
            found = verification.clients.s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
            content = verification.imports.read_file(model, path)
            if content.size == 0:
                continue
            expected = base64.b64encode(content.crc32.to_bytes(4, "big")).decode()
            expect(found.get("ChecksumCRC32"), expected, f"ChecksumCRC32 of {key}")
            expect(found.get("ChecksumType"), "FULL_OBJECT", f"ChecksumType of {key}")
            expect(found.get("ServerSideEncryption"), encryption, f"ServerSideEncryption of {key}")
            count += 1
    return f"{count} objects"


def _list_hub_blobs(verification: Verification, model: ImportedModel) -> dict[str, str]:
    endpoint = verification.stack.parameters["HuggingFaceEndpoint"].rstrip("/")
    route = f"api/models/{model.record['name']}/tree/{model.record['commit']}"
    response = verification.api.session.get(f"{endpoint}/{route}", params={"recursive": "true"}, timeout=30)
    response.raise_for_status()
    return {entry["path"]: entry["oid"] for entry in response.json() if entry["type"] == "file"}


def _list_github_blobs(verification: Verification, model: ImportedModel) -> dict[str, str]:
    endpoint = verification.stack.parameters["GitHubApiUrl"].rstrip("/")
    route = f"repos/{model.record['name']}/git/trees/{model.record['commit']}"
    response = verification.api.session.get(f"{endpoint}/{route}", params={"recursive": "1"}, timeout=30)
    response.raise_for_status()
    return {entry["path"]: entry["sha"] for entry in response.json()["tree"] if entry["type"] == "blob"}
