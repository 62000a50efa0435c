#!/usr/bin/env python3
"""Draws the pictures of the documentation as SVG, for light and dark pages alike.

    python docs/pictures/draw.py            # writes them beside this file
    python docs/pictures/draw.py --check    # fails if one is not what this would write
"""

import pathlib
import sys
from xml.sax.saxutils import escape

STYLE = """
    text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1a1f26; }
    .title { font-weight: 600; }
    .mono { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 12px; }
    .soft { fill: #55606d; font-size: 12px; }
    rect { fill: #ffffff; stroke: #b9c2cd; stroke-width: 1.2; }
    .group { fill: #f1f3f6; stroke: none; }
    .blue { fill: #e8effa; stroke: #1f5fbf; }
    .green { fill: #e3f3e9; stroke: #15703f; }
    .amber { fill: #fdf1dc; stroke: #8a5200; }
    .red { fill: #fce8e6; stroke: #b3261e; }
    .grey { fill: #eceff3; stroke: #55606d; }
    .line { fill: none; stroke: #55606d; stroke-width: 1.4; }
    .dashed { stroke-dasharray: 5 4; }
    .head { fill: #55606d; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6eaef; }
      .soft { fill: #9da8b5; }
      rect { fill: #1a2027; stroke: #4a5563; }
      .group { fill: #161b22; }
      .blue { fill: #1d2c44; stroke: #7fb0ff; }
      .green { fill: #17332a; stroke: #6fcf97; }
      .amber { fill: #3a2c14; stroke: #f0b455; }
      .red { fill: #40211f; stroke: #ff8a80; }
      .grey { fill: #262e37; stroke: #9da8b5; }
      .line { stroke: #9da8b5; }
      .head { fill: #9da8b5; }
    }
"""


class Picture:
    def __init__(self, width: int, height: int, title: str, description: str):
        self.size, self.title, self.description, self.parts = (width, height), title, description, []

    def group(self, x, y, w, h, label):
        self.parts.append(f'<rect class="group" x="{x}" y="{y}" width="{w}" height="{h}" rx="10"/>')
        self.text(x + 14, y + 21, label, "soft", "start")

    def box(self, x, y, w, h, title, *lines, kind="", mono=False):
        self.parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{w}" height="{h}" rx="7"/>')
        top = y + h / 2 - 8.5 * len(lines) + 4.5
        self.text(x + w / 2, top, title, "title mono" if mono else "title")
        for at, line in enumerate(lines):
            self.text(x + w / 2, top + 17 * (at + 1), line, "soft")

    def text(self, x, y, text, kind="", anchor="middle"):
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>')

    def arrow(self, *points, label=None, at=None, dashed=False, anchor="middle"):
        way = " ".join(f"{x:g},{y:g}" for x, y in points)
        kind = "line dashed" if dashed else "line"
        self.parts.append(f'<polyline class="{kind}" points="{way}" marker-end="url(#head)"/>')
        if label:
            self.text(*at, label, "soft", anchor)

    def svg(self) -> str:
        width, height = self.size
        body = "\n  ".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-labelledby="title desc">\n  <title id="title">{escape(self.title)}</title>\n'
            f'  <desc id="desc">{escape(self.description)}</desc>\n  <style>{STYLE}  </style>\n'
            '  <defs><marker id="head" viewBox="0 0 8 8" refX="7.2" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path class="head" d="M0,0.6 L7.5,4 L0,7.4 z"/></marker></defs>\n'
            f"  {body}\n</svg>\n"
        )


def flow() -> Picture:
    p = Picture(
        880, 372, "The flow",
        "An upload goes through the bucket, a queue and the import function to ECR; pushes and scans go through queues "
        "to functions that verify, judge, release and tell; reconcile goes after what no event brought.")
    p.box(10, 16, 140, 62, "you, or your CI", "aws s3 cp my-app.tar")
    p.box(192, 16, 140, 62, "upload bucket", "and its receipts")
    p.box(374, 16, 130, 62, "import queue", "at least once")
    p.box(546, 16, 140, 62, "import", "ranges, gzip, push", kind="blue", mono=True)
    p.box(728, 16, 142, 62, "Amazon ECR", "blobs, manifest, tag", kind="green")
    p.arrow((150, 47), (190, 47))
    p.arrow((332, 47), (372, 47))
    p.arrow((504, 47), (544, 47))
    p.arrow((686, 47), (726, 47))
    p.box(728, 140, 142, 62, "two queues", "of pushes, of scans")
    p.arrow((799, 78), (799, 138), label="pushed, scanned", at=(791, 112), anchor="end")
    p.box(546, 140, 140, 62, "on-push, on-scan", "read back, judge", kind="blue", mono=True)
    p.arrow((728, 171), (688, 171))
    p.box(374, 140, 130, 62, "released or held", "floating tags move", kind="green")
    p.arrow((546, 171), (506, 171))
    p.box(192, 140, 140, 62, "EventBridge, SNS", "once for each fact")
    p.arrow((374, 171), (334, 171))
    p.arrow((192, 171), (80, 171), (80, 80), label="told", at=(90, 128), anchor="start")
    p.arrow((439, 140), (439, 109), (262, 109), (262, 80), label="receipt, object tags", at=(350, 102))
    p.group(10, 232, 860, 128, "Nothing lost")
    p.box(546, 268, 140, 62, "reconcile", "every 15 minutes", kind="blue", mono=True)
    p.arrow((616, 268), (616, 204), label="what no event brought", at=(626, 256), anchor="start")
    p.box(192, 268, 312, 62, "state bucket", "ledger of layers, image records, your policy.toml")
    p.arrow((546, 299), (506, 299))
    p.box(728, 268, 130, 62, "failed messages", "alarm, one redrive")
    p.text(26, 296, "state changes by", "soft", "start")
    p.text(26, 313, "conditional writes alone", "soft", "start")
    return p


