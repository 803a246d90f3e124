//! [`QuicBuilder`], and the transport that it builds.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use sync_core::{
    PeerAddress,
    transport::{
        Connection, Incoming, SyncTransport, TransportBuilder, TransportContext, TransportError, TransportErrorKind,
        TransportState,
    },
};

use crate::{
    address::{SCHEME, advertised},
    config::{QuicConfig, Windows},
    dial::{self, Dialler},
    error::closed,
    limits,
    listen::{self, Listener, Listening},
    state::QuicState,
};

/// Makes a [`QuicTransport`]. Without further ado it listens on every interface, on a port that is
/// chosen at the first `listen` and kept from then on.
///
/// ```
/// use transport_quic::QuicTransport;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let office = QuicTransport::builder().bind("[::]:4433".parse()?);
/// let behind_nat = QuicTransport::builder().bind("[::]:4433".parse()?).advertise("quic://hub.example:4433".parse()?);
/// let only_dialling = QuicTransport::builder().client_only();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct QuicBuilder {
    bind: Option<SocketAddr>,
    advertise: Vec<PeerAddress>,
    role: Role,
    windows: Windows,
    max_connections: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Role {
    #[default]
    Both,
    ClientOnly,
}

impl QuicBuilder {
    /// Where to listen. Port 0 means the port of the last start, or any. The default is `[::]:0`, which takes IPv4 too,
    /// or `0.0.0.0:0` on a machine without IPv6.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = Some(address);
        self
    }

    /// Tells others this address instead of those of the interfaces: for a listener behind NAT, or one with
    /// a DNS name. May be given several times.
    pub fn advertise(mut self, address: PeerAddress) -> Self {
        self.advertise.push(address);
        self
    }

    /// Only dials. `listen` then succeeds with no address.
    pub fn client_only(mut self) -> Self {
        self.role = Role::ClientOnly;
        self
    }

    /// How much the other end may send ahead.
    pub fn windows(mut self, windows: Windows) -> Self {
        self.windows = windows;
        self
    }

    /// How many accepted connections may be open at a time; [`limits::MAX_CONNECTIONS`] by default.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.max_connections = Some(count);
        self
    }

    /// Builds the transport from the saved state, if any. Nothing is bound yet.
    ///
    /// # Errors
    ///
    /// [`TransportErrorKind::StateMismatch`] when the state was not written by this transport.
    pub fn build_transport(self, state: Option<&TransportState>) -> Result<QuicTransport, TransportError> {
        let saved = state.map(QuicState::decode).transpose()?;
        let key = match &saved {
            Some(saved) => saved.key_pair()?,
            None => rcgen::KeyPair::generate().map_err(|cause| unusable(cause.into()))?,
        };
        let kept = QuicState { port: saved.map_or(0, |saved| saved.port), certificate_key: key.serialize_der() };
        Ok(QuicTransport {
            config: QuicConfig::new(&key, self.windows).map_err(unusable)?,
            settings: self,
            kept: Mutex::new(kept),
            dialler: Mutex::new(Dialler::Unbound),
            listening: tokio::sync::Mutex::new(Listening::Idle),
        })
    }
}

fn unusable(cause: Box<dyn std::error::Error + Send + Sync>) -> TransportError {
    let context = "preparing QUIC: no certificate could be made of the key; remove the saved state and try again";
    TransportError::because(TransportErrorKind::StateMismatch, context, cause)
}

#[async_trait]
impl TransportBuilder for QuicBuilder {
    async fn build(self: Box<Self>, context: TransportContext) -> Result<Arc<dyn SyncTransport>, TransportError> {
        Ok(Arc::new(self.build_transport(context.state.as_ref())?))
    }
}

/// Raw QUIC as a transport. See the [crate's documentation](crate).
pub struct QuicTransport {
    settings: QuicBuilder,
    config: QuicConfig,
    kept: Mutex<QuicState>,
    dialler: Mutex<Dialler>,
    listening: tokio::sync::Mutex<Listening>,
}

impl QuicTransport {
    /// A builder with the defaults.
    pub fn builder() -> QuicBuilder {
        QuicBuilder::default()
    }

