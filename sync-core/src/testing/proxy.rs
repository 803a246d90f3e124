//! Proxies on loopback that lose, delay, double, reorder, stall, fall silent and cut: what a cable, a router and a
//! laptop lid do to real sockets. What they do to a packet follows from a seed.
//!
//! A stream of bytes loses nothing: the kernel would only send it again. So [`TcpProxy`] makes of a lost packet what
//! an application sees of it, a stall, and it can cut; [`UdpProxy`] does the rest.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream, UdpSocket,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::random::Random;

/// What a link does to what passes it, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Where the draws come from.
    pub seed: u64,
    /// How long everything takes.
    pub delay: Duration,
    /// So many of a hundred packets are lost; of a hundred pieces of a stream, stalled.
    pub loss_percent: usize,
    /// So many come twice.
    pub duplicate_percent: usize,
    /// So many are held back, and overtaken.
    pub reorder_percent: usize,
    /// A stream ends after about so many bytes, if any.
    pub cut_after: Option<usize>,
}

/// How long a packet that is held back is.
const HELD_BACK: Duration = Duration::from_millis(15);

/// How long a stream stalls for a lost packet beyond the delay there and back: a kernel's shortest retransmission.
const STALL: Duration = Duration::from_millis(200);

/// How many packets, or pieces of a stream, wait in a link. A packet beyond that is lost, as in a router.
const QUEUE_LEN: usize = 4_096;

/// A way through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who dialled to the target.
    There,
    /// And back.
    Back,
}

/// What a proxy does with what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Frozen,
    HalfOpen(Way),
    Cut,
}

impl Mode {
    fn passes(self, way: Way) -> bool {
        match self {
            Self::Forward => true,
            Self::HalfOpen(open) => open == way,
            Self::Frozen | Self::Cut => false,
        }
    }
}

/// What all connections of a proxy share: what it does with them, and what has passed.
#[derive(Debug)]
struct Switch {
    mode: watch::Sender<Mode>,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    /// How many bytes have passed, both ways.
    passed: u64,
    /// When so many have, this is what comes, once.
    next: Option<(u64, Mode)>,
}

impl Switch {
    fn new() -> Arc<Self> {
        Arc::new(Self { mode: watch::Sender::new(Mode::Forward), counted: Mutex::default() })
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    fn set_at(&self, more: u64, mode: Mode) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.next = Some((counted.passed + more, mode));
    }

    fn passes(&self, way: Way) -> bool {
        self.mode.borrow().passes(way)
    }

    fn passed(&self) -> u64 {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).passed
    }

    /// So many bytes have passed.
    fn count(&self, len: usize) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.passed += len as u64;
        let passed = counted.passed;
        if let Some((_, mode)) = counted.next.take_if(|(at, _)| *at <= passed) {
            self.set(mode);
        }
    }

    async fn interrupted(&self) {
        let interrupted = self.mode.subscribe().wait_for(|mode| *mode != Mode::Forward).await.is_ok();
        assert!(interrupted, "the sender is ours");
    }
}

