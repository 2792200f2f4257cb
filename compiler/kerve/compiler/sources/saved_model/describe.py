"""Description of a SavedModel, read from its files without loading it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf import message, text_format
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from kerve.compiler.errors import LoadError
from kerve.compiler.sources.consent import has_side_effects
from kerve.compiler.sources.keras2 import legacy
from kerve.compiler.traversal import reachable

__all__ = ["SavedModelInfo", "describe"]

_KERAS = "_tf_keras_"
_KERAS_MODELS = frozenset({"_tf_keras_model", "_tf_keras_network", "_tf_keras_sequential"})
_SERVING_TAG = "serve"
_DEFAULT_SIGNATURE = "serving_default"
_CONFIG_OF_TENSORFLOW_1 = "assets/saved_model.json"
_INTERNAL_SIGNATURES = frozenset({"__saved_model_init_op", "__saved_model_train_op"})

#: The functions by which TensorFlow 2 saves and restores variables; neither models nor our loading call them.
_SAVERS = re.compile(r"__inference__traced_(save|restore)_\d+")

#: The attribute of a layer with the function that adapts it to data, such as the boundaries of a
#: Discretization; it is called only in training.
_ADAPTS = "_adapt_function"

#: The operators by which TensorFlow 1 restores variables when a graph is loaded.
_RESTORE = frozenset({"Restore", "RestoreSlice", "RestoreV2"})


@dataclass(frozen=True)
class SavedModelInfo:
    """One graph of a SavedModel."""

    path: Path
    tags: tuple[str, ...]
    graph: meta_graph_pb2.MetaGraphDef
    #: The configurations of Keras's objects, in the order of the object graph; empty without Keras.
    configs: tuple[Any, ...]
    is_keras_model: bool

    @property
    def is_of_tensorflow_1(self) -> bool:
        """Whether it is a graph with variables, saved from a session, and not an object with functions."""
        return not self.graph.object_graph_def.nodes

    @property
    def keras_version(self) -> str:
        """The version of Keras that wrote it, or "" if unknown (a graph does not contain it)."""
        return next((str(each["keras_version"]) for each in self.configs if "keras_version" in each), "")

    @property
    def doubts(self) -> list[str]:
        """Warnings on what the Keras of TensorFlow 1 may have lost from the configuration."""
        try:
            config = json.loads((self.path / _CONFIG_OF_TENSORFLOW_1).read_text("utf-8"))
        except (OSError, ValueError, RecursionError):  # optional: only the graph is converted
            return []
        return (
            legacy.ambiguities(config, str(config.get("keras_version"))) if isinstance(config, dict) else []
        )

    @property
    def file_operators(self) -> list[str]:
        """The operators in it that have side effects or read files, sorted."""
        operators = {node.op for node in _executed(self.graph, _fetched(self.graph))}
        operators |= {node.op for node in _restoring(self.graph)} - _RESTORE
        uncalled = _uncalled(self.graph)
        for function in self.graph.graph_def.library.function:
            if function.signature.name not in uncalled:
                operators |= {node.op for node in function.node_def}
        return sorted(filter(has_side_effects, operators))

    @property
    def signatures(self) -> list[str]:
        """The names of the signatures that can be called, sorted."""
        return sorted(set(self.graph.signature_def) - _INTERNAL_SIGNATURES)

    def signature(self, wanted: str | None) -> str:
        """Return the name of the signature to serve; raises `LoadError`."""
        names = self.signatures
        if wanted is not None and wanted not in names:
            raise LoadError(f"{self.path} has no signature {wanted!r}; it has: {', '.join(names) or 'none'}")
        if wanted is not None:
            return wanted
        if _DEFAULT_SIGNATURE in names:
            return _DEFAULT_SIGNATURE
        if len(names) == 1:
            return names[0]
        if not names:
            raise LoadError(
                f"{self.path} has no signature, so nothing in it can be called; "
                "save it with signatures= (tf.saved_model.save) or export it (model.export)"
            )
        raise LoadError(
            f"{self.path} has several signatures; choose one with --signature: {', '.join(names)}"
        )


def describe(path: Path, tag: str | None) -> SavedModelInfo:
    """Read the graph with the given tag (or the serving graph); raises `LoadError`."""
    proto = _proto(path)
    graph = _graph(path, proto, tag)
    _check_assets(path, graph)
    nodes = graph.object_graph_def.nodes
    identifier = nodes[0].user_object.identifier if len(nodes) else ""
    return SavedModelInfo(
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


def _check_assets(path: Path, graph: meta_graph_pb2.MetaGraphDef) -> None:
    for asset in graph.asset_file_def:
        inside = PurePosixPath(asset.filename)
        if inside.is_absolute() or ".." in inside.parts:
            raise LoadError(
                f"{path} names the asset {asset.filename!r}, which is not in it; it was tampered with"
            )


def _configs(path: Path, graph: meta_graph_pb2.MetaGraphDef) -> Iterator[dict[str, Any]]:
    """Yield Keras's configurations, from the object graph and, since 2.5, from `keras_metadata.pb`."""
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


