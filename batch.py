"""Many videos from a file of jobs: python -m cosmos_predict25.batch, or python batch.py in a folder of custom nodes."""

import sys

if not __package__:  # a process that this one starts needs the pack, too
    from fal import load_pack

    load_pack()

if __name__ == "__main__":
    from cosmos_predict25.pipeline.batch.command import main

    sys.exit(main())
