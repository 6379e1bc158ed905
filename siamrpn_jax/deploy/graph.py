"""ONNX graphs, written like the formulas that they compute.

Example::

    graph = Graph()
    x = graph.input("x", np.float32, [3])
    graph.output("y", graph.op("Exp", 2 * x + 1), np.float32, [3])
    model = graph.build("example", {})
"""

from collections.abc import Mapping, Sequence
from typing import Any, Union

import numpy as np

from siamrpn_jax.common.errors import require

OPSET = 18
"""Version of ONNX's operators, unless another one is asked for."""

NEWEST_OPSET = 20
"""The last one that files of ``IR_VERSION`` may have."""

IR_VERSION = 9
"""Version of ONNX's files; runtimes since 2023 read it."""

Shape = Sequence[int | str]
Number = Union["Value", float, int, np.ndarray, Sequence[float]]
"""What a formula may be made of."""


class Value:
    """The result of an operator, for formulas."""

    __array_ufunc__ = None
    """NumPy's arrays leave operators to this class."""

    def __init__(self, graph: "Graph", name: str):
        self.graph = graph
        self.name = name

    def __add__(self, other: Number) -> "Value":
        return self.graph.op("Add", self, other)

    def __radd__(self, other: Number) -> "Value":
        return self.graph.op("Add", other, self)

    def __sub__(self, other: Number) -> "Value":
        return self.graph.op("Sub", self, other)

    def __rsub__(self, other: Number) -> "Value":
        return self.graph.op("Sub", other, self)

    def __mul__(self, other: Number) -> "Value":
        return self.graph.op("Mul", self, other)

    def __rmul__(self, other: Number) -> "Value":
        return self.graph.op("Mul", other, self)

    def __truediv__(self, other: Number) -> "Value":
        return self.graph.op("Div", self, other)

    def __rtruediv__(self, other: Number) -> "Value":
        return self.graph.op("Div", other, self)

    def __lt__(self, other: Number) -> "Value":
        return self.graph.op("Less", self, other)

    def __le__(self, other: Number) -> "Value":
        return self.graph.op("LessOrEqual", self, other)

    def __gt__(self, other: Number) -> "Value":
        return self.graph.op("Greater", self, other)

    def __ge__(self, other: Number) -> "Value":
        return self.graph.op("GreaterOrEqual", self, other)

    def __and__(self, other: "Value") -> "Value":
        return self.graph.op("And", self, other)

    def __or__(self, other: "Value") -> "Value":
        return self.graph.op("Or", self, other)

    def __getitem__(self, place: int | slice) -> "Value":
        """A row, or some of them, along the last axis."""
        if isinstance(place, int):
            return self.graph.op("Gather", self, self.graph.int64(place), axis=-1)
        start, stop = place.start or 0, place.stop
        stop = np.iinfo(np.int64).max if stop is None else stop
        ends = (self.graph.int64([end]) for end in (start, stop, -1))
        return self.graph.op("Slice", self, *ends)


class Graph:
    """Collects operators, constants, inputs and outputs."""

    def __init__(self) -> None:
        self._onnx: Any = require("onnx", extra="onnx")
        self._nodes: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._renamed: dict[str, str] = {}

    def input(self, name: str, dtype: Any, shape: Shape) -> Value:
        """An input of the graph; letters in the shape are sizes that are free."""
        self._inputs.append(self._describe(name, dtype, shape))
        return Value(self, name)

    def output(self, name: str, value: Value, dtype: Any, shape: Shape) -> None:
        """Names a value as an output of the graph."""
        made = any(value.name in node.output for node in self._nodes)
        if made and value.name not in self._renamed:
            self._renamed[value.name] = name
        else:  # An input, a constant, or one that is another output, too.
            self._node("Identity", [value.name], [name], {})
        self._outputs.append(self._describe(name, dtype, shape))

    def constant(self, value: Any, dtype: Any = np.float32) -> Value:
        """A constant; equal ones are stored once."""
        array = np.asarray(value, dtype)
        key = str(array.dtype), array.shape, array.tobytes()
        if key not in self._constants:
            name = f"c{len(self._constants)}"
            self._constants[key] = name
            self._initializers.append(self._onnx.numpy_helper.from_array(array, name))
        return Value(self, self._constants[key])

    def int64(self, value: Any) -> Value:
        """A constant of whole numbers, as shapes and indices are."""
        return self.constant(value, np.int64)

    def op(self, kind: str, *inputs: Number, **attributes: Any) -> Value:
        """An operator with one output; numbers become constants."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(
        self, kind: str, *inputs: Number, outputs: int, **attributes: Any
    ) -> list[Value]:
        """An operator with several outputs."""
        values = [v if isinstance(v, Value) else self.constant(v) for v in inputs]
        names = [f"v{len(self._nodes)}_{place}" for place in range(outputs)]
        self._node(kind, [value.name for value in values], names, attributes)
        return [Value(self, name) for name in names]

    def cast(self, value: Value, dtype: Any) -> Value:
        """The same numbers of another type."""
        to = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.op("Cast", value, to=to)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """The same numbers in another shape; one side may be -1."""
        return self.op("Reshape", value, self.int64(shape))

    def concat(self, *values: Number, axis: int = 0) -> Value:
        """Arrays one after the other."""
        return self.op("Concat", *values, axis=axis)

    def reduce(self, kind: str, value: Value, axes: Sequence[int]) -> Value:
        """``ReduceSum`` and the like, over axes, which go."""
        return self.op(kind, value, self.int64(axes), keepdims=0)

    def build(self, name: str, about: Mapping[str, str], *, opset: int = OPSET) -> Any:
        """The model, checked by ONNX.

        Args:
            name: of the graph.
            about: what the model says of itself.
            opset: version of the operators; they must mean the same in it.
        """
        helper = self._onnx.helper
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [self._renamed.get(name, name) for name in names]
        used = {name for node in self._nodes for name in node.input}
        constants = [one for one in self._initializers if one.name in used]
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, constants
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset)],
            producer_name="siamrpn_jax",
        )
        model.ir_version = IR_VERSION
        helper.set_model_props(model, dict(about))
        self._onnx.checker.check_model(model, full_check=True)
        return model

    def _node(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Mapping[str, Any],
    ) -> None:
        name = f"{kind}{len(self._nodes)}"
        node = self._onnx.helper.make_node(kind, inputs, outputs, name, **attributes)
        self._nodes.append(node)

    def _describe(self, name: str, dtype: Any, shape: Shape) -> Any:
        helper = self._onnx.helper
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, list(shape))
