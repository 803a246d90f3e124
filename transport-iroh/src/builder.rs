//! [`IrohBuilder`], and the transport that it builds.

use std::{fmt, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use iroh::{Endpoint, RelayUrl, SecretKey};
use sync_core::{
    PeerAddress,
    transport::{
        Connection, Incoming, SyncTransport, TransportBuilder, TransportContext, TransportError, TransportState,
    },
};

use crate::{
    address::{Reach, SCHEME, advertised, parse},
    dial,
    endpoint::{OwnEndpoint, Services},
    listen::Gate,
    mount::Protocol,
    open::{Dialling, OpenConnections},
    state::IrohState,
};

/// Makes an [`IrohTransport`]. Without further ado it has an endpoint of its own with the node's key, on every
/// interface, on a port that is chosen once and kept from then on, with no relay.
///
/// ```
/// use transport_iroh::IrohTransport;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let local_network = IrohTransport::builder();
/// let loopback = IrohTransport::builder().bind("127.0.0.1:0".parse()?);
/// let own_relay = IrohTransport::builder().relay("https://relay.example".parse()?);
/// let internet = IrohTransport::builder().n0();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct IrohBuilder {
    bind: Option<SocketAddr>,
    services: Services,
    role: Role,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Role {
    #[default]
    Both,
    ClientOnly,
}

impl IrohBuilder {
    /// Where to bind, for dialling and listening alike. Port 0 means the port of the last start, or any. With the
    /// address of one interface nothing else is used: `127.0.0.1:0` stays on this machine. The default is every interface.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.bind = Some(address);
        self
    }

    /// Uses this relay. May be given several times; iroh picks the nearest.
    pub fn relay(mut self, relay: RelayUrl) -> Self {
        match &mut self.services {
            Services::Relays(relays) => relays.push(relay),
            Services::Nothing | Services::N0 => self.services = Services::Relays(vec![relay]),
        }
        self
    }

    /// Uses the public relays and the lookup of Number 0. They learn the node's id and addresses.
    pub fn n0(mut self) -> Self {
        self.services = Services::N0;
        self
    }

    /// Only dials, from any port. `listen` then succeeds with no address.
    pub fn client_only(mut self) -> Self {
        self.role = Role::ClientOnly;
        self
    }
}

