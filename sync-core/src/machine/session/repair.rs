//! A session's part about differences: comparing roots, and reconciliation when they differ.

use std::{collections::VecDeque, iter::Peekable, time::Duration};

use super::{Anew, Coding, Effect, Known, Reconcile, Session};
use crate::{
    canary::{self, Canary},
    machine::{
        handshake::Role,
        io::StoreRequest,
        limits::*,
        out::Io,
        wire::{Mark, Message, Ranges},
    },
    model::Digest,
    store::{
        Claim, Have, Missing, Position, Reconciled,
        coded::{first_symbols, is_told},
    },
};

impl Session {
    /// Takes a peer's mark when everything that it sent before is here.
    pub(super) fn compare(
        &mut self,
        io: &mut Io,
        known: &Known,
        mark: &Mark,
        acknowledging: bool,
        effects: &mut Vec<Effect>,
    ) {
        self.compare_roots(io, known, mark, acknowledging, effects);
        // All has come by now that is to come. A grant may stand behind what is written by it, when it was signed anew, or
        // a reconciliation brought them.
        let is_whole = self.reconcile.is_none() && mark.root.is_some() && mark.durable == self.frames_sent;
        if self.is_one_way()
            && is_whole
            && let Some(rights) = self.unplaced.take()
            && !std::sync::Arc::ptr_eq(&rights, &known.rights)
        {
            self.take_anew(io, Anew::Reconciling);
        }
        // What was not accepted yet is to be offered again, so the position stays before it.
        let is_placed = self.unplaced.is_none() || !self.is_one_way();
        let holds = !self.early && self.is_sure() && is_placed && self.anew.is_none();
        if let (Some(through), Some(store), true) = (mark.through, self.their_store, holds) {
            effects.push(Effect::Received(store, through));
        }
    }

    fn compare_roots(
        &mut self,
        io: &mut Io,
        known: &Known,
        mark: &Mark,
        acknowledging: bool,
        effects: &mut Vec<Effect>,
    ) {
        self.uncompared = None;
        let Some(root) = mark.root.filter(|_| self.is_live()) else { return };
        self.their_count = root.count;
        if mark.durable != self.frames_sent {
            return;
        }
        let Some(ours) = self.root(known).filter(|_| self.has_sent_all(known)) else {
            // It is compared when the store has said, or when it turns out that nothing is left to send.
            self.uncompared = Some(*mark).filter(|_| !self.scope.is_nothing());
            return;
        };
        let is_equal = root == ours || canary::is_out(Canary::CompareCounts) && root.count == ours.count;
        if is_equal {
            self.tail = Some(known.head);
            if self.confirmed < known.head {
                self.confirmed = known.head;
                effects.push(Effect::Confirmed(known.head));
            }
            // A position that said nothing so far does so now.
            let (was_sure, crossed) = (self.is_sure(), self.told.take() == Some((self.durable, ours)));
            if !self.synced || !self.is_sure() {
                self.found_equal(effects);
            }
            if !acknowledging && (!was_sure || !mark.synced && !crossed) {
                let mark = self.mark(known);
                self.send(io, Message::Mark(mark));
            }
        } else {
            self.synced = false;
            if self.is_one_way() {
                self.gone_one_way = Some(known.head);
            } else if !(canary::is_out(Canary::IgnoreMismatch)
                || canary::is_out(Canary::NeglectParts) && self.is_partial())
            {
                self.mismatch(io, known);
            }
        }
    }

    /// The store has said what the root of the peer's part is.
    pub fn scope_root_read(&mut self, io: &mut Io, known: &Known, head: Option<Position>, root: Digest) -> Vec<Effect> {
        self.asking_root = false;
        self.scope_root = head.map(|head| (head, root));
        let mut effects = Vec::new();
        if self.root(known).is_some() && !self.synced {
            match self.uncompared.take() {
                Some(mark) => self.compare(io, known, &mark, false, &mut effects),
                None => {
                    let mark = self.mark(known);
                    self.send(io, Message::Mark(mark));
                }
            }
        }
        self.pump_out(io, known);
        effects
    }

