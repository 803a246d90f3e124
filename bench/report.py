"""BENCHMARKS.md and its plots, from the results of `bench/run`: of each group the last one counts."""
import json, os, platform, re, statistics, subprocess
from dataclasses import dataclass

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
    "serving_peak_mb": ("peak memory, serving", "mb"), "serving_after_mb": ("serving, afterwards", "mb"),
    "resident_mb": ("resident", "mb"), "disk_bytes_per_entry": ("disk, an entry", "bytes"), "lost": ("lost", "count"),
    "one_per_s": ("one writer, a second", "rate"), "sixteen_per_s": ("16 writers, a second", "rate"),
    "transaction_per_s": ("one transaction of 10,000, a second", "rate"),
    "restart_s": ("restart", "time"), "live_s": ("live change", "time"), "live_max_s": ("slowest of ten", "time"),
    "apart_s": ("100 + 100 apart", "time"), "changed_s": ("64 KiB changed", "time"),
    "changed_bytes": ("moved for it", "bytes"), "kb_per_peer": ("KB a peer", "count"), "joined_s": ("all joined after", "time"),
    "one_random_per_s": ("one a transaction, random", "rate"), "ordered_1000_per_s": ("1,000, in order", "rate"),
    "ordered_10000_per_s": ("10,000, in order", "rate"), "random_10000_per_s": ("10,000, random", "rate"),
    "joining_cpu_s": ("processor, joining", "time"), "serving_cpu_s": ("processor, serving", "time"),
    "wire_bytes": ("on the wire", "bytes"), "messages_each": ("messages, a write", "count"),
    "restart_messages": ("messages for it", "count"), "live_messages": ("messages for it", "count"),
    "apart_messages": ("messages for it", "count"), "changed_messages": ("messages for it", "count"),
    "restart_bytes": ("carried for a restart", "bytes"), "live_bytes": ("carried for a change", "bytes"),
    "apart_wire_bytes": ("carried for 100 + 100", "bytes"),
    "bytes_each": ("bytes, a write", "bytes"), "apart_entries": ("entries moved", "count"), "apart_bytes": ("moved", "bytes"),
    "both_per_s": ("a second, both cores", "rate"), "sign_per_s": ("signed a second", "rate"), "dial_s": ("dial", "time"),
    "files": ("files", "count"), "folder_bytes": ("the folder", "bytes"),
    "instructions": ("instructions", "count"), "instructions_each": ("of each", "count"), "things": ("things", "count"),
    "random_10000_into_300k_per_s": ("10,000, random, into 300,000", "rate"),
}


def write_value(value, kind):
    if kind == "time":
        if value < 1e-6:
            return f"{value / 1e-9:.0f} ns"
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
        return f"{value:.0f} MB" if abs(value) >= 0.5 else "0 MB"
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
            if name == "wire_bytes" and not is_on_a_wire(result, series):
                values = []
            cells.append(spread(values, FIGURES[name][1]) if values else "")
        lines.append(cells)
    text = table(["", *(group.called.get(name, FIGURES[name][0]) for name in shown)], lines)
    for series, error in result["failed"].items():
        text += f"\n\n{series} failed: {shortened(error)}"
    return text


def is_on_a_wire(result, series):
    """Whether the device carried what was counted; else it is somebody else's noise."""
    counted = median_of(result, series, "bytes") or median_of(result, series, "bytes_each") or 0
    return (median_of(result, series, "wire_bytes") or 0) >= counted


def shortened(error):
    return re.sub(r"/[^ :]+/", "", error)[:200]


def measured_at(result):
    return f"{result['when'][:16].replace('T', ' ')} UTC, commit {result.get('commit', 'not noted')}"


def better(figure):
    """Whether more is better."""
    return FIGURES[figure][1] == "rate"


def getter(results, of=None, number=None):
    """What limits and goals ask: the median of a figure of a series of a group; of the group `of` that of one round."""
    def get(group, series, figure):
        if group == of:
            rounds = results[group]["figures"].get(series, [])
            value = rounds[number].get(figure) if number < len(rounds) else None
        else:
            value = median_of(results.get(group), series, figure)
        if value is None:
            raise KeyError(f"{group}, {series}, {figure}")
        return value
    return get


