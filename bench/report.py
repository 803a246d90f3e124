"""BENCHMARKS.md and its plots, from the results of `bench/run`: of each group the last one counts."""
import json, os, platform, re, statistics, subprocess

import groups
from plot import plot

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

# What a figure is called, and how it is written.
FIGURES = {
    "seconds": ("time", "time"), "p99_s": ("p99", "time"), "cpu_s": ("processor", "time"), "per_s": ("a second", "rate"),
    "mb_per_s": ("MB/s", "rate"), "bytes": ("bytes", "bytes"), "beside_entries": ("beside the entries", "bytes"),
    "entry_bytes": ("entries", "bytes"), "messages": ("messages", "count"), "round_trips": ("round trips", "count"),
    "peak_mb": ("peak memory", "mb"), "extra_mb": ("extra, joining", "mb"), "serving_extra_mb": ("extra, serving", "mb"),
    "resident_mb": ("resident", "mb"), "disk_bytes_per_entry": ("disk, an entry", "bytes"), "lost": ("lost", "count"),
    "one_per_s": ("one writer, a second", "rate"), "sixteen_per_s": ("16 writers, a second", "rate"),
    "transaction_per_s": ("one transaction of 10,000, a second", "rate"),
    "restart_s": ("restart", "time"), "live_s": ("live change", "time"), "live_max_s": ("slowest of ten", "time"),
    "apart_s": ("100 + 100 apart", "time"), "changed_s": ("64 KiB changed", "time"),
    "changed_bytes": ("moved for it", "bytes"), "kb_per_peer": ("KB a peer", "count"), "joined_s": ("all joined after", "time"),
    "one_random_per_s": ("one a transaction, random", "rate"), "ordered_1000_per_s": ("1,000, in order", "rate"),
    "ordered_10000_per_s": ("10,000, in order", "rate"), "random_10000_per_s": ("10,000, random", "rate"),
    "instructions": ("instructions", "count"), "instructions_each": ("of each", "count"), "things": ("things", "count"),
    "random_10000_into_300k_per_s": ("10,000, random, into 300,000", "rate"),
}


def write_value(value, kind):
    if kind == "time":
        for size, unit in ((1, "s"), (1e-3, "ms")):
            if value >= size:
                return f"{value / size:.3g} {unit}"
        return f"{value / 1e-6:.0f} us"
    if kind == "rate":
        return f"{value:,.0f}"
    if kind == "bytes":
        for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e4, "KB")):
            if abs(value) >= size:
                return f"{value / (1e3 if unit == 'KB' else size):.3g} {unit}"
        return f"{value:,.0f} B"
    if kind == "mb":
        return f"{value:.0f} MB"
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"


def values_of(result, series, figure):
    rounds = result["figures"].get(series, []) if result else []
    return [one[figure] for one in rounds if one.get(figure) is not None]


def median_of(result, series, figure):
    values = values_of(result, series, figure)
    return statistics.median(values) if values else None


def spread(values, kind):
    middle = statistics.median(values)
    low, high = write_value(min(values), kind), write_value(max(values), kind)
    return write_value(middle, kind) if low == high else f"{write_value(middle, kind)} ({low} to {high})"


def table(head, lines):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head),
                      *("| " + " | ".join(line) + " |" for line in lines)])


def group_table(group, result):
    """All figures of all series of a group: median (least to most)."""
    shown = [name for name in group.figures if any(values_of(result, series, name) for series in result["figures"])]
    lines = []
    for series in result["figures"]:
        cells = [series]
        for name in shown:
            values = values_of(result, series, name)
            cells.append(spread(values, FIGURES[name][1]) if values else "")
        lines.append(cells)
    text = table(["", *(FIGURES[name][0] for name in shown)], lines)
    for series, error in result["failed"].items():
        text += f"\n\n{series} failed: {re.sub(r'/[^ :]+/', '', error)[:200]}"
    return text


def better(figure):
    """Whether more is better."""
    return FIGURES[figure][1] == "rate"