def states() -> Picture:
    p = Picture(
        880, 268, "The states of an upload",
        "Importing leads to imported, failed or superseded; imported to released or held; held to released with a new "
        "policy, an exception or by hand.")
    p.box(10, 40, 120, 58, "uploaded", "no delivery yet", kind="grey")
    p.box(222, 40, 130, 58, "importing", "delivery n of 10", kind="blue")
    p.box(460, 40, 130, 58, "imported", "in ECR, tagged", kind="blue")
    p.box(730, 40, 140, 58, "released", "deploy it", kind="green")
    p.box(730, 180, 140, 58, "held", "must not be used", kind="amber")
    p.box(222, 180, 130, 58, "failed", "nothing was tagged", kind="red")
    p.box(460, 180, 130, 58, "superseded", "a newer upload won", kind="grey")
    p.arrow((130, 69), (220, 69), label="event", at=(175, 61))
    p.arrow((352, 69), (458, 69), label="everything sent", at=(405, 61))
    p.arrow((590, 69), (728, 69), label="verified, allowed", at=(659, 61))
    p.arrow((560, 98), (560, 160), (770, 160), (770, 178), label="not whole, or not allowed", at=(664, 153))
    p.arrow((840, 180), (840, 100), dashed=True, label="new policy, exception,", at=(832, 116), anchor="end")
    p.text(832, 132, "or by hand", "soft", "end")
    p.arrow((262, 98), (262, 178), label="the upload’s fault, or", at=(254, 132), anchor="end")
    p.text(254, 149, "no delivery did", "soft", "end")
    p.arrow((320, 98), (320, 150), (500, 150), (500, 178), label="newer version", at=(402, 142))
    p.arrow((250, 40), (250, 18), (324, 18), (324, 38), dashed=True, label="tried again", at=(334, 22), anchor="start")
    return p


def architecture() -> Picture:
    p = Picture(
        880, 408, "The architecture",
        "Four thin functions stand on a runtime library and on the library gantry; the program gantry runs them as "
        "processes against an embedded AWS, which reads the same template that an account is given.")
    p.group(10, 10, 560, 388, "In an account, and on a laptop: the same code")
    for at, (name, what) in enumerate([
        ("import", "object created"), ("on-push", "image pushed"), ("on-scan", "scan ended"), ("reconcile", "schedule"),
    ]):
        p.box(28 + 134 * at, 44, 122, 56, name, what, kind="blue", mono=True)
    p.box(28, 124, 524, 50, "functions/runtime", "the only code that knows Lambda: log, metrics, batches", mono=True)
    p.arrow((290, 100), (290, 122))
    p.group(28, 198, 524, 188, "")
    p.text(42, 219, "shared: the library gantry, in the order in which a byte travels", "title", "start")
    cells = [
        ("event", "object", "decompress", "archive", "naming"),
        ("plan", "compress", "ecr", "state", "import"),
        ("react", "receipt", "notify", "image", "limits"),
    ]
    for row, names in enumerate(cells):
        for column, name in enumerate(names):
            p.box(42 + 101 * column, 234 + 48 * row, 94, 38, name, mono=True)
    p.arrow((290, 174), (290, 196))
    p.group(590, 10, 280, 388, "Around it")
    p.box(606, 44, 248, 62, "template.yaml", "rules, queues, roles, parameters", kind="green", mono=True)
    p.box(606, 136, 248, 62, "emulator", "an embedded AWS", mono=True)
    p.box(606, 228, 248, 62, "local: the program gantry", "demo, import, up, status, policy")
    p.box(606, 320, 248, 62, "tests, bench, fuzz", "through the wire, real processes")
    p.arrow((730, 136), (730, 108), label="reads", at=(738, 126), anchor="start")
    p.arrow((730, 228), (730, 200), label="starts", at=(738, 218), anchor="start")
    p.arrow((730, 320), (730, 292), label="run", at=(738, 310), anchor="start")
    p.arrow((606, 259), (580, 259), (580, 72), (554, 72))
    return p


def main() -> int:
    folder, stale = pathlib.Path(__file__).parent, []
    for picture in [flow, states, architecture]:
        path, svg = folder / f"{picture.__name__}.svg", picture().svg()
        if "--check" not in sys.argv:
            path.write_text(svg)
        elif not path.exists() or path.read_text() != svg:
            stale.append(path.name)
    if stale:
        print(f"not what draw.py writes: {', '.join(stale)}; run it", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
