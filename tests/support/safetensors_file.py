"""safetensors files in plain Python, as https://github.com/huggingface/safetensors publishes them:
eight bytes of header length, a JSON header, the tensors' bytes."""

import json
import struct


def read(path):
    """(metadata, {name: (dtype, shape, bytes)}); dtype as published, e.g. "F32"."""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8:8 + length]), content[8 + length:]
    metadata = header.pop("__metadata__", {})
    return metadata, {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
                      for name, entry in header.items()}


def write(path, tensors, metadata=None):
    """The inverse of read()."""
    header, blocks, end = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, block) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape),
                        "data_offsets": [end, end + len(block)]}
        blocks.append(block)
        end += len(block)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blocks))
