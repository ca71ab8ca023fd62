"""What crosses between the judge and a student's process: numbers, text, arrays, lists of these, and handles.

Nothing is unpickled: a pickle from a student's process would run its code in the judge. An object of any other kind
stays where it was made; the other side gets a handle, good for calling it and for handing it back.
"""

import base64
import io
import json

import numpy as np

PLAIN = (type(None), bool, int, float, str)
LONGEST = 50_000_000  # bytes of one message
KINDS = "biufc"  # arrays of objects hold pickles


class Lost(Exception):
    """The other process has ended, or says what no message says."""


def pack(value, keep):
    """A value as JSON; ``keep(value)`` gives the number of a handle for what is none."""
    if type(value) in PLAIN:
        return {"v": value}
    if isinstance(value, np.ndarray | np.generic) and np.asarray(value).dtype.kind in KINDS:
        file = io.BytesIO()
        np.save(file, np.asarray(value), allow_pickle=False)
        return {"a": base64.b64encode(file.getvalue()).decode(), "scalar": isinstance(value, np.generic)}
    if type(value) in (list, tuple):
        return {"l": [pack(item, keep) for item in value], "tuple": type(value) is tuple}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"d": {key: pack(item, keep) for key, item in value.items()}}
    return {"h": keep(value), "type": type(value).__name__}


def unpack(packed, handle):
    """The inverse of `pack`; ``handle(number, type name)`` stands for what stayed on the other side."""
    if "v" in packed:
        return packed["v"]
    if "a" in packed:
        array = np.load(io.BytesIO(base64.b64decode(packed["a"])), allow_pickle=False)
        return array[()] if packed["scalar"] else array
    if "l" in packed:
        items = [unpack(item, handle) for item in packed["l"]]
        return tuple(items) if packed["tuple"] else items
    if "d" in packed:
        return {key: unpack(item, handle) for key, item in packed["d"].items()}
    return handle(packed["h"], packed["type"])


def send(file, message):
    file.write(json.dumps(message).encode() + b"\n")
    file.flush()


def receive(line):
    """A message from its line; `Lost` where there is none."""
    try:
        return json.loads(line)
    except ValueError:
        raise Lost("no message") from None
