#!/usr/bin/env python3
"""The program on real folders, rsync and syncthing beside it. As contestants of bench/run: first copies, and
what comes after. By hand, without peers:

    bench/folder.py live           200 single changes on both sides, write to visible
    bench/folder.py kill [ROUNDS]  kill -9 of either side at random moments, one file of 1 GiB among them
    bench/folder.py compare        one small round with every tool that is installed, checked; half a minute

The folder is made of the sources of the crates that cargo has fetched. SYNCLINE names the program
(default: bench/target/release/syncline), WORK a folder on a real disk for everything that is written.
"""
import atexit, hashlib, http.client, json, os, random, shutil, signal, socket, subprocess, sys, tempfile, threading, time
import xml.etree.ElementTree

from contestants import BUILT, loopback_bytes

HERE = os.path.dirname(os.path.abspath(__file__))
SYNCLINE = os.environ.get("SYNCLINE") or os.path.join(HERE, "target", "release", "syncline")
OWN = (".syncline", ".stfolder", ".stignore")
WORK = None
PROCESSES = []


@atexit.register
def end_all():
    """Whatever happens, nothing that was started here outlives it."""
    for process in PROCESSES:
        if process.poll() is None:
            process.kill()


def spawn(arguments, **options):
    PROCESSES.append(subprocess.Popen(arguments, **options))
    return PROCESSES[-1]


def path(*parts):
    global WORK
    WORK = WORK or tempfile.mkdtemp(prefix="syncline-bench-", dir=os.environ.get("WORK"))
    return os.path.join(WORK, *parts)


def clean():
    """Deletes everything: of many small files at the very end, because mass deletes slow ext4 for minutes."""
    global WORK
    if WORK:
        shutil.rmtree(WORK, ignore_errors=True)
    WORK = None


def real_folder(into, files, size):
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


def large_file(at, mebibytes):
    with open(at, "wb") as file:
        for n in range(mebibytes):
            file.write(hashlib.shake_128(str(n).encode()).digest(1 << 20))


def walk(folder):
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(OWN)]
        yield base, [name for name in names if not name.startswith(OWN)]


def count_files(folder):
    return sum(len(names) for _, names in walk(folder))


def last_change(folder):
    """When the newest file got its name or its bytes: wall clock, in seconds."""
    newest = 0
    for base, names in walk(folder):
        for name in names:
            newest = max(newest, os.lstat(os.path.join(base, name)).st_ctime)
    return newest


def sizes(folder):
    """The names in a folder, and how long each file is: what a look tells without reading."""
    found = {}
    for base, names in walk(folder):
        for name in names:
            at = os.path.join(base, name)
            try:
                found[os.path.relpath(at, folder)] = os.lstat(at).st_size
            except FileNotFoundError:
                pass
    return found


def equal(a, b):
    exclude = [flag for name in OWN for flag in ("-x", name + "*")]
    return subprocess.run(["diff", "-rq", "--no-dereference", *exclude, a, b], capture_output=True).returncode == 0


def reads(at, text):
    """Whether there is a file with this text: it may be there and gone again while it is replaced."""
    try:
        with open(at) as file:
            return file.read() == text
    except OSError:
        return False


def until(condition, timeout, what, pause=0.01):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout} s: {what}")
        time.sleep(pause)


def until_equal(a, b, timeout=600):
    """Looks seldom, because looking costs as much as copying."""
    until(lambda: count_files(a) == count_files(b) and equal(a, b), timeout, "diff -r finds nothing", 0.3)


def until_synced(tool, started, timeout=600):
    """Until both folders are equal and the program says that it is in sync: the time of the last file in place, or that
    from which the program has said so without a break, whichever is later. The word is cheap to ask for; while it
    holds, names and sizes are looked at, for a tenth of the time at most. Bytes are compared outside of the clock."""
    a, b = tool.source, tool.folder
    end, look_at, said = time.monotonic() + timeout, 0, None
    while True:
        if not tool.in_sync():
            said = None
        else:
            said = said or time.time()
            looked = time.monotonic()
            if looked >= look_at:
                if sizes(a) == sizes(b) and tool.in_sync():
                    break
                look_at = time.monotonic() + max(0.3, 10 * (time.monotonic() - looked))
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout} s: the folders are equal, and the program says so")
        time.sleep(0.05)
    until_equal(a, b, timeout)
    return max(said, last_change(a), last_change(b)) - started


