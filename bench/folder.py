#!/usr/bin/env python3
"""Measures the program on real folders, next to rsync and syncthing where they are installed.

    bench/folder.py first          first copy over each transport alone and over all at once
    bench/folder.py live           200 single changes on both sides, write to visible
    bench/folder.py apart          100 + 100 changes while one side is down; a restart with nothing changed
    bench/folder.py kill [ROUNDS]  kill -9 of either side at random moments, one file of 1 GiB among them

The folder is made of the sources of the crates that cargo has fetched. SYNCLINE names the program
(default: target/release/syncline), WORK a folder on a real disk for everything that is written.
"""
import hashlib, json, os, random, shutil, signal, subprocess, sys, tempfile, time
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
SYNCLINE = os.environ.get("SYNCLINE") or os.path.join(HERE, "..", "target", "release", "syncline")
WORK = tempfile.mkdtemp(prefix="syncline-bench-", dir=os.environ.get("WORK"))
LISTEN = {
    "quic": ["quic://127.0.0.1:0"],
    "http": ["http://127.0.0.1:0"],
    "iroh": ["iroh:"],
    "all": [],
}


def path(*parts):
    return os.path.join(WORK, *parts)


def real_folder(into, files=10_000, size=150_000_000):
    """Copies unpacked crate sources until there are enough files and bytes."""
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    source = os.path.join(home, "registry", "src")
    registry = sorted(os.listdir(source))[0]
    count = total = 0
    for crate in sorted(os.listdir(os.path.join(source, registry))):
        if count >= files and total >= size:
            break
        root = os.path.join(source, registry, crate)
        for base, _, names in os.walk(root):
            for name in names:
                from_path = os.path.join(base, name)
                if os.path.islink(from_path) or not os.path.isfile(from_path):
                    continue
                to = os.path.join(into, crate, os.path.relpath(from_path, root))
                os.makedirs(os.path.dirname(to), exist_ok=True)
                shutil.copyfile(from_path, to)
                count += 1
                total += os.path.getsize(to)
    return count, total


class Node:
    def __init__(self, name, folder, join=None, listen=(), extra=()):
        self.name, self.folder, self.join, self.listen, self.extra = name, folder, join, list(listen), list(extra)
        self.data, self.ready_file = path(name + ".data"), path(name + ".ready")
        self.peak = 0
        self.start()

    def start(self):
        if os.path.exists(self.ready_file):
            os.remove(self.ready_file)
        args = [SYNCLINE, "--data", self.data, "up", self.folder, "--ready-file", self.ready_file]
        if self.join:
            args += ["--join", self.join]
        for address in self.listen:
            args += ["--listen", address]
        self.log = open(path(self.name + ".log"), "a")
        self.process = subprocess.Popen(args + self.extra, stdout=self.log, stderr=self.log)
        until(lambda: os.path.exists(self.ready_file) or self.process.poll() is not None, 60, f"{self.name} is ready")
        if self.process.poll() is not None:
            sys.exit(open(self.log.name).read())
        self.ready = json.load(open(self.ready_file))

    def sample(self):
        try:
            for line in open(f"/proc/{self.process.pid}/status"):
                if line.startswith("VmHWM"):
                    self.peak = max(self.peak, int(line.split()[1]) / 1024)
        except OSError:
            pass

    def command(self, *args):
        done = subprocess.run([SYNCLINE, "--data", self.data, "--json", *args], capture_output=True, text=True)
        return json.loads(done.stdout) if done.stdout.strip() else {"error": done.stderr}

    def stop(self, how=signal.SIGTERM):
        self.sample()
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60)


def until(condition, timeout, what):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(0.01)


def equal(a, b):
    return subprocess.run(["diff", "-rq", "--no-dereference", "-x", ".syncline*", "-x", ".stfolder", a, b],
                          capture_output=True).returncode == 0


def count_files(folder):
    return sum(len(names) for base, _, names in os.walk(folder) if ".syncline" not in base)


def wait_equal(a, b, timeout=600):
    # Comparing costs as much as copying: count first.
    until(lambda: count_files(b) == count_files(a) and equal(a, b), timeout, "diff -r finds nothing")


def synced(node):
    replica = node.command("status")["replicas"][0]
    return replica["blobs_missing"] == 0 and any(peer["synced"] for peer in replica["peers"])


def pair(listen, fill=True):
    source = path("source")
    if fill and not os.path.exists(source):
        count, total = real_folder(source)
        print(f"folder: {count} files, {total / 1e6:.0f} MB")
    return source


