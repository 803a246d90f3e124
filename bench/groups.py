"""What is measured: groups of series that take turns, and the rows of BENCHMARKS.md that are read from them."""
from dataclasses import dataclass, field

import folder
import hot
from contestants import Program, Series

N, MILLION = 100_000, 1_000_000


@dataclass
class Group:
    """A name for `--only`, a heading, what the series do (built when it runs), and how many rounds count."""
    name: str
    heading: str
    series: object
    text: str
    rounds: int = 5
    figures: tuple = ("seconds",)


@dataclass
class Row:
    """A line of the first table: which figure of which series of which group, and what it must reach."""
    work: str
    group: str
    ours: str
    goal: str
    figure: str = "seconds"
    peers: tuple = ()
    alone: tuple = ()  # Peers that do only a part of the work: shown without a ratio.
    limit: tuple = None
    also: tuple = ()


def bench(*arguments):
    return Program("bench", *arguments)


def docs(*arguments):
    return Program("peer-iroh-docs", *arguments)


def differ(quick, sizes):
    """`sizes` maps n to the numbers of differences; one prepared pair serves all of them."""
    made = []
    for n, ds in sizes.items():
        ours, theirs, sets = bench("differ", n), docs("redb", "differ", n), Program("peer-negentropy", "differ", n)
        for d in ds:
            made.append(Series(f"Syncline, n = {n:,}, d = {d:,}", ours, d))
            made.append(Series(f"negentropy, n = {n:,}, d = {d:,}", sets, d))
            if n <= N and d <= 1000:
                made.append(Series(f"iroh-docs, n = {n:,}, d = {d:,}", theirs, d, rounds=5))
    return made


