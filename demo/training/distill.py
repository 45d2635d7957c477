"""Distil the demo into four passes: train a LoRA for schedule *distilled*, by whose rule NVIDIA's students are sampled.

    python demo/training/distill.py [FILE] [--videos 1536] [--steps 1200]

The demo itself is the teacher, with 20 steps at guidance 2. The student makes a video of the same noise in four passes
at guidance 1, from text, from a picture or from a clip, and learns to end where the teacher ends. The LoRA fits only
the weights in demo/moving-shapes, so run it again whenever they were trained anew. One core needs about 30 minutes.
"""

import argparse
from pathlib import Path

import torch

from cosmos_predict25.devtools.toy.distill import RANK, teach, train_student
from cosmos_predict25.devtools.toy.low_rank import save_lora
from cosmos_predict25.pipeline.local.load.find import DEMO_DISTILLED_LORA_FILE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=DEMO_DISTILLED_LORA_FILE)
    parser.add_argument("--videos", type=int, default=1536)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    save_lora(options.file, train_student(teach(options.videos), options.steps), RANK, distilled="4 steps")


if __name__ == "__main__":
    main()