def first():
    source = pair("all")
    total = sum(os.path.getsize(os.path.join(b, n)) for b, _, ns in os.walk(source) for n in ns)
    for name, listen in LISTEN.items():
        copy = path("copy-" + name)
        a = Node("a-" + name, source, listen=listen)
        started = time.monotonic()
        b = Node("b-" + name, copy, join=a.ready["ticket"], listen=listen)
        want = count_files(source)
        until(lambda: count_files(copy) >= want, 600, "as many files")
        until(lambda: synced(b), 600, "synced")
        took = time.monotonic() - started
        wait_equal(source, copy)
        for node in (a, b):
            node.stop()
        print(f"first copy over {name}: {took:.2f} s, {total / took / 1e6:.0f} MB/s, "
              f"peak memory {a.peak:.0f} and {b.peak:.0f} MB", flush=True)
    rsync(source, total)
    syncthing(source, total)


def rsync(source, total):
    if not shutil.which("rsync"):
        return print("skipped: rsync is not installed")
    config, port = path("rsyncd.conf"), 18873
    open(config, "w").write(f"use chroot = no\nport = {port}\n[source]\npath = {source}\nread only = yes\n")
    daemon = subprocess.Popen(["rsync", "--daemon", "--no-detach", "--config", config])
    time.sleep(0.5)
    for flags in ([], ["--fsync"]):
        copy = path("copy-rsync" + "".join(flags))
        started = time.monotonic()
        subprocess.run(["rsync", "-a", *flags, f"rsync://127.0.0.1:{port}/source/", copy], check=True)
        took = time.monotonic() - started
        print(f"first copy by rsync -a {' '.join(flags)}: {took:.2f} s, {total / took / 1e6:.0f} MB/s")
    daemon.terminate()


