"""Draws the pictures of the documentation: python scripts/draw_pictures.py

Each picture is an SVG with a background of its own and colours for light and dark, so it can be read on any page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from shardfit.shard_plan import World
from shardfit.sharding.rows import shard_by_rows
from shardfit.source import Fragment

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"

_STYLE = """
  .page { fill: #ffffff; stroke: #d0d7de; }
  text { font-family: -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 15px; fill: #1f2328; }
  .title { font-weight: 600; }
  .small { font-size: 13px; fill: #59636e; }
  .code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 12.5px; fill: #59636e; }
  .box { stroke-width: 1.5; }
  .data { fill: #ddf4ff; stroke: #218bff; }
  .decide { fill: #fbefff; stroke: #a475f9; }
  .work { fill: #dafbe1; stroke: #2da44e; }
  .keep { fill: #fff8c5; stroke: #bf8700; }
  .stop { fill: #ffebe9; stroke: #cf222e; }
  .lane { fill: #f6f8fa; stroke: #d0d7de; }
  .line { fill: none; stroke: #59636e; stroke-width: 1.5; }
  .cut { fill: none; stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 4 3; }
  .head { fill: #59636e; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d; }
    text { fill: #f0f6fc; }
    .small, .code { fill: #9198a1; }
    .data { fill: #0c2d6b; stroke: #388bfd; }
    .decide { fill: #3c1e70; stroke: #a371f7; }
    .work { fill: #033a16; stroke: #2ea043; }
    .keep { fill: #4b2900; stroke: #d29922; }
    .stop { fill: #67060c; stroke: #f85149; }
    .lane { fill: #151b23; stroke: #3d444d; }
    .line { stroke: #9198a1; }
    .cut { stroke: #f85149; }
    .head { fill: #9198a1; }
  }
"""


class Picture:
    """An SVG under construction.

    Args:
        title: What it shows, for those who cannot see it.
        width: In pixels.
        height: In pixels.
    """

    def __init__(self, title: str, width: int, height: int) -> None:
        self._title = title
        self._size = (width, height)
        self._parts: list[str] = []

    def box(self, kind: str, x: float, y: float, width: float, height: float, *lines: str) -> None:
        """Draw a box with lines of text: the first is its title, one in backquotes is code, others are small."""
        self._rect(f"box {kind}", x, y, width, height)
        step = 19
        top = y + height / 2 - (len(lines) - 1) * step / 2 + 5
        for number, line in enumerate(lines):
            style = "code" if line.startswith("`") else "title" if number == 0 else "small"
            self.text(x + width / 2, top + number * step, line.strip("`"), style)

    def area(self, x: float, y: float, width: float, height: float, caption: str) -> None:
        """Draw a quiet area with a caption at its top left."""
        self._rect("lane", x, y, width, height)
        self.text(x + 12, y + 20, caption, "small", "start")

    def text(self, x: float, y: float, text: str, style: str = "small", anchor: str = "middle") -> None:
        """Write one line."""
        self._parts.append(f'<text class="{style}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>')

    def arrow(self, *points: tuple[float, float]) -> None:
        """Draw a line through points, with a head at the last."""
        path = " L ".join(f"{x:g} {y:g}" for x, y in points)
        self._parts.append(f'<path class="line" d="M {path}" marker-end="url(#head)"/>')

    def cut(self, x: float, top: float, bottom: float) -> None:
        """Draw a dashed line from top to bottom."""
        self._parts.append(f'<path class="cut" d="M {x:g} {top:g} L {x:g} {bottom:g}"/>')

    def svg(self) -> str:
        """Return the picture as text."""
        width, height = self._size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{escape(self._title)}">\n<title>{escape(self._title)}</title>\n<style>{_STYLE}</style>\n'
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto"><path class="head" d="M 0 0 L 8 4 L 0 8 z"/></marker></defs>\n'
            f'<rect class="page" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10"/>\n'
        )
        return head + "\n".join(self._parts) + "\n</svg>\n"

    def _rect(self, style: str, x: float, y: float, width: float, height: float) -> None:
        self._parts.append(f'<rect class="{style}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>')


def draw_path() -> str:
    """Return the picture of the path from a table to a published model."""
    picture = Picture("The path from a table to a published model", 1060, 368)
    picture.box("data", 20, 128, 138, 60, "DataConnector", "`connector.py`")
    picture.box("data", 182, 128, 128, 60, "fragments", "`source.py`")
    picture.box("decide", 334, 84, 138, 60, "WorkerLayout", "`scaling.py`")
    picture.box("decide", 334, 172, 138, 60, "ShardPlan", "`shard_plan.py`")
    picture.area(496, 20, 396, 290, "workers, each with its own shard: worker.py")
    for worker, y in enumerate((54, 138, 222)):
        picture.text(508, y + 41, f"{worker}", "small")
        picture.box("work", 522, y, 90, 72, "profile", "one pass")
        picture.box("work", 702, y, 82, 72, "matrix", "binned")
        picture.box("work", 806, y, 74, 72, "fit", "rounds")
        picture.arrow((612, y + 36), (622, y + 36))
        picture.arrow((692, y + 36), (702, y + 36))
        picture.arrow((784, y + 36), (806, y + 36))
    picture.box("decide", 622, 54, 70, 240, "merged", "profile:", "the cut", "points of", "the whole", "table")
    picture.box("keep", 916, 84, 124, 60, "model", "`run.py`")
    picture.box("keep", 916, 172, 124, 60, "stage", "`artifacts.py`")
    picture.arrow((158, 158), (182, 158))
    picture.arrow((310, 148), (322, 148), (322, 114), (334, 114))
    picture.arrow((310, 168), (322, 168), (322, 202), (334, 202))
    picture.arrow((403, 144), (403, 172))
    picture.arrow((472, 202), (496, 202))
    picture.arrow((892, 114), (916, 114))
    picture.arrow((978, 144), (978, 172))
    before = (
        "Decided before a worker starts:",
        "how many workers, who reads what, and why.",
        "shardfit plan prints it.",
    )
    for number, line in enumerate(before):
        picture.text(20, 262 + 20 * number, line, anchor="start")
    whole = (
        "Bins, initial score and metrics come from the whole table: the model does not depend on the number of workers."
    )
    picture.text(530, 345, whole)
    return picture.svg()


def draw_shard_plan() -> str:
    """Return the picture of a plan: row groups of two files cut into the shards of three workers, as planned."""
    files = (("train/2023.parquet", (1500, 1500, 1500, 1500)), ("train/2024.parquet", (1500, 1500, 1000)))
    fragments = [Fragment(name, index, rows) for name, sizes in files for index, rows in enumerate(sizes)]
    plan = shard_by_rows(fragments, World(3))
    left, scale = 30, 940 / plan.rows
    picture = Picture("Fragments of two files cut into the shards of three workers", 1000, 330)
    first = 0
    for name, sizes in files:
        picture.text(left + first * scale + 2, 34, f"{name}: {sum(sizes):,} rows", "code", "start")
        for index, rows in enumerate(sizes):
            x = left + first * scale + 2
            picture.box("data", x, 46, rows * scale - 4, 54, f"group {index}", f"{rows:,} rows")
            first += rows
    for shard in plan.shards(fragments):
        start = shard.slices[0].first_row
        span = f"rows {start:,} to {start + shard.rows - 1:,}"
        x = left + start * scale
        picture.box("work", x + 3, 168, shard.rows * scale - 6, 64, f"worker {shard.worker}: {shard.rows:,} rows", span)
        for piece in shard.slices:
            x = left + piece.first_row * scale
            picture.box("lane", x + 3, 244, piece.rows * scale - 6, 34)
            picture.text(x + piece.rows * scale / 2, 266, f"{piece.rows:,}")
        if start:
            picture.cut(left + start * scale, 104, 284)
    picture.text(left, 140, "rows are numbered in this order", anchor="start")
    below = "slices: each row is in exactly one of them; a row group is cut where an even share ends"
    picture.text(left, 308, below, anchor="start")
    return picture.svg()


def draw_run() -> str:
    """Return the picture of a run from its start to its record, with the way back after a loss."""
    picture = Picture("What happens during a run", 1000, 356)
    picture.area(174, 30, 488, 134, "one attempt")
    steps = (
        ("decide", "plan", "`PlanMade`"),
        ("work", "start", "workers meet"),
        ("work", "profile", "`ProfileMade`"),
        ("work", "train", "`MetricsReported`"),
        ("keep", "publish", "`ArtifactStored`"),
        ("keep", "record", "`RunEnded`"),
    )
    for number, (kind, *lines) in enumerate(steps):
        x = 20 + number * 164
        picture.box(kind, x, 84, 140, 64, *lines)
        if number < len(steps) - 1:
            picture.arrow((x + 140, 116), (x + 164, 116))
    picture.text(20, 38, "RunStarted", "code", "start")
    picture.arrow((56, 46), (56, 84))
    picture.text(910, 172, "written however")
    picture.text(910, 189, "the run ends")
    picture.box("stop", 492, 204, 160, 64, "a worker is lost", "`WorkerLost`")
    picture.box("decide", 256, 204, 190, 64, "scaling decides", "wait, or fewer workers")
    picture.arrow((572, 164), (572, 204))
    picture.arrow((492, 236), (446, 236))
    picture.arrow((256, 236), (90, 236), (90, 148))
    for y, line in ((226, "plan again"), (256, "resume from the"), (272, "last checkpoint")):
        picture.text(100, y, line, anchor="start")
    picture.text(20, 312, "While training lasts, checkpoints go through the store: CheckpointStored.", anchor="start")
    ends = "An error ends the run at once: nothing is published, no worker is left, the record says why."
    picture.text(20, 334, ends, anchor="start")
    return picture.svg()


PICTURES: dict[str, Callable[[], str]] = {
    "path.svg": draw_path,
    "shard-plan.svg": draw_shard_plan,
    "run.svg": draw_run,
}


def main(names: Sequence[str] = tuple(PICTURES)) -> None:
    """Write the pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in names:
        (IMAGES / name).write_text(PICTURES[name](), encoding="utf-8")


if __name__ == "__main__":
    main()
