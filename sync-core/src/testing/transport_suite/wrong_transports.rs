//! Transports that break one sentence each: the suite must say which.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{io::AsyncWrite, sync::Mutex};

use super::{Broken, SilentWay, TransportFactory, run};
use crate::{
    address::PeerAddress,
    transport::{
        ByteStream, CloseReason, Connection, Incoming, StreamWrite, SyncTransport, TransportError, TransportErrorKind,
        memory::tests::MemoryFactory,
    },
};

/// The one thing that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// None.
    Nothing,
    FlipsBytes,
    HasNoBinding,
    NeverResolvesClosed,
    TakesAnyScheme,
    ListensTwice,
    StopsTwice,
    ForgetsToStop,
    ForgetsToClose,
    DialsForEver,
    HidesTheEnd,
    BuffersForEver,
    OneStreamAtATime,
    LosesCancelledStreams,
    ForgetsCancelledDials,
    LosesWhatItAccepts,
    ReportsPortZero,
    HoldsBackTheFirstByte,
    LivesOnWhenDropped,
    KeepsDroppedConnections,
}

async fn caught(fault: Fault, case: &str) {
    let Err(Broken(how)) = run(case, &WrongFactory(MemoryFactory::default(), fault)).await else {
        panic!("a transport that {fault:?} passed `{case}`");
    };
    println!("{fault:?}: {how}");
}

macro_rules! caught {
    ($($fault:ident in $case:ident as $name:ident)*) => {
        const CAUGHT: &[&str] = &[$(stringify!($case)),*];

        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                caught(Fault::$fault, stringify!($case)).await;
            }
        )*
    };
}

caught! {
    FlipsBytes in streams_carry_bytes_both_ways_in_order as b15_flipped_bytes_are_caught
    HasNoBinding in both_ends_have_the_same_channel_binding as b15_a_missing_channel_binding_is_caught
    NeverResolvesClosed in close_reaches_the_other_end as b15_a_closed_that_never_resolves_is_caught
    NeverResolvesClosed in closed_resolves_when_the_other_end_is_gone as b15_a_missed_half_open_pipe_is_caught
    TakesAnyScheme in a_foreign_scheme_is_refused as b15_a_foreign_scheme_taken_is_caught
    ListensTwice in listen_twice_is_an_error_that_changes_nothing as b15_listening_twice_is_caught
    StopsTwice in stop_when_stopped_is_an_error_that_changes_nothing as b15_stopping_twice_is_caught
    ForgetsToStop in stop_frees_the_port as b15_a_listener_that_does_not_stop_is_caught
    ForgetsToClose in close_ends_everything as b15_a_close_that_does_nothing_is_caught
    DialsForEver in dial_fails_within_the_deadline as b15_a_dial_without_deadline_is_caught
    HidesTheEnd in a_streams_end_is_seen_as_end_of_file as b15_a_lost_end_of_file_is_caught
    BuffersForEver in a_full_stream_blocks_only_itself as b15_missing_backpressure_is_caught
    LosesCancelledStreams in a_cancelled_accept_loses_no_stream as b15_a_stream_lost_by_a_cancelled_accept_is_caught
    ForgetsCancelledDials in a_cancelled_dial_leaves_no_connection as b15_a_connection_left_by_a_cancelled_dial_is_caught
    OneStreamAtATime in many_streams_at_once as b15_streams_that_wait_for_each_other_are_caught
    LosesWhatItAccepts in dial_reaches_a_listener as b15_a_connection_that_nobody_accepts_is_caught
    ReportsPortZero in port_zero_reports_the_real_port as b15_an_address_with_port_zero_is_caught
    HoldsBackTheFirstByte in accept_sees_a_stream_at_its_first_byte as b15_a_first_byte_held_back_is_caught
    LivesOnWhenDropped in dropping_closes as b15_a_dropped_transport_that_lives_on_is_caught
    KeepsDroppedConnections in dropping_a_connection_closes_it as b15_a_dropped_connection_that_stays_is_caught
}

#[test]
fn every_case_of_the_suite_fails_on_some_wrong_transport() {
    let missing: Vec<_> = super::CASES.iter().filter(|case| !CAUGHT.contains(case)).collect();
    assert!(missing.is_empty(), "no wrong transport fails {missing:?}");
}

/// What the wrong transports are caught for is their fault, not what wraps them.
mod without_a_fault {
    use super::*;

    crate::transport_suite!(WrongFactory(MemoryFactory::default(), Fault::Nothing), virtual_time);
}

struct WrongFactory(MemoryFactory, Fault);

#[async_trait]
impl TransportFactory for WrongFactory {
    async fn transport(&self) -> Arc<dyn SyncTransport> {
        let inner = self.0.transport().await;
        if self.1 == Fault::LivesOnWhenDropped {
            // A second owner that never goes.
            std::mem::forget(Arc::clone(&inner));
        }
        Arc::new(Wrong { inner, fault: self.1 })
    }

    async fn dead_addresses(&self) -> Vec<(PeerAddress, Box<dyn std::any::Any + Send>)> {
        self.0.dead_addresses().await
    }

    async fn silent_way(&self, address: &PeerAddress) -> Option<Box<dyn SilentWay>> {
        self.0.silent_way(address).await
    }
}

#[derive(Debug)]
struct Wrong {
    inner: Arc<dyn SyncTransport>,
    fault: Fault,
}

