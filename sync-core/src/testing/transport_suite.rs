//! The conformance suite of transports: each sentence of the contract in [`crate::transport`] is a case of that name.
//!
//! A transport's tests hand over a [`TransportFactory`] and get one test a case:
//!
//! ```text
//! mod conformance {
//!     sync_core::transport_suite!(super::MyFactory);
//! }
//! ```
//!
//! A single case can be run by name with [`run`]; [`CASES`] lists them.

mod connection_cases;
mod transport_cases;
#[cfg(test)]
mod wrong_transports;

use std::{any::Any, fmt, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::{
    address::PeerAddress,
    transport::{ByteStream, Connection, Incoming, SyncTransport, TransportError},
};

/// Makes the transports under test.
#[async_trait]
pub trait TransportFactory: Send + Sync {
    /// A fresh transport of a node of its own. Told to listen it does so on loopback, where others
    /// of this factory can dial.
    async fn transport(&self) -> Arc<dyn SyncTransport>;

    /// Addresses of its scheme where nobody answers: one that refuses, and one that swallows everything if there can be
    /// one. What comes with each is kept until the case is over.
    async fn dead_addresses(&self) -> Vec<(PeerAddress, Box<dyn Any + Send>)>;

    /// A way to `address` that can fall silent, or `None` where that cannot be made; the
    /// case that needs it says so on standard error then.
    async fn silent_way(&self, address: &PeerAddress) -> Option<Box<dyn SilentWay>>;
}

/// A way to a listener that can fall silent.
pub trait SilentWay: Send {
    /// What is dialled instead.
    fn address(&self) -> PeerAddress;

    /// From now on nothing passes, in either direction, and nobody is told.
    fn fall_silent(&mut self);
}

/// How a transport broke its contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// Nothing in a case takes longer, except where the contract itself names a time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Calls the macro `$then` with the name of each case.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_transport_case {
    ($then:path $(, $argument:tt)*) => {
        $then! {
            [$($argument),*]
            dial_reaches_a_listener
            port_zero_reports_the_real_port
            listen_twice_is_an_error_that_changes_nothing
            stop_when_stopped_is_an_error_that_changes_nothing
            stop_frees_the_port
            dial_fails_within_the_deadline
            a_cancelled_dial_leaves_no_connection
            a_foreign_scheme_is_refused
            close_ends_everything
            dropping_closes
            streams_carry_bytes_both_ways_in_order
            a_streams_end_is_seen_as_end_of_file
            many_streams_at_once
            a_full_stream_blocks_only_itself
            accept_sees_a_stream_at_its_first_byte
            a_cancelled_accept_loses_no_stream
            both_ends_have_the_same_channel_binding
            close_reaches_the_other_end
            closed_resolves_when_the_other_end_is_gone
            dropping_a_connection_closes_it
        }
    };
}

macro_rules! dispatch {
    ([] $($case:ident)*) => {
        /// The names of all cases.
        pub const CASES: &[&str] = &[$(stringify!($case)),*];

        /// Runs one case by its name.
        ///
        /// # Panics
        ///
        /// When there is no such case.
        pub async fn run(case: &str, factory: &dyn TransportFactory) -> Result<(), Broken> {
            match case {
                $(stringify!($case) => cases::$case(factory).await,)*
                unknown => panic!("there is no case `{unknown}`; there are {CASES:?}"),
            }
        }
    };
}

mod cases {
    pub(super) use super::{connection_cases::*, transport_cases::*};
}

for_each_transport_case!(dispatch);