def tried(value, *arguments):
    """A value, or none where something that it is made of was not measured."""
    try:
        return value(*arguments)
    except (KeyError, TypeError, ZeroDivisionError):
        return None


def number(value, unit=""):
    if not unit:
        return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{text} {unit}"


def named(value, must, row):
    """A value as its goal is written."""
    if must.unit or must.derived or must.bound > 1 and not better(row.figure) and must.what:
        return number(value, must.unit)
    return write_value(value, FIGURES[row.figure][1])


def judged(row, results):
    """Of each goal and aim: whether the median reaches it, and in words what does not, single rounds too."""
    found, get = [], getter(results)
    result = results.get(row.group)
    for must in row.must:
        if must.derived:
            # Of what was measured in other groups, such as the limits, the median counts in every round.
            count = len(result["figures"].get(row.ours, [])) if result else 0
            rounds = [tried(must.derived, getter(results, row.group, number)) for number in range(count)]
        else:
            rounds = [tried(must.value, one) for one in (result["figures"].get(row.ours, []) if result else [])]
        rounds = [one for one in rounds if one is not None]
        # A ratio is that of the medians, as everywhere else.
        median = tried(must.derived, get) if must.derived else statistics.median(rounds) if rounds else None
        if median is None or not rounds:
            found.append((must, None, "not measured"))
            continue
        reaches = (lambda value: value <= must.bound) if must.most else (lambda value: value >= must.bound)
        what = ("aim " if must.aim else "") + (f"{must.what} " if must.what else "")
        sign = "<=" if must.most else ">="
        if not reaches(median):
            found.append((must, False, f"{what}{sign} {named(must.bound, must, row)}: **no, {named(median, must, row)}**"))
            continue
        worst = max(rounds) if must.most else min(rounds)
        missed = [one for one in rounds if not reaches(one)]
        if missed and not must.aim:
            found.append((must, True, f"{what}{sign} {named(must.bound, must, row)}: the median, but {len(missed)} of {len(rounds)} rounds "
                                      f"not, {named(worst, must, row)} at worst"))
        else:
            found.append((must, True, ""))
    return found


def reached_cell(row, results):
    if not row.must:
        return "no goal"
    found = judged(row, results)
    said = list(dict.fromkeys(text for _, _, text in found if text))
    whole = all(reached for must, reached, _ in found if not must.aim)
    return "<br>".join((["goal reached" if any(must.aim for must, _, _ in found) and said else "yes"] if whole else []) + said)


def cost(result, series, whose, moved, told):
    """Messages, bytes and memory of a series, as far as they were counted; `whose` memory, if not that of one process;
    `moved` and `told` are the figures of the bytes and of the messages, if they are the row's own."""
    parts = []
    for name in (told,) if told else ("messages", "messages_each"):
        value = median_of(result, series, name)
        if value is not None:
            parts.append(f"{number(value)} messages" + (" a write" if name.endswith("each") else ""))
    for name, after in ((moved, ""),) if moved else (("bytes", ""), ("bytes_each", " a write"), ("wire_bytes", " on the wire")):
        value = median_of(result, series, name)
        if value and (name != "wire_bytes" or is_on_a_wire(result, series)):
            parts.append(write_value(value, "bytes") + after)
    peaks = memory_of(result, series)
    if peaks:
        value = statistics.median(peaks)
        if values_of(result, series, "serving_peak_mb"):
            whose = "both sides"
        elif values_of(result, series, "joining_cpu_s"):
            whose = "joining alone"
        parts.append(f"{value:.0f} MB of memory" + (f" ({whose})" if whose else ""))
    return ", ".join(parts)


def cost_cell(row, group, result):
    shown = set(group.figures)
    only = {"figures": {series: [{name: value for name, value in one.items() if name in shown or name in ("peak_mb", "serving_peak_mb", "joining_cpu_s")} for one in rounds]
                        for series, rounds in result["figures"].items()}}
    whose = "both sides" if "both sides" in group.called.get("peak_mb", "") else ""
    lines = [("Syncline", cost(only, row.ours, whose, row.moved, row.told))]
    for peer in (*row.peers, *row.alone):
        label = peer if isinstance(peer, str) else peer[0]
        lines.append((re.sub(r", n = .*", "", label), cost(only, label, whose, row.moved, row.told)))
    return "<br>".join(f"{who}: {text}" for who, text in lines if text)


