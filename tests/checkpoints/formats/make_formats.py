"""Make the files beside this one: `python make_formats.py gguf onnx …`, with the library of each, which no test needs.

Those that are committed are by gguf 0.19.0, onnx 1.23.2, sentencepiece 0.2.3, msgpack 1.2.4, keras 3.15.1 and
tensorflow-cpu 2.21.0. Names that begin with `unsafe-` have something in them that the inspection must find.
"""

import json
import sys
import tempfile
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PLAIN_TEMPLATE = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
UNSAFE_TEMPLATE = "{{ cycler.__init__.__globals__.os.popen('true').read() }}"


def make_gguf() -> None:
    """Several types of tensors; a vocabulary alone; a template that runs a program."""
    gguf, numpy = import_module("gguf"), import_module("numpy")

    def write(name: str, template: str, *, has_tensors: bool = True) -> None:
        writer = gguf.GGUFWriter(HERE / name, "llama")
        writer.add_block_count(1)
        writer.add_context_length(8)
        writer.add_float32("test.float", 0.5)
        writer.add_float64("test.double", 0.5)
        writer.add_bool("test.bool", val=True)
        writer.add_int64("test.long", -1)
        writer.add_tokenizer_model("llama")
        writer.add_token_list(["<s>", "</s>", "\u2581a", "\U0001f600", ""])
        writer.add_token_scores([0.0, -1.0, -2.0, -3.0, -4.0])
        writer.add_token_types([3, 3, 1, 1, 1])
        writer.add_array("test.strings", ["a", "\u00fc"])
        writer.add_chat_template(template)
        if has_tensors:
            generator = numpy.random.default_rng(1)
            weights = generator.standard_normal((3, 256)).astype(numpy.float32)
            writer.add_tensor("output.weight", weights)
            writer.add_tensor("token_embd.weight", weights.astype(numpy.float16))
            writer.add_tensor("blk.0.attn_q.bias", weights[0, :5])
            for kind in (
                gguf.GGMLQuantizationType.Q8_0,
                gguf.GGMLQuantizationType.Q4_0,
                gguf.GGMLQuantizationType.BF16,
            ):
                packed = gguf.quants.quantize(weights, kind)
                writer.add_tensor(f"blk.0.{kind.name.lower()}.weight", packed, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        if has_tensors:
            writer.write_tensors_to_file()
        else:
            writer.write_ti_data_to_file()
        writer.close()

    write("model.gguf", PLAIN_TEMPLATE)
    write("vocabulary.gguf", PLAIN_TEMPLATE, has_tensors=False)
    write("unsafe-template.gguf", UNSAFE_TEMPLATE)


def make_onnx() -> None:
    """A graph in a graph and a function, checked by onnx; tensors in another file, inside and outside the folder."""
    onnx = import_module("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto

    def tensor(name: str) -> Any:
        return helper.make_tensor(name, kinds.FLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])

    def value(name: str, kind: int = kinds.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, [2, 2] if kind == kinds.FLOAT else [])

    branches = [
        helper.make_graph(
            [helper.make_node("Identity", [source], [f"{source}_out"])], source, [], [value(f"{source}_out")]
        )
        for source in ("w", "x")
    ]
    nodes = [
        helper.make_node("Double", ["x"], ["y"], domain="local"),
        helper.make_node("If", ["c"], ["z"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Add", ["y", "z"], ["out"], doc_string="\u00fc"),
    ]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    function = helper.make_function(
        "local", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    inputs = [value("x"), value("c", kinds.BOOL)]
    graph = helper.make_graph(nodes, "graph", inputs, [value("out")], [tensor("w")], doc_string="test")
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], producer_name="test", ir_version=10)
    helper.set_model_props(model, {"key": "value"})
    onnx.checker.check_model(model, full_check=True)
    (HERE / "model.onnx").write_bytes(model.SerializeToString())

    for name, location in (("external.onnx", "data/weights.bin"), ("unsafe-external.onnx", "../../etc/passwd")):
        weights = tensor("w")
        raw = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights), "w")
        onnx.external_data_helper.set_external_data(raw, location, offset=0, length=16)
        raw.ClearField("raw_data")
        raw.data_location = kinds.EXTERNAL
        node = helper.make_node("Add", ["x", "w"], ["out"])
        graph = helper.make_graph([node], "graph", [value("x")], [value("out")], [raw])
        (HERE / name).write_bytes(helper.make_model(graph, ir_version=10).SerializeToString())