def _uncalled(graph: meta_graph_pb2.MetaGraphDef) -> set[str]:
    """Return the functions that save or adapt and that are not referenced by anything that may run."""
    functions, adapting = graph.graph_def.library.function, _adapting(graph)
    savers = {each.signature.name for each in functions if _SAVERS.fullmatch(each.signature.name)}
    called = set(graph.object_graph_def.concrete_functions) - adapting
    for node in _executed(graph, _fetched(graph)):
        called |= _called(node)
    for function in functions:
        if function.signature.name not in savers | adapting:
            called |= {name for node in function.node_def for name in _called(node)}
    return (savers | adapting) - called


def _adapting(graph: meta_graph_pb2.MetaGraphDef) -> set[str]:
    """Return the functions whose only use in the object graph is to adapt a layer, and their traces."""
    nodes = graph.object_graph_def.nodes
    known_as: dict[int, set[str]] = {}
    for node in nodes:
        for child in node.children:
            known_as.setdefault(child.node_id, set()).add(child.local_name)
    adapting = {index for index, names in known_as.items() if names == {_ADAPTS}}
    adapting |= {child.node_id for index in adapting for child in nodes[index].children}
    by_use: dict[bool, set[str]] = {False: set(), True: set()}
    for index, node in enumerate(nodes):
        by_use[index in adapting] |= {
            *node.function.concrete_functions,
            node.bare_concrete_function.concrete_function_name,
        }
    return by_use[True] - by_use[False]


def _called(node: Any) -> set[str]:
    """Return the functions that a node may call: those in its attributes, and its operator."""
    values = node.attr.values()
    return {
        node.op,
        *(each.func.name for each in values),
        *(f.name for each in values for f in each.list.func),
    }


def _executed(graph: meta_graph_pb2.MetaGraphDef, fetched: Iterable[str]) -> Iterator[Any]:
    """Yield the nodes outside functions that are needed for those in `fetched`."""
    nodes: Mapping[str, Any] = {node.name: node for node in graph.graph_def.node}

    def existing(names: Iterable[str]) -> list[str]:
        return [name for each in names if (name := each.lstrip("^").partition(":")[0]) in nodes]

    yield from (
        nodes[name] for name in reachable(existing(fetched), lambda name: existing(nodes[name].input))
    )


def _restoring(graph: meta_graph_pb2.MetaGraphDef) -> Iterator[Any]:
    """Yield the nodes that run when the variables of a TensorFlow 1 graph are restored."""
    is_of_tensorflow_1 = not graph.object_graph_def.nodes
    return _executed(graph, [graph.saver_def.restore_op_name] if is_of_tensorflow_1 else [])


def _fetched(graph: meta_graph_pb2.MetaGraphDef) -> Iterable[str]:
    """Yield the names of the tensors and nodes that signatures and the initialization fetch."""
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
