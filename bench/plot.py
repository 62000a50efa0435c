"""The first import as a picture: one bar for each contender, and how memory and time grow."""

from html import escape

import report

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.quiet { fill: #59636e } .title { font-weight: 600; font-size: 15px }
.ours { fill: #0b6e99 } .theirs { fill: #9aa4ae } .line { stroke: #0b6e99; fill: none; stroke-width: 2 }
.axis { stroke: #c4ccd4 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #9198a1 } .ours { fill: #4db2dd } .theirs { fill: #656d76 }
  .line { stroke: #4db2dd } .axis { stroke: #3d444d }
}
"""


def svg(results):
    """Bars of wall time, CPU time and bytes sent of a first import; below them, growth."""
    samples = results["works"]["first"]["first"]
    parts, top = [], 0
    figures = (("wall_s", "wall time, s", 2), ("cpu_s", "CPU time, s", 2), ("peak_mib", "peak memory, MiB", 0))
    for key, title, digits in (*figures, ("compressed_mb", "layers as sent, MB", 0)):
        values = {name: report.median(taken, key) for name, taken in samples.items()}
        parts.append(_bars(title, values, top, digits))
        top += 40 + 24 * len(values)
    parts.append(_growth(results["works"]["growth"], top))
    height = top + 260
    title = f"First import of {results['input']['bytes'] / 1e6:.0f} MB on {results['machine']['cpus']} CPUs"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" role="img" aria-label="{escape(title)}">'
        f"<style>{STYLE}</style>{''.join(parts)}</svg>\n"
    )


def _bars(title, values, top, digits):
    most = max(values.values())
    lines = [f'<text class="title" x="0" y="{top + 18}">{escape(title)}</text>']
    for at, (name, value) in enumerate(values.items()):
        y = top + 28 + 24 * at
        kind = "ours" if name.startswith("gantry") else "theirs"
        width = 440 * value / most
        lines.append(f'<text class="quiet" x="0" y="{y + 14}">{escape(name)}</text>')
        lines.append(f'<rect class="{kind}" x="160" y="{y + 2}" width="{width:.1f}" height="16" rx="2"/>')
        lines.append(f'<text x="{168 + width:.1f}" y="{y + 14}">{value:.{digits}f}</text>')
    return "".join(lines)


def _growth(rows, top):
    rows = sorted((row for row in rows if row["layers"] == 4), key=lambda row: row["mb"])
    most_mb, most_s = max(row["mb"] for row in rows), max(row["wall_s"] for row in rows)
    most_mib = max(128, *(row["peak_mib"] for row in rows))
    lines = [f'<text class="title" x="0" y="{top + 18}">growth: wall time and peak memory by size of the archive</text>']
    for left, key, most, unit in ((40, "wall_s", most_s, "s"), (400, "peak_mib", most_mib, "MiB")):
        base, width, height = top + 220, 280, 170
        points = [(left + width * row["mb"] / most_mb, base - height * row[key] / most) for row in rows]
        lines.append(f'<path class="axis" d="M{left} {base - height}V{base}H{left + width}" fill="none"/>')
        lines.append('<polyline class="line" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in points) + '"/>')
        lines += [f'<circle class="ours" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
        lines.append(f'<text class="quiet" x="{left}" y="{base + 18}">0</text>')
        lines.append(f'<text class="quiet" x="{left + width - 60}" y="{base + 18}">{most_mb / 1000:.0f} GB</text>')
        lines.append(f'<text class="quiet" x="{left + 6}" y="{base - height + 12}">{most:.0f} {unit}</text>')
    return "".join(lines)