def make_sentencepiece() -> None:
    trainer = import_module("sentencepiece").SentencePieceTrainer
    # Other rules of normalization take 240 kB.
    options = {"normalization_rule_name": "identity", "minloglevel": 2}
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("".join(f"The quick brown fox number {number} jumps over\n" for number in range(200)))
        for kind in ("unigram", "bpe"):
            prefix = Path(folder) / kind
            trainer.train(input=str(text), model_prefix=str(prefix), vocab_size=45, model_type=kind, **options)
            content = prefix.with_suffix(".model").read_bytes().replace(folder.encode(), b"/" * len(folder))
            (HERE / f"sentencepiece-{kind}.model").write_bytes(content)


def make_msgpack() -> None:
    """As flax.serialization.to_bytes writes weights."""
    msgpack, numpy = import_module("msgpack"), import_module("numpy")

    def encode(value: Any) -> Any:
        if isinstance(value, numpy.ndarray):
            return msgpack.ExtType(
                1, msgpack.packb((value.shape, value.dtype.name, value.tobytes()), use_bin_type=True)
            )
        return msgpack.ExtType(2, msgpack.packb((value.real, value.imag)))

    weights = {
        "params": {
            "dense": {"kernel": numpy.ones((3, 4), numpy.float32), "bias": numpy.zeros(4, numpy.float16)},
            "scale": 0.5,
            "steps": [1, -1, 70_000, 2**40, None, True],
            "complex": 1j,
            "long": numpy.zeros(100_000 // 4, numpy.float32)[:300],
        }
    }
    (HERE / "flax_model.msgpack").write_bytes(msgpack.packb(weights, default=encode, strict_types=True))
    (HERE / "unsafe-extension.msgpack").write_bytes(msgpack.packb({"a": msgpack.ExtType(42, b"x")}))


def make_keras() -> None:
    """`.keras` and `.h5` with and without a Lambda layer; of `.keras` the configuration only."""
    keras = import_module("keras")

    def save(name: str, *layers: Any) -> None:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="relu"), *layers])
        model.compile(optimizer="adam", loss="mse", metrics=["accuracy"])
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "model.keras")
            with zipfile.ZipFile(Path(folder) / "model.keras") as archive:
                (HERE / f"{name}.json").write_bytes(archive.read("config.json"))
        model.save(HERE / f"{name}.h5", include_optimizer=False)

    save("keras", keras.layers.Dropout(0.5), keras.layers.ReLU())
    # Its byte code has the name of the file with it.
    double = eval(compile("lambda x: x * 2", "model.py", "eval"))
    save("unsafe-lambda", keras.layers.Lambda(double, output_shape=(2,)))


def make_tensorflow() -> None:
    """SavedModels of modules that only compute, and that read and write files or call Python; a frozen graph."""
    tf = import_module("tensorflow")

    class Plain(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = tf.Variable(tf.ones((2, 2)))

        @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32)])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            return tf.cond(tf.reduce_sum(x) > 0, lambda: x @ self.weight, lambda: x)

    class Unsafe(Plain):
        @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32)])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            for line in tf.data.TextLineDataset("/etc/hostname"):
                tf.print(line, output_stream="file:///tmp/output")
            tf.io.write_file("/tmp/output", tf.io.read_file("/etc/hostname"))
            return tf.numpy_function(lambda value: value, [x], tf.float32)

    for name, module in (("saved_model.pb", Plain()), ("unsafe-saved_model.pb", Unsafe())):
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(module, folder, signatures=module.__call__)
            (HERE / name).write_bytes((Path(folder) / "saved_model.pb").read_bytes())
    module = Plain()
    graph = module.__call__.get_concrete_function().graph.as_graph_def()
    (HERE / "graph.pb").write_bytes(graph.SerializeToString())


def make_keras_metadata() -> None:
    """As Keras 2 stores it beside a SavedModel."""
    messages = import_module("tensorflow.python.keras.protobuf.saved_metadata_pb2")

    def write(name: str, *layers: dict[str, Any]) -> None:
        metadata = messages.SavedMetadata()
        for number, layer in enumerate(layers):
            node = metadata.nodes.add(node_id=number, node_path=f"root.layer-{number}", identifier="_tf_keras_layer")
            node.version.producer = 2
            node.version.min_consumer = 1
            node.metadata = json.dumps(layer)
        (HERE / name).write_bytes(metadata.SerializeToString())

    dense = {"name": "dense", "class_name": "Dense", "config": {"units": 2, "activation": "relu"}}
    code = {"class_name": "Lambda", "config": {"function": ["4wEAAAA=", None, None], "function_type": "lambda"}}
    write("keras_metadata.pb", dense)
    write("unsafe-keras_metadata.pb", dense, code)


if __name__ == "__main__":
    for kind in sys.argv[1:]:
        globals()[f"make_{kind}"]()