def row_cells(row, results, group):
    result, get = results.get(row.group), getter(results)
    kind = FIGURES[row.figure][1]
    work, goal = row.work, row.goal or "none in the issue"
    note = tried(row.note, get) if row.note else None
    work += f" ({note})" if note else ""
    values = values_of(result, row.ours, row.figure)
    if not values:
        error = (result or {"failed": {}})["failed"].get(row.ours)
        return [work, goal, f"failed: {shortened(error)}" if error else "not measured", "", "", "", ""]
    ours = spread(values, kind)
    for name, divisor, unit in row.also:
        also = median_of(result, row.ours, name)
        if also is not None:
            ours += f"; {number(also / divisor)} {unit}"
    mine, peers = statistics.median(values), []
    for peer in row.peers:
        peer, own = (peer, row.ours) if isinstance(peer, str) else peer
        theirs, ours_then = median_of(result, peer, row.figure), median_of(result, own, row.figure)
        name = re.sub(r", n = .*", "", peer)
        if theirs is None or ours_then is None:
            error = result["failed"].get(peer)
            peers.append(f"{name}: {shortened(error) if error else 'not measured'}")
            continue
        differs = f" ({row.differs[name]})" if name in row.differs else ""
        ratio = ours_then / theirs if better(row.figure) else theirs / ours_then
        beside = f" (Syncline with as many: {write_value(ours_then, kind)})" if own != row.ours else ""
        peers.append(f"{name}: {write_value(theirs, kind)}, **{ratio:.3g} x**{beside}{differs}")
    for peer in row.alone:
        theirs = median_of(result, peer, row.figure)
        if theirs is not None:
            name = re.sub(r", n = .*", "", peer)
            differs = f" ({row.differs[name]})" if name in row.differs else ""
            peers.append(f"{name}: {write_value(theirs, kind)}, **{theirs / mine:.3g} x**{differs}")
    limit = "not measured"
    value = tried(row.limit.value, get) if row.limit else None
    if value is not None:
        far = f"**{100 * mine / value:.0f} %** of it" if better(row.figure) else f"**{mine / value:.3g} x** it"
        if (mine > value) if better(row.figure) else (mine < value):
            far += ", so the floor is an estimate that is beaten"
        limit = f"{write_value(value, kind)}{' ' if better(row.figure) else ': '}{row.limit.text}; {far}"
    return [work, goal, reached_cell(row, results), ours, "<br>".join(peers) or (f"not asked: {row.unasked}" if row.unasked else "not asked"), cost_cell(row, group, result), limit]


def sections():
    """The sections of bounds.md by name: what bounds a row, or makes a peer faster."""
    found = {}
    for section in re.split(r"^### ", open(os.path.join(HERE, "bounds.md")).read(), flags=re.M)[1:]:
        name, text = section.split("\n", 1)
        found[name.strip()] = text.strip() if name == "ideas" else " ".join(text.split())
    return found


def misses(all_rows, results):
    """Every goal and aim that is missed, by the median or by single rounds, with what bounds it."""
    texts, said, lines = sections(), set(), []
    for row in all_rows:
        missed = list(dict.fromkeys(text for _, reached, text in judged(row, results) if text))
        if missed:
            why = texts.get(row.why, "No profile of it yet.")
            why = f"See above ({row.why})." if row.why in said else why
            said.add(row.why)
            lines.append(f"* **{row.work}** ({row.why}): {'; '.join(missed)}. {why}")
    return "\n".join(lines) or "None."