/// A TCP proxy on a port of its own on 127.0.0.1. It ends when it is dropped.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    switch: Arc<Switch>,
    accepted: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl TcpProxy {
    /// Starts to forward to `target`.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        Self::start_with(target, Faults::default()).await
    }

    /// Starts to forward to `target` over a bad link.
    pub async fn start_with(target: SocketAddr, faults: Faults) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let switch = Switch::new();
        let accepted = Arc::default();
        let forwarding = forward_tcp(listener, target, faults, switch.clone(), Arc::clone(&accepted));
        let task = tokio::spawn(forwarding).abort_handle();
        Ok(Self { address, switch, accepted, task })
    }

    /// How many connections came so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Where to connect instead of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds every connection open and carries nothing more.
    pub fn freeze(&self) {
        self.switch.set(Mode::Frozen);
    }

    /// Carries one way alone.
    pub fn half_open(&self, open: Way) {
        self.switch.set(Mode::HalfOpen(open));
    }

    /// Goes on; what waited arrives.
    pub fn thaw(&self) {
        self.switch.set(Mode::Forward);
    }

    /// Ends every connection, present and to come, until it thaws.
    pub fn cut(&self) {
        self.switch.set(Mode::Cut);
    }

    /// Freezes when so many more bytes have passed, both ways together.
    pub fn freeze_at(&self, more: u64) {
        self.switch.set_at(more, Mode::Frozen);
    }

    /// Cuts when so many more bytes have passed, both ways together.
    pub fn cut_at(&self, more: u64) {
        self.switch.set_at(more, Mode::Cut);
    }

    /// Resolves when not everything passes any more.
    pub async fn interrupted(&self) {
        self.switch.interrupted().await;
    }

    /// How many bytes have passed, both ways together.
    pub fn passed(&self) -> u64 {
        self.switch.passed()
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward_tcp(
    listener: TcpListener,
    target: SocketAddr,
    faults: Faults,
    switch: Arc<Switch>,
    accepted: Arc<AtomicUsize>,
) {
    let mut pairs = JoinSet::new();
    let mut number = 0;
    while let Ok((client, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::Relaxed);
        let switch = switch.clone();
        number += 2;
        pairs.spawn(async move {
            let server = TcpStream::connect(target).await?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            let there = Stream { way: Way::There, faults, number, switch: switch.clone() };
            let back = Stream { way: Way::Back, faults, number: number + 1, switch };
            tokio::try_join!(there.carry(client_read, server_write), back.carry(server_read, client_write)).map(|_| ())
        });
        while pairs.try_join_next().is_some() {}
    }
}

/// One way of a connection.
struct Stream {
    way: Way,
    faults: Faults,
    number: u64,
    switch: Arc<Switch>,
}

impl Stream {
    async fn carry(self, from: OwnedReadHalf, to: OwnedWriteHalf) -> io::Result<()> {
        let (pieces, waiting) = mpsc::channel(QUEUE_LEN);
        tokio::try_join!(self.take(from, pieces), self.give(to, waiting)).map(|_| ())
    }

    /// Reads pieces, and says when each is due.
    async fn take(&self, mut from: OwnedReadHalf, pieces: mpsc::Sender<(Instant, Vec<u8>)>) -> io::Result<()> {
        let mut random = Random::new(self.faults.seed.wrapping_mul(1_000_003).wrapping_add(self.number));
        let mut modes = self.switch.mode.subscribe();
        let mut left = self.faults.cut_after.map(|bytes| bytes / 2 + random.below(bytes.max(1)));
        let mut buffer = vec![0; 64 * 1024];
        let mut last = Instant::now();
        loop {
            let len = tokio::select! {
                len = from.read(&mut buffer) => len?,
                _ = cut(&mut modes) => return Err(io::ErrorKind::ConnectionReset.into()),
            };
            let stall = match random.percent(self.faults.loss_percent) {
                true => STALL + 2 * self.faults.delay,
                false => Duration::ZERO,
            };
            // What comes after it waits too.
            last = last.max(Instant::now() + self.faults.delay + stall);
            // An empty piece is the end.
            let is_end = len == 0;
            if pieces.send((last, buffer[..len].to_vec())).await.is_err() || is_end {
                return Ok(());
            }
            if let Some(left) = &mut left {
                *left = left.checked_sub(len).ok_or(io::ErrorKind::ConnectionReset)?;
            }
        }
    }
    async fn give(&self, mut to: OwnedWriteHalf, mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>) -> io::Result<()> {
        let mut modes = self.switch.mode.subscribe();
        while let Some((due, piece)) = pieces.recv().await {
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            match modes.wait_for(|mode| mode.passes(self.way) || *mode == Mode::Cut).await {
                Ok(mode) if mode.passes(self.way) => {}
                _ => return Err(io::ErrorKind::ConnectionReset.into()),
            }
            if piece.is_empty() {
                break;
            }
            to.write_all(&piece).await?;
            self.switch.count(piece.len());
        }
        to.shutdown().await
    }
}

async fn cut(modes: &mut watch::Receiver<Mode>) {
    if modes.wait_for(|mode| *mode == Mode::Cut).await.is_err() {
        std::future::pending().await
    }
}

/// A UDP proxy on a port of its own on 127.0.0.1, whose target may have IPv6. It ends when it is dropped.
#[derive(Debug)]
pub struct UdpProxy {
    address: SocketAddr,
    switch: Arc<Switch>,
    task: AbortHandle,
}

impl UdpProxy {
    /// Starts to forward to `target`, each client from a port of its own.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        Self::start_with(target, Faults::default()).await
    }

    /// The same over a bad link.
    pub async fn start_with(target: SocketAddr, faults: Faults) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let address = socket.local_addr()?;
        let switch = Switch::new();
        let task = tokio::spawn(forward_udp(socket, target, faults, switch.clone())).abort_handle();
        Ok(Self { address, switch, task })
    }

    /// Where to send instead of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops every packet from now on.
    pub fn freeze(&self) {
        self.switch.set(Mode::Frozen);
    }

    /// Drops every packet but those that go this way.
    pub fn half_open(&self, open: Way) {
        self.switch.set(Mode::HalfOpen(open));
    }

    /// Forwards again.
    pub fn thaw(&self) {
        self.switch.set(Mode::Forward);
    }

    /// Freezes when so many more bytes have passed, both ways together.
    pub fn freeze_at(&self, more: u64) {
        self.switch.set_at(more, Mode::Frozen);
    }

    /// Resolves when not everything passes any more.
    pub async fn interrupted(&self) {
        self.switch.interrupted().await;
    }

    /// How many bytes have passed, both ways together.
    pub fn passed(&self) -> u64 {
        self.switch.passed()
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward_udp(socket: Arc<UdpSocket>, target: SocketAddr, faults: Faults, switch: Arc<Switch>) {
    let mut clients: HashMap<SocketAddr, Link> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; 65_535];
    let any = if target.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    // An error of one datagram (a port that is closed) says nothing about the next.
    loop {
        let Ok((len, client)) = socket.recv_from(&mut buffer).await else { continue };
        if !clients.contains_key(&client) {
            let Ok(upstream) = UdpSocket::bind(any).await else { continue };
            let (upstream, number) = (Arc::new(upstream), clients.len() as u64 * 2);
            let ends = [
                End { way: Way::There, from: upstream.clone(), to: target, switch: switch.clone() },
                End { way: Way::Back, from: socket.clone(), to: client, switch: switch.clone() },
            ];
            let [there, back] = ends.map(|end| {
                let number = number + u64::from(end.way == Way::Back);
                Link::new(faults, number, end, &mut tasks)
            });
            tasks.spawn(return_udp(upstream, back));
            clients.insert(client, there);
        }
        if let Some(link) = clients.get_mut(&client) {
            link.pass(&buffer[..len]);
        }
    }
}

