"""Archives as people's tools make them, imported to published models over the in-memory deployment."""

import pytest

from modelhaul.domain.tasks import TaskStatus
from tests.archives.odd import ODD
from tests.fakes.deployment import Deployment

TOOLS = (
    "7-zip-26", "jar", "go", "zip-without-locale", "zip-to-a-pipe", "bsdtar-to-a-pipe", "powershell", "finder",
    "stored-checkpoint", "unmarked-utf8",
)  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS)
def test_an_archive_is_imported_with_every_file(tool: str) -> None:
    deployment = Deployment()
    task_id = deployment.drop(ODD[tool].data)
    deployment.run()
    assert deployment.find_task(task_id).status is TaskStatus.DONE
    files = {name.removeprefix("model/"): content for name, content in ODD[tool].files.items()}
    deployment.check_promises({f"models/local/model/{task_id}/": files})


@pytest.mark.parametrize("tool", ["powershell", "unmarked-utf8"])
def test_an_archive_is_posted_as_it_is_dropped(tool: str) -> None:
    deployment = Deployment()
    task = deployment.post(ODD[tool].data)
    deployment.run()
    assert deployment.find_task(task.id).status is TaskStatus.DONE
