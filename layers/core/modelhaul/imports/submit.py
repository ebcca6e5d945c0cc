"""Accept imports from hubs: resolve the requested model and claim it for a new task."""

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from modelhaul.catalog.quota import StorageQuota
from modelhaul.domain.audit import describe_submission
from modelhaul.domain.callers import repeats_requests
from modelhaul.domain.claims import check_claimable
from modelhaul.domain.errors import (
    ImportInProgressError,
    ModelExistsError,
    ModelNotFoundError,
    StorageUnavailableError,
)
from modelhaul.domain.hub_names import build_hub_id
from modelhaul.domain.messages import PlanImport
from modelhaul.domain.models import Model, ModelStatus, ResolvedModel, Source
from modelhaul.domain.policy_results import PolicyDecision
from modelhaul.domain.selection import WHOLE, Selection
from modelhaul.domain.tasks import Task
from modelhaul.imports.dispatch import CHECK_AFTER
from modelhaul.imports.import_policy import Candidate, ImportPolicy
from modelhaul.policy.facts import know_model
from modelhaul.ports.clock import Clock
from modelhaul.ports.hub_models import HubModelRepository
from modelhaul.ports.imports import ImportRepository
from modelhaul.ports.message_queue import MessageQueue
from modelhaul.ports.metrics import Metrics
from modelhaul.ports.model_sources import ModelResolver
from modelhaul.ports.models import ModelRepository

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImportSubmitter:
    """Accepts imports of models from a hub. Called by the hub's POST route."""

    imports: ImportRepository
    hub_models: HubModelRepository
    queue: MessageQueue
    open_resolver: Callable[[Source], ModelResolver]
    metrics: Metrics
    clock: Clock
    models: ModelRepository
    policy: ImportPolicy | None = None
    quota: StorageQuota | None = None

    def submit(
        self,
        source: Source,
        name: str,
        revision: str,
        selection: Selection = WHOLE,
        *,
        submitted_by: str | None = None,
    ) -> Task:
        """Accept one model, or a part of it. Each selection of a model's files is a separate model.

        Hub clients can then read the model by the requested name and revision, also if it was imported before. Raises
        the errors of ModelResolver.resolve and ImportRepository.claim_import, StorageQuotaError, PolicyDeniedError,
        PolicyUnavailableError.
        """
        try:
            resolved = self.resolve(source, name, revision)
        except ModelNotFoundError as error:
            # Only here, where a person reads the remedy: `resolve` is also called for reads of missing models.
            error.remedy = self.open_resolver(source).find_missing_remedy(name) or error.remedy
            raise
        return self.submit_resolved(source, replace(resolved, selection=selection), name, submitted_by=submitted_by)

    def resolve(self, source: Source, name: str, revision: str) -> ResolvedModel:
        return self.open_resolver(source).resolve(name, revision)

    def submit_resolved(
        self,
        source: Source,
        resolved: ResolvedModel,
        name: str,
        *,
        may_redirect: bool = False,
        submitted_by: str | None = None,
    ) -> Task:
        """Accept a model that was requested as `name`, as `submit` does. `may_redirect`: see `Model`."""
        now = self.clock()
        moment = datetime.fromtimestamp(now, UTC)
        task = Task(
            id=str(uuid.uuid4()),
            source=source,
            model_tag=f"{name}@{resolved.revision}",
            model_ids=(resolved.model_id,),
            created_at=moment,
            updated_at=moment,
            check_at=now + CHECK_AFTER,
            selection=resolved.selection,
            commit=resolved.commit,
            submitted_by=submitted_by,
        )
        model = Model(
            resolved.model_id,
            resolved,
            ModelStatus.IMPORTING,
            task.id,
            moment,
            moment,
            may_redirect=may_redirect,
            submitted_by=submitted_by,
        )
        try:
            if self.policy is not None:
                # The policy does not concern models that exist.
                check_claimable(task.id, self.models.find_models([model.model_id]))
                model = self._check_policy(self.policy, model)
            if self.quota is not None:
                self.quota.check_submission(models=[model])
            self.imports.claim_import(task, [model], entry=describe_submission(task, [model]))
        except ImportInProgressError:
            self.save_reference(resolved, name)
            raise
        except ModelExistsError:
            self.save_reference(resolved, name)
            self._index_model(resolved)
            raise
        self._save_name(name, resolved)
        context = {
            "task_id": task.id,
            "model_id": model.model_id,
            "model": resolved.name,
            "commit": resolved.commit,
            "selection": resolved.selection.describe(),
        }
        request_plan(task, self.queue, self.metrics, context)
        return task

    def _check_policy(self, policy: ImportPolicy, model: Model) -> Model:
        """Return the model, with the date of its commit if the policy needs it.

        Hub clients are not redirected to content at the source that the policy may still deny. Raises
        PolicyDeniedError, PolicyUnavailableError, and the errors of ModelResolver.find_commit_date.
        """
        resolved, caller = model.resolved, model.submitted_by

        def check() -> PolicyDecision:
            facts = know_model(resolved, model.created_at)
            (result,) = policy.check([Candidate(resolved, facts)], caller=caller, is_repeated=repeats_requests(caller))
            return result.decision

        decision = check()
        if policy.needs_commit_date():
            committed_at = self.open_resolver(resolved.source).find_commit_date(resolved)
            resolved = replace(resolved, committed_at=committed_at)
            decision = check()
        may_redirect = model.may_redirect and decision is PolicyDecision.ALLOW
        return replace(model, resolved=resolved, may_redirect=may_redirect)

    def save_reference(self, resolved: ResolvedModel, name: str) -> None:
        """Let Hub clients find the known model by the requested name and revision."""
        self._save_name(name, resolved)
        context = {"hub_id": resolved.hub_id, "revision": resolved.revision, "commit": resolved.commit}
        with _log_unavailable(**context):
            self.hub_models.save_revision(resolved, datetime.fromtimestamp(self.clock(), UTC))

    def _index_model(self, resolved: ResolvedModel) -> None:
        """Let Hub clients find a model that was imported before the Hub read API existed."""
        with _log_unavailable(hub_id=resolved.hub_id, model_id=resolved.model_id):
            self.hub_models.index_model(resolved.model_id, resolved.hub_id)

    def _save_name(self, name: str, resolved: ResolvedModel) -> None:
        """Record the requested name if it is not the canonical name: the source knows the model's earlier names."""
        requested_id = build_hub_id(resolved.source, name)
        if requested_id.lower() == resolved.hub_id.lower():
            return
        with _log_unavailable(requested_id=requested_id, hub_id=resolved.hub_id):
            self.hub_models.save_name(requested_id, resolved.hub_id)


@contextmanager
def _log_unavailable(**context: str) -> Iterator[None]:
    """Log that a name or a revision could not be recorded. The next submit records it."""
    try:
        yield
    except StorageUnavailableError as error:
        logger.warning("name or revision for Hub clients not recorded", extra={**context, "detail": error.detail})


def request_plan(task: Task, queue: MessageQueue, metrics: Metrics, context: Mapping[str, object]) -> None:
    """Count the accepted import and send its plan message. `context`: fields of the log message.

    The task is already recorded, so an error of the queue does not fail the request: the sweep sends the message.
    """
    metrics.count("ImportsAccepted")
    context = {**context, "source": task.source}
    try:
        queue.send([PlanImport(task_id=task.id)])
    except StorageUnavailableError as error:
        logger.warning(
            "import accepted, plan message not sent; the sweep will send it",
            extra={**context, "detail": error.detail},
        )
    else:
        logger.info("import accepted", extra=context)
