"""Members of a ZIP file that a stranger made: read in memory, within bounds, never written to the disk."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from localllm.errors import DataError

MAX_UNPACKED = 512 << 20  # bytes of all members together
_MAX_MEMBERS = 20_000
_FAILURES = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, EOFError, OSError, ValueError)


class Archive:
    """An open ZIP file of a document. Everything it raises is a DataError."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        self._left = MAX_UNPACKED
        if len(file.infolist()) > _MAX_MEMBERS:
            raise DataError(f"holds more than {_MAX_MEMBERS} files.", "It is no ordinary document.")

    def has(self, name: str) -> bool:
        """Whether there is a member of that name."""
        return name in self._file.NameToInfo

    def read(self, name: str) -> bytes:
        """The bytes of a member. Raises DataError when it is missing, damaged, encrypted or would unpack too large."""
        try:
            with self._file.open(name) as member:
                content = member.read(self._left + 1)
        except KeyError:
            raise DataError(f"is damaged: {name} is missing.", "Save it again.") from None
        except RuntimeError:  # this is how zipfile says that a password is needed
            raise DataError("is encrypted.", "Save it without a password.") from None
        except _FAILURES as error:
            raise DataError(f"is damaged ({name}: {error}).", "Save it again.") from None
        self._left -= len(content)
        if self._left < 0:
            message = f"unpacks to more than {MAX_UNPACKED >> 20} MB."
            raise DataError(message, "It is no ordinary document.")
        return content

    def xml(self, name: str) -> Any:
        """The root element of an XML member, without entities or a DTD. Raises DataError when it is not XML."""
        etree = import_module("lxml.etree")  # it comes without types
        # libxml2 expands entities in attributes all the same, and bounds them unless huge trees are allowed
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        try:
            root = etree.fromstring(self.read(name), parser)
        except (etree.XMLSyntaxError, ValueError) as error:
            raise DataError(f"is damaged ({name}: {error}).", "Save it again.") from None
        return root


@contextmanager
def unpacked(content: bytes) -> Iterator[Archive]:
    """The archive in these bytes. Raises DataError when they are none."""
    try:
        file = zipfile.ZipFile(io.BytesIO(content))
    except _FAILURES as error:
        raise DataError(f"is a damaged archive ({error}).", "Fetch or save it again.") from None
    with file:
        yield Archive(file)
