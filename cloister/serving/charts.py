"""Inline SVG: small charts that need no script, follow the page's colours and print well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

# Of a chart in its own units; the page scales it.
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 180, 44, 22, 10, 14
# Of a chart of bars: its height, and the most that one bar and its gap take.
BARS_HEIGHT, WIDEST = 90, 22
# A lane's marks: class, shape (not colour alone), word.
MARKS = {
    "asked": ("m-asked", "○", "training"),
    "answered": ("m-answered", "●", "sent"),
    "lost": ("m-lost", "!", "lost on the way, asked again"),
    "late": ("m-late", "~", "late, not counted"),
    "refused": ("m-refused", "×", "refused"),
    "retired": ("m-retired", "–", "its budget is spent"),
}
# Rounds that a lane shows; older ones are in the run's folder.
LANE_ROUNDS = 60


def gauge(value: float, cap: float, label: str) -> Markup:
    """A half circle filled to `value` of `cap`."""
    share = min(max(value / cap, 0.0), 1.0) if cap > 0 else 1.0
    length = 251.3  # π · 80
    level = "over" if share > 0.9 else "near" if share > 0.7 else "fine"
    return Markup(
        '<svg class="gauge {level}" viewBox="0 0 200 118" role="img" aria-label="{label}">'
        '<path class="track" d="M20 100 A80 80 0 0 1 180 100"/>'
        '<path class="fill" d="M20 100 A80 80 0 0 1 180 100" stroke-dasharray="{drawn:.1f} 999"/>'
        '<text x="100" y="88" class="big">{value:.2f}</text>'
        '<text x="100" y="110" class="small">of {cap:g}</text></svg>'
    ).format(level=level, label=label, drawn=share * length, value=value, cap=cap)


def line(
    points: Mapping[str, Sequence[tuple[float, float]]],
    label: str,
    cap: float | None = None,
    from_zero: bool = False,
) -> Markup:
    """Lines over a common x axis of whole numbers, with an optional dashed cap.

    Args:
        points: (x, y) by the line's name.
        label: What the chart shows, for those who do not see it.
        cap: A level to be stayed below.
        from_zero: Whether the y axis begins at 0.
    """
    all_points = [point for line_ in points.values() for point in line_]
    if not all_points:
        return Markup('<p class="quiet">nothing yet</p>')
    xs, ys = [x for x, _ in all_points], [y for _, y in all_points]
    low = 0.0 if from_zero else min(ys)
    high = max([*ys, *([cap] if cap is not None else [])])
    if high == low:
        low, high = low - 0.5, high + 0.5
    left, right = min(xs), max(max(xs), min(xs) + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT),
            TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            WIDTH, HEIGHT, label
        )
    ]
    for level in (low, (low + high) / 2, high):
        _, y = place(left, level)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                   '<text class="tick" x="{}" y="{:.1f}">{:.3g}</text>').format(
                LEFT, WIDTH - RIGHT, y, y, LEFT - 6, y + 4, level)
        )  # fmt: skip
    for x in sorted({left, right if max(xs) > left else left}):
        at, _ = place(x, low)
        parts.append(Markup('<text class="tick mid" x="{:.1f}" y="{}">{:g}</text>').format(
            at, HEIGHT - 6, x))  # fmt: skip
    if cap is not None:
        _, y = place(left, cap)
        parts.append(
            Markup('<line class="cap" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                LEFT, WIDTH - RIGHT, y, y
            )
        )
    for index, (name, found) in enumerate(points.items()):
        at_all = [place(x, y) for x, y in found]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at_all)
        parts.append(
            Markup('<polyline class="line l{}" points="{}"><title>{}</title></polyline>').format(
                index % 6, path, name
            )
        )
        if at_all:
            parts.append(Markup('<circle class="dot l{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(
                index % 6, *at_all[-1]))  # fmt: skip
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def bars(values: Sequence[tuple[str, float]], label: str) -> Markup:
    """One bar a value, each with its words on hovering."""
    if not values:
        return Markup('<p class="quiet">nothing yet</p>')
    high = max(value for _, value in values) or 1.0
    step = min((WIDTH - LEFT - RIGHT) / len(values), WIDEST)
    floor = BARS_HEIGHT - 4
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            WIDTH, BARS_HEIGHT, label
        )
    ]
    for index, (name, value) in enumerate(values):
        tall = value / high * (floor - TOP)
        parts.append(
            Markup(
                '<rect class="bar" rx="2" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                "<title>{}: {:,.0f}</title></rect>"
            ).format(LEFT + 8 + index * step, floor - tall, step * 0.8, tall, name, value)
        )
    last = values[-1]
    parts.append(
        Markup(
            '<text class="tick" x="{}" y="{}">{:,.0f}</text>'
            '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><title>{}: {:,.0f}</title></svg>'
        ).format(LEFT, TOP + 8, high, LEFT + 8, WIDTH - RIGHT, floor, floor, *last)
    )
    return Markup("").join(parts)


def lanes(found: Mapping[str, Mapping[int, str]]) -> Markup:
    """Swim lanes: a row a site, a mark a round, told apart by shape and by colour."""
    rounds = sorted({number for lane in found.values() for number in lane})[-LANE_ROUNDS:]
    if not rounds:
        return Markup('<p class="quiet">no round was asked for yet</p>')
    rows = []
    for site, lane in found.items():
        cells = []
        for number in rounds:
            kind = lane.get(number)
            css, shape, word = MARKS.get(kind or "", ("", "", "not asked"))
            cells.append(
                Markup('<td class="{}" title="round {}: {}">{}</td>').format(
                    css, number, word, shape
                )
            )
        rows.append(Markup("<tr><th scope=row>{}</th>{}</tr>").format(site, Markup("").join(cells)))
    legend = Markup(" ").join(
        Markup('<span class="{}">{}</span> {}').format(css, shape, word)
        for css, shape, word in MARKS.values()
    )
    return Markup(
        '<div class="wide"><table class="lanes" aria-label="what each site did in each round">'
        '{}</table></div><p class="legend">rounds {} to {} · {}</p>'
    ).format(Markup("").join(rows), rounds[0], rounds[-1], legend)