def groups(quick):
    n, million = (2_000, 5_000) if quick else (N, MILLION)
    few = 1 if quick else 5
    mebibytes = 32 if quick else 1024
    files, size = (300, 2_000_000) if quick else (10_000, 150_000_000)

    def folder_first():
        made = folder.tools(folder.folders(files, size), alone=folder.TRANSPORTS)
        return [Series(tool.label, folder.First(tool)) for tool in made]

    def folder_after():
        made = folder.tools(folder.folders(files, size))
        return [Series(tool.label, folder.After(tool)) for tool in made if tool.label != "rsync 3.5 --fsync"]

    def hot_paths():
        all_paths = hot.Paths()
        return [Series(hot.label(*path), all_paths, path) for path in hot.paths()]

    def large():
        made = folder.tools(folder.large_folders(mebibytes))
        return [Series(tool.label, folder.Large(tool)) for tool in made if tool.label != "rsync 3.5"]

    return [
        Group("limits", "What the machine can do", lambda: [
            Series("Ed25519, strict verification, one core", bench("verify")),
            Series("BLAKE3 of 200 bytes, and of 64 MiB, one core", bench("hash")),
            Series("redb 4.4, rows of 200 bytes, two-phase commits", bench("redb")),
            Series("fdatasync after 4 KiB", bench("sync")),
        ], "The floors under the rows. A side verifies every seal strictly; both sides share the cores.", few,
            ("per_s", "mb_per_s", "seconds", "p99_s", "one_random_per_s", "ordered_1000_per_s", "ordered_10000_per_s",
             "random_10000_per_s", "random_10000_into_300k_per_s")),
        Group("bootstrap", f"Bootstrap of {n:,} entries of 32 bytes", lambda: [
            Series("Syncline, commits of 1,000", bench("bootstrap", n, 1000, "ordered")),
            Series("Syncline, one entry a commit", bench("bootstrap", n, 1, "ordered")),
            Series("Syncline, commits of 1,000, random keys", bench("bootstrap", n, 1000, "random")),
            Series("iroh-docs, redb", docs("redb", "bootstrap", n)),
        ], "A fresh node joins and gets everything. Syncline: both sides on redb, each transaction durable before it is "
           "acknowledged, every signature verified strictly, each side a process of its own, the join and the rights in "
           "the time, values in the entries. iroh-docs: both sides on redb in one process, acknowledged up to 500 ms before it is on disk; its "
           "entries hold hashes, values would be fetched afterwards; two signatures an entry; random keys.",
            few, ("seconds", "bytes", "messages", "peak_mb", "extra_mb", "serving_extra_mb", "cpu_s")),
        Group("bootstrap-peers", "Bootstrap beside systems without durability", lambda: [
            Series("Syncline, commits of 1,000", bench("bootstrap", n, 1000, "ordered")),
            Series("iroh-docs, in memory", docs("memory", "bootstrap", n)),
            Series(f"samod, one document of {n:,} changes", Program("peer-samod", "bootstrap", n)),
            Series(f"p2panda-sync, a log of {n // 5:,} operations", Program("peer-p2panda", "bootstrap", n // 5)),
        ], "samod has no signatures and no encryption and keeps everything in memory; its history travels compressed. p2panda-sync's receiver neither checks "
           "signatures nor stores, nothing is encrypted or sent over a network; a fifth of the entries.",
            few, ("seconds", "bytes", "messages", "peak_mb", "cpu_s")),
        Group("bootstrap-million", f"Bootstrap of {million:,} entries", lambda: [
            Series(f"Syncline, n = {n:,}", bench("bootstrap", n, 1000, "ordered")),
            Series(f"Syncline, n = {million:,}", bench("bootstrap", million, 1000, "ordered")),
        ], "In commits of 1,000. `extra` is what a side's memory grows by at its peak.", few,
            ("seconds", "bytes", "messages", "extra_mb", "serving_extra_mb", "cpu_s")),
        Group("bootstrap-small", "Bootstrap of few entries", lambda: [
            Series(f"{who}, n = {m:,}", program(m)) for m in (1_000, 10_000)
            for who, program in (("Syncline", lambda m: bench("bootstrap", m, 1000, "ordered")),
                                 ("iroh-docs", lambda m: docs("redb", "bootstrap", m)))
        ], "For the curve.", few, ("seconds", "bytes", "messages")),
        Group("differ", f"Differences in {n:,}, no position known", lambda: differ(
            quick, {n: (0, 1, 10, 100) if quick else (0, 1, 10, 100, 1000, 10_000)}),
            "d entries more on either side. Syncline and iroh-docs: over QUIC on loopback, redb on both sides, all entries exchanged; "
            "Syncline durable, on a link that is up; iroh-docs dials. negentropy: two vectors in memory in one process, "
            "no network, ids only, no entries. `beside` is what the session moves beside the entries themselves.",
            1 if quick else 7, ("seconds", "messages", "round_trips", "bytes", "beside_entries", "cpu_s")),
        Group("differ-million", f"Differences in {million:,}, no position known", lambda: differ(
            quick, {1_000: (0,), million: (0, 1, 100)}),
            "The same. The processor time is of both sides together.", 1 if quick else 7,
            ("seconds", "messages", "round_trips", "bytes", "beside_entries", "cpu_s")),
        Group("differ-small", "Differences in few entries", lambda: differ(
            quick, {1_000: (0, 1, 100), 10_000: (0, 1, 100)}), "For the curves.", 1 if quick else 7,
            ("seconds", "messages", "bytes", "beside_entries")),
        Group("known", f"100 + 100 in {n:,}, positions known", lambda: [
            Series("Syncline", bench("known", n), 100)],
            "The time counts the dial, the handshake of the transport and Syncline's own.", 1 if quick else 7,
            ("seconds", "messages", "round_trips", "bytes", "entry_bytes")),
        Group("live", "A write, until the other node shows it", lambda: [
            Series("Syncline", bench("live", 50 if quick else 1000)),
            Series("iroh-docs, redb", docs("redb", "live", 50 if quick else 1000)),
            Series("iroh-docs, in memory", docs("memory", "live", 50 if quick else 1000)),
            Series("samod", Program("peer-samod", "live", 50 if quick else 500)),
        ], "One after the other. Syncline: durable at the writer before it is sent, and at the reader before it is shown. "
           "iroh-docs gossips before the write is on disk; samod is in memory.", few, ("seconds", "p99_s")),
        Group("burst", "A burst of single writes", lambda: [
            Series("Syncline, 16 writers", bench("burst", 500 if quick else 5000, 16)),
            Series("iroh-docs, redb, 16 writers", docs("redb", "burst", 500 if quick else 5000)),
            Series("samod, 500 changes", Program("peer-samod", "burst", 50 if quick else 500)),
        ], "5,000 writes of one entry each, until the other node shows them all. What differs is as above; "
           "`lost` counts what iroh-docs' gossip did not deliver.", few, ("per_s", "lost")),
        Group("write", f"Local writes into {n:,} entries", lambda: [
            Series("Syncline", bench("write", n)),
            Series("iroh-docs, redb", docs("redb", "write", 1000 if quick else 5000)),
        ], "Syncline: each write is on disk when the call returns. iroh-docs: up to 500 ms later; into an empty replica.",
            few, ("one_per_s", "sixteen_per_s", "transaction_per_s")),
        *[Group(f"blob-{kind}", f"A content of {mebibytes:,} MiB over {name}", lambda kind=kind, raw=raw: [
            Series("Syncline", bench("blob", mebibytes, kind)),
            Series("raw stream", bench("stream", mebibytes, raw)),
        ], text, few, ("mb_per_s", "peak_mb", "cpu_s")) for kind, raw, name, text in (
            ("quic", "quic", "QUIC", "Until every group is proved and the file is durable; the raw stream (quinn) ends in memory."),
            ("iroh", "iroh", "iroh", "The raw stream is iroh's own, without relay or lookup."),
            ("http", "websocket", "HTTP", "WebSocket, Noise, yamux; the raw stream is a bare WebSocket, neither encrypted nor "
                                          "multiplexed."))],
        Group("large", f"One file of {mebibytes:,} MiB, first, and 64 KiB of it changed", large,
              "The change is noticed by the watcher (syncthing waits at least a second; rsync is called).", few,
              ("seconds", "bytes", "changed_s", "changed_bytes", "peak_mb")),
        Group("folder-first", f"A folder of {files:,} real files, first copy", folder_first,
              "Sources of crates. Syncline with all its transports at once and with each alone, sender imported; every file durable. rsync: daemon on loopback. "
              "syncthing: sender scanned, nothing announced, no compression. Each round begins when the disk has written what the rounds "
              "before left (`sync`). The time is that of the last file in place. `bytes` is what the loopback device carried.", few, ("seconds", "bytes", "peak_mb")),
        Group("folder-after", "The same folder afterwards", folder_after,
              "A restart of one side with nothing changed, until it says it is in sync. One small change live, the median "
              "of ten a round, either way (syncthing's watcher waits a second at least). 100 + 100 changes while one side is down, from its start until "
              "the folders are equal (rsync: 100 changes on one side).", few,
              ("restart_s", "live_s", "live_max_s", "apart_s", "peak_mb")),
        Group("idle", f"A node that holds {million:,} entries", lambda: [
            Series("Syncline", bench("idle", million))],
            "A fresh process that has opened its store and listens; a second later.", few,
            ("resident_mb", "peak_mb", "seconds", "disk_bytes_per_entry")),
        Group("hub", "One write on a hub, until all its peers show it", lambda: [
            Series(f"Syncline, {peers:,} peers", bench("hub", peers)) for peers in
            ((1, 10) if quick else (1, 10, 100, 1000))],
            "QUIC, a connection a peer. The hub on redb; the peers in one other process with stores in memory, so "
            "that they and the hub share two cores. `KB a peer` is what the hub's resident memory grew by.", few,
            ("seconds", "kb_per_peer", "joined_s", "cpu_s")),
        Group("hot-paths", "The hot paths, each by itself", hot_paths,
              "`cargo bench -p store-redb --bench hot_paths`: the median of up to 100 samples, with least and most. Stores hold 100,000 entries on redb; "
              "applying is durable and without the signature, reading without the way over a thread.", 3),
        Group("instructions", "Instructions of the hot paths", lambda: [
            Series(name, hot.Instructions(), path) for path, name in hot.COUNTED.items()],
            "`bench/instructions`, counted by callgrind: the same on a busy machine.", 1,
            ("instructions", "instructions_each", "things")),
    ]


def rows(quick):
    n, million = (2_000, 5_000) if quick else (N, MILLION)
    ours = lambda n, d: f"Syncline, n = {n:,}, d = {d:,}"
    docs = lambda n, d: f"iroh-docs, n = {n:,}, d = {d:,}"
    sets = lambda n, d: f"negentropy, n = {n:,}, d = {d:,}"
    verify = lambda n: ("limits", "Ed25519, strict verification, one core", "per_s", n / 2,
                        "{} to verify all signatures on two cores")
    redb = lambda figure, n, what: ("limits", "redb 4.4, rows of 200 bytes, two-phase commits", figure, n, what)
    return [
        Row(f"bootstrap of {n:,}, commits of 1,000", "bootstrap", "Syncline, commits of 1,000",
            "<= 0.7 s, <= 140 B an entry", peers=("iroh-docs, redb",), limit=redb("ordered_10000_per_s", n, "{} for as many redb rows, in order"),
            also=(("bytes", n, "B an entry"),)),
        Row("the same, one entry a commit", "bootstrap", "Syncline, one entry a commit", "<= 3.0 s, <= 230 B",
            peers=("iroh-docs, redb",), limit=verify(n), also=(("bytes", n, "B an entry"),)),
        Row("the same, random keys", "bootstrap", "Syncline, commits of 1,000, random keys", "<= 1.0 s",
            peers=("iroh-docs, redb",), limit=redb("random_10000_per_s", n, "{} for as many redb rows, random"), also=(("bytes", n, "B an entry"),)),
        Row(f"bootstrap of {n:,} beside systems in memory", "bootstrap-peers", "Syncline, commits of 1,000", "",
            peers=("iroh-docs, in memory", f"samod, one document of {n:,} changes",
                   f"p2panda-sync, a log of {n // 5:,} operations")),
        Row(f"bootstrap of {million:,}, commits of 1,000", "bootstrap-million", f"Syncline, n = {million:,}",
            "<= 9 s, extra memory <= 64 MiB a side, an entry <= 1.3 x that of 100,000",
            limit=redb("ordered_10000_per_s", million, "{} for as many redb rows, in order"),
            also=(("extra_mb", 1, "MB joining"), ("serving_extra_mb", 1, "MB serving"))),
        Row(f"equal replicas, {n:,}", "differ", ours(n, 0), "<= 0.5 ms beside the round trip, <= 400 B",
            peers=(docs(n, 0),), alone=(sets(n, 0),), also=(("bytes", 1, "B"), ("messages", 1, "messages"))),
        Row(f"equal replicas, {million:,}", "differ-million", ours(million, 0), "<= 1.2 x that of 1,000",
            alone=(sets(million, 0),), also=(("bytes", 1, "B"), ("messages", 1, "messages"))),
        Row("equal replicas, 1,000", "differ-million", ours(1_000, 0), "",
            peers=(docs(1_000, 0),), alone=(sets(1_000, 0),), also=(("bytes", 1, "B"), ("messages", 1, "messages"))),
        Row(f"1 + 1 in {n:,}", "differ", ours(n, 1), "<= 6 ms, <= 8 messages, <= 6 KB beside the entries",
            peers=(docs(n, 1),), alone=(sets(n, 1),), also=(("messages", 1, "messages"), ("beside_entries", 1, "B beside"))),
        Row(f"100 + 100 in {n:,}", "differ", ours(n, 100),
            "<= 40 ms, <= 300 KB beside the entries, aim 32 KB in 2 round trips",
            peers=(docs(n, 100),), alone=(sets(n, 100),), also=(("messages", 1, "messages"), ("beside_entries", 1, "B beside"))),
        Row(f"100 + 100 in {million:,}", "differ-million", ours(million, 100),
            "<= 45 ms of processor a side, <= 4 round trips, <= 400 KB; aim 10 ms, 2, 32 KB",
            alone=(sets(million, 100),),
            also=(("cpu_s", 2, "s of processor a side"), ("messages", 1, "messages"), ("beside_entries", 1, "B beside"))),
        Row(f"100 + 100 in {n:,}, positions known", "known", "Syncline",
            "one round trip and its acknowledgement, <= 1.1 x the entries' bytes",
            also=(("round_trips", 1, "round trips"), ("bytes", 1, "B"), ("entry_bytes", 1, "B of entries"))),
        Row("a write, until the other shows it", "live", "Syncline", "median <= 1.0 ms, p99 <= 4 ms",
            peers=("iroh-docs, redb", "iroh-docs, in memory", "samod"), also=(("p99_s", 1, "s p99"),),
            limit=("limits", "fdatasync after 4 KiB", "seconds", None, "{} an fdatasync; two at least on either side")),
        Row("burst of 5,000 writes", "burst", "Syncline, 16 writers", ">= 10,000/s, aim 25,000", figure="per_s",
            peers=("iroh-docs, redb, 16 writers", "samod, 500 changes"), limit=("limits", "Ed25519, strict verification, one core", "per_s", None,
                   "{} a second and core are verified; each is signed too")),
        Row("local writes, one writer", "write", "Syncline", ">= 1,500/s", figure="one_per_s",
            peers=("iroh-docs, redb",), limit=redb("one_random_per_s", None, "{} redb transactions of one row a second")),
        Row("local writes, 16 writers", "write", "Syncline", ">= 10,000/s, aim 30,000", figure="sixteen_per_s",
            peers=("iroh-docs, redb",)),
        Row("one transaction of 10,000 in key order", "write", "Syncline", ">= 150,000/s", figure="transaction_per_s",
            limit=redb("ordered_10000_per_s", None, "{} redb rows a second")),
        *[Row(f"content of 1 GiB, {name}", f"blob-{kind}", "Syncline", goal, figure="mb_per_s",
              limit=(f"blob-{kind}", "raw stream", "mb_per_s", None, "{} MB/s raw stream")) for kind, name, goal in (
            ("quic", "QUIC", ">= 85 % of the raw stream"), ("iroh", "iroh", ">= 85 % of the raw stream"),
            ("http", "HTTP", ">= 400 MB/s"))],
        Row("folder of 10,000 files, first copy", "folder-first", "Syncline",
            "<= 4.5 s, 4 x syncthing, within 1.5 x of rsync --fsync",
            peers=("rsync 3.5 --fsync", "rsync 3.5", "syncthing 1.19")),
        Row("the same: restart, nothing changed", "folder-after", "Syncline", "<= 1 s", figure="restart_s",
            peers=("rsync 3.5", "syncthing 1.19")),
        Row("the same: one small change, live", "folder-after", "Syncline", "median <= 60 ms", figure="live_s",
            peers=("syncthing 1.19",)),
        Row("the same: 100 + 100 changes apart", "folder-after", "Syncline", "<= 1.5 s", figure="apart_s",
            peers=("rsync 3.5", "syncthing 1.19")),
        Row("one file of 1 GiB, first", "large", "Syncline", "<= 4 s",
            peers=("rsync 3.5 --fsync", "syncthing 1.19")),
        Row("the same: 64 KiB of it changed", "large", "Syncline", "<= 4 s, <= 6 MiB moved", figure="changed_s",
            peers=("rsync 3.5 --fsync", "syncthing 1.19"), also=(("changed_bytes", 1e6, "MB moved"),)),
        Row(f"memory of a node with {million:,} entries, idle", "idle", "Syncline", "<= 60 MB", figure="resident_mb"),
        Row("a hub with 1,000 peers, one write", "hub", "Syncline, 1,000 peers" if not quick else "Syncline, 10 peers",
            "<= 1 s, <= 100 KB a peer", also=(("kb_per_peer", 1, "KB a peer"),)),
    ]