def faster_peers(all_rows, results):
    """Every row in which a peer needs less than Syncline, with the reason."""
    texts, lines = sections(), {}
    for row in all_rows:
        result = results.get(row.group)
        mine = median_of(result, row.ours, row.figure)
        for peer in (*row.peers, *row.alone):
            peer, own = (peer, row.ours) if isinstance(peer, str) else peer
            theirs, mine = median_of(result, peer, row.figure), median_of(result, own, row.figure)
            if theirs is None or mine is None:
                continue
            if (theirs > mine) if better(row.figure) else (theirs < mine):
                kind = FIGURES[row.figure][1]
                name = re.sub(r", n = .*", "", peer)
                lines.setdefault(f"faster: {name}", []).append(
                    f"{row.work} ({write_value(theirs, kind)} against {write_value(mine, kind)})")
    # What is in the tables of growth alone.
    for d in (10, 1_000, 10_000):
        mine, theirs = (median_of(results.get("differ"), f"{who}, n = {groups.N:,}, d = {d:,}", "seconds") for who in ("Syncline", "negentropy"))
        if mine and theirs and theirs < mine:
            each = f", {write_value(mine / (2 * d), 'time')} for each that differs" if d == 10_000 else ""
            lines.setdefault("faster: negentropy", []).append(
                f"{d:,} + {d:,} in {groups.N:,} ({write_value(theirs, 'time')} against {write_value(mine, 'time')}{each})")
    return "\n".join(f"* **{key.removeprefix('faster: ')}**: {'; '.join(where)}. {texts.get(key, 'No profile of it yet.')}"
                     for key, where in lines.items()) or "None."


@dataclass
class Growth:
    """A table of what grows, and where the curve says something its plot: `lines` maps a name to the values of every round
    by x, `bound` says what bounds it, `plotted` is the name of the plot and its lines."""
    title: str
    across: str
    up: str
    kind: str
    lines: dict
    bound: str
    plotted: tuple = ()


def memory_of(result, series):
    """Its peak memory by round, of both sides where they are two processes."""
    peaks, serving = values_of(result, series, "peak_mb"), values_of(result, series, "serving_peak_mb")
    return [peak + other for peak, other in zip(peaks, serving)] if serving else peaks


def grown(result, series, figure):
    if figure == "wire_bytes" and not is_on_a_wire(result, series):
        return []
    return memory_of(result, series) if figure == "peak_mb" else values_of(result, series, figure)


def curve(results, pattern, figure, groups_):
    """The values of series whose label matches, by the number in it."""
    points = {}
    for group in groups_:
        result = results.get(group) or {"figures": {}}
        for series in result["figures"]:
            found = re.fullmatch(pattern, series)
            values = grown(result, series, figure) if found else []
            if values:
                points.setdefault(float(found[1].replace(",", "")), values)
    return dict(sorted(points.items()))


def medians(points):
    return [(x, statistics.median(values)) for x, values in points.items()]


def times_as(points, of, kind, verb, most=float("inf"), least=0):
    """How the last point of a curve between `least` and `most` compares with the first, in words; `verb` as in `it takes {} as long`."""
    points = [(x, y) for x, y in medians(points) if least <= x <= most]
    if len(points) < 2:
        return "not measured"
    (few, first), (many, last) = points[0], points[-1]
    return f"with {many / few:,.0f} x as many {of} {verb.format(f'{last / first:.3g} x')} ({write_value(first, kind)}, {write_value(last, kind)})"


def times_as_long(points, of, **bounds):
    return times_as(points, of, "time", "it takes {} as long", **bounds)


def times_as_much(points, of, kind):
    return times_as(points, of, kind, "it is {} as much")


