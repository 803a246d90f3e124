//! Where a node listens, and with which transports it dials.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use sync_core::{PeerAddress, manager::ListenReport};
use transport_http::HttpTransport;
use transport_iroh::IrohTransport;
use transport_quic::QuicTransport;

use super::Node;
use crate::{
    error::{CliError, Result, with_sources},
    rest::Rest,
};

/// The schemes, for errors.
const KNOWN: &str = "http://IP:PORT, quic://IP:PORT, iroh:";

/// Where to listen, as `--listen` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// HTTP.
    Http(Option<SocketAddr>),
    /// Raw QUIC.
    Quic(Option<SocketAddr>),
    /// iroh, with the public relays or without.
    Iroh {
        /// The socket.
        bind: Option<SocketAddr>,
        /// Whether the public relays of Number 0 are used.
        relays: bool,
    },
}

impl Listen {
    /// One of each kind, ports chosen. Who dials tries them in this order, each a moment after the one before: QUIC is the
    /// fastest, HTTP passes where UDP does not.
    pub const ALL: [Self; 3] = [Self::Quic(None), Self::Http(None), Self::Iroh { bind: None, relays: false }];

    fn scheme(self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Quic(_) => "quic",
            Self::Iroh { .. } => "iroh",
        }
    }
}

impl FromStr for Listen {
    type Err = CliError;

    fn from_str(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(CliError::usage(format!("`{text}` is no address to listen at; known are: {KNOWN}")));
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest).trim_end_matches('/');
        let socket = |rest: &str| -> Result<Option<SocketAddr>> {
            if rest.is_empty() {
                return Ok(None);
            }
            let ip = |rest: &str| rest.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
            rest.parse().or_else(|_| ip(rest)).map(Some).map_err(|_| {
                CliError::usage(format!("`{text}`: `{rest}` is no IP:PORT; write it like {scheme}://0.0.0.0:4433"))
            })
        };
        match scheme {
            "http" => socket(rest).map(Self::Http),
            "quic" => socket(rest).map(Self::Quic),
            "iroh" if rest == "n0" => Ok(Self::Iroh { bind: None, relays: true }),
            "iroh" => Ok(Self::Iroh { bind: socket(rest)?, relays: false }),
            "https" => Err(CliError::usage(format!(
                "`{text}`: to listen with https put a reverse proxy in front of http; known are: {KNOWN}"
            ))),
            other => Err(CliError::usage(format!("unknown scheme `{other}` in `{text}`; known are: {KNOWN}"))),
        }
    }
}

impl Node {
    /// Registers a transport for each address, and one that only dials for each scheme without one.
    pub async fn register_transports(self: &Arc<Self>, listen: &[Listen]) -> Result<()> {
        for (at, address) in listen.iter().enumerate() {
            let scheme = address.scheme();
            let name = match listen[..at].iter().filter(|other| other.scheme() == scheme).count() {
                0 => scheme.to_string(),
                before => format!("{scheme}-{}", before + 1),
            };
            let manager = self.manager();
            match *address {
                Listen::Http(bind) => {
                    let mut builder = HttpTransport::builder().rest(Arc::new(Rest::new(self)));
                    if let Some(bind) = bind {
                        builder = builder.bind(bind);
                    }
                    manager.register_transport(name, builder).await?;
                }
                Listen::Quic(bind) => {
                    let mut builder = QuicTransport::builder();
                    if let Some(bind) = bind {
                        builder = builder.bind(bind);
                    }
                    manager.register_transport(name, builder).await?;
                }
                Listen::Iroh { bind, relays } => {
                    let mut builder = IrohTransport::builder();
                    if let Some(bind) = bind {
                        builder = builder.bind(bind);
                    }
                    if relays {
                        builder = builder.n0();
                    }
                    manager.register_transport(name, builder).await?;
                }
            }
        }
        self.register_dialling(listen).await
    }

    /// Registers transports that only dial, for the schemes that `listen` leaves out.
    pub async fn register_dialling(&self, listen: &[Listen]) -> Result<()> {
        for scheme in KNOWN_SCHEMES {
            if listen.iter().any(|listen| listen.scheme() == scheme) {
                continue;
            }
            let (manager, name) = (self.manager(), format!("{scheme}-out"));
            match scheme {
                "http" => manager.register_transport(name, HttpTransport::builder().client_only()).await?,
                "quic" => manager.register_transport(name, QuicTransport::builder().client_only()).await?,
                _ => manager.register_transport(name, IrohTransport::builder().client_only()).await?,
            }
        }
        Ok(())
    }

    /// Starts to listen. What the user asked for by name must work; of the rest something must.
    pub async fn accept(&self, asked: bool) -> Result<Vec<PeerAddress>> {
        let ListenReport { addresses, failed } = self.manager().accept_connections().await?;
        for (name, error) in failed {
            let (cause, way_out) = (with_sources(&error), "choose another port with --listen");
            if asked {
                return Err(CliError::failed(format!("{cause}: {way_out}")));
            }
            tracing::warn!(%name, %error, "a transport does not listen; the others do");
            self.manager().raise(sync_core::machine::Obstacle {
                subject: format!("transport {name}"),
                replica: None,
                cause,
                since: Some(super::now()),
                next_try: None,
                advice: way_out.into(),
            });
        }
        Ok(addresses)
    }
}

/// The schemes that the program has transports for.
const KNOWN_SCHEMES: [&str; 3] = ["http", "quic", "iroh"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_at_are_understood() {
        let at = |text: &str| Some(text.parse().unwrap());
        for (text, expected) in [
            ("http://127.0.0.1:8080", Listen::Http(at("127.0.0.1:8080"))),
            ("http://127.0.0.1:80/", Listen::Http(at("127.0.0.1:80"))),
            ("quic://[::]:4433", Listen::Quic(at("[::]:4433"))),
            ("quic:", Listen::Quic(None)),
            ("quic://0.0.0.0", Listen::Quic(at("0.0.0.0:0"))),
            ("iroh:", Listen::Iroh { bind: None, relays: false }),
            ("iroh:n0", Listen::Iroh { bind: None, relays: true }),
            ("iroh://127.0.0.1:0", Listen::Iroh { bind: at("127.0.0.1:0"), relays: false }),
        ] {
            assert_eq!(text.parse::<Listen>(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn an_unknown_scheme_lists_the_known_ones() {
        for bad in ["tcp://1.2.3.4:5", "8080", "quic://name:1", "http://1.2.3.4:99999", "https://1.2.3.4:1", ""] {
            let error = bad.parse::<Listen>().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("://"), "{error}");
        }
    }
}
