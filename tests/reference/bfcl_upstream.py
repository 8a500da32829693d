"""Upstream's own BFCL pipeline, in a process of its own: its inference loop fed with given responses, then its evaluation.

Run as `python bfcl_upstream.py WHEEL`; reads a JSON line `{"task", "responses"}` for each episode from standard input, writes
`{"valid", "results"}` for each to standard output. With `--forked` each conversation is carried out in a new process, and
evaluated in another, as by someone who runs upstream on that entry alone; with `--reimported` the services' modules are
imported anew for both, which is quicker. Nothing of cotbench is imported here.
"""

import contextlib
import decimal
import importlib.machinery
import io
import json
import os
import sys
import tempfile
import types
import zipfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

_STUBS = (
    "dotenv",
    "tqdm",
    "tree_sitter",
    "tree_sitter_java",
    "tree_sitter_javascript",
    "tenacity",
    "filelock",
    "pandas",
    "bfcl_eval.constants.supported_models",
    "bfcl_eval.model_handler.parser.java_parser",
    "bfcl_eval.model_handler.parser.js_parser",
)
"""What the pipeline imports and does not use for these tasks."""


def _stub(name: str) -> MagicMock:
    module = MagicMock(name=name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules[name] = module
    return module


class _Models(defaultdict[str, Any]):
    def __missing__(self, name: str) -> Any:
        return types.SimpleNamespace(underscore_to_dot=False)


def _prepare(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    sys.dont_write_bytecode = False
    os.environ["BFCL_PROJECT_ROOT"] = str(folder / "root")
    sys.path.insert(0, str(folder))
    for name in _STUBS:
        _stub(name)
    overrides = types.ModuleType("overrides")
    overrides.final = overrides.override = lambda function: function  # type: ignore[attr-defined]
    overrides.EnforceOverrides = object  # type: ignore[attr-defined]
    sys.modules["overrides"] = overrides
    config = types.ModuleType("bfcl_eval.constants.model_config")
    config.MODEL_CONFIG_MAPPING = _Models()  # type: ignore[attr-defined]
    sys.modules[config.__name__] = config


def main() -> None:
    """Serve episodes."""
    with tempfile.TemporaryDirectory() as folder:
        _prepare(Path(sys.argv[1]), Path(folder))
        from bfcl_eval import utils
        from bfcl_eval.constants.enums import Language, ReturnFormat
        from bfcl_eval.eval_checker import eval_runner
        from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_utils
        from bfcl_eval.model_handler import utils as decoding
        from bfcl_eval.model_handler.base_handler import BaseHandler

        utils.load_file = _load_file  # Without the lock files.

        class Scripted(BaseHandler):  # type: ignore[misc]
            """A prompting model that says what it is told to; when nothing is left, it says `[]`."""

            said: list[str]

            def _pre_query_processing_prompting(self, entry: Any) -> Any:
                return {}

            def _query_prompting(self, data: Any) -> Any:
                return (self.said.pop(0) if self.said else "[]"), 0.0

            def _parse_query_response_prompting(self, response: Any) -> Any:
                return {"model_responses": response, "input_token": 0, "output_token": 0}

            def add_first_turn_message_prompting(self, data: Any, message: Any) -> Any:
                return data

            def _add_next_turn_user_message_prompting(self, data: Any, message: Any) -> Any:
                return data

            def _add_assistant_message_prompting(self, data: Any, response: Any) -> Any:
                return data

            def _add_execution_results_prompting(self, data: Any, results: Any, response: Any) -> Any:
                self.results.extend(results)
                return data

            def decode_execute(self, result: Any, has_tool_call_tag: bool) -> Any:
                return decoding.default_decode_execute_prompting(result, has_tool_call_tag)

            def decode_ast(self, result: Any, language: Any, has_tool_call_tag: bool) -> Any:
                return decoding.default_decode_ast_prompting(result, language, has_tool_call_tag)

        entries: dict[str, dict[str, Any]] = {}
        truths: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(sys.stdin):
            asked = json.loads(line)
            task, category = asked["task"], asked["task"].rsplit("_", 1)[0]
            if category not in entries:
                entries[category] = {entry["id"]: entry for entry in utils.load_dataset_entry(category)}
                answers = [] if "relevance" in category else utils.load_ground_truth_entry(category)
                truths[category] = {answer["id"]: answer["ground_truth"] for answer in answers}
            entry = json.loads(json.dumps(entries[category][task]))
            name = f"cotbench{number}"
            handler = Scripted(name, 0, name, False)
            handler.said, handler.results = list(asked["responses"]), []
            with contextlib.redirect_stdout(io.StringIO()):
                if "multi_turn" in category:
                    spoken, handler.results = _carried_out(partial(_inferred, handler, entry))
                    evaluate = partial(eval_runner._evaluate_single_multi_turn_entry, handler, task, spoken)
                    verdict = _carried_out(partial(evaluate, truths[category][task], entry, name, category))
                elif "relevance" in category:
                    verdict = eval_runner._evaluate_single_relevance_entry(
                        handler, task, asked["responses"][0], entry, name, category
                    )
                else:
                    verdict = eval_runner._evaluate_single_ast_entry(
                        handler,
                        task,
                        asked["responses"][0],
                        truths[category][task],
                        entry,
                        name,
                        category,
                        Language.PYTHON,
                        ReturnFormat.PYTHON,
                    )
            for kept in [key for key in vars(multi_turn_utils) if key.startswith(name)]:
                delattr(multi_turn_utils, kept)
            print(json.dumps({"valid": bool(verdict["valid"]), "results": handler.results}), flush=True)


def _inferred(handler: Any, entry: dict[str, Any]) -> tuple[Any, list[str]]:
    spoken, _ = handler.inference(entry, False, True)
    return spoken, handler.results


def _carried_out(function: Callable[[], Any]) -> Any:
    """Return what a function returns: called here, here with modules imported anew, or in a forked copy of this process."""
    if "--reimported" in sys.argv:
        for name in [name for name in sys.modules if "func_source_code" in name]:
            del sys.modules[name]
        decimal.setcontext(decimal.Context())
        if "mpmath" in sys.modules:
            sys.modules["mpmath"].mp.dps = 15
    if "--forked" not in sys.argv:
        return function()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writer, "w") as pipe:
            json.dump(function(), pipe, default=str)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        returned = json.load(pipe)
    os.waitpid(child, 0)
    return returned


def _load_file(path: Any, sort_by_id: bool = False, use_lock: bool = True) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines() if line.strip()]


if __name__ == "__main__":
    main()
