"""What Hugging Face's libraries read from the environment when they are imported; so this comes first."""

import os

# A revision with .bin files only would start a background conversion on the hub while it is loaded.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
# The sweep has a progress bar of its own; a bar for every file would tear it apart.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# A second copy of what arrives would not be counted in cache.max_gb.
os.environ.setdefault("HF_XET_CHUNK_CACHE_SIZE_BYTES", "0")
