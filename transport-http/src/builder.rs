//! [`HttpBuilder`], and the transport that it builds.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use axum::Router;
use rustls::ServerConfig;
use sync_core::{
    PeerAddress,
    model::PeerId,
    transport::{
        Connection, Incoming, SyncTransport, TransportBuilder, TransportContext, TransportError, TransportErrorKind,
        TransportState,
    },
};

use crate::{
    address::{SCHEMES, advertised},
    dial,
    error::closed,
    hub::{self, Hub},
    limits::MAX_CONNECTIONS,
    listen::{self, Listener},
    rest::NodeApi,
    state::HttpState,
    tls::{self, Identity},
};

/// Makes an [`HttpTransport`]. Without further ado it listens on every interface, on a port that is
/// chosen at the first `listen` and kept from then on.
///
/// ```
/// use transport_http::HttpTransport;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let office = HttpTransport::builder().bind("[::]:8080".parse()?);
/// let behind_nginx =
///     HttpTransport::builder().bind("127.0.0.1:8080".parse()?).advertise("https://hub.example/notes".parse()?);
/// let only_dialling = HttpTransport::builder().client_only();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct HttpBuilder {
    hub: Arc<Hub>,
    role: Role,
    bind: Option<SocketAddr>,
    advertise: Vec<PeerAddress>,
    roots: Vec<Vec<u8>>,
    identity: Option<Identity>,
    max_connections: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Role {
    #[default]
    Both,
    ClientOnly,
    Mounted,
}

impl HttpBuilder {
    /// Where to listen. Port 0 means the port of the last start, or any. The default is `[::]:0`, which takes IPv4 too,
    /// or `0.0.0.0:0` on a machine without IPv6.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = Some(address);
        self
    }

    /// Tells others this address instead of those of the interfaces: for a listener behind a reverse proxy, or
    /// one with a DNS name. May be given several times.
    pub fn advertise(mut self, address: PeerAddress) -> Self {
        self.advertise.push(address);
        self
    }

    /// Only dials. `listen` then succeeds with no address.
    pub fn client_only(mut self) -> Self {
        self.role = Role::ClientOnly;
        self
    }

    /// Trusts these root certificates (PEM) at `https` addresses, beside the system's.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(pem.into());
        self
    }

    /// Listens with TLS, showing this certificate chain and proving it with this private key (both PEM).
    pub fn tls(mut self, certificates_pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        self.identity = Some(Identity { certificates: certificates_pem.into(), key: key_pem.into() });
        self
    }

    /// How many accepted connections may be open at a time; [`MAX_CONNECTIONS`] by default.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.max_connections = Some(count);
        self
    }

    /// Answers REST requests from `api`. Without it only health and node id are answered.
    ///
    /// # Panics
    ///
    /// When it is called twice.
    pub fn rest(self, api: Arc<dyn NodeApi>) -> Self {
        self.hub.serve(api);
        self
    }

    /// Binds nothing: the application mounts [`HttpBuilder::router`] in its own axum app, and says under which
    /// addresses that can be reached. The routes answer 503 while the transport does not listen.
    ///
    /// ```
    /// use transport_http::HttpTransport;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let builder = HttpTransport::builder().mounted(["https://example.org/notes".parse()?]);
    /// let app: axum::Router = axum::Router::new().nest("/notes", builder.router());
    /// // manager.register_transport("web", builder)
    /// # Ok(())
    /// # }
    /// ```
    pub fn mounted(mut self, addresses: impl IntoIterator<Item = PeerAddress>) -> Self {
        self.role = Role::Mounted;
        self.advertise.extend(addresses);
        self
    }

    /// The routes, for [`HttpBuilder::mounted`].
    pub fn router(&self) -> Router {
        hub::router(&self.hub)
    }

    /// Builds the transport of `context`'s node. Nothing is bound yet.
    ///
    /// # Errors
    ///
    /// [`TransportErrorKind::StateMismatch`] when the state was not written by this transport, and
    /// [`TransportErrorKind::CannotListen`] when a certificate or key cannot be used.
    pub fn build_transport(self, context: &TransportContext) -> Result<HttpTransport, TransportError> {
        let saved = context.state.as_ref().map(HttpState::decode).transpose()?;
        let client = dial::client(&self.roots)?;
        let tls = self.identity.as_ref().map(tls::server).transpose()?;
        self.hub.start(PeerId(context.node_key.public()), self.max_connections.unwrap_or(MAX_CONNECTIONS));
        Ok(HttpTransport {
            hub: self.hub,
            role: self.role,
            bind: self.bind,
            advertise: self.advertise,
            client,
            tls,
            kept: Mutex::new(saved),
            listening: tokio::sync::Mutex::new(Listening::Idle),
        })
    }
}

