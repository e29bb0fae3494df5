"""Whether a graph can be compiled for, and looped on, an NPU: a check of a second before half an hour.

Looks at what a fetch would send to the device, that is the fetched nodes and all they depend on, and
needs no device and no adapter. Operations that the adapter itself built (gradient exchange, overflow
status) are its own business and pass.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Set

import tensorflow as tf


class Finding(NamedTuple):
    """One thing the device cannot do."""

    node: str
    op_type: str
    layer: str  # name scope the node was built in, with tf.keras the layer; empty at top level
    problem: str

    def __str__(self) -> str:
        where = f" in layer {self.layer}" if self.layer else ""
        return f"{self.node} ({self.op_type}{where}): {self.problem}"


# Operations that run on the host only, by the start of their type, and where they belong instead.
_HOST_ONLY = {
    "PyFunc": "Python code",
    "EagerPyFunc": "Python code",
    "Print": "printing",
    "Assert": "an assertion",
    "StringFormat": "printing",
    "Timestamp": "the host's clock",
    "Decode": "decoding",
    "Encode": "encoding",
    "ParseExample": "record parsing",
    "ParseSingleExample": "record parsing",
    "ReadFile": "file access",
    "WriteFile": "file access",
    "MatchingFiles": "file access",
    "SaveV2": "checkpoint access",
    "RestoreV2": "checkpoint access",
    "MergeV2Checkpoints": "checkpoint access",
    "HashTable": "a lookup table",
    "MutableHashTable": "a lookup table",
    "LookupTable": "a lookup table",
    "InitializeTable": "a lookup table",
    "FIFOQueue": "a queue",
    "RandomShuffleQueue": "a queue",
    "QueueDequeue": "a queue",
    "QueueEnqueue": "a queue",
    "CollectiveReduce": "a collective operation of stock TensorFlow",
    "CollectiveBcast": "a collective operation of stock TensorFlow",
}
_HOST_ONLY_ENDINGS = {"Summary": "a summary", "SummaryV2": "a summary", "Dataset": "a dataset"}

_PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")

# What DenseNet, its gradients, its optimizer, loss scaling and evaluation are made of, with common
# relatives. A machine with the device's own list is checked against that instead.
_SUPPORTED_NAMES = """
Abs AccumulateNV2 Add AddN AddV2 All Any ApplyGradientDescent ApplyMomentum ArgMax ArgMin Assign AssignAdd
AssignAddVariableOp AssignSub AssignSubVariableOp AssignVariableOp AvgPool AvgPoolGrad BatchMatMul
BatchMatMulV2 BiasAdd BiasAddGrad BroadcastGradientArgs BroadcastTo Cast Ceil ClipByValue Concat
ConcatOffset ConcatV2 Const ControlTrigger Conv2D Conv2DBackpropFilter Conv2DBackpropInput Cos
DepthwiseConv2dNative DepthwiseConv2dNativeBackpropFilter DepthwiseConv2dNativeBackpropInput Div DivNoNan
Elu EluGrad Enter Equal Erf Exit Exp ExpandDims Expm1 Fill Floor FloorDiv FloorMod FusedBatchNorm
FusedBatchNormGrad FusedBatchNormGradV2 FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3 GatherV2
Greater GreaterEqual Identity IdentityN InTopKV2 InvGrad InvertPermutation IsFinite IsInf IsNan
IsVariableInitialized Iterator IteratorGetNext IteratorV2 L2Loss LeakyRelu Less LessEqual Log Log1p
LogSoftmax LogicalAnd LogicalNot LogicalOr LoopCond MatMul Max MaxPool MaxPoolGrad MaxPoolV2 Maximum Mean
Merge Min Minimum Mod Mul MulNoNan Neg NextIteration NoOp NotEqual OneHot OnesLike Pack Pad PadV2 Pow
PreventGradient Prod RandomStandardNormal RandomUniform RandomUniformInt Range Rank ReadVariableOp RealDiv
Reciprocal ReciprocalGrad RefEnter RefExit RefMerge RefNextIteration RefSwitch Relu Relu6 Relu6Grad
ReluGrad Reshape ResourceApplyGradientDescent ResourceApplyKerasMomentum ResourceApplyMomentum ReverseV2
Round Rsqrt RsqrtGrad Select SelectV2 Selu Shape ShapeN Sigmoid SigmoidGrad Sign Sin Size Slice Snapshot
Softmax SoftmaxCrossEntropyWithLogits Softplus SparseSoftmaxCrossEntropyWithLogits Split SplitV Sqrt
SqrtGrad Square SquaredDifference Squeeze StopGradient StridedSlice StridedSliceGrad Sub Sum Switch Tanh
TanhGrad Tile TopKV2 Transpose TruncateDiv TruncateMod TruncatedNormal Unpack VarHandleOp
VarIsInitializedOp Variable VariableV2 ZerosLike
"""
_SUPPORTED = frozenset(_SUPPORTED_NAMES.split())

# Converted by the adapter itself, so a machine's list may lack them.
_STRUCTURAL = frozenset(
    ("Const", "Identity", "NoOp", "VarHandleOp", "ReadVariableOp")
    + ("Iterator", "IteratorV2", "IteratorGetNext")
)
_ADAPTER_PREFIXES = ("Hcom", "Npu", "NPU")

# Outputs without a shape that the adapter knows how to leave out, by operation and position.
_SHAPELESS = {("FusedBatchNormV3", 5)}

_VARIABLES_AND_ITERATORS = ("VarHandleOp", "Iterator", "IteratorV2")
_CARRIERS = ("Identity", "Switch", "Merge", "Enter", "Exit", "NextIteration")  # pass a resource on
DEFAULT_OPP_PATH = "/usr/local/Ascend/opp"  # the adapter's npu_ops_identifier.cc, both generations
_OPERATION_LISTS = (
    "framework/built-in/tensorflow/npu_supported_ops.json",
    "built-in/framework/tensorflow/npu_supported_ops.json",
)


def check(
    graph: tf.Graph,
    fetches: Iterable[Any],
    *,
    loop_op: str = "",
    loops: bool = True,
    supported: Optional[FrozenSet[str]] = None,
    trusted_folder: str = "",
) -> List[Finding]:
    """What keeps the fetched part of `graph` from running on the device; empty if nothing.

    Args:
        fetches: operations and tensors of one session.run; nothing is fed.
        loop_op: full name that the node of the device's loop must have.
        loops: whether the session runs several iterations a time.
        supported: operation types that the device has; None for the built-in list.
        trusted_folder: operations built by code in this folder pass, gradients of others excepted.
    """
    findings = _loop_findings(graph, loop_op, loops)
    supported = supported or _SUPPORTED
    for op in ancestors(graph, fetches):
        problem = _problem(op, supported)
        if problem and not (trusted_folder and _built_in(op, trusted_folder)):
            findings.append(Finding(op.name, op.type, op.name.rpartition("/")[0], problem))
    return findings


def report(findings: Sequence[Finding], most: int = 20) -> str:
    """The findings, one a line."""
    lines = [f"  {finding}" for finding in findings[:most]]
    if len(findings) > most:
        lines.append(f"  and {len(findings) - most} more")
    return "\n".join(lines)


def installed_operations(opp_path: str, default_path: str = DEFAULT_OPP_PATH) -> Optional[FrozenSet[str]]:
    """Operation types in the list that an installed operator package brings; None without one.

    Args:
        opp_path: value of ASCEND_OPP_PATH, or empty.
        default_path: where the adapter looks without that variable.
    """
    for name in _OPERATION_LISTS:
        try:
            with open(os.path.join(opp_path or default_path, name), encoding="utf-8") as file:
                listed: Dict[str, Any] = json.load(file)
        except (OSError, ValueError, RecursionError):
            continue
        return frozenset(listed) | _STRUCTURAL
    return None


def ancestors(graph: tf.Graph, fetches: Iterable[Any]) -> List[tf.Operation]:
    """The fetched operations and all they depend on, in the order they were built."""
    seen: Set[tf.Operation] = set()
    stack = [graph.as_graph_element(fetch) for fetch in fetches]
    stack = [getattr(node, "op", node) for node in stack]
    while stack:
        op = stack.pop()
        if op in seen:
            continue
        seen.add(op)
        stack.extend(tensor.op for tensor in op.inputs)
        stack.extend(op.control_inputs)
    return [op for op in graph.get_operations() if op in seen]


def _problem(op: tf.Operation, supported: FrozenSet[str]) -> str:
    """What is wrong with one operation; empty if nothing."""
    if op.type in _PLACEHOLDERS:
        return "is fed by the host, but a fed value stays the same in every iteration of a loop"
    host = _host_only(op.type)
    if host:
        return f"{host} runs on the host and cuts the loop; move it to the input pipeline or out of the step"
    if op.type == "IteratorFromStringHandleV2":
        return "a feedable iterator; take make_initializable_iterator, whose GetNext the device can own"
    if op.type == "OneShotIterator":
        return "a one-shot iterator; take make_initializable_iterator"
    if op.type == "IteratorGetNext" and op.inputs[0].op.type not in ("Iterator", "IteratorV2"):
        return f"its iterator comes through {op.inputs[0].op.type}; the device needs the iterator itself"
    if op.type not in supported and not op.type.startswith(_ADAPTER_PREFIXES):
        return "is not among the operations of the device; replace it or move it into the input pipeline"
    for tensor in op.inputs:
        if tensor.dtype.base_dtype == tf.string:
            return f"reads the string {tensor.name}; the device has no strings"
        if tensor.dtype == tf.resource and tensor.op.type not in (*_VARIABLES_AND_ITERATORS, *_CARRIERS):
            return f"reads a resource of {tensor.op.type}, which stays on the host"
    if any(tensor.dtype.base_dtype == tf.string for tensor in op.outputs):
        return "produces a string; the device has no strings"
    if all(_is_static(tensor) for tensor in op.inputs):  # else this is a consequence, not the cause
        for tensor in op.outputs:
            if not _is_static(tensor):
                return f"its shape {tensor.shape} is not known when the graph is built, which ends the loop"
    return ""


def _is_static(tensor: tf.Tensor) -> bool:
    if tensor.dtype in (tf.resource, tf.variant) or (tensor.op.type, tensor.value_index) in _SHAPELESS:
        return True
    return bool(tensor.shape.is_fully_defined())


def _host_only(op_type: str) -> str:
    for start, what in _HOST_ONLY.items():
        if op_type.startswith(start):
            return what
    for end, what in _HOST_ONLY_ENDINGS.items():
        if op_type.endswith(end):
            return what
    return ""


def _loop_findings(graph: tf.Graph, loop_op: str, loops: bool) -> List[Finding]:
    """Misnamed loop nodes, and one-shot iterators anywhere: they abort every graph of a looping session."""
    findings = []
    for op in graph.get_operations():
        base = op.name.rpartition("/")[2]
        if loop_op and op.name != loop_op and (base == loop_op or base.startswith(loop_op + "_")):
            problem = f"is not named exactly {loop_op}, so it would not loop; build one, at top level"
            findings.append(Finding(op.name, op.type, op.name.rpartition("/")[0], problem))
        if loops and op.type == "OneShotIterator":
            problem = "one-shot iterators abort a looping session; take make_initializable_iterator"
            findings.append(Finding(op.name, op.type, "", problem))
    return findings


def _built_in(op: tf.Operation, folder: str) -> bool:
    """Whether code in `folder` asked for the operation itself, not only for the gradient of another."""
    if op._original_op is not None:
        return _built_in(op._original_op, folder)
    return any(str(frame[0]).startswith(folder + os.sep) for frame in op.traceback)
