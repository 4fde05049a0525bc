"""Reading small fields of a form, as audio routes have it. The file in it passes untouched."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app.errors import BadRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELD_BYTES = 1024


def form_fields(content_type: bytes, body: bytes, names: Collection[str]) -> dict[str, str]:
    """Those of the named fields that are there. Raises BadRequest."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest("This route takes a form: send content-type multipart/form-data with a boundary.")
    reader = _Reader(names)
    try:
        parser = MultipartParser(boundary, reader.callbacks)
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise BadRequest("The request body is not a valid form.") from error
    return reader.found


class _Reader:
    """Keeps the values of the named fields."""

    def __init__(self, names: Collection[str]):
        self.found: dict[str, str] = {}
        self._names = names
        self._header = b""
        self._value = b""
        self._name = ""
        self._data = b""
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._name, self._data = "", b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            if b"filename" not in options:
                self._name = options.get(b"name", b"").decode(errors="replace")
        self._header, self._value = b"", b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name in self._names and len(self._data) <= MAX_FIELD_BYTES:
            self._data += data[start:end]

    def _end(self) -> None:
        if self._name in self._names:
            if self._name in self.found:
                raise BadRequest(f"The form has several fields {self._name!r}.", param=self._name)
            self.found[self._name] = self._data.decode(errors="replace")