async fn return_udp(upstream: Arc<UdpSocket>, mut link: Link) {
    let mut buffer = vec![0; 65_535];
    loop {
        let Ok((len, _)) = upstream.recv_from(&mut buffer).await else { continue };
        link.pass(&buffer[..len]);
    }
}

/// One way of a client's packets.
struct Link {
    faults: Faults,
    random: Random,
    queue: mpsc::Sender<(Instant, Vec<u8>)>,
}

impl Link {
    fn new(faults: Faults, number: u64, end: End, tasks: &mut JoinSet<()>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_LEN);
        tasks.spawn(end.deliver(waiting));
        Self { faults, random: Random::new(faults.seed.wrapping_mul(1_000_003).wrapping_add(number)), queue }
    }

    fn pass(&mut self, packet: &[u8]) {
        // Every packet costs the same draws, so that one fault more does not move the others.
        let Faults { loss_percent, duplicate_percent, reorder_percent, delay, .. } = self.faults;
        let [lost, doubled, late] =
            [loss_percent, duplicate_percent, reorder_percent].map(|percent| self.random.percent(percent));
        let due = Instant::now() + delay + if late { HELD_BACK } else { Duration::ZERO };
        for _ in 0..usize::from(!lost) + usize::from(doubled) {
            // A queue that is full loses packets, as in a router.
            let _ = self.queue.try_send((due, packet.to_vec()));
        }
    }
}

/// Where a way ends.
struct End {
    way: Way,
    from: Arc<UdpSocket>,
    to: SocketAddr,
    switch: Arc<Switch>,
}

impl End {
    /// Sends packets when they are due. What is on its way when the way falls silent is lost, too.
    async fn deliver(self, mut queue: mpsc::Receiver<(Instant, Vec<u8>)>) {
        let mut waiting = BTreeMap::new();
        let mut number = 0u64;
        loop {
            let next = waiting.first_key_value().map(|((due, _), _): (&(Instant, u64), _)| *due);
            tokio::select! {
                packet = queue.recv() => {
                    let Some((due, packet)) = packet else { return };
                    number += 1;
                    waiting.insert((due, number), packet);
                }
                () = until(next) => {
                    let (_, packet): (_, Vec<u8>) = waiting.pop_first().expect("one is due");
                    if self.switch.passes(self.way) {
                        self.from.send_to(&packet, self.to).await.ok();
                        self.switch.count(packet.len());
                    }
                }
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) if due <= Instant::now() => {}
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