def bootstraps(results):
    """What a bootstrap costs by its entries."""
    def lines(figure):
        found = {"Syncline": curve(results, rf"Syncline, n = {NUMBER}", figure, ("bootstrap-small", "bootstrap-million")),
                 "iroh-docs": curve(results, rf"iroh-docs, n = {NUMBER}", figure, ("bootstrap-small",))}
        hundred = grown(results["bootstrap"], "iroh-docs, redb, ordered keys", figure) if "bootstrap" in results else []
        return found | {"iroh-docs": found["iroh-docs"] | ({groups.N: hundred} if hundred else {})}

    each = lambda points: next((f"{value / x:.3g}" for x, value in reversed(medians(points))), "?")
    times, sizes, wire, messages, memory = map(lines, ("seconds", "bytes", "wire_bytes", "messages", "peak_mb"))
    yield Growth("Bootstrap: time", "entries", "seconds", "time", times,
                 "Linear in n, with a constant at the left: Syncline is bound by redb's inserts (entry, log and index rows) and hashing at the joining side, "
                 "the constant by the join itself, which waits for three commits; iroh-docs by two signature checks and three rows an entry. "
                 "iroh-docs was not asked for 1,000,000: see its group.", ("bootstrap", times))
    yield Growth("Bootstrap: bytes of the protocol", "entries", "bytes", "bytes", sizes,
                 f"Linear: with most entries Syncline's are {each(sizes['Syncline'])} B each, of which 48 are the key and the value, and a thousand share a signature; iroh-docs' are "
                 f"{each(sizes['iroh-docs'])} B, of which 192 are two signatures and two public keys, and the value is a hash that would be fetched afterwards. What is constant, the join and the rights, is some 3 KB.",
                 ("bootstrap-bytes", sizes))
    yield Growth("Bootstrap: bytes on the wire", "entries", "bytes", "bytes", wire,
                 "The same with all headers, acknowledgements and handshakes. They are most with few entries, since what the transport says to begin (handshakes, and datagrams that find out how large "
                 "one may be) does not depend on n: " + shares(sizes["Syncline"], wire["Syncline"]) + ".")
    yield Growth("Bootstrap: messages", "entries", "messages", "count", messages,
                 "Syncline's grow with the bytes, since a frame of entries has 256 KiB at most and is sent when it is filled or what there is has been read; each is acknowledged, and a cut loses what is on the way. "
                 "iroh-docs answers in one message, whatever n, that must be in memory whole.")
    yield Growth("Bootstrap: peak memory", "entries", "MB", "mb", memory,
                 "Both sides together. Syncline's rises until its windows and redb's caches are full, which have a most each: " + times_as_much(memory["Syncline"], "entries", "mb")
                 + ". iroh-docs', in one process, has its one message whole: " + times_as_much(memory["iroh-docs"], "entries", "mb") + ".", ("bootstrap-memory", memory))


def shares(sizes, wire):
    """What the wire carries beside the protocol's bytes, with fewest and most of what there is."""
    both = [(x, statistics.median(wire[x]) / statistics.median(sizes[x])) for x in sizes if x in wire]
    if not both:
        return "not measured"
    return " and ".join(f"{share:.3g} x the protocol's bytes with {x:,.0f}" for x, share in dict.fromkeys((both[0], both[-1])))


def differences_by_n(results):
    """What a difference costs by the entries that both have."""
    def lines(figure, d):
        return {who: curve(results, rf"{who}, n = {NUMBER}, d = {d}", figure, ("differ", "differ-million", "differ-small")) for who in DIFFER}

    def of_all(figure):
        return {f"{who}, d = {d}": points for d in (0, 1, 100) for who, points in lines(figure, d).items()}

    for d, name in ((0, "equal"), (1, "one"), (100, "hundred")):
        times = lines("seconds", d)
        yield Growth(f"{d} + {d} differences: time" if d else "Equal replicas: time", "entries", "seconds", "time", times, {
            0: "Syncline compares two roots, so n does not matter: a round trip. iroh-docs and negentropy read every entry.",
            1: "Syncline sends coded symbols of all that it holds, which are kept up to date with every write: a constant number "
               "of round trips and two commits, whatever n; the others read every entry first.",
            100: "The same symbols, some more of them, and the entries, which go at random keys: " + times_as_long(
                times["Syncline"], "entries") + ". Rows at random keys cost redb more in a larger table (see `limits`).",
        }[d], (f"differ-{name}", times))
    hundred = {figure: lines(figure, 100) for figure in ("bytes", "wire_bytes", "messages", "peak_mb")}
    yield Growth("Few differences: bytes of the protocol", "entries", "bytes", "bytes", of_all("bytes"),
                 "Syncline's symbols are for what differs and know nothing of n, and how many are asked for is an estimate, which varies more than with n; so with d = 100 " + times_as_much(hundred["bytes"]["Syncline"], "entries", "bytes")
                 + ". iroh-docs and negentropy divide ranges until what differs is found, which takes more halves of more entries: " + "; ".join(
                     f"{who} {times_as_much(hundred['bytes'][who], 'entries', 'bytes')}" for who in ("iroh-docs", "negentropy")) + ". The plot is of d = 100.",
                 ("differ-bytes", hundred["bytes"]))
    yield Growth("Few differences: bytes on the wire", "entries", "bytes", "bytes", of_all("wire_bytes"),
                 "The same with headers and acknowledgements, which follow the messages and the datagrams that they fill, and not n. negentropy has no wire.")
    yield Growth("Few differences: messages", "entries", "messages", "count", of_all("messages"),
                 "Syncline's follow d alone: `Open` each way; what is sent and a mark each way; a question and an answer for each number of symbols that is asked for. The others divide ranges, so theirs are more with more entries.")
    yield Growth("Few differences: peak memory", "entries", "MB", "mb", of_all("peak_mb"),
                 "Both sides in one process, which is the same for all d of an n, and which has written the n entries and brought them over before. Syncline's has most of two caches of redb's, of 24 MiB each, and of each replica the symbols, 49,152 of 24 bytes at most; "
                 "so it grows much more slowly than n: " + times_as_much(hundred["peak_mb"]["Syncline"], "entries", "mb") + ". negentropy's is its ids, 32 bytes and more each. The plot is of d = 100.", ("differ-memory", hundred["peak_mb"]))