    /// Compares a mark that came too early with what is true by now. The peer may have told us by it that roots are
    /// equal, and say so no more.
    pub fn compare_late(&mut self, io: &mut Io, known: &Known) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(mark) = self.uncompared
            && !self.synced
            && self.is_live()
            && self.is_drained()
            && self.has_sent_all(known)
            && mark.root == self.root(known)
        {
            self.compare(io, known, &mark, false, &mut effects);
        }
        effects
    }

    pub(super) fn mismatch(&mut self, io: &mut Io, known: &Known) {
        self.judge(io);
        if io.now.elapsed < self.retry_at {
            // A member of a part may have had more.
            self.diverged = !self.is_partial();
            self.next_check = self.next_check.min(self.retry_at);
        } else if self.leads() {
            self.lead_reconcile(io, known);
        } else {
            // The other side leads; it learns of the difference from our root.
            self.retry_at = io.now.elapsed + Duration::from_secs(1);
            let mark = self.mark(known);
            self.send(io, Message::Mark(mark));
        }
    }

    /// What the last reconciliation was good for. Only now, as all that was sent is acknowledged, is it
    /// known what was refused: whoever judges earlier sends the same entries again at once, for ever.
    pub(super) fn judge(&mut self, io: &Io) {
        if !std::mem::take(&mut self.judging) {
            return;
        }
        let moved = self.inserted_since > 0 || self.frames_sent > self.frames_at_start;
        // Nor is it known whether it was in vain before all was compared: then what was moved and refused counts together.
        if self.left_at.is_some() {
            return;
        }
        self.fruitless = if moved && self.refused_since == 0 { 0 } else { self.fruitless + 1 };
        // Roots that differ all the same do so because a side has what is not for the other.
        if self.refused_since == 0 {
            (self.unsure, self.unplaced) = (false, None);
        }
        if self.fruitless > 0 {
            // Of a part the roots may stay different for good: then once in a while is enough.
            let exponent = if self.is_partial() { 6 } else { self.fruitless.min(6) };
            let delay = Duration::from_secs(1 << exponent).min(CHECK_INTERVAL);
            self.retry_at = io.now.elapsed + delay;
        }
    }

    /// Time to compare roots again.
    pub fn check(&mut self, io: &mut Io, known: &Known) {
        self.next_check = io.now.elapsed + io.check_interval;
        if !self.is_live() || self.scope.is_nothing() || self.is_busy() {
            return;
        }
        if self.has_sent_all(known) {
            let mark = self.mark(known);
            self.send(io, Message::Mark(mark));
        }
    }

    pub(super) fn new_reconcile(&mut self, known: &Known) -> Reconcile {
        self.told = None;
        if self.left_at.is_none() {
            self.inserted_since = 0;
            self.refused_since = 0;
            self.frames_at_start = self.frames_sent;
        }
        Reconcile {
            head: known.head,
            first: false,
            coding: Coding::Not,
            rounds: 0,
            waiting: VecDeque::new(),
            waiting_len: 0,
            last: None,
            comparing: false,
            whole: false,
            must_answer: false,
            answer: Vec::new(),
            over: false,
            is_told: false,
        }
    }

    /// Who was asked for a session leads: when it answers, it knows already that something differs.
    pub(super) fn leads(&self) -> bool {
        self.role == Role::Acceptor
    }

    pub(super) fn lead_reconcile(&mut self, io: &mut Io, known: &Known) {
        let mut reconcile = self.new_reconcile(known);
        reconcile.first = true;
        reconcile.comparing = true;
        self.reconcile = Some(reconcile);
        let surplus = known.root.count.abs_diff(self.their_count);
        let fits = io.limits.symbols > 0 && surplus <= io.limits.symbols && is_told(surplus);
        let by_symbols = (fits && !self.coded).then(|| (known.head, first_symbols(surplus)));
        // A claim about more than this node may read is never found equal, and answered anew each time: where there are many
        // such, and an answer has its limits, nothing else would ever be compared.
        let scope = self.scope.cut(&self.readable);
        let request = StoreRequest::Lead { replica: self.replica, scope, by_symbols };
        io.store(self.key(), request);
    }

    /// The peer leads a reconciliation; false when it may not.
    pub(super) fn follow_reconcile(&mut self, known: &Known, effects: &mut Vec<Effect>) -> bool {
        if self.leads() || self.reconcile.as_ref().is_some_and(|it| !it.over) {
            effects.push(Effect::Violation("it begins a reconciliation out of turn".into()));
            return false;
        }
        let new = self.new_reconcile(known);
        self.reconcile = Some(new);
        true
    }

    pub(super) fn receive_ranges(&mut self, io: &mut Io, known: &Known, ranges: Ranges, effects: &mut Vec<Effect>) {
        if ranges.first && !self.follow_reconcile(known, effects) {
            return;
        }
        // Whoever was asked for more symbols may not have them, and go on with ranges.
        let waits = |it: &&mut Reconcile| {
            !it.over && !it.whole && !it.first && (matches!(it.coding, Coding::Not) || !it.comparing)
        };
        let Some(reconcile) = self.reconcile.as_mut().filter(waits) else {
            effects.push(Effect::Violation("it goes on with a reconciliation that is over".into()));
            return;
        };
        // What is claimed twice would be answered twice, in messages that are none.
        if let (Some(last), Some(next)) = (&reconcile.last, ranges.claims.first())
            && last.end.as_ref().is_none_or(|end| *end > next.range.start)
        {
            effects.push(Effect::Violation("the ranges of its reconciliation do not ascend".into()));
            return;
        }
        reconcile.last = match ranges.more {
            true => ranges.claims.last().map(|claim| claim.range.clone()).or(reconcile.last.take()),
            false => None,
        };
        // Where our symbols did not tell, the peer says so by claims.
        reconcile.coding = Coding::Not;
        reconcile.must_answer |= ranges.claims.iter().any(|claim| !matches!(claim.have, Have::Final(_)));
        reconcile.waiting_len += ranges.claims.iter().map(Claim::len).sum::<usize>();
        reconcile.waiting.extend(ranges.claims);
        reconcile.whole = !ranges.more;
        let too_long = reconcile.waiting_len > io.limits.round_len + MAX_FRAME_LEN;
        if reconcile.waiting.len() > io.limits.round_claims + MAX_CLAIMS || too_long {
            effects.push(Effect::Violation("its reconciliation has too many ranges".into()));
            return;
        }
        self.pump_reconcile(io);
    }

    /// Of the claims that begin a reconciliation, as many as fit, from where those of the last one ended: with a part of
    /// many ranges the same ones would be compared each time otherwise, and the others never.
    pub(super) fn next_part(&mut self, io: &Io, mut claims: Vec<Claim>) -> Vec<Claim> {
        if let Some(at) = self.left_at.take() {
            let is_left = |claim: &Claim| claim.range.end.as_ref().is_none_or(|end| *end > at);
            let done = claims.iter().take_while(|claim| !is_left(claim)).count();
            // When there is nothing behind it any more, it begins anew.
            claims.drain(..if done < claims.len() { done } else { 0 });
        }
        let count = fitting(&claims, &io.limits);
        self.left_at = claims.get(count).map(|claim| claim.range.start.clone());
        claims.truncate(count);
        if self.left_at.is_some() {
            self.leave_out(io);
        }
        claims
    }

    /// Something is left out of a reconciliation. What differs there is found when roots are compared, as they differ
    /// then; with entries that go one way only they may differ for good.
    fn leave_out(&mut self, io: &Io) {
        match (self.gives, self.takes) {
            _ if canary::is_out(Canary::LeaveOutInSilence) => {}
            (true, true) => self.left_out = true,
            (true, false) => self.from_start = true,
            _ => self.take_anew(io, Anew::FromStart),
        }
    }

    fn take_anew(&mut self, io: &Io, anew: Anew) {
        self.anew = Some(anew);
        self.next_check = io.now.elapsed;
    }

    pub(super) fn pump_reconcile(&mut self, io: &mut Io) {
        let key = self.key();
        let Some(reconcile) = self.reconcile.as_mut() else { return };
        if reconcile.comparing || reconcile.over {
            return;
        }
        if !reconcile.waiting.is_empty() {
            let claims: Vec<Claim> = reconcile.waiting.drain(..reconcile.waiting.len().min(MAX_CLAIMS)).collect();
            reconcile.waiting_len -= claims.iter().map(Claim::len).sum::<usize>();
            reconcile.comparing = true;
            let request = StoreRequest::Reconcile { replica: self.replica, scope: self.scope.clone(), claims };
            io.store(key, request);
            return;
        }
        if !reconcile.whole {
            return;
        }
        // The peer's round is compared. Answer it, in as many messages as it takes.
        reconcile.whole = false;
        reconcile.rounds += 1;
        let first = std::mem::take(&mut reconcile.first);
        let mut answer = std::mem::take(&mut reconcile.answer);
        let fits = if reconcile.rounds < MAX_ROUNDS { fitting(&answer, &io.limits) } else { 0 };
        if fits < answer.len() {
            answer.truncate(fits);
            self.leave_out(io);
            if self.anew.is_some() {
                return;
            }
        }
        let Some(reconcile) = self.reconcile.as_mut() else { return };
        let must_answer = std::mem::take(&mut reconcile.must_answer);
        let asks = answer.iter().any(|claim| !matches!(claim.have, Have::Final(_)));
        reconcile.over = !asks;
        if !must_answer {
            return;
        }
        let mut first = first;
        let mut rest = answer.into_iter().peekable();
        loop {
            let claims = next_claims(&io.limits, &mut rest);
            let more = rest.peek().is_some();
            // A round of several messages begins one reconciliation, not several.
            let begins = first;
            first &= canary::is_out(Canary::BeginTwice);
            self.send(io, Message::Ranges(Ranges { first: begins, more, claims }));
            if !more {
                break;
            }
        }
    }

    /// Whether a round of the peer's is compared that asks for no answer: with it the reconciliation is over for the peer,
    /// which may begin another before it is over here.
    pub(super) fn is_last_round_compared(&self) -> bool {
        self.reconcile.as_ref().is_some_and(|it| it.whole && !it.must_answer && !it.over)
    }

    /// Claims were compared.
    pub fn reconciled(&mut self, io: &mut Io, known: &Known, reconciled: Reconciled) -> Vec<Effect> {
        if self.gives {
            self.found_missing(reconciled.missing);
        }
        if let Some(reconcile) = self.reconcile.as_mut() {
            reconcile.comparing = false;
            reconcile.answer.extend(reconciled.claims);
        }
        if reconciled.is_cut {
            self.leave_out(io);
        }
        self.pump_reconcile(io);
        self.pump_out(io, known);
        // What has arrived may have waited for that.
        let mut effects = Vec::new();
        self.pump_in(io, known, &mut effects);
        effects
    }

    /// The peer lacks these. What came since the reconciliation began is not sent with them: it follows with the change log.
    pub(super) fn found_missing(&mut self, missing: Vec<Missing>) {
        let until = self.reconcile.as_ref().map_or(Position::LAST, |reconcile| reconcile.head);
        self.missing.extend(missing.into_iter().map(|missing| Missing { until, ..missing }));
    }

    /// Both directions are done and all that was found missing is read: the position is valid now. Answers whether
    /// the peer must be told, if there is nothing to send with it.
    pub(super) fn finish_reconcile(&mut self) -> bool {
        let reconcile = self.reconcile.take().expect("a reconciliation is over");
        if std::mem::take(&mut self.from_start) {
            (self.tail, self.echo_until) = (Some(Position(0)), reconcile.head);
        } else if self.gives {
            self.tail = Some(self.tail.map_or(reconcile.head, |sent| sent.max(reconcile.head)));
        }
        self.judging = !canary::is_out(Canary::ResendRefused);
        !reconcile.is_told
    }

    /// Whether nothing but what was found missing is to be sent.
    pub(super) fn is_reconcile_over(&self) -> bool {
        self.missing.is_empty() && self.reconcile.as_ref().is_some_and(|reconcile| reconcile.over)
    }
}

/// How many claims one round may have of these.
fn fitting(claims: &[Claim], limits: &Limits) -> usize {
    let mut len = 0;
    // One claim at least, or nothing would ever be compared.
    let fits = claims.iter().take(limits.round_claims).take_while(|claim| {
        len += claim.len();
        len <= limits.round_len || len == claim.len()
    });
    fits.count()
}

/// The claims of one message: so many that neither their number nor, as ids can be many, their length is too much.
fn next_claims(limits: &Limits, rest: &mut Peekable<impl Iterator<Item = Claim>>) -> Vec<Claim> {
    let (mut claims, mut len) = (Vec::new(), 0);
    while claims.len() < limits.claims
        && let Some(claim) = rest.next_if(|claim| claims.is_empty() || len + claim.len() <= limits.entries_frame_len)
    {
        len += claim.len();
        claims.push(claim);
    }
    claims
}
