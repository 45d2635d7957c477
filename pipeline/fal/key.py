"""fal's API key: where it comes from, and that it goes nowhere else."""

import codecs
import hashlib
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidRequestError, MissingKeyError

HOW_TO_SET = (
    "Make a key at https://fal.ai/dashboard/keys, set the environment variable FAL_KEY to it (on Windows: setx FAL_KEY "
    "your-key), and start ComfyUI again. Or write it into ~/.fal/key, readable only by you."
)
KEY_FILE = Path("~/.fal/key")
AROUND_A_KEY = " \t\r\n\v\f;\"'`<>\u201c\u201d\u2018\u2019\ufeff"
ASSIGNMENT = re.compile(r"(?i)^(export\s+|setx?\s+|\$env:)?FAL_KEY\s*[=\s]\s*")
"""As in a line of a shell: `export FAL_KEY=id:secret`."""
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""How a file begins that `>` of Windows PowerShell has written."""


@dataclass(frozen=True, repr=False)
class FalKey:
    """A key of the form id:secret. It has no readable repr, so it is not printed by accident."""

    key_id: str
    secret: str

    @property
    def header(self) -> str:
        return f"Key {self.key_id}:{self.secret}"

    @property
    def account(self) -> str:
        """Return a name for the account that reveals nothing of the key."""
        return hashlib.sha256(self.key_id.encode()).hexdigest()[:16]

    def is_in(self, text: str) -> bool:
        return self.key_id in text or self.secret in text


def parse_key(text: str, source: str) -> FalKey:
    """Return the key in a text, without the quotes, the name and the marks that it is often copied with.

    Raises `MissingKeyError`, which names `source` and shows nothing of the key.
    """
    text = ASSIGNMENT.sub("", text.strip(AROUND_A_KEY)).strip(AROUND_A_KEY)
    key_id, colon, secret = text.partition(":")
    if not text.isascii() or not all(33 <= ord(character) < 127 for character in key_id + secret):
        raise MissingKeyError(
            f"{source} contains characters that a key cannot have, such as a space, a line break or an accent. "
            f"{HOW_TO_SET}"
        )
    if not (key_id and colon and secret):
        raise MissingKeyError(
            f"{source} is not a fal key: a key is an id and a secret with a colon in between. {HOW_TO_SET}"
        )
    return FalKey(key_id, secret)


def find_key(explicit: str | None = None) -> FalKey:
    """Return the key from the argument, FAL_KEY, FAL_KEY_ID with FAL_KEY_SECRET, or ~/.fal/key.

    Raises `MissingKeyError`.
    """
    environ = os.environ
    if explicit is not None:
        return parse_key(explicit, "The key that was given")
    if environ.get("FAL_KEY"):
        return parse_key(environ["FAL_KEY"], "FAL_KEY")
    if environ.get("FAL_KEY_ID") and environ.get("FAL_KEY_SECRET"):
        return parse_key(
            ":".join(environ[name].strip(AROUND_A_KEY) for name in ("FAL_KEY_ID", "FAL_KEY_SECRET")),
            "FAL_KEY_ID:FAL_KEY_SECRET",
        )
    try:
        return parse_key(read_key_file(KEY_FILE.expanduser()), str(KEY_FILE))
    except (OSError, RuntimeError) as error:  # of a home that may not be read, or is not known
        raise MissingKeyError(f"{KEY_FILE} cannot be read ({type(error).__name__}). {HOW_TO_SET}") from None


def read_key_file(file: Path) -> str:
    """Return the text of a file that the user alone may read. Raises `MissingKeyError` and `OSError`."""
    if not file.is_file():
        raise MissingKeyError(f"There is no fal key. {HOW_TO_SET}")
    if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise MissingKeyError(f"Others on this computer can read {file}: run `chmod 600 {file}`, and try again.")
    content = file.read_bytes()
    return content.decode("utf-16" if content.startswith(UTF_16) else "utf-8", errors="replace")


def refuse_key_in(texts: dict[str, str], key: FalKey | None) -> None:
    """Raise `InvalidRequestError` where a text that fal and saved workflows would keep holds the key."""
    for name, text in texts.items():
        if key and key.is_in(text):
            raise InvalidRequestError(f"{name} contains your fal key: delete it there, and make a new key at fal.ai.")


def refuse_own_key_in(texts: dict[str, str]) -> None:
    """Raise `InvalidRequestError` where a text holds the environment's key, if there is one."""
    with suppress(MissingKeyError):
        refuse_key_in(texts, find_key())
