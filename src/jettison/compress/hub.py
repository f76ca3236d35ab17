"""Fetches a checkpoint of the model hub, or finds it in the local cache: safe files alone."""

import os
import re
from pathlib import Path

from jettison.errors import InvalidInput
from jettison.registry import need

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?$")
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "LICENSE*", "README.md")


def is_hub_id(source: str) -> bool:
    """Whether a string has the form `org/name` or `org/name@revision`."""
    return HUB_ID.match(source) is not None


def fetch(source: str) -> Path:
    """Fetch the safe files of a repository `org/name[@revision]`; return the folder they lie in.

    Raises:
        InvalidInput: It is no id, there is no such repository, or the hub cannot be reached.
    """
    hub = need("huggingface_hub", "torch")
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    name, _, revision = source.partition("@")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    try:
        return Path(
            hub.snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=list(HUB_FILES),
                ignore_patterns=["onnx/*", "openvino/*"],
                local_files_only=offline,
            )
        )
    except HFValidationError as error:
        raise InvalidInput(f"a hub id must be org/name, got {source!r}: {error}.") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = "HF_HUB_OFFLINE is set" if offline else f"{type(error).__name__}"
        raise InvalidInput(
            f"the incumbent must be a local folder or reachable on the hub, got {source!r}: there is "
            f"no such folder, and the hub did not give it ({why}). "
            "Download it elsewhere and name its folder."
        ) from error