def discard(*places):
    """Deletes what a round has left where a few large files would fill the disk."""
    for place in places:
        if os.path.isdir(place):
            shutil.rmtree(place)
        elif os.path.exists(place):
            os.remove(place)


def family(pid):
    """A process and those that it has started."""
    children = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            children += open(f"/proc/{pid}/task/{task}/children").read().split()
    except OSError:
        pass
    return [pid, *(one for child in children for one in family(int(child)))]


def peak_mb(*pids):
    total = 0
    for pid in pids:
        try:
            total += next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            pass
    return total * 1024 / 1e6


class Node:
    """A `syncline up` of a folder."""

    def __init__(self, name, folder, join=None, listen=()):
        self.name, self.folder, self.join, self.listen = name, folder, join, list(listen)
        self.data, self.ready_file = path(name + ".data"), path(name + ".ready")
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
        self.process = spawn(args, stdout=self.log, stderr=self.log)
        until(lambda: os.path.exists(self.ready_file) or self.process.poll() is not None, 60, f"{self.name} is ready")
        if self.process.poll() is not None:
            raise RuntimeError(open(self.log.name).read())
        self.ready = json.load(open(self.ready_file))

    def command(self, *args):
        done = subprocess.run([SYNCLINE, "--data", self.data, "--json", *args], capture_output=True, text=True)
        return json.loads(done.stdout) if done.stdout.strip() else {"error": done.stderr}

    def status(self):
        """`syncline status --json`, asked at the node's socket as that command asks: it is asked often, and a process
        for each time would take its share of the cores."""
        at = os.path.join(self.data, "socket")
        if len(os.fsencode(at)) > 107:
            return self.command("status")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(at)
            question = json.dumps({"status": {"replica": None}}).encode()
            connection.sendall(len(question).to_bytes(4, "big") + question)
            with connection.makefile("rb") as answer:
                return json.loads(answer.read(int.from_bytes(answer.read(4), "big")))["done"]

    def synced(self):
        replica = self.status()["replicas"][0]
        return replica["blobs_missing"] == 0 and any(peer["synced"] for peer in replica["peers"])

    def messages(self):
        """Of all its sessions since it started, both ways."""
        return sum(peer["traffic"]["messages"] for replica in self.status()["replicas"] for peer in replica["peers"])

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(60)


# What a node may take at its largest.
MEMORY_MB = 150

# What may move, entries and bytes, for a difference of 1.
MOST = 1.5

# One transport, one port.
TRANSPORTS = {"QUIC": "quic://127.0.0.1:0", "HTTP": "http://127.0.0.1:0", "iroh": "iroh:"}


class Syncline:
    """Two nodes with all their transports, or with one."""
    discards = False

    def __init__(self, source, transport=None):
        self.source, self.number, self.a, self.b = source, 0, None, None
        self.name = transport or "all"
        self.label = f"Syncline, {transport} alone" if transport else "Syncline"
        self.listen = [TRANSPORTS[transport]] if transport else []

    def copy(self):
        if self.a is None:
            self.a = Node(f"a-{self.name}", self.source, listen=self.listen)
        if self.b is not None:
            self.b.stop()
            if self.discards:
                discard(self.folder, self.b.data)
        self.number += 1
        self.folder = path(f"copy-syncline-{self.name}-{self.number}")
        started = time.time()
        self.b = Node(f"b-{self.name}-{self.number}", self.folder, join=self.a.ready["ticket"], listen=self.listen)
        return started

    def in_sync(self):
        """What the nodes say. They speak of entries and contents; that files are in the folder must be looked at."""
        return self.b.synced() and self.a.synced()

    def settle(self):
        until(self.in_sync, 60, "synced")

    def contents(self):
        """The bytes of contents that each node has received since it started."""
        return [node.command("status")["content_bytes"]["received"] if node.process.poll() is None else 0
                for node in (self.a, self.b)]

    def messages(self, before=0):
        """Those of all sessions since the side that copies was started, less those of before."""
        return self.b.messages() - before

    def away(self):
        self.b.stop()

    def back(self):
        self.b.join = None
        started = time.time()
        self.b.start()
        return started

    def restarted(self):
        until(self.b.synced, 60, "synced", 0.005)

    def told(self, name):
        """Its watcher sees it."""

    def peak(self):
        return max(peak_mb(self.a.process.pid), peak_mb(self.b.process.pid))

    def stop(self):
        for node in (self.a, self.b):
            if node is not None:
                node.stop()
        self.a = self.b = None