/// One `#[tokio::test]` for each case of the suite, on the factory that the expression gives: with two
/// workers and real time, or with `virtual_time` behind it for a transport that has no sockets.
#[macro_export]
macro_rules! transport_suite {
    ($factory:expr) => {
        $crate::transport_suite!($factory, (flavor = "multi_thread", worker_threads = 2));
    };
    ($factory:expr, virtual_time) => {
        $crate::transport_suite!($factory, (start_paused = true));
    };
    ($factory:expr, $runtime:tt) => {
        fn conformance_factory() -> impl $crate::testing::transport_suite::TransportFactory {
            $factory
        }
        $crate::for_each_transport_case!($crate::transport_suite_tests, $runtime);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! transport_suite_tests {
    ([$runtime:tt] $($case:ident)*) => {
        $($crate::transport_suite_tests!(@one $runtime $case);)*
    };
    (@one ($($runtime:tt)*) $case:ident) => {
        #[tokio::test($($runtime)*)]
        async fn $case() {
            let factory = conformance_factory();
            if let Err(broken) = $crate::testing::transport_suite::run(stringify!($case), &factory).await {
                panic!("{broken}");
            }
        }
    };
}

/// Two nodes, one listening, and a connection between them.
struct Pair {
    /// Kept, because dropping a transport closes its connections.
    dialing: Arc<dyn SyncTransport>,
    listening: Arc<dyn SyncTransport>,
    addresses: Vec<PeerAddress>,
    accepted: mpsc::Receiver<Box<dyn Connection>>,
    here: Box<dyn Connection>,
    there: Box<dyn Connection>,
}

impl Pair {
    async fn connect(factory: &dyn TransportFactory) -> Result<Self, Broken> {
        let (dialing, listening) = (factory.transport().await, factory.transport().await);
        let (addresses, mut accepted) = listen(&listening).await?;
        let here = dial(&dialing, first(&addresses)?).await?;
        let there = next(&mut accepted).await?;
        Ok(Self { dialing, listening, addresses, accepted, here, there })
    }

    /// A stream as both ends see it. It begins with one byte, which was read.
    async fn stream(&self) -> Result<(ByteStream, ByteStream), Broken> {
        stream(&*self.here, &*self.there).await
    }
}

async fn stream(here: &dyn Connection, there: &dyn Connection) -> Result<(ByteStream, ByteStream), Broken> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut ours = soon("open", here.open()).await?.map_err(|error| broken("open", error))?;
    soon("the first byte", ours.write_all(b"!")).await?.map_err(|error| broken("writing the first byte", error))?;
    soon("flush", ours.flush()).await?.map_err(|error| broken("flushing", error))?;
    let mut theirs = soon("accept", there.accept()).await?.map_err(|error| broken("accept", error))?;
    let first = soon("the first byte", theirs.read_u8()).await?.map_err(|error| broken("the first byte", error))?;
    ensure(first == b'!', || format!("the first byte was {first}, not that which was written"))?;
    Ok((ours, theirs))
}

async fn listen(
    transport: &Arc<dyn SyncTransport>,
) -> Result<(Vec<PeerAddress>, mpsc::Receiver<Box<dyn Connection>>), Broken> {
    let (incoming, accepted) = Incoming::channel();
    let addresses = soon("listen", transport.listen(incoming)).await?.map_err(|error| broken("listen", error))?;
    Ok((addresses, accepted))
}

async fn dial(transport: &Arc<dyn SyncTransport>, address: &PeerAddress) -> Result<Box<dyn Connection>, Broken> {
    soon("dial", transport.dial(address)).await?.map_err(|error| broken(&format!("dialling {address}"), error))
}

async fn next(accepted: &mut mpsc::Receiver<Box<dyn Connection>>) -> Result<Box<dyn Connection>, Broken> {
    soon("the accepted connection", accepted.recv()).await?.ok_or_else(|| Broken("the listener ended".into()))
}

fn first(addresses: &[PeerAddress]) -> Result<&PeerAddress, Broken> {
    addresses.first().ok_or_else(|| Broken("listen returned no address".into()))
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T, Broken> {
    within(PATIENCE, what, future).await
}

async fn within<T>(time: Duration, what: &str, future: impl Future<Output = T>) -> Result<T, Broken> {
    tokio::time::timeout(time, future).await.map_err(|_| Broken(format!("{what} took more than {time:?}")))
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(otherwise())) }
}

fn broken(what: &str, error: impl fmt::Display) -> Broken {
    Broken(format!("{what} failed: {error}"))
}

/// That `outcome` is an error of `kind`.
fn ensure_kind<T>(
    what: &str,
    outcome: Result<T, TransportError>,
    kind: crate::transport::TransportErrorKind,
) -> Result<(), Broken> {
    match outcome {
        Ok(_) => Err(Broken(format!("{what} succeeded; `{kind}` was expected"))),
        Err(error) => {
            ensure(error.kind == kind, || format!("{what} failed with `{error}`; the kind `{kind}` was expected"))
        }
    }
}
