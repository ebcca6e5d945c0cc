"""The documentation page in a real browser, with the origins of AWS: the API and the buckets have different hosts."""

import base64
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import trustme
from selenium.webdriver.support.wait import WebDriverWait

from modelhaul import wiring
from modelhaul.adapters.s3 import S3ObjectStore
from modelhaul.adapters.s3_client import create_s3_client
from modelhaul.catalog.read import Catalog
from tests.browsers import DocumentationPage, open_browser
from tests.fakes.deployment import SOURCE_URLS, Deployment
from tests.fakes.model_source import InMemoryModelSource
from tests.http_servers import run_server
from tests.lambda_functions import Context, load_handler, read_event
from tests.template.transformed import apply_parameters, read_template, transform_template
from tests.unit.test_archive_pipeline import SMALL, make_archive, place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

REGIONS = ["eu-central-1", "us-east-1"]  # presigned URLs of us-east-1 have no Region
BUCKET = "modelhaul-modelsbucket-1a2b3c4d5e6f"
KEY = "0123456789abcdefghijklmnopqrstuvwxyzABCD"
DOWNLOAD = "Models-read_file"
UPLOAD = "Uploads-submit_local"
PATH = "1_Pooling/modèle 100%.json"
FILES = {"config.json": b'{"a": 1}', PATH: b'{"pooling": true}', "model.bin": bytes(range(256))}
# Events of the routes, with the functions behind them.
ROUTES = {
    "GET /v1/docs/": ("read_asset", "read_docs"),
    "GET /v1/docs": ("read_docs", "read_docs"),
    "GET /v1/openapi.json": ("read_openapi", "read_docs"),
    "GET /v1/models": ("read_file", "read_catalog"),
    "POST /v1/upload/local": ("submit_local", "submit_local"),
}


@pytest.fixture(scope="module")
def template(region: str) -> dict[str, Any]:
    parameters = {"AWS::Region": region}
    return apply_parameters(transform_template(read_template()), **parameters)["Resources"]  # type: ignore[no-any-return]


def resolve(value: Any, region: str) -> str:
    """Return the text of a property, in a Region of the partition `aws`."""
    text: str = value["Fn::Sub"] if isinstance(value, dict) else value
    return text.replace("${AWS::Region}", region).replace("${AWS::URLSuffix}", "amazonaws.com")


