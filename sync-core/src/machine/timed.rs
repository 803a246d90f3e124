//! A map whose values have deadlines, in order: what is due is found without walking the rest, so that one input of
//! a node with a thousand peers costs as much as one of a node with two.
//!
//! Whatever may have changed is noted by the map itself, and its deadline is computed anew before it is asked for; so
//! none can be forgotten. A deadline that has moved on by itself, with the time, may be found due too early.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::{Deref, RangeInclusive},
    time::Duration,
};

#[derive(Debug)]
pub(super) struct Timed<K, V> {
    values: BTreeMap<K, V>,
    deadlines: BTreeMap<K, Duration>,
    order: BTreeSet<(Duration, K)>,
    touched: BTreeSet<K>,
}

impl<K, V> Default for Timed<K, V> {
    fn default() -> Self {
        Self { values: BTreeMap::new(), deadlines: BTreeMap::new(), order: BTreeSet::new(), touched: BTreeSet::new() }
    }
}

impl<K, V> Deref for Timed<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &Self::Target {
        &self.values
    }
}

impl<K: Ord + Copy, V> Timed<K, V> {
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.touched.insert(*key);
        self.values.get_mut(key)
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.touched.insert(key);
        self.values.insert(key, value)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.touched.insert(*key);
        self.values.remove(key)
    }

    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        self.touched.insert(key);
        self.values.entry(key)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.touch_all();
        self.values.values_mut()
    }

    pub fn range_mut(&mut self, range: RangeInclusive<K>) -> impl Iterator<Item = (&K, &mut V)> {
        self.touched.extend(self.values.range(range.clone()).map(|(key, _)| *key));
        self.values.range_mut(range)
    }

    /// Something else has changed that this one's deadline depends on.
    pub fn touch(&mut self, key: K) {
        self.touched.insert(key);
    }

    /// Something else has changed that all deadlines depend on.
    pub fn touch_all(&mut self) {
        self.touched.extend(self.values.keys().copied());
    }

    /// What may have changed since the deadlines were last settled.
    pub fn touched(&self) -> impl Iterator<Item = (&K, &V)> {
        self.touched.iter().filter_map(|key| self.values.get_key_value(key))
    }

    /// The same with what is gone, keys only.
    pub fn touched_keys(&self) -> impl Iterator<Item = K> {
        self.touched.iter().copied()
    }

    /// Computes the deadlines of what may have changed.
    pub fn settle(&mut self, mut deadline: impl FnMut(&K, &V) -> Duration) {
        for key in std::mem::take(&mut self.touched) {
            let at = self.values.get(&key).map_or(Duration::MAX, |value| deadline(&key, value));
            let before = match at {
                Duration::MAX => self.deadlines.remove(&key),
                at => self.deadlines.insert(key, at),
            };
            if before != Some(at) {
                if let Some(before) = before {
                    self.order.remove(&(before, key));
                }
                if at != Duration::MAX {
                    self.order.insert((at, key));
                }
            }
        }
    }

    /// The soonest deadline.
    pub fn soonest(&self) -> Option<Duration> {
        debug_assert!(self.touched.is_empty(), "deadlines are settled before they are asked for");
        self.order.first().map(|(at, _)| *at)
    }

    /// What is due. Each is looked at again when it is settled next, whether it was changed or not.
    pub fn due(&mut self, now: Duration) -> Vec<K> {
        let due: Vec<K> = self.order.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key).collect();
        self.touched.extend(due.iter().copied());
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_is_due_is_found_in_order_and_whatever_was_changed_is_settled_anew() {
        let mut timed = Timed::default();
        for n in 0..100u64 {
            timed.insert(n, millis(1000 - n));
        }
        timed.settle(|_, at| *at);
        assert_eq!(timed.soonest(), Some(millis(901)));
        assert_eq!(timed.due(millis(903)), [99, 98, 97]);
        *timed.get_mut(&98).unwrap() = millis(5000);
        timed.remove(&99);
        timed.entry(7).and_modify(|at| *at = millis(1));
        timed.settle(|_, at| *at);
        assert_eq!(timed.due(millis(903)), [7, 97]);
        timed.settle(|_, _| Duration::MAX);
        assert_eq!(timed.soonest(), Some(millis(904)));
        for at in timed.values_mut() {
            *at = Duration::MAX;
        }
        timed.settle(|_, at| *at);
        assert_eq!(timed.soonest(), None);
        assert_eq!(timed.len(), 99);
    }

    #[test]
    fn a_deadline_that_depends_on_something_else_follows_when_it_is_touched() {
        let mut timed = Timed::default();
        timed.insert(1u64, ());
        timed.insert(2, ());
        timed.settle(|_, ()| millis(10));
        timed.touch(1);
        timed.settle(|_, ()| millis(5));
        assert_eq!(timed.due(millis(9)), [1]);
        assert_eq!(timed.touched().map(|(key, ())| *key).collect::<Vec<_>>(), [1]);
        timed.touch_all();
        timed.settle(|_, ()| millis(7));
        timed.range_mut(1..=2).for_each(drop);
        timed.settle(|_, ()| millis(8));
        assert_eq!(timed.due(millis(8)).len(), 2);
    }
}
