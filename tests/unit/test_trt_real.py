"""The real TensorRT-RTX builder on a machine without a GPU, and the names that all versions of the API share."""

import ast
import importlib.metadata
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engines
from engines import cuda
from engines.build import build
from engines.errors import BuildError, CudaError, PlanError
from engines.listener import listener
from engines.load import MODELS
from engines.manifest import Manifest, read, read_twin
from tests.fakes import compares
from tests.unit.test_build import graph

TASKS = ("autofocus", "depth", "defects")
SMALL, DEFAULT = (256, 320), (768, 1024)
TIMEOUT_S = 120.0

rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install 'beamside[tensorrt-rtx]'")
no_device = pytest.mark.skipif(not isinstance(cuda.probe(), str), reason="a GPU answers: see tests/gpu")


def package(task: str) -> tuple[Manifest, bytes]:
    return read(MODELS / task)


def offered() -> list[tuple[str, str]]:
    """Task and recipe of everything that is shipped for TensorRT."""
    found = [(task, recipe) for task in TASKS for recipe in ("fp32", *package(task)[0].twins)]
    return [(task, recipe) for task, recipe in found if recipe != "int8"]  # unsigned activations: for the CPU


@lru_cache(maxsize=8)
def built(task: str, recipe: str, shape: tuple[int, int]) -> bytes:
    manifest, model = package(task)
    twin = model if recipe == "fp32" else read_twin(MODELS / task, manifest, recipe)
    return build(twin, backend="tensorrt_rtx", recipe=recipe, shape=shape, timeout_s=TIMEOUT_S)  # type: ignore[arg-type]


def deserialized(plan: bytes) -> tuple[Any, str]:
    said = listener(rtx)
    return rtx.Runtime(said).deserialize_cuda_engine(plan), said.last()


@no_device
@pytest.mark.parametrize(("task", "recipe"), offered())
def test_every_shipped_model_is_built_and_only_a_driver_is_missing(task: str, recipe: str) -> None:
    plan = built(task, recipe, SMALL)
    assert len(plan) > 1_000_000
    engine, words = deserialized(plan)
    assert engine is None and "driver" in words and "Serialization" not in words


@no_device
def test_the_largest_graph_is_built_at_a_shape_of_the_settings_too() -> None:
    engine, words = deserialized(built("defects", "fp32", DEFAULT))
    assert engine is None and "driver" in words and "Serialization" not in words


@no_device
def test_a_model_that_is_given_a_reference_is_built_too() -> None:
    plan = build(compares.model(), backend="tensorrt_rtx", recipe="fp32", shape=SMALL, timeout_s=TIMEOUT_S)
    engine, words = deserialized(plan)
    assert engine is None and "driver" in words and "Serialization" not in words


def test_truncated_plans_are_never_loaded() -> None:
    plan = built("autofocus", "fp32", SMALL)
    for offset in (int(n) for n in np.random.default_rng(11).integers(1, len(plan), 5)):
        engine, words = deserialized(plan[:offset])
        # Whole plans get as far as the driver; these are found out before.
        assert engine is None and ("Serialization assertion" in words or "minBufferSize" in words), (offset, words)


def test_the_real_parser_names_the_operator_and_the_node() -> None:
    with pytest.raises(BuildError, match=r"operator Det of node 'the_Det' \(number \d\): UNSUPPORTED_NODE"):
        build(graph("Det"), backend="tensorrt_rtx", recipe="fp32", shape=SMALL, timeout_s=TIMEOUT_S)
    with pytest.raises(BuildError, match="MODEL_DESERIALIZE_FAILED"):
        build(b"not a graph", backend="tensorrt_rtx", recipe="fp32", shape=SMALL, timeout_s=TIMEOUT_S)


@no_device
def test_a_plan_without_a_device_is_a_sentence_and_not_a_crash() -> None:
    from engines.trt import TrtEngine, Uploads
    from tests.fakes.driver import FakeDriver

    device = cuda.Cuda(FakeDriver())
    with pytest.raises(PlanError, match=r"tensorrt_rtx: the plan is refused: .*driver"):
        TrtEngine(built("autofocus", "fp32", SMALL), backend="tensorrt_rtx", cuda=device, uploads=Uploads(device))


@no_device
def test_the_real_bindings_without_a_driver_are_a_sentence_too() -> None:
    pytest.importorskip("cuda.bindings.driver", reason="cuda-python is not installed")
    with pytest.raises(CudaError, match="cuInit"):
        cuda.Cuda()


# --- the names ---

