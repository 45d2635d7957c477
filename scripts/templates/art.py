"""Draws the registry's banner and icon and the workflows' cards as SVG, which Chromium turns into pixels."""

import base64
import io
from importlib.resources import files

from PIL import Image
from playwright.sync_api import Browser

GROUND, NODE, BAR, ACCENT, FAINT = "#15181c", "#2b3036", "#3a4048", "#2f6b3a", "#8b939c"
WIRES = {"prompt": "#f0b45a", "model": "#b39ddb", "video": "#64b5f6"}
BANNER_SIZE, ICON_SIDE, CARD_SIDE = (1260, 540), 400, 512
BOX_TOP, BOX_HEIGHT, BOX_GAP, BOX_MARGIN = 64, 116, 42, 16
"""Of a card: the newest frontend lays a badge over its upper left corner."""
FRAME_SIDE = 96
FRAME_CORNER = (CARD_SIDE - BOX_MARGIN - FRAME_SIDE - 22, BOX_TOP + 2 * (BOX_HEIGHT + BOX_GAP) + 10)


def render(browser: Browser, drawing: str, size: tuple[int, int], scale: int = 1) -> Image.Image:
    """Return the picture of SVG elements, `scale` times as large as `size`, transparent where nothing is drawn."""
    width, height = size
    font = files("comfyui_frontend_package") / "static" / "fonts" / "inter-latin-normal.woff2"
    source = base64.b64encode(font.read_bytes()).decode()
    page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
    page.set_content(
        f"<style>@font-face {{ font-family: Inter; font-weight: 100 900; src: url(data:font/woff2;base64,{source}) }}"
        f"body {{ margin: 0 }} svg {{ display: block; font-family: Inter }}</style>"
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">{drawing}</svg>'
    )
    page.evaluate("document.fonts.ready")
    picture = Image.open(io.BytesIO(page.screenshot(omit_background=True)))
    page.close()
    return picture


def box(x: float, y: float, width: float, height: float, fill: str, radius: float = 16) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}"/>'


def circle(x: float, y: float, radius: float, fill: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}"/>'


def text(x: float, y: float, words: str, size: float, *, weight: int = 400, fill: str = "white", more: str = "") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{fill}" {more}>{words}</text>'