class Uncounted:
    """One that does not say how many messages it sends."""

    def messages(self, _=0):
        return None


class Socket(http.client.HTTPConnection):
    """HTTP over a socket of the file system, so that the loopback device does not count questions."""

    def __init__(self, at, timeout):
        super().__init__("localhost", timeout=timeout)
        self.at = at

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.at)


class Syncthing(Uncounted):
    """Two instances that know each other's address; nothing announced, nothing compressed, its watcher as quick as this version can be,
    and nothing that would slow it down: see the settings."""
    label = "syncthing"
    BASE = 22100
    # Without these it lowers its own priority; counts progress that nobody looks at, and walks the folder once more for it; tells the other
    # what it has of unfinished files; asks the file system for the true case of each name.
    OPTIONS = {"setLowPriority": "false", "progressUpdateIntervalS": "-1", "globalAnnounceEnabled": "false", "localAnnounceEnabled": "false",
               "relaysEnabled": "false", "natEnabled": "false", "startBrowser": "false", "urAccepted": "-1",
               "crashReportingEnabled": "false", "reconnectionIntervalS": "1"}
    FOLDER = {"scanProgressIntervalS": "-1", "disableTempIndexes": "true", "caseSensitiveFS": "true"}
    discards = False

    def __init__(self, source, receivers=8):
        self.source, self.number, self.receivers, self.processes = source, 0, receivers, {}
        self.env = dict(os.environ, STNOUPGRADE="1", STNORESTART="1")
        self.homes = [path(f"st-{os.path.basename(source)}-{n}") for n in range(receivers + 1)]
        self.folder = None

    def configure(self):
        ids = []
        for home in self.homes:
            subprocess.run(["syncthing", "generate", "--home", home], check=True, env=self.env, capture_output=True)
            done = subprocess.run(["syncthing", "--home", home, "--device-id"], capture_output=True, text=True,
                                  check=True, env=self.env)
            ids.append(done.stdout.strip())
        self.keys = []
        for n, home in enumerate(self.homes):
            folder = self.source if n == 0 else path(f"copy-st-{os.path.basename(self.source)}-{n}")
            os.makedirs(folder, exist_ok=True)
            tree = xml.etree.ElementTree.parse(f"{home}/config.xml")
            root = tree.getroot()
            for tag in ("folder", "device"):
                for element in root.findall(tag):
                    root.remove(element)
            known = list(enumerate(ids)) if n == 0 else [(0, ids[0]), (n, ids[n])]
            for m, device in known:
                element = xml.etree.ElementTree.SubElement(root, "device", id=device, name=f"d{m}", compression="never")
                xml.etree.ElementTree.SubElement(element, "address").text = f"tcp://127.0.0.1:{self.BASE + m}"
            element = xml.etree.ElementTree.SubElement(
                root, "folder", id="bench", path=folder, type="sendreceive", rescanIntervalS="3600",
                fsWatcherEnabled="true", fsWatcherDelayS="1")
            for _, device in known:
                xml.etree.ElementTree.SubElement(element, "device", id=device)
            for name, value in self.FOLDER.items():
                xml.etree.ElementTree.SubElement(element, name).text = value
            options = root.find("options")
            for name, value in self.OPTIONS.items():
                for old in options.findall(name):
                    options.remove(old)
                xml.etree.ElementTree.SubElement(options, name).text = value
            for old in options.findall("listenAddress"):
                options.remove(old)
            xml.etree.ElementTree.SubElement(options, "listenAddress").text = f"tcp://127.0.0.1:{self.BASE + n}"
            root.find("gui").find("address").text = f"{home}.socket"
            self.keys.append(root.find("gui").find("apikey").text)
            tree.write(f"{home}/config.xml")

    def start(self, n):
        self.processes[n] = spawn(
            ["syncthing", "serve", "--no-browser", "--home", self.homes[n]], env=self.env,
            stdout=open(f"{self.homes[n]}.log", "a"), stderr=subprocess.STDOUT)

    def end(self, n):
        process = self.processes.pop(n, None)
        if process is not None:
            process.terminate()
            process.wait(30)

    def ask(self, n, what, method="GET", timeout=5):
        connection = Socket(f"{self.homes[n]}.socket", timeout)
        try:
            connection.request(method, f"/rest/{what}", headers={"X-API-Key": self.keys[n]})
            return json.loads(connection.getresponse().read() or "{}")
        except (OSError, http.client.HTTPException):
            return {}
        finally:
            connection.close()

    def idle(self, n):
        status = self.ask(n, "db/status?folder=bench")
        return status.get("state") == "idle" and status.get("needTotalItems") == 0 and status.get("globalFiles", 0) > 0

    def copy(self):
        if not self.processes:
            self.configure()
            self.start(0)
            # The sender has scanned before the clock starts, as Syncline's has imported.
            until(lambda: self.idle(0), 120, "syncthing has scanned", 0.2)
        if self.number > 0:
            self.end(self.number)
            if self.discards:
                discard(os.path.join(self.folder, "large.bin"))
        self.number = self.number % self.receivers + 1
        self.folder = path(f"copy-st-{os.path.basename(self.source)}-{self.number}")
        started = time.time()
        self.start(self.number)
        return started

    def connected(self):
        connections = self.ask(self.number, "system/connections").get("connections", {})
        return any(connection["connected"] for connection in connections.values())

    def in_sync(self):
        return self.idle(self.number) and self.idle(0)

    def settle(self):
        until(self.in_sync, 60, "syncthing is idle", 0.1)

    def away(self):
        self.end(self.number)

    def back(self):
        started = time.time()
        self.start(self.number)
        return started

    def restarted(self):
        until(lambda: self.connected() and self.idle(self.number), 60, "connected and idle", 0.02)

    def told(self, name):
        """It is asked to look at this file, because its watcher would wait a second: it does when it has looked through
        the whole folder once."""
        self.ask(self.number, f"db/scan?folder=bench&sub={name}", "POST", 60)

    def peak(self):
        return max((peak_mb(*family(process.pid)) for process in self.processes.values()), default=0)

    def stop(self):
        for n in list(self.processes):
            self.end(n)


