//! `iroh:<endpoint id>?ip=...&relay=...`, and which addresses an endpoint tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use iroh::{Endpoint, EndpointAddr, EndpointId, RelayUrl, TransportAddr, Watcher};
use sync_core::{
    PeerAddress,
    model::PublicKey,
    transport::{TransportError, TransportErrorKind},
};
use tokio::time::timeout;

use crate::limits::{ADDRESS_WAIT, MAX_IP_ADDRESSES, MAX_RELAYS};

/// The scheme of this transport.
pub(crate) const SCHEME: &str = "iroh";

/// Parses `iroh:<endpoint id>?ip=...&relay=...`. Other parameters are left aside, so that later
/// versions can tell more ways to the same node; the id says who must answer.
pub(crate) fn parse(address: &PeerAddress) -> Result<EndpointAddr, TransportError> {
    if address.scheme() != SCHEME {
        return Err(unsupported(address, "its scheme is not `iroh`"));
    }
    let url = address.url();
    let id = url
        .path()
        .parse::<PublicKey>()
        .ok()
        .and_then(|key| EndpointId::from_bytes(&key.0).ok())
        .ok_or_else(|| unsupported(address, "it has no endpoint id"))?;
    let (mut ips, mut relays) = (Vec::new(), Vec::new());
    for (name, value) in url.query_pairs() {
        match &*name {
            "ip" => match value.parse::<SocketAddr>() {
                Ok(ip) if ip.port() != 0 => ips.push(TransportAddr::Ip(ip)),
                _ => return Err(unsupported(address, "an `ip` of it is not an IP address with a port")),
            },
            "relay" => match value.parse::<RelayUrl>() {
                Ok(relay) if matches!(relay.scheme(), "https" | "http") => relays.push(TransportAddr::Relay(relay)),
                _ => return Err(unsupported(address, "a `relay` of it is not an http or https URL")),
            },
            _ => {}
        }
    }
    ips.truncate(MAX_IP_ADDRESSES);
    relays.truncate(MAX_RELAYS);
    Ok(EndpointAddr::from_parts(id, ips.into_iter().chain(relays)))
}

fn unsupported(address: &PeerAddress, why: &str) -> TransportError {
    TransportError::new(
        TransportErrorKind::UnsupportedAddress,
        format!(
            "dialling {address}: {why}; write it as iroh:<64 hexadecimal digits>?ip=192.0.2.1:1234&relay=https://relay.example"
        ),
    )
}

/// Writes an address as [`parse`] reads it.
pub(crate) fn format(address: &EndpointAddr) -> PeerAddress {
    let mut text = format!("{SCHEME}:{}", PublicKey(*address.id.as_bytes()));
    let mut separator = '?';
    let mut add = |name: &str, value: &str| {
        text.push(separator);
        text.push_str(name);
        text.push('=');
        // What would end the value or be read as something else in a query.
        for character in value.chars() {
            match character {
                '%' | '&' | '#' | '+' => text.push_str(&format!("%{:02X}", u32::from(character))),
                other => text.push(other),
            }
        }
        separator = '&';
    };
    for ip in address.ip_addrs() {
        add("ip", &ip.to_string());
    }
    for relay in address.relay_urls() {
        add("relay", relay.as_str());
    }
    text.parse().expect("an id, sockets and a URL make a URL")
}

/// What an endpoint must know of itself before its address is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// An IP address.
    Direct,
    /// An IP address and a relay.
    Relayed,
}

/// Where `endpoint` can be dialled, as far as it knows within [`ADDRESS_WAIT`].
pub(crate) async fn advertised(endpoint: &Endpoint, reach: Reach) -> PeerAddress {
    let mut watcher = endpoint.watch_addr();
    let settled = async {
        loop {
            let known = watcher.get();
            let enough =
                known.ip_addrs().next().is_some() && (reach == Reach::Direct || known.relay_urls().next().is_some());
            if enough || watcher.updated().await.is_err() {
                return;
            }
        }
    };
    if timeout(ADDRESS_WAIT, settled).await.is_err() {
        tracing::warn!("not all addresses of the iroh endpoint are known yet; telling those that are");
    }
    let known = endpoint.addr();
    let relays = known.relay_urls().cloned().map(TransportAddr::Relay).take(MAX_RELAYS);
    let ips = choose(known.ip_addrs().copied(), &endpoint.bound_sockets());
    format(&EndpointAddr::from_parts(endpoint.id(), ips.into_iter().map(TransportAddr::Ip).chain(relays)))
}