    fn bind_listener(&self) -> Result<Listener, TransportError> {
        let remembered = self.kept().port;
        let cannot = |cause: std::io::Error| {
            let wanted = self.settings.bind.map_or_else(|| "[::]:0".to_owned(), |address| address.to_string());
            let context = format!("listening on UDP {wanted}: it cannot be bound; choose another address or port 0");
            TransportError::because(TransportErrorKind::CannotListen, context, cause)
        };
        let socket = listen::bind(self.settings.bind, remembered).map_err(cannot)?;
        let local = socket.local_addr().map_err(cannot)?;
        let addresses = match self.settings.advertise.is_empty() {
            true => advertised(local),
            false => self.settings.advertise.clone(),
        };
        let max_connections = self.settings.max_connections.unwrap_or(limits::MAX_CONNECTIONS);
        let listener = Listener::start(socket, &self.config, max_connections, addresses).map_err(cannot)?;
        self.kept().port = local.port();
        Ok(listener)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, QuicState> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SyncTransport for QuicTransport {
    fn schemes(&self) -> &[&'static str] {
        &[SCHEME]
    }

    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        let endpoint = self.dialler.lock().unwrap_or_else(PoisonError::into_inner).endpoint(&self.config)?;
        dial::dial(endpoint, &self.config.client, address).await
    }

    async fn listen(&self, incoming: Incoming) -> Result<Vec<PeerAddress>, TransportError> {
        let mut listening = self.listening.lock().await;
        match &*listening {
            Listening::Closed => return Err(closed("listening")),
            Listening::Open(listener) if listener.has_failed() => {}
            Listening::Open(_) | Listening::ClientOnly => {
                let context = "listening: this QUIC transport listens already; stop it first";
                return Err(TransportError::new(TransportErrorKind::AlreadyListening, context));
            }
            Listening::Idle | Listening::Draining(_) => {}
        }
        if self.settings.role == Role::ClientOnly {
            *listening = Listening::ClientOnly;
            return Ok(Vec::new());
        }
        let taken_up = match &*listening {
            Listening::Draining(listener) => listener.accept(incoming.clone()).await,
            _ => false,
        };
        let listener = match std::mem::replace(&mut *listening, Listening::Idle) {
            Listening::Draining(listener) if taken_up => listener,
            _ => {
                let listener = self.bind_listener()?;
                listener.accept(incoming).await;
                listener
            }
        };
        let addresses = listener.addresses.clone();
        *listening = Listening::Open(listener);
        Ok(addresses)
    }

    async fn stop_listening(&self) -> Result<(), TransportError> {
        let mut listening = self.listening.lock().await;
        let port_is_free = match &mut *listening {
            Listening::Open(listener) => listener.stop().await,
            Listening::ClientOnly => true,
            Listening::Closed => return Err(closed("stopping to listen")),
            Listening::Idle | Listening::Draining(_) => {
                let context = "stopping to listen: this QUIC transport does not listen";
                return Err(TransportError::new(TransportErrorKind::NotListening, context));
            }
        };
        *listening = match std::mem::replace(&mut *listening, Listening::Idle) {
            Listening::Open(listener) if !port_is_free => Listening::Draining(listener),
            _ => Listening::Idle,
        };
        Ok(())
    }

    fn state(&self) -> Option<TransportState> {
        match self.settings.role {
            Role::Both => Some(self.kept().encode()),
            Role::ClientOnly => None,
        }
    }

    async fn close(&self) {
        let dialler = self.dialler.lock().unwrap_or_else(PoisonError::into_inner).close();
        let listener = match std::mem::replace(&mut *self.listening.lock().await, Listening::Closed) {
            Listening::Open(listener) | Listening::Draining(listener) => Some(listener.close()),
            Listening::Idle | Listening::ClientOnly | Listening::Closed => None,
        };
        // Each ends by itself within `CLOSE_GRACE`; one that panicked has freed its socket too.
        for task in [dialler, listener].into_iter().flatten() {
            let _ = task.await;
        }
    }
}

impl fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTransport").field("settings", &self.settings).finish_non_exhaustive()
    }
}