def differences_by_d(results):
    """What differences cost by their number, with N entries."""
    def lines(figure):
        return {who: curve(results, rf"{who}, n = {groups.N:,}, d = {NUMBER}", figure, ("differ",)) for who in (*DIFFER, "samod")}

    of = lambda d, what: median_of(results.get("differ"), f"Syncline, n = {groups.N:,}, d = {d:,}", what)
    times, sizes, wire, messages, memory = map(lines, ("seconds", "bytes", "wire_bytes", "messages", "peak_mb"))
    large = f"With d = 10,000 it is {of(10_000, 'messages'):.0f} messages and {of(10_000, 'round_trips'):.0f} round trips" if of(10_000, "messages") else ""
    title = f"Differences in {groups.N:,}"
    yield Growth(f"{title}: time", "differences a side", "seconds", "time", times,
                 "From some hundreds on the time is that of moving, verifying and inserting the "
                 "entries, which is linear in d; below that, of the round trips and commits. d = 0 has no place on this axis: it is in the table. "
                 f"{large}: entries go in frames, each of which is acknowledged when it is durable, and no more than a twentieth of all is on its way without the "
                 "receiver having said that it came, so that a cut costs little; that is round trips, each of a fraction of a millisecond here, and not what the time goes to.",
                 ("growth-time", times))
    yield Growth(f"{title}: bytes of the protocol", "differences a side", "bytes", "bytes", sizes,
                 "Each difference costs its entry, its proof and some one and a half coded symbols; negentropy moves ids only; samod sends Bloom filters of its whole history, some 10 bits a change each, one to four of them, before it knows what differs. d = 0 is in the table "
                 "alone. How many symbols are asked for is estimated from the first ones, so their number jumps about.", ("growth-bytes", sizes))
    yield Growth(f"{title}: bytes on the wire", "differences a side", "bytes", "bytes", wire,
                 "The same with headers and acknowledgements: " + shares(sizes["Syncline"], wire["Syncline"]) + ". With few differences headers are most of it, with many a small part. negentropy has no wire.")
    yield Growth(f"{title}: messages", "differences a side", "messages", "count", messages,
                 "Up to some thousand Syncline's are the opening, the marks, and two for each number of symbols that is asked for; with more differences it is the frames of entries, of which a "
                 "twentieth of all at most is on its way unacknowledged. iroh-docs' and negentropy's are as large as they get, so their number is that of the divisions, which n decides.", ("growth-messages", messages))
    yield Growth(f"{title}: peak memory", "differences a side", "MB", "mb", memory,
                 "Both sides in one process. What differs is little beside what the nodes keep for their n entries: up to d = 100 Syncline's is one process for all d, so it is one figure; 1,000 and 10,000 have pairs of their own, which grow by what they exchange, "
                 "and hold batches of it while they apply it. iroh-docs and samod are each one process for all, too; what samod's stopped repositories keep of earlier rounds is taken off.")


