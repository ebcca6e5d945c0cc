"""The messages of ONNX: https://github.com/onnx/onnx/blob/main/onnx/onnx-ml.proto

Generated from the descriptors of onnx 1.23.2 by tests/checkpoints/formats/make_schemas.py.
"""

from modelhaul.inspection.formats.protobuf import parse_schema

ONNX = parse_schema("""
ModelProto 1:ir_version:int 2:producer_name:bytes 3:producer_version:bytes 4:domain:bytes 5:model_version:int
    6:doc_string:bytes 7:graph:GraphProto 8:opset_import:OperatorSetIdProto* 14:metadata_props:StringStringEntryProto*
    20:training_info:TrainingInfoProto* 25:functions:FunctionProto* 26:configuration:DeviceConfigurationProto*
GraphProto 1:node:NodeProto* 2:name:bytes 5:initializer:TensorProto* 10:doc_string:bytes 11:input:ValueInfoProto*
    12:output:ValueInfoProto* 13:value_info:ValueInfoProto* 14:quantization_annotation:TensorAnnotation*
    15:sparse_initializer:SparseTensorProto* 16:metadata_props:StringStringEntryProto*
OperatorSetIdProto 1:domain:bytes 2:version:int
StringStringEntryProto 1:key:bytes 2:value:bytes
TrainingInfoProto 1:initialization:GraphProto 2:algorithm:GraphProto 3:initialization_binding:StringStringEntryProto*
    4:update_binding:StringStringEntryProto*
FunctionProto 1:name:bytes 4:input:bytes* 5:output:bytes* 6:attribute:bytes* 7:node:NodeProto* 8:doc_string:bytes
    9:opset_import:OperatorSetIdProto* 10:domain:bytes 11:attribute_proto:AttributeProto*
    12:value_info:ValueInfoProto* 13:overload:bytes 14:metadata_props:StringStringEntryProto*
DeviceConfigurationProto 1:name:bytes 2:num_devices:int 3:device:bytes*
NodeProto 1:input:bytes* 2:output:bytes* 3:name:bytes 4:op_type:bytes 5:attribute:AttributeProto* 6:doc_string:bytes
    7:domain:bytes 8:overload:bytes 9:metadata_props:StringStringEntryProto*
    10:device_configurations:NodeDeviceConfigurationProto*
TensorProto 1:dims:int* 2:data_type:int 3:segment:TensorProto.Segment 4:float_data:fixed32* 5:int32_data:int*
    6:string_data:bytes* 7:int64_data:int* 8:name:bytes 9:raw_data:bytes 10:double_data:fixed64* 11:uint64_data:int*
    12:doc_string:bytes 13:external_data:StringStringEntryProto* 14:data_location:int
    16:metadata_props:StringStringEntryProto*
ValueInfoProto 1:name:bytes 2:type:TypeProto 3:doc_string:bytes 4:metadata_props:StringStringEntryProto*
TensorAnnotation 1:tensor_name:bytes 2:quant_parameter_tensor_names:StringStringEntryProto*
SparseTensorProto 1:values:TensorProto 2:indices:TensorProto 3:dims:int*
AttributeProto 1:name:bytes 2:f:fixed32 3:i:int 4:s:bytes 5:t:TensorProto 6:g:GraphProto 7:floats:fixed32* 8:ints:int*
    9:strings:bytes* 10:tensors:TensorProto* 11:graphs:GraphProto* 13:doc_string:bytes 14:tp:TypeProto
    15:type_protos:TypeProto* 20:type:int 21:ref_attr_name:bytes 22:sparse_tensor:SparseTensorProto
    23:sparse_tensors:SparseTensorProto*
NodeDeviceConfigurationProto 1:configuration_id:bytes 2:sharding_spec:ShardingSpecProto* 3:pipeline_stage:int
TensorProto.Segment 1:begin:int 2:end:int
TypeProto 1:tensor_type:TypeProto.Tensor 4:sequence_type:TypeProto.Sequence 5:map_type:TypeProto.Map
    6:denotation:bytes 7:opaque_type:TypeProto.Opaque 8:sparse_tensor_type:TypeProto.SparseTensor
    9:optional_type:TypeProto.Optional
ShardingSpecProto 1:tensor_name:bytes 2:device:int* 3:index_to_device_group_map:IntIntListEntryProto*
    4:sharded_dim:ShardedDimProto*
TypeProto.Tensor 1:elem_type:int 2:shape:TensorShapeProto
TypeProto.Sequence 1:elem_type:TypeProto
TypeProto.Map 1:key_type:int 2:value_type:TypeProto
TypeProto.Opaque 1:domain:bytes 2:name:bytes
TypeProto.SparseTensor 1:elem_type:int 2:shape:TensorShapeProto
TypeProto.Optional 1:elem_type:TypeProto
IntIntListEntryProto 1:key:int 2:value:int*
ShardedDimProto 1:axis:int 2:simple_sharding:SimpleShardedDimProto*
TensorShapeProto 1:dim:TensorShapeProto.Dimension*
SimpleShardedDimProto 1:dim_value:int 2:dim_param:bytes 3:num_shards:int
TensorShapeProto.Dimension 1:dim_value:int 2:dim_param:bytes 3:denotation:bytes
""")