#[async_trait]
impl SyncTransport for Wrong {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        if self.fault == Fault::ForgetsCancelledDials {
            let (inner, address) = (self.inner.clone(), address.clone());
            let dial = tokio::spawn(async move {
                let connection = inner.dial(&address).await;
                // In a task that nobody cancels, and with a second owner.
                tokio::time::sleep(Duration::from_millis(2)).await;
                connection.map(|connection| &*Box::leak(connection))
            });
            let leaked = dial.await.unwrap()?;
            return Ok(Box::new(WrongConnection::new(Box::new(Leaked(leaked)), self.fault)));
        }
        match self.inner.dial(address).await {
            Err(error) if self.fault == Fault::TakesAnyScheme => {
                Err(TransportError::new(TransportErrorKind::Unreachable, error.context))
            }
            Err(_) if self.fault == Fault::DialsForEver => std::future::pending().await,
            Ok(connection) if self.fault == Fault::KeepsDroppedConnections => {
                Ok(Box::new(WrongConnection::new(Box::new(Leaked(Box::leak(connection))), self.fault)))
            }
            outcome => Ok(Box::new(WrongConnection::new(outcome?, self.fault))),
        }
    }

    async fn listen(&self, incoming: Incoming) -> Result<Vec<PeerAddress>, TransportError> {
        if self.fault == Fault::ListensTwice {
            self.inner.stop_listening().await.ok();
        }
        if self.fault == Fault::ForgetsToStop {
            return match self.inner.listen(incoming).await {
                Err(error) if error.kind == TransportErrorKind::AlreadyListening => Ok(Vec::new()),
                outcome => outcome,
            };
        }
        let (sender, mut accepted) = Incoming::channel();
        let addresses = self.inner.listen(sender).await?;
        let fault = self.fault;
        tokio::spawn(async move {
            let mut lost = Vec::new();
            while let Some(connection) = accepted.recv().await {
                if fault == Fault::LosesWhatItAccepts {
                    lost.push(connection);
                    continue;
                }
                incoming.offer(Box::new(WrongConnection::new(connection, fault)));
            }
        });
        Ok(match self.fault {
            Fault::ReportsPortZero => vec![format!("{}://localhost:0", self.schemes()[0]).parse().expect("a URL")],
            _ => addresses,
        })
    }

    async fn stop_listening(&self) -> Result<(), TransportError> {
        match self.fault {
            Fault::ForgetsToStop => Ok(()),
            Fault::StopsTwice => {
                self.inner.stop_listening().await.ok();
                Ok(())
            }
            _ => self.inner.stop_listening().await,
        }
    }

    async fn close(&self) {
        if self.fault != Fault::ForgetsToClose {
            self.inner.close().await;
        }
    }
}

/// A connection that its user cannot drop.
#[derive(Debug)]
struct Leaked(&'static dyn Connection);

#[async_trait]
impl Connection for Leaked {
    async fn open(&self) -> Result<ByteStream, TransportError> {
        self.0.open().await
    }

    async fn accept(&self) -> Result<ByteStream, TransportError> {
        self.0.accept().await
    }

    fn channel_binding(&self) -> [u8; 32] {
        self.0.channel_binding()
    }

    async fn closed(&self) -> TransportError {
        self.0.closed().await
    }

    fn close(&self, reason: CloseReason) {
        self.0.close(reason);
    }
}

struct WrongConnection {
    inner: Box<dyn Connection>,
    fault: Fault,
    open: Arc<Mutex<()>>,
}

impl WrongConnection {
    fn new(inner: Box<dyn Connection>, fault: Fault) -> Self {
        Self { inner, fault, open: Arc::default() }
    }
}

impl fmt::Debug for WrongConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrongConnection({:?})", self.fault)
    }
}

#[async_trait]
impl Connection for WrongConnection {
    async fn open(&self) -> Result<ByteStream, TransportError> {
        let only = match self.fault {
            Fault::OneStreamAtATime => Some(self.open.clone().lock_owned().await),
            _ => None,
        };
        let stream = self.inner.open().await?;
        let write = WrongWrite { inner: stream.write, fault: self.fault, has_begun: false, _only: only };
        Ok(ByteStream { read: stream.read, write: Box::new(write) })
    }

    async fn accept(&self) -> Result<ByteStream, TransportError> {
        let stream = self.inner.accept().await?;
        if self.fault == Fault::LosesCancelledStreams {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(stream)
    }

    fn channel_binding(&self) -> [u8; 32] {
        match self.fault {
            Fault::HasNoBinding => [0; 32],
            _ => self.inner.channel_binding(),
        }
    }

    async fn closed(&self) -> TransportError {
        match self.fault {
            Fault::NeverResolvesClosed => std::future::pending().await,
            _ => self.inner.closed().await,
        }
    }

    fn close(&self, reason: CloseReason) {
        self.inner.close(reason);
    }
}

struct WrongWrite {
    inner: Box<dyn StreamWrite>,
    fault: Fault,
    has_begun: bool,
    _only: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl StreamWrite for WrongWrite {}

impl AsyncWrite for WrongWrite {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.fault {
            Fault::FlipsBytes => {
                let mut flipped = bytes.to_vec();
                if flipped.len() > 1 {
                    flipped.swap(0, 1);
                }
                Pin::new(&mut self.inner).poll_write(cx, &flipped)
            }
            // Whether it keeps what it takes or loses it is not seen here: it takes without end.
            Fault::BuffersForEver => match Pin::new(&mut self.inner).poll_write(cx, bytes) {
                Poll::Pending => Poll::Ready(Ok(bytes.len())),
                taken => taken,
            },
            // It is sent with the second, if there ever is one.
            Fault::HoldsBackTheFirstByte if !self.has_begun => {
                self.has_begun = true;
                Poll::Ready(Ok(bytes.len().min(1)))
            }
            _ => Pin::new(&mut self.inner).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.fault {
            Fault::HidesTheEnd => Poll::Ready(Ok(())),
            _ => Pin::new(&mut self.inner).poll_shutdown(cx),
        }
    }
}