def row_cells(row, results):
    result = results.get(row.group)
    kind = FIGURES[row.figure][1]
    values = values_of(result, row.ours, row.figure)
    if not values:
        return [row.work, row.goal, "not measured", "", ""]
    ours = spread(values, kind)
    for name, divisor, unit in row.also:
        also = median_of(result, row.ours, name)
        if also is not None:
            also /= divisor
            ours += f"; {also:,.0f} {unit}" if also >= 100 or also == int(also) else f"; {also:.3g} {unit}"
    mine, peers = statistics.median(values), []
    for peer in row.peers:
        theirs = median_of(result, peer, row.figure)
        if theirs is None:
            peers.append(f"{peer}: none")
            continue
        ratio = mine / theirs if better(row.figure) else theirs / mine
        peers.append(f"{re.sub(r', n = .*', '', peer)}: {write_value(theirs, kind)}, **{ratio:.3g} x**")
    for peer in row.alone:
        theirs, size = median_of(result, peer, row.figure), median_of(result, peer, "bytes")
        if theirs is not None:
            peers.append(f"{re.sub(r', n = .*', '', peer)}, ids alone in memory: {write_value(theirs, kind)}, "
                         f"{write_value(size, 'bytes')}")
    limit = ""
    if row.limit:
        group, series, figure, *how = row.limit
        value = median_of(results.get(group), series, figure)
        if value is not None:
            scale, text = how if how else (None, "{}")
            kind = FIGURES[figure][1]
            limit = text.format(write_value(value, kind) if scale is None else write_value(scale / value, "time"))
            if group == row.group and figure == row.figure:
                limit += f"; {100 * mine / value:.0f} % of it"
    return [row.work, row.goal, ours, "<br>".join(peers), limit]


def curve(results, pattern, figure, groups_, by):
    """Points of series whose label matches, by the number in it."""
    points = {}
    for group in groups_:
        for series in (results.get(group) or {"figures": {}})["figures"]:
            found = re.fullmatch(pattern, series)
            value = median_of(results[group], series, figure) if found else None
            if value is not None:
                points.setdefault(float(found[by].replace(",", "")), value)
    return sorted(points.items())


def curves(results):
    """Name, title, axes and lines of every plot, and a sentence on what bounds it."""
    number = r"([\d,]+)"
    differ = ("differ", "differ-million", "differ-small")
    boot = [*curve(results, rf"Syncline, n = {number}", "seconds", ("bootstrap-small", "bootstrap-million"), 1)]
    docs = curve(results, rf"iroh-docs, n = {number}", "seconds", ("bootstrap-small",), 1)
    hundred = median_of(results.get("bootstrap"), "iroh-docs, redb", "seconds")
    docs += [(groups.N, hundred)] if hundred else []
    yield ("bootstrap", "Bootstrap", "entries", "seconds", {"Syncline": boot, "iroh-docs": docs},
           "Linear in n: Syncline is bound by redb's inserts (entry, log and index rows) and hashing at the joining side, "
           "the constant at the left by the join itself, which waits for three commits; iroh-docs by two signature checks and three rows an entry.")
    for d, name in ((0, "equal"), (1, "one"), (100, "hundred")):
        lines = {who: curve(results, rf"{who}, n = {number}, d = {d}", "seconds", differ, 1)
                 for who in ("Syncline", "iroh-docs", "negentropy")}
        yield (f"differ-{name}", f"{d} + {d} differences" if d else "Equal replicas", "entries", "seconds", lines, {
            0: "Syncline compares two roots, so n does not matter: a round trip. iroh-docs and negentropy read every entry.",
            1: "Syncline sends coded symbols of all that it holds, which are kept up to date with every write: a constant number "
               "of round trips and two commits, whatever n; the others read every entry first.",
            100: "The same symbols, some more of them: their decoding and the entries themselves count, n does not.",
        }[d])
    for figure, name, up in (("seconds", "time", "seconds"), ("bytes", "bytes", "bytes")):
        lines = {who: curve(results, rf"{who}, n = {groups.N:,}, d = {number}", figure, ("differ",), 1)
                 for who in ("Syncline", "iroh-docs", "negentropy")}
        yield (f"growth-{name}", f"Differences in {groups.N:,}: {name}", "differences a side", up, lines, {
            "time": "From some hundreds on the time is that of decoding symbols and of moving, verifying and inserting the "
                    "entries, which is linear in d; below that, of the round trips and commits.",
            "bytes": "Each difference costs its entry, its proof and some one and a half coded symbols; negentropy moves ids only."}[name])
    hub = curve(results, rf"Syncline, {number} peers", "seconds", ("hub",), 1)
    yield ("hub", "One write on a hub", "peers", "seconds until all show it", {"Syncline": hub},
           "Linear in the peers: two cores run the hub and all its peers, and each peer verifies, stores and acknowledges by itself.")


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = int(open("/proc/meminfo").readline().split()[1]) / 2 ** 20
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB of memory, Linux {platform.release().split('-')[0]}"


