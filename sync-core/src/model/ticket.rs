//! Tickets: what one node gives to another so that it can join a replica.
//!
//! `syncline://<replica id>?peer=<node id>&addr=<address>&addr=...&invite=<secret, base32>&grant=<chain, base64url>`
//!
//! Without an invite a ticket only says where the replica is. With one it holds the secret of a
//! fresh key and the chain of grants that gives this key its right; whoever joins signs a grant
//! from the invite key to his own. Unknown parameters are ignored, and so are addresses that this
//! node cannot parse, as long as one is good.

use std::{fmt, str::FromStr};

use super::{
    commit::Bundle,
    identity::{PeerId, ReplicaId, SecretKey},
};
use crate::address::PeerAddress;

/// The longest ticket, in bytes of its text.
pub const MAX_TICKET_LEN: usize = 16 * 1024;

/// Invites somebody to a replica.
#[derive(Clone)]
pub struct Ticket {
    /// The replica.
    pub replica: ReplicaId,
    /// The node that the addresses lead to.
    pub peer: Option<PeerId>,
    /// Where it can be had.
    pub addresses: Vec<PeerAddress>,
    /// The right to join, unless the ticket only asks.
    pub invite: Option<Invite>,
}

/// The secret part of a ticket.
#[derive(Clone)]
pub struct Invite {
    /// The invite key.
    pub secret: SecretKey,
    /// The grants that give the invite key its right, from the owner's down.
    pub chain: Vec<Bundle>,
}

/// Why a text is not a ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Not a ticket at all.
    #[error("this is not a ticket: it must begin with `syncline://`; ask for a new one with `syncline ticket`")]
    Foreign,
    /// A ticket that was cut or changed.
    #[error("the ticket is damaged ({0}); copy it again, whole, in quotes")]
    Damaged(&'static str),
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if let Some(peer) = &self.peer {
            query.append_pair("peer", &peer.to_string());
        }
        for address in &self.addresses {
            query.append_pair("addr", address.as_str());
        }
        if let Some(invite) = &self.invite {
            let chain = postcard::to_allocvec(&invite.chain).expect("bundles can be encoded");
            query.append_pair("grant", &data_encoding::BASE64URL_NOPAD.encode(&chain));
            query.append_pair("invite", &data_encoding::BASE32_NOPAD.encode(&invite.secret.to_bytes()).to_lowercase());
        }
        // The sum comes last: a ticket that lost its end is noticed.
        let body = format!("syncline://{}?{}", self.replica, query.finish());
        write!(f, "{body}&sum={}", checksum(&body))
    }
}

fn checksum(body: &str) -> String {
    data_encoding::HEXLOWER.encode(&blake3::hash(body.as_bytes()).as_bytes()[..4])
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("replica", &self.replica)
            .field("peer", &self.peer)
            .field("addresses", &self.addresses)
            .field("invite", &self.invite.as_ref().map(|invite| invite.secret.public()))
            .finish()
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invite({:?})", self.secret.public())
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        if text.len() > MAX_TICKET_LEN {
            return Err(TicketError::Damaged("it is too long"));
        }
        let rest = text.strip_prefix("syncline://").ok_or(TicketError::Foreign)?;
        let (body, sum) = text.rsplit_once("&sum=").ok_or(TicketError::Damaged("its end is missing"))?;
        if checksum(body) != sum {
            return Err(TicketError::Damaged("its checksum does not fit"));
        }
        let (replica, _) = rest.split_once('?').ok_or(TicketError::Damaged("nothing follows the replica id"))?;
        let replica: ReplicaId = replica.parse().map_err(|_| TicketError::Damaged("its replica id is malformed"))?;
        let query = body.split_once('?').map(|(_, query)| query).unwrap_or_default();
        let (mut peer, mut addresses, mut claimed, mut secret, mut chain) = (None, Vec::new(), 0, None, None);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "addr" => {
                    claimed += 1;
                    addresses.extend(value.parse::<PeerAddress>().ok());
                }
                "peer" => {
                    peer = Some(value.parse().map_err(|_| TicketError::Damaged("its peer id is malformed"))?);
                }
                "invite" => {
                    let bytes = data_encoding::BASE32_NOPAD.decode(value.to_uppercase().as_bytes()).ok();
                    let seed: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
                    secret = Some(SecretKey::from_bytes(seed.ok_or(TicketError::Damaged("its invite is malformed"))?));
                }
                "grant" => {
                    let bytes = data_encoding::BASE64URL_NOPAD.decode(value.as_bytes()).ok();
                    let bundles = bytes.and_then(|bytes| postcard::from_bytes::<Vec<Bundle>>(&bytes).ok());
                    chain = Some(bundles.ok_or(TicketError::Damaged("its grants are malformed"))?);
                }
                _ => {}
            }
        }
        if claimed > 0 && addresses.is_empty() {
            return Err(TicketError::Damaged("none of its addresses can be read"));
        }
        let invite = match (secret, chain) {
            (Some(secret), Some(chain)) => Some(Invite { secret, chain }),
            (None, None) => None,
            _ => return Err(TicketError::Damaged("half of its invite is missing")),
        };
        Ok(Self { replica, peer, addresses, invite })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AuthorId, Grant, HybridClock, Prefix, Right, Timestamp, sign_commit};

    fn ticket() -> Ticket {
        let owner = SecretKey::from_bytes([1; 32]);
        let secret = SecretKey::from_bytes([2; 32]);
        let replica = ReplicaId(owner.public());
        let grant = Grant {
            subject: secret.public(),
            right: Right::Write,
            prefix: Prefix::default(),
            expires: None,
            parent: None,
        };
        let op = grant.to_op(&AuthorId(owner.public()));
        let bundle = sign_commit(replica, &owner, &HybridClock::default(), Timestamp(7), vec![op]).unwrap();
        Ticket {
            replica,
            peer: Some(PeerId(SecretKey::from_bytes([3; 32]).public())),
            addresses: vec!["quic://192.0.2.1:4433".parse().unwrap(), "iroh:aa?ip=1.2.3.4:5&x=%26".parse().unwrap()],
            invite: Some(Invite { secret, chain: vec![bundle.to_bundle()] }),
        }
    }

    #[test]
    fn b59_a_ticket_round_trips_and_ignores_what_it_does_not_know() {
        let text = ticket().to_string();
        let read: Ticket = text.parse().unwrap();
        assert_eq!(read.to_string(), text);
        let body = text.rsplit_once("&sum=").unwrap().0.to_string() + "&colour=blue&addr=%3A%3A";
        let read: Ticket = format!("{body}&sum={}", checksum(&body)).parse().unwrap();
        assert_eq!(read.addresses.len(), 2);
    }

    #[test]
    fn b81_a_ticket_shows_no_secret_in_debug() {
        let ticket = ticket();
        let secret = ticket.invite.as_ref().unwrap().secret.to_bytes();
        let shown = format!("{ticket:?} {:?}", ticket.invite).to_lowercase();
        assert!(!shown.contains(&data_encoding::HEXLOWER.encode(&secret)));
        assert!(!shown.contains(&data_encoding::BASE32_NOPAD.encode(&secret).to_lowercase()));
    }

    #[test]
    fn every_truncation_and_every_foreign_text_is_refused() {
        let text = ticket().to_string();
        for end in 0..text.len() {
            assert!(text[..end].parse::<Ticket>().is_err(), "cut at {end}");
        }
        assert_eq!("https://example.org".parse::<Ticket>().unwrap_err(), TicketError::Foreign);
    }
}
