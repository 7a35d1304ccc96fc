"""Files of tensors: what is read and written, and that no damaged or hostile file does harm."""

from __future__ import annotations

import gc
import json
import os
import resource
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import infinilm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from infinilm import Tensor, load_safetensors, save_safetensors
from infinilm.engine import load_checkpoint, safetensors_metadata

INDEX = "model.safetensors.index.json"
A = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
EDGES = [0, -1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 1e308, 1.0, -0.0, True, "1", None]

SLOW_AND_SHARED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
shared_folder = settings(deadline=None, suppress_health_check=SLOW_AND_SHARED, max_examples=300)


def file_bytes(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file; ``header`` is JSON's value or its bytes as they are."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def numbered(shape: tuple[int, ...], dtype: str = "float32", start: int = 0) -> Tensor:
    count = int(np.prod(shape))
    return Tensor.from_numpy(np.arange(start, start + count).reshape(shape).astype(dtype))


def bits(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()


def read(folder: Path, content: bytes) -> dict[str, Tensor]:
    path = folder / "x.safetensors"
    path.write_bytes(content)
    return dict(load_safetensors(path))


def refused(folder: Path, content: bytes) -> str:
    """The error, which names the file and is one a terminal can show."""
    with pytest.raises(ValueError, match=r"x\.safetensors") as error:
        read(folder, content)
    text = str(error.value)
    assert text.isprintable() or "\n" not in text
    return text


def verdict(folder: Path, content: bytes) -> dict[str, bytes] | None:
    try:
        tensors = read(folder, content)
    except ValueError:
        return None
    return {name: bits(tensor) for name, tensor in tensors.items()}


# What is in order


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    dtypes = ["float32", "float16", "float64", "int8", "uint8", "int16", "int64", "uint64", "bool"]
    tensors = {f"layer.{d}": numbered((3, 5), d) for d in dtypes}
    tensors |= {"scalar": numbered(()), "empty": numbered((0, 7)), "é\n\x00𝄞": numbered((2,))}
    path = tmp_path / "x.safetensors"
    save_safetensors(path, tensors, {"format": "pt", "ü": "ä"})
    loaded = load_safetensors(path)
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].shape == tensor.shape
        assert loaded[name].dtype == tensor.dtype
        assert bits(loaded[name]) == bits(tensor)
    assert safetensors_metadata(path) == {"format": "pt", "ü": "ä"}
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_a_view_with_strides_is_saved_as_its_values(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    save_safetensors(tmp_path / "x", {"t": Tensor.from_numpy(array.T)})
    np.testing.assert_array_equal(load_safetensors(tmp_path / "x")["t"].numpy(), array.T)


def test_loaded_tensors_are_read_only_views_that_keep_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(path, {"a": numbered((4,)), "b": numbered((1,))})
    array = load_safetensors(path)["a"].numpy()
    gc.collect()
    path.unlink()
    np.testing.assert_array_equal(array, [0, 1, 2, 3])
    assert not array.flags.writeable


def test_a_file_can_be_saved_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(path, {"a": numbered((1000,))})
    save_safetensors(path, {**load_safetensors(path), "b": numbered((3,))})
    loaded = load_safetensors(path)
    assert bits(loaded["a"]) == bits(numbered((1000,)))
    assert set(loaded) == {"a", "b"}


def test_the_package_reads_what_we_write_and_we_what_it_writes(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    arrays = {
        f"t.{d}": np.arange(6).reshape(2, 3).astype(d)
        for d in ["float32", "float16", "float64", "int32", "uint8", "bool"]
    }
    save_safetensors(
        tmp_path / "ours", {n: Tensor.from_numpy(a) for n, a in arrays.items()}, {"k": "v"}
    )
    package.save_file(arrays, tmp_path / "theirs", {"k": "v"})
    for array, ours, theirs in zip(
        arrays.values(),
        package.load_file(tmp_path / "ours").values(),
        load_safetensors(tmp_path / "theirs").values(),
        strict=True,
    ):
        assert array.shape == ours.shape == theirs.shape
    for name, array in arrays.items():
        np.testing.assert_array_equal(package.load_file(tmp_path / "ours")[name], array)
        np.testing.assert_array_equal(load_safetensors(tmp_path / "theirs")[name].numpy(), array)
    assert safetensors_metadata(tmp_path / "theirs") == {"k": "v"}


@pytest.mark.parametrize(
    ("code", "name", "shape", "nbytes"),
    [
        ("F8_E4M3", "float8_e4m3fn", [3], 3),
        ("F8_E5M2", "float8_e5m2", [2, 2], 4),
        ("BF16", "bfloat16", [3], 6),
        ("C64", "complex64", [2], 16),
        ("F4", "float4_e2m1fn", [4, 3], 6),
        ("F6_E2M3", "float6_e2m3fn", [4], 3),
        ("U32", "uint32", [1], 4),
    ],
)
def test_every_dtype_is_carried(
    tmp_path: Path, code: str, name: str, shape: list[int], nbytes: int
) -> None:
    header = {"t": {"dtype": code, "shape": shape, "data_offsets": [0, nbytes]}}
    tensor = read(tmp_path, file_bytes(header, bytes(range(nbytes))))["t"]
    assert (str(tensor.dtype), tensor.shape, tensor.nbytes) == (name, tuple(shape), nbytes)


def test_data_need_not_be_aligned(tmp_path: Path) -> None:
    values = np.arange(5, dtype=np.float32)
    header = {
        "b": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "a": {"dtype": "F32", "shape": [5], "data_offsets": [1, 21]},
    }
    tensors = read(tmp_path, file_bytes(header, b"\7" + values.tobytes()))
    np.testing.assert_array_equal(tensors["a"].numpy(), values)


@pytest.mark.parametrize(
    "header",
    [
        b"{}",
        b" {} \n\t\r",
        {"__metadata__": None},
        {"t": A},
        {"t": {**A, "future": {"a": [1, 2.5, None]}}},
        {"": A},
        {"t": {**A, "shape": []}},
        {"t": ["F32", [1], [0, 4]]},
    ],
)
def test_what_the_package_reads_is_read(tmp_path: Path, header: Any) -> None:
    data = b"1234" if b"F32" in file_bytes(header) else b""
    tensors = read(tmp_path, file_bytes(header, data))
    assert [bits(t) for t in tensors.values()] == ([b"1234"] if data else [])


# What is not in order


def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    content = file_bytes({"a": A, "b": {**A, "data_offsets": [4, 8]}}, b"12345678")
    for length in range(len(content)):
        refused(tmp_path, content[:length])
    refused(tmp_path, content + b"\0")


def test_any_byte_of_a_header_changed_is_refused_or_harmless(tmp_path: Path) -> None:
    content = file_bytes({"a": A, "b": {**A, "data_offsets": [4, 8]}}, b"12345678")
    for position in range(len(content) - 8):
        for flip in (0x01, 0x20, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[position] ^= flip
            found = verdict(tmp_path, bytes(damaged))
            # Another name, or spaces for spaces: nothing else may pass.
            assert found is None or sorted(found.values()) == [b"1234", b"5678"], position


@pytest.mark.parametrize("number", EDGES, ids=repr)
@pytest.mark.parametrize("place", ["shape", "begin", "end", "rank"])
def test_numbers_out_of_place_are_refused(tmp_path: Path, place: str, number: Any) -> None:
    entry: dict[str, Any] = dict(A)
    if place == "shape":
        entry["shape"] = [number, 3]
    elif place == "rank":
        entry["shape"] = [2**32, 2**32, number]
    else:
        entry["data_offsets"] = [number, 4] if place == "begin" else [0, number]
    if place == "begin" and number == 0 and number is not True and str(number) == "0":
        assert read(tmp_path, file_bytes({"t": entry}, b"1234"))
    else:
        assert '"t"' in refused(tmp_path, file_bytes({"t": entry}, b"1234"))


@pytest.mark.parametrize("length", [1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1])
def test_a_length_of_the_header_that_lies_is_refused(tmp_path: Path, length: int) -> None:
    text = refused(tmp_path, file_bytes({"t": A}, b"1234", length=length))
    assert length == 1 or str(length) in text


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"", "not valid JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b"{}\0", "NUL"),
        (b"{} x", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', "surrogate"),
        (b'{"\xff":1}', "UTF-8"),
        (b'{"t":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', '"t"'),
        (b'{"t":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}', '"t"'),
        (b'{"t":{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}}', "shape"),
        (b'{"t":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', "shape"),
        (b'{"t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', '"dtype" twice'),
        (b'{"t":1,"t":1}', '"t"'),
        ({"t": None}, '"t"'),
        ({"t": [1, 2]}, '"t"'),
        ({"t": {"dtype": "F32", "shape": [1]}}, "data_offsets"),
        ({"t": {"shape": [1], "data_offsets": [0, 4]}}, "dtype"),
        ({"t": {"dtype": "F32", "data_offsets": [0, 4]}}, "shape"),
        ({"t": {**A, "dtype": "F33"}}, "F33"),
        ({"t": {**A, "dtype": "f32"}}, "f32"),
        ({"t": {**A, "dtype": 1}}, "dtype"),
        ({"t": {**A, "shape": 1}}, "shape"),
        ({"t": {**A, "shape": [1] * 9}}, "8 dimensions"),
        ({"t": {**A, "shape": [2]}}, "8"),
        ({"t": {**A, "shape": [2**62, 2]}}, "2^63"),
        ({"t": {**A, "shape": [2**62]}}, "2^61"),
        ({"t": {**A, "data_offsets": [0, 4, 4]}}, "data_offsets"),
        ({"t": {**A, "data_offsets": [4, 0]}}, "begin"),
        ({"t": {**A, "data_offsets": [0, 8]}}, "begin"),
        ({"t": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, "fraction"),
        ({"t": A, "__metadata__": {"a": 1}}, "__metadata__"),
        ({"t": A, "__metadata__": []}, "__metadata__"),
        ({"t": {**A, "x": [[[[[[[[[1]]]]]]]]]}}, "nesting"),
        ({"x": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}, "bytes of data"),
        ({"x": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]}}, "hole"),
        (
            {
                "x": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
                "y": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]},
            },
            "overlap",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, header: Any, says: str) -> None:
    assert says in refused(tmp_path, file_bytes(header, b"1234"))


def test_duplicate_tensors_are_refused_by_name(tmp_path: Path) -> None:
    entry = json.dumps(A)
    text = refused(tmp_path, file_bytes(f'{{"w.q":{entry},"w.q":{entry}}}'.encode(), b"1234"))
    assert '"w.q" twice' in text


def test_deep_nesting_does_not_exhaust_the_stack(tmp_path: Path) -> None:
    assert "nesting" in refused(tmp_path, file_bytes(b'{"a":' + b"[" * 1_000_000))


def test_a_huge_shape_allocates_nothing(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    header = {"t": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    refused(tmp_path, file_bytes(header, b"1234"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_names_with_control_characters_are_escaped_in_messages(tmp_path: Path) -> None:
    text = refused(tmp_path, file_bytes({'a\x1b[31m"\n': {**A, "shape": [9]}}, b"1234"))
    assert "\x1b" not in text
    assert "\n" not in text


# The same verdict as the package's


def package_verdict(content: bytes) -> dict[str, bytes] | None:
    package = pytest.importorskip("safetensors")
    try:
        return {name: bytes(t["data"]) for name, t in package.deserialize(content)}
    except package.SafetensorError:
        return None


numbers = st.one_of(st.integers(0, 12), st.sampled_from([-1, 2**31, 2**63, 2**64, 1.0]))
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "U8", "I64", "BOOL", "BF17", 3]),
        "shape": st.lists(numbers, max_size=3),
        "data_offsets": st.lists(numbers, min_size=2, max_size=2),
    }
)


@shared_folder
@given(st.dictionaries(st.text(max_size=3), entries, max_size=3), st.integers(0, 12))
def test_entries_like_the_package(tmp_path: Path, header: dict[str, Any], size: int) -> None:
    content = file_bytes(header, bytes(range(size)))
    assert verdict(tmp_path, content) == package_verdict(content)


@st.composite
def good_files(draw: st.DrawFn) -> bytes:
    header: dict[str, Any] = {}
    end = 0
    for name in draw(st.lists(st.text(max_size=4), unique=True, max_size=4)):
        code, width = draw(st.sampled_from([("F32", 4), ("F16", 2), ("U8", 1), ("I64", 8)]))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        begin, end = end, end + width * int(np.prod(shape, dtype=int))
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    names = draw(st.permutations(list(header)))
    return file_bytes({name: header[name] for name in names}, bytes(i % 251 for i in range(end)))


@shared_folder
@given(good_files(), st.data())
def test_good_and_damaged_files_like_the_package(
    tmp_path: Path, content: bytes, data: st.DataObject
) -> None:
    found = verdict(tmp_path, content)
    assert found is not None
    assert found == package_verdict(content)
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    ours, theirs = verdict(tmp_path, bytes(damaged)), package_verdict(bytes(damaged))
    if ours != theirs:  # only where we are stricter, and say so
        assert ours is None
        assert "twice" in refused(tmp_path, bytes(damaged))


# Paths


def test_errors_of_the_system_name_the_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        load_safetensors(tmp_path / "gone.safetensors")
    with pytest.raises(OSError, match="directory"):
        load_safetensors(tmp_path)
    with pytest.raises(FileNotFoundError, match="sub"):
        save_safetensors(tmp_path / "sub" / "x", {})
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="0"):
        load_safetensors(tmp_path / "empty")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"):
        load_safetensors(tmp_path / "pipe")
    with pytest.raises(ValueError, match="null byte"):
        load_safetensors(str(tmp_path / "x") + "\0y")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_safetensors(path, {})
    path.chmod(0)
    with pytest.raises(OSError, match="ermission"):
        load_safetensors(path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    """In a process of its own, whose files may not exceed 64 KB."""
    script = f"""
import resource, signal, numpy, infinilm
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
big = infinilm.Tensor.from_numpy(numpy.zeros(100_000, dtype="float32"))
try:
    infinilm.save_safetensors({str(tmp_path / "x")!r}, {{"a": big}})
except OSError as error:
    print("refused", error)
"""
    save_safetensors(tmp_path / "x", {"old": numbered((1,))})
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "refused" in done.stdout
    assert list(load_safetensors(tmp_path / "x")) == ["old"]
    assert os.listdir(tmp_path) == ["x"]


def test_names_that_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="__metadata__"):
        save_safetensors(tmp_path / "x", {"__metadata__": numbered((1,))})
    assert os.listdir(tmp_path) == []


def test_a_saved_file_has_the_usual_permissions(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "x", {})
    (tmp_path / "y").touch()
    mode = stat.S_IMODE((tmp_path / "x").stat().st_mode)
    assert mode == stat.S_IMODE((tmp_path / "y").stat().st_mode)


# Directories


def sharded(folder: Path, shards: dict[str, list[str]], weight_map: Any = None) -> Path:
    for shard, names in shards.items():
        save_safetensors(folder / shard, {name: numbered((2,)) for name in names})
    named = {name: shard for shard, names in shards.items() for name in names}
    index = {"metadata": {"total_size": 8}, "weight_map": named}
    if weight_map is not None:
        index["weight_map"] = weight_map
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def test_shards_make_one_checkpoint(tmp_path: Path) -> None:
    sharded(tmp_path, {"m-1.safetensors": ["a", "b"], "m-2.safetensors": ["c"]})
    assert sorted(load_checkpoint(tmp_path)) == ["a", "b", "c"]


def test_a_single_file_wins_over_an_index(tmp_path: Path) -> None:
    sharded(tmp_path, {"m-1.safetensors": ["a"]})
    save_safetensors(tmp_path / "model.safetensors", {"single": numbered((1,))})
    assert list(load_checkpoint(tmp_path)) == ["single"]


@pytest.mark.parametrize(
    "name",
    ["../m", "sub/m", "/etc/passwd", "..", ".", "", "m\0", "a\\m", "./m", "m/", 3, None, ["m"]],
)
def test_an_index_names_only_files_of_its_directory(tmp_path: Path, name: Any) -> None:
    save_safetensors(tmp_path / "m", {"a": numbered((1,))})
    inner = tmp_path / "inner"
    (inner / "sub").mkdir(parents=True)
    save_safetensors(inner / "sub" / "m", {"a": numbered((1,))})
    sharded(inner, {"m": []}, {"a": name})
    with pytest.raises(ValueError, match="expected the name of a file"):
        load_checkpoint(inner)


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "outside", {"a": numbered((1,))})
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "m").symlink_to(tmp_path / "outside")
    (inner / INDEX).write_text(json.dumps({"weight_map": {"a": "m"}}))
    with pytest.raises(ValueError, match="a link to"):
        load_checkpoint(inner)
    (inner / "real").write_bytes((tmp_path / "outside").read_bytes())
    (inner / "m").unlink()
    (inner / "m").symlink_to("real")
    assert list(load_checkpoint(inner)) == ["a"]


