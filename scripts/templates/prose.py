"""The prompts and the notes of the workflows."""

from cosmos_predict25.pipeline.local.load.find import DOWNLOAD

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

# Headings, since a note's own text is 10 pixels small. ComfyUI's data for missing models (`models` in a node's
# properties) would offer no download here: the frontend downloads single files that end like .safetensors and are the
# value of a list, and this model is a folder.
DEMO_NOTE = """\
# Press Run: this works before anything is downloaded

## It uses the demo, a tiny model that comes with this pack. It is not NVIDIA's: it draws moving \
circles, squares and triangles at 96x96 pixels, on a CPU.

## Try other colours, *small* or *large*, *moves up*, *bounces*, *striped background*.

## For real videos, open the template *NVIDIA Cosmos Text to Video (local)* or *NVIDIA Cosmos Text to Video (on fal)*.
"""

LORA_NOTE = """\
# A LoRA teaches a model something new

## The demo knows black only as a background. With its LoRA, it draws black shapes.

## Set *strength* to 0, or bypass the node with Ctrl+B, to see the demo without it.

## Put your own LoRAs for Cosmos-Predict2.5 into *models/loras*, and choose your model in the loader too.
"""

MANY_NOTE = """\
# One run makes a video of each prompt in the list

## *Create List* has an input more whenever you connect one: copy a Prompt, and connect it.

## For several seeds of one prompt, set *control after generate* to *increment*, and the number beside *Run*.

## For hundreds of videos, use the command `cosmos-predict25 batch`. *docs/scale.md* in this pack's folder describes it.
"""

FOLDER = "Cosmos-Predict2.5-2B"
HOW_TO_GET_IT = "*NVIDIA Cosmos Text to Video (local)* says how to get NVIDIA's model."


def commands(hf: str, folder: str) -> str:
    """The two lines that download the model, to be copied."""
    return f"```\n{hf} auth login\n{hf} {DOWNLOAD} {folder}\n```"


WINDOWS_FOLDER = f"models\\diffusers\\{FOLDER}"
ON_LINUX = commands("hf", f"models/diffusers/{FOLDER}")
ON_PORTABLE = commands(r"..\python_embeded\python.exe -m huggingface_hub.cli.hf", WINDOWS_FOLDER)
ON_DESKTOP = commands(r".venv\Scripts\python.exe -m huggingface_hub.cli.hf", WINDOWS_FOLDER)
LOCAL_NOTE = rf"""# Get NVIDIA's model first: 20 GB

## 1. Accept its license on [Hugging Face](https://huggingface.co/nvidia/Cosmos-Predict2.5-2B).

## 2. Open a terminal in the folder named here, and run the two lines. They ask for a Hugging Face token.

### Linux and macOS, in the *ComfyUI* folder:

{ON_LINUX}

### Portable Windows, in *ComfyUI_windows_portable\ComfyUI*:

{ON_PORTABLE}

### ComfyUI Desktop on Windows, in the folder that you chose at setup, such as *Documents\ComfyUI*:

{ON_DESKTOP}

## 3. Press R here, so that the loader sees the model, and Run.
"""

FAL_NOTE = """\
# This costs money: about $0.20 per video

## About $0.08 with the endpoint *distilled*. The node shows fal's current price.

## 1. Make a key at [fal.ai/dashboard/keys](https://fal.ai/dashboard/keys). The account needs a balance.

## 2. Set the environment variable FAL_KEY, and start ComfyUI again. A workflow never holds the key.

### Windows:

```
setx FAL_KEY your-key
```

### Linux and macOS, in the terminal that starts ComfyUI:

```
export FAL_KEY=your-key
```

## Stop cancels the job. Running the same values again costs nothing: for another video, change the seed.
"""

BOTH_NOTE = f"""\
# The fal nodes are muted, so that Run costs nothing

## To use them, select *Generate on fal* and its *Export Video* and press Ctrl+M.

{FAL_NOTE}"""

