//! Tickets and tokens: who may come, and what for.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use sync_core::{
    manager::{Access, Replica},
    model::{Right, SecretKey, Ticket, Timestamp},
    store::{NodeKind, NodeRecord},
};

use super::{Node, now};
use crate::{
    data_dir::GivenTicket,
    error::{CliError, Result},
    folder::checks::Missing,
};

/// What is kept of a token: never the token itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The one replica that it covers, or all.
    pub replica: Option<[u8; 32]>,
    /// Until when, in microseconds since 1970.
    pub expires: Option<u64>,
}

/// The name under which a token is kept.
pub fn token_name(token: &str) -> Bytes {
    Bytes::copy_from_slice(blake3::hash(token.trim().as_bytes()).as_bytes())
}

fn expiry(expires: Option<Duration>) -> Option<Timestamp> {
    expires.map(|duration| now().plus(duration))
}

impl Node {
    pub(super) async fn make_ticket(
        &self,
        replica: Option<&str>,
        write: bool,
        expires: Option<Duration>,
    ) -> Result<Json> {
        let replica = self.replica(replica).await?;
        let right = if write { Right::Write } else { Right::Read };
        let expires = expiry(expires);
        let mut ticket = replica.share(Access { right, expires }).await?;
        if ticket.addresses.is_empty() {
            // Made while no daemon runs: the addresses of the last one will be right again.
            ticket.addresses = self.given_ticket(&replica).map(|given| given.addresses).unwrap_or_default();
        }
        Ok(json!({
            "ticket": ticket.to_string(),
            "replica": replica.id().to_string(),
            "right": if write { "write" } else { "read" },
            "expires": expires.map(|expires| expires.0),
        }))
    }

    fn given_ticket(&self, replica: &Replica) -> Option<Ticket> {
        let id = replica.id().to_string();
        let settings = self.settings();
        settings.tickets.iter().find(|given| given.replica == id).and_then(|given| given.ticket.parse().ok())
    }

    fn keep_ticket(&self, replica: &Replica, ticket: &Ticket) -> Result<()> {
        let (replica, ticket) = (replica.id().to_string(), ticket.to_string());
        self.change_settings(|settings| {
            settings.tickets.retain(|given| given.replica != replica);
            settings.tickets.push(GivenTicket { replica, ticket });
        })
    }

    /// The ticket that `up` prints: the same invitation at each start, with the addresses of this one.
    /// None when this node may not invite.
    pub async fn standing_ticket(&self, replica: &Replica) -> Result<Option<Ticket>> {
        let mut ticket = match self.given_ticket(replica) {
            Some(ticket) => ticket,
            None if self.may_write(replica).await? => match replica.share(Access::WRITE).await {
                Ok(ticket) => ticket,
                Err(sync_core::manager::ManagerError::CannotShare(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            },
            None => return Ok(None),
        };
        ticket.peer = Some(self.manager.node_id());
        ticket.addresses = self.manager.addresses().await?;
        self.keep_ticket(replica, &ticket)?;
        Ok(Some(ticket))
    }

    /// Whether this node may write to the replica now.
    pub async fn may_write(&self, replica: &Replica) -> Result<bool> {
        let state = replica.state().await?;
        let me = replica.author().0;
        Ok(me == replica.id().0 || state.rights.best_grant(&me, Right::Write, now()).is_some())
    }

    /// Joins the replica of a ticket. One that is here already stays as it is; it learns the ticket's addresses.
    pub async fn join(&self, text: &str) -> Result<Replica> {
        let ticket = parse_ticket(text)?;
        if self.manager.replicas().await?.contains(&ticket.replica) {
            let replica = self.manager.open_replica(ticket.replica).await?;
            if let Some(peer) = ticket.peer.filter(|peer| *peer != self.manager.node_id()) {
                self.manager.add_peer(peer, ticket.addresses.clone()).await?;
                self.manager.subscribe(ticket.replica, peer).await?;
            }
            return Ok(replica);
        }
        let replica = self.manager.join(ticket.clone()).await?;
        // The same invitation is passed on, with this node's addresses.
        self.keep_ticket(&replica, &ticket)?;
        Ok(replica)
    }

    pub(super) async fn join_and_share(self: &Arc<Self>, ticket: &str, folder: Option<&Path>) -> Result<Json> {
        parse_ticket(ticket)?;
        let folder = folder.map(|folder| self.check_folder(folder, Missing::Make)).transpose()?;
        let replica = self.join(ticket).await?;
        if let Some(folder) = &folder {
            self.bind(folder, &replica, false)?;
            if self.is_daemon {
                self.start_folder(folder).await?;
            }
        }
        Ok(json!({ "replica": replica.id().to_string(), "folder": folder }))
    }

    pub(super) async fn make_token(&self, replica: Option<&str>, expires: Option<Duration>) -> Result<Json> {
        let replica = match replica {
            Some(_) => Some(self.replica(replica).await?.id()),
            None => None,
        };
        let secret = data_encoding::BASE32_NOPAD.encode(&SecretKey::generate().to_bytes()).to_lowercase();
        let expires = expiry(expires).map(|expires| expires.0);
        let record = TokenRecord { replica: replica.map(|replica| *replica.as_bytes()), expires };
        let value = postcard::to_allocvec(&record).expect("a token's record can be encoded");
        let record = NodeRecord { kind: NodeKind::Token, name: token_name(&secret), value: Some(value.into()) };
        self.store.save(vec![record]).await?;
        Ok(json!({
            "token": secret,
            "replica": replica.map(|replica| replica.to_string()),
            "expires": expires,
        }))
    }
}

/// A ticket from the command line.
pub fn parse_ticket(text: &str) -> Result<Ticket> {
    text.parse().map_err(|error: sync_core::model::TicketError| CliError::usage(error.to_string()))
}