/// The sockets worth telling. Loopback counts only when there is nothing else. Link-local IPv6 needs
/// a zone that means nothing elsewhere, so it is left out.
fn choose(known: impl Iterator<Item = SocketAddr>, bound: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut chosen: Vec<SocketAddr> = known
        .filter(|socket| match socket.ip() {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        })
        .collect();
    if chosen.iter().any(|socket| !socket.ip().is_loopback()) {
        chosen.retain(|socket| !socket.ip().is_loopback());
    }
    if chosen.is_empty() {
        chosen.extend(bound.iter().map(|socket| match socket.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, socket.port()).into(),
            IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, socket.port()).into(),
            _ => *socket,
        }));
    }
    chosen.sort_by_key(SocketAddr::is_ipv6);
    chosen.truncate(MAX_IP_ADDRESSES);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn parse_text(text: &str) -> Result<EndpointAddr, TransportErrorKind> {
        parse(&text.parse().unwrap()).map_err(|error| error.kind)
    }

    #[test]
    fn an_address_is_written_as_it_is_read() {
        let text = format!("iroh:{ID}?ip=192.0.2.1:1234&ip=[2001:db8::1]:7&relay=https://relay.example/");
        let read = parse_text(&text).unwrap();
        assert_eq!(read.ip_addrs().count(), 2);
        assert_eq!(read.relay_urls().count(), 1);
        assert_eq!(format(&read).as_str(), text);
        assert_eq!(format(&parse_text(&format!("iroh:{ID}")).unwrap()).as_str(), format!("iroh:{ID}"));
    }

    #[test]
    fn a_relay_url_with_a_query_survives() {
        let relay: RelayUrl = "https://relay.example/?token=a%20b&more=1+1".parse().unwrap();
        let address = EndpointAddr::new(ID.parse().unwrap()).with_relay_url(relay);
        assert_eq!(parse(&format(&address)).unwrap(), address);
    }

    #[test]
    fn unknown_parameters_are_left_aside_and_only_so_many_ways_are_taken() {
        let mut text = format!("iroh:{ID}?later=1");
        for port in 1..40 {
            text.push_str(&format!("&ip=192.0.2.1:{port}&relay=https://relay-{port}.example"));
        }
        let read = parse_text(&text).unwrap();
        assert_eq!(read.ip_addrs().count(), MAX_IP_ADDRESSES);
        assert_eq!(read.relay_urls().count(), MAX_RELAYS);
    }

    #[test]
    fn a_malformed_address_is_unsupported() {
        for text in [
            "quic://192.0.2.1:4433".to_owned(),
            "iroh:".to_owned(),
            "iroh:abcd".to_owned(),
            format!("iroh:{}", "02".repeat(32)),
            format!("iroh://{ID}"),
            format!("iroh:{ID}?ip=192.0.2.1"),
            format!("iroh:{ID}?ip=192.0.2.1:0"),
            format!("iroh:{ID}?ip=relay.example:1"),
            format!("iroh:{ID}?relay=nowhere"),
            format!("iroh:{ID}?relay=file:///etc"),
        ] {
            assert_eq!(parse_text(&text), Err(TransportErrorKind::UnsupportedAddress), "{text}");
        }
    }

    #[test]
    fn loopback_is_told_only_without_others() {
        let sockets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let all = sockets(&["[2001:db8::1]:1", "127.0.0.1:1", "[fe80::1]:1", "192.0.2.1:1"]);
        assert_eq!(choose(all.iter().copied(), &[]), sockets(&["192.0.2.1:1", "[2001:db8::1]:1"]));
        assert_eq!(choose(all[1..3].iter().copied(), &[]), sockets(&["127.0.0.1:1"]));
        assert_eq!(choose(std::iter::empty(), &sockets(&["0.0.0.0:5"])), sockets(&["127.0.0.1:5"]));
    }
}
