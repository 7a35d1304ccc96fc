"""What the documents show is run: Python in README.md and the examples of docstrings; versions agree."""

import doctest
import importlib
import importlib.metadata
import pkgutil
import re
from pathlib import Path

import infinilm
import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def python_blocks(document: str) -> list[str]:
    return PYTHON_BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))


def modules() -> list[str]:
    found = [
        module.name
        for module in pkgutil.iter_modules(infinilm.__path__, "infinilm.")
        # The plug-in looks like a module, but is none.
        if module.name not in {"infinilm.__main__", "infinilm._engine", "infinilm.libinfinilm_cuda"}
    ]
    return ["infinilm", *found]


def test_readme_has_examples():
    assert len(python_blocks("README.md")) >= 5


@pytest.mark.parametrize("index", range(len(python_blocks("README.md"))))
def test_readme_example_runs(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = compile(python_blocks("README.md")[index], f"README.md, example {index}", "exec")
    exec(code, {"__name__": "__main__"})


@pytest.mark.parametrize("name", modules())
def test_docstring_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_stub_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stub = Path(infinilm.__file__).with_name("__init__.pyi")
    parser = doctest.DocTestParser()
    text = stub.read_text(encoding="utf-8")
    test = parser.get_doctest(text, {"infinilm": infinilm}, "__init__.pyi", str(stub), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test)
    assert runner.summarize().failed == 0


def test_the_version_is_one():
    assert infinilm.__version__ == importlib.metadata.version("infinilm")
    assert infinilm.engine.version() == infinilm.__version__
    declared = re.search(r"project\(infinilm VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())
    assert declared is not None
    assert declared[1] == infinilm.__version__


def test_the_wheel_holds_what_it_should():
    package = Path(infinilm.__file__).parent
    for name in ("py.typed", "__init__.pyi", "engine.pyi", "data/sample_model/model.safetensors"):
        assert (package / name).is_file(), name
    for name in ("config.json", "tokenizer.json", "README.md"):
        assert (package / "data" / "sample_model" / name).is_file(), name