CORE_NODES_NOTE = f"""\
# The same model in ComfyUI's own nodes

## Add any node with a MODEL, CLIP or CONDITIONING input: LoRA, EasyCache, regional prompts.

## It now runs the demo. {HOW_TO_GET_IT}

## With that model choose *auto*, 1280 x 704, 93 frames and 35 steps, and set cfg to 8: NVIDIA's guidance_scale 7.
"""

WINDOWS_NOTE = f"""\
# Longer than the model's maximum

## *Wan Context Windows* computes each step in overlapping windows and blends them. All of them use the same prompt.

## The demo's maximum is 25 frames, so its windows have 21. For NVIDIA's model, set *context_length* to 93, \
*context_overlap* to 24 or more, and any *num_frames*.

## *Cosmos Extend Video (local)* is the alternative: it continues from the last frames, with a new prompt.

## {HOW_TO_GET_IT}
"""

TWO_GPUS_NOTE = f"""\
# One video on two GPUs

## In each step, *MultiGPU CFG Split* computes the prompt on one GPU and the negative prompt on the other.

## Both GPUs need the memory for the model. Use two equal ones, and *cfg* above 1. A third GPU does not help.

## With one GPU, or none, it makes the same video in the usual time.

## It now runs the demo. {HOW_TO_GET_IT}
"""

FAST_NOTE = f"""\
# Fewer passes, nearly the same video

## *EasyCache* skips passes whose result changes little. With 0.05 the demo needs 71% of its 70 passes, and the \
frames keep 40 dB to the full video.

## A higher *reuse_threshold* skips more and changes more. To compare, select *EasyCache* and press Ctrl+B.

## For more speed, set *schedule* to *few steps* in *UniPC Sampler*, and 15 steps.

## {HOW_TO_GET_IT} With that model choose *auto*, 1280 x 704 and 93 frames, and set cfg to 8.
"""

TRAIN_NOTE = f"""\
# Teach a model with your own clip

## Here the demo learns a new colour from a clip, in half a minute on a CPU. *Plot Loss \
Graph* shows the progress.

## For your own clip, replace *The clip to learn from* by *Load Video* and *Get Video Components*, and describe \
the clip.

## The file goes to *output/loras*. Move it to *models/loras* and choose it in *Cosmos Text to Video (LoRA)*.

## NVIDIA's model needs a smaller *learning_rate*, such as 0.0001, and a few hundred *steps*. {HOW_TO_GET_IT}
"""

WRITER_NOTE = f"""\
# From five words to a prompt

## The model was trained on long descriptions. Its text encoder, Cosmos-Reason1, writes one from your idea.

## For a picture to start from, select *Load Image* and press Ctrl+M.

## The demo cannot write. {HOW_TO_GET_IT}
"""

IMAGE_NOTE = f"""\
# Start from a picture of your own

## Choose it in *Load Image*, and describe what happens next.

## It is scaled and center-cropped to width x height. The first frame is the model's copy of it.

## {HOW_TO_GET_IT}
"""

EXTEND_NOTE = f"""\
# Longer than the model's maximum

## *Extend Video* continues a video: the one made here, or yours from *Load Video*, with its sound.

## Several of them in a row can each have their own prompt. If only the last changes, only that one runs again.

## It now runs the demo. {HOW_TO_GET_IT}

## With that model choose *auto*, 1280 x 704, 93 frames, 35 steps, guidance 7 and 88 new frames.
"""

LORA_PROMPT = "A large black circle moves left over a white background."
DEMO_PROMPT = "A large red circle moves left over a blue background."
DEMO_SQUARE_PROMPT = "A large red square moves left over a blue background."
IMAGE_PROMPT = (
    "A child's drawing of a girl with big yellow hair and a pink dress on a green hill. She waves with both arms while "
    "white clouds drift to the right over a blue sky. The camera does not move. Flat colours, even light."
)
