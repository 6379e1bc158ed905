"""Converts StableHLO to LiteRT: ``python convert_litert.py FOLDER``.

A script for litert-converter alone, because its MLIR and JAX's are better not in one
process. For each ``NAME.mlir`` and ``NAME.json`` (names of inputs and of outputs, in
order) it writes ``NAME.tflite``. The converter's interface is not a public one: another
version may need another script.
"""

import importlib
import json
import sys
from pathlib import Path

_MODULES = "converter_api_ext", "mlir.ir", "mlir.passmanager"


def convert(text: str, inputs: list[str], outputs: list[str]) -> bytes:
    """A ``.tflite`` file with one signature of the function ``main``."""
    converter, ir, passmanager = (
        importlib.import_module(f"litert_converter.{name}") for name in _MODULES
    )
    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context:
        module = ir.Module.parse(text)
        main = next(one for one in module.body.operations if one.name.value == "main")
        converter.set_signature(main.operation, "serving_default", inputs, outputs)
        passes = passmanager.PassManager("builtin.module")
        options = converter.ConvertToTFLConfig()
        converter.run_convert_to_tfl_passes(module, passes, options)
        return converter.export_flatbuffer_to_bytes(module.operation)


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).glob("*.mlir")):
        names = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        data = convert(path.read_text(encoding="utf-8"), *names)
        path.with_suffix(".tflite").write_bytes(data)
