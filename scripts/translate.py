"""Writes what ComfyUI's frontend shows in other languages, and lists the texts that have no translation.

    .demo/env/bin/python scripts/translate.py

locales/LANGUAGE.json holds the translation of each English text of the nodes, locales/LANGUAGE/nodeDefs.json has them
by node and input, as the frontend reads them. A changed English text is listed as one to translate, and the old one as
one to remove; the program ends with 1 until there is nothing of both.
"""

import sys

from cosmos_predict25.devtools.locales import write_all

if __name__ == "__main__":
    try:
        sys.exit("\n".join(write_all()) or None)
    except RuntimeError as error:
        sys.exit(f"translate.py: {error}")
