"""SavedModels that TensorFlow wrote: their tables are part of the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kerve.compiler import sources
from kerve.compiler.errors import LoadError
from kerve.compiler.sources import LoadOptions

_WORDS = tf.TensorSpec([None], tf.string, "word")
_ASKED = np.array(["a", "b", "red fox", "", "naïve"], object)


class _Tables(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        table, filled = tf.lookup.StaticHashTable, tf.lookup.KeyValueTensorInitializer
        self.weights = table(filled(["a", "red fox"], [1.5, 2.5]), -1.0)
        self.names = table(filled(tf.constant([0, 1], tf.int64), ["no", "yes"]), "?")
        self.ids = tf.lookup.StaticVocabularyTable(filled(["a", "b"], tf.constant([0, 1], tf.int64)), 3)
        self.counts = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0)
        self.counts.insert(["b"], tf.constant([7], tf.int64))

    def weigh(self, word: Any) -> dict[str, Any]:
        return {"weight": self.weights.lookup(word), "known": self.weights.size()}

    def identify(self, word: Any) -> dict[str, Any]:
        return {"id": self.ids.lookup(word)}

    def count(self, word: Any) -> dict[str, Any]:
        return {"count": self.counts.lookup(word), "size": tf.size(word)}

    def decide(self, word: Any) -> dict[str, Any]:
        return {"name": self.names.lookup(tf.cast(self.weights.lookup(word) > 2.0, tf.int64))}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel of which each signature looks something up."""
    folder, module = tmp_path_factory.mktemp("tables"), _Tables()
    names = ("weigh", "identify", "count", "decide")
    signatures = {name: tf.function(getattr(module, name)).get_concrete_function(_WORDS) for name in names}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


@pytest.mark.parametrize("signature", ["weigh", "identify", "count", "decide"])
def test_tables_are_part_of_the_graph(
    tables: Path, signature: str, equal_to_original: Callable[..., Any]
) -> None:
    source = sources.load(tables, LoadOptions(signature=signature))
    equal_to_original(source, {"word": _ASKED})


def test_several_signatures_are_listed(tables: Path) -> None:
    with pytest.raises(LoadError, match="choose one with --signature: count, decide, identify, weigh"):
        sources.load(tables)
    with pytest.raises(LoadError, match="no signature 'other'; it has: count, decide, identify, weigh"):
        sources.load(tables, LoadOptions(signature="other"))


def test_several_tags_are_listed(tables: Path) -> None:
    with pytest.raises(LoadError, match="no graph tagged 'gpu'; choose with --tag from: serve"):
        sources.load(tables, LoadOptions(tag="gpu"))
