//! When all content that a replica wanted has come.

use std::collections::{HashMap, HashSet};

use tokio::sync::MutexGuard;

use super::{Arrived, fetch::Shared};
use crate::{
    model::{Hash, ReplicaId},
    store::{StoreError, Want},
};

/// How many wants are looked at in one go to find one that is to be fetched.
const PAGE: usize = 64;

/// Which replicas wait for content.
#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: HashSet<ReplicaId>,
    /// Wants up to here are those that the replica's policy leaves out, as far as was seen.
    left_out: HashMap<ReplicaId, Want>,
}

impl Shared {
    /// What is held while wants end: so each end is looked at by itself, in order.
    pub async fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().await
    }

    /// Wants of a replica came or went. Says so when none is left; `came`: what ended was fulfilled just now.
    pub async fn settle(&self, pending: &mut Pending, replica: ReplicaId, came: bool) {
        match self.is_waiting(pending, replica).await {
            Ok(true) => {
                pending.waiting.insert(replica);
            }
            Ok(false) => {
                if pending.waiting.remove(&replica) || came {
                    // Nobody listening is no error.
                    let _ = self.ready.send(Arrived::All(replica));
                }
            }
            Err(error) => tracing::warn!(?replica, %error, "what content is wanted could not be read"),
        }
    }

    /// Whether a replica wants something that its policy does not leave out.
    async fn is_waiting(&self, pending: &mut Pending, replica: ReplicaId) -> Result<bool, StoreError> {
        let beginning = Want { replica, hash: Hash([0; 32]), len: 0, base: None };
        let mut from = pending.left_out.get(&replica).copied();
        let mut from_the_beginning = from.is_none();
        loop {
            let after = from.unwrap_or(beginning);
            let page = self.store.wants(Some(after), PAGE).await?;
            let of_it = page.iter().take_while(|want| want.replica == replica);
            let mut last = None;
            for want in of_it {
                if self.filter.is_allowed(*want).await {
                    return Ok(true);
                }
                pending.left_out.insert(replica, *want);
                last = Some(*want);
            }
            match last {
                Some(last) => from = Some(last),
                None if from_the_beginning => return Ok(false),
                // To the end, and there may be new ones before the place where it began.
                None => {
                    pending.left_out.remove(&replica);
                    (from, from_the_beginning) = (None, true);
                }
            }
        }
    }
}
