"""The page of an artifact, read as a browser would read it."""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator

import keras
import onnx_ir as ir
import pytest
from keras import layers

from kerve.artifact.v1 import manifest_pb2
from kerve.compiler import Artifact, CompileOptions, compile_model
from kerve.compiler.passes.queries import LAYER_KEY
from kerve.compiler.report.page import render
from kerve.runtime.onnx_file import count_operators


def tickets() -> keras.Model:
    title = keras.Input((None,), name="title", dtype="int32")
    tags = keras.Input((3,), name="tags")
    read = layers.LSTM(4, name="read")(layers.Embedding(30, 5, name="words")(title))
    joined = layers.Concatenate(name="join")([read, tags])
    for number in range(3):
        joined = layers.Add(name=f"add_{number}")(
            [joined, layers.Dense(7, activation="relu", name=f"dense_{number}")(joined)]
        )
    return keras.Model(
        [title, tags],
        {
            "priority": layers.Dense(1, activation="sigmoid", name="priority")(joined),
            "department": layers.Dense(4, activation="softmax", name="department")(joined),
        },
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    keras.utils.set_random_seed(0)
    return compile_model(tickets(), repository=tmp_path_factory.mktemp("models"), name="tickets")


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            layers.Input((6,), name="x"),
            layers.Dense(8, "relu", name="hidden"),
            layers.Dense(3, "softmax", name="y"),
        ]
    )
    return compile_model(
        model,
        repository=tmp_path_factory.mktemp("models"),
        name="reduced",
        options=CompileOptions(precision="int8", max_drop=1.0),
    )


def page_of(artifact: Artifact) -> ET.Element:
    return ET.parse(artifact.path / "report.html").getroot()


def section(page: ET.Element, heading: str) -> ET.Element:
    (found,) = (each for each in page.iter("section") if text(each.find("h2")).startswith(heading))
    return found


def text(element: ET.Element | None) -> str:
    assert element is not None
    return " ".join("".join(element.itertext()).split())


def rows(table: ET.Element) -> Iterator[list[str]]:
    yield from ([text(cell) for cell in row] for row in table.iter("tr"))


def test_the_page_is_one_of_the_files_that_the_manifest_hashes(artifact: Artifact) -> None:
    content = (artifact.path / "report.html").read_bytes()
    assert artifact.manifest.files["report.html"].sha256 == hashlib.sha256(content).hexdigest()


