"""What is measured: groups of series that take turns, and the rows of BENCHMARKS.md that are read from them."""
from dataclasses import dataclass, field

import folder
import hot
from contestants import Absent, Program, Series

N, MILLION = 100_000, 1_000_000
IN_PLACE, WHOLE = (" ".join(["rsync", *flags]) for flags in (folder.RSYNC_IN_PLACE, folder.RSYNC_WHOLE))


@dataclass
class Group:
    """A name for `--only`, a heading, what the series do (built when it runs), and how many rounds count. `lacks` says
    why a count is missing, `called` what a figure is called here."""
    name: str
    heading: str
    series: object
    text: str
    rounds: int = 5
    figures: tuple = ("seconds",)
    lacks: str = ""
    called: dict = field(default_factory=dict)


@dataclass
class Must:
    """What a row must reach. `value` takes it from one round's figures, or, where it takes several, `derived` from the
    medians by `get`."""
    what: str
    bound: float
    most: bool = True
    value: object = None
    derived: object = None
    aim: bool = False
    unit: str = ""


@dataclass
class Limit:
    """What the machine allows: a sentence with the value, and how it is had from the medians by `get`."""
    text: str
    value: object


@dataclass
class Row:
    """A line of the first table: which figure of which series of which group, and what it must reach. A peer that did
    another amount of work is a pair: its label, and that of ours that did as much."""
    work: str
    group: str
    ours: str
    goal: str
    figure: str = "seconds"
    peers: tuple = ()
    moved: str = ""  # The figures of its bytes and of its messages, where the group has several.
    told: str = ""
    alone: tuple = ()  # Peers that do only a part of the work: ids, in memory.
    differs: dict = field(default_factory=dict)  # What differs at a peer, by its label without `, n = ...`.
    unasked: str = ""  # Why no peer was asked.
    limit: Limit = None
    also: tuple = ()
    must: tuple = ()
    why: str = ""  # The section of bounds.md that says what bounds it.
    note: object = None


def most(what, figure, bound, scale=1, aim=False, unit=""):
    return Must(what, bound, True, lambda one: one.get(figure) and one[figure] / scale, aim=aim, unit=unit)


def least(what, figure, bound, aim=False, unit=""):
    return Must(what, bound, False, lambda one: one.get(figure), aim=aim, unit=unit)


def derived(what, bound, value, at_most=True, aim=False, unit=""):
    return Must(what, bound, at_most, derived=value, aim=aim, unit=unit)


def bench(*arguments):
    return Program("bench", *arguments)


def docs(*arguments):
    return Program("peer-iroh-docs", *arguments)


def differences(label, program, *ds):
    """A series for each d. A round prepares what differs before its clock starts."""
    return [Series(f"{label}, d = {d:,}", program, d, each=None) for d in ds]


def differ(sizes):
    """`sizes` maps n to the numbers of differences. What Syncline exchanged stays in its pair, so many differences have a
    pair of their own; iroh-docs and negentropy begin each round with n."""
    made = []
    for n, ds in sizes.items():
        few, theirs, sets = bench("differ", n, "latest"), docs("redb", "differ", n), Program("peer-negentropy", "differ", n)
        for d in ds:
            made += differences(f"Syncline, n = {n:,}", few if d < 1_000 else bench("differ", n, "latest"), d)
            made += differences(f"negentropy, n = {n:,}", sets, d)
            # With a million a round of it takes most of a minute.
            if n <= N or d != 1:
                made += differences(f"iroh-docs, n = {n:,}", theirs, d)
    return made


def differ_beside(n):
    """Syncline with the dial, as iroh-docs has it in its rounds; samod; p2panda-sync with a fifth of the entries, and Syncline
    with as many."""
    fifth = n // 5
    return [*differences(f"Syncline, with the dial, n = {n:,}", bench("differ", n, "dial"), 0, 1, 100),
            *differences(f"samod, n = {n:,}", Program("peer-samod", "differ", n), 0, 1, 100),
            *differences(f"p2panda-sync, n = {fifth:,}", Program("peer-p2panda", "differ", fifth), 1, 100),
            *differences(f"Syncline, {fifth:,} entries", bench("differ", fifth, "latest"), 1, 100)]


