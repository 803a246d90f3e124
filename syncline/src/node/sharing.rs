//! Tickets and tokens: who may come, and what for.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use sync_core::{
    manager::{Access, ManagerError, Replica},
    model::{ReplicaId, Right, SecretKey, Ticket, Timestamp},
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

impl TokenRecord {
    /// The name of its record: the token of one replica has its id in front, and goes with it.
    pub fn name(&self, hash: &[u8; 32]) -> Bytes {
        [self.replica.as_ref().map_or(&[][..], |id| &id[..]), hash].concat().into()
    }

    /// The value of its record.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a token's record can be encoded")
    }

    /// Reads the value of a record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}

/// The hash under which a token is known.
pub fn token_hash(token: &str) -> [u8; 32] {
    *blake3::hash(token.trim().as_bytes()).as_bytes()
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

    /// What a ticket's invitation still gives, and until when.
    async fn gives(&self, replica: &Replica, ticket: &Ticket) -> Result<Option<(Right, Timestamp)>> {
        let Some(invite) = &ticket.invite else { return Ok(None) };
        let rights = replica.state().await?.rights;
        let grant = rights.best_grant(&invite.secret.public(), Right::Read, now());
        Ok(grant.map(|(_, grant)| (grant.right, grant.expires.unwrap_or(Timestamp(u64::MAX)))))
    }

    /// The ticket that `up` prints: the same invitation at each start, with the addresses of this one.
    /// None when this node may not invite.
    pub async fn standing_ticket(&self, replica: &Replica) -> Result<Option<Ticket>> {
        let mut given = self.given_ticket(replica);
        if let Some(ticket) = &given
            && self.gives(replica, ticket).await?.is_none()
        {
            given = None;
        }
        let mut ticket = match given {
            Some(ticket) => ticket,
            None if self.may_write(replica).await? => match replica.share(Access::WRITE).await {
                Ok(ticket) => ticket,
                Err(ManagerError::CannotShare(_)) => return Ok(None),
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

    /// Joins the replica of a ticket. One that is here already gains what the ticket gives more, and learns its
    /// addresses.
    pub async fn join(&self, text: &str) -> Result<Replica> {
        let ticket = parse_ticket(text)?;
        let replica = match self.manager.join(ticket.clone()).await {
            Ok(replica) => replica,
            Err(error) => {
                // Started again as it was the first time: what the ticket gave was taken while it held.
                let is_late = matches!(error, ManagerError::TicketExpired);
                return match is_late && self.may_read(ticket.replica).await? {
                    true => Ok(self.manager.open_replica(ticket.replica).await?),
                    false => Err(error.into()),
                };
            }
        };
        // The best invitation is passed on, with this node's addresses.
        let kept = match self.given_ticket(&replica) {
            Some(kept) => self.gives(&replica, &kept).await?,
            None => None,
        };
        if self.gives(&replica, &ticket).await? > kept {
            self.keep_ticket(&replica, &ticket)?;
        }
        Ok(replica)
    }

    /// Whether the replica is here and this node may still read it.
    async fn may_read(&self, replica: ReplicaId) -> Result<bool> {
        if !self.manager.replicas().await?.contains(&replica) {
            return Ok(false);
        }
        let state = self.store.state(replica).await?;
        Ok(!state.rights.readable(&self.manager.node_id(), now()).is_empty())
    }

    pub(super) async fn join_and_share(self: &Arc<Self>, ticket: &str, folder: Option<&Path>) -> Result<Json> {
        parse_ticket(ticket)?;
        let Some(folder) = folder else {
            let replica = self.join(ticket).await?;
            return Ok(json!({ "replica": replica.id().to_string(), "folder": null }));
        };
        // One that is kept already goes on: the ticket renews its rights.
        let shareable = match self.keeps(folder) {
            true => None,
            false => Some(self.check_folder(folder, Missing::Make)?),
        };
        let path = match &shareable {
            Some(shareable) => shareable.path.clone(),
            None => folder.canonicalize().map_err(|error| CliError::io(folder.display(), &error))?,
        };
        let replica = self.join(ticket).await?;
        self.bind(&path, &replica, None)?;
        if let Some(shareable) = shareable {
            if self.is_daemon {
                self.start_folder(&path, shareable.lock).await?;
            }
            shareable.made.keep();
        }
        Ok(json!({ "replica": replica.id().to_string(), "folder": path }))
    }

    pub(super) async fn make_token(&self, replica: Option<&str>, expires: Option<Duration>) -> Result<Json> {
        let replica = match replica {
            Some(_) => Some(self.replica(replica).await?.id()),
            None => None,
        };
        let secret = data_encoding::BASE32_NOPAD.encode(&SecretKey::generate().to_bytes()).to_lowercase();
        let expires = expiry(expires).map(|expires| expires.0);
        let record = TokenRecord { replica: replica.map(|replica| *replica.as_bytes()), expires };
        let (name, value) = (record.name(&token_hash(&secret)), Some(record.to_bytes().into()));
        let record = NodeRecord { kind: NodeKind::Token, name, value };
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
