"""A page to look through many videos at once."""

import base64
import html
import io
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from .jobs import Job
from .output import Output

WIDTH = 320
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1rem; background: #181818; color: #ddd }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax({width}px, 1fr)); gap: 1rem }}
figure {{ margin: 0 }}
img {{ width: 100% }}
figcaption b {{ color: #fff }}
a {{ color: inherit }}
</style>
<h1>{title}</h1>
<main>
{figures}
</main>
"""
FIGURE = (
    '<figure><a href="{link}"><img alt="" src="data:image/jpeg;base64,{image}"></a>'
    "<figcaption><b>{name}</b>, seed {seed}<br>{prompt}</figcaption></figure>"
)


def write_contact_sheet(output: Output, jobs: Iterable[Job]) -> str:
    """Write `contact-sheet.html` with the middle frame, name, seed and prompt of each job, and return its place."""
    figures = [figure_of(output, job) for job in jobs]
    title = html.escape(f"{str(output).rstrip('/').rpartition('/')[2]}: {len(figures)} videos")
    return output.write("contact-sheet.html", PAGE.format(title=title, width=WIDTH, figures="\n".join(figures)))


def figure_of(output: Output, job: Job) -> str:
    with output.video_of(job) as path:
        image = middle_frame(path)
    return FIGURE.format(
        link=html.escape(f"{job.name}{output.suffix}", quote=True),
        image=image,
        name=html.escape(job.name),
        seed=job.request.seed,
        prompt=html.escape(job.request.prompt),
    )


def middle_frame(path: Path) -> str:
    """Return the middle frame as a JPEG in base64."""
    import av

    with av.open(str(path)) as container:
        middle = container.streams.video[0].frames // 2
        picture = next(islice(container.decode(video=0), middle, None))
    image = picture.to_image()
    image.thumbnail((WIDTH, WIDTH))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return base64.b64encode(data.getvalue()).decode()