#[async_trait]
impl TransportBuilder for HttpBuilder {
    async fn build(self: Box<Self>, context: TransportContext) -> Result<Arc<dyn SyncTransport>, TransportError> {
        Ok(Arc::new(self.build_transport(&context)?))
    }
}

/// HTTP as a transport. See the [crate's documentation](crate).
pub struct HttpTransport {
    hub: Arc<Hub>,
    role: Role,
    bind: Option<SocketAddr>,
    advertise: Vec<PeerAddress>,
    client: reqwest::Client,
    tls: Option<Arc<ServerConfig>>,
    kept: Mutex<Option<HttpState>>,
    listening: tokio::sync::Mutex<Listening>,
}

#[derive(Debug)]
enum Listening {
    Idle,
    /// With a listener of its own, or without when it only dials or is mounted.
    Open(Option<Listener>),
    Closed,
}

impl HttpTransport {
    /// A builder with the defaults.
    pub fn builder() -> HttpBuilder {
        HttpBuilder::default()
    }

    /// The routes: the same as [`HttpBuilder::router`].
    pub fn router(&self) -> Router {
        hub::router(&self.hub)
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    async fn start_listener(&self) -> Result<(Listener, Vec<PeerAddress>), TransportError> {
        let cannot = |cause: std::io::Error| {
            let wanted = self.bind.map_or_else(|| "[::]:0".to_owned(), |address| address.to_string());
            let context = format!("listening on TCP {wanted}: it cannot be bound; choose another address or port 0");
            TransportError::because(TransportErrorKind::CannotListen, context, cause)
        };
        let remembered = self.kept().map(|state| state.port);
        let socket = listen::bind(self.bind, remembered).await.map_err(cannot)?;
        let local = socket.local_addr().map_err(cannot)?;
        *self.kept() = Some(HttpState { port: local.port() });
        let addresses = match self.advertise.is_empty() {
            true => advertised(self.scheme(), local),
            false => self.advertise.clone(),
        };
        let listener = Listener::start(socket, self.tls.clone(), self.router(), self.hub.closed().child_token());
        Ok((listener, addresses))
    }

    fn kept(&self) -> MutexGuard<'_, Option<HttpState>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SyncTransport for HttpTransport {
    fn schemes(&self) -> &[&'static str] {
        SCHEMES
    }

    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        tokio::select! {
            biased;
            () = self.hub.closed().cancelled() => Err(closed("dialling")),
            connection = dial::dial(&self.client, address) => Ok(self.hub.hold(connection?, None)),
        }
    }

    async fn listen(&self, incoming: Incoming) -> Result<Vec<PeerAddress>, TransportError> {
        let mut listening = self.listening.lock().await;
        match &*listening {
            Listening::Closed => return Err(closed("listening")),
            Listening::Open(_) => {
                let context = "listening: this HTTP transport listens already; stop it first";
                return Err(TransportError::new(TransportErrorKind::AlreadyListening, context));
            }
            Listening::Idle => {}
        }
        let (listener, addresses) = match self.role {
            Role::ClientOnly => (None, Vec::new()),
            Role::Mounted => (None, self.advertise.clone()),
            Role::Both => {
                let (listener, addresses) = self.start_listener().await?;
                (Some(listener), addresses)
            }
        };
        if self.role != Role::ClientOnly {
            self.hub.set_incoming(Some(incoming));
        }
        *listening = Listening::Open(listener);
        Ok(addresses)
    }

    async fn stop_listening(&self) -> Result<(), TransportError> {
        let mut listening = self.listening.lock().await;
        match std::mem::replace(&mut *listening, Listening::Idle) {
            Listening::Open(listener) => {
                self.hub.set_incoming(None);
                if let Some(listener) = listener {
                    listener.stop().await;
                }
                Ok(())
            }
            Listening::Idle => Err(TransportError::new(
                TransportErrorKind::NotListening,
                "stopping to listen: this HTTP transport does not listen",
            )),
            Listening::Closed => {
                *listening = Listening::Closed;
                Err(closed("stopping to listen"))
            }
        }
    }

    fn state(&self) -> Option<TransportState> {
        self.kept().map(HttpState::encode)
    }

    async fn close(&self) {
        self.hub.close();
        let mut listening = self.listening.lock().await;
        if let Listening::Open(Some(listener)) = std::mem::replace(&mut *listening, Listening::Closed) {
            listener.stop().await;
        }
    }
}

impl Drop for HttpTransport {
    fn drop(&mut self) {
        self.hub.close();
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.kept().map(|state| state.port);
        f.debug_struct("HttpTransport")
            .field("role", &self.role)
            .field("scheme", &self.scheme())
            .field("port", &port)
            .finish()
    }
}
