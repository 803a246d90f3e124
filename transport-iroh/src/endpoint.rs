//! The endpoint of one's own: when it is bound, and when it ends.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use iroh::{
    Endpoint, NetReportConfig, RelayMode, RelayUrl, SecretKey,
    endpoint::{
        BindError, BindOpts, Builder, IdleTimeout, InvalidSocketAddr, PortmapperConfig, QuicTransportConfig, VarInt,
        presets,
    },
};
use sync_core::transport::{TransportError, TransportErrorKind};
use tokio::{
    sync::{Mutex, oneshot},
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    ALPN,
    address::Reach,
    error::closed,
    limits,
    listen::{self, Gate},
    open::{Dialling, OpenConnections},
};

/// Which services outside the local network the endpoint uses.
#[derive(Debug, Clone, Default)]
pub(crate) enum Services {
    /// None.
    #[default]
    Nothing,
    /// These relays.
    Relays(Vec<RelayUrl>),
    /// The relays and the lookup of Number 0.
    N0,
}

/// How to bind the endpoint.
#[derive(Debug)]
pub(crate) struct OwnEndpoint {
    key: SecretKey,
    bind: Option<SocketAddr>,
    services: Services,
    /// Where it was bound last, 0 for never.
    port: AtomicU16,
    bound: Mutex<Bound>,
}

#[derive(Debug)]
enum Bound {
    Unbound,
    /// The task accepts, and closes the endpoint when `_open` is dropped.
    Open {
        endpoint: Endpoint,
        _open: oneshot::Sender<()>,
        task: JoinHandle<()>,
    },
    Closed,
}

impl OwnEndpoint {
    /// Nothing is bound yet.
    pub fn new(key: SecretKey, bind: Option<SocketAddr>, services: Services, port: u16) -> Self {
        Self { key, bind, services, port: AtomicU16::new(port), bound: Mutex::new(Bound::Unbound) }
    }

    /// Where it was bound last, 0 for never.
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// What must be known before its address is told.
    pub fn reach(&self) -> Reach {
        match self.services {
            Services::Nothing => Reach::Direct,
            Services::Relays(_) | Services::N0 => Reach::Relayed,
        }
    }

    /// The endpoint, bound now if it is not. It stays bound at least as long as the guard lives.
    pub async fn take(
        &self,
        gate: &Arc<Gate>,
        open: &Arc<OpenConnections>,
    ) -> Result<(Endpoint, Dialling), TransportError> {
        let mut bound = self.bound.lock().await;
        if let Bound::Open { endpoint, .. } = &*bound {
            return Ok((endpoint.clone(), open.dialling()));
        }
        if let Bound::Closed = &*bound {
            return Err(closed("binding the endpoint"));
        }
        let endpoint = self.bind().await?;
        let (sender, ended) = oneshot::channel();
        let task = tokio::spawn(listen::run(endpoint.clone(), gate.clone(), open.clone(), ended));
        *bound = Bound::Open { endpoint: endpoint.clone(), _open: sender, task };
        Ok((endpoint, open.dialling()))
    }

    /// Closes the endpoint and frees its port when no connection needs it.
    pub async fn release_if_idle(&self, open: &OpenConnections) {
        let mut bound = self.bound.lock().await;
        if open.is_idle() {
            end(std::mem::replace(&mut *bound, Bound::Unbound)).await;
        }
    }

    /// Closes the endpoint for good.
    pub async fn close(&self) {
        let mut bound = self.bound.lock().await;
        end(std::mem::replace(&mut *bound, Bound::Closed)).await;
    }

    async fn bind(&self) -> Result<Endpoint, TransportError> {
        let fixed = self.bind.map_or(0, |address| address.port());
        let remembered = self.port();
        let bound = match (fixed, remembered) {
            (0, 1..) => match self.bind_patiently(remembered).await {
                Err(error) => {
                    tracing::warn!(port = remembered, %error, "the port of the last start cannot be had; taking another");
                    self.bind_at(0).await
                }
                bound => bound,
            },
            (0, 0) => self.bind_at(0).await,
            _ => self.bind_patiently(fixed).await,
        };
        let endpoint = bound.map_err(|cause| {
            let wanted = self.bind.map_or_else(|| "0.0.0.0:0 and [::]:0".to_owned(), |address| address.to_string());
            let context = format!("binding iroh at UDP {wanted}: it cannot be had; choose another address or port 0");
            TransportError::because(TransportErrorKind::CannotListen, context, cause)
        })?;
        let sockets = endpoint.bound_sockets();
        if let Some(socket) = sockets.iter().find(|socket| socket.is_ipv4()).or(sockets.first()) {
            self.port.store(socket.port(), Ordering::Relaxed);
        }
        Ok(endpoint)
    }

    async fn bind_patiently(&self, port: u16) -> Result<Endpoint, BindFailed> {
        let given_up = Instant::now() + limits::BIND_PATIENCE;
        loop {
            match self.bind_at(port).await {
                Err(_) if Instant::now() < given_up => sleep(limits::BIND_RETRY).await,
                bound => return bound,
            }
        }
    }

    async fn bind_at(&self, port: u16) -> Result<Endpoint, BindFailed> {
        let builder = self.sockets(self.basis(), port)?;
        Ok(builder.secret_key(self.key.clone()).alpns(vec![ALPN.to_vec()]).transport_config(quic()).bind().await?)
    }

    fn basis(&self) -> Builder {
        let alone = |builder: Builder| {
            builder.portmapper_config(PortmapperConfig::Disabled).net_report_config(NetReportConfig::minimal())
        };
        match &self.services {
            Services::Nothing => alone(Endpoint::builder(presets::Minimal)),
            Services::Relays(relays) => {
                Endpoint::builder(presets::Minimal).relay_mode(RelayMode::custom(relays.iter().cloned()))
            }
            Services::N0 => Endpoint::builder(presets::N0),
        }
    }

    /// Both families on every interface, IPv6 where there is any; or the one socket that was asked for.
    fn sockets(&self, builder: Builder, port: u16) -> Result<Builder, InvalidSocketAddr> {
        match self.bind.filter(|address| !address.ip().is_unspecified()) {
            Some(address) => builder.clear_ip_transports().bind_addr(SocketAddr::new(address.ip(), port)),
            None => builder
                .bind_addr((Ipv4Addr::UNSPECIFIED, port))?
                .bind_addr_with_opts((Ipv6Addr::UNSPECIFIED, port), BindOpts::default().set_is_required(false)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum BindFailed {
    #[error(transparent)]
    Address(#[from] InvalidSocketAddr),
    #[error(transparent)]
    Bind(#[from] BindError),
}

async fn end(bound: Bound) {
    if let Bound::Open { endpoint, _open, task } = bound {
        drop(_open);
        // It ends within `CLOSE_GRACE`; one that panicked has dropped its endpoint too.
        let _ = task.await;
        drop(endpoint);
    }
}

fn quic() -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::MAX_STREAMS))
        .max_idle_timeout(Some(IdleTimeout::try_from(limits::IDLE_TIMEOUT).expect("25 s fit 62 bits of ms")))
        .stream_receive_window(VarInt::from_u32(limits::STREAM_WINDOW))
        .receive_window(VarInt::from_u32(limits::CONNECTION_WINDOW))
        .send_window(u64::from(limits::STREAM_WINDOW) * 8)
        .build()
}