class Rsync(Uncounted):
    """A daemon on loopback. It copies one way, when it is called."""
    BASE = 18873
    discards = False

    def __init__(self, source, flags=()):
        self.source, self.flags, self.number, self.daemon, self.most = source, list(flags), 0, None, 0
        self.label = " ".join(["rsync", *self.flags])

    def start(self):
        name = f"{os.path.basename(self.source)}{''.join(self.flags)}"
        config = path(f"rsyncd-{name}.conf")
        self.port = Rsync.BASE
        Rsync.BASE += 1
        # As root it would read as nobody, who may not.
        who = f"uid = {os.getuid()}\ngid = {os.getgid()}\n" if os.geteuid() == 0 else ""
        with open(config, "w") as file:
            file.write(f"{who}use chroot = no\nport = {self.port}\naddress = 127.0.0.1\n[source]\npath = {self.source}\n"
                       "read only = yes\n")
        self.daemon = spawn(["rsync", "--daemon", "--no-detach", "--config", config])
        time.sleep(0.5)

    def call(self):
        exclude = [f"--exclude={name}*" for name in OWN]
        process = spawn(["rsync", "-a", *exclude, *self.flags, f"rsync://127.0.0.1:{self.port}/source/", self.folder])
        ended = threading.Event()
        watcher = threading.Thread(target=self.watch, args=(process.pid, ended))
        watcher.start()
        code = process.wait()
        ended.set()
        watcher.join()
        if code != 0:
            raise RuntimeError(f"rsync ended with {code}")

    def watch(self, pid, ended):
        """Keeps the peak memory of the largest process, the daemon's among them. They end with the copy, and what is said
        of a process that has ended (`ru_maxrss`) counts the memory of the one that started it."""
        while not ended.wait(0.01):
            self.most = max(self.most, *(peak_mb(one) for one in family(pid) + family(self.daemon.pid)))

    def copy(self):
        if self.daemon is None:
            self.start()
        if self.number > 0 and self.discards:
            discard(self.folder)
        self.number += 1
        self.folder = path(f"copy-rsync{''.join(self.flags)}-{os.path.basename(self.source)}-{self.number}")
        started = time.time()
        self.call()
        return started

    def in_sync(self):
        """It ends when it is."""
        return True

    def settle(self):
        pass

    def peak(self):
        """Since it was asked last."""
        peak, self.most = self.most, 0
        return peak

    def stop(self):
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait(10)
            self.daemon = None


