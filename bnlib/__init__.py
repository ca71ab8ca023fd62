"""The package the batch normalization course builds and uses.

Importing it imports nothing heavy: name the room you need, ``bnlib.data``, ``bnlib.scratch``,
``bnlib.page`` or ``bnlib.exercises``.
"""

__version__ = "0.1.0"
