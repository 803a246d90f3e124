//! A UDP socket that can be let go while connections still hold it.
//!
//! In quinn each connection, and each stream of it, keeps the socket for as long as the
//! application keeps *them*, ended or not. Without more, a forgotten handle would hold a port
//! for ever, though the transport was closed. So quinn gets this wrapper, and [`ReleasableSocket::release`] takes the real
//! socket out of it.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::limits;

/// Binds a UDP socket: to `address`, or to every interface, IPv6 and IPv4 where there is IPv6.
pub(crate) fn bind(address: Option<SocketAddr>, port: u16) -> io::Result<UdpSocket> {
    if let Some(address) = address {
        return bind_one(SocketAddr::new(address.ip(), port));
    }
    match bind_one((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => bind_one((Ipv4Addr::UNSPECIFIED, port).into()),
        bound => bound,
    }
}

fn bind_one(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Best effort: the kernel has a limit of its own, and small buffers are slow, not wrong.
    let _ = socket.set_recv_buffer_size(limits::SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(limits::SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

/// See the module's documentation.
pub(crate) struct ReleasableSocket {
    inner: RwLock<Option<Arc<dyn AsyncUdpSocket>>>,
    local: SocketAddr,
    transmit_segments: usize,
    receive_segments: usize,
    may_fragment: bool,
}

impl ReleasableSocket {
    /// Wraps a bound socket. Must be called within a tokio runtime.
    pub fn new(socket: UdpSocket) -> io::Result<Arc<Self>> {
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(Self {
            local: inner.local_addr()?,
            transmit_segments: inner.max_transmit_segments(),
            receive_segments: inner.max_receive_segments(),
            may_fragment: inner.may_fragment(),
            inner: RwLock::new(Some(inner)),
        }))
    }

    /// Closes the real socket. What is sent from now on is lost, and nothing arrives any more.
    pub fn release(&self) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn inner(&self) -> Option<Arc<dyn AsyncUdpSocket>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for ReleasableSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReleasableSocket({})", self.local)
    }
}

impl AsyncUdpSocket for ReleasableSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.inner() {
            Some(socket) => socket.try_send(transmit),
            None => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        match self.inner() {
            Some(socket) => socket.poll_recv(cx, buffers, meta),
            None => Poll::Pending,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        self.transmit_segments
    }

    fn max_receive_segments(&self) -> usize {
        self.receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.may_fragment
    }
}

/// Waits until the socket can send. Holds the real socket only while it waits.
#[derive(Debug)]
struct Poller {
    socket: Arc<ReleasableSocket>,
    waiting: Option<Pin<Box<dyn UdpPoller>>>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut poller = match self.waiting.take() {
            Some(poller) => poller,
            None => match self.socket.inner() {
                Some(socket) => socket.create_io_poller(),
                None => return Poll::Ready(Ok(())),
            },
        };
        let ready = poller.as_mut().poll_writable(cx);
        if ready.is_pending() {
            self.waiting = Some(poller);
        }
        ready
    }
}