@dataclass
class Aws(ThreadingHTTPServer):
    """API Gateway with the functions, and S3 with one bucket and its CORS rules, as told apart by the host.

    `requests` are (method, host, path with query, headers).
    """

    region: str
    deployment: Deployment
    cors_rules: list[dict[str, Any]]
    requests: list[tuple[str, str, str, Mapping[str, str]]] = field(default_factory=list)
    # An instance of a function handles one request at a time, and the resolver of Powertools holds its event.
    invocation: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)

    __hash__ = ThreadingHTTPServer.__hash__

    @property
    def bucket_host(self) -> str:
        return (
            f"{BUCKET}.s3.amazonaws.com" if self.region == "us-east-1" else f"{BUCKET}.s3.{self.region}.amazonaws.com"
        )

    @property
    def api_host(self) -> str:
        return f"a1b2c3d4e5.execute-api.{self.region}.amazonaws.com"

    def find_cors(self, origin: str, method: str, headers: set[str]) -> dict[str, str]:
        """Return the headers of S3 for a request of a page, or no headers if no rule allows the request.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/cors.html
        """
        for rule in self.cors_rules:
            origins = [re.escape(resolve(one, self.region)).replace(r"\*", ".*") for one in rule["AllowedOrigins"]]
            allowed = {name.lower() for name in rule.get("AllowedHeaders", [])}
            if any(re.fullmatch(one, origin) for one in origins) and method in rule["AllowedMethods"]:
                if not headers <= allowed:
                    continue
                return {
                    "Access-Control-Allow-Origin": origin,
                    "Access-Control-Allow-Methods": ", ".join(rule["AllowedMethods"]),
                    "Access-Control-Allow-Headers": ", ".join(sorted(headers)),
                    "Access-Control-Expose-Headers": ", ".join(rule.get("ExposedHeaders", [])),
                }
        return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Aws

    def handle_request(self) -> None:
        host = self.headers["Host"]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, host, self.path, dict(self.headers.items())))
        status, headers, content = self.call_api(body) if host == self.server.api_host else self.call_s3()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_OPTIONS = handle_request  # noqa: N815 - names of the base class

    def call_api(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        path = urlsplit(self.path).path
        route = next((route for route in ROUTES if f"{self.command} {path}".startswith(route)), None)
        if route is None:
            return 404, {}, b""
        if "docs" not in route and "openapi" not in route and self.headers.get("x-api-key") != KEY:
            return 403, {"Content-Type": "application/json"}, b'{"message": "Forbidden"}'
        name, function = ROUTES[route]
        query = parse_qs(urlsplit(self.path).query)
        event: dict[str, Any] = read_event(name) | {
            "path": path.removeprefix("/v1"),
            "headers": dict(self.headers.items()),
            "multiValueHeaders": {header: [value] for header, value in self.headers.items()},
            "multiValueQueryStringParameters": query,
            "queryStringParameters": {key: values[0] for key, values in query.items()},
            "body": base64.b64encode(body).decode(),
            "isBase64Encoded": True,
        }
        if name == "read_file":
            model_id, _, file = path.removeprefix("/v1/models/").partition("/files/")
            event["pathParameters"] = {"model_id": model_id, "path": file}
        if name == "read_asset":
            event["pathParameters"] = {"asset": path.removeprefix("/v1/docs/")}
        with self.server.invocation:
            response = load_handler(function)(event, Context())
        headers = {name: values[0] for name, values in response["multiValueHeaders"].items()}
        return response["statusCode"], headers, (response["body"] or "").encode()

    def call_s3(self) -> tuple[int, dict[str, str], bytes]:
        origin = self.headers.get("Origin", "")
        if self.command == "OPTIONS":
            wanted = {name.strip() for name in self.headers.get("Access-Control-Request-Headers", "").split(",")}
            cors = self.server.find_cors(origin, self.headers["Access-Control-Request-Method"], wanted - {""})
            return (200 if cors else 403), cors, b""
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if "X-Amz-Signature" not in query:
            return 403, {}, b""
        headers = {"Content-Type": "binary/octet-stream"} | self.server.find_cors(origin, self.command, set())
        if disposition := query.get("response-content-disposition"):
            headers["Content-Disposition"] = disposition[0]
        return 200, headers, self.server.deployment.read(unquote(url.path).removeprefix("/"))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        pass


@pytest.fixture(params=REGIONS, scope="module")
def region(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_page_connects_to_buckets_of_its_region(region: str, template: dict[str, Any]) -> None:
    variables = template["ReadDocsFunction"]["Properties"]["Environment"]["Variables"]
    host = "s3.amazonaws.com" if region == "us-east-1" else f"s3.{region}.amazonaws.com"
    assert resolve(variables["DOWNLOAD_ORIGINS"], region) == f"https://*.{host}"


@pytest.fixture
def aws(region: str, template: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    variables = template["ReadDocsFunction"]["Properties"]["Environment"]["Variables"]
    monkeypatch.setenv("DOWNLOAD_ORIGINS", resolve(variables["DOWNLOAD_ORIGINS"], region))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    deployment = Deployment(InMemoryModelSource({"org/tiny": {"main": FILES}}))
    deployment.submit("org/tiny")
    deployment.run()
    rules = template["ModelsBucket"]["Properties"]["CorsConfiguration"]["CorsRules"]
    with closing(create_s3_client(region)) as client:
        signing = S3ObjectStore(client, BUCKET)
        store = deployment.store
        monkeypatch.setattr(store, "sign_read", signing.sign_read)
        catalog = Catalog(deployment.database.models, cast("Any", store), BUCKET, SOURCE_URLS, deployment.reads)
        monkeypatch.setattr(wiring, "create_catalog", lambda: catalog)
        monkeypatch.setattr(wiring, "create_archive_submitter", lambda: deployment.archive_submitter)
        server = Aws(region, deployment, rules)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("*.amazonaws.com").configure_cert(context)
        # A handshake in the thread of each request: idle connections of the browser must not block the others.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        with run_server(server):
            yield server


@pytest.fixture
def page(aws: Aws, tmp_path: Path) -> Iterator[DocumentationPage]:
    port = aws.server_address[1]
    with open_browser(tmp_path, f"host-resolver-rules=MAP *.amazonaws.com:443 127.0.0.1:{port}") as browser:
        page = DocumentationPage(browser)
        page.open(f"https://{aws.api_host}/v1/docs", KEY)
        yield page


@pytest.mark.parametrize("path", [PATH, "model.bin"])
def test_a_file_is_downloaded_from_the_bucket(aws: Aws, page: DocumentationPage, tmp_path: Path, path: str) -> None:
    (model,) = aws.deployment.database.models.list_models(limit=10).models
    page.try_out(DOWNLOAD)
    page.fill(DOWNLOAD, model_id=model.model_id, path=path)
    status, response = page.execute(DOWNLOAD)
    assert (status, page.list_errors()) == (200, []), response
    assert {host for _, host, _, _ in aws.requests} == {aws.api_host, aws.bucket_host}
    page.click("//a[text()='Download file']")
    saved = tmp_path / "downloads" / PurePosixPath(path).name
    WebDriverWait(page.browser, 30).until(lambda _: saved.exists())
    assert saved.read_bytes() == FILES[path]


@pytest.mark.parametrize("region", REGIONS[:1], indirect=True)
def test_only_the_pages_of_an_api_may_read_from_the_bucket(aws: Aws) -> None:
    headers = {"x-api-key"}
    assert aws.find_cors(f"https://{aws.api_host}", "GET", headers)
    for origin in ("https://example.com", f"https://{aws.api_host}.example.com", f"http://{aws.api_host}", "null"):
        assert aws.find_cors(origin, "GET", headers) == {}
    assert aws.find_cors(f"https://{aws.api_host}", "PUT", set()) == {}


@pytest.mark.parametrize("region", REGIONS[:1], indirect=True)
def test_a_form_creates_no_model_of_a_made_up_name(aws: Aws, page: DocumentationPage, tmp_path: Path) -> None:
    archive = tmp_path / "models.zip"
    archive.write_bytes(make_archive(place("a", SMALL)))
    page.try_out(UPLOAD)
    page.choose_content_type(UPLOAD, "multipart/form-data")
    page.find_field(UPLOAD, "file").send_keys(str(archive))
    status, response = page.execute(UPLOAD)
    assert status == 201, response
    aws.deployment.run()
    names = {model.resolved.name for model in aws.deployment.database.models.list_models(limit=10).models}
    assert names == {"org/tiny", "a"}
