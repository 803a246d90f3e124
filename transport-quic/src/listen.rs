//! The listener's task: admission, refusal, the end.

use std::{io, net::UdpSocket, sync::Arc};

use quinn::{Endpoint, TokioRuntime, VarInt};
use sync_core::{
    PeerAddress,
    transport::{CloseReason, Incoming},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::{
    config::QuicConfig,
    connection::QuicConnection,
    limits,
    socket::{self, ReleasableSocket},
};

/// The accepting side.
pub(crate) enum Listening {
    /// Nothing is bound.
    Idle,
    /// Connections are accepted.
    Open(Listener),
    /// Who comes new is refused; connections that were accepted earlier go on and hold the port.
    Draining(Listener),
    /// `listen` was called on a client-only transport.
    ClientOnly,
    /// No more.
    Closed,
}

/// The handle of a listener's task. The task owns the endpoint and ends it when the handle is dropped.
pub(crate) struct Listener {
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
    /// Where others can dial.
    pub addresses: Vec<PeerAddress>,
}

enum Order {
    /// Hand connections to this queue from now on; the answer comes when that is so.
    Accept(Incoming, oneshot::Sender<()>),
    /// Refuse who comes new; end when the last connection has ended.
    Stop,
}

impl Listener {
    /// Starts the task on a bound socket. It refuses everyone until [`Self::accept`].
    pub fn start(
        socket: UdpSocket,
        config: &QuicConfig,
        max_connections: usize,
        addresses: Vec<PeerAddress>,
    ) -> io::Result<Self> {
        let socket = ReleasableSocket::new(socket)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            config.endpoint.clone(),
            Some(config.server.clone()),
            socket.clone(),
            Arc::new(TokioRuntime),
        )?;
        let (orders, received) = mpsc::channel(1);
        let admission = Admission {
            endpoint,
            socket,
            max_connections,
            incoming: None,
            draining: false,
            handshakes: JoinSet::new(),
        };
        let task = tokio::spawn(admission.run(received));
        Ok(Self { orders, task, addresses })
    }

    /// Whether its socket failed: nothing is accepted any more.
    pub fn has_failed(&self) -> bool {
        self.task.is_finished()
    }

    /// Hands connections to `incoming`. False when the task has ended meanwhile.
    pub async fn accept(&self, incoming: Incoming) -> bool {
        let (taken, answer) = oneshot::channel();
        self.orders.send(Order::Accept(incoming, taken)).await.is_ok() && answer.await.is_ok()
    }

    /// Refuses who comes new. True when the port is free, false when connections still hold it.
    pub async fn stop(&mut self) -> bool {
        // A task that has ended cannot take the order, and need not.
        let _ = self.orders.send(Order::Stop).await;
        timeout(limits::STOP_GRACE, &mut self.task).await.is_ok()
    }

    /// Ends it with all connections. The task that is returned is done when the port is free.
    pub fn close(self) -> JoinHandle<()> {
        self.task
    }
}

/// What the task holds.
struct Admission {
    endpoint: Endpoint,
    socket: Arc<ReleasableSocket>,
    max_connections: usize,
    /// Where connections go; nobody is admitted without.
    incoming: Option<Incoming>,
    draining: bool,
    handshakes: JoinSet<()>,
}

impl Admission {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Accept(incoming, taken)) => {
                        self.incoming = Some(incoming);
                        self.draining = false;
                        // Whoever asked may have given up; the queue then tells so by being closed.
                        let _ = taken.send(());
                    }
                    Some(Order::Stop) => {
                        self.incoming = None;
                        self.draining = true;
                        self.handshakes.abort_all();
                    }
                    None => break,
                },
                arrived = self.endpoint.accept() => match arrived {
                    Some(arrived) => self.admit(arrived),
                    None => {
                        tracing::error!("the socket for listening failed; listen again");
                        break;
                    }
                },
                Some(_) = self.handshakes.join_next() => {}
                () = self.endpoint.wait_idle(), if self.draining => break,
            }
        }
        self.handshakes.shutdown().await;
        wind_down(&self.endpoint, &self.socket).await;
    }

    /// Refuses, asks to show a return path, or starts the handshake.
    fn admit(&mut self, arrived: quinn::Incoming) {
        let Some(incoming) = self.incoming.as_ref().filter(|incoming| !incoming.is_closed()) else {
            return arrived.refuse();
        };
        if self.handshakes.len() >= limits::MAX_HANDSHAKES || self.endpoint.open_connections() >= self.max_connections {
            tracing::warn!(from = %arrived.remote_address(), "too many connections; refused");
            return arrived.refuse();
        }
        if self.handshakes.len() >= limits::VALIDATE_FROM && arrived.may_retry() {
            if let Err(error) = arrived.retry() {
                error.into_incoming().refuse();
            }
            return;
        }
        self.handshakes.spawn(shake_hands(arrived, incoming.clone()));
    }
}

async fn shake_hands(arrived: quinn::Incoming, incoming: Incoming) {
    let from = arrived.remote_address();
    match timeout(limits::HANDSHAKE_TIMEOUT, arrived).await {
        Ok(Ok(connection)) => match QuicConnection::new(connection) {
            Ok(connection) => {
                if !incoming.offer(Box::new(connection)) {
                    tracing::warn!(%from, "nobody takes the connection; refused");
                }
            }
            Err(error) => tracing::debug!(%from, %error, "not accepted"),
        },
        Ok(Err(error)) => tracing::debug!(%from, %error, "the handshake failed"),
        Err(_) => tracing::debug!(%from, "the handshake took too long"),
    }
}

/// Ends every connection of the endpoint, gives the other ends a moment to hear it, and frees the port.
pub(crate) async fn wind_down(endpoint: &Endpoint, socket: &ReleasableSocket) {
    endpoint.close(VarInt::from_u32(CloseReason::Done as u32), b"");
    // Whoever cannot be told in time notices by the idle deadline.
    let _ = timeout(limits::CLOSE_GRACE, endpoint.wait_idle()).await;
    socket.release();
}

/// Binds the listener's socket. A port that was merely remembered and is taken is given up for another.
pub(crate) fn bind(address: Option<std::net::SocketAddr>, remembered: u16) -> io::Result<UdpSocket> {
    let wanted = address.map_or(0, |address| address.port());
    if wanted != 0 || remembered == 0 {
        return socket::bind(address, wanted);
    }
    socket::bind(address, remembered).or_else(|error| {
        tracing::warn!(port = remembered, %error, "the port of the last start cannot be had; taking another");
        socket::bind(address, 0)
    })
}
