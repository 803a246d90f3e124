//! Proxies on loopback that can fall silent or be cut: what a cable, a router and a laptop lid do to real sockets.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// What a proxy does with what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Frozen,
    Cut,
}

/// A TCP proxy on a port of its own on 127.0.0.1. It ends when it is dropped.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    task: AbortHandle,
}

impl TcpProxy {
    /// Starts to forward to `target`.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Forward);
        let task = tokio::spawn(forward_tcp(listener, target, modes)).abort_handle();
        Ok(Self { address, mode, task })
    }

    /// Where to connect instead of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds every connection open and carries nothing more.
    pub fn freeze(&self) {
        self.mode.send_replace(Mode::Frozen);
    }

    /// Goes on; what waited arrives.
    pub fn thaw(&self) {
        self.mode.send_replace(Mode::Forward);
    }

    /// Ends every connection, present and to come.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward_tcp(listener: TcpListener, target: SocketAddr, modes: watch::Receiver<Mode>) {
    let mut pairs = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let modes = modes.clone();
        pairs.spawn(async move {
            let server = TcpStream::connect(target).await?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            let (client_read, client_write) = client.into_split();
            let (server_read, server_write) = server.into_split();
            let there = copy(client_read, server_write, modes.clone());
            let back = copy(server_read, client_write, modes);
            tokio::try_join!(there, back).map(|_| ())
        });
        while pairs.try_join_next().is_some() {}
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut until_cut = modes.clone();
    loop {
        let len = tokio::select! {
            len = from.read(&mut buffer) => len?,
            _ = cut(&mut until_cut) => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        forwarding(&mut modes).await?;
        if len == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..len]).await?;
    }
}

async fn cut(modes: &mut watch::Receiver<Mode>) {
    modes.wait_for(|mode| *mode == Mode::Cut).await.ok();
}

async fn forwarding(modes: &mut watch::Receiver<Mode>) -> io::Result<()> {
    match modes.wait_for(|mode| *mode != Mode::Frozen).await {
        Ok(mode) if *mode == Mode::Forward => Ok(()),
        _ => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

/// A UDP proxy on a port of its own on 127.0.0.1. It ends when it is dropped.
#[derive(Debug)]
pub struct UdpProxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    task: AbortHandle,
}

impl UdpProxy {
    /// Starts to forward to `target`, each client from a port of its own.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let address = socket.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Forward);
        let task = tokio::spawn(forward_udp(socket, target, modes)).abort_handle();
        Ok(Self { address, mode, task })
    }

    /// Where to send instead of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops every packet from now on.
    pub fn freeze(&self) {
        self.mode.send_replace(Mode::Frozen);
    }

    /// Forwards again.
    pub fn thaw(&self) {
        self.mode.send_replace(Mode::Forward);
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward_udp(socket: Arc<UdpSocket>, target: SocketAddr, modes: watch::Receiver<Mode>) {
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut returns = JoinSet::new();
    let mut buffer = vec![0; 65_535];
    // An error of one datagram (a port that is closed) says nothing about the next.
    loop {
        let Ok((len, client)) = socket.recv_from(&mut buffer).await else { continue };
        if *modes.borrow() != Mode::Forward {
            continue;
        }
        let upstream = match clients.get(&client) {
            Some(upstream) => upstream.clone(),
            None => {
                let Ok(upstream) = UdpSocket::bind("127.0.0.1:0").await else { continue };
                let upstream = Arc::new(upstream);
                returns.spawn(return_udp(upstream.clone(), socket.clone(), client, modes.clone()));
                clients.insert(client, upstream.clone());
                upstream
            }
        };
        upstream.send_to(&buffer[..len], target).await.ok();
    }
}

async fn return_udp(
    upstream: Arc<UdpSocket>,
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    modes: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 65_535];
    loop {
        let Ok((len, _)) = upstream.recv_from(&mut buffer).await else { continue };
        if *modes.borrow() == Mode::Forward {
            socket.send_to(&buffer[..len], client).await.ok();
        }
    }
}