def syncthing(source, total):
    if not shutil.which("syncthing"):
        return print("skipped: syncthing is not installed")
    copy, homes = path("copy-syncthing"), [path("st-a"), path("st-b")]
    os.makedirs(copy)
    env = dict(os.environ, STNOUPGRADE="1", STNORESTART="1")
    for home in homes:
        subprocess.run(["syncthing", "generate", "--home", home], check=True, env=env,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ids = [subprocess.run(["syncthing", "--home", home, "--device-id"], capture_output=True, text=True, check=True,
                          env=env).stdout.strip() for home in homes]
    for n, (home, folder) in enumerate(zip(homes, (source, copy))):
        tree = xml.etree.ElementTree.parse(f"{home}/config.xml")
        root = tree.getroot()
        for tag in ("folder", "device"):
            for element in root.findall(tag):
                root.remove(element)
        for m, device in enumerate(ids):
            element = xml.etree.ElementTree.SubElement(root, "device", id=device, name=f"d{m}", compression="never")
            xml.etree.ElementTree.SubElement(element, "address").text = f"tcp://127.0.0.1:{22100 + m}"
        element = xml.etree.ElementTree.SubElement(
            root, "folder", id="bench", path=folder, type="sendreceive", rescanIntervalS="3600", fsWatcherEnabled="true")
        for device in ids:
            xml.etree.ElementTree.SubElement(element, "device", id=device)
        options = root.find("options")
        for name, value in {"globalAnnounceEnabled": "false", "localAnnounceEnabled": "false", "relaysEnabled": "false",
                            "natEnabled": "false", "startBrowser": "false", "urAccepted": "-1",
                            "crashReportingEnabled": "false"}.items():
            for old in options.findall(name):
                options.remove(old)
            xml.etree.ElementTree.SubElement(options, name).text = value
        for old in options.findall("listenAddress"):
            options.remove(old)
        xml.etree.ElementTree.SubElement(options, "listenAddress").text = f"tcp://127.0.0.1:{22100 + n}"
        root.find("gui").find("address").text = f"127.0.0.1:{22110 + n}"
        tree.write(f"{home}/config.xml")
    start = lambda home: subprocess.Popen(["syncthing", "serve", "--no-browser", "--home", home], env=env,
                                          stdout=open(f"{home}.log", "w"), stderr=subprocess.STDOUT)
    # The sender has scanned before the clock starts, as Syncline's has imported.
    a = start(homes[0])
    time.sleep(10)
    started = time.monotonic()
    b = start(homes[1])
    try:
        want = count_files(source)
        until(lambda: count_files(copy) >= want, 300, "as many files by syncthing")
        until(lambda: equal(source, copy), 120, "diff -r finds nothing")
        took = time.monotonic() - started
        print(f"first copy by syncthing: {took:.2f} s, {total / took / 1e6:.0f} MB/s")
    finally:
        for process in (a, b):
            process.terminate()
            process.wait(30)


def live():
    source, copy = path("left"), path("right")
    os.makedirs(source)
    for n in range(1000):
        open(f"{source}/file {n}", "w").write(f"file {n}")
    a = Node("a", source)
    b = Node("b", copy, join=a.ready["ticket"])
    until(lambda: count_files(copy) >= 1000 and synced(b), 60, "the first copy")
    times = []
    random.seed(1)
    for n in range(200):
        here, there = (source, copy) if n % 2 == 0 else (copy, source)
        kind = ("create", "edit", "rename", "delete")[n // 2 % 4]
        victim = f"file {random.randrange(1000)}"
        while not os.path.exists(f"{here}/{victim}"):
            victim = f"file {random.randrange(1000)}"
        started = time.monotonic()
        if kind == "create":
            open(f"{here}/new {n}", "w").write(f"new {n}")
            done = lambda: os.path.exists(f"{there}/new {n}")
        elif kind == "edit":
            text = f"edited {n}"
            open(f"{here}/{victim}", "w").write(text)
            done = lambda: open(f"{there}/{victim}").read() == text
        elif kind == "rename":
            os.rename(f"{here}/{victim}", f"{here}/moved {n}")
            done = lambda: os.path.exists(f"{there}/moved {n}") and not os.path.exists(f"{there}/{victim}")
        else:
            os.remove(f"{here}/{victim}")
            done = lambda: not os.path.exists(f"{there}/{victim}")
        end = started + 30
        while not done():
            assert time.monotonic() < end, f"change {n} ({kind} {victim}) does not arrive"
            time.sleep(0.0005)
        times.append(time.monotonic() - started)
        if times[-1] > 0.2:
            print(f"  slow: change {n}, {kind}: {times[-1] * 1000:.0f} ms")
    wait_equal(source, copy, 30)
    times.sort()
    print(f"200 single changes: all arrived; median {times[100] * 1000:.0f} ms, p99 {times[197] * 1000:.0f} ms, "
          f"longest {times[-1] * 1000:.0f} ms")
    a.stop(), b.stop()


def apart():
    source, copy = path("left"), path("right")
    count, _ = real_folder(source, files=2000, size=20_000_000)
    a = Node("a", source)
    b = Node("b", copy, join=a.ready["ticket"])
    wait_equal(source, copy)
    until(lambda: synced(b), 60, "synced")
    time.sleep(1)
    b.stop()
    names = [os.path.join(base, name) for base, _, ns in os.walk(source) for name in ns]
    random.seed(2)
    moved = 0
    for file in random.sample(names, 100):
        open(file, "a").write("\nchanged on the left")
        moved += os.path.getsize(file)
    a.stop()
    for n in range(100):
        open(f"{copy}/new on the right {n}", "w").write("x" * 1000)
        moved += 1000
    a.join = b.join = None
    a.start(), b.start()
    started = time.monotonic()
    wait_equal(source, copy, 120)
    until(lambda: synced(b), 60, "synced")
    traffic = b.command("status")["replicas"][0]["peers"][0]["traffic"]
    print(f"100 + 100 changes apart: equal after {time.monotonic() - started:.2f} s; entries sent {traffic['sent']}, "
          f"received {traffic['received']}; session bytes {traffic['bytes_sent'] + traffic['bytes_received']}; contents {moved} bytes")
    time.sleep(2)
    b.stop()
    started = time.monotonic()
    b.start()
    until(lambda: synced(b), 60, "synced")
    traffic = b.command("status")["replicas"][0]["peers"][0]["traffic"]
    print(f"restart with nothing changed: synced {time.monotonic() - started:.2f} s after start; {traffic}")
    a.stop(), b.stop()


def kill(rounds=30):
    source, copy = path("left"), path("right")
    real_folder(source, files=1000, size=10_000_000)
    with open(f"{source}/large.bin", "wb") as file:
        for n in range(1024):
            file.write(hashlib.shake_128(str(n).encode()).digest(1 << 20))
    a = Node("a", source)
    b = Node("b", copy, join=a.ready["ticket"])
    random.seed(3)
    for n in range(rounds):
        time.sleep(random.uniform(0.05, 1.5))
        victim = random.choice((a, b))
        here = random.choice((source, copy))
        if os.path.isdir(here):
            open(f"{here}/round {n}", "w").write(f"round {n}")
        victim.stop(signal.SIGKILL)
        victim.join = None if victim is a else a.ready["ticket"]
        victim.start()
        print(f"\rround {n + 1} of {rounds}", end="", flush=True)
    started = time.monotonic()
    until(lambda: os.path.exists(f"{copy}/large.bin"), 300, "the large file")
    wait_equal(source, copy, 120)
    left = [name for folder in (source, copy) for base, _, ns in os.walk(folder) for name in ns
            if "syncline" in os.path.relpath(os.path.join(base, name), folder)]
    print(f"\nkill -9: {rounds} rounds, equal {time.monotonic() - started:.1f} s after the last; temporary files left: {left}")
    a.stop(), b.stop()


if __name__ == "__main__":
    command, *rest = sys.argv[1:] or ["first"]
    try:
        {"first": first, "live": live, "apart": apart, "kill": kill}[command](*map(int, rest))
    except BaseException:
        subprocess.run(["pkill", "-9", "-f", WORK])
        print(f"everything is left in {WORK}", file=sys.stderr)
        raise
    shutil.rmtree(WORK, ignore_errors=True)