# What the code calls its objects -> the class of the API.
CLASSES = {
    "trt": "",
    "_trt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "image": "ITensor",
    "tensor": "ITensor",
    "t": "ITensor",
    "layer": "ILayer",
    "_runtime": "Runtime",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
}
# The members of these classes in the published Python bindings of both majors, as far as they are used here. Read off
# the wheels, imported over empty libraries: tensorrt-cu12-bindings 10.16.1.11 and tensorrt-cu13-bindings 11.4.0.106.
# Their pages: docs.nvidia.com/deeplearning/tensorrt, 10.16.1 and 11.4.0, Python API reference.
BOTH_MAJORS = {
    "": "Builder BuilderFlag DataType ILogger IProgressMonitor NetworkDefinitionCreationFlag OnnxParser Runtime "
    "TensorIOMode",
    "Builder": "build_serialized_network create_builder_config create_network",
    "BuilderFlag": "TF32",
    "DataType": "BOOL FLOAT HALF INT32 INT64 INT8 UINT8",
    "IBuilderConfig": "clear_flag progress_monitor",
    "ICudaEngine": "create_execution_context get_tensor_dtype get_tensor_mode get_tensor_name get_tensor_shape "
    "num_io_tensors",
    "IExecutionContext": "execute_async_v3 set_tensor_address",
    "ILayer": "get_output num_outputs",
    "ILogger": "ERROR INTERNAL_ERROR log",
    "INetworkDefinition": "get_input get_layer get_output num_inputs num_layers num_outputs",
    "IProgressMonitor": "phase_finish phase_start step_complete",
    "ITensor": "dtype name shape",
    "NetworkDefinitionCreationFlag": "STRONGLY_TYPED",
    "OnnxParser": "get_error num_errors parse",
    "ParserError": "code desc node node_name node_operator",
    "Runtime": "deserialize_cuda_engine",
    "TensorIOMode": "INPUT",
}
# Gone with version 11 or never in TensorRT-RTX: none of these may come in.
REMOVED = {"FP16", "INT8_CALIBRATOR", "int8_calibrator", "set_dynamic_range", "execute_async_v2", "get_binding_shape"}
FILES = ("compiler.py", "listener.py", "trt.py")


def used() -> dict[str, set[str]]:
    """Class of the API -> the names that our files use of it, by the names of the variables."""
    found: dict[str, set[str]] = {}
    for file in FILES:
        for node in ast.walk(ast.parse((Path(engines.__file__).parent / file).read_text())):
            if not isinstance(node, ast.Attribute) or node.attr == "__init__":
                continue
            owner = CLASSES.get(_last_name(node.value))
            inner = node.value.value if isinstance(node.value, ast.Attribute) else None
            if inner is not None and CLASSES.get(_last_name(inner)) == "":
                owner = _last_name(node.value)  # trt.DataType.HALF, self._trt.TensorIOMode.INPUT
            if owner is not None:
                found.setdefault(owner, set()).add(node.attr)
    return found


def _last_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def test_only_names_that_both_majors_publish_are_used() -> None:
    published = {owner: set(names.split()) for owner, names in BOTH_MAJORS.items()}
    found = used()
    # `image` is also a picture of ours in trt.py, and `error` an exception.
    ours = {"ITensor": {"memory", "ready", "shape"}, "ParserError": {"lost"}}
    odd = {owner: names - published.get(owner, set()) - ours.get(owner, set()) for owner, names in found.items()}
    assert not {owner: names for owner, names in odd.items() if names}
    assert not REMOVED & set().union(*found.values())
    # The table is neither larger than what is used: it is a record, not a wish.
    seen = {owner: names & published[owner] for owner, names in found.items()}
    assert len(seen) > 10 and sum(map(len, seen.values())) > 35


def test_the_installed_tensorrt_rtx_has_all_of_them() -> None:
    for owner, names in BOTH_MAJORS.items():
        here = rtx if owner == "" else getattr(rtx, owner)
        assert [name for name in names.split() if not hasattr(here, name)] == [], owner


# Of tensorrt_rtx alone, asked for before they are used: engines/kernels.py.
KERNELS = {
    "ICudaEngine": "create_runtime_config create_execution_context",
    "IRuntimeConfig": "create_runtime_cache set_runtime_cache",
    "IRuntimeCache": "deserialize serialize",
}


def test_the_installed_tensorrt_rtx_can_keep_what_it_compiles() -> None:
    text = (Path(engines.__file__).parent / "kernels.py").read_text()
    for owner, names in KERNELS.items():
        for name in names.split():
            assert hasattr(getattr(rtx, owner), name) and name in text, (owner, name)
    taken = rtx.ICudaEngine.create_execution_context.__doc__
    assert "runtime_config: tensorrt_rtx_bindings.tensorrt_rtx.IRuntimeConfig" in taken


def test_the_version_in_the_key_is_the_packages_own() -> None:
    assert rtx.__version__ == importlib.metadata.version("tensorrt_rtx")
