"""Distil the demo into four passes: train a LoRA for schedule *distilled*, by whose rule NVIDIA's students are sampled.

    python demo/training/distill.py [FILE] [--videos 1536] [--steps 1200]

The demo itself is the teacher. The student makes a video of the same noise in four passes at guidance 1, from text,
from a picture or from a clip, and learns to end at the clip that the teacher's video means. The LoRA fits only the
weights in demo/moving-shapes, so run it again whenever they were trained anew.
"""

import argparse
from pathlib import Path

import torch

from cosmos_predict25.devtools.toy.distill import RANK, train_student
from cosmos_predict25.devtools.toy.low_rank import save_lora
from cosmos_predict25.devtools.toy.own_videos import LEAST, make_own_videos
from cosmos_predict25.pipeline.local.load.find import DEMO_DISTILLED_LORA_FILE, DEMO_FOLDER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=DEMO_DISTILLED_LORA_FILE)
    parser.add_argument("--videos", type=int, default=1536)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.videos < LEAST:
        parser.error(f"--videos is {options.videos}, and the least is {LEAST}: give {LEAST} or more.")
    torch.set_num_threads(options.threads)
    save_lora(
        options.file,
        train_student(make_own_videos(DEMO_FOLDER, options.videos), options.steps),
        RANK,
        distilled="4 steps",
    )


if __name__ == "__main__":
    main()
