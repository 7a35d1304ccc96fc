"""The checks check: each rule has a case that it lets pass and one that it finds."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import check_includes
import check_objects
import check_paths


@pytest.fixture
def project(tmp_path):
    files = {
        "core/include/infinilm/tensor.hpp": "#include <vector>\n",
        "core/base/arena.hpp": '#include "infinilm/tensor.hpp"\n',
        "core/ops/ops.hpp": '#include "infinilm/tensor.hpp"\n#include "base/arena.hpp"\n',
        "core/cpu/pool.hpp": "#include <immintrin.h>\n",
        "core/cpu/CMakeLists.txt": "set(flags -mavx2 -mfma)\n",
        "core/model/llama.hpp": '#include "ops/ops.hpp"\n',
        "core/generate/generate.cpp": '#include "model/llama.hpp"\n// as in Python and NumPy\n',
        "swig/common/core.i": '%include "infinilm/tensor.hpp"\n/* Python, Lua */\n',
        "CMakeLists.txt": "project(x)\n",
    }
    for name, text in files.items():
        write(tmp_path, name, text)
    return tmp_path


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_project_in_order_has_no_faults(project):
    assert check_includes.check(project) == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("core/model/x.cpp", '\n#include "cpu/pool.hpp"\n', "core/model/x.cpp:2: model/ includes"),
        ("core/ops/x.cpp", '#include "model/llama.hpp"\n', "ops/ includes"),
        ("core/cpu/x.cpp", '#include "model/llama.hpp"\n', "cpu/ includes"),
        ("core/include/infinilm/x.hpp", '#include "base/arena.hpp"\n', "a public header includes"),
        ("core/base/x.cpp", '#include "arena.hpp"\n', "there is no core/arena.hpp"),
        ("core/base/x.cpp", '#include "infinilm/none.hpp"\n', "there is no core/include/"),
        ("core/base/x.cpp", "#include <infinilm/tensor.hpp>\n", "with quotes"),
        ("core/base/x.cpp", "PyObject *o;\n", '"PyObject"'),
        ("core/base/x.cpp", 'check(false, "pass a numpy array");\n', '"numpy"'),
        ("core/base/x.cpp", "#include <immintrin.h>\n", "belongs into core/cpu"),
        ("core/new/x.cpp", "\n", "folder new/ is unknown"),
        ("swig/common/x.i", "#ifdef SWIGPYTHON\n", '"SWIGPYTHON"'),
        ("core/CMakeLists.txt", "add_compile_options(-march=native)\n", '"-march=native"'),
    ],
)
def test_each_include_rule_is_enforced(project, name, text, fault):
    write(project, name, text)
    found = check_includes.check(project)
    assert len(found) == 1
    assert fault in found[0]


def test_a_comment_is_no_dependence_and_lines_are_counted_past_it(project):
    write(project, "core/base/x.cpp", '/* Python\n#include "cpu/pool.hpp" */\nPyObject *o;\n')
    (found,) = check_includes.check(project)
    assert found.startswith("core/base/x.cpp:3:")


def test_a_path_of_one_machine_is_found(tmp_path):
    write(tmp_path, "a.py", "x = 1\nopen('/" + "work/data')\n")
    write(tmp_path, "b.py", "'/tmp/model', 'net/work/x', 'https://example.org/root/x'\n")
    write(tmp_path, "c.ini", "https://pypi" + ".org/simple\n")
    faults = check_paths.check(sorted(tmp_path.iterdir()), tmp_path)
    assert [fault.partition(" ")[0] for fault in faults] == ["a.py:2:", "c.ini:1:"]


DISASSEMBLY = """\
arena.cpp.o:     file format elf64-x86-64
0000000000000000 <infinilm::grow()>:
       0:\tmovss  %xmm0,%xmm1
kernels_avx2.cpp.o:     file format elf64-x86-64
0000000000000000 <infinilm::avx2::dot()>:
       0:\tvmulps %ymm0,%ymm1,%ymm1
"""


def test_vector_code_is_allowed_in_kernels_only():
    assert check_objects.vector_code(DISASSEMBLY, kernels=False) == []
    assert len(check_objects.vector_code(DISASSEMBLY, kernels=True)) == 1
    for instruction in ("vmulps %ymm0,%ymm1,%ymm1", "vaddss %xmm0,%xmm1,%xmm1"):
        elsewhere = DISASSEMBLY.replace("movss  %xmm0,%xmm1", instruction)
        (fault,) = check_objects.vector_code(elsewhere, kernels=False)
        assert fault.startswith("arena.cpp.o: infinilm::grow()")


def test_a_weak_function_in_kernels_is_found():
    names = "\narena.cpp.o:\n0000 W std::f()\n\nkernels_avx2.cpp.o:\n0000 W std::g()\n"
    names += "0000 W void x::avx2::tile<1>()\n0000 T k\n"
    (fault,) = check_objects.weak_functions(names)
    assert fault.startswith("kernels_avx2.cpp.o: weak function std::g()")
