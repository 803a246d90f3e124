//! What a session leaves: entries that have come and are not durable yet. They are taken in before the next session
//! is opened or answered, which then says that they are here; so a cut costs only what was on its way.

use super::{
    io::*,
    session::{Applied, Session},
    synchronizer::{JobKey, Synchronizer},
};

impl Synchronizer {
    /// Takes in what has come in a session that is over.
    pub(super) fn drain(&mut self, key: JobKey, mut session: Session) {
        let Some(known) = self.replicas.get(&key.0).filter(|_| session.is_live() && !self.stopping) else { return };
        let effects = session.drain(&mut self.io, known);
        if !session.is_drained() {
            self.draining.insert(key, session);
        }
        self.effects(key, effects);
    }

    /// Work for such a session is done.
    pub(super) fn drained(&mut self, key: JobKey, serial: u64, result: Result<StoreReply, WorkError>) {
        let known = self.replicas.get(&key.0);
        let session = self.draining.get_mut(&key).filter(|session| session.serial == serial);
        let (Some(known), Some(session)) = (known, session) else { return };
        let effects = match result {
            Ok(StoreReply::Verified { bundles }) => session.entries_verified(&mut self.io, known, bundles),
            Ok(StoreReply::Applied { state, inserted, refused, refused_count, rights_changed: _ }) => {
                let applied = Applied { head: state.head, inserted, refused, refused_count };
                session.entries_applied(&mut self.io, known, &applied)
            }
            // What it read for the peer nobody waits for.
            Ok(_) => return,
            Err(_) => {
                session.abandon();
                Vec::new()
            }
        };
        if session.is_drained() {
            let traffic = session.traffic;
            self.draining.remove(&key);
            self.traffic.entry(key).or_default().add(&traffic);
        }
        self.effects(key, effects);
        self.prepare(key);
    }
}
