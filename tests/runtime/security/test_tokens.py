"""The file of tokens, and the table of permissions."""

import threading
from pathlib import Path

import pytest

from kerve.runtime.errors import ArtifactError
from kerve.runtime.protocol import oip, tfs
from kerve.runtime.security.permissions import Permission, permission_of
from kerve.runtime.security.tokens import Authority, Tokens, read_tokens


@pytest.mark.parametrize(
    "text", ["abc infer", f"{'0' * 64} fly", f"{'0' * 64}", f"{'0' * 63} infer", "0" * 64 + " infer,"]
)
def test_a_line_that_is_no_token_is_refused_with_its_number(text: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# one\n{text}\n")
    with pytest.raises(ArtifactError, match="line 2: expected the SHA-256 of a token"):
        read_tokens(file)


def test_permissions_and_comments_are_read(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"\n# c\n{'ab' * 32}  infer,read  the shop\n")
    assert read_tokens(file) == {bytes([0xAB] * 32): {Permission.INFER, Permission.READ}}


def test_every_method_has_a_permission_and_only_probes_are_open() -> None:
    services = (oip.SERVICE, tfs.PREDICTION_SERVICE, tfs.MODEL_SERVICE)
    methods = [f"/{each.full_name}/{method.name}" for each in services for method in each.methods]
    opened = {method.rpartition("/")[2] for method in methods if permission_of(method) is None}
    assert opened == {"ServerLive", "ServerReady", "ModelReady"}
    assert permission_of("/grpc.health.v1.Health/Watch") is None
    assert permission_of("/inference.GRPCInferenceService/RepositoryModelLoad") is Permission.CONTROL
    assert permission_of("/inference.GRPCInferenceService/RepositoryIndex") is Permission.READ
    assert permission_of("/tensorflow.serving.ModelService/HandleReloadConfigRequest") is Permission.CONTROL
    assert permission_of("/kerve.evaluation.v1.EvaluationService/ListEvaluations") is Permission.READ
    assert permission_of("/what.is.this/Method") is Permission.CONTROL


def test_a_token_that_is_taken_back_before_the_file_is_watched_is_not_let_in(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{'ab' * 32}  infer  the shop\n")
    authority, seen, stop = Authority(file), threading.Event(), threading.Event()

    def changed(tokens: Tokens) -> None:
        if not tokens:
            seen.set()

    file.write_text("# nobody\n")
    authority.follow(changed)
    authority.watch(stop)
    assert seen.wait(30)
    stop.set()
