"""What a SavedModel holds, read from its files without loading it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import message, text_format
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from kerve.compiler.errors import LoadError
from kerve.compiler.sources.consent import FILE_OPERATORS

__all__ = ["Description", "describe"]

_KERAS = "_tf_keras_"
_KERAS_MODELS = frozenset({"_tf_keras_model", "_tf_keras_network", "_tf_keras_sequential"})
_SERVING_TAG = "serve"
_DEFAULT_SIGNATURE = "serving_default"
_INTERNAL_SIGNATURES = frozenset({"__saved_model_init_op", "__saved_model_train_op"})

#: What TensorFlow writes variables and reads them with; a loader calls it, a model does not.
_SAVERS = re.compile(r"__inference__traced_(save|restore)_\d+")


@dataclass(frozen=True)
class Description:
    """One graph of a SavedModel."""

    path: Path
    tags: tuple[str, ...]
    graph: meta_graph_pb2.MetaGraphDef
    #: The configurations of Keras's objects, by their place in the object graph; empty without Keras.
    configs: tuple[Any, ...]
    is_keras_model: bool

    @property
    def is_of_tensorflow_1(self) -> bool:
        """Whether it is a graph with variables, as sessions save it, rather than an object with functions."""
        return not self.graph.object_graph_def.nodes

    @property
    def keras_version(self) -> str:
        """The version of Keras that wrote it, else "" (a graph does not tell what made it)."""
        return next((str(each["keras_version"]) for each in self.configs if "keras_version" in each), "")

    @property
    def file_operators(self) -> list[str]:
        """The operators in it that touch files or call Python, sorted."""
        operators = {node.op for node in _executed(self.graph)}
        for function in self.graph.graph_def.library.function:
            if not _SAVERS.fullmatch(function.signature.name):
                operators |= {node.op for node in function.node_def}
        return sorted(operators & FILE_OPERATORS)

    def signature(self, wanted: str | None) -> str:
        """Return the name of the signature to serve; raises `LoadError`."""
        names = sorted(set(self.graph.signature_def) - _INTERNAL_SIGNATURES)
        if wanted is not None and wanted not in names:
            raise LoadError(f"{self.path} has no signature {wanted!r}; it has: {', '.join(names) or 'none'}")
        if wanted is not None:
            return wanted
        if _DEFAULT_SIGNATURE in names:
            return _DEFAULT_SIGNATURE
        if len(names) == 1:
            return str(names[0])
        if not names:
            raise LoadError(
                f"{self.path} has no signature, so nothing in it can be called; "
                "save it with signatures= (tf.saved_model.save) or export it (model.export)"
            )
        raise LoadError(
            f"{self.path} has several signatures; choose one with --signature: {', '.join(names)}"
        )


def describe(path: Path, tag: str | None) -> Description:
    """Read the graph with the given tag (or the serving graph); raises `LoadError`."""
    proto = _proto(path)
    graph = _graph(path, proto, tag)
    nodes = graph.object_graph_def.nodes
    identifier = nodes[0].user_object.identifier if len(nodes) else ""
    return Description(
        path=path,
        tags=tuple(graph.meta_info_def.tags),
        graph=graph,
        configs=tuple(_configs(path, graph)),
        is_keras_model=identifier in _KERAS_MODELS,
    )


def _proto(path: Path) -> saved_model_pb2.SavedModel:
    proto = saved_model_pb2.SavedModel()
    try:
        if (path / "saved_model.pb").is_file():
            proto.ParseFromString((path / "saved_model.pb").read_bytes())
        else:
            text_format.Parse((path / "saved_model.pbtxt").read_text("utf-8"), proto)
    except (message.DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise LoadError(
            f"the saved_model.pb in {path} is damaged ({error}); copy or save it again"
        ) from error
    if not proto.meta_graphs:
        raise LoadError(f"the saved_model.pb in {path} holds no graph; copy or save it again")
    return proto


def _graph(path: Path, proto: saved_model_pb2.SavedModel, tag: str | None) -> meta_graph_pb2.MetaGraphDef:
    by_tags = {frozenset(each.meta_info_def.tags): each for each in proto.meta_graphs}
    wanted = tag if tag is not None else _SERVING_TAG
    exact = by_tags.get(frozenset(wanted.split(",")))
    if exact is not None:
        return exact
    if tag is None and len(by_tags) == 1:
        return proto.meta_graphs[0]
    available = "; ".join(sorted(",".join(sorted(tags)) or "(no tag)" for tags in by_tags))
    raise LoadError(f"{path} has no graph tagged {wanted!r}; choose with --tag from: {available}")


def _configs(path: Path, graph: meta_graph_pb2.MetaGraphDef) -> Iterator[dict[str, Any]]:
    """Keras keeps them in the object graph, and since 2.5 in a file of their own."""
    texts = [
        node.user_object.metadata
        for node in graph.object_graph_def.nodes
        if node.user_object.identifier.startswith(_KERAS)
    ]
    if (path / "keras_metadata.pb").is_file():
        from tf_keras.protobuf import saved_metadata_pb2

        metadata = saved_metadata_pb2.SavedMetadata()
        try:
            metadata.ParseFromString((path / "keras_metadata.pb").read_bytes())
        except message.DecodeError as error:
            raise LoadError(f"the keras_metadata.pb in {path} is damaged ({error})") from error
        texts.extend(node.metadata for node in metadata.nodes)
    for text in filter(None, texts):
        try:
            config = json.loads(text)
        except ValueError as error:
            raise LoadError(f"Keras's configuration in {path} is damaged ({error})") from error
        if isinstance(config, dict):
            yield config


def _executed(graph: meta_graph_pb2.MetaGraphDef) -> Iterator[Any]:
    """The nodes outside functions that a signature, or the initialization, needs."""
    nodes: Mapping[str, Any] = {node.name: node for node in graph.graph_def.node}
    waiting = list(_fetched(graph))
    seen: set[str] = set()
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        yield nodes[name]
        waiting.extend(nodes[name].input)


def _fetched(graph: meta_graph_pb2.MetaGraphDef) -> Iterable[str]:
    for signature in graph.signature_def.values():
        for output in signature.outputs.values():
            yield output.name
            for component in output.composite_tensor.components:
                yield component.name
            yield from filter(
                None, (output.coo_sparse.values_tensor_name, output.coo_sparse.indices_tensor_name)
            )
    for key in ("saved_model_main_op", "legacy_init_op", "table_initializer"):
        yield from graph.collection_def[key].node_list.value
