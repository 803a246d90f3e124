//! `quic://host:port`, and which addresses a listener advertises.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use sync_core::{
    PeerAddress,
    transport::{TransportError, TransportErrorKind},
};

use crate::limits::MAX_ADVERTISED;

/// The scheme of this transport.
pub(crate) const SCHEME: &str = "quic";

/// Where to dial, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// An address.
    Socket(SocketAddr),
    /// A name that must be resolved.
    Name { host: String, port: u16 },
}

impl Target {
    /// Parses `quic://host:port`. Nothing else may be in it: a part that is not understood may be one that matters.
    pub fn parse(address: &PeerAddress) -> Result<Self, TransportError> {
        if address.scheme() != SCHEME {
            return Err(unsupported(address, "its scheme is not `quic`"));
        }
        let url = address.url();
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        if !bare || !url.username().is_empty() || url.password().is_some() {
            return Err(unsupported(address, "there is more in it than host and port"));
        }
        let Some(port) = url.port().filter(|port| *port != 0) else {
            return Err(unsupported(address, "it has no port"));
        };
        let host =
            url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| unsupported(address, "it has no host"))?;
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        Ok(match literal.parse::<IpAddr>() {
            Ok(ip) => Self::Socket((ip, port).into()),
            Err(_) => Self::Name { host: host.to_owned(), port },
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => write!(f, "{SCHEME}://{socket}"),
            Self::Name { host, port } => write!(f, "{SCHEME}://{host}:{port}"),
        }
    }
}

fn unsupported(address: &PeerAddress, why: &str) -> TransportError {
    TransportError::new(
        TransportErrorKind::UnsupportedAddress,
        format!(
            "dialling {address}: {why}; write it as quic://host:port, like quic://192.0.2.1:4433 or quic://[2001:db8::1]:4433"
        ),
    )
}

/// The address of a socket.
pub(crate) fn peer_address(socket: SocketAddr) -> PeerAddress {
    format!("{SCHEME}://{socket}").parse().expect("a socket address is a host and a port")
}

/// The addresses at which a listener bound to `local` can be dialled: itself, or those of the
/// interfaces when it is bound to all of them.
pub(crate) fn advertised(local: SocketAddr) -> Vec<PeerAddress> {
    if !local.ip().is_unspecified() {
        return vec![peer_address(local)];
    }
    let interfaces: Vec<IpAddr> = match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces.iter().map(|interface| interface.ip()).collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot list the interfaces; advertising loopback only");
            Vec::new()
        }
    };
    choose(&interfaces, local.is_ipv6()).into_iter().map(|ip| peer_address((ip, local.port()).into())).collect()
}

/// The addresses worth telling, best first: IPv4, then IPv6; loopback only when there is nothing
/// else. Link-local IPv6 needs a zone that means nothing elsewhere, so it is left out.
fn choose(interfaces: &[IpAddr], dual_stack: bool) -> Vec<IpAddr> {
    let mut chosen: Vec<IpAddr> = interfaces
        .iter()
        .copied()
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
        .filter(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => dual_stack && !ip.is_unicast_link_local(),
        })
        .collect();
    chosen.sort_by_key(IpAddr::is_ipv6);
    chosen.dedup();
    chosen.truncate(MAX_ADVERTISED);
    if chosen.is_empty() {
        chosen.push(match interfaces.contains(&Ipv4Addr::LOCALHOST.into()) || !dual_stack {
            true => Ipv4Addr::LOCALHOST.into(),
            false => Ipv6Addr::LOCALHOST.into(),
        });
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, TransportErrorKind> {
        Target::parse(&text.parse().unwrap()).map_err(|error| error.kind)
    }

    #[test]
    fn hosts_are_names_or_addresses_of_either_family() {
        assert_eq!(parse("quic://192.0.2.1:4433"), Ok(Target::Socket("192.0.2.1:4433".parse().unwrap())));
        assert_eq!(parse("quic://[2001:db8::1]:1"), Ok(Target::Socket("[2001:db8::1]:1".parse().unwrap())));
        assert_eq!(parse("QUIC://hub.example:65535/"), Ok(Target::Name { host: "hub.example".into(), port: 65535 }));
    }

    #[test]
    fn an_address_that_says_more_or_less_than_host_and_port_is_refused() {
        for text in [
            "http://192.0.2.1:4433",
            "quic://192.0.2.1",
            "quic://192.0.2.1:0",
            "quic:192.0.2.1:4433",
            "quic:///path",
            "quic://192.0.2.1:4433/replica",
            "quic://192.0.2.1:4433?relay=1",
            "quic://192.0.2.1:4433#here",
            "quic://user@192.0.2.1:4433",
        ] {
            assert_eq!(parse(text), Err(TransportErrorKind::UnsupportedAddress), "{text}");
        }
    }

    #[test]
    fn interfaces_are_told_in_order_and_loopback_only_without_others() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let all = [ip("::1"), ip("127.0.0.1"), ip("2001:db8::1"), ip("fe80::1"), ip("192.0.2.1")];
        assert_eq!(choose(&all, true), [ip("192.0.2.1"), ip("2001:db8::1")]);
        assert_eq!(choose(&all, false), [ip("192.0.2.1")]);
        assert_eq!(choose(&all[..2], true), [ip("127.0.0.1")]);
        assert_eq!(choose(&[], false), [ip("127.0.0.1")]);
        let many: Vec<IpAddr> = (1..20).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        assert_eq!(choose(&many, true).len(), MAX_ADVERTISED);
    }
}
