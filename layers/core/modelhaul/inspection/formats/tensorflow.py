"""SavedModels and graphs of TensorFlow: their operations, and the metadata of Keras.

TensorFlow treats models as programs: https://github.com/tensorflow/tensorflow/blob/master/SECURITY.md. Operations that
save and restore variables, or that read a vocabulary into a table, are part of ordinary models and not reported.
"""

from collections.abc import Iterator

from modelhaul.domain.findings import ContentReport, Finding, FindingKind, Severity, limit_findings, list_findings
from modelhaul.domain.json_streams import ReadRange
from modelhaul.inspection.formats.keras import find_unsafe_layers
from modelhaul.inspection.formats.protobuf import read_message
from modelhaul.inspection.formats.tensorflow_schema import KERAS_METADATA, SAVED_MODEL
from modelhaul.inspection.windows import ContentError, Cursor

_MAX_OPERATIONS = 10_000  # distinct names
_MAX_FINDINGS = 20
_OP, _ATTRIBUTE = "NodeDef.op", "AttrValue.s"
_METADATA = "SavedObject.metadata"
_NODES = {"GraphDef.node", "FunctionDef.node_def"}
_PRINT = b"PrintV2"
_READS = {
    "CSVDataset", "CSVDatasetV2", "DecodeProtoV2", "EncodeProto", "ExperimentalCSVDataset", "ExperimentalLMDBDataset",
    "ExperimentalSqlDataset", "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "FixedLengthRecordReader",
    "FixedLengthRecordReaderV2", "GenerateVocabRemapping", "LMDBDataset", "LMDBReader", "LoadAndRemapMatrix",
    "LoadDataset", "MatchingFiles", "MatchingFilesDataset", "ReadFile", "SnapshotDatasetReader",
    "SnapshotNestedDatasetReader", "SqlDataset", "TFRecordDataset", "TFRecordDatasetV2", "TFRecordReader",
    "TFRecordReaderV2", "TextLineDataset", "TextLineReader", "TextLineReaderV2", "WholeFileReader", "WholeFileReaderV2",
}  # fmt: skip
_WRITES = {
    "CacheDataset", "CacheDatasetV2", "CreateSummaryDbWriter", "CreateSummaryFileWriter",
    "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "DebugNanCount", "DebugNumericSummary",
    "DebugNumericSummaryV2", "ImportEvent", "SaveDataset", "SaveDatasetV2", "SnapshotDataset", "SnapshotDatasetV2",
    "SnapshotChunkDataset", "DistributedSave", "WriteFile", "WriteGraphSummary",
}  # fmt: skip
_PYTHON = {"EagerPyFunc", "PyFunc", "PyFuncStateless"}
_NETWORK = {
    "DataServiceDataset", "DataServiceDatasetV2", "DataServiceDatasetV3", "DataServiceDatasetV4", "RegisterDataset",
    "RegisterDatasetV2", "RemoteCall", "Rpc", "RpcCall", "RpcClient", "RpcServer", "TryRpc",
}  # fmt: skip
_EFFECTS = {
    **dict.fromkeys(_READS, "reads files"),
    **dict.fromkeys(_WRITES, "writes files"),
    **dict.fromkeys(_PYTHON, "calls Python"),
    **dict.fromkeys(_NETWORK, "connects to other machines"),
}


def inspect_saved_model(read: ReadRange, size: int) -> ContentReport:
    """Inspect `saved_model.pb`. TENSORFLOW_OP are operations that access files or the network, or call Python."""
    return _inspect_operations(read, size, "saved-model", "SavedModel")


def inspect_graph(read: ReadRange, size: int) -> ContentReport:
    """Inspect a frozen graph (`*.pb`)."""
    return _inspect_operations(read, size, "tensorflow-graph", "GraphDef")


def inspect_keras_metadata(read: ReadRange, size: int) -> ContentReport:
    """Inspect `keras_metadata.pb`. Keras 2 loads KERAS_LAMBDA and KERAS_MODULE with its default options."""
    findings: dict[Finding, None] = {}
    reason = None
    try:
        for _, value in read_message(Cursor(read, 0, size), KERAS_METADATA, "SavedMetadata", {_METADATA}):
            if isinstance(value, bytes):
                try:
                    findings |= dict.fromkeys(find_unsafe_layers(value, Severity.HIGH))
                except ContentError as error:
                    reason = reason or str(error)
    except ContentError as error:
        reason = str(error)
    return ContentReport("keras-metadata", reason, limit_findings(findings, _MAX_FINDINGS))


def _inspect_operations(read: ReadRange, size: int, name: str, message: str) -> ContentReport:
    found: dict[str, None] = {}
    operations: set[bytes] = set()
    reason = None
    try:
        for operation, texts in _read_nodes(read, size, message):
            operations.add(operation)
            if len(operations) > _MAX_OPERATIONS:
                raise ContentError(f"File has more than {_MAX_OPERATIONS:,} distinct operations")
            if effect := _find_effect(operation, texts):
                found[f"Operation {operation.decode('ascii', 'replace')} {effect}"] = None
        # An empty file is a valid message of any type.
        reason = None if operations else "Graph has no operations"
    except ContentError as error:
        reason = str(error)
    details = list(found)[:_MAX_FINDINGS]
    return ContentReport(name, reason, list_findings(FindingKind.TENSORFLOW_OP, Severity.HIGH, details))


def _read_nodes(read: ReadRange, size: int, message: str) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield the operation of each node, also in functions, with its string attributes. Raises ContentError."""
    operation, texts = b"", []
    for place, value in read_message(Cursor(read, 0, size), SAVED_MODEL, message, {_OP, _ATTRIBUTE}):
        if place == _OP and isinstance(value, bytes):
            operation = value
        elif place == _ATTRIBUTE and isinstance(value, bytes):
            texts.append(value)
        elif place in _NODES:
            yield operation, texts
            operation, texts = b"", []


def _find_effect(operation: bytes, texts: list[bytes]) -> str | None:
    if operation == _PRINT and any(text.startswith(b"file:") for text in texts):
        return "writes files"
    return _EFFECTS.get(operation.decode("ascii", "replace"))
