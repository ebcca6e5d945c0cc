"""The imports that pickles may contain. Every other import is a finding."""

from typing import Final

from modelhaul.inspection.pickles.joblib_arrays import JOBLIB_ARRAY

_CONTAINERS = {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "range", "set"}
_CONTAINERS |= {"slice", "str", "tuple"}
_STORAGES = {
    f"{kind}Storage"
    for kind in (
        "BFloat16", "Bool", "Byte", "Char", "ComplexDouble", "ComplexFloat", "Double", "Float", "Half", "Int", "Long",
        "QInt32", "QInt8", "QUInt2x4", "QUInt4x2", "QUInt8", "Short", "Typed", "Untyped",
        "Float8_e4m3fn", "Float8_e4m3fnuz", "Float8_e5m2", "Float8_e5m2fnuz", "UInt16", "UInt32", "UInt64",
    )
}  # fmt: skip
_TENSORS = {
    f"{kind}Tensor"
    for kind in ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
}  # fmt: skip
_DTYPES = {
    "bfloat16", "bits16", "bits1x8", "bits2x4", "bits4x2", "bits8", "bool", "complex128", "complex32", "complex64",
    "double", "float", "float16", "float32", "float4_e2m1fn_x2", "float64", "float8_e4m3fn", "float8_e4m3fnuz",
    "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "half", "int", "int16", "int32", "int64", "int8", "long",
    "qint32", "qint8", "quint2x4", "quint4x2", "quint8", "short", "uint16", "uint32", "uint64", "uint8",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
}  # fmt: skip
_QUANTIZATIONS = {
    "per_channel_affine", "per_channel_affine_float_qparams", "per_channel_symmetric", "per_tensor_affine",
    "per_tensor_symmetric",
}  # fmt: skip
_REBUILDERS = {
    "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_device_tensor_from_numpy",
    "_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor", "_rebuild_parameter",
    "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_csr_tensor", "_rebuild_sparse_tensor",
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_wrapper_subclass",
}  # fmt: skip
ALLOWED: Final[dict[str, set[str]]] = {
    "builtins": _CONTAINERS,
    "__builtin__": _CONTAINERS | {"long", "unicode", "xrange"},
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "_codecs": {"encode"},  # how protocol 2 writes bytes: encode(text, "latin1")
    "torch": _STORAGES | _TENSORS | _DTYPES | _QUANTIZATIONS | {"Size", "Tensor", "device"},
    "torch.storage": {"TypedStorage", "UntypedStorage", "_TypedStorage", "_UntypedStorage"},
    "torch.cuda": _STORAGES | _TENSORS,
    "torch.sparse": _TENSORS,
    "torch.cuda.sparse": _TENSORS,
    "torch._utils": _REBUILDERS,
    "torch._tensor": {"_rebuild_from_type_v2"},
    "torch.nn.parameter": {"Buffer", "Parameter"},
    "torch.serialization": {"_get_layout"},
    "torch.torch_version": {"TorchVersion"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
    "numpy": {"dtype", "ndarray"},
    JOBLIB_ARRAY.module: {JOBLIB_ARRAY.name},  # the interpreter reads its arrays
}
"""The imports that torch's own `weights_only` loader allows, and those that numpy and plain containers need."""