def hubs(results):
    """What one write costs a hub by its peers."""
    lines = lambda figure: {who: curve(results, rf"{who}, {NUMBER} peers", figure, ("hub",)) for who in ("Syncline", "quinn alone")}
    times, memory = lines("seconds"), lines("kb_per_peer")
    memory = {who: {x: [value * 1e3 for value in values] for x, values in points.items()} for who, points in memory.items()}
    yield Growth("One write on a hub: time", "peers", "seconds until all show it", "time", times,
                 "Two cores run the hub and all its peers, and each peer verifies, stores and acknowledges by itself; only the flush at the hub is one for all. From the least to ten: "
                 + times_as_long(times["Syncline"], "peers", most=10) + ". From ten on: " + times_as_long(times["Syncline"], "peers", least=10) + ".", ("hub", times))
    yield Growth("One write on a hub: bytes of the protocol", "peers", "bytes", "bytes", lines("bytes"),
                 "Linear: each peer gets the entry and acknowledges it.")
    wire = lines("wire_bytes")
    yield Growth("One write on a hub: bytes on the wire", "peers", "bytes", "bytes", wire,
                 "Linear, with headers and acknowledgements of each connection; the connections of all series of the group stay up, though, and what they say meanwhile to stay alive is counted, too: with few peers that is most of it.", ("hub-wire", wire))
    yield Growth("One write on a hub: messages", "peers", "messages", "count", lines("messages"),
                 "Two for each peer: the entry, and that it is durable there.")
    yield Growth("Memory of a hub: a peer's share", "peers", "bytes a peer", "bytes", memory,
                 "Falls with the peers to what one peer takes, because what is fixed (over a megabyte once somebody is connected: buffers, threads' stacks, the store's cache) is divided by "
                 "them. Most of a peer is quinn's connection.", ("hub-memory", memory))
    yield Growth("Memory of a hub: its peak", "peers", "MB", "mb", lines("peak_mb"),
                 "What the process has before anybody is connected, and each peer's share.")


# A number in a label, and who is asked for differences.
NUMBER = r"([\d,]+)"
DIFFER = ("Syncline", "iroh-docs", "negentropy")