def groups(quick):
    n, million = (2_000, 5_000) if quick else (N, MILLION)
    few = 1 if quick else 5
    mebibytes = 32 if quick else 1024
    files, size = (300, 2_000_000) if quick else (10_000, 150_000_000)

    def with_absent(made, labels):
        there = {one.label for one in made}
        return made + [Series(label, Absent("it is not installed")) for label in labels if label not in there]

    def folder_first():
        make = folder.folders(files, size)
        made = [Series(tool.label, folder.First(tool)) for tool in folder.tools(make, alone=folder.TRANSPORTS)]
        made.append(Series(folder.Disk.label, folder.DiskFirst(make("rsync"))))
        return with_absent(made, ("rsync", "rsync --fsync", "syncthing"))

    def folder_after():
        make = folder.folders(files, size)
        made = [Series(tool.label, folder.After(tool)) for tool in folder.tools(make)]
        made.append(Series(folder.Disk.label, folder.DiskAfter(make("rsync"))))
        return with_absent(made, ("rsync", "rsync --fsync", "syncthing"))

    def hot_paths():
        all_paths = hot.Paths()
        return [Series(hot.label(*path), all_paths, path) for path in hot.paths()]

    def large():
        make = folder.large_folders(mebibytes)
        rsyncs = (folder.RSYNC, folder.RSYNC_DURABLE, folder.RSYNC_IN_PLACE, folder.RSYNC_WHOLE)
        made = [Series(tool.label, folder.Large(tool)) for tool in folder.tools(make, rsyncs=rsyncs)]
        made.append(Series(folder.Disk.label, folder.DiskLarge(make("rsync"))))
        return with_absent(made, ("rsync", "rsync --fsync", IN_PLACE, WHOLE, "syncthing"))

    return [
        Group("limits", "What the machine can do", lambda: [
            Series("Ed25519, strict verification, one core", bench("verify")),
            Series("ChaCha20-Poly1305, sealed and opened, one core", bench("seal")),
            Series("BLAKE3 of 200 bytes, and of 64 MiB, one core", bench("hash")),
            Series("redb 4.4, rows of 200 bytes, two-phase commits", bench("redb")),
            Series("redb 4.4, the rows of entries", bench("entries")),
            Series("fdatasync after 4 KiB", bench("sync")),
            Series("quinn, 64 bytes there and back", bench("echo")),
        ], "The floors under the rows, by programs of a few lines. A side verifies every seal strictly; both sides share the cores. "
           "The rows of entries are those of a store with their sizes: one of the entry, one of the log, and of every sixteenth entry one of the index; "
           "so many entries a second. `dial` is a new connection and the first round trip on it.", few,
            ("per_s", "both_per_s", "sign_per_s", "mb_per_s", "seconds", "p99_s", "dial_s", "one_random_per_s", "ordered_1000_per_s",
             "ordered_10000_per_s", "random_10000_per_s", "random_10000_into_300k_per_s"),
            called={"per_s": "a second, one core", "both_per_s": "a second, both cores"}),
        Group("bootstrap", f"Bootstrap of {n:,} entries of 32 bytes", lambda: [
            Series("Syncline, commits of 1,000", bench("bootstrap", n, 1000, "ordered")),
            Series("Syncline, one entry a commit", bench("bootstrap", n, 1, "ordered")),
            Series("Syncline, commits of 1,000, random keys", bench("bootstrap", n, 1000, "random")),
            Series("iroh-docs, redb, ordered keys", docs("redb", "bootstrap", n, "ordered")),
            Series("iroh-docs, redb, random keys", docs("redb", "bootstrap", n, "random")),
        ], "A fresh node joins and gets everything. Syncline: both sides on redb, each transaction durable before it is "
           "acknowledged, every signature verified strictly, each side a process of its own, the join and the rights in "
           "the time, values in the entries. iroh-docs: both sides on redb in one process, acknowledged up to 500 ms before it is on disk; its "
           "entries hold hashes, values would be fetched afterwards; two signatures an entry. Keys are in order unless it says random. `extra, serving` is what the serving side's memory grew by at its peak, in this "
           "round or one before, since it opened the store, which another process had filled.",
            few, ("seconds", "bytes", "wire_bytes", "messages", "peak_mb", "serving_peak_mb", "extra_mb", "serving_extra_mb", "cpu_s", "joining_cpu_s",
                  "serving_cpu_s"), called={"cpu_s": "processor, both sides", "peak_mb": "peak memory, both sides (Syncline: joining)"}),
        Group("bootstrap-peers", "Bootstrap beside systems without durability", lambda: [
            Series("Syncline, commits of 1,000", bench("bootstrap", n, 1000, "ordered")),
            Series(f"Syncline, {n // 5:,} entries", bench("bootstrap", n // 5, 1000, "ordered")),
            Series("iroh-docs, in memory", docs("memory", "bootstrap", n, "ordered")),
            Series(f"samod, one document of {n:,} changes", Program("peer-samod", "bootstrap", n)),
            Series(f"p2panda-sync, a log of {n // 5:,} operations", Program("peer-p2panda", "bootstrap", n // 5)),
        ], "samod has no signatures and no encryption and keeps everything in memory; its history travels compressed. p2panda-sync's receiver neither checks "
           "signatures nor stores, nothing is encrypted or sent over a network; a fifth of the entries, and Syncline with as many beside it. `on the "
           "wire` is what the loopback device carried in the round, with all headers.",
            few, ("seconds", "bytes", "wire_bytes", "messages", "peak_mb", "serving_peak_mb", "cpu_s", "joining_cpu_s", "serving_cpu_s"),
            "p2panda's protocol hands values from one task to another: nothing is on a wire, and their bytes are those of headers and bodies, and of what CBOR has of the rest.",
            {"cpu_s": "processor, both sides", "peak_mb": "peak memory, both sides (Syncline: joining)"}),
        Group("bootstrap-million", f"Bootstrap of {million:,} entries", lambda: [
            Series(f"Syncline, n = {n:,}", bench("bootstrap", n, 1000, "ordered")),
            Series(f"Syncline, n = {million:,}", bench("bootstrap", million, 1000, "ordered")),
        ], "In commits of 1,000. `extra` is what a side's memory grows by at its peak; that of the serving side over all rounds until then, since it opened the store, "
           "which another process had filled. `serving, afterwards` is what is resident there when the round has ended. iroh-docs is not asked: it would send one message of a quarter of a "
           "GB and take some two minutes a round, and twice as long to be prepared.", few,
            ("seconds", "bytes", "wire_bytes", "messages", "peak_mb", "serving_peak_mb", "serving_after_mb", "extra_mb", "serving_extra_mb", "cpu_s",
             "joining_cpu_s", "serving_cpu_s"),
            called={"cpu_s": "processor, both sides", "peak_mb": "peak memory, joining"}),
        Group("bootstrap-small", "Bootstrap of few entries", lambda: [
            Series(f"{who}, n = {m:,}", program(m)) for m in (1_000, 10_000)
            for who, program in (("Syncline", lambda m: bench("bootstrap", m, 1000, "ordered")),
                                 ("iroh-docs", lambda m: docs("redb", "bootstrap", m, "ordered")))
        ], "For the curve. Keys in order.", few, ("seconds", "bytes", "wire_bytes", "messages", "peak_mb", "serving_peak_mb"),
            called={"peak_mb": "peak memory, both sides (Syncline: joining)"}),
        Group("differ", f"Differences in {n:,}, no position known", lambda: [
            *differ({n: (0, 1, 10, 100) if quick else (0, 1, 10, 100, 1000, 10_000)}), *differ_beside(n)],
            "d entries more on either side: on each they are one commit, at random keys, and the last that was written, so that the newest rows of the change "
            "log name them; the coded symbols are in memory. The group `differ-kinds` has the other cases. Syncline and iroh-docs: over QUIC on loopback, redb on both sides, all entries exchanged; "
            "Syncline durable, on a link that is up; iroh-docs dials. `with the dial`: Syncline, too, dials in its time, from an endpoint that is there, as iroh-docs' is; nodes and what they hold in memory stay. negentropy: two vectors in memory in one process, "
            "no network, ids only, no entries. A sync that does not count goes before each of Syncline's, as before iroh-docs'. samod: one document, a change for each entry; it dials, too, and knows nothing of the other from before; memory only, unsigned, not encrypted. "
            "p2panda-sync: two authors, who write what differs, so heights of two logs are compared; over channels in one process, the receiver neither checks signatures nor stores; a fifth of the entries, and Syncline with as many beside it. What Syncline exchanged stays, so its replica grows by 2 d a round, with d = 10,000 to 2.6 x n at the end (1,000 and "
            "10,000 have a pair of their own); iroh-docs has two copies of a prepared store each round, whose caches an uncounted sync of the equal replicas warms, and negentropy's vectors are made anew. `beside` is what the session moves beside the entries themselves; `on the wire` is what the loopback device carried from the start of the clock until 50 ms after its end, "
            "so that acknowledgements are in it, by who counts it so (links of the other series stay up, and what they say to stay alive, a hundred bytes or two, falls into some rounds); after a dial some 106 KB of Syncline's are datagrams of up to 6,400 bytes, nine each way, by which quinn finds out how large one may be. negentropy and p2panda-sync have no wire. Processor and memory are of "
            "both sides together, which are one process.",
            1 if quick else 7, ("seconds", "messages", "round_trips", "bytes", "beside_entries", "wire_bytes", "cpu_s", "peak_mb"),
            "iroh-docs' messages are counted once for each d, not by round; that and negentropy have no round trips of their own to count.",
            {"cpu_s": "processor, both sides", "peak_mb": "peak memory, both sides"}),
        Group("differ-kinds", f"Differences of other kinds in {n:,}, no position known", lambda: [
            one for name, word in (("the latest, one commit", "latest"), ("with the dial", "dial"), ("single commits", "single"),
                                   ("after a start", "cold"), ("old", "old"), ("old, the first", "old-first"))
            for one in differences(f"Syncline, {name}", bench("differ", n, word), 1, 10 if quick else 100)],
            "`the latest, one commit` and `with the dial` are as above, here for comparison. `single commits`: each of the d entries has a signature of its own. Memory: in the series with a start nodes end and begin within one process, which grows to some 380 MB over sixteen rounds and stays there (forty rounds by hand): what its allocator keeps. `after a start`: both nodes "
            "have just been started, so the first reconciliation makes the coded symbols by a scan of the replica on either side; the time counts the dial. `old`: some 4,200 to 4,600 entries "
            "that both have were written after those that differ (so by and by this replica grows by two thirds), so the newest rows of the change log do not name what the symbols tell; the nodes were restarted, symbols and the places of entries are in memory, the time counts the dial. Where nodes were started, the disk has written what came before (`sync`). "
            "`old, the first`: the places are not in memory: either node scans its replica once.",
            1 if quick else 7, ("seconds", "messages", "round_trips", "bytes", "beside_entries", "wire_bytes", "cpu_s", "peak_mb"),
            called={"cpu_s": "processor, both sides", "peak_mb": "peak memory, both sides"}),
        Group("differ-million", f"Differences in {million:,}, no position known", lambda: differ(
            {1_000: (0,), million: (0, 1, 100)}),
            "The same. iroh-docs' store is made once, before its first round.", 1 if quick else 7,
            ("seconds", "messages", "round_trips", "bytes", "beside_entries", "wire_bytes", "cpu_s", "peak_mb"),
            called={"cpu_s": "processor, both sides", "peak_mb": "peak memory, both sides"}),
        Group("differ-million-kinds", f"Differences of other kinds in {million:,}, no position known", lambda: [
            one for name, word in (("after a start", "cold"), ("old", "old"))
            for one in differences(f"Syncline, {name}", bench("differ", million, word), 10 if quick else 100)],
            f"As in {n:,}: what is read by a scan grows with n, what is in memory does not.", 1 if quick else 7,
            ("seconds", "messages", "round_trips", "bytes", "beside_entries", "wire_bytes", "cpu_s", "peak_mb"),
            called={"cpu_s": "processor, both sides", "peak_mb": "peak memory, both sides"}),
        Group("differ-small", "Differences in few entries", lambda: differ(
            {1_000: (0, 1, 100), 10_000: (0, 1, 100)}), "For the curves.", 1 if quick else 7,
            ("seconds", "messages", "bytes", "beside_entries", "wire_bytes", "peak_mb"), called={"peak_mb": "peak memory, both sides"}),
        Group("known", f"100 + 100 in {n:,}, positions known", lambda: [
            Series("Syncline", bench("known", n), 100, each=None)],
            "The time counts the dial, the handshake of the transport and Syncline's own. Six messages: `Open` each way, which says the positions; what follows them each way; "
            "a mark each way, which acknowledges that it is durable. A round trip is counted when something arrives after something was sent: the opening is one, entries against "
            "entries the next, and when the marks do not cross there is a third. So beside the opening it is one round trip and its acknowledgement. "
            "No peer is asked: iroh-docs compares ranges each time, samod keeps its documents in memory and what it has told a peer with the connection, and "
            "p2panda-sync compares the heights of logs, which its bootstrap above does.", 1 if quick else 7,
            ("seconds", "messages", "round_trips", "bytes", "entry_bytes", "wire_bytes", "cpu_s", "peak_mb"),
            called={"cpu_s": "processor, both sides", "peak_mb": "peak memory, both sides"}),
        Group("live", "A write, until the other node shows it", lambda: [
            Series("Syncline", bench("live", 50 if quick else 1000), each=50 if quick else 1000),
            Series("iroh-docs, redb", docs("redb", "live", 50 if quick else 1000), each=50 if quick else 1000),
            Series("iroh-docs, in memory", docs("memory", "live", 50 if quick else 1000), each=50 if quick else 1000),
            Series("samod", Program("peer-samod", "live", 50 if quick else 500), each=50 if quick else 500),
        ], "One after the other. Syncline: durable at the writer before it is sent, and at the reader before it is shown. "
           "iroh-docs gossips before the write is on disk; samod is in memory. A round is 1,000 writes (samod: 500); its time is the median of them, and the figure "
           "the median of five rounds; so is p99. `on the wire` is what the loopback device carried for each, with headers and the transport's acknowledgements.",
            few, ("seconds", "p99_s", "messages_each", "bytes_each", "wire_bytes", "cpu_s", "peak_mb"),
            "iroh-docs' messages are those that its gossip brought to either side, and are not said of a round in which it has synced besides; samod's are counted on its connection. "
            "p2panda-sync has no live link of its own: that is its network's, which needs discovery and is another library.",
            {"cpu_s": "processor, both sides", "peak_mb": "peak memory, both sides"}),
        Group("burst", "A burst of single writes", lambda: [
            Series("Syncline, 16 writers", bench("burst", 500 if quick else 5000, 16), each=500 if quick else 5000),
            Series("iroh-docs, redb, 16 writers", docs("redb", "burst", 500 if quick else 5000), each=500 if quick else 5000),
            Series("samod, 500 changes", Program("peer-samod", "burst", 50 if quick else 500), each=50 if quick else 500),
        ], "5,000 writes of one entry each, until the other node shows them all. What differs is as above; "
           "`lost` counts what iroh-docs' gossip did not deliver; samod gets 500, as it slows down with each.",
            few, ("per_s", "lost", "messages_each", "bytes_each", "wire_bytes", "cpu_s", "peak_mb"),
            "As above.", {"cpu_s": "processor, both sides", "peak_mb": "peak memory, both sides"}),
        Group("write", f"Local writes into {n:,} entries", lambda: [
            Series("Syncline", bench("write", n)),
            Series("Syncline, a quiet store", bench("write-quiet", n)),
            Series("iroh-docs, redb", docs("redb", "write", 1000 if quick else 5000)),
        ], "Syncline: each write is on disk when the call returns. iroh-docs: up to 500 ms later; into an empty replica; it has no transactions. The transaction comes right after the "
           "single writes, while rows of them still wait in the journal for their place; on `a quiet store` nothing but such transactions is ever written, and the disk has written what came before (`sync`). samod "
           "and p2panda-sync are not asked: the first keeps a document in memory, the second leaves the store to who uses it.",
            few, ("one_per_s", "sixteen_per_s", "transaction_per_s", "messages", "cpu_s", "peak_mb"),
            "Nobody is linked: no message passes, which Syncline's own count says; iroh-docs has nobody to send any to either.",
            {"cpu_s": "processor, all of them"}),
        *[Group(f"blob-{kind}", f"A content of {mebibytes:,} MiB over {name}", lambda kind=kind, raw=raw: [
            Series("Syncline", bench("blob", mebibytes, kind)),
            *([Series("raw stream, the same settings", bench("stream", mebibytes, "quic-ours"))] if kind == "quic" else []),
            Series("raw stream", bench("stream", mebibytes, raw)),
        ], text, few, ("mb_per_s", "bytes", "wire_bytes", "peak_mb", "cpu_s"),
            "A content goes on streams of its own, in frames that are not messages of a session: a node counts their bytes, with the proofs, and not them. By the protocol a request is for "
            f"256 groups at most, which are 4 MiB, so these are {mebibytes // 4} requests at least, and an answer's frames have 96 KiB at most (PROTOCOL.md, section 14). The device's bytes are with all headers.",
            {"cpu_s": "processor, both sides", "peak_mb": "peak memory, both sides"}) for kind, raw, name, text in (
            ("quic", "quic", "QUIC", "Until every group is proved and the file is durable; the raw streams (quinn) end in memory. One has what transport-quic sets: datagrams "
             "of up to 6,400 bytes, which the path MTU discovery finds on loopback, its windows and sockets' buffers; the other quinn's defaults, 1,452 bytes at most."),
            ("iroh", "iroh", "iroh", "The raw stream is iroh's own, without relay or lookup."),
            ("http", "websocket", "HTTP", "WebSocket, Noise, yamux; the raw stream is a bare WebSocket, neither encrypted nor "
                                          "multiplexed."))],
        Group("large", f"One file of {mebibytes:,} MiB, first, and 64 KiB of it changed", large,
              f"The change is noticed by the watcher (syncthing's waits a second at least, newer versions 10 ms; rsync is called). `the disk alone` copies and syncs the file on one "
              "thread; changed, it reads and hashes all of it, as whoever must find the change, and writes and syncs 64 KiB. `rsync` alone leaves the bringing to the disk to the kernel; `--inplace --no-whole-file` "
              "writes into the file itself what changed, which others see half done, and a crash leaves so; `--whole-file` compares nothing and sends all of it again. `bytes` is what the loopback device carried. The time is until the file is there and the program says that it is in sync. "
              "Memory is that of the larger process; rsync's are looked at every 10 ms. {SYNCTHING}", few,
              ("seconds", "bytes", "messages", "changed_s", "changed_bytes", "changed_messages", "peak_mb"), NO_MESSAGES),
        Group("folder-first", f"A folder of {files:,} real files, first copy", folder_first,
              "Sources of crates. Syncline with all its transports at once and with each alone, sender imported; every file durable. rsync: daemon on loopback. "
              "syncthing: sender scanned, settings as above. Each round begins when the disk has written what the rounds "
              "before left (`sync`). The time is that of the last file in place, or of the program's own word that it is in sync, whichever is later. `bytes` is what the loopback device carried. `the disk alone`: one thread copies all files and one `syncfs` "
              "brings them to the disk. Memory is that of the larger process; rsync's are looked at every 10 ms.", few,
              ("seconds", "bytes", "messages", "peak_mb", "files", "folder_bytes"), "Messages are as above."),
        Group("folder-after", "The same folder afterwards", folder_after,
              "A restart of one side, until it says it is in sync and one new small file in it has arrived on the other: changes wait for the look through the whole "
              "folder (syncthing is told of the file, so its watcher is not counted; rsync copies one). One small change live, the median "
              "of ten a round, either way (syncthing's watcher waits a second at least, in newer versions than Debian's 10 ms). 100 + 100 changes while one side is down, from its start until "
              "the folders are equal and the program says so (rsync: 100 changes on one side). `moved` is what sessions and contents moved for them. `the disk alone`: every file of two folders looked at; one "
              "small file written, synced, renamed, and its directory synced; every file looked at and 200 copied, with one `syncfs`. "
              "What the loopback device carried is said of all.", few,
              ("restart_s", "restart_bytes", "restart_messages", "live_s", "live_max_s", "live_bytes", "live_messages", "apart_s", "apart_entries", "apart_bytes",
               "apart_wire_bytes", "apart_messages", "peak_mb"), "Messages are as above."),
        Group("idle", f"A node that holds {million:,} entries", lambda: [
            Series("Syncline", bench("idle", million)), Series(RECONCILED, bench("reconciled", million, 100)),
            Series("Syncline, an empty replica", bench("idle", 0)),
            Series("a process that does nothing", bench("nothing"))],
            "A fresh process that has opened its store and listens, and has synced with nobody yet; a second later. `after 100 + 100 reconciled`: a fresh process that has opened its store, written 100 entries and, with no position known, "
            "reconciled them once with 100 of another process; a second later, the link is up. It keeps its coded symbols besides, and what redb's cache may have: see `serving, afterwards` above, too. `time` is until the store is open.", few,
            ("resident_mb", "peak_mb", "seconds", "messages", "bytes", "disk_bytes_per_entry"), "Messages and bytes are those of the reconciliation; the others are linked to nobody: there are none."),
        Group("hub", "One write on a hub, until all its peers show it", lambda: [
            Series(f"{who}, {peers:,} peers", bench(work, peers)) for peers in
            ((1, 10) if quick else (1, 10, 100, 1000)) for who, work in (("Syncline", "hub"), ("quinn alone", "fan"))],
            "QUIC, a connection a peer. Everybody may read the replica, and its entries are in all stores from the beginning: a grant for each peer, as tickets make them, would be a thousand entries more on each side. The hub on redb; the peers in one other process with stores in memory, so "
            "that they and the hub share two cores. `KB a peer` is what the hub's resident memory grew by; what is fixed, some 1.2 MB, is in it too, and so "
            "much with few peers. Processor and memory are the hub's alone. Messages and bytes are those of all sessions, until all have acknowledged. `quinn alone` has as "
            "many connections with 256 bytes sent on each and a byte answered: no decoding, no signature, no store. `on the wire` counts, too, what the connections of the other series say meanwhile to stay alive "
            "(some 2,000, each every few seconds): with few peers that is most of it.", few,
            ("seconds", "kb_per_peer", "joined_s", "messages", "bytes", "wire_bytes", "cpu_s", "peak_mb"),
            called={"cpu_s": "processor, hub", "peak_mb": "peak memory, hub"}),
        Group("hot-paths", "The hot paths, each by itself", hot_paths,
              "`cargo bench -p store-redb --bench hot_paths`: the median of up to 100 samples, with least and most. Stores hold 100,000 entries on redb; "
              "applying is durable and without the signature, reading without the way over a thread. `read the last 1 changes` proves an entry of a commit of 10,000: the hashes of all of "
              "them are read for it, whether one is sent or many. Coded symbols are compared 2 for each that differs.", 3),
        Group("instructions", "Instructions of the hot paths", lambda: [
            Series(name, hot.Instructions(), path) for path, name in hot.COUNTED.items()],
            "`bench/instructions`, counted once by callgrind: the same on a busy machine. `bench/instructions --check` compares them with `bench/instructions.txt` "
            "and fails when one is over 5 % away.", 1,
            ("instructions", "instructions_each", "things")),
    ]


# Of the groups of folders.
SYNCTHING = ("syncthing's settings: nothing announced, no relay, no compression, `setLowPriority` false, `progressUpdateIntervalS` and `scanProgressIntervalS` -1, "
             "`disableTempIndexes` and `caseSensitiveFS` true, `fsWatcherDelayS` 1 (the least); the rest as it comes, so that it, too, syncs files to the disk.")
NO_MESSAGES = ("Messages are those of Syncline's sessions, by the counter of the side that copies; the frames in which contents go are not among them (see the contents above). "
               "rsync and syncthing do not say how many they send.")

# A series of the group `idle`.
RECONCILED = "Syncline, after 100 + 100 reconciled"

# Series of the group `limits`.
VERIFY, SEAL = "Ed25519, strict verification, one core", "ChaCha20-Poly1305, sealed and opened, one core"
HASH, REDB, ENTRIES = ("BLAKE3 of 200 bytes, and of 64 MiB, one core", "redb 4.4, rows of 200 bytes, two-phase commits",
                       "redb 4.4, the rows of entries")
SYNC, ECHO, ALONE = "fdatasync after 4 KiB", "quinn, 64 bytes there and back", folder.Disk.label


def rows(quick):
    n, million = (2_000, 5_000) if quick else (N, MILLION)
    mebibytes = 32 if quick else 1024
    ours = lambda n, d: f"Syncline, n = {n:,}, d = {d:,}"
    docs = lambda n, d: f"iroh-docs, n = {n:,}, d = {d:,}"
    sets = lambda n, d: f"negentropy, n = {n:,}, d = {d:,}"
    hub = f"{'1,000' if not quick else '10'} peers"
    many = 10 if quick else 100
    # The rows of so many entries in redb; signatures checked on both cores; a flush; a round trip.
    rows_of = lambda count, figure: lambda get: count / get("limits", ENTRIES, figure)
    checked = lambda get: get("limits", VERIFY, "both_per_s")
    flush = lambda get: get("limits", SYNC, "seconds")
    trip = lambda get: get("limits", ECHO, "seconds")
    # Both cores sign and check each write once.
    signed = lambda get: 1 / (1 / (2 * get("limits", VERIFY, "sign_per_s")) + 1 / checked(get))
    alone = lambda group, figure: lambda get: get(group, ALONE, figure)
    ratio = lambda group, figure, a, b: lambda get: get(group, a, figure) / get(group, b, figure)
    trips = Limit("a round trip of 64 bytes over quinn", trip)
    differs = lambda d, figure: Limit(
        f"two round trips, a flush{' and ' + str(d) + ' entries in redb' if d > 1 else ''}",
        lambda get: 2 * trip(get) + flush(get) + (d / get("limits", ENTRIES, figure) if d > 1 else 0))
    in_order = Limit("to insert the rows of as many entries into redb, in order, on one core",
                     rows_of(n, "ordered_10000_per_s"))
    dialled = Limit("a dial, two round trips and a flush",
                    lambda get: get("limits", ECHO, "dial_s") + 2 * trip(get) + flush(get))
    joins = {f"iroh-docs, redb, {keys} keys": "not durable, hashes without their values, two signatures an entry" for keys in ("ordered", "random")}
    hashes = "hashes only: no network, no signatures, no entries moved"
    equal = {"iroh-docs": "dial counted", "negentropy": hashes}
    apart = {"iroh-docs": "dial counted, not durable, hashes without their values", "negentropy": hashes,
             "samod": "dial counted, memory only, unsigned, not encrypted", "p2panda-sync": "no network, memory only, signatures not checked; heights of two logs are compared"}
    beside = lambda d: (f"samod, n = {n:,}, d = {d:,}", (f"p2panda-sync, n = {n // 5:,}, d = {d:,}", f"Syncline, {n // 5:,} entries, d = {d:,}"))
    dialling = lambda d: f"Syncline, with the dial, n = {n:,}, d = {d:,}"
    live = {"iroh-docs, redb": "not durable, hashes without their values", "iroh-docs, in memory": "memory only, hashes without their values",
            "samod": "memory only, unsigned, not encrypted"}
    writes = {"iroh-docs, redb": "not durable, into an empty replica"}
    one_way = "one way, unsigned, not encrypted"
    files = {"rsync --fsync": one_way, "rsync": f"not durable, {one_way}", "syncthing": "files are not signed"}
    kilobytes = dict(scale=1000, unit="KB")
    each = lambda bound: Must("an entry", bound, True, lambda one: one["bytes"] / n, unit="B")
    return [
        Row(f"bootstrap of {n:,}, commits of 1,000", "bootstrap", "Syncline, commits of 1,000",
            "<= 0.7 s, <= 140 B an entry", peers=("iroh-docs, redb, ordered keys",), differs=joins, limit=in_order, also=(("bytes", n, "B an entry"),),
            must=(most("", "seconds", 0.7), each(140)), why="bootstrap"),
        Row("the same, one entry a commit", "bootstrap", "Syncline, one entry a commit", "<= 3.0 s, <= 230 B",
            peers=("iroh-docs, redb, ordered keys",), differs=joins, also=(("bytes", n, "B an entry"),),
            limit=Limit("to verify all signatures on both cores", lambda get: n / checked(get)),
            must=(most("", "seconds", 3.0), each(230)), why="bootstrap"),
        Row("the same, random keys", "bootstrap", "Syncline, commits of 1,000, random keys", "<= 1.0 s",
            peers=("iroh-docs, redb, random keys",), differs=joins, also=(("bytes", n, "B an entry"),),
            limit=Limit("to insert the rows of as many entries into redb at random, on one core",
                        rows_of(n, "random_10000_per_s")),
            must=(most("", "seconds", 1.0),), why="bootstrap"),
        Row(f"bootstrap of {n:,} beside systems in memory", "bootstrap-peers", "Syncline, commits of 1,000", "",
            peers=("iroh-docs, in memory", f"samod, one document of {n:,} changes",
                   (f"p2panda-sync, a log of {n // 5:,} operations", f"Syncline, {n // 5:,} entries")), limit=in_order,
            differs={"iroh-docs, in memory": "not durable, hashes without their values, two signatures an entry",
                     f"samod, one document of {n:,} changes": "memory only, unsigned, not encrypted",
                     f"p2panda-sync, a log of {n // 5:,} operations": "no network, memory only, signatures not checked"}),
        Row(f"bootstrap of {million:,}, commits of 1,000", "bootstrap-million", f"Syncline, n = {million:,}",
            "<= 9 s, extra memory <= 64 MiB a side, an entry <= 1.3 x that of 100,000",
            limit=Limit("to insert the rows of as many entries into redb, in order, on one core",
                        rows_of(million, "ordered_10000_per_s")),
            also=(("extra_mb", 1, "MB joining"), ("serving_extra_mb", 1, "MB serving")),
            must=(most("", "seconds", 9.0), most("joining", "extra_mb", 67.1, unit="MB"),
                  most("serving", "serving_extra_mb", 67.1, unit="MB"),
                  derived("an entry", 1.3, lambda get: ratio("bootstrap-million", "seconds", f"Syncline, n = {million:,}",
                                                             f"Syncline, n = {n:,}")(get) * n / million, unit="x")),
            unasked="iroh-docs sends it in one frame, not resumable, and would take some two minutes a round", why="million"),
        Row(f"equal replicas, {n:,}", "differ", ours(n, 0), "<= 0.5 ms beside the round trip, <= 400 B",
            peers=(docs(n, 0),), alone=(sets(n, 0),), differs=equal, also=(("bytes", 1, "B"), ("messages", 1, "messages")), limit=trips,
            must=(derived("beside the round trip", 0.5, lambda get: 1e3 * (get("differ", ours(n, 0), "seconds") - trip(get)),
                          unit="ms"), most("", "bytes", 400, unit="B")), why="equal"),
        Row(f"equal replicas, {million:,}", "differ-million", ours(million, 0), "<= 1.2 x that of 1,000",
            peers=(docs(million, 0),), alone=(sets(million, 0),), differs=equal, also=(("bytes", 1, "B"), ("messages", 1, "messages")), limit=trips,
            must=(derived("", 1.2, ratio("differ-million", "seconds", ours(million, 0), ours(1_000, 0)), unit="x"),),
            why="equal"),
        Row("equal replicas, 1,000", "differ-million", ours(1_000, 0), "",
            peers=(docs(1_000, 0),), alone=(sets(1_000, 0),), differs=equal, also=(("bytes", 1, "B"), ("messages", 1, "messages")),
            limit=trips),
        Row(f"1 + 1 in {n:,}, the latest", "differ", ours(n, 1), "<= 6 ms, <= 8 messages, <= 6 KB beside the entries",
            peers=(docs(n, 1), *beside(1)), alone=(sets(n, 1),), differs=apart, also=(("messages", 1, "messages"), ("beside_entries", 1, "B beside")),
            limit=differs(1, None), must=(most("", "seconds", 6e-3), most("messages", "messages", 8),
                                          most("beside", "beside_entries", 6, **kilobytes)), why="differ"),
        Row(f"100 + 100 in {n:,}, the latest", "differ", ours(n, 100),
            "<= 40 ms, <= 300 KB beside the entries, aim 32 KB in 2 round trips",
            peers=(docs(n, 100), *beside(100)), alone=(sets(n, 100),), differs=apart,
            also=(("messages", 1, "messages"), ("round_trips", 1, "round trips"), ("beside_entries", 1, "B beside")),
            limit=differs(100, "random_10000_per_s"),
            must=(most("", "seconds", 40e-3), most("beside", "beside_entries", 300, **kilobytes),
                  most("beside", "beside_entries", 32, aim=True, **kilobytes),
                  most("round trips", "round_trips", 2, aim=True)), why="differ"),
        *[Row(f"{d} + {d} in {n:,}, the latest, with the dial" if d else f"equal replicas, {n:,}, with the dial", "differ", dialling(d), "",
              peers=(docs(n, d), f"samod, n = {n:,}, d = {d:,}"), differs={
                  "samod": "memory only, unsigned, not encrypted", **({"iroh-docs": "not durable, hashes without their values"} if d else {})},
              also=(("messages", 1, "messages"), ("round_trips", 1, "round trips")), limit=dialled if d else Limit(
                  "a dial and a round trip", lambda get: get("limits", ECHO, "dial_s") + trip(get)))
          for d in (0, 1, 100)],
        *[Row(f"{d} + {d} in {n:,}, {text}", "differ-kinds", f"Syncline, {kind}, d = {d}", goal,
              also=(("messages", 1, "messages"), ("round_trips", 1, "round trips"), ("beside_entries", 1, "B beside")),
              limit=limit, must=must, unasked=unasked, why="kinds")
          for d, goal, must in (
              (1, "<= 6 ms, <= 8 messages, <= 6 KB beside the entries", (
                  most("", "seconds", 6e-3), most("messages", "messages", 8), most("beside", "beside_entries", 6, **kilobytes))),
              (many, "<= 40 ms, <= 300 KB beside the entries", (
                  most("", "seconds", 40e-3), most("beside", "beside_entries", 300, **kilobytes))))
          for kind, text, limit, unasked in (
              ("single commits", "each a commit of its own", Limit(
                  "two round trips, a flush, and as many signatures checked on both cores",
                  lambda get, d=d: 2 * trip(get) + flush(get) + 2 * d / checked(get)),
               "iroh-docs signs each entry by itself in the row of the latest too"),
              ("after a start", "the first time after a start, with the dial", dialled,
               "iroh-docs would do as in the row of the latest, with empty caches"),
              ("old", "older than the newest 4,096 changes, with the dial", dialled,
               "iroh-docs has no log, so the age changes nothing for it: see the row of the latest"),
              ("old, the first", "older, the first time after a start, with the dial", dialled,
               "iroh-docs would do as in the row of the latest, with empty caches"))],
        Row(f"100 + 100 in {million:,}, the latest", "differ-million", ours(million, 100),
            "<= 45 ms of processor a side, <= 4 round trips, <= 400 KB; aim 10 ms, 2, 32 KB",
            peers=(docs(million, 100),), alone=(sets(million, 100),), differs=apart, limit=differs(100, "random_10000_into_300k_per_s"),
            also=(("cpu_s", 2e-3, "ms of processor a side"), ("messages", 1, "messages"), ("round_trips", 1, "round trips"),
                  ("beside_entries", 1, "B beside")),
            must=(most("processor a side", "cpu_s", 45, scale=2e-3, unit="ms"), most("round trips", "round_trips", 4),
                  most("beside", "beside_entries", 400, **kilobytes),
                  most("processor a side", "cpu_s", 10, scale=2e-3, aim=True, unit="ms"),
                  most("round trips", "round_trips", 2, aim=True),
                  most("beside", "beside_entries", 32, aim=True, **kilobytes)), why="differ"),
        *[Row(f"{many} + {many} in {million:,}, {text}", "differ-million-kinds", f"Syncline, {kind}, d = {many}", "",
              also=(("messages", 1, "messages"), ("round_trips", 1, "round trips"), ("beside_entries", 1, "B beside")), limit=dialled,
              unasked=unasked)
          for kind, text, unasked in (
              ("after a start", "the first time after a start, with the dial", "iroh-docs would do as in the row of the latest, with empty caches"),
              ("old", "older than the newest 4,096 changes, with the dial",
               "iroh-docs has no log, so the age changes nothing for it: see the row of the latest"))],
        Row(f"100 + 100 in {n:,}, positions known, with the dial", "known", "Syncline",
            "one round trip and its acknowledgement, <= 1.1 x the entries' bytes",
            also=(("round_trips", 1, "round trips, of which the opening is one"), ("messages", 1, "messages, of which `Open` are two"),
                  ("bytes", 1, "B"), ("entry_bytes", 1, "B of entries")),
            limit=Limit("a dial, two round trips, a flush and 100 entries in redb",
                        lambda get: get("limits", ECHO, "dial_s") + 2 * trip(get) + flush(get)
                        + 100 / get("limits", ENTRIES, "random_10000_per_s")),
            unasked="p2panda-sync's heights of logs are nearest to it, and its sync has no network here",
            must=(most("messages, `Open`, entries and a mark each way", "messages", 6),
                  most("round trips: the opening, the entries, their acknowledgement", "round_trips", 3),
                  Must("of the entries' bytes", 1.1, True, lambda one: one["bytes"] / one["entry_bytes"], unit="x")), why="known"),
        Row("a write, until the other shows it", "live", "Syncline", "median <= 1.0 ms, p99 <= 4 ms",
            peers=("iroh-docs, redb", "iroh-docs, in memory", "samod"), differs=live, also=(("p99_s", 1e-3, "ms p99"),),
            limit=Limit("a flush at the writer, half a round trip, a flush at the reader",
                        lambda get: 2 * flush(get) + trip(get) / 2),
            must=(most("", "seconds", 1e-3), most("p99", "p99_s", 4, scale=1e-3, unit="ms")), why="live"),
        Row("burst of 5,000 writes", "burst", "Syncline, 16 writers", ">= 10,000/s, aim 25,000", figure="per_s",
            peers=("iroh-docs, redb, 16 writers", "samod, 500 changes"),
            differs={"iroh-docs, redb, 16 writers": live["iroh-docs, redb"], "samod, 500 changes": live["samod"] + ", a tenth of the writes"},
            limit=Limit("a second, if both cores did nothing but sign and verify each once", signed),
            must=(least("", "per_s", 10_000), least("", "per_s", 25_000, aim=True)), why="burst"),
        Row("local writes, one writer", "write", "Syncline", ">= 1,500/s", figure="one_per_s", peers=("iroh-docs, redb",), differs=writes,
            limit=Limit("flushes a second, one after the other", lambda get: 1 / flush(get)),
            must=(least("", "one_per_s", 1_500),), why="write"),
        Row("local writes, 16 writers", "write", "Syncline", ">= 10,000/s, aim 30,000", figure="sixteen_per_s",
            peers=("iroh-docs, redb",), differs=writes,
            limit=Limit("a second: 16 share a flush, as long as both cores can sign so many",
                        lambda get: min(16 / flush(get), 2 * get("limits", VERIFY, "sign_per_s"))),
            must=(least("", "sixteen_per_s", 10_000), least("", "sixteen_per_s", 30_000, aim=True)), why="write"),
        Row("one transaction of 10,000 in key order", "write", "Syncline", ">= 150,000/s", figure="transaction_per_s",
            limit=Limit("entries a second into redb, in order, on one core", lambda get: get("limits", ENTRIES, "ordered_10000_per_s")),
            unasked="iroh-docs' interface takes one entry a call",
            must=(least("", "transaction_per_s", 150_000),), why="write"),
        Row("the same on a quiet store", "write", "Syncline, a quiet store", ">= 150,000/s", figure="transaction_per_s",
            limit=Limit("entries a second into redb, in order, on one core", lambda get: get("limits", ENTRIES, "ordered_10000_per_s")),
            unasked="iroh-docs' interface takes one entry a call",
            must=(least("", "transaction_per_s", 150_000),), why="write"),
        Row(f"content of {mebibytes:,} MiB, QUIC", "blob-quic", "Syncline",
            ">= 85 % of the raw stream (the issue: quinn's 640 MB/s)", figure="mb_per_s",
            limit=Limit("MB/s, a raw stream with the same settings",
                        lambda get: get("blob-quic", "raw stream, the same settings", "mb_per_s")),
            must=(derived("of the raw stream with the same settings", 85, lambda get: 100 * ratio(
                      "blob-quic", "mb_per_s", "Syncline", "raw stream, the same settings")(get), at_most=False, unit="%"),
                  derived("of the raw stream with quinn's defaults", 85, lambda get: 100 * ratio(
                      "blob-quic", "mb_per_s", "Syncline", "raw stream")(get), at_most=False, unit="%"),
                  derived("of 640 MB/s", 85, lambda get: get("blob-quic", "Syncline", "mb_per_s") / 6.4, at_most=False, unit="%")),
            unasked="iroh-blobs could, over iroh; a raw stream is the row's limit", why="quic"),
        Row(f"content of {mebibytes:,} MiB, iroh", "blob-iroh", "Syncline", ">= 85 % of the raw stream (the issue: iroh's 690 MB/s)",
            figure="mb_per_s", limit=Limit("MB/s, a raw stream of iroh's", lambda get: get("blob-iroh", "raw stream", "mb_per_s")),
            must=(derived("of the raw stream", 85, lambda get: 100 * ratio("blob-iroh", "mb_per_s", "Syncline", "raw stream")(get),
                          at_most=False, unit="%"),
                  derived("of 690 MB/s", 85, lambda get: get("blob-iroh", "Syncline", "mb_per_s") / 6.9, at_most=False, unit="%")),
            unasked="iroh-blobs could; iroh's raw stream is the row's limit", why="iroh"),
        Row(f"content of {mebibytes:,} MiB, HTTP", "blob-http", "Syncline", ">= 400 MB/s", figure="mb_per_s",
            limit=Limit("MB/s, a bare WebSocket in clear, its bytes sealed and opened, and hashed at both ends, on two cores",
                        lambda get: 1 / (1 / get("blob-http", "raw stream", "mb_per_s") + (
                            1 / get("limits", SEAL, "mb_per_s") + 2 / get("limits", HASH, "mb_per_s")) / 2)),
            unasked="samod's WebSocket carries documents; for files see the row of one file",
            must=(least("", "mb_per_s", 400),), why="http"),
        Row("folder of real files, first copy", "folder-first", "Syncline",
            "<= 4.5 s, 4 x syncthing, within 1.5 x of rsync --fsync (the issue: 159 MB)",
            peers=("rsync --fsync", "rsync", "syncthing"), differs=files,
            limit=Limit("to copy it on the disk, one thread and one sync", alone("folder-first", "seconds")),
            note=lambda get: f"{get('folder-first', ALONE, 'files'):,.0f} files, {get('folder-first', ALONE, 'folder_bytes') / 1e6:.0f} MB",
            must=(most("", "seconds", 4.5),
                  derived("x as fast as syncthing", 4, ratio("folder-first", "seconds", "syncthing", "Syncline"), at_most=False),
                  derived("x rsync --fsync", 1.5, ratio("folder-first", "seconds", "Syncline", "rsync --fsync"))), why="folder"),
        Row("the same: restart, nothing changed, until one new file has arrived", "folder-after", "Syncline", "<= 1 s", figure="restart_s", moved="restart_bytes", told="restart_messages",
            peers=("rsync --fsync", "rsync", "syncthing"),
            differs={"rsync --fsync": f"called once, watches nothing, {one_way}", "rsync": f"called once, watches nothing; not durable, {one_way}", "syncthing": "files are not signed"},
            limit=Limit("to look at every file of both folders, one thread", alone("folder-after", "restart_s")),
            must=(most("", "restart_s", 1.0),), why="folder"),
        Row("the same: one small change, live", "folder-after", "Syncline", "median <= 60 ms", figure="live_s", moved="live_bytes", told="live_messages",
            peers=("syncthing",), differs={"syncthing": "this version's watcher waits a second at least, files are not signed"},
            limit=Limit("to bring one small file and its name to the disk", alone("folder-after", "live_s")),
            must=(most("", "live_s", 60e-3),), why="folder"),
        Row("the same: 100 + 100 changes apart", "folder-after", "Syncline", "<= 1.5 s", figure="apart_s", moved="apart_wire_bytes", told="apart_messages",
            peers=("rsync --fsync", "rsync", "syncthing"), also=(("apart_bytes", 1e6, "MB moved"),),
            differs={"rsync --fsync": f"100 changes, of one side; {one_way}", "rsync": f"100 changes, of one side; not durable, {one_way}", "syncthing": "files are not signed"},
            limit=Limit("to look at every file of one folder and to copy 200 with one sync", alone("folder-after", "apart_s")),
            must=(most("", "apart_s", 1.5),), why="folder"),
        Row(f"one file of {mebibytes:,} MiB, first", "large", "Syncline", "<= 4 s",
            peers=("rsync --fsync", "rsync", "syncthing"), differs=files,
            limit=Limit("to copy and sync it", alone("large", "seconds")), must=(most("", "seconds", 4.0),), why="large"),
        Row("the same: 64 KiB of it changed", "large", "Syncline", "<= 4 s, <= 6 MiB moved", figure="changed_s", moved="changed_bytes", told="changed_messages",
            peers=("rsync --fsync", IN_PLACE, WHOLE, "rsync", "syncthing"), also=(("changed_bytes", 1e6, "MB moved"),),
            differs={"rsync --fsync": f"called, watches nothing, {one_way}", IN_PLACE: f"the same, and whoever reads the file meanwhile sees it half done",
                     WHOLE: f"called, watches nothing, moves all of it again, {one_way}",
                     "rsync": f"called, watches nothing; not durable, {one_way}", "syncthing": "this version's watcher waits a second at least, files are not signed"},
            limit=Limit("to read and hash it and to write 64 KiB", alone("large", "changed_s")),
            must=(most("", "changed_s", 4.0), most("moved", "changed_bytes", 6.29, scale=1e6, unit="MB")), why="large"),
        Row(f"memory of a node with {million:,} entries, idle", "idle", "Syncline", "<= 60 MB", figure="resident_mb",
            also=(("disk_bytes_per_entry", 1, "B an entry on the disk"),),
            limit=Limit("a process of the same program that does nothing", lambda get: get("idle", "a process that does nothing", "resident_mb")),
            note=lambda get: f"a node that has just served all of it: {get('bootstrap-million', f'Syncline, n = {million:,}', 'serving_after_mb'):.0f} MB",
            unasked="iroh-docs could, and was not; what it needs while it compares as many stands in the row of 100 + 100 in as many",
            must=(most("", "resident_mb", 60, unit="MB"),), why="idle"),
        Row("the same, after it has reconciled 100 + 100", "idle", RECONCILED, "<= 60 MB", figure="resident_mb",
            limit=Limit("a process of the same program that does nothing", lambda get: get("idle", "a process that does nothing", "resident_mb")),
            unasked="as above", must=(most("", "resident_mb", 60, unit="MB"),), why="idle"),
        Row(f"a hub with {hub}, their stores in memory, one write", "hub", f"Syncline, {hub}", "<= 1 s, <= 100 KB a peer",
            also=(("kb_per_peer", 1, "KB a peer"),),
            limit=Limit("256 bytes over as many connections of quinn and an answer from each",
                        lambda get: get("hub", f"quinn alone, {hub}", "seconds")),
            unasked="samod and iroh-docs' gossip could; quinn's connections alone are the row's limit",
            must=(most("", "seconds", 1.0), most("a peer", "kb_per_peer", 100, unit="KB")), why="hub"),
    ]
