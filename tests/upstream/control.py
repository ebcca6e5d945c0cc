"""The control routes of a loopback upstream that runs in another process; see RemoteUpstream for what each is sent."""

from collections.abc import Sequence
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from tests.upstream.faults import Fault
from tests.upstream.request_log import RequestRecord
from tests.upstream.server import Request, Response, create_json_response

_FAULTS = TypeAdapter(list[Fault])
_BRANCH_MOVE = TypeAdapter(dict[str, str])


class Upstream(Protocol):
    @property
    def requests(self) -> Sequence[RequestRecord]: ...
    @property
    def faults(self) -> Sequence[Fault]: ...

    def add_fault(self, *faults: Fault) -> None: ...
    def clear_faults(self) -> None: ...
    def clear_requests(self) -> None: ...
    def move_branch(self, repo_id: str, branch: str, revision: str) -> str: ...


def answer_control(upstream: Upstream, request: Request) -> Response:
    value: object = None
    try:
        match request.method, request.path:
            case "GET", "/_requests":
                value = [record.model_dump(mode="json") for record in upstream.requests]
            case "DELETE", "/_requests":
                upstream.clear_requests()
            case "GET", "/_faults":
                value = [fault.model_dump(mode="json") for fault in upstream.faults]
            case "POST", "/_faults":
                upstream.add_fault(*_FAULTS.validate_json(request.body))
            case "DELETE", "/_faults":
                upstream.clear_faults()
            case "POST", "/_branches":
                move = _BRANCH_MOVE.validate_json(request.body)
                value = {"sha": upstream.move_branch(move["repo_id"], move["branch"], move["revision"])}
            case _:
                return create_json_response(404, {"error": "no such control route"})
    except ValidationError as error:
        return create_json_response(422, {"error": str(error)})
    except KeyError as error:
        return create_json_response(404, {"error": f"unknown: {error}"})
    return create_json_response(200, value)