class First:
    """Rounds of first copies of the whole folder."""

    def __init__(self, tool):
        self.tool = tool

    def round(self, _):
        # What the rounds before have written is not this one's to bring to the disk.
        os.sync()
        moved = loopback_bytes()
        started = self.tool.copy()
        if isinstance(self.tool, Rsync):
            seconds = time.time() - started
            if not equal(self.tool.source, self.tool.folder):
                raise RuntimeError("rsync has not copied everything")
        else:
            seconds = until_synced(self.tool, started)
            self.tool.settle()
        peak = self.tool.peak()
        if isinstance(self.tool, Syncline) and peak >= MEMORY_MB:
            raise RuntimeError(f"a node took {peak:.0f} MB")
        return {"seconds": seconds, "bytes": loopback_bytes() - moved, "messages": self.tool.messages(), "peak_mb": peak}

    def stop(self):
        self.tool.stop()


class After:
    """Rounds of what comes after the first copy: a restart with nothing changed, one small change live, a
    hundred changes on either side while one is down."""

    def __init__(self, tool):
        self.tool, self.ready, self.number = tool, False, 0

    def changes(self, folder, count, word):
        names = sorted(os.path.join(base, name) for base, files in walk(folder) for name in files
                       if name.endswith(".rs"))
        changed = random.Random(f"{word} {self.number}").sample(names, count)
        for file in changed:
            with open(file, "a") as opened:
                opened.write(f"\n// {word} {self.number}\n")
        return sum(os.path.getsize(file) for file in changed)

    def rsync(self):
        """A call for each: rsync ends when it has looked at everything, and its changes come from one side."""
        os.sync()
        moved, started = loopback_bytes(), time.time()
        probe, arrived = (os.path.join(folder, "probe") for folder in (self.tool.source, self.tool.folder))
        with open(probe, "w") as file:
            file.write(f"{self.number}")
        self.tool.call()
        restart, restart_bytes = time.time() - started, loopback_bytes() - moved
        if not reads(arrived, f"{self.number}"):
            raise RuntimeError("rsync has not copied the new file")
        discard(probe, arrived)
        self.changes(self.tool.source, 100, "left")
        os.sync()
        moved, started = loopback_bytes(), time.time()
        self.tool.call()
        apart, apart_bytes = time.time() - started, loopback_bytes() - moved
        if not equal(self.tool.source, self.tool.folder):
            raise RuntimeError("rsync has not copied everything")
        return {"restart_s": restart, "restart_bytes": restart_bytes, "apart_s": apart, "apart_wire_bytes": apart_bytes,
                "peak_mb": self.tool.peak()}

    def restart(self):
        """Until the side that was started is in sync and has looked through its whole folder. That it has looked it does
        not say: the clock ends when a new small file in it has arrived on the other side, as changes wait for that look."""
        self.tool.away()
        os.sync()
        moved, started = loopback_bytes(), self.tool.back()
        self.tool.restarted()
        probe, arrived = (os.path.join(folder, "probe") for folder in (self.tool.folder, self.tool.source))
        with open(probe, "w") as file:
            file.write(f"{self.number}")
        self.tool.told("probe")
        until(lambda: reads(arrived, f"{self.number}"), 60, "a change after a restart", 0.002)
        seconds, bytes_moved, messages = time.time() - started, loopback_bytes() - moved, self.tool.messages()
        # The next round begins as this one did.
        os.remove(probe)
        self.tool.told("probe")
        until(lambda: not os.path.exists(arrived), 60, "the deletion of it")
        self.tool.settle()
        return seconds, bytes_moved, messages

    def round(self, _):
        self.number += 1
        if not self.ready:
            self.ready = True
            started = self.tool.copy()
            if not isinstance(self.tool, Rsync):
                until_synced(self.tool, started)
                self.tool.settle()
        if isinstance(self.tool, Rsync):
            return self.rsync()
        restart, restart_bytes, restart_messages = self.restart()
        os.sync()
        live, moved, messages = [], loopback_bytes(), self.tool.messages()
        for n in range(10):
            here, there = (self.tool.source, self.tool.folder) if n % 2 == 0 else (self.tool.folder, self.tool.source)
            name, text = f"live {n}", f"{self.number} {n}"
            started = time.time()
            with open(os.path.join(here, name), "w") as file:
                file.write(text)
            there = os.path.join(there, name)
            until(lambda: reads(there, text), 30, "a live change", 0.0005)
            live.append(time.time() - started)
            time.sleep(0.05)
        self.tool.settle()
        live_bytes, live_messages = (loopback_bytes() - moved) / len(live), self.tool.messages(messages)
        position = self.position()
        self.tool.away()
        changed = [self.changes(self.tool.source, 100, "left"), self.changes(self.tool.folder, 100, "right")]
        # The side that is up has seen its changes before the other comes back.
        time.sleep(3)
        before = (self.tool.contents(), position) if isinstance(self.tool, Syncline) else None
        os.sync()
        moved = loopback_bytes()
        apart = until_synced(self.tool, self.tool.back())
        self.tool.settle()
        live.sort()
        figures = {"restart_s": restart, "restart_bytes": restart_bytes, "restart_messages": restart_messages,
                   "live_s": live[len(live) // 2], "live_max_s": live[-1], "live_bytes": live_bytes,
                   "live_messages": live_messages and live_messages / len(live), "apart_s": apart,
                   "apart_wire_bytes": loopback_bytes() - moved, "apart_messages": self.tool.messages(),
                   "peak_mb": self.tool.peak()}
        if before is not None:
            figures |= self.only_the_difference_moved(changed, before)
        return figures

    def position(self):
        """How many entries the receiver has taken in since it was made, its own among them."""
        if isinstance(self.tool, Syncline):
            return self.tool.b.command("status")["replicas"][0]["peers"][0]["position"]

    def only_the_difference_moved(self, changed, before):
        """By the counters of the node that was down, and began anew; contents that it sent, by those of the other.
        A file is an entry, and one more where another's version is replaced: what that made is the difference."""
        (contents_before, position), traffic = before, self.tool.b.command("status")["replicas"][0]["peers"][0]["traffic"]
        contents, written = self.tool.contents(), self.position() - position
        moved = {"received": (traffic["received"], traffic["bytes_received"] + contents[1], changed[0]),
                 "sent": (traffic["sent"], traffic["bytes_sent"] + contents[0] - contents_before[0], changed[1])}
        if sum(entries for entries, _, _ in moved.values()) > written * MOST:
            raise RuntimeError(f"{moved} for {written} new entries")
        for way, (entries, bytes_moved, bytes_changed) in moved.items():
            if entries < 100 or bytes_moved > bytes_changed * MOST:
                raise RuntimeError(f"{entries} entries and {bytes_moved} bytes {way} for 100 files of {bytes_changed} bytes")
        return {f"apart_{what}": sum(way[n] for way in moved.values()) for n, what in enumerate(("entries", "bytes"))}

    def stop(self):
        self.tool.stop()


class Large:
    """Rounds of one large file, first, and then 64 KiB of it changed."""

    def __init__(self, tool):
        self.tool, self.number = tool, 0
        tool.discards = True
        self.file = os.path.join(tool.source, "large.bin")

    def arrived(self, at, expected):
        try:
            with open(os.path.join(self.tool.folder, "large.bin"), "rb") as file:
                file.seek(at)
                return os.fstat(file.fileno()).st_size == os.path.getsize(self.file) and \
                    file.read(len(expected)) == expected
        except OSError:
            return False

    def same(self):
        return subprocess.run(["cmp", "-s", self.file, os.path.join(self.tool.folder, "large.bin")]).returncode == 0

    def round(self, _):
        self.number += 1
        with open(self.file, "rb") as file:
            head = file.read(16)
        os.sync()
        moved = loopback_bytes()
        started = self.tool.copy()
        until(lambda: self.arrived(0, head) and self.tool.in_sync(), 300, "the large file", 0.005)
        first, first_bytes = time.time() - started, loopback_bytes() - moved
        self.tool.settle()
        first_messages = self.tool.messages()
        if not self.same():
            raise RuntimeError("the copy is not the file")
        seed = random.Random(f"{self.tool.label} {self.number}")
        at, new = seed.randrange(os.path.getsize(self.file) - (64 << 10)), seed.randbytes(64 << 10)
        # rsync tells two versions of one length apart by whole seconds.
        until(lambda: int(time.time()) > int(os.path.getmtime(self.file)), 2, "another second")
        os.sync()
        moved = loopback_bytes()
        started = time.time()
        with open(self.file, "r+b") as file:
            file.seek(at)
            file.write(new)
        if isinstance(self.tool, Rsync):
            self.tool.call()
        until(lambda: self.arrived(at, new) and self.tool.in_sync(), 300, "the change", 0.005)
        changed, changed_bytes = time.time() - started, loopback_bytes() - moved
        self.tool.settle()
        changed_messages = self.tool.messages(first_messages)
        if not self.same():
            raise RuntimeError("the copy is not the changed file")
        return {"seconds": first, "bytes": first_bytes, "messages": first_messages, "changed_s": changed,
                "changed_bytes": changed_bytes, "changed_messages": changed_messages, "peak_mb": self.tool.peak()}

    def stop(self):
        self.tool.stop()


class Disk:
    """What the disk alone takes for what a row does: see src/disk.rs. No network, one thread."""
    label = "the disk alone"

    def __init__(self, source):
        self.source, self.number = source, 0

    def call(self, work, *arguments):
        done = subprocess.run([os.path.join(BUILT, "bench"), "disk", work, *map(str, arguments)], check=True,
                              capture_output=True, text=True)
        return float(done.stdout.split()[1])

    def fresh(self):
        self.number += 1
        return path(f"copy-{type(self).__name__}-{os.path.basename(self.source)}-{self.number}")

    def stop(self):
        pass


class DiskFirst(Disk):
    """The folder copied, and everything brought to the disk in one go."""

    def round(self, _):
        os.sync()
        names = [os.path.join(base, name) for base, names in walk(self.source) for name in names]
        return {"seconds": self.call("copy", self.source, self.fresh()), "files": len(names),
                "folder_bytes": sum(os.path.getsize(name) for name in names)}


class DiskAfter(Disk):
    """Every file of both folders looked at; one small file written, synced, named, its directory synced; every file of
    one folder looked at, and 200 copied and brought to the disk in one go."""

    def round(self, _):
        os.sync()
        small = self.fresh()
        os.makedirs(small)
        return {"restart_s": 2 * self.call("walk", self.source), "live_s": self.call("small", small),
                "apart_s": self.call("some", self.source, self.fresh(), 200)}


class DiskLarge(Disk):
    """The file copied and synced; all of it read and hashed, and 64 KiB of a copy written and synced."""

    def round(self, _):
        os.sync()
        to = self.fresh()
        seconds = self.call("copy", self.source, to)
        name = "large.bin"
        changed = self.call("again", os.path.join(self.source, name), os.path.join(to, name))
        discard(to)
        return {"seconds": seconds, "changed_s": changed}


# How rsync is called: as it is, durable, and for a large file that has changed a little: only what changed is written, or
# nothing is compared.
RSYNC, RSYNC_DURABLE = [], ["--fsync"]
RSYNC_IN_PLACE, RSYNC_WHOLE = ["--fsync", "--inplace", "--no-whole-file"], ["--fsync", "--whole-file"]


def tools(make_source, with_syncthing=True, alone=(), rsyncs=(RSYNC, RSYNC_DURABLE)):
    """Every tool with a source of its own, Syncline once more with each of the transports `alone`, and rsync with each
    of these flags; those that are not installed are left out."""
    made = [Syncline(make_source("syncline"))]
    made += [Syncline(make_source(f"syncline-{name}"), name) for name in alone]
    if shutil.which("rsync"):
        made += [Rsync(make_source("".join(["rsync", *flags])), flags) for flags in rsyncs]
    if with_syncthing and shutil.which("syncthing"):
        made.append(Syncthing(make_source("syncthing")))
    return made


def folders(files, size):
    def make(name):
        source = path(f"source-{name}")
        if not os.path.exists(source):
            real_folder(source, files, size)
        return source
    return make


def large_folders(mebibytes):
    def make(name):
        source = path(f"large-{name}")
        if not os.path.exists(source):
            os.makedirs(source)
            large_file(os.path.join(source, "large.bin"), mebibytes)
        return source
    return make


def live():
    source, copy = path("left"), path("right")
    os.makedirs(source)
    for n in range(1000):
        open(f"{source}/file {n}", "w").write(f"file {n}")
    a = Node("a", source)
    b = Node("b", copy, join=a.ready["ticket"])
    until(lambda: count_files(copy) >= 1000 and b.synced(), 60, "the first copy")
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
            done = lambda: reads(f"{there}/{victim}", text)
        elif kind == "rename":
            os.rename(f"{here}/{victim}", f"{here}/moved {n}")
            done = lambda: os.path.exists(f"{there}/moved {n}") and not os.path.exists(f"{there}/{victim}")
        else:
            os.remove(f"{here}/{victim}")
            done = lambda: not os.path.exists(f"{there}/{victim}")
        until(done, 30, f"change {n} ({kind} {victim}) arrives", 0.0005)
        times.append(time.monotonic() - started)
        if times[-1] > 0.2:
            print(f"  slow: change {n}, {kind}: {times[-1] * 1000:.0f} ms")
    until_equal(source, copy, 30)
    times.sort()
    print(f"200 single changes: all arrived; median {times[100] * 1000:.0f} ms, p99 {times[197] * 1000:.0f} ms, "
          f"longest {times[-1] * 1000:.0f} ms")
    a.stop(), b.stop()


def kill(rounds=30):
    source, copy = path("left"), path("right")
    real_folder(source, files=1000, size=10_000_000)
    large_file(f"{source}/large.bin", 1024)
    a = Node("a", source)
    b = Node("b", copy, join=a.ready["ticket"])
    random.seed(3)
    # What crossed the wire for contents, and what was found on the disk after a kill instead of being fetched again.
    moved = {"received": 0, "resumed": 0}

    def count():
        bytes_now = b.command("status").get("content_bytes", {})
        for what in moved:
            moved[what] += bytes_now.get(what, 0)

    for n in range(rounds):
        time.sleep(random.uniform(0.05, 1.5))
        victim = random.choice((a, b))
        if victim is b:
            count()
        here = random.choice((source, copy))
        if os.path.isdir(here):
            open(f"{here}/round {n}", "w").write(f"round {n}")
        victim.stop(signal.SIGKILL)
        victim.join = None if victim is a else a.ready["ticket"]
        victim.start()
        print(f"\rround {n + 1} of {rounds}", end="", flush=True)
    started = time.monotonic()
    until(lambda: os.path.exists(f"{copy}/large.bin"), 300, "the large file")
    until_equal(source, copy, 120)
    left = [name for folder in (source, copy) for base, _, ns in os.walk(folder) for name in ns
            if "syncline" in os.path.relpath(os.path.join(base, name), folder)]
    # Of a content that is whole nothing is left where it was put together.
    left += [os.path.join(base, name) for node in (a, b) for place in ("staging", "partial")
             for base, _, ns in os.walk(os.path.join(node.data, "store.content", place)) for name in ns]
    took = time.monotonic() - started
    count()
    size = sum(os.path.getsize(os.path.join(base, name)) for base, _, names in os.walk(source) for name in names)
    print(f"\nkill -9: {rounds} rounds, equal {took:.1f} s after the last; temporary files left: {left}; of {size / 1e6:.0f} MB "
          f"{moved['received'] / 1e6:.0f} MB moved as contents, {moved['resumed'] / 1e6:.0f} MB were there after kills")
    assert not left, "temporary files are left"
    large = os.path.getsize(f"{source}/large.bin")
    assert moved["received"] <= size * MOST, "downloads began anew after kills"
    assert moved["received"] + moved["resumed"] >= large * 0.99, "the large file came from nowhere"
    a.stop(), b.stop()


def compare():
    for series in (First, After):
        for tool in tools(folders(400, 2_000_000), alone=TRANSPORTS if series is First else ()):
            contestant = series(tool)
            try:
                figures = contestant.round(0)
            finally:
                contestant.stop()
            shown = ", ".join(f"{name} {figure:.3g}" for name, figure in figures.items() if figure is not None)
            print(f"{series.__name__}: {tool.label}: {shown}", flush=True)
        clean()


if __name__ == "__main__":
    command, *rest = sys.argv[1:] or ["live"]
    {"live": live, "kill": kill, "compare": compare}[command](*map(int, rest))
    clean()