#[async_trait]
impl TransportBuilder for IrohBuilder {
    async fn build(self: Box<Self>, context: TransportContext) -> Result<Arc<dyn SyncTransport>, TransportError> {
        let saved = context.state.as_ref().map(IrohState::decode).transpose()?.unwrap_or_default();
        let key = SecretKey::from_bytes(&context.node_key.to_bytes());
        let (bind, port) = match self.role {
            Role::Both => (self.bind, saved.port),
            Role::ClientOnly => (self.bind.map(|address| SocketAddr::new(address.ip(), 0)), 0),
        };
        Ok(Arc::new(IrohTransport {
            place: Place::Own(Box::new(OwnEndpoint::new(key, bind, self.services, port))),
            role: self.role,
            gate: Arc::default(),
            open: Arc::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }
}

/// Makes an [`IrohTransport`] on the application's endpoint. From [`IrohTransport::mount`].
#[derive(Debug)]
pub struct MountedBuilder {
    endpoint: Endpoint,
    protocol: Protocol,
}

#[async_trait]
impl TransportBuilder for MountedBuilder {
    async fn build(self: Box<Self>, context: TransportContext) -> Result<Arc<dyn SyncTransport>, TransportError> {
        // Nothing is kept, but state of another kind still means that the name is another transport's.
        context.state.as_ref().map(IrohState::decode).transpose()?;
        Ok(Arc::new(IrohTransport {
            place: Place::Mounted(self.endpoint),
            role: Role::Both,
            gate: self.protocol.gate,
            open: self.protocol.open,
            turn: tokio::sync::Mutex::default(),
        }))
    }
}

/// iroh as a transport. See the [crate's documentation](crate).
pub struct IrohTransport {
    place: Place,
    role: Role,
    gate: Arc<Gate>,
    open: Arc<OpenConnections>,
    /// `listen`, `stop_listening` and `close` take turns.
    turn: tokio::sync::Mutex<()>,
}

enum Place {
    Own(Box<OwnEndpoint>),
    Mounted(Endpoint),
}

impl IrohTransport {
    /// A builder for an endpoint of one's own.
    pub fn builder() -> IrohBuilder {
        IrohBuilder::default()
    }

    /// A builder for the application's endpoint, and what its `Router` needs to accept for it.
    ///
    /// ```
    /// use iroh::{Endpoint, endpoint::presets, protocol::Router};
    /// use transport_iroh::{ALPN, IrohTransport, iroh};
    ///
    /// # async fn mount() -> Result<(), Box<dyn std::error::Error>> {
    /// let endpoint = Endpoint::bind(presets::Minimal).await?;
    /// let (builder, protocol) = IrohTransport::mount(endpoint.clone());
    /// let router = Router::builder(endpoint).accept(ALPN, protocol).spawn();
    /// // Register `builder` with the manager; shut the router down after it.
    /// # Ok(())
    /// # }
    /// ```
    pub fn mount(endpoint: Endpoint) -> (MountedBuilder, Protocol) {
        let protocol = Protocol { gate: Arc::default(), open: Arc::default() };
        (MountedBuilder { endpoint, protocol: protocol.clone() }, protocol)
    }

    /// The endpoint, and a guard that keeps it from being released.
    async fn endpoint(&self) -> Result<(Endpoint, Dialling), TransportError> {
        match &self.place {
            Place::Own(own) => own.take(&self.gate, &self.open).await,
            Place::Mounted(endpoint) => Ok((endpoint.clone(), self.open.dialling())),
        }
    }
}

#[async_trait]
impl SyncTransport for IrohTransport {
    fn schemes(&self) -> &[&'static str] {
        &[SCHEME]
    }

    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        self.gate.check_usable("dialling")?;
        let target = parse(address)?;
        let (endpoint, _dialling) = self.endpoint().await?;
        let connection = dial::dial(&endpoint, &self.open, address, target).await?;
        // On the application's endpoint a dial may succeed after we were closed; dropping ends it.
        self.gate.check_usable("dialling")?;
        Ok(connection)
    }

    async fn listen(&self, incoming: Incoming) -> Result<Vec<PeerAddress>, TransportError> {
        let _turn = self.turn.lock().await;
        self.gate.check_shut()?;
        if self.role == Role::ClientOnly {
            self.gate.open(None);
            return Ok(Vec::new());
        }
        let (endpoint, _in_use) = self.endpoint().await?;
        let reach = match &self.place {
            Place::Own(own) => own.reach(),
            Place::Mounted(_) => Reach::Direct,
        };
        let address = advertised(&endpoint, reach).await;
        self.gate.open(Some(incoming));
        Ok(vec![address])
    }

    async fn stop_listening(&self) -> Result<(), TransportError> {
        let _turn = self.turn.lock().await;
        self.gate.shut()?;
        if let Place::Own(own) = &self.place {
            own.release_if_idle(&self.open).await;
        }
        Ok(())
    }

    fn state(&self) -> Option<TransportState> {
        match (&self.place, self.role) {
            (Place::Own(own), Role::Both) => Some(IrohState { port: own.port() }.encode()),
            (Place::Own(_), Role::ClientOnly) | (Place::Mounted(_), _) => None,
        }
    }

    async fn close(&self) {
        self.gate.close();
        self.open.close_all();
        let _turn = self.turn.lock().await;
        if let Place::Own(own) = &self.place {
            own.close().await;
        }
    }
}

impl Drop for IrohTransport {
    fn drop(&mut self) {
        // The task of an endpoint of one's own notices by itself and closes it; the application's stays.
        self.gate.close();
        self.open.close_all();
    }
}

impl fmt::Debug for IrohTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.place {
            Place::Own(_) => "own endpoint",
            Place::Mounted(_) => "the application's endpoint",
        };
        f.debug_tuple("IrohTransport").field(&place).finish()
    }
}
