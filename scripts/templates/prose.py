"""The prompts and the notes of the workflows."""

EXAMPLE_PROMPT = (
    "A static, locked-off camera frames an industrial conveyor belt steadily transporting rough rocks through a "
    "dimly lit quarry processing facility. The belt runs horizontally across the center of the frame, its thick "
    "black rubber surface textured with dust and fine gravel. Jagged gray and brown stones of varying sizes tumble "
    "forward in a slow, continuous motion, their sharp edges catching the light. Subtle vibrations ripple through "
    "the belt's surface as small pebbles bounce and shift. In the background, blurred steel beams, pipes, and muted "
    "industrial machinery create depth without distraction. Cool, diffused overhead lighting casts soft shadows and "
    "highlights the gritty textures, emphasizing dust particles in the air and the raw, rugged surfaces of the "
    "rocks."
)

# Headings, since a note's own text is 10 pixels small, and no code, which does not wrap or is blue on brown. ComfyUI's
# data for missing models (`models` in a node's properties) would offer no download here: the frontend downloads single
# files that end like .safetensors and are the value of a list, and this model is a folder.
DEMO_NOTE = """\
# Press Run: this works before anything is downloaded

## It uses the demo, a tiny model that comes with this pack. It is not NVIDIA's: it draws circles, squares and \
triangles that move, 96x96 pixels small, on a CPU.

## Try other colours, *small* or *large*, *moves up*, *bounces*, *striped background*.

## For real videos, open the template *Text to Video (local)* or *Text to Video (on fal)*.
"""

LORA_NOTE = """\
# A LoRA teaches a model something new

## The demo knows black as a background alone. With the LoRA that comes with it, it draws black shapes.

## Set *strength* to 0, or bypass the node with Ctrl+B, to see the demo without it.

## Your own LoRAs for Cosmos-Predict2.5 go to *models/loras*; then choose your model in the loader as well.
"""

LOCAL_NOTE = """\
# The model is not part of this pack

## 1. Accept its license on [Hugging Face](https://huggingface.co/nvidia/Cosmos-Predict2.5-2B). It takes 20 GB of disk.

## 2. In the ComfyUI folder, run *hf auth login*, then the line below. Portable Windows has \
*..\\python_embeded\\python.exe -m huggingface_hub.cli.hf* for *hf*.

## hf download nvidia/Cosmos-Predict2.5-2B --revision diffusers/base/post-trained \
--local-dir models/diffusers/Cosmos-Predict2.5-2B

## 3. Press R here, so that the loader sees it, and Run.

## Until then *auto* takes the demo, which draws nothing but small coloured shapes.
"""

FAL_NOTE = """\
# This costs money: about $0.20 a video

## With the endpoint *distilled* $0.08. The node shows today's price.

## 1. Make a key at [fal.ai/dashboard/keys](https://fal.ai/dashboard/keys); the account needs a balance.

## 2. Set the environment variable FAL_KEY to it and start ComfyUI again. A workflow never holds the key.

## Stop cancels the job. The same values again are not paid for twice: for another video, change the seed.
"""

BOTH_NOTE = f"""\
# The fal nodes are muted, so that Run costs nothing

## To use them, select *Generate on fal* and its *Export Video* and press Ctrl+M.

{FAL_NOTE}"""

CORE_NODES_NOTE = """\
# The same model in ComfyUI's own nodes

## Put here what takes a MODEL, a CLIP or CONDITIONING: LoRA, EasyCache, regional prompts.

## It runs with the demo until the model is there. *Text to Video (local)* says how to get it.

## Then set 1280 x 704 and 93 frames, 35 steps, and cfg to 8, which is NVIDIA's guidance_scale 7.
"""

WRITER_NOTE = """\
# From five words to a prompt

## The model was trained on long descriptions. Its text encoder, Cosmos-Reason1, writes one from your idea.

## For a picture to start from, select *Load Image* and press Ctrl+M.

## It needs the model: the demo cannot write. *Text to Video (local)* says how to get it.
"""

IMAGE_NOTE = """\
# Start from a picture of your own

## Choose it in *Load Image*, and describe what happens next.

## It is scaled and cropped in the middle to width x height. The first frame is the model's copy of it.

## Until you have the model (see *Text to Video (local)*), *auto* takes the demo, which knows only coloured shapes.
"""

EXTEND_NOTE = """\
# Longer than the model makes at once

## *Extend Video* goes on from the end of a video: of the one made here, or of yours from *Load Video*, with its sound.

## Several of them in a row can have another prompt each. When only the last one changes, only that runs again.

## Until you have the model (see *Text to Video (local)*), *auto* takes the demo, which knows only coloured shapes.
"""

LORA_PROMPT = "A large black circle moves left over a white background."
DEMO_PROMPT = "A large red circle moves left over a blue background."
IMAGE_PROMPT = (
    "A child's drawing of a girl with big yellow hair and a pink dress on a green hill. She waves with both arms while "
    "white clouds drift to the right over a blue sky. The camera does not move. Flat colours, even light."
)
