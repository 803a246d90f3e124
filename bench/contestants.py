"""Contestants: programs that do one round when asked (see peers/contest), or objects that do it here."""
import contextlib, json, os, subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
BUILT = os.path.join(HERE, "target", "release")


class Program:
    """A program of bench/; started at its first round, prepared once, one round a line."""

    def __init__(self, *arguments):
        self.arguments = [str(argument) for argument in arguments]
        self.process, self.error = None, None

    def start(self):
        name, *rest = self.arguments
        self.process = subprocess.Popen([os.path.join(BUILT, name), *rest], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.error = f"{' '.join(self.arguments)}: {self.process.stderr.read().strip()}"
            raise RuntimeError(self.error)
        return json.loads(line)

    def round(self, parameter):
        if self.error:
            # It has ended, for all its series.
            raise RuntimeError(self.error)
        if self.process is None:
            self.start()
        self.process.stdin.write(f"{'' if parameter is None else parameter}\n")
        self.process.stdin.flush()
        return self.answer()

    def stop(self):
        if self.process is not None:
            # A line that it never read is still to be written.
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
            self.process = None


class Series:
    """What one contestant does in a group: a label, who does it, the parameter of its rounds, and how many things
    a round is, by which the bytes on the wire are divided: None where a round is more than its clock, so that they are
    those that the contestant says, if it does."""

    def __init__(self, label, contestant, parameter=None, each=1):
        self.label, self.contestant, self.parameter, self.each = label, contestant, parameter, each


class Absent:
    """One that cannot take part, and why: the report says it."""

    def __init__(self, why):
        self.why = why

    def round(self, _):
        raise RuntimeError(self.why)

    def stop(self):
        pass


def loopback_bytes():
    """What the loopback device has carried: everything, with the headers and acknowledgements of the transports."""
    for line in open("/proc/net/dev"):
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[0])
    return 0


def run(series, rounds):
    """All series in turn, a round each, so that what the machine does to one it does to the others.
    A first round that nobody counts warms caches. Answers the figures of each by label."""
    figures = {one.label: [] for one in series}
    failed = {}
    try:
        for number in range(rounds + 1):
            for one in series:
                if one.label in failed:
                    continue
                # What the one before has written must not be written during the turn of the next.
                os.sync()
                try:
                    moved = loopback_bytes()
                    answer = one.contestant.round(one.parameter)
                    if one.each is not None:
                        answer.setdefault("wire_bytes", (loopback_bytes() - moved) / one.each)
                except Exception as error:
                    failed[one.label] = str(error)
                    print(f"    {one.label}: {error}", flush=True)
                    continue
                if number > 0:
                    figures[one.label].append(answer)
    finally:
        for contestant in {id(one.contestant): one.contestant for one in series}.values():
            contestant.stop()
    return figures, failed
