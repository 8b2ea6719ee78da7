"""The two pages that a rater sees: the one to rate on, and what came of it. Markup; rate.js and rate.css are beside it.

The rating page tells nothing that could sway a rater: no file name, no model's score, no first rating of a repeat.
"""

from collections.abc import Iterator

from agent.commands.canvas import Axes, Spot
from agent.commands.rate_fit import Rated, Result
from agent.commands.report_html import Drawing, legend, paragraph, table, words
from engines.score_scale import Rater, ScoreScale

ANCHORS = {10: "perfect", 1: "just recognisable", 0: "noise, white, black"}
KEYS = {10: "T"}  # the others are their own digit; 1 and 0 typed quickly make ten too
MARKS = (("circle", "f-sky"), ("square", "f-clay"), ("triangle", "f-moss"))  # of raters, one after the other
SIDE = 560.0  # of the plot, px
SPARSE = 25  # frames: below it the error itself is only roughly known


def rating_page() -> str:
    steps = "".join(_step(score) for score in range(10, -1, -1))
    aside = (
        "<h1>How well focused?</h1>"
        '<div><div id="progress"><span id="count"></span><span id="left" class="soft"></span></div>'
        '<progress id="bar" max="1" value="0" aria-label="rated"></progress></div>'
        f'<ol id="scale">{steps}</ol>'
        '<div id="half"><input id="slider" type="range" min="0" max="10" step="0.5" value="5" aria-label="half points" '
        'tabindex="-1"><output id="value">–</output>'
        '<span class="soft"><kbd>←</kbd> <kbd>→</kbd> then <button id="keep" tabindex="-1">Enter</button><br>'
        "<kbd>Shift</kbd> + digit: 0.5 more</span></div>"
        f'<div id="tools">{_tool("undo", "undo", "U")}{_tool("skip", "skip", "S")}'
        f"{_tool('fit', '<span id=fit-words>whole</span>', 'F')}{_tool('finish', 'finish', 'E')}</div>"
        '<p id="zoom" class="soft"></p><p id="last">Rate the focus, not the specimen. Drag what is larger than the '
        "window.</p>"
    )
    stage = (
        '<main id="stage"><img id="frame" class="waiting" alt="the frame to rate" draggable="false">'
        '<div id="end" hidden><h2>That was the last frame</h2><p id="end-words" class="soft"></p>'
        '<button id="end-finish" class="main">Fit the scale &nbsp;(Enter)</button></div>'
        '<div id="notice" role="alert" hidden></div></main>'
    )
    return _page("Rate focus", "rate", f"{stage}<aside>{aside}</aside>", script="rate.js")


def _step(score: int) -> str:
    told = f"<b>{score}</b><span>{words(ANCHORS.get(score, ''))}</span><kbd>{KEYS.get(score, score)}</kbd>"
    return f'<li><button data-score="{score}" tabindex="-1">{told}</button></li>'


def _tool(name: str, told: str, key: str) -> str:
    return f'<button id="{name}">{told}<kbd>{key}</kbd></button>'


def _page(title: str, kind: str, body: str, *, script: str) -> str:
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="dark"><title>{words(title)}</title><link rel="stylesheet" href="rate.css">'
        f'<link rel="icon" href="data:,"><script src="{script}" defer></script>'
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body class="{kind}">{body}</body></html>\n'


# --- what came of it ---


def result_page(result: Result, out: str) -> str:
    scale = result.scale
    names = ", ".join(rater.name for rater in scale.raters)
    heading = (
        f"<h1>The score scale of {words(names)}</h1>"
        f'<p class="soft">{words(scale.made[:16].replace("T", " "))} UTC · for {words(scale.model)}</p>'
    )
    told = "".join(paragraph(sentence, kind) for sentence, kind in sentences(result))
    use = (
        f"<h2>Use it</h2><p>Written to <code>{words(out)}</code>. In the configuration of the agent:</p>"
        f"<pre><code>[focus]\nscore_scale = {words(_toml(out))}</code></pre>"
        "<p>Only what is told outside changes; the agent goes on steering by the model's own score.</p>"
    )
    buttons = (
        '<p class="buttons"><button id="close" class="main">Done</button>'
        '<button id="on">Rate on</button><span id="closed" class="soft" hidden>The command has ended; this page may be '
        "closed.</span></p>"
    )
    aside = f"<div>{_cards(scale)}{told}{_raters(scale.raters)}{use}{buttons}</div>"
    body = f'<main>{heading}<div class="columns">{_plot(result)}{aside}</div></main>'
    return _page("Score scale", "result", body, script="rate_result.js")


