"""A plot as SVG: lines over logarithmic axes, nothing else."""
import math

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
LEFT, TOP, WIDTH, HEIGHT, RIGHT, BOTTOM = 78, 34, 460, 290, 210, 46


def decades(values):
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def short(value):
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def plot(title, across, up, lines):
    """`lines` maps a name to points (x, y); what is not above zero has no place on these axes."""
    lines = {name: sorted((x, y) for x, y in points if x > 0 and y > 0) for name, points in lines.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None
    (x0, x1), (y0, y1) = (decades([point[axis] for points in lines.values() for point in points]) for axis in (0, 1))
    place_x = lambda x: LEFT + WIDTH * (math.log10(x) - x0) / (x1 - x0)
    place_y = lambda y: TOP + HEIGHT * (1 - (math.log10(y) - y0) / (y1 - y0))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{TOP + HEIGHT + BOTTOM}" '
           'font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>',
           f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{title}</text>']
    for decade in range(x0, x1 + 1):
        x = place_x(10 ** decade)
        out.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + HEIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{x:.1f}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{short(10 ** decade)}</text>')
    for decade in range(y0, y1 + 1):
        y = place_y(10 ** decade)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + WIDTH}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(10 ** decade)}</text>')
    out.append(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 36}" text-anchor="middle">{across}</text>')
    out.append(f'<text x="16" y="{TOP + HEIGHT / 2}" text-anchor="middle" '
               f'transform="rotate(-90 16 {TOP + HEIGHT / 2})">{up}</text>')
    for at, (name, points) in enumerate(lines.items()):
        colour = COLOURS[at % len(COLOURS)]
        places = [(place_x(x), place_y(y)) for x, y in points]
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="'
                   + " ".join(f"{x:.1f},{y:.1f}" for x, y in places) + '"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        y = TOP + 12 + 18 * at
        out.append(f'<line x1="{LEFT + WIDTH + 12}" y1="{y - 4}" x2="{LEFT + WIDTH + 32}" y2="{y - 4}" '
                   f'stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{LEFT + WIDTH + 38}" y="{y}">{name}</text>')
    return "\n".join([*out, "</svg>", ""])
