"""From samples to medians, ratios and the table."""

import statistics

# Key of a sample, what the table calls it, unit, decimals.
FIGURES = (
    ("wall_s", "wall time", "s", 2),
    ("cpu_s", "CPU time, user and system", "s", 2),
    ("peak_mib", "peak resident memory", "MiB", 1),
    ("compressed_mb", "layers as sent", "MB", 1),
    ("cold_start_ms", "process start to first next", "ms", 1),
)


def medians(samples):
    """The median of every figure that the samples have."""
    return {key: statistics.median(sample[key] for sample in samples) for key in _figures(samples[0])}


def ratios(ours, theirs):
    """Ours divided by theirs, of every figure that both have; below 1 is less."""
    return {key: ours[key] / theirs[key] for key in _figures(ours) if key in theirs}


def table(results):
    """The medians side by side, with their spread, as lines of text."""
    contenders = list(results["medians"])
    ours, *others = contenders
    header = ["median (least to most)", "unit", *contenders, *(f"{ours} / {other}" for other in others)]
    rows = [header]
    for key, name, unit, decimals in FIGURES:
        cells = [name, unit]
        for contender in contenders:
            values = [sample[key] for sample in results["samples"][contender] if key in sample]
            cells.append(_spread(values, decimals) if values else "-")
        for other in others:
            ratio = results["ratios"][other].get(key)
            cells.append("-" if ratio is None else f"{ratio:.2f}")
        rows.append(cells)
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [_line(row, widths) for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _figures(sample):
    return [key for key, *_ in FIGURES if key in sample]


def _spread(values, decimals):
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"


def _line(cells, widths):
    left = [cell.ljust(width) for cell, width in zip(cells[:2], widths)]
    right = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:])]
    return "  ".join(left + right).rstrip()
