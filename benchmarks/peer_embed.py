"""The same encoder as its users search with it: sentence-transformers (torch, int8 ONNX) and model2vec.

`python benchmarks/peer_embed.py KIND CHECKPOINT FOLDER` is one of them in its own environment: JSON lines
in, JSON lines out, no jettison inside. The rest is what `embed.py` imports.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

KINDS = {
    "sentence-transformers, torch": "sentence-transformers",
    "sentence-transformers, ONNX int8": "sentence-transformers",
    "model2vec": "model2vec",
}
"""Peer → its environment."""
PACKAGES = {
    # With `optimum-onnx`, 5.7 is the newest that can be had.
    "sentence-transformers": (
        "sentence-transformers==5.7.0",
        "optimum-onnx==0.1.0",
        "transformers==4.57.6",
    ),
    "model2vec": ("model2vec==0.10.0", "skeletoken==0.6.1"),
}
N_FOUND = 100


def peer_command(kind: str, checkpoint: Path, folder: Path, peers: Path) -> list[str]:
    """Starts a peer, its environment made if need be, on top of this one: torch is not installed twice."""
    name = KINDS[kind]
    place = peers / name
    python = place / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    inside = next((place / "lib").glob("python3*/site-packages"))
    if not (inside / name.replace("-", "_")).exists():
        ours = [path for path in sys.path if path.endswith("site-packages")]
        (inside / "below.pth").write_text("".join(f"{path}\n" for path in ours))
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES[name]], check=True)
    return [str(python), __file__, kind, str(checkpoint), str(folder)]


def _encoder(kind: str, checkpoint: Path, folder: Path) -> Callable[[Sequence[str]], Any]:
    """Texts to vectors of length 1, made by the peer's defaults."""
    if kind == "model2vec":
        from model2vec import StaticModel
        from model2vec.distill import distill

        if not folder.exists():
            distill(model_name=str(checkpoint)).save_pretrained(str(folder))
        static = StaticModel.from_pretrained(str(folder), normalize=True)
        return lambda texts: static.encode(list(texts))
    from sentence_transformers import SentenceTransformer

    if kind == "sentence-transformers, torch":
        import torch

        torch.set_num_threads(1)
        model = SentenceTransformer(str(checkpoint), device="cpu")
    else:
        model = _onnx_int8(checkpoint, folder)
    return lambda texts: model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)


def _onnx_int8(checkpoint: Path, folder: Path) -> Any:
    import onnxruntime
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    given = {"provider": "CPUExecutionProvider", "session_options": options}
    if not folder.exists():
        plain = SentenceTransformer(str(checkpoint), backend="onnx", device="cpu", model_kwargs=given)
        plain.save_pretrained(str(folder))
        export_dynamic_quantized_onnx_model(plain, "avx512_vnni", str(folder))
    file = next((folder / "onnx").glob("*qint8*.onnx"))
    given["file_name"] = f"onnx/{file.name}"
    return SentenceTransformer(str(folder), backend="onnx", device="cpu", model_kwargs=given)


def _serve(kind: str, checkpoint: Path, folder: Path) -> None:
    import numpy as np

    encode = _encoder(kind, checkpoint, folder)
    served = folder if folder.exists() else checkpoint
    size = sum(file.stat().st_size for file in served.rglob("*") if file.is_file() and _is_served(file))
    ids: list[str] = []
    vectors: Any = None

    def find(query: str) -> list[str]:
        cosines = vectors @ encode([query])[0]
        return [ids[i] for i in np.argsort(-cosines, kind="stable")[:N_FOUND]]

    for line in sys.stdin:
        asked = json.loads(line)
        if "corpus" in asked:
            ids = list(asked["corpus"])
            vectors = np.asarray(encode(list(asked["corpus"].values())), np.float32)
            print(json.dumps({"bytes": size}), flush=True)
            continue
        started = time.process_time()
        found = [find(query) for query in asked["queries"]]
        spent = time.process_time() - started
        print(json.dumps({"found": found, "cpu_s": spent / len(found)}), flush=True)


def _is_served(file: Path) -> bool:
    """Whether a file is read to answer: not the float32 graph beside the int8 one."""
    return file.name != "model.onnx"


if __name__ == "__main__":
    # Stands in the way of packages of the same names.
    sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]
    _serve(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
