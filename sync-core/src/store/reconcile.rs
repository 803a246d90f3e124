//! Range-based set reconciliation (Meyer 2022), one step of it: a peer's claims against what is here.
//!
//! | claim about a range | here | answer |
//! |---|---|---|
//! | digest | the same | nothing |
//! | digest of nothing | something | send it |
//! | digest | nothing | `Final` of nothing: send me yours |
//! | digest | few entries | `Ids` of them |
//! | digest | many | digests of parts of the range |
//! | ids | | send what they lack; `Final` of mine if I lack some |
//! | final ids | | send what they lack |
//!
//! PROTOCOL.md, "Reconciliation", is the specification.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::types::{Claim, Have, Missing, Position, Reconciled, Scope, ShortId, StoreError};
use crate::model::{Digest, SlotRange, Summary};

/// Into how many parts the whole is cut at first: most of a large equal set is settled at once.
pub const FIRST_PARTS: usize = 32;

/// Into how many parts a range that differs is cut.
pub const PARTS: usize = 16;

/// A range with at most so many entries is answered with their ids.
pub const LEAF: u64 = 32;

/// At most so many claims come in one message: it bounds the work that a message buys.
pub const MAX_CLAIMS: usize = 256;

/// At most so many claims are answered at a time. What is left is found by the next pass, as the
/// roots still differ.
pub const MAX_ANSWERS: usize = 8_192;

/// At most so many ids are listed for a range. More entries than that in a range that cannot be cut are
/// many authors' at one key; both sides then send all of them.
pub const MAX_IDS: u64 = 8_192;

/// How many rows of a change log are looked through for entries that symbols name, and four more for each of them, before
/// all places are: a few milliseconds for a few, a fifth of a second for as many as symbols can tell.
pub const LOOK_BACK: usize = 4_096;

/// How wide the steps of a reconciliation are. Each side may choose its own; a simulation makes them small, so that few
/// entries need many rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Widths {
    /// See [`FIRST_PARTS`].
    pub first_parts: usize,
    /// See [`PARTS`].
    pub parts: usize,
    /// See [`LEAF`].
    pub leaf: u64,
    /// See [`MAX_IDS`].
    pub max_ids: u64,
    /// See [`MAX_ANSWERS`].
    pub max_answers: usize,
    /// See [`LOOK_BACK`].
    #[serde(default = "look_back")]
    pub look_back: usize,
}

fn look_back() -> usize {
    LOOK_BACK
}

impl Default for Widths {
    fn default() -> Self {
        Self {
            first_parts: FIRST_PARTS,
            parts: PARTS,
            leaf: LEAF,
            max_ids: MAX_IDS,
            max_answers: MAX_ANSWERS,
            look_back: LOOK_BACK,
        }
    }
}

/// What a reconciliation reads of a replica.
pub trait View {
    /// How wide its steps are.
    fn widths(&self) -> Widths {
        Widths::default()
    }

    /// The summary of the entries in `range`.
    fn summary(&self, range: &SlotRange) -> Result<Summary, StoreError>;

    /// The summaries of the entries in ranges that ascend and do not overlap.
    fn summaries(&self, ranges: &[SlotRange]) -> Result<Vec<Summary>, StoreError> {
        ranges.iter().map(|range| self.summary(range)).collect()
    }

    /// Cuts `range`, whose summary is `total`, into at most `parts` ranges of about the same number of entries.
    fn split(&self, range: &SlotRange, total: &Summary, parts: usize) -> Result<Vec<(SlotRange, Summary)>, StoreError>;

    /// The ids of the entries in `range`.
    fn ids(&self, range: &SlotRange) -> Result<Vec<ShortId>, StoreError>;
}

/// The claims that begin a reconciliation over `scope`.
pub fn first_claims(view: &dyn View, scope: &Scope) -> Result<Vec<Claim>, StoreError> {
    let mut sums = Vec::with_capacity(scope.ranges().len());
    for range in scope.ranges() {
        sums.push(view.summary(range)?);
    }
    let total = sums.iter().map(Summary::count).sum::<u64>().max(1);
    let mut claims = Vec::new();
    for (range, sum) in scope.ranges().iter().zip(sums) {
        let parts = (view.widths().first_parts as u128 * u128::from(sum.count())).div_ceil(u128::from(total)) as usize;
        for (range, summary) in view.split(range, &sum, parts.max(1))? {
            claims.push(Claim { range, have: Have::Digest(summary.digest()) });
        }
    }
    Ok(claims)
}

