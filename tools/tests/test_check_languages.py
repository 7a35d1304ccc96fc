"""The catalogue's check finds what a language lacks. Needs SWIG (tox -e languages)."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import check_languages

pytestmark = pytest.mark.skipif(not shutil.which("swig"), reason="needs swig")


@pytest.fixture
def project(tmp_path):
    """A copy of what SWIG reads, to be spoilt."""
    for folder in ("swig", "core/include"):
        shutil.copytree(check_languages.ROOT / folder, tmp_path / folder)
    return tmp_path


def spoil(project, name, old, new=""):
    path = project / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("language", ["python", "lua", "java"])
def test_every_language_has_the_catalogue(language):
    assert check_languages.check(language) == []


def test_a_missing_typemap_is_named(project):
    spoil(project, "swig/lua/typemaps.i", "INFINILM_LUA_VALUE(std::vector<float>)")
    faults = check_languages.check("lua", project)
    assert any("std::vector<float> has no typemap(out)" in fault for fault in faults)
    assert any("const std::vector<float>& has no typemap(in)" in fault for fault in faults)
    assert any("an opaque type" in fault and "vectorT_float_t" in fault for fault in faults)


def test_a_missing_form_is_named(project):
    spoil(
        project,
        "swig/java/typemaps.i",
        "%typemap(out) const Type& {",
        "%typemap(unused) const Type& {",
    )
    faults = check_languages.check("java", project)
    assert any("const infinilm::TokenIds& has no typemap(out)" in fault for fault in faults)


def test_a_missing_macro_is_named(project):
    spoil(project, "swig/lua/macros.i", "#define INFINILM_SHORT_CALLS")
    faults = check_languages.check("lua", project)
    assert any("INFINILM_SHORT_CALLS is missing" in fault for fault in faults)


def test_a_new_entry_is_asked_of_everyone(project):
    row = "| `std::string` |"
    spoil(
        project,
        "swig/common/README.md",
        row,
        f"| `std::vector<double>` | a sequence | a list |\n{row}",
    )
    for language in ("python", "lua", "java"):
        faults = check_languages.check(language, project)
        assert any("std::vector<double> has no typemap(in)" in fault for fault in faults)