def wire(start: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    """A curve as ComfyUI draws it, with a dot at either end."""
    (x, y), (to_x, to_y) = start, end
    bend = (to_x - x) / 2
    curve = f"M{x} {y} C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"
    path = f'<path d="{curve}" fill="none" stroke="{colour}" stroke-width="4"/>'
    return path + circle(x, y, 7, colour) + circle(to_x, to_y, 7, colour)


def node(x: float, y: float, width: float, height: float, title: str) -> str:
    bar = f'<path d="M{x} {y + 40} v-26 a14 14 0 0 1 14 -14 h{width - 28} a14 14 0 0 1 14 14 v26 z" fill="{BAR}"/>'
    return box(x, y, width, height, NODE, 14) + bar + text(x + 18, y + 27, title, 19, weight=500)


def planet(x: float, y: float, radius: float) -> str:
    """A disc with a ring, whose front half lies over it."""
    wide, flat = 1.62 * radius, 0.5 * radius
    ring = f'fill="none" stroke="#ffe0a3" stroke-width="{0.15 * radius}" stroke-linecap="round"'
    back, front = (f'<path d="M{-wide} 0 A{wide} {flat} 0 0 {way} {wide} 0" {ring}/>' for way in (1, 0))
    return f'<g transform="translate({x} {y}) rotate(-18)">{back}<circle r="{radius}" fill="url(#planet)"/>{front}</g>'


PAINT = (
    '<defs><radialGradient id="planet" cx="0.35" cy="0.3" r="0.8"><stop offset="0" stop-color="#ffb65c"/>'
    '<stop offset="1" stop-color="#d9485f"/></radialGradient>'
    '<linearGradient id="sky" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="#101a3d"/>'
    '<stop offset="1" stop-color="#3d4d9c"/></linearGradient>'
    '<pattern id="dots" width="30" height="30" patternUnits="userSpaceOnUse">'
    f'<circle cx="15" cy="15" r="1.3" fill="{NODE}"/></pattern></defs>'
)


def frame(x: float, y: float, width: float, height: float, progress: float) -> str:
    """One of a film: the planet has risen over a hill by `progress`, from 0 to 1."""
    at_x, at_y = x + width * (0.28 + 0.44 * progress), y + height * (0.84 - 0.5 * progress)
    hill = (
        f'<ellipse cx="{x + 0.62 * width}" cy="{y + 1.42 * height}" rx="{width}" ry="{0.7 * height}" fill="#1d5c4d"/>'
    )
    stars = "".join(
        circle(x + width * across, y + height * down, 1.6, "#c5cdf5")
        for across, down in ((0.12, 0.2), (0.34, 0.12), (0.55, 0.3), (0.82, 0.14), (0.9, 0.42), (0.2, 0.46))
    )
    name = f"frame{x:.0f}"
    clip = f'<clipPath id="{name}">{box(x, y, width, height, "black", 8)}</clipPath>'
    sky = box(x, y, width, height, "url(#sky)", 8)
    return f'{clip}<g clip-path="url(#{name})">{sky}{stars}{planet(at_x, at_y, 0.2 * height)}{hill}</g>'


def film(x: float, y: float, width: float, count: int) -> str:
    """A strip of `count` frames with its perforation."""
    each = (width - 14) / count
    height = each * 0.72
    holes = "".join(
        box(hole, y + edge, 12, 8, BAR, 2)
        for edge in (8, height + 32)
        for hole in range(int(x + 12), int(x + width - 20), 28)
    )
    frames = (frame(x + 14 + place * each, y + 24, each - 14, height, place / (count - 1)) for place in range(count))
    return box(x, y, width, height + 48, "#0a0c0e", 10) + holes + "".join(frames)


def banner() -> str:
    width, height = BANNER_SIZE
    return (
        PAINT
        + box(0, 0, width, height, GROUND, 0)
        + box(0, 0, width, height, "url(#dots)", 0)
        + text(64, 118, "Cosmos Predict2.5", 72, weight=700, more='letter-spacing="-2"')
        + text(66, 168, "Video from text, a picture or a clip, in ComfyUI", 29, fill="#c3cad1")
        + node(64, 240, 160, 100, "Prompt")
        + node(64, 372, 160, 100, "Model")
        + node(304, 240, 184, 144, "Generate")
        + film(568, 262, 628, 3)
        + "".join(box(84, top, wide, 8, BAR, 4) for top, wide in ((298, 96), (316, 60), (430, 76)))
        + box(324, 346, 144, 8, BAR, 4)
        + box(324, 346, 92, 8, "#5fae6b", 4)
        + wire((224, 310), (304, 298), WIRES["prompt"])
        + wire((224, 442), (304, 326), WIRES["model"])
        + wire((488, 312), (568, 362), WIRES["video"])
    )


def icon() -> str:
    """A planet in a frame of film: few and large shapes, since it is shown 40 pixels small."""
    side = ICON_SIDE
    holes = "".join(box(x, 44 + 78 * place, 38, 46, "#dfe4ea", 8) for x in (26, side - 64) for place in range(4))
    return (
        PAINT
        + box(0, 0, side, side, "#0a0c0e", 72)
        + holes
        + box(86, 30, side - 172, side - 60, "url(#sky)", 22)
        + planet(side / 2, side / 2, 68)
    )


def card(lines: list[str], *, with_frame: bool) -> str:
    """What goes in above, what makes the video, what comes out below, with room for a real frame beside it."""
    parts = [box(0, 0, CARD_SIDE, CARD_SIDE, GROUND, 0)]
    for place, line in enumerate(lines):
        top = BOX_TOP + place * (BOX_HEIGHT + BOX_GAP)
        middle = (FRAME_CORNER[0] + BOX_MARGIN) / 2 if with_frame and place == 2 else CARD_SIDE / 2
        parts.append(
            box(BOX_MARGIN, top, CARD_SIDE - 2 * BOX_MARGIN, BOX_HEIGHT, ACCENT if place == 1 else NODE)
            + centred(middle, top + BOX_HEIGHT / 2, line)
            + (arrow(CARD_SIDE / 2, top - BOX_GAP) if place else "")
        )
    return "".join(parts)


def centred(x: float, y: float, words: str) -> str:
    lines = words.split("\n")
    first = y + 14 - 24 * (len(lines) - 1)
    middle = 'text-anchor="middle"'
    return "".join(text(x, first + 48 * at, line, 40, weight=500, more=middle) for at, line in enumerate(lines))


def arrow(x: float, y: float) -> str:
    return f'<path d="M{x - 16} {y + 10} h32 l-16 22 z" fill="{FAINT}"/>'