def test_nothing_in_it_comes_from_elsewhere(artifact: Artifact) -> None:
    page = page_of(artifact)
    content = (artifact.path / "report.html").read_text("utf-8")
    assert "://" not in content
    assert not re.search(r"url\((?!#)|@import", content)
    for element in page.iter():
        assert element.tag not in {"script", "link", "img", "iframe", "object", "image", "use", "a"}
        assert not {name for name in element.attrib if name.startswith("on") or name in {"src", "href"}}
    policies = [each.get("content") for each in page.iter("meta") if each.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_it_has_what_assistive_technology_needs(artifact: Artifact) -> None:
    page = page_of(artifact)
    assert page.get("lang") == "en"
    assert len(list(page.iter("h1"))) == 1
    identifiers = [each.get("id") for each in page.iter() if each.get("id")]
    assert len(identifiers) == len(set(identifiers))
    labels = {name for each in page.iter() for name in (each.get("aria-labelledby") or "").split()}
    assert labels <= set(identifiers)
    assert all(header.get("scope") in {"col", "row"} for header in page.iter("th"))
    assert all(table.find("thead") is not None for table in page.iter("table"))
    (picture,) = page.iter("svg")
    assert picture.get("role") == "img"


def test_it_tells_signature_source_tools_and_proof(artifact: Artifact) -> None:
    page, manifest = page_of(artifact), artifact.manifest
    assert ["input", "title", "INT32", "batch × title_1", ""] in list(rows(section(page, "Signature")))
    assert ["output", "department", "FP32", "batch × 4", ""] in list(rows(section(page, "Signature")))
    source = text(section(page, "Source"))
    assert f"Keras {manifest.source.keras_version}" in source
    assert all(f"{tool} {version}" in source for tool, version in manifest.toolchain.items())
    checks = list(rows(section(page, "Verification")))[1:]
    assert [row[0] for row in checks] == [check.output for check in manifest.verification.checks]
    for row, check in zip(checks, manifest.verification.checks, strict=True):
        assert float(row[3]) == pytest.approx(check.max_abs_error, rel=0.01)
        assert f"batch {check.batch_size}" in row[2]


def test_operators_and_sizes_are_those_of_the_file(artifact: Artifact) -> None:
    page = page_of(artifact)
    told = {row[0]: int(row[1]) for row in list(rows(section(page, "Operators")))[1:]}
    assert told == count_operators(artifact.path / "model.onnx")
    sizes = {row[0]: row for row in list(rows(section(page, "Size")))[1:]}
    assert sizes["words"][2:] == ["150", "600 bytes"]
    assert sizes["dense_0"] == ["dense_0", "MatMul, Relu", "49", "196 bytes"]  # biases are zero, and gone


def test_the_picture_shows_ends_layers_and_what_repeats(artifact: Artifact) -> None:
    (picture,) = page_of(artifact).iter("svg")
    kinds = Counter(each.get("class") for each in picture.iter("g"))
    assert (kinds["box input"], kinds["box output"]) == (2, 2)
    written = [text(each) for each in picture.iter("text")]
    assert {"title", "tags", "words", "read", "join", "priority", "department"} <= set(written)
    assert [each for each in written if each.endswith("× 3")]
    assert "dense_0" in written
    assert "dense_2" not in written


def test_a_reduced_precision_tells_what_each_layer_loses(reduced: Artifact) -> None:
    part = section(page_of(reduced), "What int8 loses")
    outputs, by_layer = (list(rows(table)) for table in part.iter("table"))
    assert outputs[1][0] == "y"
    record = reduced.manifest.reduction.layers
    assert {row[0] for row in by_layer[1:]} == {each.layer for each in record} == {"hidden", "y"}
    assert "random inputs" in text(section(page_of(reduced), "Warnings"))


def test_names_are_text_whatever_they_hold() -> None:
    hostile = "<script>alert('x')</script>&\"\x00\ud800"
    x = ir.Value(name=hostile, shape=ir.Shape(["batch", 2]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("Relu", [x], metadata_props={LAYER_KEY: hostile})
    node.outputs[0].name = "y"
    model = ir.Model(ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 21}), ir_version=10)
    harmless = hostile.replace("\ud800", "")
    manifest = manifest_pb2.Manifest(name=harmless, warnings=[harmless], toolchain={harmless: harmless})
    manifest.signature.inputs.add(name=harmless, datatype="FP32", labels=[harmless])
    content = render(model, manifest, 1)
    page = ET.fromstring(content)
    assert not list(page.iter("script"))
    assert text(page.find(".//h1")) == "<script>alert('x')</script>&\"\N{REPLACEMENT CHARACTER}"
    content.encode("utf-8")


def test_the_page_depends_on_model_and_manifest_alone(artifact: Artifact) -> None:
    model = ir.load(artifact.path / "model.onnx")
    assert render(model, artifact.manifest, 7) == render(model, artifact.manifest, 7)


def test_what_is_drawn_is_said_to_be_proven_by_its_distribution(artifact: Artifact) -> None:
    manifest = manifest_pb2.Manifest()
    manifest.CopyFrom(artifact.manifest)
    manifest.signature.outputs[0].random = True
    manifest.verification.checks[0].by_distribution = True
    page = ET.fromstring(render(ir.load(artifact.path / "model.onnx"), manifest, 1))
    assert list(rows(section(page, "Verification")))[1][-1] == "by distribution: samples of both sides agree"
    assert "output, random" in [row[0] for row in rows(section(page, "Signature"))]
