"""Writes the texts in other languages for ComfyUI's frontend, and lists the texts that have no translation.

    .demo/env/bin/python scripts/translate.py

locales/LANGUAGE.json holds the translation of each English text. locales/LANGUAGE/nodeDefs.json has the names and
tooltips by node, as the frontend reads them, and web/messages/LANGUAGE.json the sentences that nodes say. A changed
English text is listed as one to translate, and the old one as one to remove. The program ends with 1 until both lists
are empty.
"""

import sys

from cosmos_predict25.devtools.locales import write_all

if __name__ == "__main__":
    try:
        sys.exit("\n".join(write_all()) or None)
    except RuntimeError as error:
        sys.exit(f"translate.py: {error}")
