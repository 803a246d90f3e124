"""The hot paths by themselves: times from `cargo bench`, and instructions from `bench/instructions`."""
import itertools, os, re, subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PATHS = ["cargo", "bench", "--quiet", "--locked", "-p", "store-redb", "--bench", "hot_paths"]

# The paths in `hot_paths.rs`: what their arguments are, and how many things are done at once, if that is more than one.
SHAPES = {"(256, 1)": "256 commits of 1", "(16, 16)": "16 commits of 16", "(1, 256)": "1 commit of 256"}
KNOWN = {
    "encode": "encode {}", "decode": "decode {}", "verify": "verify {}", "sign": "sign a commit of {}",
    "apply_in_order": "apply a commit of {} behind all keys", "apply_scattered": "apply a commit of {} at random keys",
    "index_insert": "index rows alone of {} entries", "symbols_insert": "an entry into {} coded symbols",
    "symbols_decode": "coded symbols of {} + {} differences decoded",
    "summary": "summary of a random range", "split": "split everything in {}", "changes": "read the last {} changes",
}


def command(arguments):
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()[-300:]}")
    return done.stdout


def seconds(text):
    number, unit = text.split()
    return float(number) * {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}[unit]


def times(output):
    """Per path and argument, from what divan prints: the least, the median and the most of its samples."""
    found, path = {}, None
    for line in output.splitlines():
        named = re.match(r"([│ ]*)[├╰]─ (\([^)]*\)|\S+)\s+(.*)", line)
        if not named:
            continue
        columns = [column.strip() for column in named[3].split("│")]
        if not named[1]:
            path = named[2]
        if columns[0]:
            argument = named[2] if named[1] else None
            least, most, median = (seconds(column) for column in columns[:3])
            found[path, argument] = (least, median, most)
    return found


class Paths:
    """All paths, measured once; the rounds after the first are the least, the median and the most of the samples."""

    def __init__(self):
        self.found, self.rounds = None, {}

    def round(self, path):
        if self.found is None:
            self.found = times(command(PATHS))
        number = next(self.rounds.setdefault(path, itertools.count()))
        return {"seconds": self.found[path][max(number - 1, 0)]}

    def stop(self):
        pass


class Instructions:
    """The instructions of a path under callgrind: the same in each round, so they are counted in the first."""

    def __init__(self):
        self.counted = None

    def round(self, path):
        if self.counted is None:
            # Name, all instructions, "instructions,", and those of each of a number of things.
            words = command([os.path.join(HERE, "instructions"), path]).split()
            self.counted = {"instructions": int(words[1]), "instructions_each": int(words[3]), "things": int(words[7])}
        return self.counted

    def stop(self):
        pass


def label(path, argument):
    shown = SHAPES.get(argument) or (f"{int(argument):,}" if argument else "")
    return KNOWN[path].format(shown, shown)


def paths():
    """Each path with each of its arguments."""
    shaped = [(path, shape) for path in ("encode", "decode", "verify") for shape in SHAPES]
    return [*shaped, *(("sign", count) for count in ("1", "16", "256")),
            *((path, count) for path in ("apply_in_order", "apply_scattered") for count in ("1", "16", "256", "10000")),
            *(("index_insert", count) for count in ("1", "16", "256", "10000")),
            *(("symbols_insert", count) for count in ("1024", "49152")),
            *(("symbols_decode", count) for count in ("1", "10", "100", "1000", "10000")),
            ("summary", None), *(("split", parts) for parts in ("16", "32")),
            *(("changes", count) for count in ("1", "64", "1000"))]


COUNTED = {
    "encode": "encode 64 entries", "decode": "decode 64 entries", "verify-single": "verify 64 commits of 1",
    "verify-sealed": "verify 1 commit of 256", "apply": "apply 64 commits of 1, in memory",
    "reconcile": "reconcile 128 differences by ranges, in memory",
    "reconcile-symbols": "reconcile 128 differences by coded symbols, in memory",
}