/// Answers a message of claims. An error is the sender's fault, or the store's.
pub fn reconcile(view: &dyn View, scope: &Scope, claims: Vec<Claim>) -> Result<Reconciled, StoreError> {
    check(&claims)?;
    let mut answer = Reconciled::default();
    let clamp = |claim: Claim| (scope.clamp(&claim.range), claim);
    let claims: Vec<(Vec<SlotRange>, Claim)> = claims.into_iter().map(clamp).collect();
    let digests = claims.iter().filter(|(_, claim)| matches!(claim.have, Have::Digest(_)));
    let digests: Vec<SlotRange> = digests.flat_map(|(parts, _)| parts).cloned().collect();
    let mut sums = view.summaries(&digests)?.into_iter();
    for (parts, Claim { range, have }) in claims {
        match have {
            Have::Digest(theirs) => {
                let comparable = parts.first() == Some(&range);
                for part in parts {
                    if answer.claims.len() >= view.widths().max_answers {
                        answer.is_cut = true;
                        return Ok(answer);
                    }
                    let mine = sums.next().expect("a summary of each part");
                    compare(view, part, &mine, theirs, comparable, &mut answer)?;
                }
            }
            Have::Ids(theirs) => {
                let theirs: HashSet<ShortId> = theirs.into_iter().collect();
                let mut common = 0;
                let mut mine = Vec::with_capacity(parts.len());
                for part in parts {
                    let ids = view.ids(&part)?;
                    common += ids.iter().filter(|id| theirs.contains(*id)).count();
                    mine.push((part, ids));
                }
                let lacking = common < theirs.len();
                for (part, ids) in mine {
                    if ids.iter().any(|id| !theirs.contains(id)) {
                        answer.missing.push(Missing {
                            range: part.clone(),
                            except: sorted(&theirs),
                            until: Position::LAST,
                        });
                    }
                    if lacking && ids.len() as u64 > view.widths().max_ids {
                        answer.claims.push(Claim { range: part, have: Have::Final(Vec::new()) });
                    } else if lacking {
                        answer.claims.push(Claim { range: part, have: Have::Final(ids) });
                    }
                }
            }
            Have::Final(theirs) => {
                let theirs: HashSet<ShortId> = theirs.into_iter().collect();
                for part in parts {
                    if view.ids(&part)?.iter().any(|id| !theirs.contains(id)) {
                        answer.missing.push(Missing { range: part, except: sorted(&theirs), until: Position::LAST });
                    }
                }
            }
        }
    }
    Ok(answer)
}

/// Answers a digest of `range`; it is `comparable` when it is about exactly this range.
fn compare(
    view: &dyn View,
    range: SlotRange,
    mine: &Summary,
    theirs: Digest,
    comparable: bool,
    answer: &mut Reconciled,
) -> Result<(), StoreError> {
    if comparable && mine.digest() == theirs {
        return Ok(());
    }
    if theirs.count == 0 {
        if mine.count() > 0 {
            answer.missing.push(Missing { range, except: Vec::new(), until: Position::LAST });
        }
        return Ok(());
    }
    if mine.count() == 0 {
        answer.claims.push(Claim { range, have: Have::Final(Vec::new()) });
        return Ok(());
    }
    if mine.count() > view.widths().leaf {
        let parts = view.split(&range, mine, view.widths().parts)?;
        if parts.len() > 1 {
            let digests =
                parts.into_iter().map(|(range, summary)| Claim { range, have: Have::Digest(summary.digest()) });
            answer.claims.extend(digests);
            return Ok(());
        }
    }
    if mine.count() > view.widths().max_ids {
        answer.missing.push(Missing { range: range.clone(), except: Vec::new(), until: Position::LAST });
        answer.claims.push(Claim { range, have: Have::Final(Vec::new()) });
        return Ok(());
    }
    let ids = view.ids(&range)?;
    answer.claims.push(Claim { range, have: Have::Ids(ids) });
    Ok(())
}

fn sorted(ids: &HashSet<ShortId>) -> Vec<ShortId> {
    let mut ids: Vec<ShortId> = ids.iter().copied().collect();
    ids.sort_unstable();
    ids
}

/// Claims must be at most [`MAX_CLAIMS`], ascending and disjoint.
fn check(claims: &[Claim]) -> Result<(), StoreError> {
    if claims.len() > MAX_CLAIMS {
        return Err(StoreError::Limit(format!("{} claims in one message; at most {MAX_CLAIMS}", claims.len())));
    }
    let in_order =
        claims.windows(2).all(|pair| pair[0].range.end.as_ref().is_some_and(|end| *end <= pair[1].range.start));
    if !in_order || claims.iter().any(|claim| claim.range.is_empty()) {
        return Err(StoreError::Limit("the claims of a message must be ascending and disjoint".into()));
    }
    Ok(())
}