def _toml(path: str) -> str:
    """As a TOML string: what is between single quotes stands for itself."""
    return f"'{path}'" if "'" not in path else '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _cards(scale: ScoreScale) -> str:
    shown = (
        (str(scale.frames), "frames rated"),
        (f"{scale.spearman:.2f}", "rank correlation with the model"),
        (f"±{scale.error_before:.1f}", "points off without the scale"),
        (f"±{scale.error_left_out:.1f}", "with it, on a frame it never saw"),
    )
    return f'<ul class="cards">{"".join(f"<li><b>{words(a)}</b><span>{words(b)}</span></li>" for a, b in shown)}</ul>'


def sentences(result: Result) -> Iterator[tuple[str, str]]:
    """What a person should know of the scale, and how it is set: plain or a warning."""
    scale = result.scale
    if scale.error_left_out >= scale.error_before:
        yield "The scale tells these ratings no better than the model's own score does: it is not worth using.", "warn"
    if scale.frames < SPARSE:
        yield f"Few frames: from {SPARSE} on the errors above are themselves well known.", "warn"
    reach = f"The frames rated have scores from {scale.rated_low:.1f} to {scale.rated_high:.1f}."
    below = "; below them it goes straight to 0." if scale.knots[0] == (0.0, 0.0) else "."
    yield f"{reach} Above them the scale stays where it ends{below}", ""
    if result.unsized:
        yield (
            f"{result.unsized} of the frames do not tell their pixel size: the model judges them otherwise than at a "
            "microscope that tells it. Fit again with --fit-only --pixel-size-m.",
            "warn",
        )
    if result.left_out:
        many = len(result.left_out)
        yield f"{many} {'file was' if many == 1 else 'files were'} left out; the terminal names them.", "warn"


def _raters(raters: tuple[Rater, ...]) -> str:
    rows = [(words(each.name), str(each.frames), str(each.repeats), _spread(each)) for each in raters]
    caption = "Spread: one standard deviation of a single rating, from the frames shown twice, in points."
    return table(("Rater", "Frames", "Shown twice", "Spread"), rows, caption=caption)


def _spread(rater: Rater) -> str:
    return "not known" if rater.repeat_sigma is None else f"±{rater.repeat_sigma:.1f}"


def _plot(result: Result) -> str:
    scale = result.scale
    drawing = Drawing(SIDE, SIDE, f"Ratings of {scale.frames} frames over the model's score, and the scale fitted")
    axes = Axes(54, 22, SIDE - 20, SIDE - 52, (0.0, 10.0), (0.0, 10.0))
    drawing.scale_y(axes)
    drawing.scale_x(axes)
    drawing.line([axes.spot(0, 0), axes.spot(10, 10)], "s-soft dash", 1.5)
    names = [rater.name for rater in scale.raters]
    for rated in result.rated:
        for spot, shape, kind in _marks(axes, rated, names):
            drawing.mark(spot, shape, kind, 5.0)
    ends = [(scale.knots[-1][0], scale.knots[-1][1]), (10.0, scale.knots[-1][1])]
    drawing.line([axes.spot(*knot) for knot in scale.knots], "s-amber", 2.5)
    drawing.line([axes.spot(*knot) for knot in ends], "s-amber dash", 2.5)
    drawing.text((axes.left, 14), "rating", kind="f-soft")
    drawing.text((axes.right, SIDE - 12), "score of the model", kind="f-soft", align="end")
    shown = [(*_mark(i), name) for i, name in enumerate(names)]
    keys = legend(*shown, ("line", "s-amber", "scale"), ("dashed", "s-soft", "no change"))
    return f"<figure>{drawing}{keys}</figure>"


def _marks(axes: Axes, rated: Rated, names: list[str]) -> Iterator[tuple[Spot, str, str]]:
    for name, said in rated.ratings:
        yield axes.spot(rated.score, said), *_mark(names.index(name))


def _mark(number: int) -> tuple[str, str]:
    return MARKS[number % len(MARKS)]
