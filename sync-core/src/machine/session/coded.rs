//! A session's part about coded symbols: the first way to find a difference, without ranges.
//!
//! The leader sends its first symbols; the other side subtracts its own. Either they come apart, and both
//! sides know what to send; or it asks for more; or it goes on with claims about ranges.

use super::{Coding, Effect, Known, Reconcile, Session};
use crate::{
    machine::{
        io::{Step, StoreRequest},
        limits::MESSAGE_SYMBOLS,
        out::Io,
        wire::{Message, Solved, Symbols},
    },
    store::{
        Missing,
        coded::{CodedSet, MAX_SYMBOLS},
    },
};

impl Session {
    /// A step of the store's is done.
    pub fn stepped(&mut self, io: &mut Io, known: &Known, mine: Option<CodedSet>, step: Step, missing: Vec<Missing>) {
        if self.gives {
            self.found_missing(missing);
        }
        let takes = self.takes;
        let reconcile = self.reconcile.as_mut().expect("a reconciliation goes on while the store works for it");
        reconcile.comparing = false;
        match step {
            Step::Symbols(count) => {
                let mine = mine.expect("symbols are answered where there are some");
                // Those that were sent before were of another moment.
                reconcile.coding = Coding::Sent { mine, count: 0 };
                self.send_symbols(io, count);
            }
            Step::More(count) => self.ask_for_more(io, count, mine),
            Step::Lacking(ids) => {
                reconcile.coding = Coding::Not;
                reconcile.over = true;
                // The position is told with the acknowledgement of what comes.
                reconcile.is_told = !ids.is_empty() && takes;
                self.coded = true;
                self.send(io, Message::Solved(Solved::Lacking(ids)));
            }
            Step::Found => reconcile.over = true,
            Step::Claims(claims) => {
                reconcile.coding = Coding::Not;
                reconcile.must_answer = true;
                reconcile.whole = true;
                let claims = self.next_part(io, claims);
                if let Some(reconcile) = &mut self.reconcile {
                    reconcile.answer = claims;
                }
                self.pump_reconcile(io);
            }
        }
        self.pump_out(io, known);
    }

    /// Sends our symbols, so that the peer has so many.
    fn send_symbols(&mut self, io: &mut Io, until: usize) {
        let reconcile = self.reconcile.as_mut().expect("a reconciliation goes on");
        let Coding::Sent { mine, count } = &mut reconcile.coding else { return };
        let (mine, mut from) = (mine.clone(), std::mem::replace(count, until));
        let mut first = std::mem::take(&mut reconcile.first);
        while from < until {
            let end = until.min(from + MESSAGE_SYMBOLS);
            let symbols = mine.symbols()[from..end].to_vec();
            let symbols = Symbols { first, more: end < until, from: from as u32, symbols };
            self.send(io, Message::Symbols(symbols));
            (first, from) = (false, end);
        }
    }

    fn ask_for_more(&mut self, io: &mut Io, count: usize, ours: Option<CodedSet>) {
        let key = self.key();
        let Some(reconcile) = &mut self.reconcile else { return };
        let Coding::Arrived { mine, wanted, whole, again, .. } = &mut reconcile.coding else { return };
        (*wanted, *whole, *again) = (count, false, true);
        *mine = ours.filter(|ours| ours.symbols().len() >= count);
        if mine.is_none() {
            // They are made while the peer makes its own.
            io.store(key, StoreRequest::Code { replica: self.replica, since: reconcile.head, count });
        }
        self.send(io, Message::Solved(Solved::More(count as u32)));
    }

    pub(super) fn receive_symbols(&mut self, io: &mut Io, known: &Known, symbols: Symbols, effects: &mut Vec<Effect>) {
        if symbols.first {
            if !self.follow_reconcile(known, effects) {
                return;
            }
            if let Some(reconcile) = &mut self.reconcile {
                reconcile.coding =
                    Coding::Arrived { mine: None, theirs: Vec::new(), wanted: 1, whole: false, again: false };
            }
        }
        let is_next = match &mut self.reconcile {
            Some(Reconcile { coding: Coding::Arrived { theirs, wanted, whole: whole @ false, again, .. }, .. }) => {
                if std::mem::take(again) && symbols.from == 0 {
                    theirs.clear();
                }
                let is_next = theirs.len() == symbols.from as usize;
                theirs.extend(symbols.symbols);
                *whole = !symbols.more;
                is_next && (symbols.more || theirs.len() >= *wanted)
            }
            _ => false,
        };
        match is_next {
            true => self.solve(io),
            false => effects.push(Effect::Violation("it sends symbols that nobody waits for".into())),
        }
    }

    /// Compares the peer's symbols with ours, when all of both are here.
    fn solve(&mut self, io: &mut Io) {
        let key = self.key();
        let Some(Reconcile { coding: Coding::Arrived { mine, theirs, whole: true, .. }, comparing, head, .. }) =
            &mut self.reconcile
        else {
            return;
        };
        if !std::mem::replace(comparing, true) {
            let request = StoreRequest::Solve {
                replica: self.replica,
                scope: self.scope.clone(),
                mine: mine.clone(),
                since: *head,
                theirs: theirs.clone(),
            };
            io.store(key, request);
        }
    }

    pub(super) fn receive_solved(&mut self, io: &mut Io, solved: Solved, effects: &mut Vec<Effect>) {
        let key = self.key();
        match (solved, self.reconcile.as_mut()) {
            (
                Solved::More(more),
                Some(Reconcile { coding: Coding::Sent { mine, count }, comparing: comparing @ false, head, .. }),
            ) if (*count + 1..=MAX_SYMBOLS).contains(&(more as usize)) => {
                let more = more as usize;
                if more <= mine.symbols().len() {
                    self.send_symbols(io, more);
                } else {
                    *comparing = true;
                    let by_symbols = Some((*head, more));
                    io.store(key, StoreRequest::Lead { replica: self.replica, scope: self.scope.clone(), by_symbols });
                }
            }
            (
                Solved::Lacking(ids),
                Some(reconcile @ Reconcile { coding: Coding::Sent { .. }, comparing: false, .. }),
            ) => {
                reconcile.coding = Coding::Not;
                self.coded = true;
                if ids.is_empty() {
                    reconcile.over = true;
                    reconcile.is_told = self.takes;
                } else {
                    reconcile.comparing = true;
                    // The peer's part is over: if ranges must tell where some are, they begin anew.
                    reconcile.first = true;
                    let request = StoreRequest::Find { replica: self.replica, scope: self.scope.clone(), ids };
                    io.store(key, request);
                }
            }
            _ => effects.push(Effect::Violation("it solves what nobody has asked".into())),
        }
    }
}
