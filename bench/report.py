"""From samples to medians, ratios, and tables that can be read as text and as Markdown."""

import statistics

TITLES = {
    "first": "First import",
    "again": "The same upload again",
    "changed": "One small layer more (1 MB)",
}


def median(samples, key):
    """The median of one figure; None where the samples do not have it."""
    values = [sample[key] for sample in samples if key in sample]
    return statistics.median(values) if values else None


def table(results):
    """Everything that was measured, as Markdown."""
    facts, system = results["input"], results["machine"]
    lines = [
        "# Gantry beside skopeo and cdk-ecr-deployment",
        "",
        f"{facts['bytes'] / 1e6:.0f} MB in {len(facts['diff_ids'])} layers ({facts['made_by']}), into docker-registry.",
        f"{system['cpus']} CPUs ({system['cpu']}), Linux {system['kernel']}; {results['date']}; medians of {results['rounds']}.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()) + ".",
        "",
    ]
    parts = {"first": _against_peers, "embedded": _embedded, "compressed": _compressed, "counted": _counted, "network": _network}
    parts |= {"levels": _levels, "growth": _growth}
    for name, taken in results["works"].items():
        lines += parts[name](taken)
    lines += _start(results)
    return "\n".join(lines) + "\n"


def _rows(header, rows):
    rows = [header, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    def line(row):
        cells = [cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))]
        return "| " + " | ".join(cells) + " |"
    rule = "| " + " | ".join("-" * width if at == 0 else "-" * (width - 1) + ":" for at, width in enumerate(widths)) + " |"
    return [line(header), rule, *map(line, rows[1:]), ""]


def _against_peers(works):
    lines, busiest = [], 0
    for work, samples in works.items():
        lines += [f"## {TITLES[work]}", "", *_against_best(samples)]
        busiest = max([busiest, *(sample["busy_cpus_before"] for taken in samples.values() for sample in taken)])
    lines += [f"Busy with other things before a measurement: at most {busiest:.1f} CPUs.", ""]
    return lines + _where(works["first"])


def _embedded(samples):
    return ["## First import, into the embedded registry", "", *_against_best(samples)]


def _against_best(samples):
    """A row for each contender, with ratios against the faster of the peers."""
    walls = {name: median(taken, "wall_s") for name, taken in samples.items()}
    peers = [name for name in samples if not name.startswith("gantry")]
    best = min(peers, key=walls.get)
    cdk = "cdk-ecr-deployment"
    rows = []
    for name, taken in samples.items():
        def ratio(key, other, digits=2):
            ours, theirs = median(taken, key), median(samples[other], key)
            return "" if name == other or not ours or not theirs else f"{ours / theirs:.{digits}f}"
        times = walls[best] / walls[name] if name != best else 1
        row = [name, f"{walls[name]:.2f}", f"{median(taken, 'cpu_s'):.2f}", f"{median(taken, 'peak_mib'):.0f}"]
        row += [f"{median(taken, 'compressed_mb'):.1f}", f"{times:.2f}", ratio("cpu_s", best)]
        row += [ratio("compressed_mb", best, 3), "" if name == cdk else f"{walls[cdk] / walls[name]:.1f}"]
        rows.append(row)
    header = ["", "wall s", "CPU s", "peak MiB", "layers MB", f"times as fast as {best}", "its CPU", "its size"]
    return _rows([*header, "times as fast as cdk"], rows)


def _where(samples):
    """Where the time of a first import goes: what the CPUs did meanwhile, and what Gantry's layers waited for."""
    rows, waits = [], []
    for name, taken in samples.items():
        def of(group, key):
            values = [sample[group][key] for sample in taken if group in sample]
            return statistics.median(values) if values else None
        cpu_s, busy_s = median(taken, "cpu_s"), of("machine", "busy_s")
        compress_s, hash_s = of("spent_s", "compress"), of("spent_s", "hash")
        parts = [compress_s, hash_s, cpu_s - compress_s - hash_s] if compress_s else [None, None, cpu_s]
        parts += [busy_s - cpu_s, of("machine", "idle_s"), of("machine", "stolen_s")]
        rows.append([name, *("" if part is None else f"{part:.2f}" for part in parts)])
        if compress_s:
            waits.append([name, *(f"{of('spent_s', key):.2f}" for key in ("read", "wait", "send"))])
    header = ["", "compress", "hash", "the rest of it", "S3, registry, others", "idle", "taken by the host"]
    lines = ["## Where the time of a first import goes", "", "Seconds of a CPU, of all CPUs together:", ""]
    lines += _rows(header, rows)
    lines += ["What the layers waited for, in seconds, added up over those that were under way beside each other:", ""]
    return lines + _rows(["", "bytes to read", "a core", "the registry"], waits)