def growth_section(growth, plots, beside):
    """Its heading, its plot, what bounds it, and its table: median (least to most)."""
    text = f"### {growth.title}\n\n"
    name, drawn = growth.plotted or ("", {})
    svg = plot(growth.title, growth.across, growth.up, {who: medians(points) for who, points in drawn.items()})
    if svg:
        path = os.path.join(plots, name + ".svg")
        with open(path, "w") as file:
            file.write(svg)
        text += f"![{growth.title}]({os.path.relpath(path, beside)})\n\n"
    lines = {who: points for who, points in growth.lines.items() if points}
    if not lines:
        return text + "Not measured.\n\n"
    all_x = sorted({x for points in lines.values() for x in points})
    cells = [[who, *(spread(points[x], growth.kind) if x in points else "not measured" for x in all_x)] for who, points in lines.items()]
    return text + f"{growth.bound}\n\n" + table([growth.across, *(f"{x:,.0f}" for x in all_x)], cells) + "\n\n"


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
cargo bench -p store-redb --bench hot_paths     # encode, decode, verify, sign, apply, index, coded symbols, summary, split, changes; `... hot_paths verify` one of them
bench/instructions                              # instructions of encode, decode, verify, apply, reconcile under callgrind: the same on a busy machine
bench/instructions --check                      # fails when one is over 5 % away from bench/instructions.txt; says so when there is no valgrind
```

{machine}; loopback; release builds. Every figure is a median with least and most in brackets (one number where they are the same), of five rounds after one that does not count, of
seven in {seven}; within a group all contestants take turns, a round each, so ratios are of one run while absolute times differ from machine to
machine and from day to day. A round of `live` is itself the median, or p99, of 1,000 writes, one of `limits` that of 500 flushes, 2,000 round trips or 50 dials, one of `folder-after` of ten changes.
Not so: the hot paths are what divan says of up to 100 samples of one run, and instructions and iroh-docs' messages and bytes are counted once; `all joined after` and `disk, an entry` are of one process, not of a round. In the first table only the row's own figure has its
spread; that of the others is in the group's table below. **n x** says how many times faster Syncline is: less than 1 means slower. Memory is the peak of a process in the round, or of both sides together where it says so. Bytes and messages are
those of both directions, frames whole, without the transport's own (in the rows of folders and files they are what the loopback device carried); what is called `on the wire` is what the loopback device carried in the round, in the groups of differences while the clock ran. Syncline is durable and verifies everything strictly in every row, but for
the hub's peers, whose stores are in memory; what differs at a peer is said in its cell, and more of it in the group's text below.
Peers: iroh-docs 0.101 (iroh 1.1, blobs 0.103, no relay, no lookup), negentropy 0.5, samod 0.16, p2panda-sync 0.7, {installed}.

"""


def write(results_file, quick):
    results = {}
    if os.path.exists(results_file):
        for line in open(results_file):
            line = json.loads(line)
            results[line["group"]] = line
    all_groups = groups.groups(quick)
    by_name = {group.name: group for group in all_groups}
    all_rows = groups.rows(quick)
    # How a group runs must not be built for a report.
    seven = " and".join(", ".join(f"`{group.name}`" for group in groups.groups(False) if group.rounds == 7).rsplit(",", 1))
    commits = {}
    for group in all_groups:
        if group.name in results:
            commits.setdefault(results[group.name]["commit"], []).append(f"`{group.name}`")
    runs = "; ".join(f"{commit}: {', '.join(of)}" for commit, of in commits.items())
    # Each run of a group that has peers of the machine notes which they were.
    noted = sorted({f"{program} {version}" for result in results.values() for program, version in result.get("versions", {}).items()})
    installed = f"{', '.join(noted) or 'rsync and syncthing'} as Debian has them"
    out = [INTRODUCTION.format(machine=machine(), seven=seven, installed=installed),
           f"Not all groups were measured at one commit, so a limit can be of another hour than its row ({runs}).\n\n" if len(commits) > 1 else "",
           "## The rows\n\n",
           "Where messages or bytes are not counted, the text of the row's group says why. The limit is what the machine would take for the part of the work that "
           "nobody can leave out, measured in the group `limits` or beside the row, and then how far from it we are.\n\n",
           table(["work", "goal", "reached", "Syncline", "peers", "messages, bytes, peak memory", "the machine's limit"],
                 [row_cells(row, results, by_name[row.group]) for row in all_rows]), "\n\n"]
    if not quick:
        out += ["## What misses its goal or its aim, and what bounds it\n\n", misses(all_rows, results), "\n\n",
                "## Where a peer is faster, and why\n\n", faster_peers(all_rows, results), "\n\n",
                "## What might make it faster\n\n", sections()["ideas"], "\n\n"]
    plots = os.path.join(HERE, "results" if quick else "plots")
    os.makedirs(plots, exist_ok=True)
    out.append("## Growth\n\n")
    beside = os.path.dirname(results_file) if quick else ROOT
    for grown_by in (bootstraps, differences_by_n, differences_by_d, hubs):
        out += [growth_section(growth, plots, beside) for growth in grown_by(results)]
    out.append("## Everything that was measured\n\n")
    for group in all_groups:
        if group.name in results:
            result = results[group.name]
            out.append(f"### {group.heading}\n\n`{group.name}`, {measured_at(result)}. {group.text}" + (f" {group.lacks}" if group.lacks else "")
                       + f"\n\n{group_table(group, result)}\n\n")
    to = os.path.join(HERE, "results", "quick.md") if quick else os.path.join(ROOT, "BENCHMARKS.md")
    with open(to, "w") as file:
        file.write("".join(out).rstrip() + "\n")
    print(f"wrote {os.path.relpath(to, ROOT)}")