def test_the_links_of_huggingface_s_cache_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--x--y" / "snapshots" / "0123abc"
    blobs = tmp_path / "models--x--y" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    save_safetensors(blobs / "9f9f", {"a": numbered((1,))})
    (snapshot / "m-1.safetensors").symlink_to("../../blobs/9f9f")
    (snapshot / INDEX).write_text(json.dumps({"weight_map": {"a": "m-1.safetensors"}}))
    assert list(load_checkpoint(snapshot)) == ["a"]


def test_shards_that_do_not_fit_their_index(tmp_path: Path) -> None:
    shards = {"m-1": ["a", "b"], "m-2": ["b"]}
    with pytest.raises(ValueError, match=r'"b" in one file.*"m-1".*"m-2"'):
        load_checkpoint(sharded(tmp_path, shards))
    with pytest.raises(ValueError, match=r'"c".*nowhere'):
        load_checkpoint(sharded(tmp_path, {"m-1": ["a"]}, {"a": "m-1", "c": "m-1"}))
    with pytest.raises(ValueError, match=r'"b" in "m-1".*"m-2"'):
        load_checkpoint(
            sharded(
                tmp_path, {"m-1": ["a"], "m-2": ["b", "d"]}, {"a": "m-1", "b": "m-1", "d": "m-2"}
            )
        )
    with pytest.raises(FileNotFoundError, match="m-3"):
        load_checkpoint(sharded(tmp_path, {"m-1": ["a"]}, {"a": "m-1", "b": "m-3"}))


@pytest.mark.parametrize("map_", [{}, [], None, 1, "a"])
def test_an_index_without_a_map(tmp_path: Path, map_: Any) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": map_}))
    with pytest.raises(ValueError, match="weight_map"):
        load_checkpoint(tmp_path)


def test_a_duplicate_name_in_an_index(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text('{"weight_map":{"a":"m","a":"n"}}')
    with pytest.raises(ValueError, match=r'json.*"a" twice'):
        load_checkpoint(tmp_path)


def test_a_directory_without_safetensors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin.*save_pretrained"):
        load_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such directory"):
        load_checkpoint(tmp_path / "gone")


def test_loading_leaks_nothing(tmp_path: Path) -> None:
    sharded(tmp_path, {"m-1": ["a", "b"], "m-2": ["c"]})
    gc.collect()
    before = infinilm.engine.live_objects()
    for _ in range(20):
        tensors = load_checkpoint(tmp_path)
        refused(tmp_path, b"123")
    del tensors
    gc.collect()
    assert infinilm.engine.live_objects() == before