def _compressed(samples):
    walls = {name: median(taken, "wall_s") for name, taken in samples.items()}
    least = min(walls.values())
    rows = [[name, f"{wall:.2f}", f"{wall / walls['read, hash, write once']:.2f}"] for name, wall in walls.items()]
    assert least > 0
    return ["## An OCI archive, compressed already", "", *_rows(["", "wall s", "against reading, hashing, writing once"], rows)]


def _counted(rows):
    def requests(counted):
        return ", ".join(f"{count} {method}" for method, count in sorted(counted.items()))
    cells = [
        [
            TITLES[name],
            requests(row["aws_requests"]),
            f"{row['aws_bytes_read'] / 1e6:.3f}",
            f"{row['of_the_archive'] * 100:.2f}%",
            requests(row["registry_requests"]),
            f"{row['registry_bytes_sent'] / 1e6:.3f}",
        ]
        for name, row in rows.items()
    ]
    header = ["Gantry", "requests to AWS", "MB read", "of the archive", "requests to the registry", "MB sent"]
    return ["## Requests and bytes on the wire", "", *_rows(header, cells)]


def _network(rows):
    cells = [
        [name, f"{row['wall_s']:.2f}", f"{row['least_s']:.2f}", f"{row['ratio']:.2f}", f"{row['peak_mib']:.0f}"]
        for name, row in rows.items()
    ]
    note = "30 ms to the first byte, 85 MB/s for each connection, 75 MiB/s each way in all."
    header = ["", "wall s", "the rate alone s", "ratio", "peak MiB"]
    return ["## Over a network like Lambda's", "", note, "", *_rows(header, cells)]


def _levels(rows):
    cells = [
        [
            name,
            f"{row['mb_per_cpu_s']:.0f}",
            f"{row['mb_per_cpu_s'] * 3008 / 1769:.0f}",
            f"{row['mb_per_cpu_s'] * 6:.0f}",
            f"{row['compressed_mb']:.1f}",
        ]
        for name, row in rows.items()
    ]
    note = (
        "Everything that an import does, on one core here; the other columns are that times 1.7 (3,008 MB, the default) and 6 "
        "(10,240 MB). Lambda's network gives 78.6 MB/s: what is above it waits for the network."
    )
    header = ["Compression", "MB/s, 1 vCPU", "1.7 vCPUs", "6 vCPUs", "layers MB"]
    return ["## Settings of Compression", "", note, "", *_rows(header, cells)]


def _growth(rows):
    cells = [
        [
            f"{row['mb']:,} MB in {row['layers']} layers",
            f"{row['wall_s']:.2f}",
            f"{row['mb_per_s']:.0f}",
            f"{row['cpu_s']:.2f}",
            f"{row['peak_mib']:.0f}",
        ]
        for row in rows
    ]
    return ["## Growth", "", *_rows(["", "wall s", "MB/s", "CPU s", "peak MiB"], cells)]


def _start(results):
    rows = []
    sizes = results["binary_bytes"]
    ours = results["cold_start_ms"]
    rows.append(["gantry", f"{sizes['gantry'] / 1e6:.1f}", f"{statistics.median(ours):.1f}"])
    cdk = results["works"].get("first", {}).get("first", {}).get("cdk-ecr-deployment")
    if cdk:
        rows.append(["cdk-ecr-deployment", f"{sizes['cdk-ecr-deployment'] / 1e6:.1f}", f"{median(cdk, 'cold_start_ms'):.1f}"])
    header = ["", "binary MB", "process start to first next, ms"]
    return ["## Start", "", *_rows(header, rows)]