INTRODUCTION = """# Benchmarks

What Syncline costs, beside what a user would pick instead, and beside what the machine can do. Made by one command:

```
bench/run            # builds everything, measures everything, writes this page
bench/run --quick    # a smoke run
bench/run --only differ bootstrap     # some groups again (bench/run --list)
```

The hot paths by themselves:

```
cargo bench -p store-redb --bench hot_paths     # encode, decode, verify, sign, apply, summary, split, changes; `... hot_paths verify` one of them
bench/instructions                              # instructions of encode, decode, verify, apply, reconcile under callgrind: the same on a busy machine
```

{machine}; loopback; release builds. Every figure is the median of at least five rounds after one that does not count, with least and most in
brackets; within a group all contestants take turns, a round each, so ratios are of one run while absolute times differ from machine to machine and from day to day.
**n x** says how many times faster Syncline is. Memory is the peak of a process in the round. Bytes and messages are those of both directions, frames
whole, without the transport's own. Syncline is durable and verifies everything strictly in every row; what differs at a peer is said in the group's text below.
Peers: iroh-docs 0.101 (iroh 1.1, blobs 0.103, no relay, no lookup), negentropy 0.5, samod 0.16, p2panda-sync 0.7, rsync 3.5 and syncthing 1.19 from Debian.

"""


def write(results_file, quick):
    results = {}
    if os.path.exists(results_file):
        for line in open(results_file):
            line = json.loads(line)
            results[line["group"]] = line
    all_groups = groups.groups(quick)
    # How a group runs must not be built for a report.
    out = [INTRODUCTION.format(machine=machine()),
           "## The rows\n\n",
           table(["work", "goal", "Syncline", "peers", "the machine's limit"],
                 [row_cells(row, results) for row in groups.rows(quick)]), "\n\n"]
    plots = os.path.join(HERE, "results" if quick else "plots")
    os.makedirs(plots, exist_ok=True)
    out.append("## Growth\n\n")
    for name, title, across, up, lines, bound in curves(results):
        drawn = plot(title, across, up, lines)
        if drawn is None:
            continue
        with open(os.path.join(plots, name + ".svg"), "w") as file:
            file.write(drawn)
        where = os.path.relpath(os.path.join(plots, name + ".svg"), os.path.dirname(results_file) if quick else ROOT)
        out.append(f"### {title}\n\n![{title}]({where})\n\n{bound}\n\n")
        all_x = sorted({x for points in lines.values() for x, _ in points})
        kind = "bytes" if up == "bytes" else "time"
        cells = [[name, *(write_value(dict(points)[x], kind) if x in dict(points) else "" for x in all_x)]
                 for name, points in lines.items() if points]
        out.append(table([across, *(f"{x:,.0f}" for x in all_x)], cells) + "\n\n")
    out.append("## Everything that was measured\n\n")
    for group in all_groups:
        if group.name in results:
            result = results[group.name]
            out.append(f"### {group.heading}\n\n`{group.name}`. {group.text}\n\n{group_table(group, result)}\n\n")
    bounds = os.path.join(HERE, "bounds.md")
    if os.path.exists(bounds) and not quick:
        out.append(open(bounds).read())
    to = os.path.join(HERE, "results", "quick.md") if quick else os.path.join(ROOT, "BENCHMARKS.md")
    with open(to, "w") as file:
        file.write("".join(out).rstrip() + "\n")
    print(f"wrote {os.path.relpath(to, ROOT)}")
