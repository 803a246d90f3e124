//! A session's part about coded symbols: the first way to find a difference, without ranges.
//!
//! The leader sends its first symbols; the other side subtracts its own. Either they come apart, and both
//! sides know what to send; or it asks for more; or it goes on with claims about ranges.

use super::{Coding, Effect, Known, Reconcile, Session};
use crate::{
    machine::{
        io::{Step, StoreRequest},
        out::Io,
        wire::{Message, Solved, Symbols},
    },
    store::{
        Missing,
        coded::{CodedSet, FIRST_SYMBOLS, MAX_SYMBOLS},
    },
};

impl Session {
    /// A step of the store's is done.
    pub fn stepped(&mut self, io: &mut Io, known: &Known, mine: Option<CodedSet>, step: Step, missing: Vec<Missing>) {
        if self.gives {
            self.missing.extend(missing);
        }
        let reconcile = self.reconcile.as_mut().expect("a reconciliation goes on while the store works for it");
        reconcile.comparing = false;
        match step {
            Step::Symbols => {
                let mine = mine.expect("symbols are sent where there are some");
                reconcile.coding = Coding::Sent { mine, count: 0 };
                self.send_symbols(io, FIRST_SYMBOLS);
            }
            Step::More(count) => {
                if let Coding::Arrived { mine: ours, .. } = &mut reconcile.coding {
                    *ours = mine;
                }
                self.send(io, Message::Solved(Solved::More(count as u32)));
            }
            Step::Lacking(ids) => {
                reconcile.coding = Coding::Not;
                // Whoever is asked for nothing has nothing more to say.
                reconcile.over = ids.is_empty();
                self.coded = true;
                self.send(io, Message::Solved(Solved::Lacking(ids)));
            }
            Step::Claims(claims) => {
                reconcile.coding = Coding::Not;
                reconcile.answer = claims;
                reconcile.must_answer = true;
                reconcile.whole = true;
                self.pump_reconcile(io);
            }
        }
        self.pump_out(io, known);
    }

    /// Sends our symbols, so that the peer has so many.
    fn send_symbols(&mut self, io: &mut Io, until: usize) {
        let reconcile = self.reconcile.as_mut().expect("a reconciliation goes on");
        let Coding::Sent { mine, count } = &mut reconcile.coding else { return };
        let symbols = mine.symbols()[*count..until].to_vec();
        *count = until;
        let first = std::mem::take(&mut reconcile.first);
        self.send(io, Message::Symbols(Symbols { first, symbols }));
    }

    pub(super) fn receive_symbols(&mut self, io: &mut Io, known: &Known, symbols: Symbols, effects: &mut Vec<Effect>) {
        if symbols.first {
            if !self.follow_reconcile(known, effects) {
                return;
            }
            if let Some(reconcile) = &mut self.reconcile {
                reconcile.coding = Coding::Arrived { mine: None, theirs: Vec::new() };
            }
        }
        let key = self.key();
        match &mut self.reconcile {
            Some(Reconcile { coding: Coding::Arrived { mine, theirs }, comparing, head, .. })
                if !*comparing && theirs.len() + symbols.symbols.len() <= MAX_SYMBOLS =>
            {
                theirs.extend(symbols.symbols);
                *comparing = true;
                let request = StoreRequest::Solve {
                    replica: self.replica,
                    scope: self.scope.clone(),
                    mine: mine.clone(),
                    since: *head,
                    theirs: theirs.clone(),
                };
                io.store(key, request);
            }
            _ => effects.push(Effect::Violation("it sends symbols that nobody waits for".into())),
        }
    }

    pub(super) fn receive_solved(&mut self, io: &mut Io, solved: Solved, effects: &mut Vec<Effect>) {
        let key = self.key();
        let reconcile = self.reconcile.as_mut();
        match (solved, reconcile) {
            (Solved::More(more), Some(Reconcile { coding: Coding::Sent { count, .. }, .. }))
                if (*count + 1..=MAX_SYMBOLS).contains(&(more as usize)) =>
            {
                self.send_symbols(io, more as usize);
            }
            (Solved::Lacking(ids), Some(reconcile)) if matches!(reconcile.coding, Coding::Sent { .. }) => {
                reconcile.coding = Coding::Not;
                self.coded = true;
                if ids.is_empty() {
                    reconcile.over = true;
                } else {
                    reconcile.comparing = true;
                    let request = StoreRequest::Find { replica: self.replica, scope: self.scope.clone(), ids };
                    io.store(key, request);
                }
            }
            _ => effects.push(Effect::Violation("it solves what nobody has asked".into())),
        }
    }
}
