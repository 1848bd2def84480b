"""XML from outside, by expat: no entity is expanded but XML's own five, no DTD is fetched, a tag has a bound."""

from __future__ import annotations

from pathlib import Path
from xml.parsers import expat

from graftline.errors import InputError, brief
from graftline.raw import limits


class SafeXml:
    """A parser whose handlers `StartElementHandler`, `EndElementHandler` and `CharacterDataHandler` are to be set."""

    def __init__(self, path: Path, kind: str) -> None:
        """Parse the file `path`, which is to be `kind`, such as `a TMX file`."""
        self._path, self._kind, self._fed = path, kind, 0
        self.expat = expat.ParserCreate()
        self.expat.buffer_text = True
        self.expat.EntityDeclHandler = self._entity
        self.expat.StartDoctypeDeclHandler = self._doctype
        self.expat.SkippedEntityHandler = self._skipped

    @property
    def line(self) -> int:
        """The line that is parsed, from 1 on."""
        return self.expat.CurrentLineNumber

    def amiss(self, found: str, expected: str, fix: str) -> InputError:
        """Return the error that the line is not as it should be."""
        return InputError(f"{self._path}: line {self.line}", found, expected=expected, fix=fix)

    def feed(self, data: bytes, *, last: bool = False) -> None:
        """Parse the next bytes. Raises InputError."""
        self._fed += len(data)
        if self._fed - self.expat.CurrentByteIndex > limits.MAX_LINE:  # what a tag holds is in memory at once
            raise self.amiss(
                f"a tag of more than {limits.MAX_LINE} bytes", self._kind, "export it again; a quote may be missing"
            )
        try:
            self.expat.Parse(data, last)
        except expat.ExpatError as error:
            raise InputError(
                f"{self._path}: line {error.lineno}",
                f"not XML ({brief(error).split(':')[0]})",
                expected=self._kind,
                fix="export it again, or correct the line",
            ) from None
        except (LookupError, ValueError) as error:  # of the encoding that the first line names
            raise self.amiss(
                f"an encoding that is not read in XML ({brief(error)})",
                "UTF-8, UTF-16 or an encoding of one byte a character",
                "convert it with `iconv -t UTF-8`, and name UTF-8 in its first line",
            ) from None

    def _doctype(self, name: str, system: str | None, public: str | None, inside: bool) -> None:
        if inside:
            raise self._refused("a DOCTYPE with declarations of its own")

    def _entity(self, name: str, *_: object) -> None:
        raise self._refused(f"the entity '{name[:40]}' is declared")

    def _skipped(self, name: str, parameter: bool) -> None:
        if not parameter:
            raise self.amiss(
                f"the entity '&{name[:40]};', of which nothing says what it is",
                "characters",
                "write the character itself",
            )

    def _refused(self, found: str) -> InputError:
        expected = f"{self._kind} without declarations: they can make a small file a huge one"
        return self.amiss(found, expected, "take the declaration out")
