"""GET /v1/upload/tasks/{task_id}"""

from aws_lambda_powertools.event_handler import Response

from modelhaul import wiring
from modelhaul.closing import describe_missing_task
from modelhaul.errors import TaskNotFoundError
from modelhaul.http import answer_json, create_app, create_handler, present_task
from modelhaul.settings import StoreSettings

app = create_app()
handler = create_handler(app)


@app.get("/upload/tasks/<task_id>")
def read_task(task_id: str) -> Response[str]:
    ledger = wiring.create_ledger()
    task = ledger.find_task(task_id)
    if task is None:
        raise TaskNotFoundError(describe_missing_task(task_id))
    bucket = StoreSettings.read().models_bucket
    return answer_json(present_task(task, ledger.find_model(task.model_id), bucket=bucket))
